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
 * Bytes that the kernel is to ask for ahead of a sequential reader: several requests, which are
 * answered at the same time. With 1 or 2 MiB a plain image measured 0.92 and 0.91 of the speed, a
 * zlib one 0.96 and 1.02 (medians of 6 interleaved runs, 2 processors).
 */
enum { OPS_READAHEAD = 4 << 20 };

extern const struct fuse_lowlevel_ops ops_table;
