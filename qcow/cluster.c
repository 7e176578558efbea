/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qcow/cluster.h"

#include <errno.h>
#include <inttypes.h>

#include "qcow/base/bytes.h"
#include "qcow/format.h"

static int decode_compressed(const struct cluster_shape *shape, uint64_t entry,
                             struct cluster_run *run, struct error *err)
{
    if (shape->has_data_file)
        return error_set(err, -EBADMSG,
                         "entry %#" PRIx64 " is compressed in an image with an external data file",
                         entry);
    unsigned size_bits = shape->cluster_bits - 8;
    unsigned off_bits = 62 - size_bits;
    run->kind = CLUSTER_COMPRESSED;
    run->descriptor = entry & ~(L2_COPIED | L2_COMPRESSED);
    run->host_off = entry & ((1ULL << off_bits) - 1);
    uint64_t more_sectors = (entry >> off_bits) & ((1ULL << size_bits) - 1);
    run->host_len = (more_sectors + 1) * SECTOR_SIZE - (run->host_off & (SECTOR_SIZE - 1));
    return 0;
}

/* Offset checks that hold for every entry with a cluster, read or not. */
static int check_offset(const struct cluster_shape *shape, uint64_t entry, uint64_t cluster_guest,
                        struct error *err)
{
    uint64_t host_off = entry & L2_OFF_MASK;
    if (!is_aligned(host_off, 1ULL << shape->cluster_bits))
        return error_set(err, -EBADMSG,
                         "entry %#" PRIx64 " has offset %#" PRIx64
                         ", not aligned to the %llu-byte clusters",
                         entry, host_off, 1ULL << shape->cluster_bits);
    if (shape->has_data_file && host_off != cluster_guest)
        return error_set(err, -EBADMSG,
                         "entry %#" PRIx64 " has offset %#" PRIx64
                         " in the external data file, not its guest offset %#" PRIx64,
                         entry, host_off, cluster_guest);
    return 0;
}

static int decode_standard(const struct cluster_shape *shape, uint64_t entry, uint64_t in_cluster,
                           struct cluster_run *run)
{
    uint64_t host_off = entry & L2_OFF_MASK;
    /* offset 0 is a cluster only in an external data file, where COPIED tells it from none */
    bool has_cluster = host_off != 0 || (shape->has_data_file && (entry & L2_COPIED));
    run->kind = has_cluster ? CLUSTER_DATA : CLUSTER_UNALLOCATED;
    if (entry & L2_ZERO)
        run->kind = CLUSTER_ZERO;
    run->host_off = host_off + in_cluster;
    return has_cluster;
}

static enum cluster_kind subcluster_kind(uint64_t bitmap, unsigned idx)
{
    if (bitmap & (1ULL << (SUBCLUSTERS + idx)))
        return CLUSTER_ZERO;
    return (bitmap & (1ULL << idx)) ? CLUSTER_DATA : CLUSTER_UNALLOCATED;
}

/* 1 if there is a cluster, 0 if not, or -EBADMSG. */
static int decode_extended(const struct cluster_shape *shape, const struct cluster_entry *entry,
                           uint64_t in_cluster, struct cluster_run *run, struct error *err)
{
    uint64_t host_off = entry->entry & L2_OFF_MASK;
    bool has_cluster = host_off != 0 || (shape->has_data_file && (entry->entry & L2_COPIED));
    uint32_t allocated = (uint32_t)entry->bitmap;
    uint32_t zero = (uint32_t)(entry->bitmap >> SUBCLUSTERS);
    if (has_cluster ? (allocated & zero) != 0 : allocated != 0)
        return error_set(err, -EBADMSG,
                         "entry %#" PRIx64 " has subcluster bitmap %#" PRIx64 ": subclusters %s",
                         entry->entry, entry->bitmap,
                         has_cluster ? "both allocated and zero" : "allocated without a cluster");
    unsigned bits = shape->cluster_bits - 5;
    unsigned first = (unsigned)(in_cluster >> bits);
    unsigned end = first + 1;
    run->kind = subcluster_kind(entry->bitmap, first);
    while (end < SUBCLUSTERS && subcluster_kind(entry->bitmap, end) == run->kind)
        end++;
    run->guest_len = ((uint64_t)end << bits) - in_cluster;
    run->host_off = host_off + in_cluster;
    return has_cluster;
}

int cluster_decode(const struct cluster_shape *shape, const struct cluster_entry *entry,
                   uint64_t guest_off, struct cluster_run *ret_run, struct error *err)
{
    uint64_t cluster_size = 1ULL << shape->cluster_bits;
    uint64_t in_cluster = guest_off & (cluster_size - 1);
    *ret_run = (struct cluster_run){.guest_len = cluster_size - in_cluster};
    if (entry->entry & L2_COMPRESSED)
        return decode_compressed(shape, entry->entry, ret_run, err);
    int has_cluster;
    if (shape->has_extended_l2)
        has_cluster = decode_extended(shape, entry, in_cluster, ret_run, err);
    else
        has_cluster = decode_standard(shape, entry->entry, in_cluster, ret_run);
    if (has_cluster < 0)
        return has_cluster;
    if (ret_run->kind == CLUSTER_ZERO && shape->version < 3)
        return error_set(err, -EBADMSG,
                         "entry %#" PRIx64 " is marked as zeros, which version 2 does not know",
                         entry->entry);
    if (!has_cluster)
        return 0;
    return check_offset(shape, entry->entry, guest_off - in_cluster, err);
}
