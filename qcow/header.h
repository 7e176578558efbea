/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The header of a qcow2 image and its extensions, as a checked struct. Every header check lives
 * here. Any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "qcow/source.h"

struct qcow_header {
    unsigned version; /* 2 or 3 */
    unsigned cluster_bits;
    uint32_t cluster_size;
    uint64_t guest_size; /* rounded down to whole sectors, as QEMU does */
    uint64_t l1_off;
    uint32_t l1_entries;
    uint32_t n_snapshots;
    uint64_t snapshots_off;
    uint32_t crypt_method;
    unsigned compression; /* COMPRESSION_ZLIB or COMPRESSION_ZSTD */
    bool is_dirty, is_corrupt;
    bool has_extended_l2;
    bool has_data_file;
    char *backing_name;   /* owned; NULL if none */
    char *backing_format; /* owned; NULL if not recorded */
    char *data_name;      /* owned; NULL if not recorded */
};

/*
 * Reads and checks header and extensions; nothing else of the image is touched.
 *
 * 0; -EBADMSG (no qcow2 image, damaged or beyond QEMU's limits: the text says which field, where
 * and its value); -ENOTSUP (another version, an unknown incompatible feature, by its name from
 * the feature name table); -EIO; -ENOMEM. Encryption is not refused here.
 * Spec: "Header", "Header extensions".
 */
int header_read(const struct source *src, struct qcow_header *ret_hdr, struct error *err);
void header_fini(struct qcow_header *hdr);

/*
 * Checks that a table lies where a table may lie: aligned to clusters, not too long, within
 * 63 bits. 0 or -EBADMSG. (What lies past the end of the file is found when it is read.)
 */
int header_check_table(const struct qcow_header *hdr, const char *image, const char *what,
                       uint64_t host_off, uint64_t entries, uint64_t entry_len, uint64_t max_bytes,
                       struct error *err);

/* Number of L1 entries that a disk of @guest_size needs. */
uint64_t header_l1_needed(const struct qcow_header *hdr, uint64_t guest_size);

/* Bytes of an L2 entry, and guest bytes that one L2 table covers, as powers of two. */
unsigned header_l2_entry_len(const struct qcow_header *hdr);
unsigned header_l2_bits(const struct qcow_header *hdr);
