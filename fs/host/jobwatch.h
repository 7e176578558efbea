/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How the block jobs of one domain ended, from libvirt's events: the call that ends a copy does not
 * say whether the copy was complete. One thread, apart from libvirt's own.
 */
#pragma once

#include "fs/host/live.h"

struct jobwatch;

/* Over live->conn; what happened before is not seen. 0, -ENOMEM, or what libvirt says. */
int jobwatch_start(const struct live *live, struct jobwatch **ret_watch, struct error *err);
void jobwatch_stop(struct jobwatch *watch); /* NULL is fine */

/*
 * Waits until a job of disk @target has ended, of which no other wait has told yet.
 * 1: it ended without an error (completed or cancelled). 0: with one. -1: no event until
 * @deadline_ns of monotonic_ns().
 */
int jobwatch_wait_end(struct jobwatch *watch, const char *target, int64_t deadline_ns);
