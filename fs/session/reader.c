/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An open file: reads go straight to the image. Whether they still may is asked before and after
 * each, under the reader's own lock, so that no byte read after the end of an instant gets out.
 */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "fs/session/chain.h"
#include "fs/session/registry_internal.h"
#include "qcow/base/bytes.h"
#include "qcow/base/cleanup.h"

static void destroy(struct reader *reader)
{
    if (!reader)
        return;
    disk_image_unref(reader->owned);
    mutex_fini(&reader->lock);
    free(reader->target);
    free(reader->snapshot);
    free(reader->image_name);
    free(reader);
}

static struct reader *create(struct registry *registry, struct slot *slot, const char *target,
                             pid_t pid)
{
    struct reader *reader = calloc(1, sizeof(*reader));
    if (!reader)
        return NULL;
    mutex_init(&reader->lock);
    reader->registry = registry;
    reader->slot = slot;
    reader->pid = pid;
    reader->opened_ns = monotonic_ns();
    reader->target = strdup(target);
    if (reader->target)
        return reader;
    destroy(reader);
    return NULL;
}

static void set_image(struct reader *reader, struct disk_image *image)
{
    mutex_lock(&reader->lock);
    reader->image = image;
    mutex_unlock(&reader->lock);
}

struct reader *reader_create_locked(struct session *session, size_t disk_idx, pid_t pid)
{
    struct reader *reader = create(session->registry, session->slot,
                                   session->instant.domain->disks[disk_idx].target, pid);
    if (!reader)
        return NULL;
    reader->session = session;
    reader->attr = session->disks[disk_idx].attr;
    atomic_store(&reader->size, reader->attr.guest_size);
    reader->id = ++session->registry->last_reader;
    set_image(reader, session->instant.images[disk_idx]);
    LIST_INSERT_HEAD(&session->readers, reader, link);
    return reader;
}

void reader_end(struct reader *reader, const struct error *end)
{
    mutex_lock(&reader->lock);
    reader->image = NULL;
    reader->end = *end;
    mutex_unlock(&reader->lock);
}

static int open_internal(struct registry *registry, const struct open_request *request,
                         struct reader *reader, struct error *err)
{
    struct disk disk = chain_skip_overlays(request->disk);
    struct disk_image_request image_request = {
        .host = registry->config.host,
        .disk = &disk,
        .snapshot = &request->snapshot->internal,
        .cache = registry->config.cache,
        /* The guest may run, or be started: the snapshot's clusters stay what they are. */
        .top_hold = QEMULOCK_VISIBLE,
    };
    return disk_image_open(&image_request, &reader->owned, err);
}

/* The present chain of the disk, and the depth at which the snapshot's frozen layer rests in it. */
static int find_frozen(struct registry *registry, const struct open_request *request,
                       struct chain *ret_chain, size_t *ret_depth, struct error *err)
{
    const struct frozen_disk *frozen =
        snapshot_find_frozen(&request->snapshot->external, request->domain, request->disk->target);
    int r = chain_read(registry->config.host, request->disk, ret_chain);
    if (r < 0)
        return error_set(err, r, "cannot follow the chain of disk '%s': %s", request->disk->target,
                         strerrordesc_np(-r));
    *ret_depth = frozen ? chain_find_frozen(ret_chain, frozen) : 0;
    if (*ret_depth > 0)
        return 0;
    chain_fini(ret_chain);
    return error_set(err, -ESTALE, "the layer that the snapshot froze is no longer in the chain");
}

/*
 * All layers are held so that nobody writes to them, and only then is the chain looked at a second
 * time: a commit that ended before that has changed it, and no other can begin.
 */
