/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The methods of the libvirt host. Contracts: struct host_method. */
#pragma once

#include "fs/host/method.h"

extern const struct host_method host_method_copy;
extern const struct host_method host_method_managedsave;
extern const struct host_method host_method_internal;
