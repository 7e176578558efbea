/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/domain.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/host/host.h"

struct domain *domain_create(const char *id, const char *name)
{
    struct domain *domain = calloc(1, sizeof(*domain));
    if (!domain)
        return NULL;
    domain->refs = 1;
    domain->id = strdup(id);
    domain->name = strdup(name);
    if (!domain->id || !domain->name) {
        domain_unref(domain);
        return NULL;
    }
    return domain;
}

struct domain *domain_ref(struct domain *domain)
{
    __atomic_add_fetch(&domain->refs, 1, __ATOMIC_RELAXED);
    return domain;
}

void domain_free_disks(struct disk *disks, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < disks[i].n_layers; j++)
            free(disks[i].layers[j].path);
        free(disks[i].layers);
        free(disks[i].target);
        free(disks[i].unsupported);
    }
    free(disks);
}

void host_snapshot_fini(struct host_snapshot *snapshot)
{
    for (size_t i = 0; i < snapshot->n_disks; i++) {
        free(snapshot->disks[i].target);
        free(snapshot->disks[i].path);
        free(snapshot->disks[i].overlay);
    }
    free(snapshot->disks);
    free(snapshot->name);
    *snapshot = (struct host_snapshot){0};
}

int host_snapshot_add(struct host_snapshot *snapshot, const char *target, const char *path,
                      const char *overlay)
{
    struct frozen_disk *grown =
        reallocarray(snapshot->disks, snapshot->n_disks + 1, sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    snapshot->disks = grown;
    struct frozen_disk *disk = &grown[snapshot->n_disks++];
    *disk = (struct frozen_disk){
        .target = strdup(target), .path = strdup(path), .overlay = strdup(overlay)};
    return disk->target && disk->path && disk->overlay ? 0 : -ENOMEM;
}

static int copy_snapshot(const struct host_snapshot *from, struct host_snapshot *to)
{
    *to = (struct host_snapshot){.name = strdup(from->name), .created = from->created};
    int r = to->name ? 0 : -ENOMEM;
    for (size_t i = 0; i < from->n_disks && r == 0; i++)
        r = host_snapshot_add(to, from->disks[i].target, from->disks[i].path,
                              from->disks[i].overlay);
    return r;
}

int domain_copy_snapshots(struct domain *domain, const struct host_snapshot *from, size_t n)
{
    domain->snapshots = calloc(n + 1, sizeof(*domain->snapshots));
    if (!domain->snapshots)
        return -ENOMEM;
    int r = 0;
    for (size_t i = 0; i < n && r == 0; i++)
        r = copy_snapshot(&from[i], &domain->snapshots[domain->n_snapshots++]);
    return r;
}

void domain_unref(struct domain *domain)
{
    if (!domain || __atomic_sub_fetch(&domain->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    domain_free_disks(domain->disks, domain->n_disks);
    for (size_t i = 0; i < domain->n_snapshots; i++)
        host_snapshot_fini(&domain->snapshots[i]);
    free(domain->snapshots);
    free(domain->id);
    free(domain->name);
    free(domain->xml);
    free(domain);
}

const struct disk *domain_find_disk(const struct domain *domain, const char *target)
{
    for (size_t i = 0; i < domain->n_disks; i++)
        if (strcmp(domain->disks[i].target, target) == 0)
            return &domain->disks[i];
    return NULL;
}

const char *domain_state_name(enum domain_state state)
{
    switch (state) {
    case DOMAIN_SHUTOFF:
        return "shut off";
    case DOMAIN_RUNNING:
        return "running";
    case DOMAIN_PAUSED:
        return "paused";
    }
    return "unknown";
}

static bool is_same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool is_same_disk(const struct disk *a, const struct disk *b)
{
    if (!is_same_text(a->target, b->target) || !is_same_text(a->unsupported, b->unsupported) ||
        a->is_remote != b->is_remote || a->capacity != b->capacity || a->n_layers != b->n_layers ||
        a->is_chain_complete != b->is_chain_complete ||
        a->is_format_disputed != b->is_format_disputed)
        return false;
    for (size_t i = 0; i < a->n_layers; i++)
        if (a->layers[i].format != b->layers[i].format ||
            !is_same_text(a->layers[i].path, b->layers[i].path))
            return false;
    return true;
}

static bool is_same_snapshot(const struct host_snapshot *a, const struct host_snapshot *b)
{
    if (!is_same_text(a->name, b->name) || a->n_disks != b->n_disks ||
        a->created.tv_sec != b->created.tv_sec || a->created.tv_nsec != b->created.tv_nsec)
        return false;
    for (size_t i = 0; i < a->n_disks; i++)
        if (!is_same_text(a->disks[i].target, b->disks[i].target) ||
            !is_same_text(a->disks[i].path, b->disks[i].path) ||
            !is_same_text(a->disks[i].overlay, b->disks[i].overlay))
            return false;
    return true;
}

bool domain_has_same_snapshots(const struct domain *a, const struct domain *b)
{
    if (a->n_snapshots != b->n_snapshots)
        return false;
    for (size_t i = 0; i < a->n_snapshots; i++)
        if (!is_same_snapshot(&a->snapshots[i], &b->snapshots[i]))
            return false;
    return true;
}

bool domain_is_same(const struct domain *a, const struct domain *b)
{
    if (!is_same_text(a->id, b->id) || !is_same_text(a->name, b->name) || a->state != b->state ||
        a->is_persistent != b->is_persistent || a->has_managed_save != b->has_managed_save ||
        a->has_manager != b->has_manager || a->n_disks != b->n_disks ||
        !is_same_text(a->xml, b->xml))
        return false;
    for (size_t i = 0; i < a->n_disks; i++)
        if (!is_same_disk(&a->disks[i], &b->disks[i]))
            return false;
    return domain_has_same_snapshots(a, b);
}

void host_list_free(struct domain **domains, size_t n)
{
    for (size_t i = 0; i < n; i++)
        domain_unref(domains[i]);
    free(domains);
}
