/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What catalog.c (looking at disks), catalog_names.c (what they are called) and catalog_cache.c
 * (not looking again) share.
 */
#pragma once

#include <sys/stat.h>

#include "fs/session/catalog.h"

/* How much memory the remembered catalogs may take; the last one used is kept in any case. */
enum { CATALOG_BYTES_MAX = 32 << 20 };

/* A file that was looked at, and what it was like then. */
struct seen_file {
    char *path;
    struct stat st;
};

/* The state of the files that a catalog was made from. Owned by the catalog, immutable. */
struct catalog_origin {
    struct timespec made;    /* just before the first file was opened */
    int64_t rested_ns;       /* monotonic: until when it is current whatever the files say */
    size_t n_bytes;          /* of memory, roughly */
    struct seen_file *below; /* layers below the top, of chains that were followed */
    size_t n_below;
    struct stat *tops;        /* one a disk: the top layer's file; st_mode 0 if not opened */
    uint64_t *failure_hashes; /* one a disk: of the reason why it failed; 0 if it did not */
    bool is_doubtful; /* something could not be read, which may pass: looked at again soon */
};

/*
 * Looks at all disks. @failures has one place for each disk of @domain, zeroed; a disk that
 * cannot be inspected has its reason there. 0 or what file_is_shortage() is true of.
 */
int catalog_build(struct host *host, struct domain *domain, struct error *failures,
                  struct catalog **ret_catalog, struct error *err);

/* catalog.c: what is known for certain about a disk's blocks. */
enum occupancy { OCCUPANCY_SOME, OCCUPANCY_EMPTY, OCCUPANCY_FULL };
enum occupancy catalog_judge_raw(int fd, const struct stat *st);
uint64_t catalog_estimate_blocks(uint64_t guest_size, uint64_t host_blocks,
                                 enum occupancy occupancy);
uint64_t catalog_hash_ino(const char *const *texts, size_t n);

#define CATALOG_FNV_START 0xcbf29ce484222325U

/* Hashes a text with its end, so that "ab","c" and "a","bc" differ. */
static inline uint64_t catalog_fnv(uint64_t hash, const char *text)
{
    do
        hash = (hash ^ (unsigned char)*text) * 0x100000001b3U;
    while (*text++);
    return hash;
}

/* catalog_names.c: targets of all disks; caller frees the array, not the strings. */
const char **catalog_list_targets(const struct domain *domain);
/* Makes the entries findable by name. 0 or -ENOMEM. */
int catalog_index_names(struct catalog *catalog);

/*
 * catalog_frozen.c: the external snapshots of one disk, as entries without names yet; their names
 * are borrowed from the record.
 */
struct frozen_list {
    struct catalog_entry *entries;
    size_t n;
};
int catalog_find_frozen(struct host *host, const struct domain *domain, size_t disk_idx,
                        struct catalog_origin *origin, struct frozen_list *ret_list);
void catalog_free_frozen(struct frozen_list *list); /* what was not moved out of it */

/* How much memory the remembered catalogs take. */
size_t catalog_remembered_bytes(void);
