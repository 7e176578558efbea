/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/glance/keystone.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "fs/glance/answer.h"
#include "fs/glance/secret.h"
#include "fs/glance/url.h"
#include "qcow/base/cleanup.h"

enum {
    PLACES_TEXT_MAX = 256,
    LIFETIME_UNKNOWN_S = 300, /* of a token without a date: soon asked for again */
};

void login_fini(struct login *login)
{
    secret_free(login->token);
    free(login->endpoint);
    free(login->project_id);
    free(login->user_id);
    *login = (struct login){0};
}

/* {"id": ID}, or {"name": NAME, "domain": ...}. */
static json_t *describe(const char *id, const char *name, const char *domain_id,
                        const char *domain_name)
{
    if (id)
        return json_pack("{ss}", "id", id);
    return json_pack("{sss{ss}}", "name", name, "domain", domain_id ? "id" : "name",
                     domain_id ? domain_id : domain_name);
}

static json_t *describe_user(const struct glance_config *c)
{
    return describe(c->user_id, c->username, c->user_domain_id, c->user_domain_name);
}

/* The method's name is its key too. An application credential brings its own scope. */
static json_t *describe_identity(const struct glance_config *c, json_t *secret)
{
    switch (c->auth_type) {
    case GLANCE_AUTH_PASSWORD: {
        json_t *user = describe_user(c);
        if (user)
            json_object_set(user, "password", secret);
        return json_pack("{s[s]s{so}}", "methods", "password", "password", "user", user);
    }
    case GLANCE_AUTH_APPLICATION_CREDENTIAL:
        if (c->application_credential_id)
            return json_pack("{s[s]s{sssO}}", "methods", "application_credential",
                             "application_credential", "id", c->application_credential_id, "secret",
                             secret);
        return json_pack("{s[s]s{sssosO}}", "methods", "application_credential",
                         "application_credential", "name", c->application_credential_name, "user",
                         describe_user(c), "secret", secret);
    case GLANCE_AUTH_TOKEN:
        return json_pack("{s[s]s{sO}}", "methods", "token", "token", "id", secret);
    case GLANCE_AUTH_NONE:
        break;
    }
    return NULL;
}

static const char *secret_of(const struct glance_config *c)
{
    if (c->auth_type == GLANCE_AUTH_APPLICATION_CREDENTIAL)
        return c->application_credential_secret;
    return c->auth_type == GLANCE_AUTH_TOKEN ? c->token : c->password;
}

static bool has_scope(const struct glance_config *c)
{
    return c->auth_type != GLANCE_AUTH_APPLICATION_CREDENTIAL && (c->project_id || c->project_name);
}

char *keystone_request(const struct glance_config *config)
{
    auto_json json_t *secret = json_string(secret_of(config));
    auto_json json_t *root =
        json_pack("{s{so}}", "auth", "identity", secret ? describe_identity(config, secret) : NULL);
    if (root && has_scope(config)) {
        json_t *project = describe(config->project_id, config->project_name,
                                   config->project_domain_id, config->project_domain_name);
        json_t *scope = json_pack("{so}", "project", project);
        if (json_object_set_new(json_object_get(root, "auth"), "scope", scope) < 0)
            return NULL;
    }
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    char *body = text ? secret_copy(text, strlen(text)) : NULL;
    secret_wipe(text);
    free(text);
    /* jansson's copy is read by nobody any more. */
    if (secret)
        explicit_bzero((char *)json_string_value(secret), json_string_length(secret));
    return body;
}

/* Whom Keystone refused, for the message. */
static const char *name_of(const struct glance_config *c)
{
    if (c->auth_type == GLANCE_AUTH_APPLICATION_CREDENTIAL)
        return c->application_credential_id ? c->application_credential_id
                                            : c->application_credential_name;
    if (c->auth_type == GLANCE_AUTH_TOKEN)
        return "the token";
    return c->username ? c->username : c->user_id;
}

/* Likewise; NULL: none was asked for. */
static const char *name_of_project(const struct glance_config *c)
{
    if (!has_scope(c))
        return NULL;
    return c->project_name ? c->project_name : c->project_id;
}

