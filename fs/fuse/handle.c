/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/fuse/handle.h"

#include <errno.h>
#include <stdint.h>

void handle_table_init(struct handle_table *table)
{
    *table = (struct handle_table){.first = NULL};
    mutex_init(&table->lock);
}

static void insert_locked(struct handle_table *table, struct handle *handle) REQUIRES(&table->lock)
{
    handle->next = table->first;
    if (handle->next)
        handle->next->at = &handle->next;
    handle->at = &table->first;
    table->first = handle;
}

static void remove_locked(struct handle_table *table, struct handle *handle) REQUIRES(&table->lock)
{
    (void)table;
    *handle->at = handle->next;
    if (handle->next)
        handle->next->at = handle->at;
}

static void drop(struct handle_table *table, struct handle *handle)
{
    mutex_lock(&table->lock);
    remove_locked(table, handle);
    mutex_unlock(&table->lock);
    handle->destroy(handle);
}

static struct handle *find_any(struct handle_table *table)
{
    mutex_lock(&table->lock);
    struct handle *handle = table->first;
    mutex_unlock(&table->lock);
    return handle;
}

void handle_table_fini(struct handle_table *table)
{
    for (struct handle *handle; (handle = find_any(table));)
        drop(table, handle);
    mutex_fini(&table->lock);
}

void handle_reply(struct handle_table *table, fuse_req_t req, struct handle *handle,
                  const struct fuse_file_info *fi)
{
    mutex_lock(&table->lock);
    insert_locked(table, handle);
    mutex_unlock(&table->lock);
    struct fuse_file_info answer = *fi;
    answer.fh = (uintptr_t)handle;
    if (fuse_reply_open(req, &answer) == -ENOENT)
        drop(table, handle);
}

struct handle *handle_get(const struct fuse_file_info *fi)
{
    /* lint: clang-tidy/performance-no-int-to-ptr: libfuse keeps no pointers, only numbers */
    return (struct handle *)(uintptr_t)fi->fh;
}

void handle_release(struct handle_table *table, const struct fuse_file_info *fi)
{
    drop(table, handle_get(fi));
}
