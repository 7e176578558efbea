/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One request at a time over libcurl. A struct http keeps its connections for the next request, and
 * belongs to one thread. Follows no redirect, so that a token goes nowhere else; speaks http and
 * https only; takes proxies from the environment as every program on libcurl does. Logs each
 * request at debug level, without its headers.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/glance/config.h"
#include "fs/glance/image.h"
#include "qcow/base/error.h"

struct http;

/*
 * Borrows @config. http_destroy() releases @ret_http.
 *
 * @stall_timeout_s  how long nothing may move; ten times that for the answer to a body that was
 *                   sent as a whole, which a store may have to copy yet
 */
int http_create(const struct glance_config *config, unsigned stall_timeout_s,
                struct http **ret_http, struct error *err);
void http_destroy(struct http *http); /* NULL is fine */

/* A body too large for memory. Both are called on the calling thread. */
struct http_upload {
    uint64_t size; /* bytes */
    /* The next @room bytes or fewer: how many, or a negative errno, which http_do() returns. */
    int64_t (*read)(void *ctx, void *buf, size_t room, struct error *err);
    void (*rewind)(void *ctx); /* the next read is the first one again */
    void (*tick)(void *ctx);   /* something moved, or 0.2 s have passed; may be NULL */
    void *ctx;
};

/* All borrowed for the call. */
struct http_request {
    const char *method, *url;
    const char *token;                /* X-Auth-Token, or NULL */
    const char *subject_token;        /* X-Subject-Token, or NULL */
    const char *content_type;         /* or NULL: there is no body */
    const char *body;                 /* or NULL */
    const struct http_upload *upload; /* or NULL */
};

struct http_answer {
    long status; /* of HTTP, 200 to 599 */
    char *body;  /* never NULL, terminated, at most 1 MiB */
    size_t body_len;
    char *subject_token; /* X-Subject-Token; a secret; or NULL */
    int64_t date_s;      /* the server's clock, seconds since the epoch; or -1 */
};

/*
 * Does the request. An answer counts when its status has come and it says that something is wrong,
 * even if the connection broke then; a success counts only with its body as a whole.
 * http_answer_fini() releases @ret_answer.
 *
 * 0: there is an answer, whatever its status; -ECONNRESET the connection was lost; -EHOSTUNREACH,
 * -ECONNREFUSED there was none; -ETIMEDOUT nothing moved; -EPROTO TLS; -EINTR cancelled; -EINVAL
 * the URL, or certificate files; -EIO; -ENOMEM; or what the upload's read said
 */
int http_do(struct http *http, const struct http_request *request,
            const struct glance_cancel *cancel, struct http_answer *ret_answer, struct error *err);
/* Whether anything of the last request got as far as to a connection. */
bool http_was_sent(const struct http *http);
void http_answer_fini(struct http_answer *answer);

/* Waits for the time between two tries of one request, 1 s: 0, or -EINTR when cancelled. */
int http_pause_retry(const struct glance_cancel *cancel, struct error *err);

/* Waits for so long: 0, or -EINTR when cancelled. */
int http_pause(unsigned ms, const struct glance_cancel *cancel, struct error *err);
