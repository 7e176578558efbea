/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Nodes that are text: `status` and `upload`, made anew at each open, and `domain.xml`. What an
 * open file shows is fixed at its open; handle_release() closes it. Any thread.
 */
#pragma once

#include "fs/fuse/handle.h"
#include "fs/fuse/reply.h"
#include "fs/fuse/tree.h"
#include "fs/glance/upload.h"

/* All borrowed. */
struct text_context {
    struct tree *tree;
    struct uploads *uploads; /* NULL: there are none */
    struct handle_table *handles;
};

void text_open(const struct text_context *context, fuse_req_t req, const struct inode *inode,
               const struct fuse_file_info *fi);
void text_read(fuse_req_t req, size_t len, off_t off, const struct fuse_file_info *fi);
void text_seek(fuse_req_t req, off_t off, int whence, const struct fuse_file_info *fi);
