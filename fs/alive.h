/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who still works for a mountpoint: a server holds the lock on a file of its own,
 * STATE/mounts/MOUNTPOINT-HASH-RANDOM, from the mount to its very end, so that others can wait for
 * it, also when the mountpoint is no mount any more. The file has the process's number in it, for
 * people. Main thread.
 */
#pragma once

#include <stddef.h>

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
int alive_begin(const char *state_dir, const char *real_path, struct alive **ret_alive,
                struct error *err);
void alive_end(struct alive *alive); /* NULL is fine */

/*
 * Waits until all servers of @real_path that are there now have ended, however long that takes; the
 * process's signals end the wait as they end the process. Servers that begin meanwhile do not
 * matter. 0 and their number, or negative errno: it could not be found out.
 */
int alive_wait(const char *state_dir, const char *real_path, size_t *ret_n, struct error *err);
