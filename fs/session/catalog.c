/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/session/catalog.h"

#include <errno.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fs/host/change.h"
#include "fs/host/file.h"
#include "fs/session/catalog_internal.h"
#include "fs/session/chain.h"
#include "fs/session/name.h"
#include "qcow/base/bytes.h"
#include "qcow/base/cleanup.h"
#include "qcow/base/thread.h"

/*
 * The files of a running guest change all the time, and each name that is looked up asks for the
 * catalog. One that was dear to make, in processor time, serves for this many times as long, so
 * that a long snapshot table costs a twentieth of a core at most. What is made in less than
 * REST_FREE_NS (hundreds of snapshots) is made anew whenever a file has changed.
 */
enum { REST_FACTOR = 20 };
#define REST_FREE_NS ((int64_t)2 * 1000000)
#define REST_MAX_NS ((int64_t)10 * 1000000000)
/* A disk that fails may take seconds to say so, and each name that is looked up would ask it. */
#define DOUBTFUL_REST_NS ((int64_t)1000000000)

static int64_t thread_cpu_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static int64_t rest_of(int64_t cost_ns)
{
    if (cost_ns < REST_FREE_NS)
        return 0;
    int64_t rest_ns = REST_FACTOR * cost_ns;
    return rest_ns < REST_MAX_NS ? rest_ns : REST_MAX_NS;
}

/* First 8 bytes of SHA-256 over the length-prefixed texts. */
uint64_t catalog_hash_ino(const char *const *texts, size_t n)
{
    struct sha256_ctx sha;
    uint8_t digest[SHA256_DIGEST_SIZE];
    sha256_init(&sha);
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(texts[i]);
        uint64_t prefix = htobe64(len);
        sha256_update(&sha, sizeof(prefix), (const uint8_t *)&prefix);
        sha256_update(&sha, len, (const uint8_t *)texts[i]);
    }
    sha256_digest(&sha, SHA256_DIGEST_SIZE, digest);
    uint64_t hash = load_be64(digest);
    return hash <= 1 ? hash + 2 : hash; /* 0 means "none" and 1 is the root of the mount */
}

uint64_t catalog_ino(const char *id, const char *what)
{
    const char *texts[] = {id, what};
    return catalog_hash_ino(texts, 2);
}

enum occupancy catalog_judge_raw(int fd, const struct stat *st)
{
    if (S_ISBLK(st->st_mode))
        return OCCUPANCY_FULL; /* a device has no holes that could be told */
    if (st->st_size > 0 && lseek(fd, 0, SEEK_DATA) < 0 && errno == ENXIO)
        return OCCUPANCY_EMPTY;
    bool is_backed = (uint64_t)st->st_blocks >= (uint64_t)st->st_size / 512;
    if (is_backed && lseek(fd, 0, SEEK_HOLE) == st->st_size)
        return OCCUPANCY_FULL;
    return OCCUPANCY_SOME;
}

uint64_t catalog_estimate_blocks(uint64_t guest_size, uint64_t host_blocks,
                                 enum occupancy occupancy)
{
    uint64_t all = guest_size / 512;
    if (all == 0 || occupancy == OCCUPANCY_EMPTY)
        return 0;
    if (all == 1 || occupancy == OCCUPANCY_FULL)
        return all;
    return min_u64(max_u64(host_blocks, 1), all - 1);
}

/* What one disk's files say. */
struct inspection {
    struct qcow_info info;
    struct stat top;
    enum occupancy occupancy;
    uint64_t host_blocks; /* of all layers that the record names */
};

static int inspect_layer(const struct disk_layer *layer, struct inspection *ret_found,
                         struct error *err)
{
    auto_close int fd = file_open_image(layer->path, NULL, 0, err);
    if (fd < 0)
        return fd;
    if (fstat(fd, &ret_found->top) < 0)
        return error_set(err, -EIO, "cannot stat '%s': %s", layer->path, strerrordesc_np(errno));
    struct qcow_file file = {.fd = fd, .format = layer->format, .name = layer->path};
    int r = qcow_inspect(&file, &ret_found->info, err);
    if (r < 0)
        return r;
    if (layer->format == QCOW_FORMAT_RAW)
        ret_found->occupancy = catalog_judge_raw(fd, &ret_found->top);
    return 0;
}