static int refuse(const struct http_answer *answer, const struct glance_config *config,
                  struct error *err)
{
    char text[ANSWER_TEXT_MAX];
    answer_message(answer, config, NULL, text);
    /* Of a token that is none it says, as of any thing, that it cannot be found. */
    bool is_no_token = answer->status == 404 && config->auth_type == GLANCE_AUTH_TOKEN &&
                       answer_is_from_service(answer);
    const char *project = name_of_project(config);
    if (answer->status == 401 || is_no_token)
        return error_set(err, -EACCES, "Keystone refuses '%s'%s%s%s: %s", name_of(config),
                         project ? " for project '" : "", project ? project : "",
                         project ? "'" : "", text);
    if (answer->status == 403)
        return error_set(err, -EPERM, "Keystone forbids it: %s", text);
    /* No Keystone, or not there: nothing that another try would change. */
    if (answer->status < 400 || answer->status == 400 || answer->status == 404)
        return error_set(err, -EINVAL, "Keystone at '%s' says %ld: %s", config->auth_url,
                         answer->status, text);
    return error_set(err, -EIO, "Keystone says %ld: %s", answer->status, text);
}

static int call(struct http *http, const struct glance_config *config,
                const struct http_request *request, const struct glance_cancel *cancel,
                struct http_answer *ret_answer, struct error *err)
{
    int r = http_do(http, request, cancel, ret_answer, err);
    if (r < 0 && r != -EINTR)
        error_prefix(err, "Keystone at '%s'", config->auth_url);
    return r == -ECONNRESET ? -EIO : r;
}

/* Where the v3 API is, of an answer that lists versions; NULL if it does not. */
static char *pick_v3(const struct http_answer *answer, const char *base)
{
    auto_json json_t *root = answer_json(answer);
    const json_t *values = json_object_get(json_object_get(root, "versions"), "values");
    size_t i, j;
    const json_t *version, *link;
    json_array_foreach(values, i, version)
    {
        const char *id = json_text(version, "id");
        if (!id || strncmp(id, "v3", 2) != 0)
            continue;
        json_array_foreach(json_object_get(version, "links"), j, link)
        {
            const char *rel = json_text(link, "rel"), *href = json_text(link, "href");
            if (rel && href && strcmp(rel, "self") == 0)
                return url_with_path_of(base, href);
        }
    }
    return NULL;
}

/* The address of the v3 API, without '/' at the end. */
static int discover(struct http *http, const struct glance_config *config,
                    const struct glance_cancel *cancel, char **ret_v3, struct error *err)
{
    auto_free char *base = url_identity_base(config->auth_url);
    auto_free char *url = NULL;
    if (!base || asprintf(&url, "%s/", base) < 0)
        return error_set(err, -ENOMEM, "out of memory");
    if (url_is_v3(base)) {
        *ret_v3 = take_ptr(base);
        return 0;
    }
    const struct http_request request = {.method = "GET", .url = url};
    struct http_answer answer = {0};
    int r = call(http, config, &request, cancel, &answer, err);
    if (r < 0)
        return r;
    char *v3 = answer.status == 300 || answer.status == 200 ? pick_v3(&answer, base) : NULL;
    http_answer_fini(&answer);
    if (!v3 && asprintf(&v3, "%s/v3", base) < 0)
        return error_set(err, -ENOMEM, "out of memory");
    *ret_v3 = v3;
    return 0;
}

static const char *region_of(const json_t *endpoint)
{
    const char *region = json_text(endpoint, "region_id");
    if (!region)
        region = json_text(endpoint, "region");
    return region ? region : "";
}

/* Adds "REGION (interface)" to the list of what there is. */
static void note_place(const json_t *endpoint, char *places)
{
    const char *interface = json_text(endpoint, "interface");
    size_t len = strlen(places);
    if (interface)
        snprintf(places + len, PLACES_TEXT_MAX - len, "%s%s (%s)", len ? ", " : "",
                 region_of(endpoint), interface);
}

/* The URL if the endpoint is the one that is wanted. */
static const char *match(const json_t *endpoint, const struct glance_config *config)
{
    const char *interface = json_text(endpoint, "interface");
    if (!interface || strcmp(interface, config->interface) != 0)
        return NULL;
    if (config->region_name && strcmp(region_of(endpoint), config->region_name) != 0)
        return NULL;
    return json_text(endpoint, "url");
}

static int use_endpoint(const char *url, char **ret_endpoint, struct error *err)
{
    int r = url_check(url, "the image service's address in Keystone's catalog", err);
    if (r < 0)
        return r;
    *ret_endpoint = url_image_base(url);
    return *ret_endpoint ? 0 : error_set(err, -ENOMEM, "out of memory");
}

