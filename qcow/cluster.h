/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One L2 entry -> what it says about guest bytes. Pure: no I/O, no allocation, any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "qcow/base/error.h"

enum cluster_kind {
    CLUSTER_UNALLOCATED, /* ask the backing file */
    CLUSTER_ZERO,        /* reads as zeros, whatever the backing file has */
    CLUSTER_DATA,
    CLUSTER_COMPRESSED,
};

/* What the meaning of an entry depends on. */
struct cluster_shape {
    unsigned version;
    unsigned cluster_bits;
    bool has_extended_l2;
    bool has_data_file;
};

/* An L2 entry in host byte order. */
struct cluster_entry {
    uint64_t entry;
    uint64_t bitmap; /* extended L2 only: subclusters allocated (low half), zero (high half) */
};

/* A run of (sub)clusters of one kind, within one cluster. */
struct cluster_run {
    enum cluster_kind kind;
    uint64_t host_off;   /* DATA: of the first byte of the run; COMPRESSED: of the data */
    uint64_t host_len;   /* COMPRESSED: bytes of compressed data, at most */
    uint64_t guest_len;  /* from the place asked for, at most to the end of the cluster */
    uint64_t descriptor; /* COMPRESSED: the entry without flags; tells clusters apart */
};

/*
 * Decodes an entry for the guest bytes from @guest_off on.
 *
 * 0, or -EBADMSG with a text that gives the entry and what is wrong with it (the caller puts the
 * table and its place in front): a zero flag in version 2, an offset that is not aligned to
 * clusters, subclusters both allocated and zero or allocated without a cluster, an external data
 * file with compressed clusters or with an offset other than the guest's. Reserved bits are
 * ignored, as QEMU does.
 * Spec: "Cluster mapping": L2 table entry, Standard and Compressed Clusters Descriptor, "Extended
 * L2 Entries".
 */
int cluster_decode(const struct cluster_shape *shape, const struct cluster_entry *entry,
                   uint64_t guest_off, struct cluster_run *ret_run, struct error *err);
