/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What catalog.c (looking at disks) and catalog_cache.c (not looking again) share.
 */
#pragma once

#include <sys/stat.h>

#include "fs/session/catalog.h"

/* How much memory the remembered catalogs may take; the last one used is kept in any case. */
enum { CATALOG_BYTES_MAX = 32 << 20 };

/* The state of the files that a catalog was made from. Owned by the catalog, immutable. */
struct catalog_origin {
    struct timespec made;     /* just before the first file was opened */
    int64_t rested_ns;        /* monotonic: until when it is current whatever the files say */
    size_t n_bytes;           /* of memory, roughly */
    struct stat *tops;        /* one a disk: the top layer's file; st_mode 0 if not opened */
    uint64_t *failure_hashes; /* one a disk: of the reason why it failed; 0 if it did not */
};

/*
 * Looks at all disks. @failures has one place for each disk of @domain, zeroed; a disk that
 * cannot be inspected has its reason there. 0 or -ENOMEM.
 */
int catalog_build(struct domain *domain, struct error *failures, struct catalog **ret_catalog,
                  struct error *err);

/* How much memory the remembered catalogs take. */
size_t catalog_remembered_bytes(void);
