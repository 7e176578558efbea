/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One disk's image opened for readers: its chain through the host's policy, held by QEMU's locks.
 * Counted, so that a session can end while a read is under way; any thread.
 */
#pragma once

#include <sys/types.h>

#include "fs/host/host.h"
#include "fs/host/qemulock.h"
#include "qcow/flatten.h"
#include "qcow/qcow.h"

struct disk_image;

struct disk_image_request {
    struct host *host;
    const struct disk *disk;
    const struct qcow_snapshot *snapshot; /* or NULL for the disk itself */
    struct qcow_cache *cache;
    /*
     * What the top layer is held with. The layers below always get NO_WRITERS: whatever reads
     * through them relies on their not changing.
     */
    enum qemulock_hold top_hold;
};

/*
 * Opens and holds. Everything in @request is borrowed for the call, the cache for the image's
 * life. 0; -EBUSY (a writer); -EOPNOTSUPP (unsupported or encrypted disk, disputed format, with
 * the reason); -EPERM (a reference outside the allowed directories); or as qcow_open().
 */
int disk_image_open(const struct disk_image_request *request, struct disk_image **ret_image,
                    struct error *err);
/*
 * The same for an open raw image that stands alone and that nobody else writes to. Takes what is in
 * @file, also on failure.
 */
int disk_image_open_file(struct qcow_file *file, struct qcow_cache *cache,
                         struct disk_image **ret_image, struct error *err);
struct disk_image *disk_image_ref(struct disk_image *image);
void disk_image_unref(struct disk_image *image); /* closes with the last; NULL is fine */

/* False if some layer lies where QEMU's locks do not work. */
bool disk_image_is_locked(const struct disk_image *image);
/* Lets go of QEMU's locks ahead of a commit into the image; reads may go on. */
void disk_image_drop_locks(struct disk_image *image);

struct qcow_image *disk_image_qcow(struct disk_image *image); /* borrowed */

/*
 * Tells apart what is read by one name: a hash of which files the chain is made of, and of the
 * state of those that nobody should write to (size and mtime), which is all but the top one unless
 * @is_top_frozen. For as long as the image is open.
 */
uint64_t disk_image_origin(const struct disk_image *image, bool is_top_frozen);

/*
 * The image as one qcow2 file (qcow/flatten.h), laid out by the first who asks and the same for all
 * who do; borrowed, as long as the image is held. May take long: @is_cancelled is asked often
 * (NULL: nobody). As qcow_flat_open().
 */
int disk_image_flatten(struct disk_image *image, bool (*is_cancelled)(void *ctx), void *ctx,
                       const struct qcow_flat **ret_flat, struct error *err);
