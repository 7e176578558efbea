/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A sign on overlays that the daemon lives which put them there, for mounts with another state=,
 * who cannot see its journal: a read lock far behind QEMU's, at a place that tells the process. The
 * kernel takes it back with the process. That there is none says nothing: locks may not work there,
 * or the overlay was made a moment ago. Any thread, one at a time for each claim; blocks on the
 * file system.
 */
#pragma once

#include <stddef.h>
#include <sys/types.h>

#include "fs/host/change.h"

/* Zeroed: none. */
struct claim {
    int *fds;
    size_t n;
};

/* On all overlays of @change; nothing if there is a claim already, and where it cannot be. */
void claim_take(struct claim *claim, const struct change *change);
void claim_drop(struct claim *claim);

/* The process that has a claim on the overlay at @path; 0: none is to be seen. */
pid_t claim_find_holder(const char *path);
