/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qcow/flatten.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "qcow/base/bytes.h"
#include "qcow/flat_map.h"
#include "qcow/format.h"
#include "qcow/qcow.h"

/* QEMU's own default; larger ones only where its limits ask for them. */
enum { FLAT_CLUSTER_BITS_MIN = 16 };
/* 16-bit refcounts: QEMU's default, and the only ones of version 2. */
enum { FLAT_REFCOUNT_ORDER = 4, REFCOUNT_LEN = 2, REFTABLE_ENTRY_LEN = 8 };

/* Host offsets in L2 tables have 56 bits. */
#define FLAT_SIZE_MAX (1ULL << 56)

enum part { PART_HEADER, PART_L1, PART_REFTABLE, PART_REFBLOCKS, PART_L2, PART_DATA, PARTS };

/* Where each part begins, in clusters; at [PARTS], the end of the file. */
struct layout {
    unsigned cluster_bits;
    uint64_t l1_entries;
    uint64_t begin[PARTS + 1];
};

struct qcow_flat {
    struct qcow_image *image; /* borrowed */
    struct flat_map *map;
    uint64_t guest_size;
    struct layout layout;
};

static uint64_t divide_up(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

/*
 * Numbers of clusters and tables are below 2^46 for any disk, so that sums of them do not overflow.
 * The refcounts count their own blocks and tables, too: repeated until they cover all, which comes
 * soon, since a block covers thousands of clusters.
 */
static void lay_out(uint64_t guest_size, unsigned cluster_bits, uint64_t n_tables, uint64_t n_data,
                    struct layout *ret_layout)
{
    uint64_t cluster_size = 1ULL << cluster_bits;
    uint64_t l2_entries = cluster_size / L2_ENTRY_LEN;
    uint64_t n_clusters = divide_up(guest_size, cluster_size);
    uint64_t l1_entries = max_u64(divide_up(n_clusters, l2_entries), 1);
    uint64_t l1_clusters = divide_up(l1_entries * L1_ENTRY_LEN, cluster_size);
    uint64_t n_blocks = 0, n_reftable = 0, n_all = 0, n_before;
    do {
        n_before = n_all;
        n_all = 1 + l1_clusters + n_reftable + n_blocks + n_tables + n_data;
        n_blocks = divide_up(n_all, cluster_size / REFCOUNT_LEN);
        n_reftable = divide_up(n_blocks * REFTABLE_ENTRY_LEN, cluster_size);
    } while (n_all != n_before);
    const uint64_t lengths[PARTS] = {1, l1_clusters, n_reftable, n_blocks, n_tables, n_data};
    *ret_layout = (struct layout){.cluster_bits = cluster_bits, .l1_entries = l1_entries};
    for (int i = 0; i < PARTS; i++)
        ret_layout->begin[i + 1] = ret_layout->begin[i] + lengths[i];
}

static uint64_t part_clusters(const struct layout *layout, enum part part)
{
    return layout->begin[part + 1] - layout->begin[part];
}

static uint64_t part_off(const struct layout *layout, enum part part)
{
    return layout->begin[part] << layout->cluster_bits;
}

static bool has_l1_room(const struct layout *layout)
{
    return layout->l1_entries * L1_ENTRY_LEN <= L1_BYTES_MAX;
}

static bool has_reftable_room(const struct layout *layout)
{
    return part_clusters(layout, PART_REFTABLE) <= REFTABLE_BYTES_MAX >> layout->cluster_bits;
}

/* The layout of a disk that is all data. */
static void lay_out_full(uint64_t guest_size, unsigned cluster_bits, struct layout *ret_layout)
{
    uint64_t n_data = divide_up(guest_size, 1ULL << cluster_bits);
    uint64_t n_tables = divide_up(n_data, 1ULL << (cluster_bits - 3));
    lay_out(guest_size, cluster_bits, n_tables, n_data, ret_layout);
}

/*
 * The smallest clusters that do whatever of the disk is data; false if none do. The largest ones do
 * for any disk that has an L1 table: the end of host offsets comes before that of the refcounts.
 */
static bool choose_clusters(uint64_t guest_size, struct layout *ret_full)
{
    for (unsigned bits = FLAT_CLUSTER_BITS_MIN; bits <= CLUSTER_BITS_MAX; bits++) {
        lay_out_full(guest_size, bits, ret_full);
        bool is_last = bits == CLUSTER_BITS_MAX;
        if (has_l1_room(ret_full) && (is_last || has_reftable_room(ret_full)))
            return true;
    }
    return false;
}

uint64_t qcow_flat_max_size(uint64_t guest_size)
{
    struct layout full;
    if (!choose_clusters(guest_size, &full) ||
        full.begin[PARTS] > FLAT_SIZE_MAX >> full.cluster_bits)
        return FLAT_SIZE_MAX;
    return full.begin[PARTS] << full.cluster_bits;
}

static int open_flat(struct qcow_flat *flat, const struct qcow_flat_options *options,
                     struct error *err)
{
    if (!choose_clusters(flat->guest_size, &flat->layout))
        return error_set(err, -EFBIG, "a disk of %" PRIu64 " bytes is too large for a qcow2 file",
                         flat->guest_size);
    unsigned bits = flat->layout.cluster_bits;
    int r = flat_map_create(flat->image, bits, options, &flat->map, err);
    if (r < 0)
        return r;
    lay_out(flat->guest_size, bits, flat_map_count_tables(flat->map),
            flat_map_count_data(flat->map), &flat->layout);
    if (flat->layout.begin[PARTS] > FLAT_SIZE_MAX >> bits || !has_reftable_room(&flat->layout))
        return error_set(err, -EFBIG, "the disk has more data than a qcow2 file can hold");
    return 0;
}

int qcow_flat_open(struct qcow_image *image, const struct qcow_flat_options *options,
                   struct qcow_flat **ret_flat, struct error *err)
{
    struct qcow_flat *flat = calloc(1, sizeof(*flat));
    if (!flat)
        return error_set(err, -ENOMEM, "out of memory");
    flat->image = image;
    flat->guest_size = qcow_size(image);
    const struct qcow_flat_options none = {0};
    int r = open_flat(flat, options ? options : &none, err);
    if (r < 0) {
        qcow_flat_close(flat);
        return r;
    }
    *ret_flat = flat;
    return 0;
}

void qcow_flat_close(struct qcow_flat *flat)
{
    if (!flat)
        return;
    flat_map_destroy(flat->map);
    free(flat);
}

uint64_t qcow_flat_size(const struct qcow_flat *flat)
{
    return part_off(&flat->layout, PARTS);
}

uint64_t qcow_flat_layout(const struct qcow_flat *flat)
{
    return flat_map_layout(flat->map);
}

/* ---- The parts: bytes from @off of a part on, all of them within it ---- */

static int read_header(const struct qcow_flat *flat, uint64_t off, uint8_t *buf, size_t len)
{
    const struct layout *layout = &flat->layout;
    uint8_t header[HDR_V3_LEN] = {0};
    store_be32(header + HDR_MAGIC, QCOW_MAGIC);
    store_be32(header + HDR_VERSION, 3);
    store_be32(header + HDR_CLUSTER_BITS, layout->cluster_bits);
    store_be64(header + HDR_SIZE, flat->guest_size);
    store_be32(header + HDR_L1_ENTRIES, (uint32_t)layout->l1_entries);
    store_be64(header + HDR_L1_OFF, part_off(layout, PART_L1));
    store_be64(header + HDR_REFTABLE_OFF, part_off(layout, PART_REFTABLE));
    store_be32(header + HDR_REFTABLE_CLUSTERS, (uint32_t)part_clusters(layout, PART_REFTABLE));
    store_be32(header + HDR_REFCOUNT_ORDER, FLAT_REFCOUNT_ORDER);
    store_be32(header + HDR_LENGTH, HDR_V3_LEN);
    /* The zeros behind it are the end of the header extensions, among others. */
    memset(buf, 0, len);
    if (off < sizeof(header))
        memcpy(buf, header + off, (size_t)min_u64(len, sizeof(header) - off));
    return 0;
}

/* Puts @entry, number @idx of a table of 8-byte entries, where @buf (of @len bytes from @off of the
 * table on) has a place for it or a part of it. */
static void put_entry(uint64_t entry, uint64_t idx, uint64_t off, uint8_t *buf, size_t len)
{
    uint8_t bytes[8];
    store_be64(bytes, entry);
    uint64_t begin = max_u64(idx * sizeof(bytes), off);
    uint64_t end = min_u64((idx + 1) * sizeof(bytes), off + len);
    memcpy(buf + (begin - off), bytes + begin % sizeof(bytes), (size_t)(end - begin));
}

static int read_l1(const struct qcow_flat *flat, uint64_t off, uint8_t *buf, size_t len)
{
    const struct layout *layout = &flat->layout;
    for (uint64_t idx = off / L1_ENTRY_LEN; idx * L1_ENTRY_LEN < off + len; idx++) {
        uint64_t n_before, entry = 0;
        if (idx < layout->l1_entries && flat_map_find_table(flat->map, idx, &n_before))
            entry = L2_COPIED | (layout->begin[PART_L2] + n_before) << layout->cluster_bits;
        put_entry(entry, idx, off, buf, len);
    }
    return 0;
}

static int read_reftable(const struct qcow_flat *flat, uint64_t off, uint8_t *buf, size_t len)
{
    const struct layout *layout = &flat->layout;
    uint64_t n_blocks = part_clusters(layout, PART_REFBLOCKS);
    for (uint64_t idx = off / REFTABLE_ENTRY_LEN; idx * REFTABLE_ENTRY_LEN < off + len; idx++) {
        uint64_t block_off = (layout->begin[PART_REFBLOCKS] + idx) << layout->cluster_bits;
        put_entry(idx < n_blocks ? block_off : 0, idx, off, buf, len);
    }
    return 0;
}

/* Each cluster of the file is used once. */
static int read_refblocks(const struct qcow_flat *flat, uint64_t off, uint8_t *buf, size_t len)
{
    uint64_t end = flat->layout.begin[PARTS] * REFCOUNT_LEN;
    for (size_t i = 0; i < len; i++)
        buf[i] = off + i < end && (off + i) % REFCOUNT_LEN == REFCOUNT_LEN - 1;
    return 0;
}

/* A piece of one L2 table. */
static int read_table(const struct qcow_flat *flat, uint64_t l1_idx, uint64_t off, uint8_t *buf,
                      size_t len, struct error *err)
{
    const struct layout *layout = &flat->layout;
    uint64_t idx = off / L2_ENTRY_LEN;
    struct flat_cursor cursor;
    int r = flat_map_begin(flat->map, l1_idx, idx, &cursor, err);
    if (r < 0)
        return r;
    for (; idx * L2_ENTRY_LEN < off + len; idx++) {
        uint64_t n_before = cursor.n_before, entry = 0;
        if (flat_map_step(&cursor))
            entry = L2_COPIED | (layout->begin[PART_DATA] + n_before) << layout->cluster_bits;
        put_entry(entry, idx, off, buf, len);
    }
    flat_map_end(flat->map, &cursor);
    return 0;
}

static int read_l2(const struct qcow_flat *flat, uint64_t off, uint8_t *buf, size_t len,
                   struct error *err)
{
    uint64_t cluster_size = 1ULL << flat->layout.cluster_bits;
    while (len > 0) {
        uint64_t in_table = off & (cluster_size - 1);
        size_t part = (size_t)min_u64(len, cluster_size - in_table);
        uint64_t l1_idx = flat_map_nth_table(flat->map, off >> flat->layout.cluster_bits);
        int r = read_table(flat, l1_idx, in_table, buf, part, err);
        if (r < 0)
            return r;
        off += part;
        buf += part;
        len -= part;
    }
    return 0;
}

/* Guest bytes; zeros past the end of the disk, in its last cluster. */
static int read_guest(const struct qcow_flat *flat, uint64_t guest_off, uint8_t *buf, size_t len,
                      struct error *err)
{
    size_t n_there = 0;
    if (guest_off < flat->guest_size)
        n_there = (size_t)min_u64(len, flat->guest_size - guest_off);
    memset(buf + n_there, 0, len - n_there);
    if (n_there == 0)
        return 0;
    ssize_t n = qcow_read(flat->image, guest_off, buf, n_there, err);
    if (n < 0)
        return (int)n;
    if ((size_t)n != n_there)
        return error_set(err, -EIO, "the disk has become shorter");
    return 0;
}

static int read_data(const struct qcow_flat *flat, uint64_t off, uint8_t *buf, size_t len,
                     struct error *err)
{
    unsigned bits = flat->layout.cluster_bits;
    uint64_t cluster_size = 1ULL << bits;
    while (len > 0) {
        uint64_t in_cluster = off & (cluster_size - 1);
        uint64_t guest_idx, n_run;
        int r = flat_map_nth_data(flat->map, off >> bits, divide_up(in_cluster + len, cluster_size),
                                  &guest_idx, &n_run, err);
        if (r < 0)
            return r;
        size_t part = (size_t)min_u64(len, (n_run << bits) - in_cluster);
        r = read_guest(flat, (guest_idx << bits) + in_cluster, buf, part, err);
        if (r < 0)
            return r;
        off += part;
        buf += part;
        len -= part;
    }
    return 0;
}

static int read_part(const struct qcow_flat *flat, enum part part, uint64_t off, uint8_t *buf,
                     size_t len, struct error *err)
{
    switch (part) {
    case PART_HEADER:
        return read_header(flat, off, buf, len);
    case PART_L1:
        return read_l1(flat, off, buf, len);
    case PART_REFTABLE:
        return read_reftable(flat, off, buf, len);
    case PART_REFBLOCKS:
        return read_refblocks(flat, off, buf, len);
    case PART_L2:
        return read_l2(flat, off, buf, len, err);
    case PART_DATA:
        return read_data(flat, off, buf, len, err);
    case PARTS:
        break;
    }
    abort();
}

ssize_t qcow_flat_read(const struct qcow_flat *flat, uint64_t off, void *buf, size_t len,
                       struct error *err)
{
    const struct layout *layout = &flat->layout;
    if (off >= qcow_flat_size(flat))
        return 0;
    len = (size_t)min_u64(len, qcow_flat_size(flat) - off);
    uint8_t *to = buf;
    uint64_t end = off + len;
    for (int part = 0; part < PARTS && off < end; part++) {
        uint64_t begin = part_off(layout, (enum part)part);
        uint64_t part_end = min_u64(part_off(layout, (enum part)(part + 1)), end);
        if (off >= part_end)
            continue;
        size_t n = (size_t)(part_end - off);
        int r = read_part(flat, (enum part)part, off - begin, to, n, err);
        if (r < 0)
            return r;
        off += n;
        to += n;
    }
    return (ssize_t)len;
}
