/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qcow/cache.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "qcow/base/thread.h"

/*
 * state     bytes counted  in table  on LRU list  pins
 * LOADING   yes            yes       no           >= 1 (loader and waiters)
 * READY     yes            yes       if pins == 0 any
 * FAILED    yes            no        no           >= 1 (waiters that have yet to look)
 */
enum entry_state { ENTRY_LOADING, ENTRY_READY, ENTRY_FAILED };

struct cache_entry {
    struct cache_key key;
    size_t len;
    enum entry_state state;
    unsigned pins;
    struct error *failure;             /* FAILED: why */
    struct cache_entry *next;          /* in the bucket */
    struct cache_entry *newer, *older; /* on the LRU list */
    uint8_t data[];
};

enum { SHARDS = 16, BUCKETS = 1024 };

struct shard {
    struct mutex lock;
    struct cond loaded;
    struct cache_entry *buckets[BUCKETS] GUARDED_BY(lock);
    struct cache_entry *oldest GUARDED_BY(lock), *newest GUARDED_BY(lock); /* LRU list */
    size_t used GUARDED_BY(lock);
};

struct qcow_cache {
    size_t shard_limit;
    atomic_uint_fast64_t next_file_id;
    struct pool *pool; /* immutable once an image is open */
    struct shard shards[SHARDS];
};

int qcow_cache_create(size_t limit, struct qcow_cache **ret_cache, struct error *err)
{
    struct qcow_cache *cache = calloc(1, sizeof(*cache));
    if (!cache)
        return error_set(err, -ENOMEM, "out of memory");
    cache->shard_limit = limit / SHARDS;
    atomic_init(&cache->next_file_id, 1);
    for (int i = 0; i < SHARDS; i++) {
        struct shard *shard = &cache->shards[i];
        mutex_init(&shard->lock);
        cond_init(&shard->loaded);
    }
    int r = qcow_cache_set_threads(cache, 1, err);
    if (r < 0) {
        qcow_cache_destroy(cache);
        return r;
    }
    *ret_cache = cache;
    return 0;
}

int qcow_cache_set_threads(struct qcow_cache *cache, unsigned n_threads, struct error *err)
{
    struct pool *pool;
    if (pool_create(n_threads, &pool) < 0)
        return error_set(err, -ENOMEM, "out of memory");
    pool_destroy(cache->pool);
    cache->pool = pool;
    return 0;
}

struct pool *cache_pool(struct qcow_cache *cache)
{
    return cache->pool;
}

static void entry_free(struct cache_entry *entry)
{
    free(entry->failure);
    free(entry);
}

void qcow_cache_destroy(struct qcow_cache *cache)
{
    if (!cache)
        return;
    pool_destroy(cache->pool);
    for (int i = 0; i < SHARDS; i++) {
        struct shard *shard = &cache->shards[i];
        mutex_lock(&shard->lock);
        for (int b = 0; b < BUCKETS; b++)
            while (shard->buckets[b]) {
                struct cache_entry *entry = shard->buckets[b];
                assert(entry->pins == 0);
                shard->buckets[b] = entry->next;
                entry_free(entry);
            }
        mutex_unlock(&shard->lock);
        mutex_fini(&shard->lock);
        cond_fini(&shard->loaded);
    }
    free(cache);
}

size_t qcow_cache_used(struct qcow_cache *cache)
{
    size_t used = 0;
    for (int i = 0; i < SHARDS; i++) {
        mutex_lock(&cache->shards[i].lock);
        used += cache->shards[i].used;
        mutex_unlock(&cache->shards[i].lock);
    }
    return used;
}

uint64_t cache_new_file_id(struct qcow_cache *cache)
{
    return atomic_fetch_add(&cache->next_file_id, 1);
}

/* Finalizer of splitmix64: spreads offsets that differ in few bits. */
static uint64_t hash_key(const struct cache_key *key)
{
    uint64_t h = key->host_off + key->file_id * 0x9e3779b97f4a7c15ULL + (uint64_t)key->kind;
    h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9ULL;
    h = (h ^ (h >> 27)) * 0x94d049bb133111ebULL;
    return h ^ (h >> 31);
}

static struct shard *shard_of(struct qcow_cache *cache, uint64_t hash)
{
    return &cache->shards[hash % SHARDS];
}

static size_t bucket_of(uint64_t hash)
{
    return (hash / SHARDS) % BUCKETS;
}

static bool keys_equal(const struct cache_key *a, const struct cache_key *b)
{
    return a->file_id == b->file_id && a->host_off == b->host_off && a->kind == b->kind;
}

static void lru_remove(struct shard *shard, struct cache_entry *entry) REQUIRES(shard->lock)
{
    *(entry->newer ? &entry->newer->older : &shard->newest) = entry->older;
    *(entry->older ? &entry->older->newer : &shard->oldest) = entry->newer;
    entry->newer = entry->older = NULL;
}

static void lru_add_newest(struct shard *shard, struct cache_entry *entry) REQUIRES(shard->lock)
{
    entry->older = shard->newest;
    *(shard->newest ? &shard->newest->newer : &shard->oldest) = entry;
    shard->newest = entry;
}

static void table_remove(struct shard *shard, struct cache_entry *entry) REQUIRES(shard->lock)
{
    struct cache_entry **at = &shard->buckets[bucket_of(hash_key(&entry->key))];
    while (*at != entry)
        at = &(*at)->next;
    *at = entry->next;
}

/* Drops the longest unused entries until the shard is within its limit. */
static void shrink(struct shard *shard, size_t limit) REQUIRES(shard->lock)
{
    while (shard->used > limit && shard->oldest) {
        struct cache_entry *oldest = shard->oldest;
        lru_remove(shard, oldest);
        table_remove(shard, oldest);
        shard->used -= oldest->len;
        entry_free(oldest);
    }
}

