/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An overlay over one disk of a running libvirt domain, and its undoing. Both block on libvirt,
 * on the caller's thread. Contracts: snapshot_take and snapshot_merge of struct host_ops.
 */
#pragma once

#include "fs/host/host.h"

int snapshot_take(struct host *host, const struct domain *domain, const struct disk *disk,
                  struct host_overlay *ret_overlay, struct error *err);
int snapshot_merge(struct host *host, const struct domain *domain,
                   const struct host_overlay *overlay, struct error *err);
