/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What registry.c (who gets which instant), session.c (the life of one instant), reader.c (an open
 * file), errors.c and status.c share.
 *
 * One lock, the registry's, guards all decisions; it is never held across I/O, libvirt or a
 * callback. A reader has a lock of its own for its image, taken after the registry's, so that
 * reading never meets the registry's lock. Each domain with an instant has one thread, which makes
 * every blocking step of that instant's life (session.c).
 */
#pragma once

#include <search.h>
#include <stdbool.h>
#include <sys/queue.h>

#include "fs/session/registry.h"
#include "fs/session/session.h"
#include "qcow/base/thread.h"

enum {
    ERRORS_KEPT = 8,        /* for each domain */
    ERROR_SLOTS_MAX = 4096, /* domains whose errors are kept; beyond, they are only logged */
    ERROR_QUIET_S = 10,     /* the same text about the same file is logged once in that time, */
    ERROR_LINES_MAX = 3,    /* and about one file no more lines than these (ERRORS_KEPT: domain) */
};

/* A request for `now` that waits for its instant. Owned by the registry until it is answered. */
struct waiter {
    /* Immutable. */
    char *target;
    uint64_t serial;
    struct session_attr shown;
    pid_t pid;
    void (*done)(void *ctx, int result, struct reader *reader, const struct error *err);
    void *ctx;

    /* Guarded by the registry's lock. */
    bool is_queued;
    bool is_asking;   /* registry_open() still needs it, and hands out the answer itself */
    bool is_answered; /* result, reader and err are final */
    int result;
    struct reader *reader;
    struct error err;
    TAILQ_ENTRY(waiter) link; /* in its slot's waiters, then in a list of answers to hand out */
};
TAILQ_HEAD(waiter_list, waiter);

/* An open file. */
struct reader {
    /* Immutable. */
    struct registry *registry;
    struct slot *slot;
    struct session *session;  /* counted; NULL for a named snapshot */
    struct disk_image *owned; /* a named snapshot's image: reference */
    struct session_attr attr;
    uint64_t origin; /* of a named snapshot: disk_image_origin() */
    char *target;
    char *snapshot; /* NULL for `now` */
    pid_t pid;
    uint64_t id; /* among all readers of the registry; set when it is enlisted */

    int64_t opened_ns;

    /* For status, which may look at any time: bytes. The end of the farthest read, the size, and
     * how many were read. */
    _Atomic uint64_t position, size, n_read;

    /* Set by reader_flatten(), before reads; constant then. */
    bool is_flat;
    uint64_t flat_size, flat_layout;

    /* Guarded by the registry's lock: */
    LIST_ENTRY(reader) link; /* in session->readers or slot->named */
    unsigned upload;         /* its number; 0: it is a program that reads */
    char *image_name;        /* of the upload */

    struct mutex lock;
    struct disk_image *image GUARDED_BY(lock); /* borrowed from the session or owned; NULL: over */
    struct error end GUARDED_BY(lock);         /* why it is over */
};

struct noted_error {
    struct timespec time;
    int64_t first_ns; /* monotonic: when it was first noted */
    char *what;
    struct error err;
};

/* Lines about one file, or one domain, since @begin_ns (monotonic). */
struct error_lines {
    uint64_t what_hash;
    int64_t begin_ns;
    unsigned n;
};

/* A change that a daemon before us has left. Owned by its slot until its session has it. */
struct left_change {
    struct change *change;
    struct journal_entry *entry;
    bool is_untried; /* counts in n_untried */
    STAILQ_ENTRY(left_change) link;
};

/*
 * What is kept of a domain that was opened or had an error; lives as long as the registry, since
 * serials must not start again while the kernel may know old ones. Guarded by the registry's lock
 * but for id.
 */
struct slot {
    char *id;
    struct registry *registry;
    struct session *session; /* the domain's instant, or NULL */
    uint64_t last_serial;    /* of the last instant that was taken */
    bool has_thread;
    int64_t alive_ns;                /* monotonic: its thread's last sign of life */
    bool is_given_up;                /* the end of all did not wait for it, and that was logged */
    struct waiter_list waiters;      /* for the session while TAKING, else for the one after it */
    STAILQ_HEAD(, left_change) left; /* of daemons before us, to be undone before anything else */
    struct reader_list named;        /* of named snapshots */
    struct noted_error errors[ERRORS_KEPT];
    size_t n_errors; /* ever noted; the newest is at (n_errors - 1) % ERRORS_KEPT */
    struct error_lines lines, lines_of_files[ERRORS_KEPT];
    LIST_ENTRY(slot) link;
};

