/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/session/method.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

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

static int open_one(struct instant *instant, size_t disk_idx, enum qemulock_hold top_hold)
{
    const struct disk *disk = &instant->domain->disks[disk_idx];
    struct disk_image_request request = {
        .host = instant->host,
        .disk = disk,
        .cache = instant->cache,
        .top_hold = top_hold,
    };
    struct error *failure = &instant->failures[disk_idx];
    int r = disk_image_open(&request, &instant->images[disk_idx], failure);
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

static int open_all(struct instant *instant, enum qemulock_hold top_hold, struct error *err)
{
    int r = allocate(instant, err);
    if (r < 0)
        return r;
    bool has_image = false;
    for (size_t i = 0; i < instant->domain->n_disks; i++) {
        r = open_one(instant, i, top_hold);
        has_image = has_image || r == 0;
        if (r == -EBUSY || r == -ENOMEM)
            return error_set(err, r, "%s", instant->failures[i].text);
    }
    if (has_image)
        return 0;
    const struct error *first = first_failure(instant);
    return error_set(err, first->code, "%s", first->text);
}

int instant_open_images(struct instant *instant, enum qemulock_hold top_hold, struct error *err)
{
    int r = open_all(instant, top_hold, err);
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

void instant_fini(struct instant *instant)
{
    instant_close_images(instant);
    free(take_ptr(instant->failures));
    domain_unref(take_ptr(instant->domain));
}
