/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What can be told of an image without its tables: header and snapshots, for `ls` and `status`. */
#include <errno.h>
#include <inttypes.h>
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

/* One look; *ret_is_steady: nothing moved meanwhile, so that the answer counts. */
static int look(const struct qcow_file *file, struct qcow_info *info, bool *ret_is_steady,
                struct error *err)
{
    struct source src; /* anew each time: the file of a running guest grows */
    *ret_is_steady = true;
    int r = source_init_file(&src, file, 0, err);
    if (r < 0)
        return r;
    if (file->format == QCOW_FORMAT_RAW) {
        info->guest_size = align_up(src.host_size, SECTOR_SIZE);
        return 0;
    }
    if (src.host_size < HDR_V2_LEN)
        return error_set(err, -EBADMSG, "'%s': %" PRIu64 " bytes are too few for a qcow2 image",
                         file->name, src.host_size);
    struct header_fields before, after;
    r = read_fields(&src, &before, err);
    if (r < 0)
        return r;
    int result = inspect_once(&src, info, err);
    r = read_fields(&src, &after, err);
    if (r < 0)
        return r;
    *ret_is_steady = !memcmp(&before, &after, sizeof(before));
    return result;
}

int qcow_inspect(const struct qcow_file *file, struct qcow_info *ret_info, struct error *err)
{
    int n_failed = 0;
    for (int i = 0; i < INSPECT_TRIES; i++) {
        struct qcow_info info = {0};
        bool is_steady;
        int r = look(file, &info, &is_steady, err);
        if (r == 0 && is_steady) {
            *ret_info = info;
            return 0;
        }
        qcow_info_fini(&info);
        /* a table freed and made again within one look seems to stand still: look twice */
        n_failed = is_steady ? n_failed + 1 : 0;
        if (n_failed == 2 || r == -EIO || r == -ENOMEM)
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
