/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A whole upload to a Keystone and a Glance that answer anything: login, record, data, comparing,
 * deleting. Takes the place of fs/glance/http.c; each answer is a line of the input: a digit for
 * the status, a letter for its headers, and the body up to the end of the line. When there are no
 * more, the upload is cancelled.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "fs/glance/http.h"
#include "fs/glance/image.h"
#include "fs/glance/secret.h"
#include "tests/fuzz/fuzz.h"

enum { BODY_LEN = 3000 };

static struct fuzz_input answers;

/* ---- In place of http.c ---- */

struct http {
    bool was_sent;
};

int http_create(const struct glance_config *config, unsigned stall_timeout_s,
                struct http **ret_http, struct error *err)
{
    (void)config, (void)stall_timeout_s, (void)err;
    *ret_http = calloc(1, sizeof(**ret_http));
    return 0;
}

void http_destroy(struct http *http)
{
    free(http);
}

bool http_was_sent(const struct http *http)
{
    return http->was_sent;
}

void http_answer_fini(struct http_answer *answer)
{
    free(answer->body);
    secret_free(answer->subject_token);
    *answer = (struct http_answer){0};
}

int http_pause(unsigned ms, const struct glance_cancel *cancel, struct error *err)
{
    (void)ms, (void)cancel;
    return answers.left == 0 && cancel ? error_set(err, -EINTR, "interrupted") : 0;
}

int http_pause_retry(const struct glance_cancel *cancel, struct error *err)
{
    return http_pause(0, cancel, err);
}

/* As libcurl reads it: no more than there is. */
static int send_body(const struct http_upload *upload, struct error *err)
{
    char buf[1000];
    uint64_t done = 0;
    while (done < upload->size) {
        uint64_t left = upload->size - done;
        int64_t n = upload->read(upload->ctx, buf, left < sizeof(buf) ? left : sizeof(buf), err);
        if (n < 0)
            return (int)n;
        fuzz_check(n > 0 && (uint64_t)n <= left);
        done += (uint64_t)n;
        if (upload->tick)
            upload->tick(upload->ctx);
    }
    return 0;
}

int http_do(struct http *http, const struct http_request *request,
            const struct glance_cancel *cancel, struct http_answer *ret_answer, struct error *err)
{
    static const long statuses[] = {200, 201, 202, 204, 300, 400, 401,
                                    403, 404, 409, 413, 500, 503};
    static const int faults[] = {-ECONNRESET, -ECONNREFUSED, -ETIMEDOUT, -EIO};
    http->was_sent = true;
    if (answers.left == 0 && cancel && cancel->is_cancelled && cancel->is_cancelled(cancel->ctx))
        return error_set(err, -EINTR, "interrupted");
    fuzz_check(strncasecmp(request->url, "http", 4) == 0);
    bool is_over = answers.left == 0;
    /* What is made is to be deleted in the end, which is not to take until it gives up. */
    long after_all = strcmp(request->method, "DELETE") == 0 ? 204 : 404;
    unsigned kind = fuzz_u8(&answers) % 32, headers = fuzz_u8(&answers);
    if (kind >= 28 && !is_over)
        return error_set(err, faults[kind - 28], "a fault");
    if (request->upload)
        request->upload->rewind(request->upload->ctx);
    int r = request->upload ? send_body(request->upload, err) : 0;
    if (r < 0)
        return r;
    char *body = fuzz_text(&answers, '\n');
    *ret_answer = (struct http_answer){
        .status = is_over ? after_all : statuses[kind % (sizeof(statuses) / sizeof(*statuses))],
        .body = body,
        .body_len = strlen(body),
        .subject_token = headers % 2 ? secret_copy("gAAAAAB", 7) : NULL,
        .date_s = headers % 4 < 2 ? -1 : (headers / 4) * 4000000000LL,
    };
    return 0;
}

/* ---- The upload ---- */

static bool is_cancelled(void *ctx)
{
    (void)ctx;
    return answers.left == 0;
}

static int read_body(void *ctx, uint64_t off, void *buf, size_t len, struct error *err)
{
    (void)ctx, (void)err;
    fuzz_check(off <= BODY_LEN && len <= BODY_LEN - off);
    memset(buf, 0x5a, len);
    return 0;
}

static void note_moved(void *ctx, enum glance_phase phase, uint64_t n_sent)
{
    (void)ctx, (void)phase;
    fuzz_check(n_sent <= BODY_LEN);
}

static void note_replaced(void *ctx, const char *new_id)
{
    (void)ctx;
    fuzz_check(strlen(new_id) == 36);
}

static struct glance_config *make_config(uint8_t shape)
{
    struct glance_config *config = calloc(1, sizeof(*config));
    fuzz_check(config);
    config->auth_url = strdup(shape % 2 ? "https://cloud:5000/v3" : "https://cloud:5000");
    config->interface = strdup("public");
    config->auth_type = shape / 2 % 3;
    config->username = strdup("me");
    config->user_domain_name = strdup("Default");
    config->project_name = shape / 8 % 2 ? strdup("p") : NULL;
    config->project_domain_name = strdup("Default");
    config->password = secret_copy("hunter22", 8);
    config->application_credential_id = strdup("id");
    config->application_credential_secret = secret_copy("secret22", 8);
    config->token = secret_copy("token222", 8);
    return config;
}

static void check_result(int r, const struct error *err)
{
    /* A connection that was lost for good is an -EIO to the caller. */
    fuzz_check(r == err->code || (r == -EIO && err->code == -ECONNRESET));
    fuzz_check(r <= 0 && (r == 0 || err->text[0]));
}

static void upload(struct glance *glance, const struct glance_cancel *cancel)
{
    const struct glance_record record = {
        .name = "now-of-web", .disk_format = "raw", .visibility = "private", .is_protected = true};
    const struct glance_body body = {.size = BODY_LEN, .read = read_body};
    const struct glance_progress progress = {.moved = note_moved, .replaced = note_replaced};
    struct glance_image *image = NULL;
    struct error err = {0};
    int r = glance_image_create(glance, &record, cancel, &image, &err);
    if (r == 0)
        r = glance_image_send(image, &body, &progress, cancel, &err);
    check_result(r, &err);
    glance_image_free(image);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const struct glance_cancel cancel = {.is_cancelled = is_cancelled};
    struct glance *glance;
    char *project_id = NULL, *user_id = NULL;
    struct error err = {0};
    answers = (struct fuzz_input){.at = data, .left = len};
    struct glance_config *config = make_config(fuzz_u8(&answers));
    fuzz_check(glance_create(config, 1, &glance, &err) == 0);
    int r = glance_login(glance, &cancel, &project_id, &user_id, &err);
    check_result(r, &err);
    if (r == 0)
        upload(glance, &cancel);
    glance_destroy(glance);
    free(project_id);
    free(user_id);
    return 0;
}
