/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Detaching: the fork comes first, before there is any thread or connection, and the parent stays
 * in the foreground until the child has said how its start ended. Main thread only.
 */
#pragma once

#include "qcow/base/error.h"

struct daemon {
    int verdict_fd; /* towards the parent; -1 in the foreground */
};

/* What a daemon is that never forks. */
#define DAEMON_FOREGROUND ((struct daemon){.verdict_fd = -1})

/*
 * Opens /dev/null in place of standard streams that the caller has closed: the next files would get
 * their numbers, and what is written to standard error would go there. Before any file is opened.
 * 0 or negative errno.
 */
int daemon_open_streams(void);

/*
 * Returns in the child only. The parent waits for the verdict and leaves with it: the child's exit
 * status, or 2 if the child died without one. Until it is ready the child shares the terminal, so
 * its messages are seen. Signals that the child is to end by end the parent at once, and the child
 * when it can take them. 0, or negative errno if there is no child.
 */
int daemon_fork(struct daemon *ret_daemon, struct error *err);

/*
 * The start went well: the child gets a session, directory and standard streams of its own, logs
 * to syslog from now on, and the parent leaves with 0. Nothing in the foreground.
 */
void daemon_ready(struct daemon *daemon);

/* What daemon_ready() does to this process alone: the folder /, standard streams of its own, and
 * syslog. */
void daemon_leave_terminal(void);

/* The start failed: the parent leaves with @exit_status. Nothing in the foreground. */
void daemon_fail(struct daemon *daemon, int exit_status);
