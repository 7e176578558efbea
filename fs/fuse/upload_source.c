/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/fuse/upload_source.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/fuse/file.h"
#include "fs/host/hardware.h"
#include "fs/log.h"
#include "qcow/base/cleanup.h"

enum {
    /* An instant may end between look-up and open; the kernel gives up after the second time. */
    OPEN_TRIES_MAX = 5,
    ASK_INTERVAL_MS = 100, /* how often it is asked whether anybody still waits for an open */
};

/* ---- What it is like ---- */

/* A node that is held. */
struct node_ref {
    struct tree *tree;
    struct inode *inode;
};
#define auto_node __attribute__((cleanup(cleanup_node)))

static void cleanup_node(struct node_ref *node)
{
    if (node->inode)
        inode_forget(node->tree->inodes, node->inode, 1);
}

/* "NAME.raw" or "NAME.TARGET.raw"; caller frees; NULL: no memory. */
static char *make_file_name(const struct upload_what *what)
{
    char *file;
    const char *target = what->target ? what->target : "";
    int r = asprintf(&file, "%s%s%s.raw", what->snapshot, *target ? "." : "", target);
    return r < 0 ? NULL : file;
}

static int refuse_missing(const struct domain *domain, const struct upload_what *what,
                          struct error *err)
{
    if (what->target && !domain_find_disk(domain, what->target))
        return error_set(err, -ENOENT, "the domain has no disk '%s'", what->target);
    return error_set(err, -ENOENT, "%s%s%shas no snapshot '%s'", what->target ? "disk '" : "the ",
                     what->target ? what->target : "domain", what->target ? "' " : " ",
                     what->snapshot);
}

static int read_machine(const struct domain *domain, const struct disk *disk,
                        struct record_machine *ret_machine, struct error *err)
{
    if (!domain->xml)
        return 0;
    struct hardware hardware;
    int r = hardware_read(domain->xml, disk->target, &hardware, err);
    if (r < 0)
        return r;
    *ret_machine = (struct record_machine){
        .uuid = strdup(domain->id),
        .arch = take_ptr(hardware.arch),
        .machine_type = take_ptr(hardware.machine),
        .disk_bus = take_ptr(hardware.disk_bus),
        .scsi_model = take_ptr(hardware.scsi_model),
        .vif_model = take_ptr(hardware.vif_model),
        .is_uefi = hardware.is_uefi,
        .has_agent = hardware.has_agent,
    };
    return ret_machine->uuid ? 0 : error_set(err, -ENOMEM, "out of memory");
}

static int describe(void *ctx, const struct upload_what *what, struct upload_disk *ret_disk,
                    struct error *err)
{
    struct tree *tree = ctx;
    auto_node struct node_ref folder = {.tree = tree};
    auto_catalog struct catalog *catalog = NULL;
    auto_free char *file = make_file_name(what);
    if (!file)
        return error_set(err, -ENOMEM, "out of memory");
    int r = tree_get_snapshots(tree, what->domain_id, &folder.inode, err);
    if (r == 0)
        r = tree_catalog(tree, folder.inode, &catalog, err);
    if (r != 0)
        return r;
    const struct catalog_entry *entry = catalog_find(catalog, file);
    if (!entry)
        return refuse_missing(catalog->domain, what, err);
    if (entry->failure)
        return error_set(err, entry->failure, "%s", entry->reason);
    const struct disk *disk = &catalog->domain->disks[entry->disk_idx];
    ret_disk->guest_size = entry->guest_size;
    ret_disk->format = qcow_format_name(disk->n_layers ? disk->layers[0].format : QCOW_FORMAT_RAW);
    r = read_machine(catalog->domain, disk, &ret_disk->machine, err);
    if (r < 0)
        return r;
    ret_disk->target = strdup(disk->target);
    return ret_disk->target ? 0 : error_set(err, -ENOMEM, "out of memory");
}

/* ---- Opening ---- */

/* An open that is waited for. */
struct opening {
    struct mutex lock;
    struct cond changed;
    /* Guarded by lock: */
    bool is_done;
    int result;
    struct reader *reader;
    struct error err;
};

static void note_done(void *ctx, int result, struct reader *reader, const struct error *err)
{
    struct opening *opening = ctx;
    mutex_lock(&opening->lock);
    opening->result = result;
    opening->reader = reader;
    opening->err = *err;
    opening->is_done = true;
    cond_wake_all(&opening->changed);
    mutex_unlock(&opening->lock);
}

static bool await(struct opening *opening)
{
    mutex_lock(&opening->lock);
    int64_t deadline_ns = monotonic_ns() + (int64_t)ASK_INTERVAL_MS * 1000000;
    if (!opening->is_done)
        cond_wait_until(&opening->changed, &opening->lock, deadline_ns);
    bool is_done = opening->is_done;
    mutex_unlock(&opening->lock);
    return is_done;
}

