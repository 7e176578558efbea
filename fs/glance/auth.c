/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/glance/auth.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/glance/keystone.h"
#include "fs/glance/secret.h"
#include "fs/glance/url.h"
#include "qcow/base/thread.h"

enum {
    SPARE_S = 60,                    /* a token with less left is renewed */
    WAIT_MS = 200,                   /* how soon a waiting thread sees that it is cancelled */
    RETRIES = 3,                     /* of a login that Keystone was too busy for */
    LIFETIME_MAX_S = 30 * 24 * 3600, /* one that says it lives longer is renewed all the same */
};

struct auth {
    const struct glance_config *config;
    struct mutex lock;
    struct cond changed;
    /* Guarded by lock. */
    bool is_logging_in;
    uint64_t attempt; /* counts logins, good and bad */
    uint64_t login;   /* the attempt that @now comes from; 0: none */
    int64_t end_ns;   /* of the token, in monotonic_ns() */
    struct login now;
    int failed_code; /* of the last attempt, or 0 */
    struct error failed;
};

int auth_create(const struct glance_config *config, struct auth **ret_auth, struct error *err)
{
    struct auth *auth = calloc(1, sizeof(*auth));
    if (!auth)
        return error_set(err, -ENOMEM, "out of memory");
    auth->config = config;
    mutex_init(&auth->lock);
    cond_init(&auth->changed);
    *ret_auth = auth;
    return 0;
}

void auth_destroy(struct auth *auth)
{
    if (!auth)
        return;
    login_fini(&auth->now);
    cond_fini(&auth->changed);
    mutex_fini(&auth->lock);
    free(auth);
}

void access_fini(struct access *access)
{
    secret_free(access->token);
    free(access->endpoint);
    free(access->project_id);
    free(access->user_id);
    *access = (struct access){0};
}

static int copy_login(const struct login *login, uint64_t number, struct access *ret_access,
                      struct error *err)
{
    struct access access = {
        .token = secret_copy(login->token, strlen(login->token)),
        .endpoint = strdup(login->endpoint),
        .project_id = strdup(login->project_id),
        .user_id = strdup(login->user_id),
        .login = number,
    };
    if (!access.token || !access.endpoint || !access.project_id || !access.user_id) {
        access_fini(&access);
        return error_set(err, -ENOMEM, "out of memory");
    }
    *ret_access = access;
    return 0;
}

/* One login, and more if Keystone cannot just now. */
static int log_in(struct auth *auth, struct http *http, const struct glance_cancel *cancel,
                  struct login *ret_login, struct error *err)
{
    int r = 0;
    for (unsigned i = 0; i < RETRIES; i++) {
        r = i > 0 ? http_pause_retry(cancel, err) : 0;
        if (r < 0)
            return r;
        r = keystone_login(http, auth->config, cancel, ret_login, err);
        if (r != -EIO)
            return r;
    }
    return r;
}

/* Waits for the thread that logs in: 0, or why it failed, or -EINTR. */
static int wait_for_login_locked(struct auth *auth, const struct glance_cancel *cancel,
                                 struct error *err) REQUIRES(auth->lock)
{
    uint64_t attempt = auth->attempt;
    while (auth->is_logging_in && auth->attempt == attempt) {
        if (cancel && cancel->is_cancelled && cancel->is_cancelled(cancel->ctx))
            return error_set(err, -EINTR, "cancelled");
        cond_wait_until(&auth->changed, &auth->lock, monotonic_ns() + WAIT_MS * (int64_t)1000000);
    }
    /* That one was cancelled: this says nothing to us. */
    if (auth->failed_code == 0 || auth->failed_code == -EINTR)
        return 0;
    return error_set(err, auth->failed_code, "%s", auth->failed.text);
}

static bool is_fresh_locked(const struct auth *auth) REQUIRES(auth->lock)
{
    return auth->login && auth->end_ns - monotonic_ns() > SPARE_S * (int64_t)1000000000;
}

static void publish_locked(struct auth *auth, struct login *login, int code,
                           const struct error *failed) REQUIRES(auth->lock)
{
    auth->is_logging_in = false;
    auth->attempt++;
    auth->failed_code = code;
    auth->failed = *failed;
    if (code == 0) {
        login_fini(&auth->now);
        auth->now = *login;
        *login = (struct login){0};
        auth->login = auth->attempt;
        /* Both of its times are the server's, who may say anything. */
        int64_t lifetime_s = auth->now.lifetime_s > 0 ? auth->now.lifetime_s : 0;
        if (lifetime_s > LIFETIME_MAX_S)
            lifetime_s = LIFETIME_MAX_S;
        auth->end_ns = monotonic_ns() + lifetime_s * 1000000000;
    }
    cond_wake_all(&auth->changed);
}

/* Drops the lock while it talks to Keystone. */
static int log_in_locked(struct auth *auth, struct http *http, const struct glance_cancel *cancel,
                         struct error *err) REQUIRES(auth->lock)
{
    struct login login = {0};
    struct error failed = {0};
    auth->is_logging_in = true;
    mutex_unlock(&auth->lock);
    int r = log_in(auth, http, cancel, &login, &failed);
    mutex_lock(&auth->lock);
    publish_locked(auth, &login, r, &failed);
    return r < 0 ? error_set(err, r, "%s", failed.text) : 0;
}

static int get_locked(struct auth *auth, struct http *http, const struct glance_cancel *cancel,
                      struct access *ret_access, struct error *err) REQUIRES(auth->lock)
{
    /* A new token is used even if it lives for less than the spare time. */
    uint64_t before = auth->login;
    while (!is_fresh_locked(auth) && (auth->login == 0 || auth->login == before)) {
        int r = auth->is_logging_in ? wait_for_login_locked(auth, cancel, err)
                                    : log_in_locked(auth, http, cancel, err);
        if (r < 0)
            return r;
    }
    return copy_login(&auth->now, auth->login, ret_access, err);
}

static int get_without_keystone(const struct glance_config *config, struct access *ret_access,
                                struct error *err)
{
    *ret_access = (struct access){.endpoint = url_image_base(config->endpoint_override)};
    return ret_access->endpoint ? 0 : error_set(err, -ENOMEM, "out of memory");
}

int auth_get(struct auth *auth, struct http *http, const struct glance_cancel *cancel,
             struct access *ret_access, struct error *err)
{
    if (auth->config->auth_type == GLANCE_AUTH_NONE)
        return get_without_keystone(auth->config, ret_access, err);
    mutex_lock(&auth->lock);
    int r = get_locked(auth, http, cancel, ret_access, err);
    mutex_unlock(&auth->lock);
    return r;
}

void auth_refused(struct auth *auth, uint64_t login)
{
    mutex_lock(&auth->lock);
    if (auth->login == login)
        auth->login = 0;
    mutex_unlock(&auth->lock);
}
