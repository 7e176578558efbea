/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What libvirt says of an overlay. */
#include <errno.h>
#include <libvirt/virterror.h>
#include <stdlib.h>
#include <string.h>

#include "fs/host/define_xml.h"
#include "fs/host/fault.h"
#include "fs/host/overlay_file.h"
#include "fs/host/overlay_internal.h"
#include "qcow/base/cleanup.h"

void overlay_found_fini(struct overlay_found *found)
{
    free(found->target);
    *found = (struct overlay_found){0};
}

static bool is_layer(const struct disk *disk, size_t depth, const char *path)
{
    return depth < disk->n_layers && strcmp(disk->layers[depth].path, path) == 0;
}

/* A definition may say nothing of what is below a disk's source. */
static enum overlay_place judge_disk(const struct disk *disk, const struct change_disk *overlay,
                                     bool may_be_silent)
{
    for (size_t depth = 0; depth < disk->n_layers; depth++) {
        if (!is_layer(disk, depth, overlay->file))
            continue;
        bool is_silent = may_be_silent && depth + 1 == disk->n_layers;
        if (!is_silent && !is_layer(disk, depth + 1, overlay->base))
            return OVERLAY_STRANGE;
        return depth == 0 ? OVERLAY_TOP : OVERLAY_MIDDLE;
    }
    return OVERLAY_NOWHERE;
}

static enum overlay_place find_place(const struct view *view, const struct change_disk *overlay,
                                     bool may_be_silent, const struct disk **ret_disk)
{
    for (size_t i = 0; i < view->n_disks; i++) {
        enum overlay_place place = judge_disk(&view->disks[i], overlay, may_be_silent);
        *ret_disk = &view->disks[i];
        if (place != OVERLAY_NOWHERE)
            return place;
    }
    *ret_disk = NULL;
    return OVERLAY_NOWHERE;
}

static bool has_source(const struct view *view, const char *path)
{
    for (size_t i = 0; i < view->n_disks; i++)
        if (is_layer(&view->disks[i], 0, path))
            return true;
    return false;
}

static bool leads_to(const struct view *view, const struct change_disk *overlay)
{
    for (size_t i = 0; i < view->n_disks; i++) {
        const struct disk *disk = &view->disks[i];
        const struct disk_layer *last = disk->n_layers ? &disk->layers[disk->n_layers - 1] : NULL;
        if (last && overlay_file_is_below(overlay, last->path, last->format))
            return true;
    }
    return false;
}

static int look_at_job(struct overlay_undo *undo, const struct view *view, struct error *err)
{
    struct overlay_found *found = &undo->found;
    virDomainBlockJobInfo info = {0};
    int r = overlay_xml_find_job(view->xml, found->target, undo->disk->base, &found->mirror, err);
    if (r < 0)
        return r;
    r = virDomainGetBlockJobInfo(undo->live.dom, found->target, &info, 0);
    if (r < 0)
        return fault_set(err, "cannot ask disk '%s' of domain '%s' for jobs", found->target,
                         undo->live.name);
    found->job_type = r > 0 ? info.type : 0;
    found->job_done = info.cur;
    return 0;
}

static int look_at_guest(struct overlay_undo *undo, struct error *err)
{
    struct overlay_found *found = &undo->found;
    const struct disk *disk;
    auto_view struct view view = {0};
    int r = view_read(&undo->live, 0, &view, err);
    if (r < 0)
        return r;
    found->is_base_live = has_source(&view, undo->disk->base);
    found->live = find_place(&view, undo->disk, false, &disk);
    if (!disk)
        return 0;
    found->target = strdup(disk->target);
    return found->target ? look_at_job(undo, &view, err) : error_set(err, -ENOMEM, "out of memory");
}

static int look_at_definition(struct overlay_undo *undo, struct error *err)
{
    struct overlay_found *found = &undo->found;
    const struct disk *disk;
    auto_view struct view view = {0};
    int r = view_read(&undo->live, VIR_DOMAIN_XML_INACTIVE, &view, err);
    if (r < 0)
        return r;
    found->is_base_defined = has_source(&view, undo->disk->base);
    found->defined = find_place(&view, undo->disk, true, &disk);
    found->is_below_defined = found->live == OVERLAY_NOWHERE && leads_to(&view, undo->disk);
    return 0;
}

int overlay_look(struct overlay_undo *undo, bool is_known, struct error *err)
{
    struct overlay_found *found = &undo->found;
    overlay_found_fini(found);
    found->is_known = is_known;
    if (!is_known)
        return 0;
    int is_active = virDomainIsActive(undo->live.dom);
    int is_persistent = virDomainIsPersistent(undo->live.dom);
    int has_managed_save = virDomainHasManagedSaveImage(undo->live.dom, 0);
    if (is_active < 0 || is_persistent < 0 || has_managed_save < 0 ||
        virDomainGetState(undo->live.dom, &found->state, &found->reason, 0) < 0)
        return fault_set(err, "cannot read domain '%s'", undo->live.name);
    found->is_active = is_active;
    found->is_persistent = is_persistent;
    found->has_managed_save = has_managed_save;
    int r = is_active ? look_at_guest(undo, err) : 0;
    return r < 0 || !is_persistent ? r : look_at_definition(undo, err);
}

