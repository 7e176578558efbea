/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * QEMU's byte locks on image files, spoken so that QEMU understands us: open file description
 * locks on byte 100 + permission ("I use it") and 200 + permission ("I do not share it"), all of
 * them read locks. A conflict is found by asking for a write lock on the other bank.
 * QEMU: block/file-posix.c, RAW_LOCK_PERM_BASE and RAW_LOCK_SHARED_BASE. Any thread; may block on
 * the file system.
 */
#pragma once

#include <stdbool.h>

#include "qcow/base/error.h"

enum qemulock_hold {
    /* Byte 100: "somebody reads here". Stops nobody; visible to whoever asks. */
    QEMULOCK_VISIBLE,
    /* Bytes 100, 201, 203: nobody may open the image for writing or resizing while we hold it. */
    QEMULOCK_NO_WRITERS,
};

/*
 * Sets the locks on the open file description of @fd, then looks for a writer. They go when the
 * last descriptor of that description is closed, or with qemulock_drop().
 *
 * @path  for messages
 *
 * 0; -EBUSY if somebody has the image open for writing (NO_WRITERS only; nothing stays locked).
 * A file system without locks is not an error: *ret_is_locked is then false.
 */
int qemulock_take(int fd, const char *path, enum qemulock_hold hold, bool *ret_is_locked,
                  struct error *err);
void qemulock_drop(int fd);

/*
 * 0, or -EBUSY if somebody else uses the file of @fd in any way that QEMU's locks show, reading
 * included; 0 where locks do not work.
 */
int qemulock_check_unused(int fd, const char *path, struct error *err);

/* The same of a file by its path; false if it cannot be opened. */
bool qemulock_is_used(const char *path);

/* 0, or -EBUSY if somebody else has the file of @fd open for writing; 0 where locks do not work. */
int qemulock_check(int fd, const char *path, struct error *err);
