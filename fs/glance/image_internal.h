/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What image.c, call.c and send.c share.
 */
#pragma once

#include <jansson.h>
#include <openssl/evp.h>
#include <stdatomic.h>

#include "fs/glance/answer.h"
#include "fs/glance/auth.h"
#include "fs/glance/http.h"
#include "fs/glance/image.h"

enum {
    TRIES = 3,         /* of what a lost connection or a 5xx may have spoiled, as nova has it */
    IMAGE_ID_LEN = 36, /* a UUID as text */
};

struct glance {
    struct glance_config *config;
    struct auth *auth;
    unsigned stall_timeout_s;
    atomic_bool has_sha512; /* its last word was a sha512: md5 need not be computed, too */
};

struct glance_image {
    struct glance *glance;
    struct http *http;
    char id[IMAGE_ID_LEN + 1];
    json_t *record; /* as it was sent, "protected" apart */
    bool is_protected;
    bool is_made;   /* there may be something of that id in Glance */
    bool is_unsure; /* or may come to be there: a POST had no answer */
};

/* A request to Glance; the path comes behind "/v2/images". */
struct call {
    const char *method, *path;
    const char *content_type;
    const char *body;
    const struct http_upload *upload;
};

/*
 * One request with a token, which is renewed once if it is refused. No other retries.
 *
 * 0: there is an answer (never 401); -EACCES and others as glance_login(); -ECONNRESET the
 * connection was lost
 */
int call_once(struct glance_image *image, const struct call *call,
              const struct glance_cancel *cancel, struct http_answer *ret_answer,
              struct error *err);

/*
 * The same, again after lost connections and answers that say "not now"; for what may be done
 * twice.
 */
int call_safely(struct glance_image *image, const struct call *call,
                const struct glance_cancel *cancel, struct http_answer *ret_answer,
                struct error *err);

/* A status that is worth another try. */
bool call_is_passing(long status);

/* What an answer that says no means: fills @err and returns its code. */
int call_refused(const struct glance_image *image, const struct http_answer *answer,
                 const char *what, struct error *err);

/* POSTs the record, by a new id. */
int image_post(struct glance_image *image, const struct glance_cancel *cancel, struct error *err);

/*
 * What Glance knows of the image now. 0 (returns owned); -ECANCELED it is gone; others as
 * call_safely()
 *
 * @patience_s  how long to ask again where there is no connection
 */
int image_get(struct glance_image *image, unsigned patience_s, const struct glance_cancel *cancel,
              json_t **ret_json, struct error *err);

/* Deletes what may be there; not to be cancelled. 0 also if there is nothing. */
int image_remove(struct glance_image *image, struct error *err);

/* image_record.c: the JSON of a record, all but its id; 0 or -EINVAL, -ENOMEM. Returns owned. */
int image_record_make(const struct glance_record *record, json_t **ret_json, struct error *err);

/* Makes it undeletable, if the record says so. */
int image_protect(struct glance_image *image, const struct glance_cancel *cancel,
                  struct error *err);

/* send.c: from the first byte to "active" and protected; deletes nothing but what it replaces. */
int image_send(struct glance_image *image, const struct glance_body *body,
               const struct glance_progress *progress, const struct glance_cancel *cancel,
               struct error *err);
