/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Snapshot XML -> what an external snapshot did to which disk. Like xml.h in all else. */
#pragma once

#include "fs/host/domain.h"
#include "fs/host/xml.h"
#include "qcow/base/error.h"

/*
 * Fills time and disks of @snapshot (its name is the caller's) from <domainsnapshot>. A disk is
 * there if the snapshot put an overlay over it and both lie in local files or devices: the layer
 * that rests since is what the domain of that moment, which the XML holds as well, had as source.
 *
 * 0; -EBADMSG if this is no snapshot's XML; -ENOMEM. What is filled up to then is the caller's.
 */
int external_xml_read(const char *xml, const struct xml_volumes *volumes,
                      struct host_snapshot *snapshot, struct error *err);
