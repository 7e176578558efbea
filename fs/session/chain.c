/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/session/chain.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/host/change.h"
#include "fs/host/file.h"
#include "fs/log.h"
#include "qcow/base/cleanup.h"

enum { DEPTH_MAX = 200 }; /* as libvirt and qcow_open() follow them */

void chain_fini(struct chain *chain)
{
    for (size_t i = 0; i < chain->n_layers; i++)
        free(chain->layers[i].path);
    free(chain->layers);
    *chain = (struct chain){0};
}

static void close_file(struct qcow_file *file)
{
    if (file->fd >= 0)
        close(file->fd);
    free(file->name);
    *file = (struct qcow_file){.fd = -1};
}
#define auto_file __attribute__((cleanup(close_file)))

static bool is_same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* True if the image itself names that file as its backing file. */
static bool is_named(const struct qcow_ref *ref, int fd)
{
    auto_free char *path = NULL;
    struct stat named, opened;
    return ref->name && file_resolve_ref(ref->from, ref->name, &path, NULL) == 0 &&
           stat(path, &named) == 0 && fstat(fd, &opened) == 0 && is_same_file(&named, &opened);
}

/* The backing file of @file, which is the lowest so far; -1 in @ret_file if there is none. */
static int open_next(struct host_image_ctx *ctx, size_t depth, const struct qcow_file *file,
                     const struct qcow_info *info, struct qcow_file *ret_file, struct error *err)
{
    const struct qcow_ref ref = {
        .kind = QCOW_REF_BACKING,
        .depth = (unsigned)depth,
        .name = info->backing_name,
        .format = info->backing_format,
        .from = file->name,
        .from_fd = file->fd,
    };
    auto_file struct qcow_file next = {.fd = -1};
    int r = ctx->host->ops->open_ref(ctx, &ref, &next, err);
    if (r != 0)
        return r < 0 ? r : 0;
    if (!is_named(&ref, next.fd))
        return error_set(err, -ESTALE, "'%s' does not name '%s' as its backing file", file->name,
                         next.name);
    *ret_file = next;
    /* lint: cppcheck/unreadVariable: the cleanup reads it */
    next = (struct qcow_file){.fd = -1};
    return 0;
}

static int append_layer(struct chain *chain, const struct qcow_file *file, const struct stat *st,
                        uint64_t guest_size)
{
    struct chain_layer *grown =
        reallocarray(chain->layers, chain->n_layers + 1, sizeof(*chain->layers));
    if (!grown)
        return -ENOMEM;
    chain->layers = grown;
    struct chain_layer *layer = &grown[chain->n_layers++];
    *layer = (struct chain_layer){
        .path = strdup(file->name),
        /* lint: gcc-analyzer/malloc-leak: kept at an index that gcc loses sight of */
        .format = file->format,
        .guest_size = guest_size,
        .st = *st};
    return layer->path ? 0 : -ENOMEM;
}

/* Adds @file to the chain and opens what lies below it; -1 in @ret_file if that was the last. */
static int step(struct host_image_ctx *ctx, struct chain *chain, const struct qcow_file *file,
                struct qcow_file *ret_file, struct error *err)
{
    struct stat st;
    struct qcow_info info;
    if (fstat(file->fd, &st) < 0)
        return error_set(err, -EIO, "cannot stat '%s': %s", file->name, strerrordesc_np(errno));
    int r = qcow_inspect(file, &info, err);
    if (r < 0)
        return r;
    size_t depth = chain->n_layers;
    r = append_layer(chain, file, &st, info.guest_size);
    if (r == 0 && file->format == QCOW_FORMAT_QCOW2 && depth + 1 < DEPTH_MAX)
        r = open_next(ctx, depth, file, &info, ret_file, err);
    qcow_info_fini(&info);
    return r;
}

static int follow(struct host_image_ctx *ctx, struct chain *chain, struct error *err)
{
    const struct disk_layer *top = &ctx->disk->layers[0];
    auto_file struct qcow_file file = {.fd = -1, .format = top->format, .name = strdup(top->path)};
    if (!file.name)
        return -ENOMEM;
    file.fd = file_open_image(top->path, NULL, 0, err);
    int r = file.fd < 0 ? file.fd : 0;
    while (r == 0 && file.fd >= 0) {
        struct qcow_file next = {.fd = -1};
        r = step(ctx, chain, &file, &next, err);
        close_file(&file);
        file = next;
    }
    return r;
}

struct disk chain_skip_overlays(const struct disk *disk)
{
    struct disk view = *disk;
    while (view.n_layers > 1 && change_is_overlay(view.layers[0].path)) {
        view.layers++;
        view.n_layers--;
    }
    return view;
}

int chain_read(struct host *host, const struct disk *disk, struct chain *ret_chain)
{
    struct disk view = chain_skip_overlays(disk);
    struct host_image_ctx ctx = {.host = host, .disk = &view};
    struct error err = {0};
    *ret_chain = (struct chain){0};
    int r = view.n_layers > 0 ? follow(&ctx, ret_chain, &err) : 0;
    if (file_is_shortage(r)) {
        chain_fini(ret_chain);
        return r;
    }
    ret_chain->is_cut = r == -EIO;
    if (r < 0)
        log_debug("disk '%s': its chain cannot be followed: %s", disk->target, err.text);
    return 0;
}

size_t chain_find_frozen(const struct chain *chain, const struct frozen_disk *frozen)
{
    struct stat path, overlay;
    if (stat(frozen->path, &path) < 0 || stat(frozen->overlay, &overlay) < 0)
        return 0;
    for (size_t i = 1; i < chain->n_layers; i++)
        if (is_same_file(&chain->layers[i].st, &path))
            return is_same_file(&chain->layers[i - 1].st, &overlay) ? i : 0;
    return 0;
}

static int copy_layer(struct disk *disk, const char *path, enum qcow_format format)
{
    char *copy = strdup(path);
    if (!copy)
        return -ENOMEM;
    disk->layers[disk->n_layers++] = (struct disk_layer){copy, format};
    /* lint: cppcheck/memleak: kept in the layer */
    return 0;
}

int chain_make_disk(const struct chain *chain, const struct disk *disk, size_t depth,
                    struct disk *ret_disk)
{
    struct disk view = chain_skip_overlays(disk);
    size_t n_declared = view.n_layers > depth ? view.n_layers - depth : 0;
    struct disk made = {
        .target = disk->target,
        .is_chain_complete = view.is_chain_complete && n_declared > 0,
        .layers = calloc(n_declared + 1, sizeof(*made.layers)),
    };
    int r = made.layers ? 0 : -ENOMEM;
    if (r == 0 && n_declared == 0)
        r = copy_layer(&made, chain->layers[depth].path, chain->layers[depth].format);
    for (size_t i = 0; i < n_declared && r == 0; i++)
        r = copy_layer(&made, view.layers[depth + i].path, view.layers[depth + i].format);
    if (r < 0) {
        chain_fini_disk(&made);
        return r;
    }
    *ret_disk = made;
    return 0;
}

void chain_fini_disk(struct disk *disk)
{
    for (size_t i = 0; i < disk->n_layers; i++)
        free(disk->layers[i].path);
    free(disk->layers);
    *disk = (struct disk){0};
}