static int open_external(struct registry *registry, const struct open_request *request,
                         struct reader *reader, struct error *err)
{
    struct chain chain, held_chain;
    size_t depth, held_depth;
    int r = find_frozen(registry, request, &chain, &depth, err);
    if (r < 0)
        return r;
    struct disk disk;
    r = chain_make_disk(&chain, request->disk, depth, &disk);
    chain_fini(&chain);
    if (r < 0)
        return error_set(err, r, "out of memory");
    struct disk_image_request image_request = {
        .host = registry->config.host,
        .disk = &disk,
        .cache = registry->config.cache,
        .top_hold = QEMULOCK_NO_WRITERS,
    };
    r = disk_image_open(&image_request, &reader->owned, err);
    chain_fini_disk(&disk);
    if (r == 0)
        r = find_frozen(registry, request, &held_chain, &held_depth, err);
    if (r < 0)
        return r;
    chain_fini(&held_chain);
    return 0;
}

static int open_named_image(struct registry *registry, const struct open_request *request,
                            struct reader *reader, struct error *err)
{
    reader->snapshot = strdup(snapshot_name(request->snapshot));
    if (!reader->snapshot)
        return error_set(err, -ENOMEM, "out of memory");
    int r = request->snapshot->kind == SNAPSHOT_INTERNAL
                ? open_internal(registry, request, reader, err)
                : open_external(registry, request, reader, err);
    if (r < 0)
        return r;
    if (qcow_size(disk_image_qcow(reader->owned)) != request->shown.guest_size)
        return error_set(err, -ESTALE, "the snapshot has changed its size meanwhile");
    reader->attr = request->shown;
    bool is_frozen = request->snapshot->kind == SNAPSHOT_EXTERNAL;
    reader->origin = disk_image_origin(reader->owned, is_frozen);
    atomic_store(&reader->size, reader->attr.guest_size);
    set_image(reader, reader->owned);
    return 0;
}

static struct slot *admit_named(struct registry *registry, const char *domain_id, struct error *err)
    EXCLUDES(registry_role)
{
    registry_lock(registry);
    bool is_shut = registry->is_shut;
    struct slot *slot = is_shut ? NULL : slot_get_locked(registry, domain_id);
    registry_unlock(registry);
    if (is_shut)
        error_set(err, -ESHUTDOWN, "the file system is being unmounted");
    else if (!slot)
        error_set(err, -ENOMEM, "out of memory");
    return slot;
}

/* Shows the reader to `status` and to registry_shutdown(). */
static int enlist_named(struct reader *reader, struct error *err) EXCLUDES(registry_role)
{
    registry_lock(reader->registry);
    bool is_shut = reader->registry->is_shut;
    reader->id = ++reader->registry->last_reader;
    if (!is_shut)
        LIST_INSERT_HEAD(&reader->slot->named, reader, link);
    registry_unlock(reader->registry);
    return is_shut ? error_set(err, -ESHUTDOWN, "the file system is being unmounted") : 0;
}

static int open_named(struct registry *registry, const struct open_request *request,
                      struct reader **ret_reader, struct error *err)
{
    struct slot *slot = admit_named(registry, request->domain->id, err);
    if (!slot)
        return err->code;
    struct reader *reader = create(registry, slot, request->disk->target, request->pid);
    if (!reader)
        return error_set(err, -ENOMEM, "out of memory");
    int r = open_named_image(registry, request, reader, err);
    if (r == 0)
        r = enlist_named(reader, err);
    if (r < 0) {
        destroy(reader);
        return r;
    }
    *ret_reader = reader;
    return 0;
}

void reader_open_named(struct registry *registry, const struct open_request *request)
{
    struct error err = {0};
    struct reader *reader = NULL;
    int r = open_named(registry, request, &reader, &err);
    request->done(request->ctx, r, reader, &err);
}

static int is_over(struct reader *reader, struct error *err) EXCLUDES(reader->lock)
{
    mutex_lock(&reader->lock);
    int code = reader->end.code;
    if (code < 0)
        error_set(err, code, "%s", reader->end.text);
    mutex_unlock(&reader->lock);
    return code;
}

/* A reference to the image for one call, so that it can end meanwhile. */
static int begin(struct reader *reader, struct disk_image **ret_image, struct error *err)
{
    mutex_lock(&reader->lock);
    struct disk_image *image = reader->image ? disk_image_ref(reader->image) : NULL;
    mutex_unlock(&reader->lock);
    if (!image)
        return is_over(reader, err);
    *ret_image = image;
    return 0;
}

