/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/snapshot.h"

#include <errno.h>
#include <libvirt/virterror.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "fs/host/fault.h"
#include "fs/host/file.h"
#include "fs/host/power.h"
#include "fs/host/qemu_img.h"
#include "fs/host/snapshot_xml.h"
#include "qcow/base/cleanup.h"

static inline void cleanup_snapshot(virDomainSnapshotPtr *snapshot)
{
    if (*snapshot)
        virDomainSnapshotFree(*snapshot);
}
#define auto_snapshot __attribute__((cleanup(cleanup_snapshot)))

enum {
    CUTS_MAX = 3,  /* lost connections that one removal survives */
    READS_MAX = 3, /* of an image's header: a running guest's may be read while QEMU writes it */
    REREAD_MS = 100,
};

/* ---- plan ---- */

static int check_format(const char *name, const struct disk *disk, struct error *err)
{
    if (disk->unsupported)
        return error_set(err, -EOPNOTSUPP,
                         "disk '%s' of domain '%s' keeps it from internal snapshots: %s",
                         disk->target, name, disk->unsupported);
    if (disk->layers[0].format != QCOW_FORMAT_QCOW2)
        return error_set(err, -EOPNOTSUPP,
                         "disk '%s' of domain '%s' is %s, internal snapshots need qcow2",
                         disk->target, name, qcow_format_name(disk->layers[0].format));
    return 0;
}

/* A raw disk may be read-only, which the record does not show; one qcow2 disk there has to be. */
int snapshot_can(const struct domain *domain, struct error *err)
{
    struct error why = {0};
    for (size_t i = 0; i < domain->n_disks; i++)
        if (check_format(domain->name, &domain->disks[i], &why) == 0)
            return 0;
    if (why.code == 0)
        return error_set(err, -EOPNOTSUPP, "domain '%s' has no disk", domain->name);
    *err = why;
    return why.code;
}

static int plan_disk(const struct live *live, const struct view *view, const char *target,
                     struct change *change, struct error *err)
{
    const struct disk *disk = view_find_disk(view, target);
    if (!disk) /* a floppy: libvirt would want a snapshot of it too */
        return error_set(err, -EOPNOTSUPP,
                         "drive '%s' of domain '%s' keeps it from internal snapshots", target,
                         live->name);
    int r = check_format(live->name, disk, err);
    if (r < 0)
        return r;
    const struct disk_layer *top = &disk->layers[0];
    if (change_is_layer(top->path))
        return error_set(err, -EBUSY,
                         "disk '%s' of domain '%s' is still on an overlay of virtsnapfs, '%s'",
                         target, live->name, top->path);
    return change_add_disk(change, target, top->path, top->format, NULL, err);
}

int snapshot_plan(const struct live *live, const struct view *view, struct change *change,
                  struct error *err)
{
    char **targets = NULL;
    size_t n = 0;
    int r = snapshot_xml_check(view->xml, err);
    if (r == -EOPNOTSUPP)
        error_prefix(err, "domain '%s'", live->name);
    if (r == 0)
        r = snapshot_xml_targets(view->xml, &targets, &n, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < n && r == 0; i++)
        r = plan_disk(live, view, targets[i], change, err);
    snapshot_xml_free_targets(targets, n);
    if (r == 0 && n == 0)
        r = error_set(err, -EOPNOTSUPP, "domain '%s' has no disk that can be written", live->name);
    return r;
}

/* ---- make ---- */

/* 1 and the snapshot if libvirt knows it, 0 if not. */
static int look_up(const struct live *live, const char *mark, virDomainSnapshotPtr *ret_snapshot,
                   struct error *err)
{
    *ret_snapshot = virDomainSnapshotLookupByName(live->dom, mark, 0);
    if (*ret_snapshot)
        return 1;
    if (virGetLastErrorCode() == VIR_ERR_NO_DOMAIN_SNAPSHOT)
        return 0;
    return fault_set(err, "cannot look up snapshot '%s' of domain '%s'", mark, live->name);
}