/* What libvirt says is all there is: the size. */
static int inspect_remote(const struct disk *disk, struct inspection *ret_found, struct error *err)
{
    if (disk->capacity == 0)
        return error_set(err, -EOPNOTSUPP, "%s", disk->unsupported);
    ret_found->info.guest_size = align_up(min_u64(disk->capacity, INT64_MAX), 512);
    ret_found->host_blocks = ret_found->info.guest_size / 1024; /* neither empty nor full */
    return 0;
}

static int inspect_disk(const struct disk *recorded, struct inspection *ret_found,
                        struct error *err)
{
    struct disk view = chain_skip_overlays(recorded);
    const struct disk *disk = &view;
    if (disk->is_remote && disk->n_layers == 0)
        return inspect_remote(disk, ret_found, err);
    if (disk->n_layers == 0)
        return error_set(err, -EOPNOTSUPP, "%s",
                         disk->unsupported ? disk->unsupported : "no image known");
    if (disk->is_format_disputed)
        return error_set(err, -EOPNOTSUPP,
                         "'%s' begins like a qcow2 file but is not named .qcow2: say format=qcow2 "
                         "or format=raw",
                         disk->layers[0].path);
    int r = inspect_layer(&disk->layers[0], ret_found, err);
    if (r < 0)
        return disk->unsupported ? error_set(err, -EOPNOTSUPP, "%s", disk->unsupported) : r;
    ret_found->host_blocks = (uint64_t)ret_found->top.st_blocks;
    for (size_t i = 1; i < disk->n_layers; i++) {
        struct stat st;
        if (stat(disk->layers[i].path, &st) == 0)
            ret_found->host_blocks += (uint64_t)st.st_blocks;
    }
    return 0;
}

static struct catalog_entry *append_entry(struct catalog *catalog, size_t disk_idx)
{
    size_t n = catalog->n_entries;
    if ((n & (n - 1)) == 0) { /* full: capacities are powers of two */
        struct catalog_entry *grown =
            reallocarray(catalog->entries, n ? 2 * n : 1, sizeof(*catalog->entries));
        if (!grown)
            return NULL;
        catalog->entries = grown;
    }
    struct catalog_entry *entry = &catalog->entries[catalog->n_entries++];
    *entry = (struct catalog_entry){.disk_idx = disk_idx};
    return entry;
}

static int add_now(struct catalog *catalog, size_t disk_idx, const struct inspection *found,
                   int failure, const char *reason)
{
    struct catalog_entry *entry = append_entry(catalog, disk_idx);
    if (!entry)
        return -ENOMEM;
    const char *texts[] = {catalog->domain->id, catalog->domain->disks[disk_idx].target, "now"};
    entry->name = strdup("now");
    /* lint: gcc-analyzer/malloc-leak: kept at an index that gcc loses sight of */
    entry->is_now = true;
    entry->ino = catalog_hash_ino(texts, 3);
    entry->failure = failure;
    entry->reason = failure ? strdup(reason) : NULL; /* without memory for it, just the errno */
    entry->is_undated = found->top.st_mode == 0 || S_ISBLK(found->top.st_mode);
    if (!entry->is_undated)
        entry->mtime = found->top.st_mtim;
    if (failure == 0) {
        entry->guest_size = found->info.guest_size;
        entry->blocks =
            catalog_estimate_blocks(found->info.guest_size, found->host_blocks, found->occupancy);
    }
    return entry->name ? 0 : -ENOMEM;
}

static int add_snapshot(struct catalog *catalog, size_t disk_idx, const struct inspection *found,
                        const struct qcow_snapshot *snapshot, char *name)
{
    struct catalog_entry *entry = append_entry(catalog, disk_idx);
    if (!entry) {
        free(name);
        return -ENOMEM;
    }
    entry->name = name;
    const struct named_snapshot named = {.kind = SNAPSHOT_INTERNAL, .internal = *snapshot};
    if (snapshot_copy(&named, &entry->snapshot) < 0)
        return -ENOMEM;
    const char *texts[] = {catalog->domain->id, catalog->domain->disks[disk_idx].target, "snapshot",
                           snapshot->id, snapshot->name};
    entry->ino = catalog_hash_ino(texts, 5);
    entry->guest_size = snapshot->guest_size;
    entry->mtime = snapshot->created;
    entry->blocks =
        catalog_estimate_blocks(snapshot->guest_size, found->host_blocks, OCCUPANCY_SOME);
    return 0;
}

