/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The XML around internal snapshots. Pure; any thread. */
#pragma once

#include <stddef.h>

#include "fs/host/change.h"

/*
 * What keeps libvirt from making an internal snapshot of a domain that is off, apart from its
 * disks: firmware in flash memory. 0, -EOPNOTSUPP with the reason, -EBADMSG, -ENOMEM.
 */
int snapshot_xml_check(const char *domain_xml, struct error *err);

/*
 * What keeps QEMU from saving a guest to a file: devices of the host that it was given, and the
 * like. 0, -EOPNOTSUPP with the reason, -EBADMSG, -ENOMEM.
 */
int snapshot_xml_check_save(const char *domain_xml, struct error *err);

/*
 * The targets of the drives that an internal snapshot has to cover, since libvirt makes one of all
 * or none: those with a medium that can be written.
 *
 * 0 and an array of strings (caller frees both), -EBADMSG, -ENOMEM.
 */
int snapshot_xml_targets(const char *domain_xml, char ***ret_targets, size_t *ret_n,
                         struct error *err);
void snapshot_xml_free_targets(char **targets, size_t n);

/*
 * A <domainsnapshot> named change->mark over change->disks, without memory: libvirt refuses it if
 * the domain runs.
 *
 * @domain_xml  NULL; or the inactive XML, to tell libvirt of a snapshot that is in the images and
 *              that it does not know (VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE)
 *
 * 0 and the text (caller frees), -EBADMSG, -ENOMEM.
 */
int snapshot_xml_build(const struct change *change, const char *domain_xml, char **ret_xml,
                       struct error *err);
