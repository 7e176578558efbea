/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/glance/image.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "fs/glance/image_internal.h"
#include "fs/log.h"
#include "qcow/base/cleanup.h"
#include "qcow/base/thread.h"

enum {
    DELETE_RETRY_MS = 500,
    DELETE_PATIENCE_S = 10, /* a service that is longer about a record has other troubles */
};

int glance_create(struct glance_config *config, unsigned stall_timeout_s,
                  struct glance **ret_glance, struct error *err)
{
    struct glance *glance = calloc(1, sizeof(*glance));
    int r = glance ? auth_create(config, &glance->auth, err) : -ENOMEM;
    if (r < 0) {
        free(glance);
        glance_config_free(config);
        return error_set(err, r, "out of memory");
    }
    glance->config = config;
    glance->stall_timeout_s = stall_timeout_s;
    *ret_glance = glance;
    return 0;
}

void glance_destroy(struct glance *glance)
{
    if (!glance)
        return;
    auth_destroy(glance->auth);
    glance_config_free(glance->config);
    free(glance);
}

static int copy_who(const struct access *access, char **ret_project_id, char **ret_user_id)
{
    char *project_id = access->project_id ? strdup(access->project_id) : NULL;
    char *user_id = access->user_id ? strdup(access->user_id) : NULL;
    if ((access->project_id && !project_id) || (access->user_id && !user_id)) {
        free(project_id);
        free(user_id);
        return -ENOMEM;
    }
    *ret_project_id = project_id;
    *ret_user_id = user_id;
    return 0;
}

int glance_login(struct glance *glance, const struct glance_cancel *cancel, char **ret_project_id,
                 char **ret_user_id, struct error *err)
{
    struct http *http;
    struct access access;
    int r = http_create(glance->config, glance->stall_timeout_s, &http, err);
    if (r < 0)
        return r;
    r = auth_get(glance->auth, http, cancel, &access, err);
    http_destroy(http);
    if (r < 0)
        return r;
    r = copy_who(&access, ret_project_id, ret_user_id);
    access_fini(&access);
    return r < 0 ? error_set(err, r, "out of memory") : 0;
}

/* A random UUID (RFC 9562, version 4). */
static int make_id(char ret_id[IMAGE_ID_LEN + 1], struct error *err)
{
    unsigned char b[16];
    if (getrandom(b, sizeof(b), 0) != sizeof(b))
        return error_set(err, -EIO, "no random numbers: %s", strerrordesc_np(errno));
    b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
    b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
    snprintf(ret_id, IMAGE_ID_LEN + 1,
             "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1],
             b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14],
             b[15]);
    return 0;
}

/* Of a first POST whose answer was lost: the image is there, and it is ours. */
static int adopt(struct glance_image *image, const struct glance_cancel *cancel, struct error *err)
{
    auto_json json_t *json = NULL;
    int r = image_get(image, 0, cancel, &json, err);
    if (r < 0)
        return r;
    const char *status = json_text(json, "status"), *name = json_text(json, "name");
    const char *wanted = json_text(image->record, "name");
    if (status && strcmp(status, "queued") == 0 && name && strcmp(name, wanted) == 0)
        return 0;
    image->is_made = false; /* not by us */
    return error_set(err, -EIO, "image %s is there already, and none of ours", image->id);
}

/* Some other id than ours would be one that nobody deletes. */
static int check_made(struct glance_image *image, const struct http_answer *answer,
                      struct error *err)
{
    auto_json json_t *json = answer_json(answer);
    const char *id = json ? json_text(json, "id") : NULL;
    if (!id || strcmp(id, image->id) == 0)
        return 0;
    if (strlen(id) == IMAGE_ID_LEN && strspn(id, "0123456789abcdef-") == IMAGE_ID_LEN)
        memcpy(image->id, id, IMAGE_ID_LEN + 1);
    return error_set(err, -EIO, "Glance gave the image another id than it was asked for");
}

