/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/fuse/inode.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qcow/base/cleanup.h"

enum { BUCKETS_MIN = 256 };

struct inode_table {
    struct mutex lock;
    struct inode **buckets GUARDED_BY(lock);
    size_t n_buckets GUARDED_BY(lock); /* a power of two */
    size_t n_inodes GUARDED_BY(lock);
    uint64_t last_generation GUARDED_BY(lock);
    struct inode *root; /* immutable; not in a bucket */
};

/* FNV-1a over the text and its terminator, so that ("ab", "c") is not ("a", "bc"). */
uint64_t inode_hash(uint64_t seed, const char *text)
{
    uint64_t h = seed ? seed : 14695981039346656037U;
    do {
        h ^= (unsigned char)*text;
        h *= 1099511628211U;
    } while (*text++);
    return h;
}

bool inode_is_disk(const struct inode *inode)
{
    return inode->kind == INODE_RAW || inode->kind == INODE_QCOW2;
}

static void free_inode(struct inode *inode)
{
    if (!inode)
        return;
    free(inode->key);
    free(inode->domain_id);
    free(inode->file);
    free(inode->target);
    snapshot_fini(&inode->snapshot);
    domain_unref(inode->record);
    free(inode);
}

static void cleanup_inode(struct inode **inode)
{
    free_inode(*inode);
}

/*
 * Each text is preceded by its length, since domains' and snapshots' names may hold any byte. A
 * snapshot that was deleted and made anew under the same name differs in time, table or file.
 */
static int print_internal(const struct inode_spec *spec, char **ret_key)
{
    const struct qcow_snapshot *s = &spec->snapshot->internal;
    return asprintf(ret_key,
                    "%d/snapshot/%" PRIx64 "/%" PRIx32 "/%" PRIx64 "/%lld.%09ld/"
                    "%zu:%s/%zu:%s/%zu:%s/%zu:%s/%s",
                    spec->kind, s->l1_off, s->l1_entries, s->guest_size,
                    (long long)s->created.tv_sec, s->created.tv_nsec, strlen(spec->domain_id),
                    spec->domain_id, strlen(spec->target), spec->target, strlen(s->id), s->id,
                    strlen(s->name), s->name, spec->top_path);
}

static int print_external(const struct inode_spec *spec, char **ret_key)
{
    const struct frozen_snapshot *s = &spec->snapshot->external;
    return asprintf(ret_key, "%d/external/%lld.%09ld/%zu:%s/%zu:%s/%zu:%s/%s", spec->kind,
                    (long long)s->created.tv_sec, s->created.tv_nsec, strlen(spec->domain_id),
                    spec->domain_id, strlen(spec->target), spec->target, strlen(s->name), s->name,
                    s->path);
}

static int print_disk(const struct inode_spec *spec, char **ret_key)
{
    if (!spec->snapshot)
        return asprintf(ret_key, "%d/now/%" PRIu64 "/%zu:%s/%s", spec->kind, spec->serial,
                        strlen(spec->domain_id), spec->domain_id, spec->target);
    return spec->snapshot->kind == SNAPSHOT_INTERNAL ? print_internal(spec, ret_key)
                                                     : print_external(spec, ret_key);
}

static char *make_key(const struct inode_spec *spec)
{
    char *key = NULL;
    int r = 0;
    switch (spec->kind) {
    case INODE_ROOT:
    case INODE_DOMAIN:
    case INODE_SNAPSHOTS:
    case INODE_STATUS:
        r = asprintf(&key, "%d/%s", spec->kind, spec->domain_id);
        break;
    case INODE_UPLOAD:
        r = asprintf(&key, "%d/%" PRIu64 "/%s", spec->kind, spec->serial, spec->domain_id);
        break;
    case INODE_XML:
        /* With the time: a text that came back has been new a second time. */
        r = asprintf(&key, "%d/%016" PRIx64 "/%lld.%09ld/%s", spec->kind, spec->text_hash,
                     (long long)spec->mtime.tv_sec, spec->mtime.tv_nsec, spec->domain_id);
        break;
    case INODE_RAW:
    case INODE_QCOW2:
        r = print_disk(spec, &key);
        break;
    }
    return r < 0 ? NULL : key;
}

