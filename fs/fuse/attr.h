/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What stat shows (contract section 4). Times move only when content does, and once a disk was
 * opened its numbers are fixed for the life of its node. Before, a .qcow2 shows an upper bound of
 * its size. Any thread; reads image headers, but never waits for libvirt.
 */
#pragma once

#include "fs/fuse/tree.h"

/* 0; -ESTALE if the domain, the disk, the snapshot or the instant is gone; -ENOMEM; ... */
int attr_get(struct tree *tree, struct inode *inode, struct tree_attr *ret_attr, struct error *err);

/*
 * Brings what a disk's node shows up to date from its entry in the catalog, and from the instant if
 * there is one. 0, or -ESTALE when its instant is over and it was never opened, or the errno of
 * the disk's failure.
 */
int attr_refresh_disk(struct tree *tree, struct inode *inode, const struct catalog_entry *entry,
                      const struct session_peek *peek, struct error *err);

/* What a disk's node shows since it was last brought up to date. */
void attr_get_shown(struct tree *tree, const struct inode *inode, struct tree_attr *ret_attr);

/*
 * When @part of a domain's directory was first seen with content @hash. The last hash that was
 * asked for counts as the present one, so ask for no other. 0 or -ENOMEM.
 */
int attr_find_stamp(struct tree *tree, const char *domain_id, const char *part, uint64_t hash,
                    struct timespec *ret_mtime, struct error *err);

/* The catalog's entry for what a disk's node stands for, or NULL. */
const struct catalog_entry *attr_find_entry(const struct catalog *catalog,
                                            const struct inode *inode);
