/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An open image as the bytes of one qcow2 file that stands alone: version 3, no backing file, no
 * snapshots, nothing compressed, holes and zeros left out. Nothing is written anywhere: where each
 * byte lies is laid out when it is opened, and what lies there is made when it is read.
 *
 * header | L1 table | refcount table | refcount blocks | L2 tables with data | data clusters
 *
 * Each part begins at a cluster; L2 tables and data clusters stand in the guest's order, and the
 * file ends with the last of them. Clusters have 64 KiB, or as much more as QEMU's limits of the
 * tables make them need (beyond 2 PiB).
 *
 * Open walks the whole map of the image (qcow_map), never its data: the time grows with the tables
 * that are allocated, holes cost next to nothing. Memory, for each open object:
 * - 40 bytes for every L2 table, and never more than for 65536 of them (2.5 MiB);
 * - one bit for each 64 KiB of guest in L2 tables that are partly data, and never more than 8 MiB;
 *   what does not fit is looked up again in the image when it is read, and kept in the image's
 *   cache for a while. If the image says something else then than at open, that is an -EIO, found
 *   by a 64-bit sum: what was laid out is never filled with other bytes.
 * Disks up to 4 TiB fit in any case. It matters where the map may change while the data does not:
 * holes of raw files and of a hypervisor's exports may come and go.
 *
 * Open is the business of one thread; then any number may read at the same time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "qcow/base/error.h"

struct qcow_flat;
struct qcow_image;

struct qcow_flat_options {
    bool (*is_cancelled)(void *ctx); /* asked often during the walk; may be NULL */
    void *ctx;
    size_t map_len; /* bytes in place of the 8 MiB; 0: those */
};

/*
 * Lays out @image, which is borrowed: it has to be open as long as the file is read, but may be
 * closed before qcow_flat_close(). @options may be NULL.
 *
 * 0; -EBADMSG (also: tables that take longer to walk than the file accounts for, see l1_check.h);
 * -EINTR cancelled; -EFBIG (a disk of more than 2 EiB, or data of more than 64 PiB, which no
 * qcow2 file can hold); -ENOMEM; or as qcow_map().
 */
int qcow_flat_open(struct qcow_image *image, const struct qcow_flat_options *options,
                   struct qcow_flat **ret_flat, struct error *err);
void qcow_flat_close(struct qcow_flat *flat); /* NULL is fine */

/* Bytes of the file: whole clusters. */
uint64_t qcow_flat_size(const struct qcow_flat *flat);

/*
 * Tells layouts apart: two files of one disk with equal numbers have equal bytes. Holes that came
 * or went in between make another file of the same disk.
 */
uint64_t qcow_flat_layout(const struct qcow_flat *flat);

/*
 * Reads bytes of the file, of any place and length. Blocks on disk I/O; holds no lock meanwhile.
 * As qcow_read(), and -EIO if the map of the image is not what it was at open.
 */
ssize_t qcow_flat_read(const struct qcow_flat *flat, uint64_t off, void *buf, size_t len,
                       struct error *err);

/* The most that qcow_flat_size() can be for a disk of that many bytes. Pure. */
uint64_t qcow_flat_max_size(uint64_t guest_size);
