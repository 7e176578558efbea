/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/ref.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/host/file.h"
#include "qcow/base/cleanup.h"

static int choose_format(const struct qcow_ref *ref, enum qcow_format *ret_format,
                         struct error *err)
{
    if (ref->kind == QCOW_REF_DATA) {
        *ret_format = QCOW_FORMAT_RAW;
        return 0;
    }
    if (!ref->format)
        return error_set(err, -EOPNOTSUPP,
                         "'%s' refers to '%s' but records no format; it is never probed", ref->from,
                         ref->name);
    if (qcow_format_parse(ref->format, ret_format) < 0)
        return error_set(err, -EOPNOTSUPP, "'%s' refers to '%s' in format '%s', not raw or qcow2",
                         ref->from, ref->name, ref->format);
    return 0;
}

/* Takes @path, and @fd if it is one. */
static int hand_over(char *path, enum qcow_format format, int fd, struct qcow_file *ret_file)
{
    auto_free char *name = path;
    if (fd < 0)
        return fd;
    *ret_file = (struct qcow_file){.fd = fd, .format = format, .name = take_ptr(name)};
    return 0;
}

int ref_open_recorded(const struct qcow_ref *ref, const char *const *dirs, size_t n_dirs,
                      struct qcow_file *ret_file, struct error *err)
{
    if (!ref->name && ref->kind == QCOW_REF_BACKING)
        return 1;
    if (!ref->name)
        return error_set(err, -EOPNOTSUPP, "'%s' records no name for its data file", ref->from);
    enum qcow_format format;
    int r = choose_format(ref, &format, err);
    if (r < 0)
        return r;
    char *path;
    r = file_resolve_ref(ref->from, ref->name, &path, err);
    if (r < 0)
        return r;
    r = hand_over(path, format, file_open_recorded(path, dirs, n_dirs, err), ret_file);
    if (r < 0)
        error_prefix(err, "'%s' refers to '%s'", ref->from, ref->name);
    return r;
}

int ref_open_declared(const char *path, enum qcow_format format, struct qcow_file *ret_file,
                      struct error *err)
{
    char *name = strdup(path);
    if (!name)
        return error_set(err, -ENOMEM, "out of memory");
    /* lint: clang-analyzer/unix.Malloc: hand_over() takes it */
    return hand_over(name, format, file_open_image(name, NULL, 0, err), ret_file);
}
