/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The files that live=copy copies disks into: where there is room for them, and their end. */
#pragma once

#include "fs/host/change.h"

/*
 * Looks whether the deltas of @change can be made: no such files yet, and room for as much as
 * their bases hold. 0, -EBUSY, -ENOSPC, -EIO.
 */
int delta_check_room(const struct change *change, struct error *err);

/*
 * Deletes the file (none is fine) unless somebody has a lock in it: QEMU locks bytes of each image
 * that it has open. 0; -EBUSY: it is in use; -EIO.
 */
int delta_delete(const char *path, struct error *err);