/* Takes @name, and the content of @from. */
static int add_frozen(struct catalog *catalog, struct catalog_entry *from, char *name)
{
    struct catalog_entry *entry = append_entry(catalog, from->disk_idx);
    if (!entry) {
        free(name);
        return -ENOMEM;
    }
    *entry = *from;
    entry->name = name;
    *from = (struct catalog_entry){0};
    return 0;
}

/*
 * Requests names for the internal snapshots and then for the external ones: where two have the
 * same name, the one inside of the image was there first. Libvirt's have no id but their name.
 */
static int name_all(const struct catalog *catalog, const struct qcow_info *info,
                    const struct frozen_list *frozen, struct name_request *requests)
{
    auto_free const char **targets = catalog_list_targets(catalog->domain);
    if (!targets)
        return -ENOMEM;
    for (size_t i = 0; i < info->n_snapshots; i++)
        requests[i] = (struct name_request){info->snapshots[i].name, info->snapshots[i].id, NULL};
    for (size_t i = 0; i < frozen->n; i++)
        requests[info->n_snapshots + i] =
            (struct name_request){snapshot_name(&frozen->entries[i].snapshot), "external", NULL};
    return name_snapshots(requests, info->n_snapshots + frozen->n, targets,
                          catalog->domain->n_disks);
}

static int add_snapshots(struct catalog *catalog, size_t disk_idx, const struct inspection *found,
                         struct frozen_list *frozen)
{
    size_t n = found->info.n_snapshots;
    auto_free struct name_request *requests = calloc(n + frozen->n + 1, sizeof(*requests));
    int r = requests ? name_all(catalog, &found->info, frozen, requests) : -ENOMEM;
    if (r < 0)
        return r;
    for (size_t i = 0; i < n + frozen->n; i++) {
        if (r < 0)
            free(requests[i].shown);
        else if (i < n)
            r = add_snapshot(catalog, disk_idx, found, &found->info.snapshots[i],
                             requests[i].shown);
        else
            r = add_frozen(catalog, &frozen->entries[i - n], requests[i].shown);
    }
    return r;
}

static int add_named(struct host *host, struct catalog *catalog, size_t disk_idx,
                     const struct inspection *found)
{
    struct frozen_list frozen;
    int r = catalog_find_frozen(host, catalog->domain, disk_idx, catalog->origin, &frozen);
    if (r == 0)
        r = add_snapshots(catalog, disk_idx, found, &frozen);
    catalog_free_frozen(&frozen);
    return r;
}

/* Instants' own snapshots are not shown. */
static void hide_own_snapshots(struct qcow_info *info)
{
    size_t n = 0;
    for (size_t i = 0; i < info->n_snapshots; i++) {
        if (change_is_marked(info->snapshots[i].name))
            qcow_snapshot_fini(&info->snapshots[i]);
        else
            info->snapshots[n++] = info->snapshots[i];
    }
    info->n_snapshots = n;
}

static int add_disk(struct host *host, struct catalog *catalog, size_t disk_idx,
                    struct error *failure)
{
    const struct disk *disk = &catalog->domain->disks[disk_idx];
    struct inspection found = {0};
    int failed = inspect_disk(disk, &found, failure);
    if (file_is_shortage(failed))
        return failed; /* a list without its snapshots would say that they are gone */
    catalog->origin->is_doubtful = catalog->origin->is_doubtful || failed == -EIO;
    hide_own_snapshots(&found.info);
    int r = add_now(catalog, disk_idx, &found, failed, failure->text);
    if (r == 0 && failed == 0 && !disk->unsupported)
        r = add_named(host, catalog, disk_idx, &found);
    catalog->origin->tops[disk_idx] = found.top;
    if (failed < 0) {
        failure->code = failed;
        catalog->origin->failure_hashes[disk_idx] = catalog_fnv(CATALOG_FNV_START, failure->text);
    } else {
        qcow_info_fini(&found.info);
    }
    return r;
}

static size_t count_text(const char *text)
{
    enum { MALLOC_OVERHEAD = 16 };
    return text ? strlen(text) + 1 + MALLOC_OVERHEAD : 0;
}

static size_t count_snapshot(const struct host_snapshot *snapshot)
{
    size_t n_bytes = sizeof(*snapshot) + count_text(snapshot->name);
    for (size_t i = 0; i < snapshot->n_disks; i++)
        n_bytes += sizeof(struct frozen_disk) + count_text(snapshot->disks[i].target) +
                   count_text(snapshot->disks[i].path) + count_text(snapshot->disks[i].overlay);
    return n_bytes;
}

