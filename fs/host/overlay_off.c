/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cold=overlay: overlays over the disks of a domain that is off, so that it can be started while
 * the images below are read. libvirt puts them into the definition and keeps nothing of what it
 * said of those disks' sources but the path, so only disks of which it says no more are taken.
 */
#include <errno.h>

#include "fs/host/define_xml.h"
#include "fs/host/fault.h"
#include "fs/host/overlay.h"
#include "fs/host/overlay_file.h"
#include "fs/host/overlay_internal.h"

static int refuse_saved(const char *name, struct error *err)
{
    /* Its next start would take the chain from the save file and leave the overlay aside. */
    return error_set(err, -EOPNOTSUPP, "domain '%s' has a managed-save image", name);
}

static int cold_can(const struct host *host, const struct domain *domain, struct error *err)
{
    (void)host;
    if (domain->state != DOMAIN_SHUTOFF)
        return error_set(err, -EBUSY, "domain '%s' is running", domain->name);
    if (domain->has_managed_save)
        return refuse_saved(domain->name, err);
    for (size_t i = 0; i < domain->n_disks; i++)
        if (!domain->disks[i].unsupported)
            return 0;
    return error_set(err, -EOPNOTSUPP, "domain '%s' has no disk that an overlay can be put over",
                     domain->name);
}

static int check_domain(const struct live *live, struct error *err)
{
    int is_active = virDomainIsActive(live->dom);
    int has_managed_save = virDomainHasManagedSaveImage(live->dom, 0);
    if (is_active < 0 || has_managed_save < 0)
        return fault_set(err, "cannot read domain '%s'", live->name);
    if (is_active)
        return error_set(err, -EBUSY, "domain '%s' was started meanwhile", live->name);
    return has_managed_save ? refuse_saved(live->name, err) : 0;
}

static int plan_disk(const struct live *live, const struct view *view, const char *target,
                     struct change *change, struct error *err)
{
    const struct disk *disk = view_find_disk(view, target);
    bool is_readonly;
    if (!disk)
        return error_set(err, -ESTALE, "domain '%s' has no disk '%s' any more", live->name, target);
    int r = overlay_xml_is_readonly(view->xml, target, &is_readonly, err);
    if (r < 0 || is_readonly)
        return r;
    r = overlay_plan_disk(live, disk, change, err);
    if (r == 0)
        r = define_xml_check_plain(view->xml, target, err);
    if (r < 0)
        return r;
    const char *top = disk->layers[0].path;
    if (overlay_file_is_written(top))
        return error_set(err, -EBUSY, "'%s' is open for writing in another process", top);
    return 0;
}

static int cold_plan(struct host *host, const struct domain *domain, struct change *change,
                     struct error *err)
{
    auto_live struct live live = live_of(host, change);
    auto_view struct view view = {0};
    int r = live_attach(&live, err);
    if (r == 0)
        r = check_domain(&live, err);
    if (r == 0)
        r = view_read(&live, VIR_DOMAIN_XML_INACTIVE, &view, err);
    for (size_t i = 0; r == 0 && i < domain->n_disks; i++)
        if (!domain->disks[i].unsupported)
            r = plan_disk(&live, &view, domain->disks[i].target, change, err);
    if (r == 0 && change->n_disks == 0)
        return error_set(err, -EOPNOTSUPP, "domain '%s' has no disk that it can write to",
                         domain->name);
    return r;
}

const struct host_method host_method_cold_overlay = {
    .method = CHANGE_COLD_OVERLAY,
    .can = cold_can,
    .plan = cold_plan,
    .make = overlay_make,
    .undo = overlay_undo_all,
};
