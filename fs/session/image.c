/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/session/image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/host/file.h"
#include "qcow/base/cleanup.h"
#include "qcow/base/thread.h"

struct disk_image {
    /* Immutable once open. */
    struct qcow_image *qcow;
    int *fds; /* of every file of the chain, for their locks; owned by qcow */
    size_t n_fds;
    bool is_locked;

    struct mutex lock;
    struct qcow_flat *flat GUARDED_BY(lock); /* once somebody asked for it; stays */

    unsigned refs; /* atomic */
};

/* What the opener callback needs. */
struct opening {
    const struct disk_image_request *request;
    struct host_image_ctx host_ctx;
    struct disk_image *image; /* being filled */
};

/* Locks one file of the chain and remembers its descriptor. */
static int hold_file(struct disk_image *image, int fd, const char *path, enum qemulock_hold hold,
                     struct error *err)
{
    bool is_locked = false;
    int r = qemulock_take(fd, path, hold, &is_locked, err);
    if (r < 0)
        return r;
    int *fds = reallocarray(image->fds, image->n_fds + 1, sizeof(*fds));
    if (!fds)
        return error_set(err, -ENOMEM, "out of memory");
    fds[image->n_fds++] = fd;
    image->fds = fds;
    /* lint: gcc-analyzer/malloc-leak: kept by the image */
    image->is_locked = image->is_locked && is_locked;
    return 0;
}

/* The host's policy first, then the lock, and only then may the decoder look at the file. */
static int open_held_ref(void *ctx, const struct qcow_ref *ref, struct qcow_file *ret_file,
                         struct error *err)
{
    struct opening *opening = ctx;
    const struct host *host = opening->host_ctx.host;
    struct qcow_file file = {.fd = -1};
    int r = host->ops->open_ref(&opening->host_ctx, ref, &file, err);
    if (r != 0)
        return r;
    /* The data file of the top layer is written together with it. */
    bool is_top = ref->kind == QCOW_REF_DATA && ref->depth == 0;
    enum qemulock_hold hold = is_top ? opening->request->top_hold : QEMULOCK_NO_WRITERS;
    r = hold_file(opening->image, file.fd, file.name, hold, err);
    if (r < 0) {
        qcow_file_close(&file);
        return r;
    }
    *ret_file = file;
    return 0;
}

/* Opens and locks the top layer; the decoder has not seen it yet. */
static int open_top(struct disk_image *image, const struct disk_image_request *request,
                    struct qcow_file *ret_file, struct error *err)
{
    const struct disk_layer *top = &request->disk->layers[0];
    auto_close int fd = file_open_image(top->path, NULL, 0, err);
    if (fd < 0)
        return fd;
    auto_free char *name = strdup(top->path);
    if (!name)
        return error_set(err, -ENOMEM, "out of memory");
    int r = hold_file(image, fd, name, request->top_hold, err);
    if (r < 0)
        return r;
    *ret_file =
        (struct qcow_file){.fd = take_fd(fd), .format = top->format, .name = take_ptr(name)};
    return 0;
}