/* libvirt notes a snapshot after it was made in all images. */
static int settle_make(struct live *live, const struct change *change, struct error *err)
{
    auto_snapshot virDomainSnapshotPtr snapshot = NULL;
    struct error why = {0};
    live_detach(live);
    live_renew_deadline(live);
    int r = live_attach(live, &why);
    if (r == 0)
        r = look_up(live, change->mark, &snapshot, &why);
    return r > 0 ? 0 : (err->code = -EIO);
}

int snapshot_make(struct live *live, const struct change *change, struct error *err)
{
    auto_free char *xml = NULL;
    int r = snapshot_xml_build(change, NULL, &xml, err);
    if (r < 0)
        return r;
    auto_snapshot virDomainSnapshotPtr snapshot = virDomainSnapshotCreateXML(live->dom, xml, 0);
    if (snapshot)
        return 0;
    bool is_locked = strstr(virGetLastErrorMessage(), "\" lock") != NULL;
    r = fault_set(err, "cannot make an internal snapshot of domain '%s'", live->name);
    if (live_is_cut(live))
        return settle_make(live, change, err);
    if (is_locked) /* somebody else reads an image and keeps writers away */
        r = err->code = -EBUSY;
    return r;
}

/* ---- remove ---- */

static int inspect(const char *path, int fd, struct qcow_info *ret_info, struct error *err)
{
    struct qcow_file file = {.fd = fd, .format = QCOW_FORMAT_QCOW2, .name = (char *)path};
    int r = qcow_inspect(&file, ret_info, err);
    for (unsigned n_reads = 1; r == -EBADMSG && n_reads < READS_MAX; n_reads++) {
        nanosleep(&(struct timespec){.tv_nsec = REREAD_MS * 1000000L}, NULL);
        r = qcow_inspect(&file, ret_info, err);
    }
    return r;
}

/* 1 if the image has the snapshot, 0 if not or if there is no such file any more. */
static int has_snapshot(const char *path, const char *mark, struct error *err)
{
    struct qcow_info info = {0};
    struct stat st;
    auto_close int fd = file_open_image(path, NULL, 0, err);
    if (fd == -EIO && stat(path, &st) < 0 && errno == ENOENT)
        return 0;
    if (fd < 0)
        return fd;
    int r = inspect(path, fd, &info, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < info.n_snapshots && r == 0; i++)
        r = strcmp(info.snapshots[i].name, mark) == 0;
    qcow_info_fini(&info);
    return r;
}

/* 0, or 1 and the first image that still has it. */
static int find_holder(const struct change *change, const char **ret_path, struct error *err)
{
    for (size_t i = 0; i < change->n_disks; i++) {
        int r = has_snapshot(change->disks[i].base, change->mark, err);
        if (r != 0) {
            *ret_path = change->disks[i].base;
            return r;
        }
    }
    return 0;
}

/*
 * Tells libvirt of the snapshot as one of those disks that the domain has now: for one that died
 * after it had made the snapshot in an image and before it noted that, so that it can delete it.
 * (Deleting passes by images that have none.)
 */
static int make_known(const struct live *live, const struct view *view, const struct change *change,
                      virDomainSnapshotPtr *ret_snapshot, struct error *err)
{
    auto_free char *xml = NULL;
    auto_free struct change_disk *disks = calloc(change->n_disks + 1, sizeof(*disks));
    if (!disks)
        return error_set(err, -ENOMEM, "out of memory");
    struct change present = *change; /* borrows all but the list */
    present.disks = disks;
    present.n_disks = 0;
    for (size_t i = 0; i < change->n_disks; i++)
        if (view_find_disk(view, change->disks[i].target))
            disks[present.n_disks++] = change->disks[i];
    int r = snapshot_xml_build(&present, view->xml, &xml, err);
    if (r < 0)
        return r;
    *ret_snapshot = virDomainSnapshotCreateXML(live->dom, xml, VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE);
    if (*ret_snapshot)
        return 0;
    return fault_set(err, "cannot tell libvirt of snapshot '%s' of domain '%s'", change->mark,
                     live->name);
}

static bool has_all_disks(const struct view *view, const struct change *change)
{
    for (size_t i = 0; i < change->n_disks; i++)
        if (!view_find_disk(view, change->disks[i].target))
            return false;
    return true;
}

/*
 * The snapshot as libvirt can delete it. libvirtd 9.0 dies (a null pointer) when it is told to
 * delete one of a disk that was detached meanwhile; it is made to forget of that.
 */
