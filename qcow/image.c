/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "qcow/base/bytes.h"
#include "qcow/base/cleanup.h"
#include "qcow/chain.h"
#include "qcow/format.h"
#include "qcow/image_internal.h"
#include "qcow/qcow.h"

const char *qcow_format_name(enum qcow_format format)
{
    return format == QCOW_FORMAT_RAW ? "raw" : "qcow2";
}

int qcow_format_parse(const char *word, enum qcow_format *ret_format)
{
    if (!strcmp(word, "raw"))
        *ret_format = QCOW_FORMAT_RAW;
    else if (!strcmp(word, "qcow2"))
        *ret_format = QCOW_FORMAT_QCOW2;
    else
        return -ENOTSUP;
    return 0;
}

bool qcow_has_magic(int fd)
{
    uint8_t raw[4];
    return pread(fd, raw, sizeof(raw), 0) == sizeof(raw) && load_be32(raw) == QCOW_MAGIC;
}

void qcow_file_close(struct qcow_file *file)
{
    if (file->fd >= 0)
        close(file->fd);
    if (file->remote)
        file->remote->close(file->remote->ctx);
    free(file->name);
    *file = (struct qcow_file){.fd = -1};
}

/* Turns the top layer's view from the active disk to that of a snapshot, and watches it. */
static int use_snapshot(struct qcow_image *image, const struct qcow_snapshot *snapshot,
                        struct error *err)
{
    struct layer *top = &image->layers[0];
    if (top->file.format != QCOW_FORMAT_QCOW2)
        return error_set(err, -ESTALE, "'%s': a raw image has no snapshots", top->file.name);
    int r =
        header_check_table(&top->hdr, top->file.name, "L1 table of a snapshot", snapshot->l1_off,
                           snapshot->l1_entries, L1_ENTRY_LEN, L1_BYTES_MAX, err);
    if (r < 0)
        return r;
    r = snapshot_watch_init(&image->watch, &top->src, snapshot, err);
    if (r < 0)
        return r;
    image->is_watched = true;
    top->guest_size = snapshot->guest_size;
    top->l1_off = snapshot->l1_off;
    top->l1_entries = snapshot->l1_entries;
    return 0;
}

int qcow_open(struct qcow_file *file, const struct qcow_opener *opener, struct qcow_cache *cache,
              const struct qcow_snapshot *snapshot, struct qcow_image **ret_image,
              struct error *err)
{
    struct qcow_image *image = calloc(1, sizeof(*image));
    if (!image) {
        qcow_file_close(file);
        return error_set(err, -ENOMEM, "out of memory");
    }
    image->cache = cache;
    int r = chain_open_layer(image, file, opener, err);
    if (r == 0 && snapshot)
        r = use_snapshot(image, snapshot, err);
    if (r == 0)
        r = chain_open(image, opener, err);
    if (r < 0) {
        qcow_close(image);
        return r;
    }
    *ret_image = image;
    return 0;
}

void qcow_close(struct qcow_image *image)
{
    if (!image)
        return;
    for (unsigned i = 0; i < image->n_layers; i++)
        chain_close_layer(image->cache, &image->layers[i]);
    free(image->layers);
    if (image->is_watched)
        snapshot_watch_fini(&image->watch);
    free(image);
}

uint64_t qcow_size(const struct qcow_image *image)
{
    return image->layers[0].guest_size;
}

unsigned qcow_depth(const struct qcow_image *image)
{
    return image->n_layers;
}

const struct qcow_file *qcow_layer_file(const struct qcow_image *image, unsigned depth)
{
    return &image->layers[depth].file;
}
