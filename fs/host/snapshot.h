/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Internal snapshots over all disks of a domain that is off, named by a change's mark: what the
 * methods managedsave and internal have in common. Block on libvirt.
 */
#pragma once

#include "fs/host/change.h"
#include "fs/host/live.h"

/*
 * Refuses what the record alone shows: a disk that is not qcow2, or none. Pure.
 * 0 or -EOPNOTSUPP.
 */
int snapshot_can(const struct domain *domain, struct error *err);

/*
 * Refuses disks that libvirt cannot make internal snapshots of, then adds all others to @change.
 * Disks that cannot be written have no part in it.
 *
 * @view  of the inactive XML: libvirt takes the snapshot from that
 *
 * 0, -EOPNOTSUPP, -EBUSY (a disk lies on another instant's overlay), -ENOMEM.
 */
int snapshot_plan(const struct live *live, const struct view *view, struct change *change,
                  struct error *err);

/* 0: it stands, in all of change->disks; else it may stand in some. */
int snapshot_make(struct live *live, const struct change *change, struct error *err);

/*
 * Deletes it wherever it is found, whether the domain runs or not; nothing else. A domain that is
 * gone counts as well: @live need not be attached.
 * 0: no image has it. -EAGAIN: not as long as the domain's state is this. Else what a person is
 * to do.
 */
int snapshot_remove(struct live *live, const struct change *change, struct error *err);
