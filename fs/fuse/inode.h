/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Nodes: what the kernel holds on to. A node is found by what it stands for (its key), so one
 * instant, one snapshot, one text has one node as long as the kernel remembers it, and the next
 * instant gets another one, with a page cache of its own, behind the same stable inode number.
 *
 * A node belongs to its table and lives while the kernel's count of lookups is above zero; only
 * the kernel may hand one in, so an operation may use it without a reference of its own. Any
 * thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "fs/host/domain.h"
#include "fs/session/registry.h"
#include "qcow/base/thread.h"

enum inode_kind {
    INODE_ROOT,      /* / */
    INODE_DOMAIN,    /* /DOMAIN */
    INODE_SNAPSHOTS, /* /DOMAIN/snapshots */
    INODE_RAW,       /* /DOMAIN/snapshots/NAME.raw */
    INODE_QCOW2,     /* /DOMAIN/snapshots/NAME.qcow2 */
    INODE_XML,       /* /DOMAIN/domain.xml */
    INODE_STATUS,    /* /DOMAIN/status */
    INODE_UPLOAD,    /* /DOMAIN/upload */
};

struct inode_table;

/* What a node of a disk stands for: reader_layout(), and the bytes of a QCOW2 node's file. */
struct inode_flat {
    uint64_t size, layout;
};

struct inode {
    /* Immutable: */
    enum inode_kind kind;
    uint64_t key_hash;
    char *key;
    char *domain_id;     /* "" for the root */
    uint64_t ino;        /* what stat shows */
    uint64_t generation; /* no two nodes of a mount have the same */
    /* RAW, QCOW2: */
    char *file; /* name it was found by, for messages */
    char *target;
    bool is_now;
    uint64_t serial;                /* of an instant; else 0 */
    struct named_snapshot snapshot; /* if it is one */
    struct domain *record;          /* XML: holds the text; reference */
    struct timespec mtime;          /* XML: when the text was first seen */

    /* Guarded by the table's lock: */
    uint64_t lookups;
    struct session_attr attr; /* RAW, QCOW2: what stat showed last of the disk */
    bool is_frozen;           /* attr is that of the bytes that were opened, for good */
    struct inode_flat flat;   /* once frozen */
    struct inode *next;       /* in its bucket */
};

/* What a node stands for. All borrowed. */
struct inode_spec {
    enum inode_kind kind;
    const char *domain_id;
    uint64_t ino;
    /* RAW, QCOW2: */
    const char *file;
    const char *target;
    const char *top_path;                  /* of the disk */
    const struct named_snapshot *snapshot; /* NULL for an instant */
    uint64_t serial;                       /* of the instant; UPLOAD: no two have the same */
    /* XML: */
    struct domain *record;
    uint64_t text_hash;
    struct timespec mtime;
};

/* 0 or -ENOMEM. The root is there from the start and stays. */
int inode_table_create(uint64_t root_ino, struct inode_table **ret_table);
void inode_table_destroy(struct inode_table *table); /* with all nodes; NULL is fine */

struct inode *inode_root(struct inode_table *table);

/* The node for @spec, found or made, with one more lookup counted. 0 or -ENOMEM. */
int inode_get(struct inode_table *table, const struct inode_spec *spec, struct inode **ret_inode);
/* Takes back @n lookups; with the last one the node is freed. */
void inode_forget(struct inode_table *table, struct inode *inode, uint64_t n);
/* Number of nodes besides the root; for tests. */
size_t inode_table_count(struct inode_table *table);

/* True for RAW and QCOW2: the views of a disk. */
bool inode_is_disk(const struct inode *inode);

/* Remembers what stat shows of a disk from now on, unless that is frozen. */
void inode_show(struct inode_table *table, struct inode *inode, const struct session_attr *attr);
/* The same for good, for an instant's node; a node frozen already stays as it is. */
void inode_freeze(struct inode_table *table, struct inode *inode, const struct session_attr *attr);
/*
 * The same for a node that stands for those bytes from now on. False if it stands for others
 * already, which the page cache may hold: then nobody finds the node any more, and the next look-up
 * makes a new one.
 */
bool inode_freeze_flat(struct inode_table *table, struct inode *inode,
                       const struct session_attr *attr, const struct inode_flat *flat);
/* What was shown last; true if that is frozen. */
bool inode_shown(struct inode_table *table, const struct inode *inode,
                 struct session_attr *ret_attr);
/* The size is that of a QCOW2 node that is frozen; else 0. */
struct inode_flat inode_flat(struct inode_table *table, const struct inode *inode);

/* A hash of bytes, the same in each run of the program. Chain calls by @seed; begin with 0. */
uint64_t inode_hash(uint64_t seed, const char *text);