static int judge_post(struct glance_image *image, const struct http_answer *answer,
                      const struct glance_cancel *cancel, struct error *err)
{
    if (answer->status == 201)
        return check_made(image, answer, err);
    if (answer->status == 409)
        return adopt(image, cancel, err);
    if (answer->status == 404) {
        char text[ANSWER_TEXT_MAX];
        answer_message(answer, image->glance->config, NULL, text);
        return error_set(err, -EIO, "the image service's address is not Glance's: 404 %s", text);
    }
    return call_refused(image, answer, "refuses the image", err);
}

int image_post(struct glance_image *image, const struct glance_cancel *cancel, struct error *err)
{
    char id[IMAGE_ID_LEN + 1];
    int r = make_id(id, err);
    if (r < 0)
        return r;
    if (json_object_set_new(image->record, "id", json_string(id)) < 0)
        return error_set(err, -ENOMEM, "out of memory");
    auto_free char *body = json_dumps(image->record, JSON_COMPACT);
    if (!body)
        return error_set(err, -ENOMEM, "out of memory");
    memcpy(image->id, id, sizeof(id));
    const struct call call = {
        .method = "POST", .path = "", .content_type = "application/json", .body = body};
    struct http_answer answer;
    r = call_safely(image, &call, cancel, &answer, err);
    if (r < 0)
        return r;
    r = judge_post(image, &answer, cancel, err);
    http_answer_fini(&answer);
    return r;
}

static int get_once(struct glance_image *image, const struct glance_cancel *cancel,
                    json_t **ret_json, struct error *err)
{
    char path[IMAGE_ID_LEN + 2];
    snprintf(path, sizeof(path), "/%s", image->id);
    const struct call call = {.method = "GET", .path = path};
    struct http_answer answer;
    int r = call_safely(image, &call, cancel, &answer, err);
    if (r < 0)
        return r;
    if (answer.status != 200) {
        r = call_refused(image, &answer, "does not show the image", err);
    } else {
        *ret_json = answer_json(&answer);
        if (!*ret_json || !json_text(*ret_json, "status"))
            r = error_set(err, -EIO, "Glance shows image %s as no JSON that makes sense",
                          image->id);
    }
    if (r < 0) {
        json_decref(*ret_json);
        *ret_json = NULL;
    }
    http_answer_fini(&answer);
    return r;
}

int image_get(struct glance_image *image, unsigned patience_s, const struct glance_cancel *cancel,
              json_t **ret_json, struct error *err)
{
    int64_t end = monotonic_ns() + (int64_t)patience_s * 1000000000;
    *ret_json = NULL;
    for (;;) {
        int r = get_once(image, cancel, ret_json, err);
        /* A service that is started again comes back within seconds. */
        if ((r != -ECONNREFUSED && r != -ECONNRESET) || monotonic_ns() > end)
            return r;
        r = http_pause_retry(cancel, err);
        if (r < 0)
            return r;
    }
}

static int delete_once(struct glance_image *image, long *ret_status, struct error *err)
{
    char path[IMAGE_ID_LEN + 2];
    snprintf(path, sizeof(path), "/%s", image->id);
    const struct call call = {.method = "DELETE", .path = path};
    struct http_answer answer;
    int r = call_safely(image, &call, NULL, &answer, err);
    if (r < 0)
        return r;
    *ret_status = answer.status;
    if (answer.status != 204 && answer.status != 404 && answer.status != 410)
        r = call_refused(image, &answer, "does not delete the image", err);
    http_answer_fini(&answer);
    return r;
}

static int patch_protected(struct glance_image *image, bool is_protected,
                           const struct glance_cancel *cancel, struct error *err)
{
    char path[IMAGE_ID_LEN + 2];
    snprintf(path, sizeof(path), "/%s", image->id);
    const struct call call = {
        .method = "PATCH",
        .path = path,
        .content_type = "application/openstack-images-v2.1-json-patch",
        .body = is_protected ? "[{\"op\":\"replace\",\"path\":\"/protected\",\"value\":true}]"
                             : "[{\"op\":\"replace\",\"path\":\"/protected\",\"value\":false}]",
    };
    struct http_answer answer;
    int r = call_safely(image, &call, cancel, &answer, err);
    if (r < 0)
        return r;
    if (answer.status != 200)
        r = call_refused(image, &answer, "does not protect the image", err);
    http_answer_fini(&answer);
    return r;
}