/* Roughly: the record counts as well, since this may be the last that holds it. */
static size_t count_bytes(const struct catalog *catalog)
{
    size_t n_bytes = sizeof(*catalog) + sizeof(*catalog->origin) + sizeof(*catalog->domain) +
                     count_text(catalog->domain->xml);
    size_t each_disk = sizeof(struct disk) + sizeof(struct stat) + sizeof(uint64_t);
    n_bytes += catalog->domain->n_disks * each_disk;
    /* Twice: the array may have room for as many again. */
    size_t each_entry = 2 * sizeof(struct catalog_entry) + sizeof(struct catalog_entry *);
    n_bytes += catalog->n_entries * each_entry;
    for (size_t i = 0; i < catalog->n_entries; i++) {
        const struct catalog_entry *entry = &catalog->entries[i];
        n_bytes += count_text(entry->name) + count_text(entry->snapshot.internal.id) +
                   count_text(entry->snapshot.internal.name) +
                   count_text(entry->snapshot.external.name) +
                   count_text(entry->snapshot.external.path);
    }
    for (size_t i = 0; i < catalog->origin->n_below; i++)
        n_bytes += sizeof(struct seen_file) + count_text(catalog->origin->below[i].path);
    for (size_t i = 0; i < catalog->domain->n_snapshots; i++)
        n_bytes += count_snapshot(&catalog->domain->snapshots[i]);
    return n_bytes;
}

static int fill(struct host *host, struct catalog *catalog, struct error *failures)
{
    size_t n_disks = catalog->domain->n_disks;
    struct catalog_origin *origin = calloc(1, sizeof(*origin));
    if (!origin)
        return -ENOMEM;
    catalog->origin = origin;
    origin->tops = calloc(n_disks + 1, sizeof(*origin->tops));
    origin->failure_hashes = calloc(n_disks + 1, sizeof(*origin->failure_hashes));
    if (!origin->tops || !origin->failure_hashes)
        return -ENOMEM;
    clock_gettime(CLOCK_REALTIME, &origin->made);
    int64_t begin_ns = thread_cpu_ns();
    int r = 0;
    for (size_t i = 0; i < n_disks && r == 0; i++)
        r = add_disk(host, catalog, i, &failures[i]);
    if (r == 0)
        r = catalog_index_names(catalog);
    if (r < 0)
        return r;
    origin->n_bytes = count_bytes(catalog);
    int64_t rest_ns = rest_of(thread_cpu_ns() - begin_ns);
    if (origin->is_doubtful && rest_ns < DOUBTFUL_REST_NS)
        rest_ns = DOUBTFUL_REST_NS;
    origin->rested_ns = monotonic_ns() + rest_ns;
    return 0;
}

int catalog_build(struct host *host, struct domain *domain, struct error *failures,
                  struct catalog **ret_catalog, struct error *err)
{
    struct catalog *catalog = calloc(1, sizeof(*catalog));
    if (!catalog)
        return error_set(err, -ENOMEM, "out of memory");
    catalog->refs = 1;
    catalog->domain = domain_ref(domain);
    int r = fill(host, catalog, failures);
    if (r < 0) {
        catalog_unref(catalog);
        return error_set(err, r, "cannot look at the disks: %s", strerrordesc_np(-r));
    }
    *ret_catalog = catalog;
    return 0;
}

bool catalog_is_doubtful(const struct catalog *catalog)
{
    return catalog->origin->is_doubtful;
}

struct catalog *catalog_ref(struct catalog *catalog)
{
    __atomic_add_fetch(&catalog->refs, 1, __ATOMIC_RELAXED);
    return catalog;
}

void catalog_unref(struct catalog *catalog)
{
    if (!catalog || __atomic_sub_fetch(&catalog->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    for (size_t i = 0; i < catalog->n_entries; i++) {
        free(catalog->entries[i].name);
        free(catalog->entries[i].reason);
        snapshot_fini(&catalog->entries[i].snapshot);
    }
    free(catalog->entries);
    free(catalog->by_name);
    if (catalog->origin) {
        for (size_t i = 0; i < catalog->origin->n_below; i++)
            free(catalog->origin->below[i].path);
        free(catalog->origin->below);
        free(catalog->origin->tops);
        free(catalog->origin->failure_hashes);
    }
    free(catalog->origin);
    domain_unref(catalog->domain);
    free(catalog);
}
