/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qcow/flat_map.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "qcow/base/bytes.h"
#include "qcow/flat_bits.h"
#include "qcow/format.h"
#include "qcow/image_internal.h"
#include "qcow/l1_check.h"

/*
 * Tables are taken together in groups, as many as it needs to have no more than GROUPS_MAX of them.
 * QEMU's L1 table has 4 Mi entries at most, so 64 are enough: their presence is one word.
 */
enum { GROUPS_MAX = 65536, GROUP_TABLES_MAX = 64 };
_Static_assert((uint64_t)GROUPS_MAX *GROUP_TABLES_MAX *L1_ENTRY_LEN >= L1_BYTES_MAX,
               "an L1 table of any length can be grouped");

/* Kept bits of all groups together; see flatten.h. */
#define KEPT_LEN_MAX (8ULL << 20)

struct group {
    uint64_t data_before; /* data clusters in the groups before this one */
    uint64_t present;     /* bit i: table i of the group has data */
    uint64_t sum;         /* of its bits */
    uint64_t tables_before;
    uint8_t *kept; /* its bits, or NULL: all or none are set, or they are to be looked up */
};

struct flat_map {
    struct qcow_image *image; /* borrowed */
    struct qcow_cache *cache; /* borrowed; outlives the image */
    uint64_t cache_id;        /* as of a file */
    uint64_t guest_size;      /* bytes */
    unsigned cluster_bits;    /* bytes of a cluster */
    unsigned table_bits;      /* clusters of a table */
    unsigned group_bits;      /* clusters of a group */
    size_t n_groups;
    struct group *groups; /* and one more at the end, for its sums */
};

/* ---- Groups ---- */

static uint64_t count_group_clusters(const struct flat_map *map)
{
    return 1ULL << map->group_bits;
}

static size_t group_len(const struct flat_map *map)
{
    return (size_t)1 << (map->group_bits - 3);
}

/* Clusters of the disk in that group: all of a group but for the last one. */
static uint64_t count_clusters(const struct flat_map *map, size_t group_idx)
{
    uint64_t begin = (uint64_t)group_idx << map->group_bits;
    uint64_t n = (map->guest_size - 1) >> map->cluster_bits;
    return min_u64(n + 1 - begin, count_group_clusters(map));
}

static uint64_t count_data(const struct flat_map *map, size_t group_idx)
{
    return map->groups[group_idx + 1].data_before - map->groups[group_idx].data_before;
}

struct findings {
    uint64_t n_data, present, sum;
};

static struct findings judge_bits(const struct flat_map *map, const uint8_t *bits)
{
    struct findings found = {0};
    unsigned words_of_table = map->table_bits - 6;
    for (uint64_t i = 0; i < group_len(map) / WORD_LEN; i++) {
        uint64_t word = bits_get_word(bits, i);
        if (word)
            found.present |= 1ULL << (i >> words_of_table);
        found.n_data += (uint64_t)__builtin_popcountll(word);
        found.sum = (found.sum ^ word) * 0x9e3779b97f4a7c15ULL;
        found.sum ^= found.sum >> 32;
    }
    return found;
}

/* Sets the bits of an extent that lies in one group. */
static void mark(const struct flat_map *map, uint8_t *bits, uint64_t guest_off, uint64_t len)
{
    uint64_t mask = count_group_clusters(map) - 1;
    uint64_t first = guest_off >> map->cluster_bits;
    uint64_t last = (guest_off + len - 1) >> map->cluster_bits;
    bits_set(bits, first & mask, (last & mask) + 1);
}

/* ---- The first walk ---- */

/* Each group that is all data has this sum: its bits are never needed. */
static const uint64_t full_sum = ~0ULL;

struct walk {
    struct flat_map *map;
    const struct qcow_flat_options *options;
    size_t room;      /* for bits to keep, bytes */
    uint64_t n_data;  /* so far */
    size_t group_idx; /* whose bits are being collected, */
    uint8_t *bits;    /* here */
    bool has_bits;
};

