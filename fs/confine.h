/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The sandbox as the options want it, and the broker with what the program needs done outside of
 * it. Main thread, while it is the only one.
 */
#pragma once

#include "fs/cloud.h"
#include "fs/fuse/attach.h"
#include "fs/options.h"
#include "fs/sandbox/sandbox.h"
#include "qcow/base/error.h"

/* What is to be mounted; borrows from @options. */
struct attach_config confine_describe_mount(const struct options *options);

/*
 * Forks the broker and enters the sandbox, unless sandbox=no. After the fork of the daemon, and
 * before anything that starts a thread, connects, or reads an image. The broker forgets @cloud.
 *
 * 0, or negative errno.
 */
int confine_enter(const struct options *options, struct cloud *cloud,
                  struct sandbox_report *ret_report, struct error *err);
