/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * `virtsnapfs --status MOUNTPOINT`: what a mount is doing. Only reads the files of the mount
 * (DOMAIN/status), so it asks nothing of the server that any program could not ask, needs no
 * libvirt, and works as any user who may read them. Main thread.
 */
#pragma once

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

#include "qcow/base/error.h"

struct report_config {
    const char *mountpoint; /* its real path */
    const char *source;     /* what is mounted there */
    dev_t device;           /* st_dev of the mount, by which its end is known */
    bool is_json;           /* for programs: one JSON object; with is_watch one a line */
    bool is_watch;          /* again and again, until a signal or the end of the mount */
};

/*
 * Prints to @to. 0, also if the mount ends while it is watched; or negative errno: -EACCES if its
 * directories may not be read, -ENOTCONN if its server is gone, -EIO if @to cannot be written.
 */
int report_run(const struct report_config *config, FILE *to, struct error *err);
