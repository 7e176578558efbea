/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/fuse/file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/fuse/buffer.h"
#include "fs/fuse/interrupt.h"
#include "qcow/base/cleanup.h"

/* One open file. */
struct file {
    struct handle handle;
    struct reader *reader; /* immutable */
};

/*
 * An open that was not answered yet. An interrupt may be under way on one thread while another
 * one answers, hence the count: the registry holds a reference until it answers, an interrupt
 * while it runs.
 */
struct pending {
    /* Immutable: */
    struct file_table *table;
    fuse_req_t req;
    struct inode *inode; /* held by the kernel until the answer */
    struct fuse_file_info fi;
    /* Belongs to whoever answers; made beforehand, so that success cannot fail any more. */
    struct file *file;
    /* Guarded by the table's lock: */
    unsigned refs;
    bool is_answering; /* req may be gone, and its address another's */
    struct pending *next;
};

struct file_table {
    /* Immutable: */
    struct tree *tree;
    struct handle_table *handles;

    struct mutex lock;
    struct cond none_pending;
    /* Guarded by lock: */
    struct pending *pendings GUARDED_BY(lock);
};

int file_table_create(struct tree *tree, struct handle_table *handles,
                      struct file_table **ret_table)
{
    struct file_table *table = calloc(1, sizeof(*table));
    if (!table)
        return -ENOMEM;
    table->tree = tree;
    table->handles = handles;
    mutex_init(&table->lock);
    cond_init(&table->none_pending);
    *ret_table = table;
    return 0;
}

void file_table_destroy(struct file_table *table)
{
    if (!table)
        return;
    mutex_lock(&table->lock);
    while (table->pendings)
        cond_wait(&table->none_pending, &table->lock);
    mutex_unlock(&table->lock);
    cond_fini(&table->none_pending);
    mutex_fini(&table->lock);
    free(table);
}

static void destroy_file(struct handle *handle)
{
    struct file *file = (struct file *)handle;
    reader_close(file->reader);
    free(file);
}

static void note_error(struct file_table *table, const struct inode *inode, const struct error *err)
{
    registry_note_error(table->tree->config.registry, inode->domain_id, inode->file, err);
}

static struct pending *create_pending(struct file_table *table, fuse_req_t req, struct inode *inode,
                                      const struct fuse_file_info *fi)
{
    auto_free struct pending *pending = calloc(1, sizeof(*pending));
    auto_free struct file *file = calloc(1, sizeof(*file));
    if (!pending || !file)
        return NULL;
    *pending = (struct pending){
        .table = table, .req = req, .inode = inode, .fi = *fi, .file = take_ptr(file), .refs = 1};
    mutex_lock(&table->lock);
    pending->next = table->pendings;
    table->pendings = pending;
    mutex_unlock(&table->lock);
    return take_ptr(pending);
}

/* True if that was the last reference; the caller frees it then. */
static bool unref_pending_locked(struct file_table *table, struct pending *pending)
    REQUIRES(&table->lock)
{
    if (--pending->refs)
        return false;
    struct pending **at = &table->pendings;
    while (*at != pending)
        at = &(*at)->next;
    *at = pending->next;
    if (!table->pendings)
        cond_wake_all(&table->none_pending);
    return true;
}

static void unref_pending(struct file_table *table, struct pending *pending)
{
    mutex_lock(&table->lock);
    bool is_last = unref_pending_locked(table, pending);
    mutex_unlock(&table->lock);
    if (is_last)
        free(pending);
}

static struct pending *ref_pending_of(struct file_table *table, fuse_req_t req)
{
    mutex_lock(&table->lock);
    struct pending *pending = table->pendings;
    while (pending && (pending->req != req || pending->is_answering))
        pending = pending->next;
    if (pending)
        pending->refs++;
    mutex_unlock(&table->lock);
    return pending;
}

/* Called by libfuse with the request's own lock held, and the request kept alive meanwhile. */
static void interrupt_open(fuse_req_t req, void *data)
{
    struct file_table *table = data;
    if (!interrupt_is_signal(fuse_req_ctx(req)->pid))
        return;
    struct pending *pending = ref_pending_of(table, req);
    if (!pending)
        return;
    registry_cancel(table->tree->config.registry, pending);
    unref_pending(table, pending);
}

static bool is_open_cancelled(void *ctx)
{
    struct interrupt interrupt = {.req = ((struct pending *)ctx)->req};
    return interrupt_came(&interrupt);
}

/* False if the node stands for other bytes than the reader has: see inode_freeze_flat(). */
static bool freeze(struct inode_table *inodes, struct inode *inode, const struct reader *reader)
{
    struct session_attr attr;
    reader_attr(reader, &attr);
    struct inode_flat flat = {.layout = reader_layout(reader)};
    if (inode->kind == INODE_QCOW2)
        flat.size = reader_size(reader);
    return inode_freeze_flat(inodes, inode, &attr, &flat);
}

static void answer_opened(struct pending *pending, struct reader *reader)
{
    struct file_table *table = pending->table;
    if (!freeze(table->tree->inodes, pending->inode, reader)) {
        reader_close(reader);
        reply_status(pending->req, -ESTALE);
        return;
    }
    struct file *file = take_ptr(pending->file);
    file->handle.destroy = destroy_file;
    file->reader = reader;
    pending->fi.keep_cache = 1; /* what this node stands for never changes */
    handle_reply(table->handles, pending->req, &file->handle, &pending->fi);
}

/*
 * Not noted: -ESTALE, after which the kernel looks the name up again and opens what it finds;
 * -EINTR, which the program wanted; -ESHUTDOWN, which somebody else did.
 */
