/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is open. The kernel holds a handle's address from open to release; the table knows them
 * all, since after an unmount by force nobody releases them. Any thread.
 */
#pragma once

#include "fs/fuse/reply.h"
#include "qcow/base/thread.h"

/* First member of whatever a file handle stands for. */
struct handle {
    void (*destroy)(struct handle *handle); /* frees the whole; immutable */
    /* Guarded by the table's lock: */
    struct handle *next;
    struct handle **at; /* what points to it */
};

struct handle_table {
    struct mutex lock;
    struct handle *first GUARDED_BY(lock);
};

void handle_table_init(struct handle_table *table);
/* Destroys what the kernel will not release any more. After the loop's end. */
void handle_table_fini(struct handle_table *table);

/*
 * Answers an open with @handle, whose destroy is set; takes it. If the request was interrupted
 * meanwhile it is destroyed, since no release will come. From the answer on the kernel may read
 * and close on other threads.
 */
void handle_reply(struct handle_table *table, fuse_req_t req, struct handle *handle,
                  const struct fuse_file_info *fi);

/* The handle that an open answered with. */
struct handle *handle_get(const struct fuse_file_info *fi);

void handle_release(struct handle_table *table, const struct fuse_file_info *fi);
