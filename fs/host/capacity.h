/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The size of a disk that only the hypervisor can read. QEMU is asked for it, and one that hangs
 * never answers: so the question has a thread of its own, which is waited for a moment.
 */
#pragma once

#include <libvirt/libvirt.h>
#include <stdint.h>

#include "qcow/base/error.h"

/*
 * Bytes, of a disk of a domain that runs. Any thread; blocks for two seconds at most. A domain that
 * has not answered yet is not asked again.
 * 0; -ETIMEDOUT; -ENOMEM; else what libvirt says.
 */
int capacity_read(virDomainPtr dom, const char *target, uint64_t *ret_bytes, struct error *err);