/* Who may stop a walk: the asker, and the end of the instant. */
struct flattening {
    struct reader *reader;
    bool (*is_cancelled)(void *ctx);
    void *ctx;
};

static bool is_flattening_over(void *arg)
{
    const struct flattening *flattening = arg;
    return (flattening->is_cancelled && flattening->is_cancelled(flattening->ctx)) ||
           is_over(flattening->reader, NULL) < 0;
}

int reader_flatten(struct reader *reader, bool (*is_cancelled)(void *ctx), void *ctx,
                   struct error *err)
{
    struct disk_image *image = NULL;
    int r = begin(reader, &image, err);
    if (r < 0)
        return r;
    struct flattening flattening = {reader, is_cancelled, ctx};
    const struct qcow_flat *flat;
    r = disk_image_flatten(image, is_flattening_over, &flattening, &flat, err);
    if (r == 0) {
        reader->is_flat = true;
        reader->flat_size = qcow_flat_size(flat);
        reader->flat_layout = qcow_flat_layout(flat);
        atomic_store(&reader->size, reader->flat_size);
    }
    disk_image_unref(image);
    int over = is_over(reader, err);
    return over < 0 ? over : r;
}

void reader_note_upload(struct reader *reader, unsigned id, const char *image_name)
{
    char *copy = strdup(image_name);
    registry_lock(reader->registry);
    if (copy && !reader->upload) {
        reader->upload = id;
        reader->image_name = take_ptr(copy);
    }
    registry_unlock(reader->registry);
    free(copy);
}

uint64_t reader_size(const struct reader *reader)
{
    return reader->is_flat ? reader->flat_size : reader->attr.guest_size;
}

uint64_t reader_layout(const struct reader *reader)
{
    return reader->flat_layout ^ reader->origin;
}

uint64_t reader_max_flat_size(uint64_t guest_size)
{
    return qcow_flat_max_size(guest_size);
}

static ssize_t read_flat(struct disk_image *image, uint64_t off, void *buf, size_t len,
                         struct qcow_parts *parts, struct error *err)
{
    const struct qcow_flat *flat;
    int r = disk_image_flatten(image, NULL, NULL, &flat, err); /* it is there */
    if (r < 0)
        return r;
    ssize_t n = qcow_flat_read(flat, off, buf, len, err);
    if (parts && n >= 0)
        *parts = (struct qcow_parts){.iov = {{.iov_base = buf, .iov_len = (size_t)n}}, .n = 1};
    return n;
}

static ssize_t read_disk(struct disk_image *image, uint64_t off, void *buf, size_t len,
                         struct qcow_parts *parts, struct error *err)
{
    struct qcow_image *qcow = disk_image_qcow(image);
    return parts ? qcow_read_parts(qcow, off, buf, len, parts, err)
                 : qcow_read(qcow, off, buf, len, err);
}

/* Reads of one file may come at once and in any order. */
static void note_position(struct reader *reader, uint64_t end)
{
    uint64_t known = atomic_load_explicit(&reader->position, memory_order_relaxed);
    while (known < end &&
           !atomic_compare_exchange_weak_explicit(&reader->position, &known, end,
                                                  memory_order_relaxed, memory_order_relaxed)) {
    }
}

/* @parts may be NULL: then all bytes are wanted in @buf. */
static ssize_t read_parts(struct reader *reader, uint64_t off, void *buf, size_t len,
                          struct qcow_parts *parts, struct error *err)
{
    struct disk_image *image = NULL;
    int r = begin(reader, &image, err);
    if (r < 0)
        return r;
    ssize_t n = reader->is_flat ? read_flat(image, off, buf, len, parts, err)
                                : read_disk(image, off, buf, len, parts, err);
    disk_image_unref(image);
    if (n > 0) {
        note_position(reader, off + (uint64_t)n);
        atomic_fetch_add_explicit(&reader->n_read, (uint64_t)n, memory_order_relaxed);
    }
    r = is_over(reader, err);
    return r < 0 ? r : n;
}

