/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An open image from within: its layers. Immutable once open but for the watch and a flag, so that
 * any number of threads may read.
 */
#pragma once

#include <stdatomic.h>

#include "qcow/cache.h"
#include "qcow/cluster.h"
#include "qcow/header.h"
#include "qcow/qcow.h"
#include "qcow/snapshots.h"
#include "qcow/source.h"

/* One file of the chain. */
struct layer {
    struct qcow_file file;      /* owned */
    struct qcow_file data_file; /* owned; fd -1 unless the image has an external data file */
    struct source src;          /* the image file: tables, and data if there is no data file */
    struct source data;         /* where host offsets of data clusters count */
    uint64_t guest_size;        /* of this layer's disk (or of the snapshot), whole sectors */

    /* qcow2 only: */
    struct qcow_header hdr;
    struct cluster_shape shape;
    uint64_t l1_off; /* the active L1 table or the snapshot's */
    uint32_t l1_entries;
};

struct qcow_image {
    struct layer *layers; /* [0] is the top */
    unsigned n_layers;
    struct qcow_cache *cache; /* borrowed */
    atomic_bool is_walkable;  /* l1_check() was content with it */
    bool is_watched;          /* a snapshot is read: watch it */
    struct snapshot_watch watch;
};
