/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qcow/chain.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "qcow/base/bytes.h"
#include "qcow/base/cleanup.h"
#include "qcow/format.h"

static int open_data_file(struct qcow_image *image, struct layer *layer,
                          const struct qcow_opener *opener, struct error *err)
{
    if (!layer->hdr.data_name)
        return error_set(err, -EBADMSG,
                         "'%s': the image has an external data file but does not name it",
                         layer->file.name);
    struct qcow_ref ref = {
        .kind = QCOW_REF_DATA,
        .depth = image->n_layers,
        .name = layer->hdr.data_name,
        .format = "raw",
        .from = layer->file.name,
        .from_fd = layer->file.fd,
    };
    int r = opener->open_ref(opener->ctx, &ref, &layer->data_file, err);
    if (r < 0)
        return r;
    if (r > 0) {
        layer->data_file = (struct qcow_file){.fd = -1};
        return error_set(err, -EIO, "'%s': no answer for external data file '%s'", layer->file.name,
                         layer->hdr.data_name);
    }
    return source_init_file(&layer->data, &layer->data_file, cache_new_file_id(image->cache), err);
}

static int open_qcow2(struct qcow_image *image, struct layer *layer,
                      const struct qcow_opener *opener, struct error *err)
{
    int r = header_read(&layer->src, &layer->hdr, err);
    if (r < 0)
        return r;
    const struct qcow_header *hdr = &layer->hdr;
    if (hdr->crypt_method != CRYPT_NONE)
        return error_set(err, -ENOTSUP, "'%s': the image is encrypted (%s)", layer->file.name,
                         hdr->crypt_method == CRYPT_AES ? "AES" : "LUKS");
    layer->guest_size = hdr->guest_size;
    layer->l1_off = hdr->l1_off;
    layer->l1_entries = hdr->l1_entries;
    layer->shape = (struct cluster_shape){
        .version = hdr->version,
        .cluster_bits = hdr->cluster_bits,
        .has_extended_l2 = hdr->has_extended_l2,
        .has_data_file = hdr->has_data_file,
    };
    layer->data = layer->src;
    return hdr->has_data_file ? open_data_file(image, layer, opener, err) : 0;
}

int chain_open_layer(struct qcow_image *image, struct qcow_file *file,
                     const struct qcow_opener *opener, struct error *err)
{
    struct layer *layers = reallocarray(image->layers, image->n_layers + 1, sizeof(*layers));
    if (!layers) {
        qcow_file_close(file);
        return error_set(err, -ENOMEM, "out of memory");
    }
    image->layers = layers;
    struct layer *layer = &layers[image->n_layers];
    *layer = (struct layer){.file = *file, .data_file = {.fd = -1}};
    *file = (struct qcow_file){.fd = -1};
    int r = source_init_file(&layer->src, &layer->file, cache_new_file_id(image->cache), err);
    /* Nobody has such an image, and what watches the tables of one looks at its file. */
    if (r == 0 && layer->file.remote && layer->file.format != QCOW_FORMAT_RAW)
        r = error_set(err, -ENOTSUP, "'%s': only raw images are read from a remote",
                      layer->file.name);
    if (r == 0 && layer->file.format == QCOW_FORMAT_QCOW2)
        r = open_qcow2(image, layer, opener, err);
    if (r < 0) {
        chain_close_layer(image->cache, layer);
        return r;
    }
    if (layer->file.format == QCOW_FORMAT_RAW) {
        layer->data = layer->src;
        layer->guest_size = align_up(layer->src.host_size, SECTOR_SIZE);
    }
    image->n_layers++;
    return 0;
}

void chain_close_layer(struct qcow_cache *cache, struct layer *layer)
{
    cache_forget_file(cache, layer->src.id);
    qcow_file_close(&layer->file);
    qcow_file_close(&layer->data_file);
    header_fini(&layer->hdr);
}

