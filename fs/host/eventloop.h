/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The thread that runs libvirt's event loop. There is one loop a process (libvirt's), shared by
 * all connections and counted.
 */
#pragma once

#include <pthread.h>

#include "qcow/base/error.h"

/* Prepares libvirt, once a process: to be called before any other libvirt call. 0 or -EIO. */
int eventloop_init_library(struct error *err);

/* Has the loop run until the matching eventloop_stop(). 0 or negative errno. */
int eventloop_start(struct error *err);
/* The last one runs what is ready, then ends the thread. Not from a libvirt callback. */
void eventloop_stop(void);

/* A thread that takes no signals: those are for the main thread. 0 or negative errno. */
int eventloop_spawn(pthread_t *ret_thread, void *(*run)(void *), void *arg);
