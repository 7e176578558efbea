/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* libvirt's errors as this program's. Any thread: libvirt keeps one error a thread. */
#pragma once

#include "qcow/base/error.h"

/*
 * Fills @err with the text and libvirt's own message of this thread's last error. Returns the
 * errno that fits: -ESTALE (no such domain), -EBUSY, -EOPNOTSUPP, -ETIMEDOUT, -EACCES, -ENOSPC,
 * -ENOMEM, else -EIO.
 */
#define fault_set(err, ...) error_negative(fault_fill((err), __VA_ARGS__))

int fault_fill(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
