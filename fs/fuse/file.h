/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An open disk: from open(), which may wait for its instant without holding a thread, to reads;
 * handle_release() closes it. An open of a .qcow2 goes on on a thread of its own, which lays the
 * file out. Answers the requests itself. Any thread.
 */
#pragma once

#include "fs/fuse/handle.h"
#include "fs/fuse/reply.h"
#include "fs/fuse/tree.h"

struct file_table;

/* @tree and @handles are borrowed for the life of the table. 0 or -ENOMEM. */
int file_table_create(struct tree *tree, struct handle_table *handles,
                      struct file_table **ret_table);
/*
 * Waits until each open that still waits has been answered: after registry_shutdown(), which
 * answers them, and before the FUSE session goes. NULL is fine.
 */
void file_table_destroy(struct file_table *table);

/*
 * What an open of a .raw node asks the registry for; pid, done, is_cancelled and ctx are the
 * caller's to set. @ret_request borrows from @inode and from @ret_domain, which is a reference.
 * 0; -ESTALE the domain or the disk is gone.
 */
int file_describe(struct tree *tree, const struct inode *inode, struct domain **ret_domain,
                  struct open_request *ret_request, struct error *err);

void file_open(struct file_table *table, fuse_req_t req, struct inode *inode,
               const struct fuse_file_info *fi);
void file_read(struct file_table *table, fuse_req_t req, const struct inode *inode, size_t len,
               off_t off, const struct fuse_file_info *fi);
void file_seek(struct file_table *table, fuse_req_t req, const struct inode *inode, off_t off,
               int whence, const struct fuse_file_info *fi);
