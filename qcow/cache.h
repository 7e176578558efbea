/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A bounded cache of what is dear to get again: slices of L1 and L2 tables, inflated clusters.
 * Shared by all images of a program. Split into shards by key, each with a lock of its own, so
 * that readers rarely meet. Loads run outside the locks; a second reader of the same thing waits
 * for the first one's load. Any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qcow/pool.h"
#include "qcow/qcow.h"

enum cache_kind {
    CACHE_L1,       /* a slice of an L1 table, as on disk; host_off is the slice's */
    CACHE_L2,       /* the same of an L2 table; a kind of its own since an L1 table may end early */
    CACHE_INFLATED, /* a cluster; host_off is its compressed cluster descriptor */
    CACHE_FLAT,     /* where a disk has data, for flat_map.c; host_off is a running number */
};

struct cache_key {
    uint64_t file_id; /* struct source's id */
    uint64_t host_off;
    enum cache_kind kind;
};

/* A pinned entry: @data stays as it is until cache_put(). */
struct cache_ref {
    const uint8_t *data;
    struct cache_entry *entry;
};

/* Fills @buf with the @len bytes of the entry; runs with no lock held. 0 or negative errno. */
typedef int cache_load_fn(void *ctx, uint8_t *buf, size_t len, struct error *err);

/*
 * Finds or loads an entry of @len bytes (the same @len for the same key) and pins it.
 * 0; what @load returned; -ENOMEM. A failed load leaves nothing behind.
 */
int cache_get(struct qcow_cache *cache, const struct cache_key *key, size_t len,
              cache_load_fn *load, void *ctx, struct cache_ref *ret_ref, struct error *err);
void cache_put(struct qcow_cache *cache, struct cache_ref *ref);

/*
 * Pins an entry if it is there, loaded or being loaded (which is waited for). False if it is not,
 * or could not be loaded.
 */
bool cache_find(struct qcow_cache *cache, const struct cache_key *key, struct cache_ref *ret_ref);

/* The threads of qcow_cache_set_threads(). */
struct pool *cache_pool(struct qcow_cache *cache);

/* A number that no other source of this cache has. */
uint64_t cache_new_file_id(struct qcow_cache *cache);

/* Drops what is kept of a file that is closed; nothing of it may be pinned. */
void cache_forget_file(struct qcow_cache *cache, uint64_t file_id);