static int count_more(struct walk *walk, uint64_t n_data, struct error *err)
{
    walk->n_data += n_data;
    if (walk->n_data > (L2_OFF_MASK >> walk->map->cluster_bits))
        return error_set(err, -EFBIG, "the disk has more data than a qcow2 file can hold");
    return 0;
}

/* Until the sums are made, data_before is the group's own count. */
static int finish_group(struct walk *walk, struct error *err)
{
    if (!walk->has_bits)
        return 0;
    struct flat_map *map = walk->map;
    struct group *group = &map->groups[walk->group_idx];
    struct findings found = judge_bits(map, walk->bits);
    group->data_before = found.n_data;
    group->present = found.present;
    group->sum = found.sum;
    size_t len = group_len(map);
    bool is_full = found.n_data == count_clusters(map, walk->group_idx);
    if (is_full)
        group->sum = full_sum;
    if (!is_full && len <= walk->room) {
        group->kept = malloc(len);
        if (!group->kept)
            return error_set(err, -ENOMEM, "out of memory");
        memcpy(group->kept, walk->bits, len);
        walk->room -= len;
    }
    memset(walk->bits, 0, len);
    walk->has_bits = false;
    return count_more(walk, found.n_data, err);
}

/* The whole of a group, at once: a disk that is all data is quick to walk. */
static int add_full_group(struct walk *walk, size_t group_idx, struct error *err)
{
    struct flat_map *map = walk->map;
    uint64_t n_tables = count_group_clusters(map) >> map->table_bits;
    map->groups[group_idx] = (struct group){
        .data_before = count_group_clusters(map),
        .present = n_tables == GROUP_TABLES_MAX ? ~0ULL : bits_low_mask(n_tables),
        .sum = full_sum,
    };
    return count_more(walk, count_group_clusters(map), err);
}

static int add_data(struct walk *walk, const struct qcow_extent *extent, struct error *err)
{
    const struct flat_map *map = walk->map;
    unsigned shift = map->group_bits + map->cluster_bits;
    uint64_t guest_off = extent->guest_off, end = guest_off + extent->len;
    while (guest_off < end) {
        size_t group_idx = (size_t)(guest_off >> shift);
        if (group_idx != walk->group_idx) {
            int r = finish_group(walk, err);
            if (r < 0)
                return r;
            walk->group_idx = group_idx;
        }
        uint64_t part = min_u64(end, ((uint64_t)group_idx + 1) << shift) - guest_off;
        if (part == 1ULL << shift) {
            int r = add_full_group(walk, group_idx, err);
            if (r < 0)
                return r;
        } else {
            mark(map, walk->bits, guest_off, part);
            walk->has_bits = true;
        }
        guest_off += part;
    }
    return 0;
}

static int walk_image(struct walk *walk, struct error *err)
{
    const struct flat_map *map = walk->map;
    for (uint64_t guest_off = 0; guest_off < map->guest_size;) {
        if (walk->options->is_cancelled && walk->options->is_cancelled(walk->options->ctx))
            return error_set(err, -EINTR, "interrupted");
        struct qcow_extent extent;
        int r = qcow_map(map->image, guest_off, map->guest_size - guest_off, &extent, err);
        if (r == 0 && extent.kind == QCOW_DATA)
            r = add_data(walk, &extent, err);
        if (r < 0)
            return r;
        guest_off += extent.len;
    }
    return finish_group(walk, err);
}

static void sum_up(struct flat_map *map)
{
    uint64_t n_data = 0, n_tables = 0;
    for (size_t i = 0; i <= map->n_groups; i++) {
        struct group *group = &map->groups[i];
        uint64_t own = group->data_before;
        group->data_before = n_data;
        group->tables_before = n_tables;
        n_data += own;
        n_tables += (uint64_t)__builtin_popcountll(group->present);
    }
}

static int fill_map(struct flat_map *map, const struct qcow_flat_options *options,
                    struct error *err)
{
    struct walk walk = {.map = map, .options = options};
    walk.room = options->map_len ? options->map_len : (size_t)KEPT_LEN_MAX;
    walk.bits = calloc(1, group_len(map));
    if (!walk.bits)
        return error_set(err, -ENOMEM, "out of memory");
    int r = walk_image(&walk, err);
    free(walk.bits);
    if (r == 0)
        sum_up(map);
    return r;
}

