/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qcow/l1_check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "qcow/base/bytes.h"
#include "qcow/base/cleanup.h"
#include "qcow/format.h"

enum { PIECE_LEN = 64 << 10 };

static uint64_t count_tables(const uint8_t *entries, size_t len)
{
    uint64_t n = 0;
    for (size_t at = 0; at < len; at += L1_ENTRY_LEN)
        n += (load_be64(entries + at) & L1_OFF_MASK) != 0;
    return n;
}

static int check_layer(const struct layer *layer, uint8_t *piece, struct error *err)
{
    /* Entries past the end of the disk are not walked. */
    uint64_t needed = header_l1_needed(&layer->hdr, layer->guest_size);
    uint64_t len = min_u64(layer->l1_entries, needed) * L1_ENTRY_LEN;
    uint64_t n_clusters = layer->src.host_size >> layer->hdr.cluster_bits;
    uint64_t n_tables = 0;
    for (uint64_t at = 0; at < len && n_tables <= n_clusters; at += PIECE_LEN) {
        size_t part = (size_t)min_u64(len - at, PIECE_LEN);
        int r = source_read(&layer->src, layer->l1_off + at, piece, part, "L1 table", err);
        if (r < 0)
            return r;
        n_tables += count_tables(piece, part);
    }
    if (n_tables <= n_clusters)
        return 0;
    return error_set(err, -EBADMSG,
                     "'%s': L1 table at %#" PRIx64 " (%" PRIu32
                     " entries) names more L2 tables than the file has clusters (%" PRIu64 ")",
                     layer->file.name, layer->l1_off, layer->l1_entries, n_clusters);
}

int l1_check(struct qcow_image *image, struct error *err)
{
    auto_free uint8_t *piece = malloc(PIECE_LEN);
    if (!piece)
        return error_set(err, -ENOMEM, "out of memory");
    int r = 0;
    for (unsigned i = 0; i < image->n_layers && r == 0; i++)
        if (image->layers[i].file.format == QCOW_FORMAT_QCOW2)
            r = check_layer(&image->layers[i], piece, err);
    if (r != -EBADMSG || !image->is_watched)
        return r;
    /* The clusters of a snapshot that is gone may hold anything. */
    struct error gone = {0};
    int watched = snapshot_watch_check(&image->watch, &image->layers[0].src, &gone);
    return watched == -ESTALE ? error_set(err, watched, "%s", gone.text) : r;
}

int qcow_check_walk(struct qcow_image *image, struct error *err)
{
    if (atomic_load(&image->is_walkable))
        return 0;
    int r = l1_check(image, err);
    if (r == 0)
        atomic_store(&image->is_walkable, true);
    return r;
}