static int copy_disk(const struct inode_spec *spec, struct inode *inode)
{
    inode->is_now = !spec->snapshot;
    inode->serial = spec->snapshot ? 0 : spec->serial;
    inode->file = strdup(spec->file);
    inode->target = strdup(spec->target);
    if (!inode->file || !inode->target)
        return -ENOMEM;
    return spec->snapshot ? snapshot_copy(spec->snapshot, &inode->snapshot) : 0;
}

/* A node with one lookup; it takes @key. */
static int make_inode(const struct inode_spec *spec, char *key, struct inode **ret_inode)
{
    auto_free char *owned_key = key;
    __attribute__((cleanup(cleanup_inode))) struct inode *inode = calloc(1, sizeof(*inode));
    if (!inode)
        return -ENOMEM;
    inode->kind = spec->kind;
    inode->ino = spec->ino;
    inode->lookups = 1;
    inode->key_hash = inode_hash(0, owned_key);
    inode->key = take_ptr(owned_key);
    inode->domain_id = strdup(spec->domain_id);
    if (!inode->domain_id)
        /* lint: cppcheck/memleak: the cleanup frees it */
        return -ENOMEM;
    if (spec->kind == INODE_XML) {
        inode->record = domain_ref(spec->record);
        inode->mtime = spec->mtime;
    }
    if (inode_is_disk(inode) && copy_disk(spec, inode) < 0)
        return -ENOMEM;
    *ret_inode = take_ptr(inode);
    return 0;
}

int inode_table_create(uint64_t root_ino, struct inode_table **ret_table)
{
    struct inode_table *table = calloc(1, sizeof(*table));
    if (!table)
        return -ENOMEM;
    mutex_init(&table->lock);
    struct inode_spec spec = {.kind = INODE_ROOT, .domain_id = "", .ino = root_ino};
    char *key = make_key(&spec);
    mutex_lock(&table->lock);
    table->n_buckets = BUCKETS_MIN;
    table->buckets = calloc(table->n_buckets, sizeof(*table->buckets));
    bool has_buckets = table->buckets;
    mutex_unlock(&table->lock);
    if (!key || make_inode(&spec, key, &table->root) < 0 || !has_buckets) {
        inode_table_destroy(table);
        return -ENOMEM;
    }
    *ret_table = table;
    return 0;
}

static void free_buckets_locked(struct inode_table *table) REQUIRES(&table->lock)
{
    for (size_t i = 0; table->buckets && i < table->n_buckets; i++)
        while (table->buckets[i]) {
            struct inode *inode = table->buckets[i];
            table->buckets[i] = inode->next;
            free_inode(inode);
        }
    free(table->buckets);
}

void inode_table_destroy(struct inode_table *table)
{
    if (!table)
        return;
    mutex_lock(&table->lock);
    free_buckets_locked(table);
    mutex_unlock(&table->lock);
    free_inode(table->root);
    mutex_fini(&table->lock);
    free(table);
}

struct inode *inode_root(struct inode_table *table)
{
    return table->root;
}

static struct inode **find_locked(struct inode_table *table, uint64_t hash, const char *key)
    REQUIRES(&table->lock)
{
    struct inode **at = &table->buckets[hash & (table->n_buckets - 1)];
    while (*at && ((*at)->key_hash != hash || strcmp((*at)->key, key) != 0))
        at = &(*at)->next;
    return at;
}

/* Without memory for it the buckets just get longer. */
static void grow_locked(struct inode_table *table) REQUIRES(&table->lock)
{
    size_t n = table->n_buckets * 2;
    struct inode **buckets = calloc(n, sizeof(struct inode *));
    if (!buckets)
        return;
    for (size_t i = 0; i < table->n_buckets; i++)
        while (table->buckets[i]) {
            struct inode *inode = table->buckets[i];
            table->buckets[i] = inode->next;
            inode->next = buckets[inode->key_hash & (n - 1)];
            buckets[inode->key_hash & (n - 1)] = inode;
        }
    free(table->buckets);
    table->buckets = buckets;
    table->n_buckets = n;
}

/* Puts @made in, unless its key is there already; the node that is in then, counted. */
static struct inode *insert_locked(struct inode_table *table, struct inode *made)
    REQUIRES(&table->lock)
{
    struct inode **at = find_locked(table, made->key_hash, made->key);
    if (*at) {
        (*at)->lookups++;
        return *at;
    }
    made->generation = ++table->last_generation;
    *at = made;
    if (++table->n_inodes > table->n_buckets)
        grow_locked(table);
    return made;
}