int flat_map_create(struct qcow_image *image, unsigned cluster_bits,
                    const struct qcow_flat_options *options, struct flat_map **ret_map,
                    struct error *err)
{
    struct flat_map *map = calloc(1, sizeof(*map));
    if (!map)
        return error_set(err, -ENOMEM, "out of memory");
    *map = (struct flat_map){
        .image = image,
        .cache = image->cache,
        .cache_id = cache_new_file_id(image->cache),
        .guest_size = qcow_size(image),
        .cluster_bits = cluster_bits,
        .table_bits = cluster_bits - 3,
    };
    uint64_t last = map->guest_size ? map->guest_size - 1 : 0;
    uint64_t n_tables = (last >> cluster_bits >> map->table_bits) + 1;
    map->group_bits = map->table_bits;
    uint64_t n_groups = n_tables;
    while (n_groups > GROUPS_MAX) {
        n_groups = n_groups / 2 + n_groups % 2;
        map->group_bits++;
    }
    map->n_groups = (size_t)n_groups;
    map->groups = calloc(map->n_groups + 1, sizeof(*map->groups));
    int r = map->groups ? l1_check(image, err) : error_set(err, -ENOMEM, "out of memory");
    if (r == 0)
        r = fill_map(map, options, err);
    if (r < 0) {
        flat_map_destroy(map);
        return r;
    }
    *ret_map = map;
    return 0;
}

void flat_map_destroy(struct flat_map *map)
{
    if (!map)
        return;
    cache_forget_file(map->cache, map->cache_id);
    for (size_t i = 0; map->groups && i < map->n_groups; i++)
        free(map->groups[i].kept);
    free(map->groups);
    free(map);
}

/* ---- Groups whose bits were not kept ---- */

struct group_load {
    const struct flat_map *map;
    size_t group_idx;
};

static int load_group(void *ctx, uint8_t *buf, size_t len, struct error *err)
{
    const struct group_load *load = ctx;
    const struct flat_map *map = load->map;
    uint64_t guest_off = (uint64_t)load->group_idx << map->group_bits << map->cluster_bits;
    uint64_t end = count_clusters(map, load->group_idx) << map->cluster_bits;
    end = min_u64(guest_off + end, map->guest_size);
    memset(buf, 0, len);
    while (guest_off < end) {
        struct qcow_extent extent;
        int r = qcow_map(map->image, guest_off, end - guest_off, &extent, err);
        if (r < 0)
            return r;
        if (extent.kind == QCOW_DATA)
            mark(map, buf, guest_off, extent.len);
        guest_off += extent.len;
    }
    const struct group *group = &map->groups[load->group_idx];
    struct findings found = judge_bits(map, buf);
    if (found.n_data == count_data(map, load->group_idx) && found.present == group->present &&
        found.sum == group->sum)
        return 0;
    return error_set(err, -EIO,
                     "the map of the disk from %#" PRIx64 " on has changed since it was laid out",
                     (uint64_t)load->group_idx << map->group_bits << map->cluster_bits);
}

/* The bits of a group that has data; NULL in @ret_bits: all of them are set. */
static int get_bits(const struct flat_map *map, size_t group_idx, const uint8_t **ret_bits,
                    struct cache_ref *ret_ref, struct error *err)
{
    *ret_ref = (struct cache_ref){0};
    *ret_bits = map->groups[group_idx].kept;
    if (*ret_bits || count_data(map, group_idx) == count_clusters(map, group_idx))
        return 0;
    struct group_load load = {.map = map, .group_idx = group_idx};
    struct cache_key key = {.file_id = map->cache_id, .host_off = group_idx, .kind = CACHE_FLAT};
    int r = cache_get(map->cache, &key, group_len(map), load_group, &load, ret_ref, err);
    if (r == 0)
        *ret_bits = ret_ref->data;
    return r;
}

static void put_bits(const struct flat_map *map, struct cache_ref *ref)
{
    if (ref->entry)
        cache_put(map->cache, ref);
}

/* ---- Questions ---- */

