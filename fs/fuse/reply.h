/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The only place where a negative errno becomes what a program sees (contract section 8). Each
 * request is answered exactly once; any thread.
 */
#pragma once

#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 12)
#include <fuse_lowlevel.h>

#include "qcow/qcow.h"

/* The errno (positive) that a program sees for an error of ours (negative). */
int reply_errno(int code);

/* @code  0 or negative errno */
void reply_status(fuse_req_t req, int code);

void reply_data(fuse_req_t req, const void *bytes, size_t len);
void reply_parts(fuse_req_t req, const struct qcow_parts *parts);
