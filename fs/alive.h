/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who still works for a mountpoint: a server holds the lock on a file of its own,
 * STATE/mounts/MOUNTPOINT-HASH-RANDOM, from the mount to its very end, so that others can wait for
 * it, also when the mountpoint is no mount any more. The file has the process's number in it, and
 * in a second line its source. Main thread.
 */
#pragma once

#include <stddef.h>
#include <sys/types.h>

#include "qcow/base/error.h"

struct alive;

/*
 * From now on until alive_end() or the death of the process, alive_wait() waits for us. Files that
 * servers left there that were killed are deleted.
 *
 * @real_path  what is mounted on, without symlinks
 *
 * 0 or negative errno: nobody can wait for us then.
 */
int alive_begin(const char *state_dir, const char *real_path, const char *source,
                struct alive **ret_alive, struct error *err);
void alive_end(struct alive *alive); /* NULL is fine */

/* The number of the process that serves @real_path with that state=; 0: none, or several do. */
pid_t alive_find(const char *state_dir, const char *real_path);

/* A server that has ended. Borrowed. */
struct alive_ended {
    pid_t pid;
    const char *source;
};

/* What alive_wait() tells of each that it waited for, and of each that was killed before. */
struct alive_visitor {
    void (*ended)(void *ctx, const struct alive_ended *server);
    void *ctx;
};

/*
 * Waits until all servers of @real_path that are there now have ended, however long that takes; the
 * process's signals end the wait as they end the process. Servers that begin meanwhile do not
 * matter. A server that was killed is known until the next one begins there.
 * 0 and the number of those that were told, or negative errno: it could not be found out.
 */
int alive_wait(const char *state_dir, const char *real_path, const struct alive_visitor *visitor,
               size_t *ret_n, struct error *err);
