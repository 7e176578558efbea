/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Disks that were attached or exchanged between our look at the domain and libvirt's own: over one
 * that it was not told of it puts an overlay as well, beside the image and called after the
 * snapshot; over one that took the place of another, the overlay that was meant for that.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/host/overlay_file.h"
#include "fs/host/overlay_internal.h"
#include "qcow/base/cleanup.h"

static struct change_disk *find_file(const struct change *change, const char *path)
{
    for (size_t i = 0; i < change->n_disks; i++)
        if (strcmp(change->disks[i].file, path) == 0)
            return &change->disks[i];
    return NULL;
}

static bool is_of_change(const struct change *change, const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && change_is_overlay(path) && strstr(slash, change->mark);
}

/* ---- Right after the call ---- */

static bool is_placed(const struct view *view, const struct change_disk *overlay)
{
    const struct disk *disk = view_find_disk(view, overlay->target);
    /* A definition may say nothing of what is below. */
    return disk && disk->n_layers > 0 && strcmp(disk->layers[0].path, overlay->file) == 0 &&
           (disk->n_layers == 1 || strcmp(disk->layers[1].path, overlay->base) == 0);
}

/* What the definition of a domain that is off leaves open, the overlay tells. */
static bool is_over_base(const struct change_disk *overlay)
{
    struct error why = {0};
    auto_free char *base = NULL;
    enum qcow_format format;
    return overlay_file_find_base(overlay->file, &base, &format, &why) == 0 &&
           strcmp(base, overlay->base) == 0;
}

int overlay_check_placed(const struct live *live, const struct change *change, struct error *err)
{
    auto_view struct view view = {0};
    bool is_off = change->method == CHANGE_COLD_OVERLAY;
    int r = view_read(live, is_off ? VIR_DOMAIN_XML_INACTIVE : 0, &view, err);
    if (r < 0)
        return r;
    bool is_as_planned = true;
    for (size_t i = 0; i < change->n_disks; i++)
        is_as_planned = is_as_planned && is_placed(&view, &change->disks[i]) &&
                        (!is_off || is_over_base(&change->disks[i]));
    for (size_t i = 0; i < view.n_disks; i++) {
        const char *top = view.disks[i].n_layers ? view.disks[i].layers[0].path : "";
        is_as_planned = is_as_planned && (!is_of_change(change, top) || find_file(change, top));
    }
    if (is_as_planned)
        return 0;
    return error_set(err, -EBUSY,
                     "the disks of domain '%s' were changed while overlays were put over them",
                     live->name);
}

/* ---- Before it is undone ---- */

/* @overlay is this change's, and some disk has it in its chain. 1 if the change learnt of it. */
static int learn(struct change *change, const char *target, const char *overlay, struct error *err)
{
    struct change_disk *known = find_file(change, overlay);
    auto_free char *base = NULL;
    enum qcow_format format;
    if (known && known->merge != CHANGE_UNMERGED)
        return 0;
    int r = overlay_file_find_base(overlay, &base, &format, err);
    if (r < 0 || (known && strcmp(known->base, base) == 0))
        return known && r != -ENOMEM ? 0 : r; /* what is wrong with it is found when it is undone */
    if (!known) {
        r = change_add_disk(change, target, base, format, overlay, err);
        return r < 0 ? r : 1;
    }
    free(known->base);
    known->base = take_ptr(base);
    known->base_format = format;
    return 1;
}

static int learn_all(const struct live *live, unsigned flags, struct change *change,
                     struct error *err)
{
    auto_view struct view view = {0};
    int n_learnt = 0;
    int r = view_read(live, flags, &view, err);
    for (size_t i = 0; r >= 0 && i < view.n_disks; i++) {
        const struct disk *disk = &view.disks[i];
        for (size_t depth = 0; r >= 0 && depth < disk->n_layers; depth++) {
            if (!is_of_change(change, disk->layers[depth].path))
                continue;
            r = learn(change, disk->target, disk->layers[depth].path, err);
            n_learnt += r > 0;
        }
    }
    return r < 0 ? r : n_learnt;
}

int overlay_find_strays(const struct live *live, struct change *change,
                        const struct change_steps *steps, struct error *err)
{
    int is_active = virDomainIsActive(live->dom);
    int is_persistent = virDomainIsPersistent(live->dom);
    int in_guest = is_active > 0 ? learn_all(live, 0, change, err) : 0;
    if (in_guest < 0)
        return in_guest;
    int in_definition =
        is_persistent > 0 ? learn_all(live, VIR_DOMAIN_XML_INACTIVE, change, err) : 0;
    if (in_definition < 0)
        return in_definition;
    return in_guest + in_definition > 0 ? steps->note(steps->ctx, change, err) : 0;
}
