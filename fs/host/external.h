/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The external snapshots that libvirt knows of a domain. Blocks on libvirt: like record.h. */
#pragma once

#include <libvirt/libvirt.h>

#include "fs/host/domain.h"
#include "qcow/base/error.h"

/*
 * Fills the snapshots of @domain, whose disks are known already. libvirt is asked for their names
 * each time, but for what they are only if it may be something else than in @before, the domain's
 * last record (NULL if there is none).
 *
 * 0, also where the driver has no snapshots, and where libvirt does not say: then those of
 * @before stay. -ESTALE if the domain is gone, -ENOMEM.
 */
int external_read_all(virDomainPtr dom, const struct domain *before, struct domain *domain,
                      struct error *err);

/*
 * True if the files under the disks are not those of @before. An overlay of this program's own
 * does not count. Pure.
 */
bool external_are_chains_changed(const struct domain *before, const struct domain *domain);
