/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * All sessions: who reads what, who shares an instant, when it ends. The one thing of this layer
 * that the FUSE side talks to. All functions may be called from any thread and none of them waits
 * for libvirt; what must wait answers by a callback.
 *
 * `now`: a domain has at most one instant at a time (contract section 5). Instants of a domain
 * have serial numbers from 1; a FUSE node of now.raw stands for one serial, so that old and new
 * readers never share a page cache.
 *
 * Named snapshots have no instant: each open reads the snapshot where it lies.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "fs/host/host.h"
#include "fs/sandbox/sandbox.h"
#include "fs/session/quiesce.h"
#include "fs/session/snapshot.h"
#include "qcow/qcow.h"

struct registry;
struct reader; /* one open file */
struct journal;
struct journal_leftover;

enum live_method { LIVE_AUTO, LIVE_OVERLAY, LIVE_BACKUP, LIVE_COPY, LIVE_MANAGEDSAVE };
enum cold_method { COLD_LOCK, COLD_INTERNAL, COLD_OVERLAY };

struct registry_config {
    struct host *host;        /* borrowed until registry_destroy() */
    struct qcow_cache *cache; /* borrowed until registry_destroy() */
    struct journal *journal;  /* borrowed until registry_destroy(); NULL: nothing is changed */
    enum live_method live;
    enum cold_method cold;
    enum quiesce_policy quiesce;
    uint64_t min_free;                     /* bytes, or SPACE_MIN_FREE_DEFAULT: session/space.h */
    unsigned timeout_ms;                   /* how long an export of the hypervisor may be silent */
    unsigned join_s, linger_s, max_hold_s; /* contract section 5 */
    unsigned max_open;                     /* instants at once: -EMFILE beyond */
    struct sandbox_report sandbox;         /* shown in status */
};

int registry_create(const struct registry_config *config, struct registry **ret_registry,
                    struct error *err);
/*
 * Undoes in the background what daemons before us left, each domain on a thread of its own. Opens
 * of `now` get -EBUSY until it is done; what cannot be undone yet, or fails, is tried again when
 * the domain changes, and from time to time.
 *
 * @leftovers  what the array holds becomes the registry's, the array itself does not
 */
void registry_recover(struct registry *registry, const struct journal_leftover *leftovers,
                      size_t n);
/*
 * Waits until each of them was tried at least once, or all that were not hang in the hypervisor.
 * The number of those that are not undone; their reasons were logged, those of the hanging ones
 * are by registry_shutdown().
 */
size_t registry_await_recovery(struct registry *registry);
/*
 * No new opens (-ESHUTDOWN), readers get -EIO, every instant is released. Returns when all are, or
 * when all that are not have shown no sign of life for three times `timeout_ms`; with the calls
 * above, these are the only ones here that wait for libvirt. May be called again.
 *
 * The number of domains that were left so, each with a line in the log. Their threads still use the
 * registry and what it borrows: none of that may be destroyed then, and the process has to end.
 */
size_t registry_shutdown(struct registry *registry);
void registry_destroy(struct registry *registry); /* after shutdown and the last reader_close */

/* What stat shows of an open disk; constant from open on. */
struct session_attr {
    uint64_t guest_size;
    struct timespec mtime;
    uint64_t blocks;
};

struct session_peek {
    uint64_t serial; /* of the instant that an open would get now */
    bool is_taken;   /* it exists already, and attr is its own; else attr is unset */
    struct session_attr attr;
};

/* Which instant an open of `now` for that disk would get. Never blocks. */
void registry_peek(struct registry *registry, const char *domain_id, const char *target,
                   struct session_peek *ret_peek);

/*
 * What the disks of a domain are shown from: while an instant puts something over them, the record
 * of before; else @current, which the host gave a moment ago, or a later one. A reference.
 */
struct domain *registry_record(struct registry *registry, struct domain *current);

struct open_request {
    struct domain *domain;                 /* borrowed; the registry takes references of its own */
    const struct disk *disk;               /* of that record */
    const struct named_snapshot *snapshot; /* NULL for `now`; borrowed */
    uint64_t serial;                       /* `now`: the serial that the node stands for */
    struct session_attr shown;             /* what the node showed last: kept by the instant */
    pid_t pid;                             /* of the reader, for messages */
    /*
     * The answer, exactly once, on any thread, perhaps before registry_open() returns, with no
     * lock held: 0 and a reader (now the callee's), or a negative errno and the reason:
     * -ESTALE the serial is over (look the name up again), -EBUSY, -EOPNOTSUPP, -EMFILE, -EIO,
     * -EPERM, -ETIMEDOUT, -EINTR after registry_cancel(), ...
     */
    void (*done)(void *ctx, int result, struct reader *reader, const struct error *err);
    /* True once the asker gave up; asked once, when the request begins to wait. May be NULL. */
    bool (*is_cancelled)(void *ctx);
    void *ctx; /* also the key for registry_cancel() */
};

