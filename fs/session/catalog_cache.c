/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Remembers the last catalog of each domain, so that a second `ls` opens no image when no file
 * changed. The table is bounded, in places and in bytes: a domain that is not in it is looked at
 * anew.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/host/change.h"
#include "fs/log.h"
#include "fs/session/catalog_internal.h"
#include "fs/session/chain.h"
#include "qcow/base/cleanup.h"
#include "qcow/base/thread.h"

enum {
    N_SETS = 512,
    N_WAYS = 4, /* places in a set: domains whose ids share a hash */
    /*
     * A file changed within one tick of the clock keeps its times; only times this much older
     * than the look are proof. Kernels tick at 100 Hz or faster.
     */
    TICK_NS = 20000000,
};

struct place {
    struct catalog *catalog; /* reference, or NULL */
    uint64_t used;
};

static struct mutex lock = MUTEX_INITIALIZER;
static struct place places[N_SETS][N_WAYS] GUARDED_BY(lock);
static uint64_t use_count GUARDED_BY(lock);
static size_t n_remembered GUARDED_BY(lock);
static size_t n_remembered_bytes GUARDED_BY(lock);

static struct place *find_set_locked(const char *id) REQUIRES(lock)
{
    return places[catalog_ino(id, "place") % N_SETS];
}

/* A reference to what is remembered of that domain, or NULL. */
static struct catalog *recall(const char *id)
{
    struct catalog *found = NULL;
    mutex_lock(&lock);
    struct place *set = find_set_locked(id);
    for (size_t i = 0; i < N_WAYS && !found; i++) {
        if (!set[i].catalog || strcmp(set[i].catalog->domain->id, id) != 0)
            continue;
        set[i].used = ++use_count;
        found = catalog_ref(set[i].catalog);
    }
    mutex_unlock(&lock);
    return found;
}

/* The reference that was there is the caller's now, or NULL. */
static struct catalog *clear_locked(struct place *place) REQUIRES(lock)
{
    struct catalog *catalog = take_ptr(place->catalog);
    place->used = 0;
    if (catalog) {
        n_remembered--;
        n_remembered_bytes -= catalog->origin->n_bytes;
    }
    return catalog;
}

/* Puts @catalog in its domain's place; the reference that was there is the caller's now. */
static struct catalog *remember(struct catalog *catalog, bool *ret_is_same_domain)
{
    const char *id = catalog->domain->id;
    mutex_lock(&lock);
    struct place *set = find_set_locked(id);
    struct place *best = &set[0];
    for (size_t i = 0; i < N_WAYS; i++) {
        if (set[i].catalog && strcmp(set[i].catalog->domain->id, id) == 0) {
            best = &set[i];
            break;
        }
        if (set[i].used < best->used)
            best = &set[i];
    }
    struct catalog *before = clear_locked(best);
    *ret_is_same_domain = before && strcmp(before->domain->id, id) == 0;
    best->catalog = catalog_ref(catalog);
    best->used = ++use_count;
    n_remembered++;
    n_remembered_bytes += catalog->origin->n_bytes;
    mutex_unlock(&lock);
    return before;
}

static struct catalog *take_oldest_locked(void) REQUIRES(lock)
{
    struct place *oldest = NULL;
    for (size_t i = 0; i < N_SETS; i++)
        for (size_t j = 0; j < N_WAYS; j++)
            if (places[i][j].catalog && (!oldest || places[i][j].used < oldest->used))
                oldest = &places[i][j];
    return oldest ? clear_locked(oldest) : NULL;
}

/* Forgets what was not used for longest, until the rest is small enough or a single one. */
static void forget_surplus(void)
{
    struct catalog *oldest;
    do {
        mutex_lock(&lock);
        bool is_surplus = n_remembered > 1 && n_remembered_bytes > CATALOG_BYTES_MAX;
        oldest = is_surplus ? take_oldest_locked() : NULL;
        mutex_unlock(&lock);
        catalog_unref(oldest); /* takes long enough to do it without the lock */
    } while (oldest);
}

size_t catalog_remembered_bytes(void)
{
    mutex_lock(&lock);
    size_t n_bytes = n_remembered_bytes;
    mutex_unlock(&lock);
    return n_bytes;
}

static bool is_same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool is_same_disk(const struct disk *a, const struct disk *b)
{
    if (strcmp(a->target, b->target) != 0 || !is_same_text(a->unsupported, b->unsupported) ||
        a->is_remote != b->is_remote || a->capacity != b->capacity || a->n_layers != b->n_layers ||
        a->is_chain_complete != b->is_chain_complete ||
        a->is_format_disputed != b->is_format_disputed)
        return false;
    for (size_t i = 0; i < a->n_layers; i++)
        if (strcmp(a->layers[i].path, b->layers[i].path) != 0 ||
            a->layers[i].format != b->layers[i].format)
            return false;
    return true;
}