int inode_get(struct inode_table *table, const struct inode_spec *spec, struct inode **ret_inode)
{
    auto_free char *key = make_key(spec);
    if (!key)
        return -ENOMEM;
    uint64_t hash = inode_hash(0, key);
    mutex_lock(&table->lock);
    struct inode *found = *find_locked(table, hash, key);
    if (found)
        found->lookups++;
    mutex_unlock(&table->lock);
    if (!found) {
        struct inode *made;
        if (make_inode(spec, take_ptr(key), &made) < 0)
            return -ENOMEM;
        mutex_lock(&table->lock);
        found = insert_locked(table, made);
        mutex_unlock(&table->lock);
        if (found != made)
            free_inode(made);
    }
    *ret_inode = found;
    return 0;
}

/* By its address, since hidden nodes have the same key. */
static void drop_locked(struct inode_table *table, const struct inode *inode) REQUIRES(&table->lock)
{
    struct inode **at = &table->buckets[inode->key_hash & (table->n_buckets - 1)];
    while (*at != inode)
        at = &(*at)->next;
    *at = inode->next;
    table->n_inodes--;
}

static bool forget_locked(struct inode_table *table, struct inode *inode, uint64_t n)
    REQUIRES(&table->lock)
{
    inode->lookups -= n < inode->lookups ? n : inode->lookups;
    if (inode->lookups)
        return false;
    drop_locked(table, inode);
    return true;
}

void inode_forget(struct inode_table *table, struct inode *inode, uint64_t n)
{
    if (inode == table->root)
        return;
    mutex_lock(&table->lock);
    bool is_last = forget_locked(table, inode, n);
    mutex_unlock(&table->lock);
    if (is_last)
        free_inode(inode);
}

size_t inode_table_count(struct inode_table *table)
{
    mutex_lock(&table->lock);
    size_t n = table->n_inodes;
    mutex_unlock(&table->lock);
    return n;
}

void inode_show(struct inode_table *table, struct inode *inode, const struct session_attr *attr)
{
    mutex_lock(&table->lock);
    if (!inode->is_frozen)
        inode->attr = *attr;
    mutex_unlock(&table->lock);
}

void inode_freeze(struct inode_table *table, struct inode *inode, const struct session_attr *attr)
{
    mutex_lock(&table->lock);
    if (!inode->is_frozen)
        inode->attr = *attr;
    inode->is_frozen = true;
    mutex_unlock(&table->lock);
}

/* Puts the node where no key leads. */
static void hide_locked(struct inode_table *table, struct inode *inode) REQUIRES(&table->lock)
{
    struct inode **at = find_locked(table, inode->key_hash, inode->key);
    if (*at != inode)
        return; /* hidden already */
    *at = inode->next;
    inode->key[0] = '\0'; /* as no spec's key is */
    inode->key_hash = inode_hash(0, inode->key);
    inode->next = table->buckets[inode->key_hash & (table->n_buckets - 1)];
    table->buckets[inode->key_hash & (table->n_buckets - 1)] = inode;
}

static bool freeze_flat_locked(struct inode_table *table, struct inode *inode,
                               const struct session_attr *attr, const struct inode_flat *flat)
    REQUIRES(&table->lock)
{
    if (!inode->is_frozen) {
        inode->attr = *attr;
        inode->flat = *flat;
        inode->is_frozen = true;
        return true;
    }
    if (inode->flat.size == flat->size && inode->flat.layout == flat->layout)
        return true;
    hide_locked(table, inode);
    return false;
}

bool inode_freeze_flat(struct inode_table *table, struct inode *inode,
                       const struct session_attr *attr, const struct inode_flat *flat)
{
    mutex_lock(&table->lock);
    bool is_same = freeze_flat_locked(table, inode, attr, flat);
    mutex_unlock(&table->lock);
    return is_same;
}

struct inode_flat inode_flat(struct inode_table *table, const struct inode *inode)
{
    mutex_lock(&table->lock);
    struct inode_flat flat = inode->flat;
    mutex_unlock(&table->lock);
    return flat;
}

bool inode_shown(struct inode_table *table, const struct inode *inode,
                 struct session_attr *ret_attr)
{
    mutex_lock(&table->lock);
    *ret_attr = inode->attr;
    bool is_frozen = inode->is_frozen;
    mutex_unlock(&table->lock);
    return is_frozen;
}
