/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One request to Glance: token, retries, and what its answers mean.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "fs/glance/image_internal.h"
#include "qcow/base/cleanup.h"

enum { URL_MAX = 4096 };

bool call_is_passing(long status)
{
    return (status >= 500 && status != 507) || status == 408 || status == 429;
}

/* Whether an answer to a POST says that no image was made by it, nor is there one of that id. */
static bool is_clean_refusal(long status)
{
    return status >= 400 && status < 500 && status != 409 && !call_is_passing(status);
}

/* A service, or a proxy, may quote what it was sent. */
static void hide_token(struct http_answer *answer, const char *token)
{
    size_t len = token ? strlen(token) : 0;
    char *at = answer->body;
    while (len > 0 && at && (at = strstr(at, token))) {
        memset(at, '*', len);
        at += len;
    }
}

static int call_with(struct glance_image *image, const struct call *call,
                     const struct access *access, const struct glance_cancel *cancel,
                     struct http_answer *ret_answer, struct error *err)
{
    char url[URL_MAX];
    int n = snprintf(url, sizeof(url), "%s/v2/images%s", access->endpoint, call->path);
    if (n < 0 || n >= URL_MAX)
        return error_set(err, -EINVAL, "the image service's address is too long");
    const struct http_request request = {
        .method = call->method,
        .url = url,
        .token = access->token,
        .content_type = call->content_type,
        .body = call->body,
        .upload = call->upload,
    };
    int r = http_do(image->http, &request, cancel, ret_answer, err);
    if (r == 0)
        hide_token(ret_answer, access->token);
    if (strcmp(call->method, "POST") == 0 && http_was_sent(image->http) &&
        (r < 0 || !is_clean_refusal(ret_answer->status))) {
        image->is_made = true;
        image->is_unsure = r < 0 || ret_answer->status >= 500;
    }
    /* What the reader of the disk says, or a cancel, is no news of Glance. */
    bool is_connection = r == -ECONNRESET || r == -ECONNREFUSED || r == -EHOSTUNREACH ||
                         r == -ETIMEDOUT || r == -EPROTO;
    if (is_connection)
        error_prefix(err, "Glance at '%s'", access->endpoint);
    return r;
}

int call_once(struct glance_image *image, const struct call *call,
              const struct glance_cancel *cancel, struct http_answer *ret_answer, struct error *err)
{
    struct auth *auth = image->glance->auth;
    for (bool is_second = false;; is_second = true) {
        struct access access;
        int r = auth_get(auth, image->http, cancel, &access, err);
        if (r < 0)
            return r;
        r = call_with(image, call, &access, cancel, ret_answer, err);
        bool is_refused = r == 0 && ret_answer->status == 401;
        uint64_t login = access.login;
        access_fini(&access);
        if (!is_refused)
            return r;
        if (is_second || login == 0) {
            char text[ANSWER_TEXT_MAX];
            answer_message(ret_answer, image->glance->config, NULL, text);
            http_answer_fini(ret_answer);
            return error_set(err, -EACCES, "Glance accepts no token of ours: %s", text);
        }
        /* Run out early, revoked; or Glance could not ask Keystone, which we do now. */
        http_answer_fini(ret_answer);
        auth_refused(auth, login);
    }
}

static bool is_passing_code(int code)
{
    return code == -ECONNRESET || code == -ECONNREFUSED;
}

int call_safely(struct glance_image *image, const struct call *call,
                const struct glance_cancel *cancel, struct http_answer *ret_answer,
                struct error *err)
{
    for (unsigned i = 1;; i++) {
        int r = call_once(image, call, cancel, ret_answer, err);
        bool is_passing = r == 0 ? call_is_passing(ret_answer->status) : is_passing_code(r);
        if (!is_passing || i == TRIES)
            return r;
        if (r == 0)
            http_answer_fini(ret_answer);
        r = http_pause_retry(cancel, err);
        if (r < 0)
            return r;
    }
}

/* 413 has several meanings, which only the words tell. */
static int code_of_413(const struct http_answer *answer, const char *text)
{
    if (strcasestr(text, "media is full"))
        return -ENOSPC;
    /* image_size_cap; or a proxy, which knows of no quota. */
    if (strcasestr(text, "too large") || !answer_is_from_service(answer))
        return -EFBIG;
    return -EDQUOT;
}

static int code_of(const struct http_answer *answer, const char *text)
{
    switch (answer->status) {
    case 400:
    case 415:
        return -EINVAL;
    case 403:
        return -EPERM;
    case 404:
    case 410:
        return -ECANCELED;
    case 409:
        return -EBUSY;
    case 413:
        return code_of_413(answer, text);
    case 507:
        return -ENOSPC;
    }
    return -EIO;
}

int call_refused(const struct glance_image *image, const struct http_answer *answer,
                 const char *what, struct error *err)
{
    char text[ANSWER_TEXT_MAX];
    answer_message(answer, image->glance->config, NULL, text);
    int code = code_of(answer, text);
    if (code == -ECANCELED)
        return error_set(err, code, "image %s was deleted meanwhile", image->id);
    return error_set(err, code, "Glance %s: %ld %s", what, answer->status,
                     text[0] ? text : "(no reason given)");
}