static bool is_same_record(const struct domain *a, const struct domain *b)
{
    if (a == b)
        return true;
    if (a->n_disks != b->n_disks)
        return false;
    for (size_t i = 0; i < a->n_disks; i++)
        if (!is_same_disk(&a->disks[i], &b->disks[i]))
            return false;
    return domain_has_same_snapshots(a, b);
}

static int64_t to_ns(struct timespec time)
{
    int64_t ns;
    if (__builtin_mul_overflow((int64_t)time.tv_sec, (int64_t)1000000000, &ns))
        return time.tv_sec < 0 ? INT64_MIN : INT64_MAX;
    return ns > INT64_MAX - time.tv_nsec ? INT64_MAX : ns + time.tv_nsec;
}

static bool is_same_time(struct timespec a, struct timespec b)
{
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static bool is_unchanged(const struct stat *now, const struct stat *then, struct timespec made)
{
    /* A device's node says nothing about its content. */
    if (!S_ISREG(then->st_mode))
        return false;
    int64_t settled = to_ns(made) - TICK_NS;
    return to_ns(then->st_mtim) <= settled && to_ns(then->st_ctim) <= settled &&
           now->st_size == then->st_size && is_same_time(now->st_mtim, then->st_mtim) &&
           is_same_time(now->st_ctim, then->st_ctim);
}

/* With @is_resting, another file is noticed, but not what was written to the same one. */
static bool is_file_current(const char *path, const struct stat *then,
                            const struct catalog *catalog, bool is_resting)
{
    struct stat now = {0};
    bool is_there = stat(path, &now) == 0;
    bool was_there = then->st_mode != 0;
    if (is_there != was_there || now.st_dev != then->st_dev || now.st_ino != then->st_ino)
        return false;
    return is_resting || is_unchanged(&now, then, catalog->origin->made);
}

/* True if looking again would find the same, or is not worth it yet. */
static bool is_current(const struct catalog *catalog, const struct domain *domain)
{
    if (!is_same_record(catalog->domain, domain))
        return false;
    bool is_resting = monotonic_ns() < catalog->origin->rested_ns;
    if (catalog->origin->is_doubtful && !is_resting)
        return false; /* files that fail to be read do not change when that passes */
    for (size_t i = 0; i < domain->n_disks; i++) {
        struct disk disk = chain_skip_overlays(&domain->disks[i]);
        if (disk.n_layers > 0 &&
            !is_file_current(disk.layers[0].path, &catalog->origin->tops[i], catalog, is_resting))
            return false;
    }
    for (size_t i = 0; i < catalog->origin->n_below; i++) {
        const struct seen_file *seen = &catalog->origin->below[i];
        if (!is_file_current(seen->path, &seen->st, catalog, is_resting))
            return false;
    }
    return true;
}

/* It was merged a moment ago, and the record is of before; that somebody took it away while it was
 * needed is told where it is to be merged. */
static bool is_merged_overlay(const struct disk *disk)
{
    struct stat st;
    return disk->n_layers > 0 && change_is_overlay(disk->layers[0].path) &&
           stat(disk->layers[0].path, &st) < 0 && errno == ENOENT;
}

/* One line for each reason that the catalog before did not have already. */
static void log_failures(const struct catalog *catalog, const struct catalog *before,
                         const struct error *failures)
{
    for (size_t i = 0; i < catalog->domain->n_disks; i++) {
        const struct disk *disk = &catalog->domain->disks[i];
        bool is_known = before && i < before->domain->n_disks &&
                        before->origin->failure_hashes[i] == catalog->origin->failure_hashes[i];
        /* An unsupported disk is no fault; `status` lists it. */
        if (failures[i].code < 0 && !disk->unsupported && !is_known && !is_merged_overlay(disk))
            log_warn("domain '%s': disk '%s': %s: its files cannot be read", catalog->domain->name,
                     disk->target, failures[i].text);
    }
}

int catalog_get(struct host *host, struct domain *domain, struct catalog **ret_catalog,
                struct error *err)
{
    struct catalog *old = recall(domain->id);
    if (old && is_current(old, domain)) {
        *ret_catalog = old;
        return 0;
    }
    catalog_unref(old);
    auto_free struct error *failures = calloc(domain->n_disks + 1, sizeof(*failures));
    if (!failures)
        return error_set(err, -ENOMEM, "out of memory");
    struct catalog *catalog;
    int r = catalog_build(host, domain, failures, &catalog, err);
    if (r < 0)
        return r;
    bool is_same_domain;
    struct catalog *before = remember(catalog, &is_same_domain);
    log_failures(catalog, is_same_domain ? before : NULL, failures);
    catalog_unref(before);
    forget_surplus();
    *ret_catalog = catalog;
    return 0;
}
