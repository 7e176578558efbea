/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qcow/table.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "qcow/base/bytes.h"
#include "qcow/format.h"

/*
 * Tables are cached in slices of a page: a slice of an L2 table of 64 KiB clusters covers 32 MiB
 * of guest, so a sequential reader loads one now and then, and a random one never reads a 2 MiB
 * table for one entry. A slice never crosses a cluster, since clusters of 512 bytes to 4 KiB are
 * a slice each.
 */
enum { SLICE_MAX = 4096 };

struct slice_load {
    const struct source *src;
    uint64_t host_off;
    size_t valid; /* bytes of the slice that belong to the table */
    const char *what;
};

static int load_slice(void *ctx, uint8_t *buf, size_t len, struct error *err)
{
    const struct slice_load *load = ctx;
    int r = source_read(load->src, load->host_off, buf, load->valid, load->what, err);
    if (r < 0)
        return r;
    memset(buf + load->valid, 0, len - load->valid);
    return 0;
}

/* A table: where it is and how many bytes it has. */
struct table {
    enum cache_kind kind;
    const char *what;
    uint64_t host_off;
    uint64_t len;
};

/* A pinned slice and the byte range of the table that it holds. */
struct slice {
    struct cache_ref ref;
    uint64_t first, end; /* within the table */
};

static int get_slice(struct qcow_cache *cache, const struct layer *layer, const struct table *table,
                     uint64_t at, struct slice *ret, struct error *err)
{
    size_t slice_len = (size_t)min_u64(SLICE_MAX, layer->hdr.cluster_size);
    uint64_t first = align_down(at, slice_len);
    struct slice_load load = {
        .src = &layer->src,
        .host_off = table->host_off + first,
        .valid = (size_t)min_u64(slice_len, table->len - first),
        .what = table->what,
    };
    struct cache_key key = {
        .file_id = layer->src.id, .host_off = load.host_off, .kind = table->kind};
    int r = cache_get(cache, &key, slice_len, load_slice, &load, &ret->ref, err);
    if (r < 0)
        return r;
    ret->first = first;
    ret->end = first + load.valid;
    return 0;
}

static uint64_t slice_load_u64(const struct slice *slice, uint64_t at)
{
    return load_be64(slice->ref.data + (at - slice->first));
}

/* A run of L1 entries without an L2 table from @l1_idx on: guest bytes from @guest_off. */
static uint64_t grow_l1_gap(const struct layer *layer, const struct slice *slice, uint64_t l1_idx,
                            uint64_t guest_off, uint64_t max_len)
{
    unsigned shift = layer->hdr.cluster_bits + header_l2_bits(&layer->hdr);
    uint64_t idx = l1_idx;
    while (idx * L1_ENTRY_LEN < slice->end &&
           !(slice_load_u64(slice, idx * L1_ENTRY_LEN) & L1_OFF_MASK) &&
           (idx << shift) < guest_off + max_len)
        idx++;
    return min_u64(max_len, (idx << shift) - guest_off);
}

/*
 * Finds the L2 table for @guest_off. 1 and its place; 0 if there is none, and the length of the
 * gap in @ret_gap.
 */
static int find_l2(struct qcow_cache *cache, const struct layer *layer, uint64_t guest_off,
                   uint64_t max_len, uint64_t *ret_l2_off, uint64_t *ret_gap, struct error *err)
{
    unsigned shift = layer->hdr.cluster_bits + header_l2_bits(&layer->hdr);
    uint64_t l1_idx = guest_off >> shift;
    *ret_gap = max_len;
    if (l1_idx >= layer->l1_entries)
        return 0; /* a snapshot's L1 table may be shorter than its disk */
    struct table l1 = {.kind = CACHE_L1,
                       .what = "L1 table",
                       .host_off = layer->l1_off,
                       .len = (uint64_t)layer->l1_entries * L1_ENTRY_LEN};
    struct slice slice;
    int r = get_slice(cache, layer, &l1, l1_idx * L1_ENTRY_LEN, &slice, err);
    if (r < 0)
        return r;
    uint64_t entry = slice_load_u64(&slice, l1_idx * L1_ENTRY_LEN);
    uint64_t l2_off = entry & L1_OFF_MASK;
    if (l2_off == 0)
        *ret_gap = grow_l1_gap(layer, &slice, l1_idx, guest_off, max_len);
    cache_put(cache, &slice.ref);
    if (l2_off == 0)
        return 0;
    if (!is_aligned(l2_off, layer->hdr.cluster_size) ||
        l2_off + layer->hdr.cluster_size > layer->src.host_size)
        return error_set(err, -EBADMSG,
                         "'%s': L1 table at %#" PRIx64 ": entry %" PRIu64 " is %#" PRIx64
                         ": L2 table at %#" PRIx64 " %s",
                         layer->file.name, layer->l1_off, l1_idx, entry, l2_off,
                         is_aligned(l2_off, layer->hdr.cluster_size)
                             ? "lies outside the file"
                             : "is not aligned to clusters");
    *ret_l2_off = l2_off;
    return 1;
}

static int decode_at(const struct layer *layer, const struct slice *slice, uint64_t l2_off,
                     uint64_t guest_off, struct cluster_run *ret_run, struct error *err)
{
    unsigned l2_bits = header_l2_bits(&layer->hdr);
    unsigned entry_len = header_l2_entry_len(&layer->hdr);
    uint64_t idx = (guest_off >> layer->hdr.cluster_bits) & ((1ULL << l2_bits) - 1);
    struct cluster_entry entry = {.entry = slice_load_u64(slice, idx * entry_len)};
    if (layer->hdr.has_extended_l2)
        entry.bitmap = slice_load_u64(slice, idx * entry_len + 8);
    int r = cluster_decode(&layer->shape, &entry, guest_off, ret_run, err);
    if (r < 0)
        error_prefix(err, "'%s': L2 table at %#" PRIx64 ": entry %" PRIu64, layer->file.name,
                     l2_off, idx);
    return r;
}

