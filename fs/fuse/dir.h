/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An open directory: its list of names as it was at opendir() or at the last rewinddir(), so that
 * offsets stay true whatever comes and goes meanwhile. handle_release() closes it. Any thread.
 */
#pragma once

#include "fs/fuse/handle.h"
#include "fs/fuse/reply.h"
#include "fs/fuse/tree.h"

void dir_open(struct tree *tree, struct handle_table *handles, fuse_req_t req,
              const struct inode *inode, const struct fuse_file_info *fi);
void dir_read(struct tree *tree, fuse_req_t req, const struct inode *inode, size_t len, off_t off,
              const struct fuse_file_info *fi);
