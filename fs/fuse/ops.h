/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The operation table: decode, call, reply. Requests come on threads of libfuse; none of them
 * waits for libvirt.
 */
#pragma once

#include "fs/fuse/file.h"
#include "fs/fuse/handle.h"
#include "fs/fuse/reply.h"
#include "fs/fuse/tree.h"
#include "fs/glance/upload.h"

/* The session's user data. */
struct ops_context {
    struct tree *tree;
    struct file_table *files;
    struct uploads *uploads;
    struct handle_table handles;
};

/* Largest read, in bytes: what the kernel's 256 pages a request allow. Also a mount option. */
enum { OPS_READ_MAX = 1 << 20 };

/*
 * Bytes that the kernel is to ask for ahead of a sequential reader: several requests, so that
 * several threads decode for it.
 */
enum { OPS_READAHEAD = 4 << 20 };

extern const struct fuse_lowlevel_ops ops_table;
