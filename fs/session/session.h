/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One instant of a domain while it is served: its state machine and the thread that takes it,
 * holds it and puts the domain back. Inside of the registry; see registry_internal.h for the lock.
 */
#pragma once

#include <stdbool.h>
#include <sys/queue.h>

#include "fs/session/instant.h"
#include "fs/session/registry.h"
#include "qcow/base/thread.h"

struct patience;
struct slot;
struct waiter_list;
/*
 * Stands for "the lock of the registry in question" in annotations: clang cannot see that
 * session->registry and the registry that was locked are the same. Never defined.
 */
extern struct mutex registry_role;

/*
 * state      host changed   image    readers
 * TAKING     maybe          NULL     none yet: they wait
 * OPEN       yes            set      > 0
 * LINGERING  yes            set      0
 * RELEASING  yes, or no     dropped  0, or their reads fail with `end`
 * GONE       no             dropped  as above
 * DEFERRED   yes            dropped  as above; tried again when the domain changes
 * BROKEN     yes            dropped  as above; likewise, and a person should have a look
 *
 * What a daemon before us left begins in RELEASING.
 */
enum session_state {
    SESSION_TAKING,
    SESSION_OPEN,
    SESSION_LINGERING,
    SESSION_RELEASING,
    SESSION_GONE,
    SESSION_DEFERRED,
    SESSION_BROKEN,
};

/* One disk of the instant; constant once the instant is taken, but for was_read. */
struct session_disk {
    struct session_attr attr;
    bool is_served;  /* has an image */
    bool is_undated; /* its own mtime is not known: zero in attr until the instant is taken */
    bool was_read;   /* some reader opened it */
};

struct reader;
LIST_HEAD(reader_list, reader);

struct session {
    /* Immutable. */
    struct registry *registry;
    struct slot *slot;
    uint64_t serial;

    /*
     * The thread's own while TAKING and from RELEASING on; constant in between. The record, time
     * and consistency in it stay until the session is freed.
     */
    struct instant instant;

    /* Guarded by the registry's lock. */
    enum session_state state;
    const char *method;         /* its name; NULL while TAKING */
    bool is_cold_lock;          /* nothing was changed: a start ends it */
    bool ends_with_guest;       /* it is the guest's QEMU that is read: a stop ends it */
    struct domain *record;      /* what the disks are shown from if the method changes them */
    struct session_disk *disks; /* one for each of the record; NULL while TAKING */
    bool is_locked;             /* all images lie where QEMU's locks work */
    char **growing;             /* files that grow meanwhile, n_growing of them */
    size_t n_growing;
    struct reader_list readers;
    unsigned n_readers;
    int64_t taken_ns;    /* monotonic; also of the deadlines below */
    int64_t linger_ns;   /* while LINGERING: when to let go */
    int64_t hold_ns;     /* when to end it whoever reads */
    int64_t space_ns;    /* when to look for room again; INT64_MAX: nothing grows */
    bool saw_run;        /* the domain was seen running while TAKING */
    bool has_news;       /* the domain has changed since the release was tried */
    bool is_left;        /* a daemon before us took it */
    bool is_untried;     /* is_left, and counts in the registry's n_untried */
    bool was_patient;    /* the unmount has waited for its thaw */
    unsigned n_tries;    /* how often the release was tried */
    struct error end;    /* why it ended early; code 0 if not */
    struct error broken; /* DEFERRED, BROKEN: what the release said last */
    struct cond wake;
    struct patience *patience; /* while TAKING or RELEASING, else NULL */
    unsigned refs;             /* the thread and each reader, also those of an ended instant */
};

const char *session_state_name(enum session_state state);

/*
 * Starts the slot's thread, which undoes its leftovers and then serves its waiters.
 * 0; -EMFILE (not for leftovers), -ENOMEM.
 */
int session_start_locked(struct slot *slot, struct error *err) REQUIRES(registry_role);

/*
 * Asks for the end: readers get @code with that text from now on (0: there are none), and the
 * thread puts the domain back. While TAKING, that follows as soon as the instant is taken.
 */
void session_end_locked(struct session *session, int code, const char *text)
    REQUIRES(registry_role);

/* Index of the disk in the session's record, or SIZE_MAX. Not while TAKING. */
size_t session_find_disk_locked(const struct session *session, const char *target)
    REQUIRES(registry_role);

/* A reader of that disk for somebody to whom @shown was shown: 0, -ESTALE, or why not. */
int session_join_locked(struct session *session, const char *target,
                        const struct session_attr *shown, pid_t pid, struct reader **ret_reader,
                        struct error *err) REQUIRES(registry_role);

/* A reader has left: it is off the list already. */
void session_leave_locked(struct session *session) REQUIRES(registry_role);

/* For session.c and session_thread.c: a session of the slot, not in it yet; NULL: no memory. */
struct session *session_create_locked(struct slot *slot, enum session_state state)
    REQUIRES(registry_role);
/* The only place that assigns the state. */
void session_enter_locked(struct session *session, enum session_state next) REQUIRES(registry_role);
/* Copies what `status` shows of the instant's method. Once. */
void session_show_method_locked(struct session *session) REQUIRES(registry_role);
/* TAKING to one of the states after it; returns without the lock, all answers given. */
void session_take(struct session *session) EXCLUDES(registry_role);

/* Drops a reference; true if it was the last: session_free() then, without the lock. */
bool session_unref_locked(struct session *session) REQUIRES(registry_role);
void session_free(struct session *session);
