/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which of the external snapshots that the host knows can be shown: those whose frozen layer rests
 * in the present chain of the disk.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/host/file.h"
#include "fs/session/catalog_internal.h"
#include "fs/session/chain.h"
#include "qcow/base/cleanup.h"

static const struct frozen_disk *find_frozen(const struct host_snapshot *snapshot,
                                             const char *target)
{
    for (size_t i = 0; i < snapshot->n_disks; i++)
        if (strcmp(snapshot->disks[i].target, target) == 0)
            return &snapshot->disks[i];
    return NULL;
}

static size_t count_frozen(const struct domain *domain, const char *target)
{
    size_t n = 0;
    for (size_t i = 0; i < domain->n_snapshots; i++)
        n += find_frozen(&domain->snapshots[i], target) != NULL;
    return n;
}

/* A layer with nothing below it can be judged as that of the disk itself is. */
static enum occupancy judge(const struct chain_layer *layer)
{
    if (layer->format != QCOW_FORMAT_RAW)
        return OCCUPANCY_SOME;
    auto_close int fd = file_open_image(layer->path, NULL, 0, NULL);
    return fd < 0 ? OCCUPANCY_SOME : catalog_judge_raw(fd, &layer->st);
}

static uint64_t estimate(const struct chain *chain, size_t depth)
{
    uint64_t host_blocks = 0;
    for (size_t i = depth; i < chain->n_layers; i++)
        host_blocks += (uint64_t)chain->layers[i].st.st_blocks;
    return catalog_estimate_blocks(chain->layers[depth].guest_size, host_blocks,
                                   judge(&chain->layers[depth]));
}

static uint64_t make_ino(const struct domain *domain, const char *target,
                         const struct frozen_snapshot *snapshot)
{
    char created[32];
    snprintf(created, sizeof(created), "%lld", (long long)snapshot->created.tv_sec);
    const char *texts[] = {domain->id, target, "external", snapshot->name, created};
    return catalog_hash_ino(texts, sizeof(texts) / sizeof(*texts));
}

static int add(const struct domain *domain, size_t disk_idx, const struct host_snapshot *from,
               const struct chain *chain, struct frozen_list *list)
{
    const char *target = domain->disks[disk_idx].target;
    const struct frozen_disk *frozen = find_frozen(from, target);
    size_t depth = frozen ? chain_find_frozen(chain, frozen) : 0;
    if (depth == 0)
        return 0;
    const struct named_snapshot named = {
        .kind = SNAPSHOT_EXTERNAL,
        .external = {.name = from->name, .created = from->created, .path = frozen->path},
    };
    struct catalog_entry *entry = &list->entries[list->n++];
    *entry = (struct catalog_entry){
        .disk_idx = disk_idx,
        .guest_size = chain->layers[depth].guest_size,
        .mtime = from->created,
        .blocks = estimate(chain, depth),
        .ino = make_ino(domain, target, &named.external),
    };
    return snapshot_copy(&named, &entry->snapshot);
}

static int note_below(struct catalog_origin *origin, const struct chain *chain)
{
    if (chain->n_layers < 2)
        return 0;
    size_t n = origin->n_below + chain->n_layers - 1;
    struct seen_file *grown = reallocarray(origin->below, n, sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    origin->below = grown;
    for (size_t i = 1; i < chain->n_layers; i++) {
        struct seen_file *seen = &grown[origin->n_below++];
        *seen = (struct seen_file){strdup(chain->layers[i].path), chain->layers[i].st};
        /* lint: gcc-analyzer/malloc-leak: kept at an index that gcc loses sight of */
        if (!seen->path)
            return -ENOMEM;
    }
    return 0;
}

int catalog_find_frozen(struct host *host, const struct domain *domain, size_t disk_idx,
                        struct catalog_origin *origin, struct frozen_list *ret_list)
{
    const struct disk *disk = &domain->disks[disk_idx];
    size_t n = count_frozen(domain, disk->target);
    *ret_list = (struct frozen_list){0};
    if (n == 0)
        return 0;
    ret_list->entries = calloc(n, sizeof(*ret_list->entries));
    struct chain chain = {0};
    int r = ret_list->entries ? chain_read(host, disk, &chain) : -ENOMEM;
    origin->is_doubtful = origin->is_doubtful || chain.is_cut;
    if (r == 0)
        r = note_below(origin, &chain);
    for (size_t i = 0; i < domain->n_snapshots && r == 0; i++)
        r = add(domain, disk_idx, &domain->snapshots[i], &chain, ret_list);
    chain_fini(&chain);
    return r;
}

void catalog_free_frozen(struct frozen_list *list)
{
    for (size_t i = 0; i < list->n; i++)
        snapshot_fini(&list->entries[i].snapshot);
    free(list->entries);
    *list = (struct frozen_list){0};
}
