/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * live=overlay: overlays over all disks of a running domain, put there in one moment, and their
 * undoing. Inside of the libvirt host.
 */
#pragma once

#include "fs/host/method.h"

extern const struct host_method host_method_overlay;

/*
 * Undoes all overlays of @change, one disk after the other; as host_method.undo says.
 * overlay_merge.c
 */
int overlay_merge(struct host *host, struct change *change, const struct change_steps *steps,
                  struct error *err);
