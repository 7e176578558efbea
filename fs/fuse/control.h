/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writing to a domain's `upload`: each write is one line and one job. The answer comes from the
 * job, so no thread of ours waits. A writer that is interrupted, or killed, before it was answered
 * gives its job up. Reading is in text.h. Any thread.
 */
#pragma once

#include "fs/fuse/reply.h"
#include "fs/fuse/tree.h"
#include "fs/glance/upload.h"

/* @bytes are borrowed for the call. Answers the request. */
void control_write(struct tree *tree, struct uploads *uploads, fuse_req_t req,
                   const struct inode *inode, const char *bytes, size_t len);
