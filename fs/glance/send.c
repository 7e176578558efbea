/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The data of an image: sent, sent again where that may help, and compared with what Glance has.
 *
 * Glance's status after a PUT that failed tells what to do:
 *   queued  nothing is kept: the same id takes the data again
 *   saving  the service died while it took the data, and nothing but deleting helps; or it has not
 *           noticed yet that the connection is gone
 *   active  only the answer was lost
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "fs/glance/image_internal.h"
#include "qcow/base/cleanup.h"
#include "qcow/base/thread.h"

enum {
    POLL_MS = 500,
    NOTICE_S = 5,         /* Glance sees within 0.1 s that a connection is gone */
    SETTLE_PATIENCE = 10, /* times the stall limit: after 204, with a store that copies later */
};

struct sending {
    struct glance_image *image;
    const struct glance_body *body;
    const struct glance_progress *progress;
    const struct glance_cancel *cancel;
    uint64_t n_read;
    unsigned n_attempts;      /* that have begun */
    EVP_MD_CTX *sha512, *md5; /* md5 is NULL where it is forbidden, or not needed */
    bool has_read_failed;
};

static void report(const struct sending *s, enum glance_phase phase)
{
    if (s->progress && s->progress->moved)
        s->progress->moved(s->progress->ctx, phase, s->n_read);
}

static void tick(void *ctx)
{
    report(ctx, GLANCE_SENDING);
}

static void begin_attempt(struct sending *s, const struct error *why)
{
    s->n_read = 0;
    s->n_attempts++;
    if (s->progress && s->progress->began)
        s->progress->began(s->progress->ctx, s->n_attempts, why);
}

/* What was refused or cut off before its first byte is no attempt of its own. */
static void rewind_body(void *ctx)
{
    struct sending *s = ctx;
    if (s->n_read > 0)
        begin_attempt(s, NULL);
    EVP_DigestInit_ex(s->sha512, EVP_sha512(), NULL);
    if (s->md5)
        EVP_DigestInit_ex(s->md5, EVP_md5(), NULL);
}

static int64_t read_body(void *ctx, void *buf, size_t room, struct error *err)
{
    struct sending *s = ctx;
    int r = s->body->read(s->body->ctx, s->n_read, buf, room, err);
    if (r == 0 && EVP_DigestUpdate(s->sha512, buf, room) != 1)
        r = error_set(err, -EIO, "cannot compute the hash");
    if (r == 0 && s->md5 && EVP_DigestUpdate(s->md5, buf, room) != 1)
        r = error_set(err, -EIO, "cannot compute the hash");
    if (r < 0) {
        s->has_read_failed = true;
        return r;
    }
    s->n_read += room;
    return (int64_t)room;
}

enum outcome { SENT, UNCLEAR, FAILED };

static bool is_lost(int code)
{
    return code == -ECONNRESET || code == -ECONNREFUSED || code == -ETIMEDOUT;
}

/* One PUT of all. UNCLEAR and FAILED come with a reason, whose code is in ret_code. */
static enum outcome put(struct sending *s, int *ret_code, struct error *err)
{
    char path[IMAGE_ID_LEN + 16];
    snprintf(path, sizeof(path), "/%s/file", s->image->id);
    const struct http_upload upload = {
        .size = s->body->size, .read = read_body, .rewind = rewind_body, .tick = tick, .ctx = s};
    const struct call call = {.method = "PUT",
                              .path = path,
                              .content_type = "application/octet-stream",
                              .upload = &upload};
    struct http_answer answer;
    begin_attempt(s, s->n_attempts ? err : NULL);
    int r = call_once(s->image, &call, s->cancel, &answer, err);
    if (r < 0) {
        *ret_code = r;
        return is_lost(r) && !s->has_read_failed ? UNCLEAR : FAILED;
    }
    enum outcome outcome = SENT;
    if (answer.status != 204) {
        outcome = call_is_passing(answer.status) || answer.status == 409 ? UNCLEAR : FAILED;
        *ret_code = call_refused(s->image, &answer, "refuses the data", err);
    }
    http_answer_fini(&answer);
    return outcome;
}

/* The status once it is none that passes, or the time is up. Returns owned. */
static int settle(struct sending *s, enum outcome outcome, json_t **ret_json, struct error *err)
{
    unsigned stall_s = s->image->glance->stall_timeout_s;
    unsigned limit_s = NOTICE_S;
    if (outcome == SENT)
        limit_s = stall_s * SETTLE_PATIENCE;
    else if (s->n_read == s->body->size && stall_s > limit_s)
        limit_s = stall_s; /* it may be at work on what it has */
    int64_t end = monotonic_ns() + (int64_t)limit_s * 1000000000;
    for (;;) {
        json_t *json;
        int r = image_get(s->image, stall_s, s->cancel, &json, err);
        if (r < 0)
            return r;
        if (strcmp(json_text(json, "status"), "saving") != 0 || monotonic_ns() > end) {
            *ret_json = json;
            return 0;
        }
        json_decref(json);
        r = http_pause(POLL_MS, s->cancel, err);
        if (r < 0)
            return r;
    }
}

static void digest_text(EVP_MD_CTX *ctx, char ret_text[2 * EVP_MAX_MD_SIZE + 1])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    ret_text[0] = '\0';
    if (!ctx || EVP_DigestFinal_ex(ctx, digest, &n) != 1)
        return;
    for (unsigned i = 0; i < n; i++)
        snprintf(ret_text + 2 * (size_t)i, 3, "%02x", digest[i]);
}

