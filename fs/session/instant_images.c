/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The images of an instant: what is read depends on how it was fixed. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/host/file.h"
#include "fs/session/instant.h"
#include "fs/session/nbd.h"
#include "qcow/base/cleanup.h"

static int allocate(struct instant *instant, struct error *err)
{
    size_t n = instant->domain->n_disks;
    if (n == 0)
        return error_set(err, -EOPNOTSUPP, "domain '%s' has no disks", instant->domain->name);
    instant->images = calloc(n, sizeof(*instant->images));
    instant->failures = calloc(n, sizeof(*instant->failures));
    if (!instant->images || !instant->failures)
        return error_set(err, -ENOMEM, "out of memory");
    return 0;
}

/* As the disk was before: it rests, under an overlay or because the domain is off. */
static int open_resting(const struct instant *instant, const struct disk *disk,
                        struct disk_image **ret_image, struct error *err)
{
    struct disk_image_request request = {.host = instant->config->host,
                                         .disk = disk,
                                         .cache = instant->config->cache,
                                         .top_hold = QEMULOCK_NO_WRITERS};
    return disk_image_open(&request, ret_image, err);
}

/* A copy of the top layer, over the layers that were below it. */
static int open_copied(const struct instant *instant, const struct disk *disk,
                       struct disk_image **ret_image, struct error *err)
{
    const struct change_disk *copied = change_find_disk(instant->change, disk->target);
    if (!copied || !copied->file || disk->n_layers == 0)
        return open_resting(instant, disk, ret_image, err);
    auto_free struct disk_layer *layers = calloc(disk->n_layers, sizeof(*layers));
    if (!layers)
        return error_set(err, -ENOMEM, "out of memory");
    memcpy(layers, disk->layers, disk->n_layers * sizeof(*layers));
    layers[0].path = copied->file;
    layers[0].format = QCOW_FORMAT_QCOW2;
    struct disk copy = *disk;
    copy.layers = layers;
    return open_resting(instant, &copy, ret_image, err);
}

/* The snapshot of that name in the disk's top layer, a qcow2 image. */
static int find_snapshot(const struct disk *disk, const char *name,
                         struct qcow_snapshot *ret_snapshot, struct error *err)
{
    const char *path = disk->layers[0].path;
    auto_close int fd = file_open_image(path, NULL, 0, err);
    if (fd < 0)
        return fd;
    struct qcow_file file = {
        .fd = fd, .format = disk->layers[0].format, .name = disk->layers[0].path};
    struct qcow_info info;
    int r = qcow_inspect(&file, &info, err);
    if (r < 0)
        return r;
    const struct qcow_snapshot *found = NULL;
    for (size_t i = 0; i < info.n_snapshots && !found; i++)
        if (strcmp(info.snapshots[i].name, name) == 0)
            found = &info.snapshots[i];
    if (!found)
        r = error_set(err, -EIO, "'%s' has no snapshot '%s'", path, name);
    else if (qcow_snapshot_copy(found, ret_snapshot) < 0)
        r = error_set(err, -ENOMEM, "out of memory");
    qcow_info_fini(&info);
    return r;
}

/* The internal snapshot that was made: the guest may write to the rest of the image meanwhile. */
static int open_snapshot(const struct instant *instant, const struct disk *disk,
                         struct disk_image **ret_image, struct error *err)
{
    if (!change_find_disk(instant->change, disk->target))
        return open_resting(instant, disk, ret_image, err);
    struct qcow_snapshot snapshot = {0};
    int r = find_snapshot(disk, instant->change->mark, &snapshot, err);
    if (r < 0)
        return r;
    struct disk_image_request request = {.host = instant->config->host,
                                         .disk = disk,
                                         .snapshot = &snapshot,
                                         .cache = instant->config->cache,
                                         .top_hold = QEMULOCK_VISIBLE};
    r = disk_image_open(&request, ret_image, err);
    qcow_snapshot_fini(&snapshot);
    return r;
}

/* An export of the hypervisor's, named after the disk. */
static int open_export(const struct instant *instant, const struct disk *disk,
                       struct disk_image **ret_image, struct error *err)
{
    const struct change *change = instant->change;
    if (!change_find_disk(change, disk->target))
        return open_resting(instant, disk, ret_image, err);
    struct qcow_file file;
    int r = nbd_open(change->socket, disk->target, instant->config->timeout_ms, &file, err);
    return r < 0 ? r : disk_image_open_file(&file, instant->config->cache, ret_image, err);
}

static int open_image(const struct instant *instant, const struct disk *disk,
                      struct disk_image **ret_image, struct error *err)
{
    if (!instant->method)
        return open_resting(instant, disk, ret_image, err);
    switch (instant->method->method) {
    case CHANGE_OVERLAY:
    case CHANGE_COLD_OVERLAY:
        return open_resting(instant, disk, ret_image, err);
    case CHANGE_COPY:
        return open_copied(instant, disk, ret_image, err);
    case CHANGE_MANAGEDSAVE:
    case CHANGE_INTERNAL:
        return open_snapshot(instant, disk, ret_image, err);
    case CHANGE_BACKUP:
        return open_export(instant, disk, ret_image, err);
    }
    return error_set(err, -EINVAL, "unknown method");
}

static int open_one(struct instant *instant, size_t disk_idx)
{
    const struct disk *disk = &instant->domain->disks[disk_idx];
    struct error *failure = &instant->failures[disk_idx];
    int r = open_image(instant, disk, &instant->images[disk_idx], failure);
    if (r < 0) {
        failure->code = r;
        error_prefix(failure, "disk '%s'", disk->target);
    }
    return r;
}

/* The error of the first disk that should have been served; else of the first at all. */
static const struct error *first_failure(const struct instant *instant)
{
    for (size_t i = 0; i < instant->domain->n_disks; i++)
        if (!instant->domain->disks[i].unsupported)
            return &instant->failures[i];
    return &instant->failures[0];
}

static int open_all(struct instant *instant, struct error *err)
{
    int r = allocate(instant, err);
    if (r < 0)
        return r;
    bool has_image = false;
    for (size_t i = 0; i < instant->domain->n_disks; i++) {
        r = open_one(instant, i);
        has_image = has_image || r == 0;
        if (r == -EBUSY || r == -ENOMEM)
            return error_set(err, r, "%s", instant->failures[i].text);
    }
    if (has_image)
        return 0;
    const struct error *first = first_failure(instant);
    return error_set(err, first->code, "%s", first->text);
}

int instant_open_images(struct instant *instant, struct error *err)
{
    int r = open_all(instant, err);
    if (r < 0) {
        instant_close_images(instant);
        free(take_ptr(instant->failures));
    }
    return r;
}

void instant_close_images(struct instant *instant)
{
    for (size_t i = 0; instant->images && i < instant->domain->n_disks; i++) {
        if (!instant->images[i])
            continue;
        /* A read under way keeps the image, but must not keep the domain from its disk. */
        disk_image_drop_locks(instant->images[i]);
        disk_image_unref(instant->images[i]);
    }
    free(take_ptr(instant->images));
}
