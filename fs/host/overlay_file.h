/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the file of an overlay says of itself, whatever libvirt knows: who uses it, what it lies
 * over, whether it holds anything. Any thread; blocks on the disk.
 */
#pragma once

#include <stdbool.h>

#include "fs/host/change.h"
#include "qcow/base/error.h"

/* Opens the overlay, a regular file: the descriptor; -ENOENT: there is none any more; -EIO. */
int overlay_file_open(const struct change_disk *disk, struct error *err);

/* Of an overlay that no guest may write to meanwhile. */
struct overlay_content {
    bool is_over_base; /* it records the base and the base's format */
    bool has_data;     /* it holds something itself; a file that was never finished does not */
};

/* @fd from overlay_file_open(). 0, -EBADMSG, -ENOTSUP, -EIO, -ENOMEM. */
int overlay_file_read(const struct change_disk *disk, int fd, struct overlay_content *ret,
                      struct error *err);

/*
 * What the overlay at @path records as its base: an absolute path (caller frees), and its format.
 * May be called while a guest writes to it. 0, -EIO, -EBADMSG, -ENOTSUP, -ENOMEM.
 */
int overlay_file_find_base(const char *path, char **ret_base, enum qcow_format *ret_format,
                           struct error *err);

/*
 * Has somebody made an internal snapshot in it, which would go with it? May be called while a guest
 * writes to it. 0 or negative errno.
 */
int overlay_file_has_snapshot(const struct change_disk *disk, bool *ret_has_snapshot,
                              struct error *err);

/* True if QEMU's locks say that somebody writes to @path; false if it cannot be opened. */
bool overlay_file_is_written(const char *path);

/*
 * True if the base was last written to before the overlay was: nobody has used it on its own since.
 * False if that cannot be told.
 */
bool overlay_file_is_newer(const struct change_disk *disk);

/*
 * True if another machine could be using the files: they lie on a file system, or a block device,
 * that may be shared between machines.
 */
bool overlay_file_may_be_shared(const struct change_disk *disk);

/*
 * True if @path, of that format, is the overlay or leads to it by the backing files, and their
 * formats, that the images record.
 */
bool overlay_file_is_below(const struct change_disk *disk, const char *path,
                           enum qcow_format format);

/* Deletes it, on disk for good. 0 (also if there is none) or -EIO. */
int overlay_file_delete(const struct change_disk *disk, struct error *err);