static int make_deletable(const struct live *live, const struct change *change,
                          virDomainSnapshotPtr *snapshot, struct error *err)
{
    auto_view struct view view = {0};
    int r = view_read(live, 0, &view, err);
    if (r < 0 || (*snapshot && has_all_disks(&view, change)))
        return r;
    if (*snapshot &&
        virDomainSnapshotDelete(*snapshot, VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY) < 0)
        return fault_set(err, "cannot delete the record of snapshot '%s' of domain '%s'",
                         change->mark, live->name);
    cleanup_snapshot(snapshot);
    *snapshot = NULL;
    return make_known(live, &view, change, snapshot, err);
}

/* From the images of disks that the domain has no more: they rest, or somebody else has them. */
static int delete_detached(const struct live *live, const struct change *change, struct error *err)
{
    auto_view struct view view = {0};
    int r = view_read(live, 0, &view, err);
    for (size_t i = 0; i < change->n_disks && r >= 0; i++) {
        const char *path = change->disks[i].base;
        if (view_find_disk(&view, change->disks[i].target) || view_names_file(&view, path))
            continue;
        r = has_snapshot(path, change->mark, err);
        if (r > 0)
            r = qemu_img_delete_snapshot(path, change->mark, err);
    }
    return r < 0 ? r : 0;
}

static int delete_known(const struct live *live, const struct change *change,
                        virDomainSnapshotPtr snapshot, struct error *err)
{
    if (virDomainSnapshotDelete(snapshot, 0) == 0)
        return 0;
    int code = virGetLastErrorCode();
    int r = fault_set(err,
                      "cannot delete snapshot '%s' of domain '%s'; to do so: virsh "
                      "snapshot-delete %s %s",
                      change->mark, live->name, live->name, change->mark);
    /* Somebody's own snapshot or job lies over it, and goes some day. */
    bool may_pass = code == VIR_ERR_OPERATION_UNSUPPORTED || code == VIR_ERR_BLOCK_COPY_ACTIVE ||
                    r == -EBUSY || r == -ETIMEDOUT;
    if (may_pass)
        r = err->code = -EAGAIN;
    return r;
}

/* For a domain that libvirt has forgotten. */
static int check_gone(const struct change *change, struct error *err)
{
    const char *path = NULL;
    int r = find_holder(change, &path, err);
    if (r <= 0)
        return r;
    return error_set(err, -ESTALE,
                     "domain '%s' is gone, but image '%s' still has snapshot '%s'; to delete it: "
                     "qemu-img snapshot -d %s %s",
                     change->domain_name, path, change->mark, change->mark, path);
}

/* One attempt over one connection. */
static int remove_once(struct live *live, const struct change *change, struct error *err)
{
    auto_snapshot virDomainSnapshotPtr snapshot = NULL;
    const char *path = NULL;
    int r = live_attach(live, err);
    if (r == 0)
        r = power_settle(live, err);
    if (r < 0)
        return r;
    power_wait_call(live, change);
    r = look_up(live, change->mark, &snapshot, err);
    if (r == 0) {
        r = find_holder(change, &path, err);
        if (r <= 0)
            return r;
    }
    if (r > 0)
        r = make_deletable(live, change, &snapshot, err);
    if (r >= 0)
        r = delete_known(live, change, snapshot, err);
    if (r == 0)
        r = delete_detached(live, change, err);
    if (r == 0)
        r = find_holder(change, &path, err);
    if (r > 0)
        return error_set(err, -EIO,
                         "image '%s' still has snapshot '%s'; when domain '%s' is off: qemu-img "
                         "snapshot -d %s %s",
                         path, change->mark, live->name, change->mark, path);
    return r;
}

int snapshot_remove(struct live *live, const struct change *change, struct error *err)
{
    int r = 0;
    for (unsigned n_cuts = 0; n_cuts <= CUTS_MAX; n_cuts++) {
        live_renew_deadline(live);
        r = remove_once(live, change, err);
        if (r == 0 || !live_is_cut(live))
            break;
        live_detach(live);
    }
    if (r == -EBUSY) /* a job of somebody else */
        err->code = r = -EAGAIN;
    return r == -ESTALE ? check_gone(change, err) : r;
}
