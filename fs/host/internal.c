/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cold=internal: an internal snapshot of a domain that is off. It can be started meanwhile, also
 * from saved memory: its disks hold the same bytes as before.
 */
#include <errno.h>

#include "fs/host/fault.h"
#include "fs/host/methods.h"
#include "fs/host/snapshot.h"

static int internal_can(const struct host *host, const struct domain *domain, struct error *err)
{
    (void)host;
    if (domain->state != DOMAIN_SHUTOFF)
        return error_set(err, -EBUSY, "domain '%s' is not shut off", domain->name);
    return snapshot_can(domain, err);
}

static int check_off(const struct live *live, struct error *err)
{
    int is_active = virDomainIsActive(live->dom);
    if (is_active < 0)
        return fault_set(err, "cannot read domain '%s'", live->name);
    if (is_active)
        return error_set(err, -EBUSY, "domain '%s' is running", live->name);
    return 0;
}

static int internal_plan(struct host *host, const struct domain *domain, struct change *change,
                         struct error *err)
{
    (void)domain;
    auto_live struct live live = live_of(host, change);
    auto_view struct view view = {0};
    int r = live_attach(&live, err);
    if (r == 0)
        r = check_off(&live, err);
    if (r == 0)
        r = view_read(&live, VIR_DOMAIN_XML_INACTIVE, &view, err);
    if (r == 0)
        r = snapshot_plan(&live, &view, change, err);
    if (r == 0)
        change->is_persistent = true; /* no other is ever off */
    return r;
}

static int internal_make(struct host *host, struct change *change, const struct change_steps *steps,
                         struct error *err)
{
    auto_live struct live live = live_of(host, change);
    int r = live_attach(&live, err);
    if (r == 0)
        r = steps->enter(steps->ctx, change, err);
    if (r < 0)
        return r;
    struct error why = {0};
    r = check_off(&live, err);
    if (r == 0)
        r = snapshot_make(&live, change, err);
    steps->leave(steps->ctx, change);
    /* libvirt calls it unsupported if the domain was started a moment ago. */
    if (r < 0 && live.dom && check_off(&live, &why) == -EBUSY) {
        *err = why;
        r = -EBUSY;
    }
    return r;
}

static int internal_undo(struct host *host, struct change *change, const struct change_steps *steps,
                         struct error *err)
{
    auto_live struct live live = live_of(host, change);
    live.steps = steps;
    return snapshot_remove(&live, change, err);
}

const struct host_method host_method_internal = {
    .method = CHANGE_INTERNAL,
    .can = internal_can,
    .plan = internal_plan,
    .make = internal_make,
    .undo = internal_undo,
};
