/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Opens the files that images refer to, for both hosts. Any thread; may block on the file system.
 */
#pragma once

#include "qcow/qcow.h"

/*
 * Opens what the image itself records: the name relative to the image's directory, the format as
 * recorded and never probed.
 *
 * @dirs    real paths one of which must hold the file, or NULL for anywhere
 *
 * 0; 1 if no backing file is recorded; -EOPNOTSUPP for a missing or foreign format and for
 * protocols; -EPERM outside of @dirs; -EIO. The text names the image and its reference.
 */
int ref_open_recorded(const struct qcow_ref *ref, const char *const *dirs, size_t n_dirs,
                      struct qcow_file *ret_file, struct error *err);

/* Opens @path, wherever it lies, in the format that somebody who knows declared. 0 or as above. */
int ref_open_declared(const char *path, enum qcow_format format, struct qcow_file *ret_file,
                      struct error *err);