int keystone_find_endpoint(const json_t *catalog, const struct glance_config *config,
                           char **ret_endpoint, struct error *err)
{
    char places[PLACES_TEXT_MAX] = "";
    size_t i, j;
    const json_t *service, *endpoint;
    json_array_foreach(catalog, i, service)
    {
        const char *type = json_text(service, "type");
        if (!type || strcmp(type, "image") != 0)
            continue;
        json_array_foreach(json_object_get(service, "endpoints"), j, endpoint)
        {
            const char *url = match(endpoint, config);
            if (url)
                return use_endpoint(url, ret_endpoint, err);
            note_place(endpoint, places);
        }
    }
    if (!places[0])
        return error_set(err, -EINVAL, "Keystone's catalog has no image service");
    return error_set(err, -EINVAL,
                     "no image service in region '%s' (%s) in the catalog, but in: %s",
                     config->region_name ? config->region_name : "any", config->interface, places);
}

static int take_endpoint(const json_t *token, const struct glance_config *config,
                         struct login *login, struct error *err)
{
    if (config->endpoint_override)
        login->endpoint = url_image_base(config->endpoint_override);
    else
        return keystone_find_endpoint(json_object_get(token, "catalog"), config, &login->endpoint,
                                      err);
    return login->endpoint ? 0 : error_set(err, -ENOMEM, "out of memory");
}

/* By the server's clock: ours may be another. */
static int64_t lifetime_of(const json_t *token, const struct http_answer *answer)
{
    int64_t end = answer_time(json_text(token, "expires_at"));
    int64_t now = answer->date_s >= 0 ? answer->date_s : time(NULL);
    return end < 0 ? LIFETIME_UNKNOWN_S : end - now;
}

static int take_token(const struct http_answer *answer, const char *secret,
                      const struct glance_config *config, struct login *login, struct error *err)
{
    auto_json json_t *root = answer_json(answer);
    const json_t *token = json_object_get(root, "token");
    const char *user_id = json_text(json_object_get(token, "user"), "id");
    const char *project_id = json_text(json_object_get(token, "project"), "id");
    if (!json_is_object(token) || !secret || !user_id)
        return error_set(err, -EIO, "'%s' answers as no Keystone does", config->auth_url);
    /* Glance would take an unscoped one, and make an image that belongs to nobody. */
    if (!project_id)
        return error_set(err, -EINVAL, "Keystone's token is for no project: name one");
    login->token = secret_copy(secret, strlen(secret));
    login->user_id = strdup(user_id);
    login->project_id = strdup(project_id);
    login->lifetime_s = lifetime_of(token, answer);
    if (!login->token || !login->user_id || !login->project_id)
        return error_set(err, -ENOMEM, "out of memory");
    return take_endpoint(token, config, login, err);
}

/* Asks who a token is that names its project itself. */
static int inspect_token(struct http *http, const struct glance_config *config, const char *url,
                         const struct glance_cancel *cancel, struct http_answer *ret_answer,
                         struct error *err)
{
    const struct http_request request = {
        .method = "GET", .url = url, .token = config->token, .subject_token = config->token};
    return call(http, config, &request, cancel, ret_answer, err);
}

static int ask_token(struct http *http, const struct glance_config *config, const char *url,
                     const struct glance_cancel *cancel, struct http_answer *ret_answer,
                     struct error *err)
{
    if (config->auth_type == GLANCE_AUTH_TOKEN && !has_scope(config))
        return inspect_token(http, config, url, cancel, ret_answer, err);
    auto_secret char *body = keystone_request(config);
    if (!body)
        return error_set(err, -EINVAL, "a name or password for Keystone is no UTF-8");
    const struct http_request request = {
        .method = "POST", .url = url, .content_type = "application/json", .body = body};
    return call(http, config, &request, cancel, ret_answer, err);
}

int keystone_login(struct http *http, const struct glance_config *config,
                   const struct glance_cancel *cancel, struct login *ret_login, struct error *err)
{
    auto_free char *v3 = NULL;
    auto_free char *url = NULL;
    int r = discover(http, config, cancel, &v3, err);
    if (r < 0)
        return r;
    if (asprintf(&url, "%s/auth/tokens", v3) < 0)
        return error_set(err, -ENOMEM, "out of memory");
    struct http_answer answer = {0};
    r = ask_token(http, config, url, cancel, &answer, err);
    if (r < 0)
        return r;
    struct login login = {0};
    if (answer.status == 201)
        r = take_token(&answer, answer.subject_token, config, &login, err);
    else if (answer.status == 200 && config->auth_type == GLANCE_AUTH_TOKEN)
        r = take_token(&answer, config->token, config, &login, err);
    else
        r = refuse(&answer, config, err);
    http_answer_fini(&answer);
    if (r < 0) {
        login_fini(&login);
        return r;
    }
    *ret_login = login;
    return 0;
}
