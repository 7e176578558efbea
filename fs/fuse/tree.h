/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Names: /, DOMAIN/, snapshots/, NAME.raw, NAME.qcow2, domain.xml, status, upload. Turns names into
 * nodes and directories into lists of names. Everything comes from the host's records and the
 * catalogs, so nothing here waits for libvirt. Any thread.
 */
#pragma once

#include <stdint.h>
#include <sys/stat.h>

#include "fs/fuse/inode.h"
#include "fs/host/host.h"
#include "fs/session/catalog.h"
#include "fs/session/registry.h"
#include "fs/session/stamps.h"
#include "qcow/base/thread.h"

/* Which views of a disk readdir shows; the others are found by name. */
enum tree_list { TREE_LIST_RAW, TREE_LIST_QCOW2, TREE_LIST_ALL };

struct tree_config {
    struct host *host; /* borrowed for the life of the tree, as are the next two */
    struct registry *registry;
    struct stamps *stamps;
    uid_t uid;
    gid_t gid;
    mode_t umask; /* taken from 0444 for files and 0555 for directories */
    enum tree_list list;
};

struct tree {
    /* Immutable: */
    struct tree_config config;
    struct inode_table *inodes;
    uint64_t nonce; /* random: another one with each mount */

    struct mutex lock;
    /* Guarded by lock: what the root's mtime was, and until when (monotonic) it is believed. */
    struct timespec root_mtime GUARDED_BY(lock);
    int64_t root_valid_ns GUARDED_BY(lock);
    uint64_t n_upload_nodes GUARDED_BY(lock); /* ever made */
};

/* 0, -ENOMEM, or why there is nothing random. */
int tree_create(const struct tree_config *config, struct tree **ret_tree);
void tree_destroy(struct tree *tree); /* with all nodes; NULL is fine */

/* What the kernel is told about a node. */
struct tree_attr {
    struct stat st;
    double timeout_s; /* how long the kernel may believe it */
};

/* The node of DOMAIN/snapshots, with one lookup counted. 0 or -ENOMEM. */
int tree_get_snapshots(struct tree *tree, const char *domain_id, struct inode **ret_inode,
                       struct error *err);

/*
 * The node of @name in @parent, with one lookup counted (inode_forget() takes it back), and its
 * attributes. 0; -ENOENT; -ENOTDIR; -ESTALE (the parent's domain is gone); -ENOMEM; or, for a
 * disk, what is wrong with it.
 */
int tree_lookup(struct tree *tree, struct inode *parent, const char *name, struct inode **ret_inode,
                struct tree_attr *ret_attr, struct error *err);

/*
 * The record of the node's domain: a reference, or -ESTALE. For snapshots/ and what is in it, the
 * one that the disks are shown from (registry_record()).
 */
int tree_domain(struct tree *tree, const struct inode *inode, struct domain **ret_domain,
                struct error *err);

/*
 * Logs that the program ran out of memory or descriptors; other faults are told by who sees them.
 * @err may have no text. @what is the file of the node's domain that is concerned.
 */
void tree_note_failure(struct tree *tree, const struct inode *inode, const char *what, int code,
                       const struct error *err);

/* The catalog of that record: a reference; as tree_domain(), or -ENOMEM. */
int tree_catalog(struct tree *tree, const struct inode *inode, struct catalog **ret_catalog,
                 struct error *err);

/* The domains as the root shows them. */
struct tree_domains {
    struct domain **domains; /* references */
    char **names;            /* of their directories */
    size_t n;
    uint64_t hash; /* moves when a name comes or goes */
};
int tree_domains_init(struct tree *tree, struct tree_domains *ret_domains, struct error *err);
void tree_domains_fini(struct tree_domains *domains);

/* One line of a directory. */
struct tree_entry {
    char *name;
    uint64_t ino;
    mode_t type; /* S_IFDIR or S_IFREG */
};

/* A directory as it was at one moment, "." and ".." first. */
struct tree_listing {
    struct tree_entry *entries;
    size_t n, room;
    int end; /* 0, or the negative errno that stands for the names that could not be found out */
};

/* 0; -ENOTDIR; -ESTALE; -EIO; -ENOMEM. */
int tree_list(struct tree *tree, const struct inode *inode, struct tree_listing **ret_listing,
              struct error *err);
void tree_listing_destroy(struct tree_listing *listing); /* NULL is fine */

/* Stable inode numbers of what is no disk. */
uint64_t tree_ino(enum inode_kind kind, const char *domain_id);

void tree_cleanup_domain(struct domain **domain);
void tree_cleanup_catalog(struct catalog **catalog);
#define auto_domain __attribute__((cleanup(tree_cleanup_domain)))
#define auto_catalog __attribute__((cleanup(tree_cleanup_catalog)))
