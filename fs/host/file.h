/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Opens image files without being led astray: the type is checked before the file is opened for
 * reading (no FIFO can hang us, no device node gets a side effect), and where directories are
 * given, the file that was really opened must lie beneath one of them. Any thread; may block on
 * the file system.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#include "qcow/base/error.h"

/*
 * True of -EMFILE, -ENFILE and -ENOMEM: the program ran out of something, which says nothing about
 * any file. Pure.
 */
bool file_is_shortage(int code);

/*
 * Opens @path read-only and close-on-exec if it is a regular file or a block device.
 *
 * @dirs    real paths (no symlinks) one of which must hold the opened file, or NULL for anywhere
 *
 * The descriptor; -EPERM outside the directories; -EIO if it cannot be opened (the text has the
 * reason: a missing image is a fault of the host, not a missing name); -EOPNOTSUPP for another
 * type of file; what file_is_shortage() is true of.
 */
int file_open_image(const char *path, const char *const *dirs, size_t n_dirs, struct error *err);

/*
 * The same for a name that an image records: nor does it lead through /proc/PID/fd and the like, to
 * what a process has open, by no path that anybody could judge.
 */
int file_open_recorded(const char *path, const char *const *dirs, size_t n_dirs, struct error *err);

/*
 * From now on no image is opened at or beneath @dir (a real path, copied): the program's own
 * mount, where each look for an image would ask the program for that image again. Once, before
 * other threads open images. 0 or -ENOMEM.
 */
int file_forbid_tree(const char *dir, struct error *err);

/*
 * From now on every image that is opened "anywhere" must lie beneath one of @dirs (resolved here)
 * as well: whoever may write to them can put a link in the place of an image at any moment. NULL
 * takes that back. Once, before other threads open images. 0 or negative errno.
 */
int file_allow_only(const char *const *dirs, size_t n_dirs, struct error *err);

/*
 * Takes apart a reference as QEMU writes it into an image: a plain path, absolute or relative to
 * the directory of the file that holds it, or "file:" and such a path.
 *
 * @from   path of the image that makes the reference
 *
 * 0 and the path (caller frees), or -EOPNOTSUPP for a protocol ("nbd:...", "json:...").
 */
int file_resolve_ref(const char *from, const char *name, char **ret_path, struct error *err);

/* True if the real path @real is one of @dirs (real paths) or lies beneath one. Pure. */
bool file_is_beneath(const char *real, const char *const *dirs, size_t n_dirs);

/*
 * The real paths of directories, as file_open_image() wants them: an array that is never NULL,
 * so that an empty one allows nothing. 0, or negative errno if one is no directory.
 */
int file_resolve_dirs(const char *const *dirs, size_t n_dirs, char ***ret_real, struct error *err);
void file_free_dirs(char **dirs, size_t n_dirs); /* NULL is fine */
