/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qemu-img, the one program that this one runs: it writes images, which nothing here does. Found in
 * the system's own directories, run without a shell and without our environment, by the broker
 * where one runs (fs/sandbox/broker.h). Any thread; blocks until it has ended, however long that
 * takes: killed half way it would have to begin again. Its own locks keep everybody else from the
 * images meanwhile.
 */
#pragma once

#include <stdbool.h>

#include "fs/host/change.h"
#include "fs/sandbox/broker.h"
#include "qcow/base/error.h"

/* Who is told each second that it still works; NULL where nobody wants to know. */
struct qemu_img_watch {
    void (*on_wait)(void *ctx);
    void *ctx;
};

/*
 * Writes what @disk's overlay holds into its base and empties the overlay; the base is on disk
 * before. Can be repeated whenever it was cut off.
 * 0; -EBUSY (somebody has one of them open), -ENOSPC, -EIO with what it said, -EOPNOTSUPP (there
 * is no qemu-img).
 */
int qemu_img_commit(const struct change_disk *disk, const struct qemu_img_watch *watch,
                    struct error *err);

/* 0 if overlay and base show the same bytes, 1 if they differ; else as above. */
int qemu_img_compare(const struct change_disk *disk, const struct qemu_img_watch *watch,
                     struct error *err);

/*
 * Deletes the internal snapshot @name of the image at @path, which no QEMU has open.
 * 0; -EBUSY, -ENOSPC, -EIO, -EOPNOTSUPP as above.
 */
int qemu_img_delete_snapshot(const char *path, const char *name, struct error *err);

/*
 * Where no image of anybody's lies, since the program that asks could have made up what is there:
 * it writes below its state directory, and answers for its mount. Borrowed.
 */
struct qemu_img_fence {
    const char *state_dir;
    const char *mountpoint; /* real path: to look it up later would ask the program; or NULL */
    bool (*is_own_mount)(const char *path); /* is it on any mount of this program's? */
};

/*
 * For the broker; the context is a struct qemu_img_fence. -EPERM for what is no overlay or no
 * snapshot of ours, or lies within the fence.
 */
int qemu_img_work_commit(struct broker_call *call, struct error *err);
int qemu_img_work_compare(struct broker_call *call, struct error *err);
int qemu_img_work_delete_snapshot(struct broker_call *call, struct error *err);