/* Blocks until the instant is there, or nobody wants it. */
static int open_request(struct registry *registry, struct open_request *request,
                        const struct glance_cancel *cancel, struct reader **ret_reader,
                        struct error *err)
{
    struct opening opening = {0};
    mutex_init(&opening.lock);
    cond_init(&opening.changed);
    request->done = note_done;
    /* lint: cppcheck/autoVariables: it is waited for below */
    request->ctx = &opening;
    registry_open(registry, request);
    bool is_cancelled = false;
    while (!await(&opening)) {
        if (is_cancelled || !cancel->is_cancelled(cancel->ctx))
            continue;
        is_cancelled = true;
        registry_cancel(registry, &opening);
    }
    cond_fini(&opening.changed);
    mutex_fini(&opening.lock);
    if (opening.result < 0)
        *err = opening.err;
    else
        *ret_reader = opening.reader;
    return opening.result;
}

/* As a program opens what it has just looked up. */
static int open_once(struct tree *tree, const struct upload_what *what, const char *file,
                     const struct glance_cancel *cancel, struct reader **ret_reader,
                     struct error *err)
{
    auto_node struct node_ref folder = {.tree = tree};
    auto_node struct node_ref node = {.tree = tree};
    auto_domain struct domain *domain = NULL;
    struct open_request request;
    struct tree_attr attr;
    int r = tree_get_snapshots(tree, what->domain_id, &folder.inode, err);
    if (r == 0)
        r = tree_lookup(tree, folder.inode, file, &node.inode, &attr, err);
    if (r == 0)
        r = file_describe(tree, node.inode, &domain, &request, err);
    if (r < 0)
        return r;
    request.pid = what->pid;
    r = open_request(tree->config.registry, &request, cancel, ret_reader, err);
    if (r < 0)
        return r;
    reader_note_upload(*ret_reader, what->id, what->image_name);
    struct session_attr shown;
    reader_attr(*ret_reader, &shown);
    struct inode_flat flat = {.layout = reader_layout(*ret_reader)};
    inode_freeze_flat(tree->inodes, node.inode, &shown, &flat); /* nothing of it is cached here */
    return 0;
}

static int open_reader(struct tree *tree, const struct upload_what *what,
                       const struct glance_cancel *cancel, struct reader **ret_reader,
                       struct error *err)
{
    auto_free char *file = make_file_name(what);
    if (!file)
        return error_set(err, -ENOMEM, "out of memory");
    int r = -ESTALE;
    for (unsigned i = 0; r == -ESTALE && i < OPEN_TRIES_MAX; i++)
        r = open_once(tree, what, file, cancel, ret_reader, err);
    return r;
}

/* ---- Reading ---- */

static int read_all(void *ctx, uint64_t off, void *buf, size_t len, struct error *err)
{
    char *at = buf;
    while (len > 0) {
        ssize_t n = reader_read(ctx, off, at, len, err);
        if (n < 0)
            return (int)n;
        if (n == 0)
            return error_set(err, -EIO, "the bytes end at %#llx", (unsigned long long)off);
        at += n;
        off += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}

static int open_body(void *ctx, const struct upload_what *what, const struct glance_cancel *cancel,
                     struct glance_body *ret_body, struct error *err)
{
    struct reader *reader = NULL;
    int r = open_reader(ctx, what, cancel, &reader, err);
    if (r < 0)
        return r;
    if (strcmp(what->format, qcow_format_name(QCOW_FORMAT_QCOW2)) == 0)
        r = reader_flatten(reader, cancel->is_cancelled, cancel->ctx, err);
    if (r < 0) {
        reader_close(reader);
        return r;
    }
    *ret_body = (struct glance_body){.size = reader_size(reader), .read = read_all, .ctx = reader};
    return 0;
}

static void close_body(void *ctx, const struct glance_body *body)
{
    (void)ctx;
    reader_close(body->ctx);
}

/* ---- What is told ---- */

static void tell_replaced(void *ctx, const struct upload_replaced *replaced)
{
    (void)ctx;
    log_warn("domain '%s': upload %u: lost the connection within image %s: deleted it, and sends "
             "all again as image %s",
             replaced->domain_name, replaced->id, replaced->old_image_id, replaced->new_image_id);
}

/* By its number: two that fail for one reason are two faults. */
static void note_failure(struct tree *tree, const struct upload_end *end)
{
    auto_free char *what = NULL;
    int r = end->image_name ? asprintf(&what, "upload %u: image '%s'", end->id, end->image_name)
                            : asprintf(&what, "upload %u", end->id);
    if (r < 0)
        what = NULL;
    registry_note_error(tree->config.registry, end->domain_id, what ? what : "upload", end->err);
}

/* The one line about it. Who cancelled knows. */
static void tell_end(void *ctx, const struct upload_end *end)
{
    struct tree *tree = ctx;
    const char *image_id = end->image_id ? end->image_id : "none";
    if (!end->err)
        log_info("domain '%s': upload %u: image '%s' (%s) is active", end->domain_name, end->id,
                 end->image_name, image_id);
    else if ((end->err->code == -EINTR || end->err->code == -ESHUTDOWN) &&
             !strstr(end->err->text, "may be left"))
        log_info("domain '%s': upload %u (image %s): %s", end->domain_name, end->id, image_id,
                 end->err->text);
    else
        note_failure(tree, end);
}

struct upload_source upload_source_make(struct tree *tree)
{
    return (struct upload_source){.describe = describe,
                                  .open = open_body,
                                  .close = close_body,
                                  .replaced = tell_replaced,
                                  .ended = tell_end,
                                  .ctx = tree};
}
