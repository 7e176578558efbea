/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/overlay.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/host/fault.h"
#include "fs/host/overlay_internal.h"
#include "fs/host/reach.h"
#include "qcow/base/cleanup.h"

/* ---- what has to hold before anything is changed ---- */

static int check_jobs(const struct live *live, const char *target, struct error *err)
{
    virDomainJobInfo job = {0};
    if (virDomainGetJobInfo(live->dom, &job) < 0)
        return fault_set(err, "cannot ask domain '%s' for jobs", live->name);
    if (job.type != VIR_DOMAIN_JOB_NONE)
        return error_set(err, -EBUSY, "domain '%s' has a job running (backup, save or migration)",
                         live->name);
    return live_check_block_job(live, target, err);
}

static int check_domain(const struct live *live, struct error *err)
{
    int is_active = virDomainIsActive(live->dom);
    int has_managed_save = virDomainHasManagedSaveImage(live->dom, 0);
    if (is_active < 0 || has_managed_save < 0)
        return fault_set(err, "cannot read domain '%s'", live->name);
    if (!is_active)
        return error_set(err, -EBUSY, "domain '%s' is not running any more", live->name);
    /* Its next start would take the chain from the save file and leave the overlay aside. */
    if (has_managed_save)
        return error_set(err, -EOPNOTSUPP, "domain '%s' has a managed-save image", live->name);
    return 0;
}

/* libvirt changes the persistent definition along only if it names the same image. */
static int check_definition(const struct live *live, const struct disk *disk, struct error *err)
{
    int is_persistent = virDomainIsPersistent(live->dom);
    if (is_persistent < 0)
        return fault_set(err, "cannot read domain '%s'", live->name);
    if (!is_persistent)
        return 0;
    auto_view struct view view = {0};
    int r = view_read(live, VIR_DOMAIN_XML_INACTIVE, &view, err);
    if (r < 0)
        return r;
    const struct disk *defined = view_find_disk(&view, disk->target);
    if (defined && defined->n_layers && strcmp(defined->layers[0].path, disk->layers[0].path) == 0)
        return 0;
    return error_set(err, -EOPNOTSUPP,
                     "disk '%s' of domain '%s': the persistent definition names another image than "
                     "the running domain",
                     disk->target, live->name);
}

static int check_disk(const struct live *live, const struct disk *disk, struct error *err)
{
    if (disk->unsupported)
        return error_set(err, -EOPNOTSUPP, "disk '%s' of domain '%s': %s", disk->target, live->name,
                         disk->unsupported);
    const char *top = disk->layers[0].path;
    struct stat st;
    if (stat(top, &st) < 0)
        return error_set(err, -EIO, "cannot use '%s': %s", top, strerrordesc_np(errno));
    if (!S_ISREG(st.st_mode) && !(S_ISBLK(st.st_mode) && live->lh->scratch_dir))
        return error_set(err, -EOPNOTSUPP,
                         "'%s' is not a regular file: an overlay needs scratch=DIR then", top);
    if (change_is_layer(top))
        return error_set(err, -EBUSY,
                         "disk '%s' of domain '%s' is still on an overlay of virtsnapfs, '%s'",
                         disk->target, live->name, top);
    return 0;
}

/* ---- plan ---- */

/* A name that no file has. */
static int check_free(const char *path, struct error *err)
{
    struct stat st;
    if (lstat(path, &st) == 0)
        return error_set(err, -EBUSY, "'%s' exists already", path);
    if (errno != ENOENT)
        return error_set(err, -EIO, "cannot put an overlay at '%s': %s", path,
                         strerrordesc_np(errno));
    return 0;
}

int overlay_plan_disk(const struct live *live, const struct disk *disk, struct change *change,
                      struct error *err)
{
    int r = check_disk(live, disk, err);
    if (r < 0)
        return r;
    const struct disk_layer *top = &disk->layers[0];
    auto_free char *path = change_file_path(change, top->path, live->lh->scratch_dir, "overlay");
    if (!path)
        return error_set(err, -ENOMEM, "out of memory");
    r = check_free(path, err);
    return r < 0 ? r : change_add_disk(change, disk->target, top->path, top->format, path, err);
}

/* QEMU opens the overlay as its own user; libvirt sees to the file, but not to the way there. */
static int check_way(const struct view *view, const struct change_disk *disk, struct error *err)
{
    uid_t uid;
    gid_t gid;
    if (!overlay_xml_find_user(view->xml, &uid, &gid))
        return 0;
    return reach_check(disk->file, uid, gid, err);
}

