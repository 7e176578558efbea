/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Room on the file systems where a change makes files grow. The guest goes first: no instant is
 * begun that it might have to pay for, and an instant ends while what the guest wrote meanwhile can
 * still be merged. What counts is what is free for users other than root: QEMU is none.
 * No objects; any thread; blocks on the file systems.
 */
#pragma once

#include <stdint.h>

#include "fs/host/change.h"
#include "qcow/base/error.h"

/* For `min_free`: 5 % of each file system, but from 1 to 20 GiB. Any other value is in bytes. */
#define SPACE_MIN_FREE_DEFAULT UINT64_MAX

/* What is to be left free on a file system of that many bytes. Pure. */
uint64_t space_min_free(uint64_t min_free, uint64_t fs_len);

/*
 * Before anything is done: is @min_free and a reserve left on each file system where the change
 * lets something grow: its files, the images that overlays are merged into, those that get an
 * internal snapshot?
 * 0; -ENOSPC with figures; or what the file system says.
 */
int space_check(const struct change *change, uint64_t min_free, struct error *err);

/* For one instant; zero-initialised by the caller. */
struct space_watch {
    unsigned next_ms; /* look again after this: 50 ms to 1 s */
    /* Of the last look: */
    int64_t looked_ns; /* monotonic; 0: none yet */
    int64_t margin;    /* bytes left before the instant has to end */
};

/*
 * While the instant stands: is @min_free left on each of those file systems, and where overlays are
 * to be merged, room for all that is in them besides?
 * 0; -ENOSPC: end it now; or what the file system says: nothing is known, next_ms is set.
 */
int space_look(struct space_watch *watch, const struct change *change, uint64_t min_free,
               struct error *err);

/* Bytes that files take on disk, @n paths; those that are not there count 0. */
uint64_t space_used(char *const *paths, size_t n);