static void answer_failed(struct pending *pending, int result, const struct error *err)
{
    if (result != -ESTALE && result != -EINTR && result != -ESHUTDOWN)
        note_error(pending->table, pending->inode, err);
    reply_status(pending->req, result);
}

static void answer(struct pending *pending, int result, struct reader *reader,
                   const struct error *err)
{
    struct file_table *table = pending->table;
    mutex_lock(&table->lock);
    pending->is_answering = true;
    mutex_unlock(&table->lock);
    if (result == 0)
        answer_opened(pending, reader);
    else
        answer_failed(pending, result, err);
    free(pending->file);
    unref_pending(table, pending);
}

/* A reader that is to be flattened before the open is answered. */
struct flattening {
    struct pending *pending;
    struct reader *reader;
};

static void *flatten_and_answer(void *arg)
{
    struct flattening flattening = *(struct flattening *)arg;
    free(arg);
    struct interrupt interrupt = {.req = flattening.pending->req};
    struct error err = {0};
    int r = reader_flatten(flattening.reader, interrupt_came, &interrupt, &err);
    if (r < 0)
        reader_close(flattening.reader);
    answer(flattening.pending, r, r < 0 ? NULL : flattening.reader, &err);
    return NULL;
}

/* 0 if the thread answers, or why there is none. */
static int start_flattening(struct pending *pending, struct reader *reader, struct error *err)
{
    auto_free struct flattening *flattening = malloc(sizeof(*flattening));
    if (!flattening)
        return error_set(err, -ENOMEM, "out of memory");
    *flattening = (struct flattening){.pending = pending, .reader = reader};
    int r = thread_start_detached(flatten_and_answer, flattening);
    if (r < 0) /* -EAGAIN would be told as EBUSY */
        return error_set(err, -ENOMEM, "cannot start a thread: %s", strerrordesc_np(-r));
    flattening = NULL; /* the thread's */
    return 0;
}

/*
 * The thread that this is called on has others to answer, and the tables of an image may take long
 * to walk: that goes on elsewhere. An interrupt reaches it by the request alone.
 */
static void open_done(void *ctx, int result, struct reader *reader, const struct error *err)
{
    struct pending *pending = ctx;
    struct error failure = *err;
    if (result == 0 && pending->inode->kind == INODE_QCOW2) {
        result = start_flattening(pending, reader, &failure);
        if (result == 0)
            return;
        reader_close(reader);
    }
    answer(pending, result, reader, &failure);
}

int file_describe(struct tree *tree, const struct inode *inode, struct domain **ret_domain,
                  struct open_request *ret_request, struct error *err)
{
    auto_domain struct domain *domain = NULL;
    int r = tree_domain(tree, inode, &domain, err);
    if (r < 0)
        return r;
    const struct disk *disk = domain_find_disk(domain, inode->target);
    if (!disk)
        return error_set(err, -ESTALE, "the disk is gone");
    *ret_request = (struct open_request){
        .domain = domain,
        .disk = disk,
        .snapshot = inode->is_now ? NULL : &inode->snapshot,
        .serial = inode->serial,
    };
    inode_shown(tree->inodes, inode, &ret_request->shown);
    *ret_domain = take_ptr(domain);
    return 0;
}

void file_open(struct file_table *table, fuse_req_t req, struct inode *inode,
               const struct fuse_file_info *fi)
{
    struct tree *tree = table->tree;
    auto_domain struct domain *domain = NULL;
    struct open_request request;
    struct error err = {0};
    int r = file_describe(tree, inode, &domain, &request, &err);
    struct pending *pending = r < 0 ? NULL : create_pending(table, req, inode, fi);
    if (!pending) {
        r = r < 0 ? r : -ENOMEM;
        tree_note_failure(tree, inode, inode->file, r, &err);
        reply_status(req, r);
        return;
    }
    request.pid = fuse_req_ctx(req)->pid;
    request.done = open_done;
    request.is_cancelled = is_open_cancelled;
    request.ctx = pending;
    /* Before the request is handed over: afterwards it may be gone. */
    fuse_req_interrupt_func(req, interrupt_open, table);
    registry_open(tree->config.registry, &request);
}

static struct reader *get_reader(const struct fuse_file_info *fi)
{
    return ((struct file *)handle_get(fi))->reader;
}

void file_read(struct file_table *table, fuse_req_t req, const struct inode *inode, size_t len,
               off_t off, const struct fuse_file_info *fi)
{
    char *buffer = buffer_get(len);
    struct error err = {0};
    if (!buffer) {
        tree_note_failure(table->tree, inode, inode->file, -ENOMEM, &err);
        reply_status(req, -ENOMEM);
        return;
    }
    struct qcow_parts parts;
    ssize_t n = reader_read_parts(get_reader(fi), (uint64_t)off, buffer, len, &parts, &err);
    if (n >= 0) {
        reply_parts(req, &parts);
        return;
    }
    note_error(table, inode, &err);
    reply_status(req, (int)n);
}

void file_seek(struct file_table *table, fuse_req_t req, const struct inode *inode, off_t off,
               int whence, const struct fuse_file_info *fi)
{
    struct interrupt interrupt = {.req = req};
    struct error err = {0};
    uint64_t found = 0;
    int r = -EINVAL;
    if (off < 0)
        r = -ENXIO;
    else if (whence == SEEK_DATA || whence == SEEK_HOLE)
        r = reader_seek(get_reader(fi), (uint64_t)off, whence, interrupt_came, &interrupt, &found,
                        &err);
    if (r == 0) {
        fuse_reply_lseek(req, (off_t)found);
        return;
    }
    if (r != -ENXIO && r != -EINVAL && r != -EINTR)
        note_error(table, inode, &err);
    reply_status(req, r);
}
