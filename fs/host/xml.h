/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Domain XML -> disks, as declared there; no image is looked at. Nothing is loaded from
 * elsewhere and no entity is expanded. Any thread; blocks only in the volume callback.
 */
#pragma once

#include <stdbool.h>

#include "fs/host/domain.h"
#include "qcow/base/error.h"

/* Finds the path of a storage volume, for disks of type 'volume'. */
struct xml_volumes {
    /* 0 and the path (caller frees), or a negative errno and the reason. */
    int (*find_path)(void *ctx, const char *pool, const char *volume, char **ret_path,
                     struct error *err);
    void *ctx;
};

/*
 * The disks of a domain in the order of the XML, without CD-ROM and floppy drives and drives
 * without a medium. What cannot be served is kept with the reason in `unsupported`.
 *
 * 0 and an array for domain_free_disks(); -EBADMSG if this is no domain's XML; -ENOMEM.
 */
int xml_read_disks(const char *xml, const struct xml_volumes *volumes, struct disk **ret_disks,
                   size_t *ret_n, struct error *err);

/*
 * True if the domain carries metadata of a program that manages it (nova, oVirt, KubeVirt), which
 * may write its definition anew at any time. False also if this is no domain's XML.
 */
bool xml_has_manager(const char *xml);
