/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What can be told of an image without its tables: header and snapshots, for `ls` and `status`. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "qcow/base/bytes.h"
#include "qcow/base/cleanup.h"
#include "qcow/format.h"
#include "qcow/header.h"
#include "qcow/qcow.h"
#include "qcow/snapshots.h"

/* QEMU rewrites the header at most a few times a second; a busier one is not a header. */
enum { INSPECT_TRIES = 16 };

/* The fields that say where the table is and how large the disk is, for comparing. */
struct header_fields {
    uint8_t raw[HDR_V2_LEN];
};

static int read_fields(const struct source *src, struct header_fields *ret, struct error *err)
{
    return source_read(src, 0, ret->raw, sizeof(ret->raw), "header", err);
}

static int inspect_once(const struct source *src, struct qcow_info *info, struct error *err)
{
    struct qcow_header hdr;
    int r = header_read(src, &hdr, err);
    if (r < 0)
        return r;
    r = snapshots_read(src, &hdr, &info->snapshots, &info->n_snapshots, err);
    if (r < 0) {
        header_fini(&hdr);
        return r;
    }
    info->guest_size = hdr.guest_size;
    info->cluster_size = hdr.cluster_size;
    info->version = hdr.version;
    info->is_encrypted = hdr.crypt_method != CRYPT_NONE;
    info->is_dirty = hdr.is_dirty;
    info->is_corrupt = hdr.is_corrupt;
    info->backing_name = take_ptr(hdr.backing_name);
    info->backing_format = take_ptr(hdr.backing_format);
    info->data_name = take_ptr(hdr.data_name);
    header_fini(&hdr);
    return 0;
}

int qcow_inspect(const struct qcow_file *file, struct qcow_info *ret_info, struct error *err)
{
    struct source src;
    int r = source_init(&src, file->fd, file->name, 0, err);
    if (r < 0)
        return r;
    if (file->format == QCOW_FORMAT_RAW) {
        *ret_info = (struct qcow_info){.guest_size = align_up(src.host_size, SECTOR_SIZE)};
        return 0;
    }
    if (src.host_size < HDR_V2_LEN)
        return error_set(err, -EBADMSG, "'%s': %llu bytes are too few for a qcow2 image",
                         file->name, (unsigned long long)src.host_size);
    for (int i = 0; i < INSPECT_TRIES; i++) {
        struct header_fields before, after;
        r = read_fields(&src, &before, err);
        if (r < 0)
            return r;
        struct qcow_info info = {0};
        int result = inspect_once(&src, &info, err);
        r = read_fields(&src, &after, err);
        /* a table that moved meanwhile may have been overwritten while it was read */
        if (r == 0 && !memcmp(&before, &after, sizeof(before))) {
            if (result == 0)
                *ret_info = info;
            return result;
        }
        qcow_info_fini(&info);
        if (r < 0)
            return r;
    }
    return error_set(err, -EAGAIN, "'%s': the snapshot table keeps moving", file->name);
}

void qcow_info_fini(struct qcow_info *info)
{
    for (size_t i = 0; i < info->n_snapshots; i++)
        qcow_snapshot_fini(&info->snapshots[i]);
    free(info->snapshots);
    free(info->backing_name);
    free(info->backing_format);
    free(info->data_name);
    *info = (struct qcow_info){0};
}