/* Takes a pin off an entry; the last one of a failed entry frees it. */
static void unpin(struct shard *shard, struct cache_entry *entry, size_t limit)
    REQUIRES(shard->lock)
{
    assert(entry->pins > 0);
    if (--entry->pins > 0)
        return;
    if (entry->state == ENTRY_FAILED) {
        shard->used -= entry->len;
        entry_free(entry);
        return;
    }
    lru_add_newest(shard, entry);
    shrink(shard, limit);
}

static struct cache_entry *find(struct shard *shard, const struct cache_key *key, uint64_t hash)
    REQUIRES(shard->lock)
{
    struct cache_entry *entry = shard->buckets[bucket_of(hash)];
    while (entry && !keys_equal(&entry->key, key))
        entry = entry->next;
    return entry;
}

/* An entry that exists: pins it and waits for its load, if that is still under way. */
static int use_locked(struct shard *shard, struct cache_entry *entry, size_t limit,
                      struct cache_ref *ret_ref, struct error *err) REQUIRES(shard->lock)
{
    if (entry->pins++ == 0)
        lru_remove(shard, entry);
    while (entry->state == ENTRY_LOADING)
        cond_wait(&shard->loaded, &shard->lock);
    if (entry->state == ENTRY_READY) {
        *ret_ref = (struct cache_ref){.data = entry->data, .entry = entry};
        return 0;
    }
    int code = entry->failure ? entry->failure->code : -ENOMEM;
    error_set(err, code, "%s", entry->failure ? entry->failure->text : "out of memory");
    unpin(shard, entry, limit);
    return code;
}

/* A new entry in state LOADING with one pin, already counted and findable. */
static struct cache_entry *add_locked(struct shard *shard, const struct cache_key *key,
                                      uint64_t hash, size_t len, size_t limit) REQUIRES(shard->lock)
{
    /* room first, so that the limit also holds while the load runs */
    shrink(shard, limit > len ? limit - len : 0);
    struct cache_entry *entry = malloc(sizeof(*entry) + len);
    if (!entry)
        return NULL;
    *entry = (struct cache_entry){.key = *key, .len = len, .state = ENTRY_LOADING, .pins = 1};
    entry->next = shard->buckets[bucket_of(hash)];
    shard->buckets[bucket_of(hash)] = entry;
    shard->used += len;
    return entry;
}

static void publish_locked(struct shard *shard, struct cache_entry *entry, int result,
                           const struct error *why) REQUIRES(shard->lock)
{
    entry->state = ENTRY_READY;
    if (result < 0) {
        entry->state = ENTRY_FAILED;
        table_remove(shard, entry);
        entry->failure = malloc(sizeof(*why));
        if (entry->failure)
            *entry->failure = *why;
    }
    cond_wake_all(&shard->loaded);
}

int cache_get(struct qcow_cache *cache, const struct cache_key *key, size_t len,
              cache_load_fn *load, void *ctx, struct cache_ref *ret_ref, struct error *err)
{
    uint64_t hash = hash_key(key);
    struct shard *shard = shard_of(cache, hash);
    mutex_lock(&shard->lock);
    struct cache_entry *entry = find(shard, key, hash);
    if (entry) {
        assert(entry->len == len);
        int r = use_locked(shard, entry, cache->shard_limit, ret_ref, err);
        mutex_unlock(&shard->lock);
        return r;
    }
    entry = add_locked(shard, key, hash, len, cache->shard_limit);
    mutex_unlock(&shard->lock);
    if (!entry)
        return error_set(err, -ENOMEM, "out of memory");
    struct error why = {0};
    int r = load(ctx, entry->data, len, &why);
    mutex_lock(&shard->lock);
    publish_locked(shard, entry, r, &why);
    if (r < 0)
        unpin(shard, entry, cache->shard_limit);
    mutex_unlock(&shard->lock);
    if (r < 0)
        return error_set(err, r, "%s", why.text);
    *ret_ref = (struct cache_ref){.data = entry->data, .entry = entry};
    return 0;
}

bool cache_find(struct qcow_cache *cache, const struct cache_key *key, struct cache_ref *ret_ref)
{
    uint64_t hash = hash_key(key);
    struct shard *shard = shard_of(cache, hash);
    mutex_lock(&shard->lock);
    struct cache_entry *entry = find(shard, key, hash);
    bool is_there = entry && use_locked(shard, entry, cache->shard_limit, ret_ref, NULL) == 0;
    mutex_unlock(&shard->lock);
    return is_there;
}

void cache_put(struct qcow_cache *cache, struct cache_ref *ref)
{
    struct shard *shard = shard_of(cache, hash_key(&ref->entry->key));
    mutex_lock(&shard->lock);
    unpin(shard, ref->entry, cache->shard_limit);
    mutex_unlock(&shard->lock);
    *ref = (struct cache_ref){0};
}

void cache_forget_file(struct qcow_cache *cache, uint64_t file_id)
{
    for (int i = 0; i < SHARDS; i++) {
        struct shard *shard = &cache->shards[i];
        mutex_lock(&shard->lock);
        struct cache_entry *entry = shard->oldest;
        while (entry) {
            struct cache_entry *next = entry->newer;
            if (entry->key.file_id == file_id) {
                lru_remove(shard, entry);
                table_remove(shard, entry);
                shard->used -= entry->len;
                entry_free(entry);
            }
            entry = next;
        }
        mutex_unlock(&shard->lock);
    }
}