/* Who ignored our locks shows up now at the latest, before the first byte is handed out. */
static int check_writers(const struct disk_image *image, const struct disk_image_request *request,
                         struct error *err)
{
    unsigned first = request->top_hold == QEMULOCK_NO_WRITERS ? 0 : 1;
    for (unsigned depth = first; depth < qcow_depth(image->qcow); depth++) {
        const struct qcow_file *file = qcow_layer_file(image->qcow, depth);
        int r = qemulock_check(file->fd, file->name, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int open_chain(struct disk_image *image, const struct disk_image_request *request,
                      struct error *err)
{
    struct qcow_file top;
    int r = open_top(image, request, &top, err);
    if (r < 0)
        return r;
    struct opening opening = {
        .request = request,
        .host_ctx = {.host = request->host, .disk = request->disk},
        .image = image,
    };
    struct qcow_opener opener = {.open_ref = open_held_ref, .ctx = &opening};
    r = qcow_open(&top, &opener, request->cache, request->snapshot, &image->qcow, err);
    return r < 0 ? r : check_writers(image, request, err);
}

static struct disk_image *create_image(void)
{
    struct disk_image *image = calloc(1, sizeof(*image));
    if (image) {
        image->refs = 1;
        image->is_locked = true;
        mutex_init(&image->lock);
    }
    return image;
}

static int refuse_ref(void *ctx, const struct qcow_ref *ref, struct qcow_file *ret_file,
                      struct error *err)
{
    (void)ctx;
    (void)ret_file;
    return error_set(err, -EPERM, "'%s' refers to another file", ref->from);
}

int disk_image_open_file(struct qcow_file *file, struct qcow_cache *cache,
                         struct disk_image **ret_image, struct error *err)
{
    struct qcow_opener opener = {.open_ref = refuse_ref};
    struct disk_image *image = create_image();
    if (!image) {
        qcow_file_close(file);
        return error_set(err, -ENOMEM, "out of memory");
    }
    int r = qcow_open(file, &opener, cache, NULL, &image->qcow, err);
    if (r < 0) {
        disk_image_unref(image);
        return r;
    }
    *ret_image = image;
    return 0;
}

int disk_image_open(const struct disk_image_request *request, struct disk_image **ret_image,
                    struct error *err)
{
    const struct disk *disk = request->disk;
    if (disk->unsupported)
        return error_set(err, -EOPNOTSUPP, "%s", disk->unsupported);
    if (disk->is_format_disputed)
        return error_set(err, -EOPNOTSUPP,
                         "'%s' begins like a qcow2 file but is not named .qcow2: say format=qcow2 "
                         "or format=raw",
                         disk->layers[0].path);
    struct disk_image *image = create_image();
    if (!image)
        return error_set(err, -ENOMEM, "out of memory");
    int r = open_chain(image, request, err);
    if (r < 0) {
        disk_image_unref(image);
        return r;
    }
    *ret_image = image;
    return 0;
}

struct disk_image *disk_image_ref(struct disk_image *image)
{
    __atomic_add_fetch(&image->refs, 1, __ATOMIC_RELAXED);
    return image;
}

void disk_image_unref(struct disk_image *image)
{
    if (!image || __atomic_sub_fetch(&image->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    qcow_flat_close(image->flat);
    qcow_close(image->qcow);
    mutex_fini(&image->lock);
    free(image->fds);
    free(image);
}

bool disk_image_is_locked(const struct disk_image *image)
{
    return image->is_locked;
}

void disk_image_drop_locks(struct disk_image *image)
{
    for (size_t i = 0; i < image->n_fds; i++)
        qemulock_drop(image->fds[i]);
}

struct qcow_image *disk_image_qcow(struct disk_image *image)
{
    return image->qcow;
}

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * 0x9e3779b97f4a7c15ULL;
    return hash ^ hash >> 32;
}

uint64_t disk_image_origin(const struct disk_image *image, bool is_top_frozen)
{
    uint64_t hash = 0;
    for (size_t i = 0; i < image->n_fds; i++) {
        struct stat st = {0};
        if (fstat(image->fds[i], &st) < 0)
            continue; /* it says nothing, and reads will fail */
        hash = mix(mix(mix(hash, st.st_dev), st.st_ino), st.st_rdev);
        if (i == 0 && !is_top_frozen)
            continue;
        hash = mix(hash, (uint64_t)st.st_size);
        hash = mix(mix(hash, (uint64_t)st.st_mtim.tv_sec), (uint64_t)st.st_mtim.tv_nsec);
    }
    return hash;
}

static struct qcow_flat *get_flat(struct disk_image *image)
{
    mutex_lock(&image->lock);
    struct qcow_flat *flat = image->flat;
    mutex_unlock(&image->lock);
    return flat;
}

/*
 * Several may walk at the same time, and the first to be done is the one for all: holes of a raw
 * layer may come and go, and who reads one instant must not find two files in it.
 */
int disk_image_flatten(struct disk_image *image, bool (*is_cancelled)(void *ctx), void *ctx,
                       const struct qcow_flat **ret_flat, struct error *err)
{
    *ret_flat = get_flat(image);
    if (*ret_flat)
        return 0;
    struct qcow_flat_options options = {.is_cancelled = is_cancelled, .ctx = ctx};
    struct qcow_flat *flat;
    int r = qcow_flat_open(image->qcow, &options, &flat, err);
    if (r < 0)
        return r;
    mutex_lock(&image->lock);
    if (!image->flat)
        image->flat = take_ptr(flat);
    *ret_flat = image->flat;
    mutex_unlock(&image->lock);
    qcow_flat_close(flat);
    return 0;
}
