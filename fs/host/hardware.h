/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a domain's definition says of the machine that its disks were installed on: for whoever
 * starts a copy of them elsewhere. Pure; any thread.
 */
#pragma once

#include <stdbool.h>

#include "qcow/base/error.h"

/* As libvirt spells it; NULL where the definition does not say. */
struct hardware {
    char *arch;       /* "x86_64" */
    char *machine;    /* "pc-i440fx-7.2" */
    char *disk_bus;   /* of the disk that was asked for: "virtio" */
    char *scsi_model; /* of its controller, if that bus is "scsi": "virtio-scsi" */
    char *vif_model;  /* of the first network interface: "virtio" */
    bool is_uefi;
    bool has_agent; /* there is a channel for qemu-guest-agent */
};

/*
 * @xml     a domain's definition
 * @target  of the disk, as in "vda"
 *
 * 0; -EBADMSG if this is no domain's XML; -ENOMEM. hardware_fini() releases @ret_hardware.
 */
int hardware_read(const char *xml, const char *target, struct hardware *ret_hardware,
                  struct error *err);
void hardware_fini(struct hardware *hardware);
