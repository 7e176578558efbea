/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Remembers the last catalog of each domain, so that a second `ls` opens no image when no file
 * changed. The table is bounded: a domain that finds no place is looked at anew each time.
 */
#include <stdlib.h>
#include <string.h>

#include "fs/log.h"
#include "fs/session/catalog_internal.h"
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
    struct catalog *before = best->catalog;
    *ret_is_same_domain = before && strcmp(before->domain->id, id) == 0;
    best->catalog = catalog_ref(catalog);
    best->used = ++use_count;
    mutex_unlock(&lock);
    return before;
}

static bool is_same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool is_same_disk(const struct disk *a, const struct disk *b)
{
    if (strcmp(a->target, b->target) != 0 || !is_same_text(a->unsupported, b->unsupported) ||
        a->n_layers != b->n_layers || a->is_chain_complete != b->is_chain_complete ||
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
    return true;
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

static bool is_top_unchanged(const char *path, const struct stat *then, struct timespec made)
{
    /* A device's node says nothing about its content. */
    if (!S_ISREG(then->st_mode))
        return false;
    int64_t settled = to_ns(made) - TICK_NS;
    struct stat now;
    return to_ns(then->st_mtim) <= settled && to_ns(then->st_ctim) <= settled &&
           stat(path, &now) == 0 && now.st_dev == then->st_dev && now.st_ino == then->st_ino &&
           now.st_size == then->st_size && is_same_time(now.st_mtim, then->st_mtim) &&
           is_same_time(now.st_ctim, then->st_ctim);
}

/* True if looking again would find the same. */
static bool is_current(const struct catalog *catalog, const struct domain *domain)
{
    if (!is_same_record(catalog->domain, domain))
        return false;
    for (size_t i = 0; i < domain->n_disks; i++) {
        const struct disk *disk = &domain->disks[i];
        if (disk->n_layers > 0 && !is_top_unchanged(disk->layers[0].path, &catalog->origin->tops[i],
                                                    catalog->origin->made))
            return false;
    }
    return true;
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
        if (failures[i].code < 0 && !disk->unsupported && !is_known)
            log_warn("domain '%s': disk '%s': %s: its files cannot be read", catalog->domain->name,
                     disk->target, failures[i].text);
    }
}

int catalog_get(struct domain *domain, struct catalog **ret_catalog, struct error *err)
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
    int r = catalog_build(domain, failures, &catalog, err);
    if (r < 0)
        return r;
    bool is_same_domain;
    struct catalog *before = remember(catalog, &is_same_domain);
    log_failures(catalog, is_same_domain ? before : NULL, failures);
    catalog_unref(before);
    *ret_catalog = catalog;
    return 0;
}
