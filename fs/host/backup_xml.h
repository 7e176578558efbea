/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The XML around a backup job: what is asked for, and whose job is running. Pure; any thread. */
#pragma once

#include "fs/host/change.h"
#include "qcow/base/error.h"

/*
 * A <domainbackup> in pull mode: a server at @change's socket that exports each of its disks by
 * its target, with the disk's file for what the guest overwrites meanwhile.
 *
 * @domain_xml  the domain's live XML: libvirt takes a disk that is not listed for one to be backed
 *              up too, so all others are named as left out
 *
 * 0 and the text (caller frees), -EBADMSG, -ENOMEM.
 */
int backup_xml_build(const char *domain_xml, const struct change *change, char **ret_xml,
                     struct error *err);

/*
 * The path where the job that @backup_xml describes listens (caller frees), or NULL if it has
 * none. 0, -EBADMSG, -ENOMEM.
 */
int backup_xml_find_socket(const char *backup_xml, char **ret_socket, struct error *err);