/* May @next, which follows @run in the guest, be one with it? */
static bool joins(const struct cluster_run *run, const struct cluster_run *next,
                  enum table_grow grow)
{
    if (run->kind != next->kind || run->kind == CLUSTER_COMPRESSED)
        return false;
    return run->kind != CLUSTER_DATA || grow == TABLE_GROW_KIND ||
           run->host_off + run->guest_len == next->host_off;
}

static int decode_for(const struct layer *layer, const struct slice *slice, uint64_t l2_off,
                      uint64_t guest_off, enum table_grow grow, struct cluster_run *ret_run,
                      struct error *err)
{
    int r = decode_at(layer, slice, l2_off, guest_off, ret_run, err);
    if (r == 0 && grow == TABLE_GROW_KIND && ret_run->kind == CLUSTER_COMPRESSED)
        ret_run->kind = CLUSTER_DATA;
    return r;
}

/*
 * How many entries without anything follow one another from @idx on. Most entries of a sparse disk
 * are, and of an overlay: a walk over 1 TiB has to get past them.
 */
static uint64_t count_empty(const struct slice *slice, uint64_t idx, uint64_t end_idx,
                            unsigned entry_len)
{
    uint64_t at = idx * entry_len, end = min_u64(end_idx * entry_len, slice->end);
    while (at < end && slice_load_u64(slice, at) == 0)
        at += 8;
    return at / entry_len - idx; /* of an extended entry, both words */
}

/* The run at @guest_off as far as one slice of its L2 table tells. */
static int run_in_slice(struct qcow_cache *cache, const struct layer *layer, uint64_t l2_off,
                        uint64_t guest_off, uint64_t max_len, enum table_grow grow,
                        struct cluster_run *ret_run, struct error *err)
{
    unsigned l2_bits = header_l2_bits(&layer->hdr);
    unsigned entry_len = header_l2_entry_len(&layer->hdr);
    uint64_t idx = (guest_off >> layer->hdr.cluster_bits) & ((1ULL << l2_bits) - 1);
    struct table l2 = {
        .kind = CACHE_L2, .what = "L2 table", .host_off = l2_off, .len = layer->hdr.cluster_size};
    struct slice slice;
    int r = get_slice(cache, layer, &l2, idx * entry_len, &slice, err);
    if (r < 0)
        return r;
    uint64_t entries_left = slice.end / entry_len - idx;
    uint64_t in_cluster = guest_off & (layer->hdr.cluster_size - 1);
    uint64_t slice_guest = (entries_left << layer->hdr.cluster_bits) - in_cluster;
    uint64_t limit = min_u64(max_len, slice_guest);
    r = decode_for(layer, &slice, l2_off, guest_off, grow, ret_run, err);
    while (r == 0 && ret_run->guest_len < limit) {
        struct cluster_run next;
        if (ret_run->kind == CLUSTER_UNALLOCATED) {
            unsigned bits = layer->hdr.cluster_bits;
            uint64_t next_idx = idx + ((in_cluster + ret_run->guest_len) >> bits);
            uint64_t end_idx = idx + ((in_cluster + limit - 1) >> bits) + 1;
            ret_run->guest_len += count_empty(&slice, next_idx, end_idx, entry_len) << bits;
            if (ret_run->guest_len >= limit)
                break;
        }
        r = decode_for(layer, &slice, l2_off, guest_off + ret_run->guest_len, grow, &next, NULL);
        if (r < 0) {
            r = 0; /* a damaged entry spoils its own cluster only; whoever reads that is told */
            break;
        }
        if (!joins(ret_run, &next, grow))
            break;
        ret_run->guest_len += next.guest_len;
    }
    cache_put(cache, &slice.ref);
    return r;
}

static int run_piece(struct qcow_cache *cache, const struct layer *layer, uint64_t guest_off,
                     uint64_t max_len, enum table_grow grow, struct cluster_run *ret_run,
                     struct error *err)
{
    uint64_t l2_off = 0, gap = 0;
    int r = find_l2(cache, layer, guest_off, max_len, &l2_off, &gap, err);
    if (r < 0)
        return r;
    if (r == 0) {
        *ret_run = (struct cluster_run){.kind = CLUSTER_UNALLOCATED, .guest_len = gap};
        return 0;
    }
    r = run_in_slice(cache, layer, l2_off, guest_off, max_len, grow, ret_run, err);
    if (r == 0)
        ret_run->guest_len = min_u64(ret_run->guest_len, max_len);
    return r;
}

/* A run is not followed further than this many slices at a time, some milliseconds of work. */
enum { RUN_SLICES_MAX = 256 };

int table_find_run(struct qcow_cache *cache, const struct layer *layer, uint64_t guest_off,
                   uint64_t max_len, enum table_grow grow, struct cluster_run *ret_run,
                   struct error *err)
{
    int r = run_piece(cache, layer, guest_off, max_len, grow, ret_run, err);
    for (int n = 1; r == 0 && n < RUN_SLICES_MAX; n++) {
        if (ret_run->guest_len == max_len || ret_run->kind == CLUSTER_COMPRESSED)
            break;
        struct cluster_run next;
        uint64_t done = ret_run->guest_len;
        if (run_piece(cache, layer, guest_off + done, max_len - done, grow, &next, NULL) < 0 ||
            !joins(ret_run, &next, grow))
            break;
        ret_run->guest_len += next.guest_len;
    }
    return r;
}