/* 1, 0, or negative errno: what cannot be asked must not be taken for "no". */
static int names_mark_xml(char *xml, const char *mark, const char *what, struct error *err)
{
    auto_free char *owned = xml;
    int code = virGetLastErrorCode();
    if (owned)
        return strstr(owned, mark) != NULL;
    if (code == VIR_ERR_NO_DOMAIN || code == VIR_ERR_NO_DOMAIN_SNAPSHOT)
        return 0; /* it went away since it was listed */
    return fault_set(err, "cannot read the XML of %s", what);
}

struct snapshot_list {
    virDomainSnapshotPtr *snapshots;
    int n;
};

static void cleanup_snapshots(struct snapshot_list *list)
{
    for (int i = 0; i < list->n; i++)
        virDomainSnapshotFree(list->snapshots[i]);
    free(list->snapshots);
}

/* The name of a snapshot whose metadata names a file of the change, or NULL. 0 or negative errno.
 */
static int find_snapshot(const struct overlay_undo *undo, char **ret_name, struct error *err)
{
    __attribute__((cleanup(cleanup_snapshots))) struct snapshot_list list = {0};
    int n = virDomainListAllSnapshots(undo->live.dom, &list.snapshots, 0);
    if (n < 0)
        return fault_set(err, "cannot list the snapshots of domain '%s'", undo->live.name);
    list.n = n;
    for (int i = 0; i < n; i++) {
        int r = names_mark_xml(virDomainSnapshotGetXMLDesc(list.snapshots[i], 0),
                               undo->change->mark, "a snapshot", err);
        if (r < 0)
            return r;
        if (r == 0)
            continue;
        *ret_name = strdup(virDomainSnapshotGetName(list.snapshots[i]));
        return *ret_name ? 0 : error_set(err, -ENOMEM, "out of memory");
    }
    return 0;
}

int overlay_check_snapshots(const struct overlay_undo *undo, struct error *err)
{
    auto_free char *name = NULL;
    bool is_inside;
    int r = overlay_file_has_snapshot(undo->disk, &is_inside, err);
    if (r < 0)
        return r;
    if (is_inside)
        return overlay_leave(undo, err,
                             "somebody made an internal snapshot in the overlay, which would be "
                             "lost with it; delete it (virsh snapshot-delete) to have it merged");
    r = undo->found.is_known ? find_snapshot(undo, &name, err) : 0;
    if (r < 0 || !name)
        return r;
    return overlay_leave(undo, err,
                         "snapshot '%s' was made meanwhile and names the overlay; to have it "
                         "merged: virsh -c %s snapshot-delete --metadata %s %s (its files stay)",
                         name, undo->live.lh->uri, undo->live.name, name);
}

static int names_mark(virDomainPtr dom, const char *mark, struct error *err)
{
    int r = names_mark_xml(virDomainGetXMLDesc(dom, 0), mark, "another domain", err);
    if (r == 0)
        r = names_mark_xml(virDomainGetXMLDesc(dom, VIR_DOMAIN_XML_INACTIVE), mark,
                           "another domain", err);
    return r;
}

int overlay_is_named_elsewhere(const struct overlay_undo *undo, bool *ret_is_named,
                               struct error *err)
{
    virDomainPtr *domains;
    int n = virConnectListAllDomains(undo->live.conn, &domains, 0);
    if (n < 0)
        return fault_set(err, "cannot list the domains");
    int r = 0;
    for (int i = 0; i < n; i++) {
        char id[VIR_UUID_STRING_BUFLEN];
        if (r == 0 && virDomainGetUUIDString(domains[i], id) == 0 && strcmp(id, undo->live.id) != 0)
            r = names_mark(domains[i], undo->change->mark, err);
        virDomainFree(domains[i]);
    }
    free(domains);
    *ret_is_named = r > 0;
    return r < 0 ? r : 0;
}

int overlay_define_back(const struct overlay_undo *undo, struct error *err)
{
    if (!undo->found.is_known || !undo->found.is_persistent)
        return 0;
    /* Without secrets (of graphics, for instance) the definition would lose them. */
    auto_free char *now =
        virDomainGetXMLDesc(undo->live.dom, VIR_DOMAIN_XML_INACTIVE | VIR_DOMAIN_XML_SECURE);
    auto_free char *xml = NULL;
    if (!now)
        return fault_set(err, "cannot read the definition of domain '%s'", undo->live.name);
    bool was_bare = undo->change->method == CHANGE_COLD_OVERLAY;
    int r = define_xml_restore(now, undo->disk, was_bare, &xml, err);
    if (r <= 0)
        return r;
    auto_virdomain virDomainPtr dom = virDomainDefineXML(undo->live.conn, xml);
    if (!dom)
        return fault_set(err, "cannot put the definition of domain '%s' back on '%s'",
                         undo->live.name, undo->disk->base);
    return 0;
}