/* Refuses a file that is in the chain already. */
static int check_loop(const struct qcow_image *image, const struct qcow_file *file,
                      struct error *err)
{
    struct stat mine, other;
    if (file->remote)
        return 0; /* raw: it ends the chain */
    if (fstat(file->fd, &mine) < 0)
        return error_set(err, -EIO, "cannot stat '%s': %s", file->name, strerrordesc_np(errno));
    for (unsigned i = 0; i < image->n_layers; i++) {
        const struct qcow_file *seen = &image->layers[i].file;
        if (fstat(seen->fd, &other) < 0)
            return error_set(err, -EIO, "cannot stat '%s': %s", seen->name, strerrordesc_np(errno));
        if (mine.st_dev == other.st_dev && mine.st_ino == other.st_ino)
            return error_set(err, -ELOOP, "'%s': backing file '%s' is '%s' again: a loop",
                             image->layers[image->n_layers - 1].file.name, file->name, seen->name);
    }
    return 0;
}

int chain_open(struct qcow_image *image, const struct qcow_opener *opener, struct error *err)
{
    for (;;) {
        const struct layer *last = &image->layers[image->n_layers - 1];
        if (last->file.format != QCOW_FORMAT_QCOW2)
            return 0;
        struct qcow_ref ref = {
            .kind = QCOW_REF_BACKING,
            .depth = image->n_layers - 1,
            .name = last->hdr.backing_name,
            .format = last->hdr.backing_format,
            .from = last->file.name,
            .from_fd = last->file.fd,
        };
        struct qcow_file file = {.fd = -1};
        int r = opener->open_ref(opener->ctx, &ref, &file, err);
        if (r != 0)
            return r < 0 ? r : 0;
        r = check_loop(image, &file, err);
        if (r == 0 && image->n_layers == CHAIN_DEPTH_MAX)
            r = error_set(err, -ELOOP, "'%s': the chain is deeper than %d images",
                          image->layers[0].file.name, CHAIN_DEPTH_MAX);
        if (r < 0) {
            qcow_file_close(&file);
            return r;
        }
        r = chain_open_layer(image, &file, opener, err);
        if (r < 0)
            return r;
    }
}

/*
 * A remote may know of zeros: then no buffer is filled with them, and they need not come out of one
 * when the kernel gets its answer.
 */
static void find_zeros(const struct source *src, uint64_t max_len, struct cluster_run *run)
{
    if (!src->remote || !src->remote->find_zeros || run->host_off >= src->host_size)
        return;
    uint64_t len = src->remote->find_zeros(src->remote->ctx, run->host_off, max_len);
    if (len > 0)
        *run = (struct cluster_run){.kind = CLUSTER_ZERO, .guest_len = len};
}

/* A raw layer has an answer for all its bytes; for a map, its file knows where holes are. */
static int find_raw_run(const struct layer *layer, uint64_t guest_off, uint64_t max_len,
                        enum table_grow grow, struct cluster_run *ret_run, struct error *err)
{
    *ret_run =
        (struct cluster_run){.kind = CLUSTER_DATA, .host_off = guest_off, .guest_len = max_len};
    if (grow == TABLE_GROW_CONTIGUOUS) {
        find_zeros(&layer->src, max_len, ret_run);
        return 0;
    }
    bool is_data;
    int r = source_map(&layer->src, guest_off, max_len, &is_data, &ret_run->guest_len, err);
    if (r == 0 && !is_data)
        ret_run->kind = CLUSTER_ZERO;
    return r;
}

int chain_find_extent(const struct qcow_image *image, uint64_t guest_off, uint64_t max_len,
                      enum table_grow grow, struct chain_extent *ret_extent, struct error *err)
{
    uint64_t len = max_len;
    for (unsigned i = 0; i < image->n_layers; i++) {
        const struct layer *layer = &image->layers[i];
        if (guest_off >= layer->guest_size)
            break; /* past the end of a short backing file: zeros, whatever lies below it */
        len = min_u64(len, layer->guest_size - guest_off);
        struct cluster_run run;
        int r;
        if (layer->file.format == QCOW_FORMAT_RAW)
            r = find_raw_run(layer, guest_off, len, grow, &run, err);
        else
            r = table_find_run(image->cache, layer, guest_off, len, grow, &run, err);
        if (r < 0)
            return r;
        if (run.kind != CLUSTER_UNALLOCATED) {
            *ret_extent = (struct chain_extent){.layer = layer, .run = run};
            return 0;
        }
        len = run.guest_len;
    }
    *ret_extent = (struct chain_extent){.run = {.kind = CLUSTER_UNALLOCATED, .guest_len = len}};
    return 0;
}
