/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the command line asks of a mount that is there, from outside: `--wait`, `--status`, and
 * whether a further mount would hide it. Main thread, before there is another.
 */
#pragma once

#include "fs/options.h"
#include "qcow/base/error.h"

/*
 * Is the mountpoint free to be mounted on, as far as mounts of ours matter? 0, also if one is there
 * whose server is dead; -EBUSY: one is served, which another mount would hide.
 */
int errand_check_free(const struct options *options, struct error *err);

/*
 * Returns when no server of the mountpoint is left. 0, or -1 after the reason was logged: one of
 * them has left domains that are not put back, or that cannot be told.
 */
int errand_wait(const struct options *options);

/* Prints what the mount is doing to stdout. 0, or -1 after the reason was logged. */
int errand_status(const struct options *options);
