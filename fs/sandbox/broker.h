/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The broker: a process of its own, begun before the sandbox, that does the few things which the
 * program itself may not do in it: mount and unmount, run qemu-img, start a user's own libvirtd.
 * Each is a fixed task with a few strings; where a task works is fixed before the broker begins,
 * so that a program that was taken over cannot ask for more than its own.
 *
 * Each call is done in a child of the broker's, so that one that takes hours holds up no other.
 * The broker ends when the program has ended, however that came about.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "qcow/base/error.h"

enum broker_task {
    BROKER_MOUNT,
    BROKER_UNMOUNT,
    BROKER_COMMIT,
    BROKER_COMPARE,
    BROKER_DELETE_SNAPSHOT,
    BROKER_WAKE,
    N_BROKER_TASKS
};

enum { BROKER_ARGS_MAX = 4, BROKER_TEXT_MAX = 16384, BROKER_KEPT_MAX = 8192 };

/* What a task is given, and gives back. */
struct broker_call {
    const void *ctx; /* of its broker_worker */
    /* For the task alone: BROKER_KEPT_MAX bytes that it keeps for those after it, out of the
     * program's reach. Zeroed at first. */
    void *kept;
    const char *args[BROKER_ARGS_MAX];
    size_t n_args;
    void (*on_wait)(void *wait_ctx); /* broker_do(): each second that it takes; NULL: not wanted */
    void *wait_ctx;
    char *ret_text; /* malloc()ed, or NULL */
    int ret_fd;     /* or -1 */
};

/* Does a task, in a process with one thread; the result is that of broker_do(). */
struct broker_worker {
    int (*run)(struct broker_call *call, struct error *err);
    const void *ctx;
};

struct broker_config {
    struct broker_worker workers[N_BROKER_TASKS]; /* a task without one is refused (-EPERM) */
    void (*forget)(void *ctx);                    /* what the broker need not know; or NULL */
    void *forget_ctx;
    void (*leave_terminal)(void); /* for broker_detach() */
};

/* Forks it. Before there is a second thread. 0 or negative errno. */
int broker_start(const struct broker_config *config, struct error *err);

/* False before broker_start(), and in the broker itself. Any thread. */
bool broker_is_running(void);

/*
 * Gets POLLHUP once the broker has ended, which it does not do while the program lives: somebody
 * has killed it. Borrowed until broker_stop(); -1 if there is none. Any thread.
 */
int broker_fd(void);

/*
 * Has the broker do a task, and waits however long it takes. What @call gets back is the caller's.
 * Any thread. What the task says; -EPERM for one that is not offered, -EIO if the broker is gone.
 */
int broker_do(enum broker_task task, struct broker_call *call, struct error *err);

/* It leaves the terminal and the standard streams, and logs as a daemon does. */
void broker_detach(void);

/* Tells it to end; what it still does goes on. Its calls fail from now on. */
void broker_stop(void);
