/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An export of an NBD server as a raw image: how a backup job of QEMU is read. Any number of
 * threads may read; up to two of them at once are served over connections of their own, others
 * wait for one. Each wait has an end: a server that is gone or hangs is an -EIO for who reads.
 */
#pragma once

#include "qcow/base/error.h"
#include "qcow/qcow.h"

/*
 * Connects to the export @export_name (for a backup job: the disk's target) of the server that
 * listens at @socket, a path. Blocks for @timeout_ms at most; each read later on ends as well when
 * nothing has arrived for so long.
 *
 * 0 and an open file for qcow_open(), which takes it: a raw image, as long as the export, whose
 * holes are those that the server tells. -EIO (no server, no such export, the server does not
 * speak properly), -ETIMEDOUT, -ENOMEM.
 */
int nbd_open(const char *socket, const char *export_name, unsigned timeout_ms,
             struct qcow_file *ret_file, struct error *err);