struct registry {
    struct registry_config config; /* immutable */

    struct mutex lock;
    /* Guarded by lock. */
    struct cond changed; /* a thread has ended */
    void *slots_by_id;   /* tree */
    LIST_HEAD(, slot) slots;
    size_t n_slots;
    unsigned n_threads;
    unsigned n_open;      /* instants that count for max_open: all but broken ones */
    unsigned n_untried;   /* leftovers whose undoing was not tried yet, and will be soon */
    uint64_t last_reader; /* the id of the last one that was enlisted */
    bool is_shut;
};

static inline void registry_lock(struct registry *registry) ACQUIRE(registry_role) NO_THREAD_SAFETY
{
    mutex_lock(&registry->lock);
}

static inline void registry_unlock(struct registry *registry)
    RELEASE(registry_role) NO_THREAD_SAFETY
{
    mutex_unlock(&registry->lock);
}

static inline void registry_wait(struct registry *registry, struct cond *cond)
    REQUIRES(registry_role) NO_THREAD_SAFETY
{
    cond_wait(cond, &registry->lock);
}

static inline void registry_wait_until(struct registry *registry, struct cond *cond,
                                       int64_t deadline_ns) REQUIRES(registry_role) NO_THREAD_SAFETY
{
    cond_wait_until(cond, &registry->lock, deadline_ns);
}

/* The domain's slot; NULL if there is none (find), or no memory (get). registry.c */
struct slot *slot_find_locked(struct registry *registry, const char *domain_id)
    REQUIRES(registry_role);
struct slot *slot_get_locked(struct registry *registry, const char *domain_id)
    REQUIRES(registry_role);

/*
 * Ends the instant that has lingered longest, in favour of one that somebody asks for; false if
 * none does. registry.c
 */
bool registry_make_room_locked(struct registry *registry) REQUIRES(registry_role);

/*
 * Fixes the answer of a waiter. It goes to @answers, to be handed out by waiters_deliver() once
 * the lock is dropped, unless registry_open() still has it in hand.
 */
void waiter_answer_locked(struct slot *slot, struct waiter *waiter, int result,
                          struct reader *reader, const struct error *err,
                          struct waiter_list *answers) REQUIRES(registry_role);
void slot_answer_all_locked(struct slot *slot, const struct error *err, struct waiter_list *answers)
    REQUIRES(registry_role);
void waiters_deliver(struct waiter_list *answers) EXCLUDES(registry_role);

/*
 * reader.c: a reader of one disk of an OPEN or LINGERING session, added to its list; NULL: no
 * memory. reader_end() makes every read from now on fail with @end, also those under way.
 */
struct reader *reader_create_locked(struct session *session, size_t disk_idx, pid_t pid)
    REQUIRES(registry_role);
void reader_end(struct reader *reader, const struct error *end);
/* Opens a named snapshot; the answer as registry_open() gives it. */
void reader_open_named(struct registry *registry, const struct open_request *request);

/*
 * Waits for a thread to end, or for a first try of what was left; as long as any of the slots that
 * @matters is true of has shown life in the time that patience_limit_ns() gives. False: they all
 * hang, in a call that nobody can take back. shutdown.c
 */
bool registry_wait_alive_locked(struct registry *registry, bool (*matters)(const struct slot *slot))
    REQUIRES(registry_role);

/* From now on registry_record() gives the record that this session acts on. registry.c */
void registry_note_record(struct session *session) EXCLUDES(registry_role);

/*
 * The record to act on. A domain said to be shut off is taken at the word: its image is locked,
 * and a QEMU that runs all the same is found by that. Any other state is asked for again, since
 * it may have ended a moment ago. Blocks on libvirt. 0, -ESTALE, -EIO, -ETIMEDOUT. record.c
 */
int record_find(struct host *host, const char *id, struct domain **ret_domain, struct error *err);

/*
 * errors.c: why an instant ended early. Where the end of the guest ends it, its readers may have
 * met the fault first: if a line says so, this one is logged as information only.
 */
void registry_note_end(struct session *session, const struct error *err) EXCLUDES(registry_role);

/* errors.c: -EBUSY: names the age of the instant, and who reads it. */
int registry_refuse_busy_locked(const struct session *session, struct error *err)
    REQUIRES(registry_role);

/* errors.c: frees what a slot's errors hold. */
void slot_errors_fini(struct slot *slot);
