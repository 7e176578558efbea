/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which clusters of a disk hold data, counted, for flatten.c: the n-th data cluster, and how many
 * come before a place. Clusters here are those of the file that is made, not the image's own.
 * flatten.h says what of it is kept in memory. Immutable once made: any thread; may block on disk
 * I/O.
 */
#pragma once

#include "qcow/cache.h"
#include "qcow/flatten.h"

struct flat_map;

/*
 * Walks the map of @image (borrowed for the life of the map) for clusters of 2^@cluster_bits bytes,
 * of which an L2 table tells about 2^(@cluster_bits - 3). 0 or as qcow_flat_open().
 */
int flat_map_create(struct qcow_image *image, unsigned cluster_bits,
                    const struct qcow_flat_options *options, struct flat_map **ret_map,
                    struct error *err);
void flat_map_destroy(struct flat_map *map); /* NULL is fine */

uint64_t flat_map_count_data(const struct flat_map *map);
uint64_t flat_map_count_tables(const struct flat_map *map); /* L2 tables with data */
uint64_t flat_map_layout(const struct flat_map *map);

/* True if L2 table @l1_idx has data; how many tables with data come before it. */
bool flat_map_find_table(const struct flat_map *map, uint64_t l1_idx, uint64_t *ret_n_before);

/* The @n-th L2 table with data. */
uint64_t flat_map_nth_table(const struct flat_map *map, uint64_t n);

/*
 * The @n-th data cluster: where it is in the guest, and how many (at most @max) data clusters
 * follow one another there. 0, or as qcow_flat_read().
 */
int flat_map_nth_data(const struct flat_map *map, uint64_t n, uint64_t max, uint64_t *ret_idx,
                      uint64_t *ret_n, struct error *err);

/* Goes through the clusters of one L2 table, one after the other. */
struct flat_cursor {
    uint64_t n_before; /* data clusters before the next one */
    /* For flat_map.c: */
    const uint8_t *bits; /* of the table's group; NULL: all of it is data */
    uint64_t bit, end;   /* of the next one, and of the end of the group */
    struct cache_ref ref;
};

/* Begins with entry @l2_idx of table @l1_idx. 0, or as qcow_flat_read(). */
int flat_map_begin(const struct flat_map *map, uint64_t l1_idx, uint64_t l2_idx,
                   struct flat_cursor *ret_cursor, struct error *err);
/* True if the next cluster holds data; that makes n_before one more. False past the disk's end. */
bool flat_map_step(struct flat_cursor *cursor);
void flat_map_end(const struct flat_map *map, struct flat_cursor *cursor);
