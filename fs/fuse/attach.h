/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Mounting and unmounting, which take more privileges than serving: done by the broker where one
 * runs (fs/sandbox/broker.h), else here. Main thread.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "fs/sandbox/broker.h"
#include "qcow/base/error.h"

/* Fixed before the broker begins, so that it mounts nothing else anywhere else. Borrowed. */
struct attach_config {
    const char *mountpoint; /* absolute */
    const char *source;     /* shown as the mount's source */
    bool allow_other, is_ro;
    bool is_debug; /* libfuse logs each request */
};

/* libfuse's -o list; caller frees; NULL: no memory. */
char *attach_make_options(const struct attach_config *config);

/*
 * Mounts; a mount of ours there whose server has died is detached first. Requests wait in the
 * connection until somebody serves it. From now on libfuse's own messages are lines of our log.
 *
 * 0, the real path (caller frees), and the descriptor of the connection; or negative errno.
 */
int attach_mount(const struct attach_config *config, char **ret_real, int *ret_fd,
                 struct error *err);

/*
 * Unmounts, lazily, if what is on top at @real_path is the mount of ours with that device number
 * (0: any of ours), and ends the connection of one that is detached from here already but that
 * others hold copies of. The connection's descriptor must be closed: nobody would answer.
 */
void attach_unmount(const char *real_path, dev_t dev);

/*
 * For the broker: context is a struct attach_config. What is unmounted is what it has mounted, and
 * nothing that the program names (-EINVAL).
 */
int attach_work_mount(struct broker_call *call, struct error *err);
int attach_work_unmount(struct broker_call *call, struct error *err);