static int plan_disk(const struct live *live, const struct view *view, const char *target,
                     struct change *change, struct error *err)
{
    const struct disk *disk = view_find_disk(view, target);
    bool is_readonly;
    if (!disk)
        return error_set(err, -ESTALE, "domain '%s' has no disk '%s' any more", live->name, target);
    int r = overlay_xml_is_readonly(view->xml, target, &is_readonly, err);
    /* It rests anyway, and libvirt puts no overlay over it. */
    if (r < 0 || is_readonly)
        return r;
    r = overlay_plan_disk(live, disk, change, err);
    if (r == 0)
        r = check_definition(live, disk, err);
    if (r == 0)
        r = check_jobs(live, target, err);
    return r < 0 ? r : check_way(view, change_find_disk(change, target), err);
}

static int overlay_plan(struct host *host, const struct domain *domain, struct change *change,
                        struct error *err)
{
    auto_live struct live live = live_of(host, change);
    auto_view struct view view = {0};
    int r = live_attach(&live, err);
    if (r == 0)
        r = check_domain(&live, err);
    if (r == 0)
        r = view_read(&live, 0, &view, err);
    for (size_t i = 0; r == 0 && i < domain->n_disks; i++)
        if (!domain->disks[i].unsupported)
            r = plan_disk(&live, &view, domain->disks[i].target, change, err);
    if (r == 0 && change->n_disks == 0)
        return error_set(err, -EOPNOTSUPP, "domain '%s' has no disk that it can write to",
                         domain->name);
    return r;
}

/* ---- make ---- */

static bool is_on_overlay(const struct view *view, const struct change_disk *overlay)
{
    const struct disk *disk = view_find_disk(view, overlay->target);
    return disk && disk->n_layers && strcmp(disk->layers[0].path, overlay->file) == 0;
}

/*
 * After the connection died in the middle of the call: libvirtd may have carried it out. What
 * counts is where the disks are now. 0 if they are on their overlays, else @err stays as it is.
 */
static int settle(struct live *live, const struct change *change, struct error *err)
{
    auto_view struct view view = {0};
    struct error why = {0};
    live_detach(live);
    live_renew_deadline(live);
    int r = live_attach(live, &why);
    if (r == 0)
        r = view_read(live, 0, &view, &why);
    if (r < 0) {
        error_prefix(err, "the disks of '%s' may be on overlays (%s)", live->name, why.text);
        return -EIO;
    }
    for (size_t i = 0; i < change->n_disks; i++)
        if (!is_on_overlay(&view, &change->disks[i]))
            return -EIO;
    return 0;
}

static int create_snapshot(struct live *live, const struct change *change, const char *xml,
                           struct error *err)
{
    virDomainSnapshotPtr snapshot = virDomainSnapshotCreateXML(
        live->dom, xml,
        VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY | VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC |
            VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA);
    if (snapshot) {
        virDomainSnapshotFree(snapshot);
        return 0;
    }
    int r = fault_set(err, "cannot put overlay '%s' over disk '%s' of domain '%s'",
                      change->disks[0].file, change->disks[0].target, live->name);
    return live_is_cut(live) ? settle(live, change, err) : r;
}

int overlay_make(struct host *host, struct change *change, const struct change_steps *steps,
                 struct error *err)
{
    auto_live struct live live = live_of(host, change);
    auto_view struct view view = {0};
    auto_free char *xml = NULL;
    int r = live_attach(&live, err);
    if (r == 0)
        r = view_read(&live, 0, &view, err);
    if (r == 0)
        r = overlay_xml_build(view.xml, change, &xml, err);
    if (r == 0)
        r = steps->enter(steps->ctx, change, err);
    if (r < 0)
        return r;
    /* A freeze takes a while, and the call may wait for another one, such as a managed save. */
    bool is_live = change->method == CHANGE_OVERLAY;
    r = is_live ? check_domain(&live, err) : 0;
    if (r == 0)
        r = create_snapshot(&live, change, xml, err);
    if (r == 0 && is_live)
        r = check_domain(&live, err);
    steps->leave(steps->ctx, change);
    if (r == 0)
        r = overlay_check_placed(&live, change, err);
    if (r == 0)
        live_refresh_record(&live);
    return r;
}

static int overlay_can(const struct host *host, const struct domain *domain, struct error *err)
{
    (void)host;
    if (domain->state == DOMAIN_SHUTOFF)
        return error_set(err, -EBUSY, "domain '%s' is shut off", domain->name);
    /* Restored later, the guest would run on the base while its XML names the overlay. */
    if (domain->has_managed_save)
        return error_set(err, -EOPNOTSUPP, "domain '%s' has a managed-save image", domain->name);
    for (size_t i = 0; i < domain->n_disks; i++)
        if (!domain->disks[i].unsupported)
            return 0;
    return error_set(err, -EOPNOTSUPP, "domain '%s' has no disk that an overlay can be put over",
                     domain->name);
}

const struct host_method host_method_overlay = {
    .method = CHANGE_OVERLAY,
    .can = overlay_can,
    .plan = overlay_plan,
    .make = overlay_make,
    .undo = overlay_undo_all,
};