ssize_t reader_read(struct reader *reader, uint64_t off, void *buf, size_t len, struct error *err)
{
    return read_parts(reader, off, buf, len, NULL, err);
}

ssize_t reader_read_parts(struct reader *reader, uint64_t off, void *buf, size_t len,
                          struct qcow_parts *ret_parts, struct error *err)
{
    return read_parts(reader, off, buf, len, ret_parts, err);
}

/* What a seek looks for, and who may stop it. */
struct seek {
    struct reader *reader;
    struct qcow_image *image;
    int whence;
    bool (*is_cancelled)(void *ctx);
    void *ctx;
};

/* One extent further; 1 if it is what was looked for. Zeros count as holes: nothing is lost. */
static int seek_step(const struct seek *seek, uint64_t guest_off, uint64_t *ret_len,
                     struct error *err)
{
    struct qcow_extent extent;
    int r = qcow_map(seek->image, guest_off, qcow_size(seek->image) - guest_off, &extent, err);
    if (r == 0)
        r = is_over(seek->reader, err);
    if (r < 0)
        return r;
    if ((extent.kind == QCOW_DATA) == (seek->whence == SEEK_DATA))
        return 1;
    if (seek->is_cancelled && seek->is_cancelled(seek->ctx))
        return error_set(err, -EINTR, "interrupted");
    *ret_len = extent.len;
    return 0;
}

/*
 * A step takes milliseconds. After that many, the image has to account for more of them: one that
 * names one empty table over and over would keep a thread busy for hours.
 */
enum { STEPS_UNCHECKED = 16 };

static int seek_all(const struct seek *seek, uint64_t guest_off, uint64_t *ret_off,
                    struct error *err)
{
    uint64_t guest_size = qcow_size(seek->image);
    for (unsigned n = 0; guest_off < guest_size; n++) {
        uint64_t len = 0;
        int r = n == STEPS_UNCHECKED ? qcow_check_walk(seek->image, err) : 0;
        if (r == 0)
            r = seek_step(seek, guest_off, &len, err);
        if (r < 0)
            return r;
        if (r > 0) {
            *ret_off = guest_off;
            return 0;
        }
        guest_off += len;
    }
    if (seek->whence == SEEK_DATA)
        return error_set(err, -ENXIO, "no data up to the end");
    *ret_off = guest_size;
    return 0;
}

static int seek_disk(const struct seek *seek, uint64_t off, uint64_t *ret_off, struct error *err)
{
    struct seek how = *seek;
    struct disk_image *image = NULL;
    int r = begin(seek->reader, &image, err);
    if (r < 0)
        return r;
    how.image = disk_image_qcow(image);
    r = seek_all(&how, off, ret_off, err);
    disk_image_unref(image);
    return r;
}

int reader_seek(struct reader *reader, uint64_t off, int whence, bool (*is_cancelled)(void *ctx),
                void *ctx, uint64_t *ret_off, struct error *err)
{
    if (whence != SEEK_DATA && whence != SEEK_HOLE)
        return error_set(err, -EINVAL, "seek of unknown kind %d", whence);
    int r = is_over(reader, err);
    if (r < 0)
        return r;
    if (off >= reader_size(reader))
        return error_set(err, -ENXIO, "offset %#llx is past the end", (unsigned long long)off);
    if (!reader->is_flat) {
        struct seek seek = {
            .reader = reader, .whence = whence, .is_cancelled = is_cancelled, .ctx = ctx};
        return seek_disk(&seek, off, ret_off, err);
    }
    *ret_off = whence == SEEK_DATA ? off : reader_size(reader);
    return 0;
}

void reader_attr(const struct reader *reader, struct session_attr *ret_attr)
{
    *ret_attr = reader->attr;
}

void reader_close(struct reader *reader)
{
    if (!reader)
        return;
    struct registry *registry = reader->registry;
    struct session *session = reader->session;
    bool is_last = false;
    registry_lock(registry);
    LIST_REMOVE(reader, link);
    if (session) {
        session_leave_locked(session);
        is_last = session_unref_locked(session);
    }
    registry_unlock(registry);
    if (is_last)
        session_free(session);
    destroy(reader);
}
