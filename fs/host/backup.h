/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * live=backup: a pull-mode backup job. The hypervisor serves the disks as they were at one moment
 * over NBD, at @socket of the change, each under its target's name; what the guest overwrites
 * meanwhile it first saves to scratch files. The domain's XML and chains stay as they are. The job
 * ends with the QEMU process at the latest. All verbs but can() block on libvirt.
 *
 * Where things go: the socket into libvirt's own folder, since QEMU has to be able to make it
 * there, as its user and in its mount namespace. A scratch file into the scratch folder, or beside
 * the image if that is a regular file. There is no other place for block devices and network disks:
 * one that runs full spoils the guest's writes, so that a person has to choose it.
 */
#pragma once

#include "fs/host/method.h"

extern const struct host_method host_method_backup;
