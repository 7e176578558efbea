/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whether another user gets to a file. Any thread; blocks on the file system. */
#pragma once

#include <sys/types.h>

#include "qcow/base/error.h"

/*
 * 0 if that user may search all directories above @path, or if that cannot be told (an access
 * control list); -EACCES names user and directory.
 */
int reach_check(const char *path, uid_t uid, gid_t gid, struct error *err);
