/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The internal snapshot table, and the watch over one entry of it while its snapshot is read.
 * Any thread; may block on disk I/O. Spec: "Snapshots".
 */
#pragma once

#include "qcow/base/thread.h"
#include "qcow/header.h"
#include "qcow/qcow.h"

/*
 * Reads the table that @hdr points to. Entries come in the order of the table; the caller
 * releases each with qcow_snapshot_fini() and frees the array.
 *
 * 0, -EBADMSG (the text names the entry), -EIO, -ENOMEM.
 */
int snapshots_read(const struct source *src, const struct qcow_header *hdr,
                   struct qcow_snapshot **ret_snapshots, size_t *ret_n, struct error *err);

/*
 * Watches that a snapshot is still in the table. QEMU takes an entry out of the table, and the
 * new table is on disk, before it frees the snapshot's clusters (qcow2_snapshot_delete), so data
 * that was read before a check that succeeds was the snapshot's.
 */
struct snapshot_watch {
    struct qcow_snapshot snapshot; /* immutable */
    uint8_t *entry;                /* its bytes in the table; immutable */
    size_t entry_len;

    struct mutex lock;
    uint64_t table_off GUARDED_BY(lock); /* where the table was seen last, */
    uint32_t n_snapshots GUARDED_BY(lock);
    uint64_t entry_off GUARDED_BY(lock); /* and the entry in it */
};

/* Finds @snapshot in the image's table. 0, -ESTALE if it is not there, or as snapshots_read(). */
int snapshot_watch_init(struct snapshot_watch *watch, const struct source *src,
                        const struct qcow_snapshot *snapshot, struct error *err);
void snapshot_watch_fini(struct snapshot_watch *watch);

/* 0 while the snapshot is there, -ESTALE once it is gone, -EIO, -ENOMEM. Two small reads. */
int snapshot_watch_check(struct snapshot_watch *watch, const struct source *src, struct error *err);
