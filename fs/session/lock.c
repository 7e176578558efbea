/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cold=lock: the images of a domain that is shut off are read as they are; QEMU's own locks make
 * a start fail meanwhile. A refused start keeps a managed-save image, so those domains are fine
 * too.
 */
#include <errno.h>

#include "fs/session/method.h"

static int lock_can(struct host *host, const struct domain *domain, struct error *err)
{
    (void)host;
    if (domain->state != DOMAIN_SHUTOFF)
        return error_set(err, -EBUSY, "domain '%s' is %s", domain->name,
                         domain_state_name(domain->state));
    return 0;
}

static int lock_take(struct instant *instant, struct error *err)
{
    int r = instant_open_images(instant, QEMULOCK_NO_WRITERS, err);
    if (r < 0)
        return r;
    clock_gettime(CLOCK_REALTIME, &instant->taken);
    /* With its memory saved the guest never unmounted: the disk alone is as after a crash. */
    instant->consistency = instant->domain->has_managed_save ? "crash" : "shutdown";
    return 0;
}

static int lock_release(struct instant *instant, struct error *err)
{
    (void)err;
    instant_close_images(instant);
    return 0;
}

const struct method method_lock = {
    .name = "lock",
    .can = lock_can,
    .take = lock_take,
    .release = lock_release,
};
