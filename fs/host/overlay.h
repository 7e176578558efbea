/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * live=overlay: overlays over all disks of a running domain, put there in one moment.
 * cold=overlay: the same over those of a domain that is off. Inside of the libvirt host.
 */
#pragma once

#include "fs/host/method.h"

extern const struct host_method host_method_overlay;
extern const struct host_method host_method_cold_overlay;
