/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * live=managedsave: the guest is saved to disk, an internal snapshot is made of the domain that is
 * off then, and the guest is started again from its saved memory, which notices nothing but a
 * wall clock that has moved on.
 */
#include <errno.h>
#include <string.h>

#include "fs/host/fault.h"
#include "fs/host/methods.h"
#include "fs/host/power.h"
#include "fs/host/snapshot.h"
#include "fs/host/snapshot_xml.h"
#include "fs/log.h"

static int refuse_managed_save(const char *name, struct error *err)
{
    return error_set(err, -EOPNOTSUPP, "domain '%s' has a managed-save image", name);
}

static int refuse_transient(const char *name, struct error *err)
{
    return error_set(err, -EOPNOTSUPP, "domain '%s' is transient, so it cannot be saved", name);
}

static int managedsave_can(const struct host *host, const struct domain *domain, struct error *err)
{
    (void)host;
    if (domain->state == DOMAIN_SHUTOFF)
        return error_set(err, -EBUSY, "domain '%s' is shut off", domain->name);
    if (!domain->is_persistent)
        return refuse_transient(domain->name, err);
    if (domain->has_managed_save)
        return refuse_managed_save(domain->name, err);
    return snapshot_can(domain, err);
}

/* ---- plan ---- */

static int check_domain(const struct live *live, struct error *err)
{
    int is_persistent = virDomainIsPersistent(live->dom);
    int has_managed_save = virDomainHasManagedSaveImage(live->dom, 0);
    if (is_persistent < 0 || has_managed_save < 0)
        return fault_set(err, "cannot read domain '%s'", live->name);
    if (!is_persistent)
        return refuse_transient(live->name, err);
    if (has_managed_save)
        return refuse_managed_save(live->name, err);
    return power_check_steady(live, err);
}

/* libvirt refuses to save while one is under way. */
static int check_block_jobs(const struct live *live, const struct view *view, struct error *err)
{
    for (size_t i = 0; i < view->n_disks; i++) {
        int r = live_check_block_job(live, view->disks[i].target, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* The snapshot is taken from the definition, the instant is of what runs. */
static int compare_disks(const struct live *live, const struct view *running,
                         const struct change *change, struct error *err)
{
    char **targets = NULL;
    size_t n = 0;
    int r = snapshot_xml_targets(running->xml, &targets, &n, err);
    if (r < 0)
        return r;
    bool is_same = n == change->n_disks;
    for (size_t i = 0; i < n && is_same; i++) {
        const struct change_disk *defined = change_find_disk(change, targets[i]);
        const struct disk *disk = view_find_disk(running, targets[i]);
        is_same = defined && disk && disk->n_layers > 0 &&
                  strcmp(disk->layers[0].path, defined->base) == 0;
    }
    snapshot_xml_free_targets(targets, n);
    if (is_same)
        return 0;
    return error_set(err, -EOPNOTSUPP,
                     "domain '%s' runs with other disks than its persistent definition has",
                     live->name);
}

static int plan_disks(const struct live *live, struct change *change, struct error *err)
{
    auto_view struct view running = {0};
    auto_view struct view defined = {0};
    int r = view_read(live, 0, &running, err);
    if (r == 0)
        r = check_block_jobs(live, &running, err);
    if (r == 0)
        r = snapshot_xml_check_save(running.xml, err);
    if (r == -EOPNOTSUPP)
        error_prefix(err, "domain '%s'", live->name);
    if (r == 0)
        r = view_read(live, VIR_DOMAIN_XML_INACTIVE, &defined, err);
    if (r == 0)
        r = snapshot_plan(live, &defined, change, err);
    return r < 0 ? r : compare_disks(live, &running, change, err);
}

static int managedsave_plan(struct host *host, const struct domain *domain, struct change *change,
                            struct error *err)
{
    (void)domain;
    auto_live struct live live = live_of(host, change);
    struct power power;
    int r = live_attach(&live, err);
    if (r == 0)
        r = check_domain(&live, err);
    if (r == 0)
        r = plan_disks(&live, change, err);
    if (r == 0)
        r = power_read(&live, &power, err);
    if (r != 0)
        return r;
    change->is_persistent = true;
    change->was_paused = power.is_paused;
    return 0;
}

/* ---- make ---- */

/* The guest runs, or rests, as before. The note is what keeps undo from starting it again. */
static int end_halt(struct change *change, const struct change_steps *steps, struct error *err)
{
    change->is_halted = false;
    return steps->note(steps->ctx, change, err);
}

/* Outside of this the guest is on; inside, a failure must not keep it from being started. */
static int take_snapshot(struct live *live, struct change *change, const struct change_steps *steps,
                         struct error *err)
{
    struct error why = {0};
    int r = steps->enter(steps->ctx, change, err);
    if (r < 0)
        return r;
    r = power_save(live, steps, err);
    if (r == 0)
        r = snapshot_make(live, change, err);
    int restored = power_restore(live, change, &why);
    /* After the start, since a guest that was saved frozen is frozen still. */
    steps->leave(steps->ctx, change);
    if (restored < 0) {
        if (r < 0)
            log_debug("%s", err->text);
        *err = why;
        return restored;
    }
    int noted = end_halt(change, steps, &why);
    if (r == 0 && noted < 0)
        *err = why;
    return r < 0 ? r : noted;
}

static int managedsave_make(struct host *host, struct change *change,
                            const struct change_steps *steps, struct error *err)
{
    auto_live struct live live = live_of(host, change);
    struct power power;
    int r = live_attach(&live, err);
    if (r == 0)
        r = check_domain(&live, err);
    if (r == 0)
        r = power_read(&live, &power, err);
    if (r != 0)
        return r;
    change->was_paused = power.is_paused;
    change->is_halted = true;
    r = steps->note(steps->ctx, change, err);
    if (r == 0)
        r = take_snapshot(&live, change, steps, err);
    live_refresh_record(&live);
    return r;
}

/* ---- undo ---- */

static int managedsave_undo(struct host *host, struct change *change,
                            const struct change_steps *steps, struct error *err)
{
    auto_live struct live live = live_of(host, change);
    live.steps = steps;
    if (change->is_halted) {
        int r = power_restore(&live, change, err);
        if (r == 0)
            r = end_halt(change, steps, err);
        if (r < 0 && r != -ESTALE) /* a domain that is gone can still have its images */
            return r;
    }
    return snapshot_remove(&live, change, err);
}

const struct host_method host_method_managedsave = {
    .method = CHANGE_MANAGEDSAVE,
    .can = managedsave_can,
    .plan = managedsave_plan,
    .make = managedsave_make,
    .undo = managedsave_undo,
};