void registry_open(struct registry *registry, const struct open_request *request);
/* Ends the wait of the request with that ctx with -EINTR; nothing if it was answered already. */
void registry_cancel(struct registry *registry, void *ctx);

/*
 * Turns a reader to the disk as one qcow2 file (qcow/flatten.h); before anybody reads from it. May
 * take long, since the image's tables are walked, and holds no lock meanwhile.
 *
 * @is_cancelled  asked often; may be NULL
 *
 * 0; -EINTR cancelled; -EFBIG (what no qcow2 file can hold); else as reader_read().
 */
int reader_flatten(struct reader *reader, bool (*is_cancelled)(void *ctx), void *ctx,
                   struct error *err);
/*
 * It is read for an upload: status and reasons name that. Without memory for it they do not.
 *
 * @id  above 0; @image_name is borrowed for the call
 */
void reader_note_upload(struct reader *reader, unsigned id, const char *image_name);
/* Bytes that there are to read: of the disk, or of the file once flattened. Constant then. */
uint64_t reader_size(const struct reader *reader);
/*
 * Tells apart what is read by one name. The files below a named snapshot may be others the next
 * time
 * (`qemu-img rebase`), and once flattened there is qcow_flat_layout().
 */
uint64_t reader_layout(const struct reader *reader);
/* The most that reader_size() can be once flattened, for a disk of that many bytes. Pure. */
uint64_t reader_max_flat_size(uint64_t guest_size);

/* Bytes read (short only at the end of reader_size()) or negative errno; may block on disk I/O. */
ssize_t reader_read(struct reader *reader, uint64_t off, void *buf, size_t len, struct error *err);
/* The same, but long runs of zeros are not written to @buf: see qcow_read_parts(). */
ssize_t reader_read_parts(struct reader *reader, uint64_t off, void *buf, size_t len,
                          struct qcow_parts *ret_parts, struct error *err);
/*
 * SEEK_DATA or SEEK_HOLE as lseek(2) has them, with the end as the last hole. A qcow2 file is all
 * data.
 *
 * @is_cancelled  asked now and then, since a long way may have to be walked; may be NULL
 *
 * 0 and the offset; -ENXIO at and past the end, or no data up to it; -EINTR cancelled; else as
 * reader_read().
 */
int reader_seek(struct reader *reader, uint64_t off, int whence, bool (*is_cancelled)(void *ctx),
                void *ctx, uint64_t *ret_off, struct error *err);
/* Of the disk, flattened or not. */
void reader_attr(const struct reader *reader, struct session_attr *ret_attr);
void reader_close(struct reader *reader);

/* The host's events, passed on by main(): a start seen under cold=lock ends the instant. */
void registry_domain_changed(struct registry *registry, const struct domain *domain);
void registry_domain_gone(struct registry *registry, const char *domain_id);

/* Remembers a fault of a domain's file for `status` and the xattr `error`, and logs it. */
void registry_note_error(struct registry *registry, const char *domain_id, const char *what,
                         const struct error *err);

/*
 * A value of an extended attribute `user.virtsnapfs.NAME` (taken, method, consistency, source,
 * error) of the node of @disk with that serial (0 and @snapshot for a named one).
 * The value (caller frees), or NULL if it has none now.
 */
char *registry_xattr(struct registry *registry, const struct domain *domain,
                     const struct disk *disk, const struct named_snapshot *snapshot,
                     uint64_t serial, const char *name);

/* An upload of the domain, for its status; who looks after those is above this layer. */
struct status_upload {
    unsigned id;
    const char *snapshot, *image_name, *image_id, *error; /* each NULL if there is none */
    const char *disk, *format, *retry;                    /* likewise */
    const char *state;
    unsigned percent, attempt; /* attempt from 1; 0: none yet */
    uint64_t n_sent, size;     /* bytes; size 0: not known */
    int64_t speed;             /* bytes/s; this and the next ones: -1: not known, or nothing */
    int64_t rest_s, idle_s;    /* seconds to go; since anything moved */
    int64_t ended_s;           /* since the end, which was at .ended */
    struct timespec ended;
};

/*
 * /DOMAIN/status: JSON text, newline at the end; caller frees; NULL: no memory.
 *
 * @uploads  @n of them, in the order in which they are to be shown
 */
char *registry_status(struct registry *registry, struct domain *domain,
                      const struct status_upload *uploads, size_t n);
