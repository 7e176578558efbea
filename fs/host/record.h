/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reads one domain from libvirt into a record. Blocks on libvirt: never on a FUSE thread. */
#pragma once

#include <libvirt/libvirt.h>

#include "fs/host/domain.h"
#include "fs/host/xml.h"
#include "qcow/base/error.h"

/*
 * @before  the last record, which spares some questions, or NULL
 *
 * 0 and a record with one reference; -ESTALE if the domain is gone; else negative errno. XML that
 * cannot be understood costs the record its disks, with one line in the log, not its existence.
 */
int record_read(virDomainPtr dom, const struct domain *before, struct domain **ret_domain,
                struct error *err);

/* For xml_read_disks(): looks volumes up over @conn (borrowed). */
struct xml_volumes record_volumes(virConnectPtr conn);