static int compare_hash(const char *name, const char *theirs, const char *ours, struct error *err)
{
    if (strcasecmp(theirs, ours) == 0)
        return 0;
    return error_set(err, -EIO,
                     "Glance keeps other data than was sent: its %s is %.32s..., ours %.32s...",
                     name, theirs, ours);
}

/*
 * By sha512, or md5 where the service computes something else; some stores compute nothing. Each
 * hash takes longer than to read and send what it is of, so that md5, which nearly no service is
 * without sha512, is computed only for a service that has not shown its sha512 yet.
 */
static int compare_hashes(struct sending *s, const json_t *json, struct error *err)
{
    char sha512[2 * EVP_MAX_MD_SIZE + 1], md5[2 * EVP_MAX_MD_SIZE + 1];
    const char *algo = json_text(json, "os_hash_algo"), *value = json_text(json, "os_hash_value");
    const char *checksum = json_text(json, "checksum");
    digest_text(s->sha512, sha512);
    digest_text(s->md5, md5);
    if (!sha512[0])
        return error_set(err, -EIO, "cannot compute the hash");
    bool has_sha512 = algo && value && strcmp(algo, "sha512") == 0;
    atomic_store(&s->image->glance->has_sha512, has_sha512);
    if (has_sha512)
        return compare_hash("sha512", value, sha512, err);
    if (checksum && md5[0])
        return compare_hash("md5", checksum, md5, err);
    return 0;
}

static int verify(struct sending *s, const json_t *json, struct error *err)
{
    const json_t *size = json_object_get(json, "size");
    if (!json_is_integer(size) || json_integer_value(size) < 0 ||
        (uint64_t)json_integer_value(size) != s->body->size)
        return error_set(err, -EIO,
                         "Glance keeps %" PRId64 " bytes of the %" PRIu64 " that were sent",
                         (int64_t)json_integer_value(size), s->body->size);
    return compare_hashes(s, json, err);
}

static int finish(struct sending *s, const json_t *json, struct error *err)
{
    report(s, GLANCE_VERIFYING); /* also if only the answer was lost */
    int r = verify(s, json, err);
    return r < 0 ? r : image_protect(s->image, s->cancel, err);
}

static int replace(struct sending *s, struct error *err)
{
    int r = image_remove(s->image, err);
    if (r < 0)
        return r;
    r = image_post(s->image, s->cancel, err);
    if (r == 0 && s->progress && s->progress->replaced)
        s->progress->replaced(s->progress->ctx, s->image->id);
    return r;
}

/* 1: to be sent again; 0: active; or a negative errno. @err has why it was not sent. */
static int go_on(struct sending *s, enum outcome outcome, bool is_last, int code, struct error *err)
{
    auto_json json_t *json = NULL;
    struct error own = {0};
    int r = settle(s, outcome, &json, &own);
    if (r < 0)
        return error_set(err, r, "%s", own.text);
    const char *status = json_text(json, "status");
    if (strcmp(status, "active") == 0)
        return finish(s, json, err);
    if (strcmp(status, "deleted") == 0 || strcmp(status, "pending_delete") == 0)
        return error_set(err, -ECANCELED, "image %s was deleted meanwhile", s->image->id);
    bool is_queued = strcmp(status, "queued") == 0, is_saving = strcmp(status, "saving") == 0;
    if (outcome == SENT || (!is_queued && !is_saving))
        return error_set(err, -EIO, "Glance says that image %s is '%.32s', not active",
                         s->image->id, status);
    if (is_last)
        return code;
    if (is_saving) {
        r = replace(s, &own);
        if (r < 0)
            return error_set(err, r, "%s", own.text);
    }
    r = http_pause_retry(s->cancel, &own);
    return r < 0 ? error_set(err, r, "%s", own.text) : 1;
}

static int send_all(struct sending *s, struct error *err)
{
    for (unsigned i = 1;; i++) {
        int code = 0;
        enum outcome outcome = put(s, &code, err);
        if (outcome == FAILED)
            return code;
        if (outcome == SENT)
            report(s, GLANCE_VERIFYING);
        int r = go_on(s, outcome, i == TRIES, code, err);
        if (r <= 0)
            return r;
    }
}

int image_send(struct glance_image *image, const struct glance_body *body,
               const struct glance_progress *progress, const struct glance_cancel *cancel,
               struct error *err)
{
    struct sending s = {
        .image = image,
        .body = body,
        .progress = progress,
        .cancel = cancel,
        .sha512 = EVP_MD_CTX_new(),
        .md5 = atomic_load(&image->glance->has_sha512) ? NULL : EVP_MD_CTX_new(),
    };
    int r = 0;
    if (!s.sha512 || EVP_DigestInit_ex(s.sha512, EVP_sha512(), NULL) != 1)
        r = error_set(err, -EIO, "there is no sha512");
    if (s.md5 && EVP_DigestInit_ex(s.md5, EVP_md5(), NULL) != 1) {
        EVP_MD_CTX_free(s.md5); /* a FIPS machine */
        s.md5 = NULL;
    }
    if (r == 0)
        r = send_all(&s, err);
    EVP_MD_CTX_free(s.sha512);
    EVP_MD_CTX_free(s.md5);
    return r;
}
