/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Remembers when a piece of content was first seen, so that directories and domain.xml have an
 * mtime that moves when the content does, and only then, also over a remount. Kept as JSON in the
 * state directory; where that cannot be written, in memory only (one warning).
 * All functions: any thread, short, no sync to disk.
 */
#pragma once

#include <stdint.h>
#include <time.h>

#include "qcow/base/error.h"

struct stamps;

/* @source names the mount's source: each has a file of its own. 0 or -ENOMEM. */
int stamps_open(const char *state_dir, const char *source, struct stamps **ret_stamps,
                struct error *err);
void stamps_close(struct stamps *stamps); /* writes what is new; NULL is fine */

/*
 * The time at which content @hash of thing @key was first seen; the present time, remembered, if
 * it is new. @first, if not NULL, is the time to remember for a key never seen before.
 */
struct timespec stamps_get(struct stamps *stamps, const char *key, uint64_t hash,
                           const struct timespec *first);
