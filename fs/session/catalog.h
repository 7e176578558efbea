/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What `ls` shows of a domain: the snapshots that its disks hold, with names, sizes and times, and
 * the external ones whose frozen layers rest in the disks' chains. Reads headers and snapshot
 * tables of local files, nothing else: no libvirt, no L1 or L2 table, no instant. Catalogs are
 * immutable and counted; any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "fs/host/host.h"
#include "fs/session/name.h"
#include "fs/session/snapshot.h"

struct catalog_entry {
    char *name;      /* NAME as shown: "now", "before-upgrade" */
    size_t disk_idx; /* into the domain record's disks */
    bool is_now;
    struct named_snapshot snapshot; /* unless is_now */
    uint64_t guest_size;
    struct timespec mtime; /* now: of the disk's own top layer; else the snapshot's creation */
    /* Nothing says when it was changed (no file, or a block device's node): mtime is zero. */
    bool is_undated;
    uint64_t blocks; /* st_blocks, 512 bytes each, by the contract's rule (section 4) */
    uint64_t ino;    /* stable hash of (domain, target, snapshot); of the raw view */
    int failure;     /* 0, or the negative errno of the disk's inspection: size is unknown */
    char *reason;    /* what went wrong then; else NULL */
};

struct catalog {
    struct domain *domain; /* reference: the record that this was made from */
    /* First disk first; "now", internal snapshots in the image's order, external ones by name. */
    struct catalog_entry *entries;
    size_t n_entries;
    uint64_t names_hash; /* of all names: moves when a name comes or goes */

    /* For catalog*.c only. */
    const struct catalog_entry **by_name; /* all entries, ordered for catalog_find() */
    struct catalog_origin *origin;        /* what the files looked like */
    unsigned refs;                        /* atomic */
};

/*
 * Looks at all disks of @domain. A disk that cannot be inspected keeps its "now" entry, with
 * failure set and the reason logged (once for each text). A catalog is used again when every top
 * layer's file is unchanged; one that was dear to make (hundreds of snapshots), whatever was
 * written to the file, for 20 times the processor time that it took, 10 s at most.
 *
 * @host  whose record @domain is: finds the chains under external snapshots
 *
 * 0 or -ENOMEM; catalog_unref() releases @ret_catalog.
 */
int catalog_get(struct host *host, struct domain *domain, struct catalog **ret_catalog,
                struct error *err);
struct catalog *catalog_ref(struct catalog *catalog);
/*
 * True if names may be missing, since a disk could not be read just now: what is not found is not
 * for that reason gone.
 */
bool catalog_is_doubtful(const struct catalog *catalog);

void catalog_unref(struct catalog *catalog);

/*
 * The entry that a file name ("now.raw", "now.vdb.raw", "s1.qcow2") stands for; name_view() tells
 * which view of it. NULL: errno is ENOENT if there is none, else ENOMEM.
 */
const struct catalog_entry *catalog_find(const struct catalog *catalog, const char *file);

/* The file name of a view of an entry; caller frees; NULL: no memory. */
char *catalog_file_name(const struct catalog *catalog, const struct catalog_entry *entry,
                        enum view view);

/* The stable inode number of a view of an entry. */
uint64_t catalog_view_ino(const struct catalog_entry *entry, enum view view);

/* Stable inode numbers for the rest of the tree: a hash of @id and @what ("dir", "status"). */
uint64_t catalog_ino(const char *id, const char *what);
