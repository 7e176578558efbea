/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/session/snapshot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int snapshot_copy(const struct named_snapshot *from, struct named_snapshot *ret)
{
    *ret = (struct named_snapshot){.kind = from->kind};
    if (from->kind == SNAPSHOT_INTERNAL)
        return qcow_snapshot_copy(&from->internal, &ret->internal);
    ret->external = (struct frozen_snapshot){
        .name = strdup(from->external.name),
        .created = from->external.created,
        .path = strdup(from->external.path),
    };
    return ret->external.name && ret->external.path ? 0 : -ENOMEM;
}

void snapshot_fini(struct named_snapshot *snapshot)
{
    qcow_snapshot_fini(&snapshot->internal);
    free(snapshot->external.name);
    free(snapshot->external.path);
    *snapshot = (struct named_snapshot){0};
}

bool snapshot_is_same(const struct named_snapshot *a, const struct named_snapshot *b)
{
    if (a->kind != b->kind)
        return false;
    if (a->kind == SNAPSHOT_INTERNAL)
        return qcow_snapshot_is_same(&a->internal, &b->internal);
    const struct frozen_snapshot *x = &a->external, *y = &b->external;
    return x->created.tv_sec == y->created.tv_sec && x->created.tv_nsec == y->created.tv_nsec &&
           strcmp(x->name, y->name) == 0 && strcmp(x->path, y->path) == 0;
}

static bool is_of(const struct frozen_snapshot *snapshot, const struct host_snapshot *known)
{
    return strcmp(known->name, snapshot->name) == 0 &&
           known->created.tv_sec == snapshot->created.tv_sec &&
           known->created.tv_nsec == snapshot->created.tv_nsec;
}

const struct frozen_disk *snapshot_find_frozen(const struct frozen_snapshot *snapshot,
                                               const struct domain *domain, const char *target)
{
    for (size_t i = 0; i < domain->n_snapshots; i++) {
        const struct host_snapshot *known = &domain->snapshots[i];
        for (size_t j = 0; is_of(snapshot, known) && j < known->n_disks; j++)
            if (strcmp(known->disks[j].target, target) == 0 &&
                strcmp(known->disks[j].path, snapshot->path) == 0)
                return &known->disks[j];
    }
    return NULL;
}

const char *snapshot_name(const struct named_snapshot *snapshot)
{
    return snapshot->kind == SNAPSHOT_INTERNAL ? snapshot->internal.name : snapshot->external.name;
}

struct timespec snapshot_created(const struct named_snapshot *snapshot)
{
    return snapshot->kind == SNAPSHOT_INTERNAL ? snapshot->internal.created
                                               : snapshot->external.created;
}

const char *snapshot_method(const struct named_snapshot *snapshot)
{
    return snapshot->kind == SNAPSHOT_INTERNAL ? "internal" : "external";
}
