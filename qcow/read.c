/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Guest range -> extents -> bytes, and the same without the bytes: qcow_read and qcow_map. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "qcow/base/bytes.h"
#include "qcow/base/cleanup.h"
#include "qcow/chain.h"
#include "qcow/image_internal.h"
#include "qcow/inflate.h"
#include "qcow/qcow.h"

struct inflate_load {
    const struct layer *layer;
    const struct cluster_run *run;
};

static int load_inflated(void *ctx, uint8_t *buf, size_t len, struct error *err)
{
    const struct inflate_load *load = ctx;
    const struct layer *layer = load->layer;
    const struct cluster_run *run = load->run;
    auto_free uint8_t *packed = malloc(run->host_len);
    if (!packed)
        return error_set(err, -ENOMEM, "out of memory");
    int r = source_read_data(&layer->src, run->host_off, packed, run->host_len, err);
    if (r == 0)
        r = inflate_cluster(layer->hdr.compression, packed, run->host_len, buf, len, err);
    if (r == -EBADMSG)
        error_prefix(err,
                     "'%s': L2 entry %#" PRIx64 ": compressed cluster at %#" PRIx64 " (%" PRIu64
                     " bytes)",
                     layer->file.name, run->descriptor, run->host_off, run->host_len);
    return r;
}

static int read_compressed(const struct qcow_image *image, const struct chain_extent *extent,
                           uint64_t guest_off, void *buf, size_t len, struct error *err)
{
    const struct layer *layer = extent->layer;
    struct inflate_load load = {.layer = layer, .run = &extent->run};
    struct cache_key key = {
        .file_id = layer->src.id, .host_off = extent->run.descriptor, .kind = CACHE_INFLATED};
    struct cache_ref ref;
    int r = cache_get(image->cache, &key, layer->hdr.cluster_size, load_inflated, &load, &ref, err);
    if (r < 0)
        return r;
    memcpy(buf, ref.data + (guest_off & (layer->hdr.cluster_size - 1)), len);
    cache_put(image->cache, &ref);
    return 0;
}

static int read_extent(const struct qcow_image *image, const struct chain_extent *extent,
                       uint64_t guest_off, void *buf, size_t len, struct error *err)
{
    switch (extent->run.kind) {
    case CLUSTER_UNALLOCATED:
    case CLUSTER_ZERO:
        memset(buf, 0, len);
        return 0;
    case CLUSTER_DATA:
        return source_read_data(&extent->layer->data, extent->run.host_off, buf, len, err);
    case CLUSTER_COMPRESSED:
        return read_compressed(image, extent, guest_off, buf, len, err);
    }
    abort();
}

static int read_range(const struct qcow_image *image, uint64_t guest_off, uint8_t *buf, size_t len,
                      struct error *err)
{
    while (len > 0) {
        struct chain_extent extent;
        int r = chain_find_extent(image, guest_off, len, TABLE_GROW_CONTIGUOUS, &extent, err);
        if (r < 0)
            return r;
        size_t part = (size_t)min_u64(len, extent.run.guest_len);
        r = read_extent(image, &extent, guest_off, buf, part, err);
        if (r < 0)
            return r;
        guest_off += part;
        buf += part;
        len -= part;
    }
    return 0;
}

/*
 * What was found in a snapshot counts only if the snapshot is still there: after its deletion the
 * clusters, tables too, may hold anything. So damage seen then is no damage either.
 */
static int confirm(struct qcow_image *image, int result, struct error *err)
{
    if (!image->is_watched)
        return result;
    struct error gone = {0};
    int r = snapshot_watch_check(&image->watch, &image->layers[0].src, &gone);
    if (r < 0 && (result == 0 || r == -ESTALE))
        return error_set(err, r, "%s", gone.text);
    return result;
}

ssize_t qcow_read(struct qcow_image *image, uint64_t guest_off, void *buf, size_t len,
                  struct error *err)
{
    uint64_t guest_size = qcow_size(image);
    if (guest_off >= guest_size)
        return 0;
    len = (size_t)min_u64(len, guest_size - guest_off);
    int r = confirm(image, read_range(image, guest_off, buf, len, err), err);
    return r < 0 ? r : (ssize_t)len;
}

static enum qcow_extent_kind extent_kind(const struct chain_extent *extent)
{
    switch (extent->run.kind) {
    case CLUSTER_UNALLOCATED:
        return QCOW_HOLE;
    case CLUSTER_ZERO:
        return QCOW_ZERO;
    case CLUSTER_DATA:
    case CLUSTER_COMPRESSED:
        return QCOW_DATA;
    }
    abort();
}

enum { MAP_STEPS_MAX = 64 }; /* then the caller has its say; see qcow.h */

/*
 * How far one step may go. In a chain, a top layer that has nothing there would else be walked
 * far ahead again for each fragment of the layers below.
 */
#define MAP_STEP_IN_CHAIN (1ULL << 30)

static int map_step(const struct qcow_image *image, uint64_t guest_off, uint64_t max_len,
                    struct chain_extent *ret_found, struct error *err)
{
    if (image->n_layers > 1)
        max_len = min_u64(max_len, MAP_STEP_IN_CHAIN);
    return chain_find_extent(image, guest_off, max_len, TABLE_GROW_KIND, ret_found, err);
}

static int map_range(const struct qcow_image *image, uint64_t guest_off, uint64_t max_len,
                     struct qcow_extent *ret_extent, struct error *err)
{
    struct chain_extent found;
    int r = map_step(image, guest_off, max_len, &found, err);
    if (r < 0)
        return r;
    *ret_extent = (struct qcow_extent){
        .guest_off = guest_off, .len = found.run.guest_len, .kind = extent_kind(&found)};
    for (int n = 1; n < MAP_STEPS_MAX && ret_extent->len < max_len; n++) {
        r = map_step(image, guest_off + ret_extent->len, max_len - ret_extent->len, &found, NULL);
        if (r < 0 || extent_kind(&found) != ret_extent->kind)
            break; /* what is damaged further on is told to whoever asks there */
        ret_extent->len += found.run.guest_len;
    }
    return 0;
}

int qcow_map(struct qcow_image *image, uint64_t guest_off, uint64_t max_len,
             struct qcow_extent *ret_extent, struct error *err)
{
    uint64_t guest_size = qcow_size(image);
    if (guest_off >= guest_size || max_len == 0)
        return error_set(err, -ENXIO, "offset %#" PRIx64 " is past the end of the disk", guest_off);
    max_len = min_u64(max_len, guest_size - guest_off);
    struct qcow_extent extent;
    int r = confirm(image, map_range(image, guest_off, max_len, &extent, err), err);
    if (r == 0)
        *ret_extent = extent;
    return r;
}