int image_protect(struct glance_image *image, const struct glance_cancel *cancel, struct error *err)
{
    return image->is_protected ? patch_protected(image, true, cancel, err) : 0;
}

/*
 * A record that had no answer may be made a moment later, and a store may hold on to what was cut
 * off: asked again for a while.
 */
static int delete_in_time(struct glance_image *image, struct error *err)
{
    int64_t end = monotonic_ns() + (int64_t)DELETE_PATIENCE_S * 1000000000;
    for (;;) {
        long status = 0;
        int r = delete_once(image, &status, err);
        bool is_early = (r == 0 && status == 404 && image->is_unsure) || r == -EBUSY;
        if (!is_early)
            return r;
        if (monotonic_ns() > end)
            return r < 0 ? r : error_set(err, -EIO, "there was no answer to its record");
        http_pause(DELETE_RETRY_MS, NULL, NULL);
    }
}

int image_remove(struct glance_image *image, struct error *err)
{
    if (!image->is_made)
        return 0;
    int r = delete_in_time(image, err);
    /* It may have become protected, and the answer was lost. */
    if (r == -EPERM && image->is_protected && patch_protected(image, false, NULL, err) == 0)
        r = delete_in_time(image, err);
    if (r == 0)
        image->is_made = false;
    return r;
}

/* After a failure, which @err tells: nothing stays behind, or the text says so. */
static void clean_up(struct glance_image *image, struct error *err)
{
    struct error why = {0};
    int r = image_remove(image, &why);
    if (r == 0 || !err)
        return;
    log_debug("glance: image %s is left: %s", image->id, why.text);
    char text[ERROR_TEXT_MAX];
    snprintf(text, sizeof(text), "%.300s", err->text);
    error_set(err, err->code, "%s; image %s may be left there (%.200s)", text, image->id, why.text);
}

void glance_image_free(struct glance_image *image)
{
    if (!image)
        return;
    json_decref(image->record);
    http_destroy(image->http);
    free(image);
}

const char *glance_image_id(const struct glance_image *image)
{
    return image->id;
}

static int finish_code(int code)
{
    /* A connection that was lost for good. */
    return code == -ECONNRESET ? -EIO : code;
}

int glance_image_create(struct glance *glance, const struct glance_record *record,
                        const struct glance_cancel *cancel, struct glance_image **ret_image,
                        struct error *err)
{
    struct error own = {0};
    err = err ? err : &own;
    struct glance_image *image = calloc(1, sizeof(*image));
    if (!image)
        return error_set(err, -ENOMEM, "out of memory");
    image->glance = glance;
    image->is_protected = record->is_protected;
    int r = image_record_make(record, &image->record, err);
    if (r == 0)
        r = http_create(glance->config, glance->stall_timeout_s, &image->http, err);
    if (r == 0) {
        r = image_post(image, cancel, err);
        if (r < 0)
            clean_up(image, err);
    }
    if (r < 0) {
        glance_image_free(image);
        return finish_code(r);
    }
    *ret_image = image;
    return 0;
}

int glance_image_send(struct glance_image *image, const struct glance_body *body,
                      const struct glance_progress *progress, const struct glance_cancel *cancel,
                      struct error *err)
{
    struct error own = {0};
    err = err ? err : &own;
    int r = image_send(image, body, progress, cancel, err);
    if (r < 0 && progress && progress->moved)
        progress->moved(progress->ctx, GLANCE_CLEANING, 0);
    if (r < 0)
        clean_up(image, err);
    return finish_code(r);
}

int glance_image_delete(struct glance_image *image, struct error *err)
{
    return finish_code(image_remove(image, err));
}
