/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Uploads: one line written to a domain's `upload` is one job. Each job has a thread, which makes
 * every step that may block; docs/states.md has its states. All functions may be called from any
 * thread; none but uploads_shutdown() waits.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "fs/glance/image.h"
#include "fs/glance/record.h"
#include "qcow/base/error.h"

struct uploads; /* all of a mount */

/* Which bytes are wanted. All borrowed. */
struct upload_what {
    const char *domain_id;
    const char *snapshot;   /* NAME as the tree shows it */
    const char *target;     /* NULL: the first disk */
    const char *format;     /* "raw" or "qcow2"; NULL: not decided yet */
    pid_t pid;              /* of the writer, who waits; else our own */
    unsigned id;            /* of the upload; 0: it has none yet */
    const char *image_name; /* NULL likewise */
};

/* What they are like, as far as is known before they are opened. */
struct upload_disk {
    uint64_t guest_size; /* bytes */
    const char *format;  /* of the disk's own file: "raw" or "qcow2"; static */
    char *target;        /* "vda"; the receiver's to free; may be NULL */
    struct record_machine machine;
};

/* How a job ended; all borrowed. */
struct upload_end {
    const char *domain_id, *domain_name;
    unsigned id;
    const char *image_name;  /* NULL: the line was malformed before it */
    const char *image_id;    /* NULL: none was made */
    const struct error *err; /* NULL: the image is active */
};

/* An image whose connection was lost within its bytes, and was deleted; all borrowed. */
struct upload_replaced {
    const char *domain_name;
    unsigned id;
    const char *old_image_id, *new_image_id;
};

/* Where the bytes come from: whoever has the domains fills this in. */
struct upload_source {
    /* From memory and image headers, on the writer's thread. 0, -ENOENT, or why not. */
    int (*describe)(void *ctx, const struct upload_what *what, struct upload_disk *ret_disk,
                    struct error *err);
    /*
     * Fixes the instant, if it is to be one. Blocks, on the job's thread, until it is there or
     * cancelled (-EINTR). What it gives is read until close().
     */
    int (*open)(void *ctx, const struct upload_what *what, const struct glance_cancel *cancel,
                struct glance_body *ret_body, struct error *err);
    void (*close)(void *ctx, const struct glance_body *body);
    /* To be told, on the job's thread, with no lock held. */
    void (*replaced)(void *ctx, const struct upload_replaced *replaced);
    /* Likewise, once for each line; on any thread. */
    void (*ended)(void *ctx, const struct upload_end *end);
    void *ctx;
};

struct uploads_config {
    struct glance *glance; /* borrowed until uploads_destroy(); NULL: no credentials */
    const char *refusal;   /* why there is none; borrowed likewise; NULL: none are configured */
    unsigned max_running;  /* at least 1; further ones are queued */
    struct upload_source source;
};

/* 0 or -ENOMEM */
int uploads_create(const struct uploads_config *config, struct uploads **ret_uploads);
/* No new ones (-ESHUTDOWN); those that are there are cancelled, and end by and by. Does not wait.
 */
void uploads_cancel(struct uploads *uploads);
/* The same, and returns when all have ended and their images are deleted, or given up. */
void uploads_shutdown(struct uploads *uploads);
void uploads_destroy(struct uploads *uploads); /* after shutdown; NULL is fine */

/* How many have not ended. */
size_t uploads_count(struct uploads *uploads);

struct upload_request {
    const char *domain_id, *domain_name; /* borrowed for the call, as is the next one */
    const char *line;
    size_t len;
    pid_t pid;
    /*
     * The answer, exactly once, on any thread, perhaps before uploads_begin() returns, with no lock
     * held. With --poll when the image is active; without when all is checked that can be and the
     * bytes are fixed, or the job is queued behind others. 0, or a negative errno and the reason:
     * -EINVAL the line; -ENOENT no such snapshot or disk; -EACCES no credentials; -EINTR cancelled;
     * -EBUSY too many jobs; -ESHUTDOWN; or what the source or fs/glance/image.h say.
     */
    void (*done)(void *ctx, int result, const struct error *err);
    /*
     * True once the writer gave up; the job is then cancelled and its image deleted. Asked on the
     * job's thread, now and then, until the answer. May be NULL.
     */
    bool (*is_cancelled)(void *ctx);
    void *ctx;
};

void uploads_begin(struct uploads *uploads, const struct upload_request *request);

/*
 * The table of a domain's jobs: a heading, then a line each, newest first. Caller frees; NULL: no
 * memory.
 */
char *uploads_table(struct uploads *uploads, const char *domain_id);

/* A job as `status` shows it. */
struct upload_info {
    unsigned id;
    char *snapshot, *image_name; /* NULL: of a line that was none */
    char *image_id;              /* NULL: none yet */
    char *error;                 /* NULL: has not failed */
    char *disk, *format;         /* target, and of what is sent; each NULL: not known */
    char *retry;                 /* why it is sent again; NULL: it is not, or not known */
    const char *state;           /* static */
    unsigned percent, attempt;   /* attempt from 1; 0: none has begun */
    uint64_t n_sent, size;       /* bytes, of this attempt and of the whole; size 0: not known */
    int64_t speed;               /* bytes/s, of late, or of all once it is sent; -1: not known */
    int64_t rest_s;              /* to go at that speed; -1: not known, or nothing */
    int64_t idle_s;              /* since anything was sent; -1: it is not being sent */
    int64_t ended_s;             /* since its end; -1: it has not ended */
    struct timespec ended;
};

/* Those of a domain that are in its table, newest first. 0 or -ENOMEM. */
int uploads_list(struct uploads *uploads, const char *domain_id, struct upload_info **ret_infos,
                 size_t *ret_n);
void uploads_list_free(struct upload_info *infos, size_t n);
