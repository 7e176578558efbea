/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * live=overlay: the running guest goes on writing into an overlay while the frozen layer below it
 * is read; at the end the overlay is merged back. One disk only, for now.
 */
#include <errno.h>
#include <stdlib.h>

#include "fs/session/method.h"
#include "qcow/base/cleanup.h"

/* The one disk that can be served, or NULL if there are none or several. */
static const struct disk *only_disk(const struct domain *domain)
{
    const struct disk *only = NULL;
    for (size_t i = 0; i < domain->n_disks; i++) {
        if (domain->disks[i].unsupported)
            continue;
        if (only)
            return NULL;
        only = &domain->disks[i];
    }
    return only;
}

static int overlay_can(struct host *host, const struct domain *domain, struct error *err)
{
    if (!host->ops->snapshot_take || !host->ops->snapshot_merge)
        return error_set(err, -EOPNOTSUPP, "live=overlay does not work with this kind of source");
    if (domain->state == DOMAIN_SHUTOFF)
        return error_set(err, -EBUSY, "domain '%s' is shut off", domain->name);
    /* Restored later, the guest would run on the base while its XML names the overlay. */
    if (domain->has_managed_save)
        return error_set(err, -EOPNOTSUPP, "domain '%s' has a managed-save image", domain->name);
    if (!only_disk(domain))
        return error_set(err, -EOPNOTSUPP,
                         "live=overlay serves domains with exactly one usable disk, '%s' has "
                         "another number",
                         domain->name);
    return 0;
}

static void overlay_forget(struct instant *instant)
{
    struct host_overlay *overlay = instant->private_data;
    instant->private_data = NULL;
    instant->growing = NULL;
    host_overlay_fini(overlay);
    free(overlay);
}

static int overlay_release(struct instant *instant, struct error *err)
{
    struct host *host = instant->host;
    instant_close_images(instant); /* QEMU refuses to commit into a base that we hold */
    if (!instant->private_data)
        return 0;
    int r = host->ops->snapshot_merge(host, instant->domain, instant->private_data, err);
    if (r < 0)
        return r;
    overlay_forget(instant);
    return 0;
}

static int overlay_take(struct instant *instant, struct error *err)
{
    struct host *host = instant->host;
    struct host_overlay *overlay = calloc(1, sizeof(*overlay));
    if (!overlay)
        return error_set(err, -ENOMEM, "out of memory");
    /* Before the call: a change may be noticed once too often by this, but never missed. */
    clock_gettime(CLOCK_REALTIME, &instant->taken);
    int r =
        host->ops->snapshot_take(host, instant->domain, only_disk(instant->domain), overlay, err);
    if (r < 0) {
        free(overlay);
        return r;
    }
    instant->private_data = overlay;
    instant->growing = overlay->overlay;
    instant->consistency = "crash";
    /* The record is the one from before: its top layer is what is frozen now. */
    r = instant_open_images(instant, QEMULOCK_NO_WRITERS, err);
    if (r < 0) {
        struct error undo = {0};
        if (overlay_release(instant, &undo) < 0)
            error_prefix(err, "overlay not merged back (%s)", undo.text);
    }
    return r;
}

const struct method method_overlay = {
    .name = "overlay",
    .can = overlay_can,
    .take = overlay_take,
    .release = overlay_release,
    .forget = overlay_forget,
};
