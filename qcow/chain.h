/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Backing files: opens the chain, and finds who answers for a guest range. chain_find_extent():
 * any thread; may block on disk I/O.
 */
#pragma once

#include "qcow/image_internal.h"
#include "qcow/table.h"

/*
 * Opens the layers below @image->layers[0] one after the other, through @opener. On failure the
 * layers opened so far stay in @image, for qcow_close().
 *
 * 0; -ELOOP if a file turns up twice (by device and inode) or the chain is too deep; or as
 * qcow_open().
 */
int chain_open(struct qcow_image *image, const struct qcow_opener *opener, struct error *err);

/* Sets up one layer of @image from an opened file, which it takes also on failure. */
int chain_open_layer(struct qcow_image *image, struct qcow_file *file,
                     const struct qcow_opener *opener, struct error *err);
void chain_close_layer(struct qcow_cache *cache, struct layer *layer);

/* Who answers for a range of the guest. */
struct chain_extent {
    const struct layer *layer; /* NULL if no layer has anything there */
    struct cluster_run run;    /* UNALLOCATED if no layer has anything there */
};

/*
 * The extent that begins at @guest_off (below the image's size), at most @max_len long.
 * 0, -EBADMSG, -EIO, -ENOMEM.
 */
int chain_find_extent(const struct qcow_image *image, uint64_t guest_off, uint64_t max_len,
                      enum table_grow grow, struct chain_extent *ret_extent, struct error *err);
