/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whether the tables of an image can be walked from end to end in a time that its files account
 * for. Any thread; blocks on disk I/O.
 */
#pragma once

#include "qcow/image_internal.h"

/*
 * Reads the L1 table of each layer (8 bytes for each L2 table; at most 32 MiB). In a sound image
 * every L2 table has a cluster of its own. A damaged one may name the same table in all of its four
 * million entries: a file of 33 MB would take ten hours to walk.
 *
 * 0; -EBADMSG if a layer's L1 table names more L2 tables than its file has clusters; -ESTALE if it
 * is that of a snapshot that is gone; -EIO; -ENOMEM.
 */
int l1_check(struct qcow_image *image, struct error *err);