uint64_t flat_map_count_data(const struct flat_map *map)
{
    return map->groups[map->n_groups].data_before;
}

uint64_t flat_map_count_tables(const struct flat_map *map)
{
    return map->groups[map->n_groups].tables_before;
}

uint64_t flat_map_layout(const struct flat_map *map)
{
    uint64_t sum = map->guest_size;
    for (size_t i = 0; i < map->n_groups; i++) {
        sum = (sum ^ map->groups[i].sum) * 0x9e3779b97f4a7c15ULL;
        sum ^= sum >> 32;
    }
    return sum;
}

bool flat_map_find_table(const struct flat_map *map, uint64_t l1_idx, uint64_t *ret_n_before)
{
    unsigned shift = map->group_bits - map->table_bits;
    const struct group *group = &map->groups[l1_idx >> shift];
    uint64_t idx = l1_idx & ((1ULL << shift) - 1);
    *ret_n_before =
        group->tables_before + (uint64_t)__builtin_popcountll(group->present & bits_low_mask(idx));
    return group->present >> idx & 1;
}

uint64_t flat_map_nth_table(const struct flat_map *map, uint64_t n)
{
    size_t low = 0, high = map->n_groups; /* the group lies in [low, high) */
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (map->groups[middle].tables_before <= n)
            low = middle;
        else
            high = middle;
    }
    uint64_t present = map->groups[low].present;
    for (n -= map->groups[low].tables_before; n > 0; n--)
        present &= present - 1;
    return ((uint64_t)low << (map->group_bits - map->table_bits)) +
           (uint64_t)__builtin_ctzll(present);
}

static size_t find_group_of_data(const struct flat_map *map, uint64_t n)
{
    size_t low = 0, high = map->n_groups;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (map->groups[middle].data_before <= n)
            low = middle;
        else
            high = middle;
    }
    return low;
}

int flat_map_nth_data(const struct flat_map *map, uint64_t n, uint64_t max, uint64_t *ret_idx,
                      uint64_t *ret_n, struct error *err)
{
    size_t group_idx = find_group_of_data(map, n);
    uint64_t in_group = n - map->groups[group_idx].data_before;
    uint64_t n_left = count_data(map, group_idx) - in_group;
    const uint8_t *bits;
    struct cache_ref ref;
    int r = get_bits(map, group_idx, &bits, &ref, err);
    if (r < 0)
        return r;
    uint64_t place = bits ? bits_find_nth(bits, in_group) : in_group;
    uint64_t n_run = 1;
    max = min_u64(max, n_left);
    while (n_run < max && (!bits || bits_test(bits, place + n_run)))
        n_run++;
    put_bits(map, &ref);
    *ret_idx = ((uint64_t)group_idx << map->group_bits) + place;
    *ret_n = n_run;
    return 0;
}

int flat_map_begin(const struct flat_map *map, uint64_t l1_idx, uint64_t l2_idx,
                   struct flat_cursor *ret_cursor, struct error *err)
{
    unsigned shift = map->group_bits - map->table_bits;
    size_t group_idx = (size_t)(l1_idx >> shift);
    struct flat_cursor cursor = {
        .bit = ((l1_idx & ((1ULL << shift) - 1)) << map->table_bits) + l2_idx,
        .end = count_clusters(map, group_idx),
    };
    int r = get_bits(map, group_idx, &cursor.bits, &cursor.ref, err);
    if (r < 0)
        return r;
    uint64_t n_here = min_u64(cursor.bit, cursor.end);
    cursor.n_before = map->groups[group_idx].data_before +
                      (cursor.bits ? bits_count(cursor.bits, n_here) : n_here);
    *ret_cursor = cursor;
    return 0;
}

bool flat_map_step(struct flat_cursor *cursor)
{
    uint64_t bit = cursor->bit++;
    bool has_data = bit < cursor->end && (!cursor->bits || bits_test(cursor->bits, bit));
    cursor->n_before += has_data;
    return has_data;
}

void flat_map_end(const struct flat_map *map, struct flat_cursor *cursor)
{
    put_bits(map, &cursor->ref);
}
