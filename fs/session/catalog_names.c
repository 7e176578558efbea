/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The names of a catalog's entries: how each is found, and what it is called as a file. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/session/catalog_internal.h"
#include "fs/session/name.h"
#include "qcow/base/cleanup.h"

const char **catalog_list_targets(const struct domain *domain)
{
    const char **targets = calloc(domain->n_disks + 1, sizeof(*targets));
    for (size_t i = 0; targets && i < domain->n_disks; i++)
        targets[i] = domain->disks[i].target;
    return targets;
}

static int compare_entries(const struct catalog_entry *a, const struct catalog_entry *b)
{
    if (a->disk_idx != b->disk_idx)
        return a->disk_idx < b->disk_idx ? -1 : 1;
    return strcmp(a->name, b->name);
}

static int compare_slots(const void *a, const void *b)
{
    return compare_entries(*(const struct catalog_entry *const *)a,
                           *(const struct catalog_entry *const *)b);
}

int catalog_index_names(struct catalog *catalog)
{
    catalog->by_name = calloc(catalog->n_entries + 1, sizeof(const struct catalog_entry *));
    if (!catalog->by_name)
        return -ENOMEM;
    catalog->names_hash = CATALOG_FNV_START;
    for (size_t i = 0; i < catalog->n_entries; i++) {
        const struct catalog_entry *entry = &catalog->entries[i];
        catalog->by_name[i] = entry;
        catalog->names_hash = catalog_fnv(catalog->names_hash, entry->name);
        if (entry->disk_idx > 0)
            catalog->names_hash =
                catalog_fnv(catalog->names_hash, catalog->domain->disks[entry->disk_idx].target);
    }
    qsort(catalog->by_name, catalog->n_entries, sizeof(*catalog->by_name), compare_slots);
    return 0;
}

const struct catalog_entry *catalog_find(const struct catalog *catalog, const char *file)
{
    auto_free const char **targets = catalog_list_targets(catalog->domain);
    auto_free char *name = NULL;
    int target = -1;
    int r = targets ? name_parse(file, targets, catalog->domain->n_disks, &name, &target) : -ENOMEM;
    errno = r < 0 ? -r : ENOENT;
    if (r < 0)
        return NULL;
    struct catalog_entry wanted = {.name = name, .disk_idx = target < 0 ? 0 : (size_t)target};
    const struct catalog_entry *key = &wanted;
    const struct catalog_entry **found = bsearch(&key, catalog->by_name, catalog->n_entries,
                                                 sizeof(*catalog->by_name), compare_slots);
    return found ? *found : NULL;
}

char *catalog_file_name(const struct catalog *catalog, const struct catalog_entry *entry,
                        enum view view)
{
    char *file = NULL;
    const char *target = catalog->domain->disks[entry->disk_idx].target;
    const char *suffix = name_suffix(view);
    int r = entry->disk_idx == 0 ? asprintf(&file, "%s%s", entry->name, suffix)
                                 : asprintf(&file, "%s.%s%s", entry->name, target, suffix);
    return r < 0 ? NULL : file;
}

uint64_t catalog_view_ino(const struct catalog_entry *entry, enum view view)
{
    if (view == VIEW_RAW)
        return entry->ino;
    char raw_ino[17];
    snprintf(raw_ino, sizeof(raw_ino), "%016" PRIx64, entry->ino);
    return catalog_ino(raw_ino, name_suffix(view));
}
