/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * L1 and L2 tables of one layer: guest offset -> run of bytes of one kind. Tables are read in
 * slices through the cache, so that neither open nor memory grows with them. Any thread; may
 * block on disk I/O.
 */
#pragma once

#include "qcow/image_internal.h"

/* What a run is wanted for: how far it may grow. */
enum table_grow {
    TABLE_GROW_CONTIGUOUS, /* to read: data runs grow while the host bytes follow one another */
    TABLE_GROW_KIND,       /* to map: data runs grow over any place, compressed or not */
};

/*
 * The run of @layer (qcow2) that begins at @guest_off, at most @max_len long (and shorter where
 * following it to its end would take long); the range lies within the layer's guest_size.
 * COMPRESSED runs are single clusters (one may begin before
 * @guest_off) unless grown by kind, in which case they are called DATA.
 *
 * 0, -EBADMSG (the text names table, place and value), -EIO, -ENOMEM.
 */
int table_find_run(struct qcow_cache *cache, const struct layer *layer, uint64_t guest_off,
                   uint64_t max_len, enum table_grow grow, struct cluster_run *ret_run,
                   struct error *err);
