/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the command line asks of a mount that is there, from outside: `--wait`, `--status`. Main
 * thread, before there is another.
 */
#pragma once

#include "fs/options.h"

/* Returns when no server of the mountpoint is left. 0, or -1 after the reason was logged. */
int errand_wait(const struct options *options);

/* Prints what the mount is doing to stdout. 0, or -1 after the reason was logged. */
int errand_status(const struct options *options);
