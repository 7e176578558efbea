/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * SIGTERM, SIGINT and SIGHUP, and the mount's being taken away, become one call on a thread of its
 * own, where it may take locks and its time; so does the end of another process. Main thread.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "qcow/base/error.h"

struct signals_config {
    bool (*is_detached)(void *ctx);
    void (*on_stop)(void *ctx); /* once */
    int peer_fd;                /* of a socket to a process that should live; -1: none */
    void (*on_lost)(void *ctx); /* once, when the other end is closed before that */
    void *ctx;
};

struct signals {
    pthread_t thread;
    struct signals_config config;
    atomic_bool is_over;
};

/*
 * Blocks them, and ignores SIGPIPE, here and in all threads to come: before the first thread
 * starts.
 */
void signals_block(void);

/*
 * From the first of them on, or when is_detached() says true after the mount table has changed:
 * calls on_stop(), on another thread. 0 or negative errno.
 */
int signals_start(struct signals *signals, const struct signals_config *config, struct error *err);
/* No call begins after this one; waits for one that is under way. */
void signals_finish(struct signals *signals);
