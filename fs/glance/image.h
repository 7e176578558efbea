/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One image in Glance, from its record to "active": created, sent, verified, and deleted when any
 * of that fails for good. The rules (which answer is tried again, which one is final) are all here.
 * A struct glance may be used by any number of threads; an image belongs to one thread. All verbs
 * that take an err block on the network, for as long as something moves or until cancelled.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "fs/glance/config.h"
#include "qcow/base/error.h"

struct glance; /* one cloud: token and endpoint, got when first needed, renewed in time */
struct glance_image;

/*
 * Talks to nobody yet. Takes @config.
 *
 * @stall_timeout_s  how long nothing may move before a connection counts as lost
 */
int glance_create(struct glance_config *config, unsigned stall_timeout_s,
                  struct glance **ret_glance, struct error *err);
void glance_destroy(struct glance *glance); /* NULL is fine */

/* Asked often, on the calling thread: true once nobody wants the image any more. May be NULL. */
struct glance_cancel {
    bool (*is_cancelled)(void *ctx);
    void *ctx;
};

/*
 * Logs in unless a token is there that is good for a while, and finds the image service. Who we are
 * then (caller frees both; NULL where there is no Keystone).
 *
 * 0; -EACCES refused; -EHOSTUNREACH, -ECONNREFUSED no connection; -EPROTO TLS; -EINTR cancelled;
 * -EIO; -EINVAL (no image service in the catalog, no project)
 */
int glance_login(struct glance *glance, const struct glance_cancel *cancel, char **ret_project_id,
                 char **ret_user_id, struct error *err);

struct glance_property {
    const char *name, *value;
};

/* What the image is created with. All borrowed. */
struct glance_record {
    const char *name;        /* 1 to 255 characters; others are refused before anything is sent */
    const char *disk_format; /* "raw" or "qcow2" */
    const char *visibility;  /* "private", "shared", "community" or "public" */
    uint32_t min_disk_gib, min_ram_mib;
    bool is_protected; /* set once it is active: before, a failure could not delete the image */
    const struct glance_property *properties;
    size_t n_properties;
};

/*
 * Makes the record, with an id of our own, so that it can be repeated after an answer was lost.
 * glance_image_free() releases @ret_image.
 *
 * As glance_login(), and -EPERM forbidden; -EINVAL what Glance calls malformed; -EDQUOT too many
 * properties or images; nothing is left in Glance then.
 */
int glance_image_create(struct glance *glance, const struct glance_record *record,
                        const struct glance_cancel *cancel, struct glance_image **ret_image,
                        struct error *err);

/* The id of the image (it changes if a stuck one had to be replaced); of the image's thread. */
const char *glance_image_id(const struct glance_image *image);

/* Where the bytes come from; @read is called on the calling thread, from 0 at each attempt. */
struct glance_body {
    uint64_t size; /* bytes */
    /* All @len bytes: 0, or a negative errno with the reason. */
    int (*read)(void *ctx, uint64_t off, void *buf, size_t len, struct error *err);
    void *ctx;
};

/* The body is read while it is SENDING only. CLEANING: it failed, what was made is being deleted.
 */
enum glance_phase { GLANCE_SENDING, GLANCE_VERIFYING, GLANCE_CLEANING };

/* Called on the calling thread, often; borrowed for the call. */
struct glance_progress {
    /* All is sent from byte 0, for the @attempt-th time (from 1). @why it was not done before, or
     * NULL: it is the first time, or not known. May be NULL. */
    void (*began)(void *ctx, unsigned attempt, const struct error *why);
    void (*moved)(void *ctx, enum glance_phase phase, uint64_t n_sent);
    void (*replaced)(void *ctx, const char *new_id); /* a stuck image has given way to this one */
    void *ctx;
};

/*
 * Sends the data and verifies status, size and hash. Tried again from byte 0 where facts allow;
 * whatever fails for good, or is cancelled, leaves no image behind (as far as Glance can be
 * reached: the text says so if it cannot be, with the id).
 *
 * 0 active; errors as glance_image_create(), and -EDQUOT quota; -ENOSPC the store is full; -EFBIG
 * the service's size limit; -ECANCELED deleted by somebody meanwhile; -ETIMEDOUT nothing moved;
 * -EIO what the service keeps is not what was sent; -EINTR cancelled; or what the body's read said.
 */
int glance_image_send(struct glance_image *image, const struct glance_body *body,
                      const struct glance_progress *progress, const struct glance_cancel *cancel,
                      struct error *err);

/* Deletes the image, which is not to be sent after all. 0, or why it may be left. */
int glance_image_delete(struct glance_image *image, struct error *err);
void glance_image_free(struct glance_image *image); /* forgets it; NULL is fine */
