/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Builds tiny images in memory (a memfd each), sound ones and damaged ones, field by field. It
 * shares no code with the decoder but the names of the fields. Numbers are in host byte order.
 * What goes wrong here is the test's own mistake and ends the program. One thread, unless said.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "qcow/qcow.h"

struct image {
    int fd; /* owned */
    enum qcow_format format;
    const char *name; /* for messages; borrowed */
    unsigned version, cluster_bits;
    bool has_extended_l2;
    uint64_t cluster_size, guest_size;
    uint64_t l1_off; /* the table that image_set_l2() and its like work on */
    uint32_t l1_entries;
    uint64_t ext_off; /* where the first header extension is */
    uint64_t end;     /* first free cluster of the file */
};

struct image_extension {
    uint32_t type;
    const void *data;
    uint32_t len;
};

/* Zero means the usual: version 3, 512-byte clusters, an L1 table as long as the disk needs. */
struct image_options {
    const char *name;
    unsigned version, cluster_bits;
    uint64_t guest_size;
    uint32_t l1_entries;
    uint64_t incompatible;
    uint8_t compression;
    uint32_t header_len; /* version 3: 112 */
    const char *backing_name;
    const struct image_extension *extensions;
    size_t n_extensions;
};

void image_create(struct image *image, const struct image_options *options);

/* A raw image of @host_size bytes, all of it a hole. */
void image_create_raw(struct image *image, const char *name, uint64_t host_size);
void image_destroy(struct image *image);

/* A file for the decoder, with a descriptor and a name of its own. */
struct qcow_file image_file(const struct image *image);

/* The host offset of @n fresh clusters of zeros. */
uint64_t image_alloc(struct image *image, uint64_t n);

void image_poke(const struct image *image, uint64_t host_off, const void *data, size_t len);
void image_poke8(const struct image *image, uint64_t host_off, uint8_t value);
void image_poke16(const struct image *image, uint64_t host_off, uint16_t value);
void image_poke32(const struct image *image, uint64_t host_off, uint32_t value);
void image_poke64(const struct image *image, uint64_t host_off, uint64_t value);
void image_truncate(const struct image *image, uint64_t host_size);

void image_set_l1(const struct image *image, uint64_t idx, uint64_t entry);

/* The host offset of the L2 entry for @guest_off; its table is made if there is none. */
uint64_t image_l2_place(struct image *image, uint64_t guest_off);
void image_set_l2(struct image *image, uint64_t guest_off, uint64_t entry);
void image_set_l2_extended(struct image *image, uint64_t guest_off, uint64_t entry,
                           uint64_t bitmap);

/* Bytes that tell both who wrote them and where in the buffer they belong; never all zeros. */
void image_fill(void *buf, size_t len, uint32_t seed);

/* Allocates a cluster for @guest_off and fills it; its host offset. */
uint64_t image_write(struct image *image, uint64_t guest_off, uint32_t seed);

/* Compresses a buffer as QEMU does; the length. @compression: 0 zlib, 1 zstd. */
size_t image_compress(unsigned compression, const void *in, size_t len, void *out, size_t room);

/* The L2 entry of compressed data at any @host_off. */
uint64_t image_compressed_entry(const struct image *image, uint64_t host_off, size_t len);

/* A compressed cluster for @guest_off, filled by @seed; its L2 entry. */
uint64_t image_write_compressed(struct image *image, uint64_t guest_off, unsigned compression,
                                uint32_t seed);

/* An internal snapshot; zero means: no extra data, empty strings. */
struct image_snapshot {
    const char *id, *name;
    uint64_t l1_off;
    uint32_t l1_entries;
    uint32_t sec, nsec;
    uint32_t vm_state_size;
    uint32_t extra_len; /* bytes of extra data: 0, 16 or 24, or another for a test of it */
    uint64_t vm_state_size_large, disk_size;
};

/* The entry's bytes with padding, at most @room; their number. */
size_t image_snapshot_entry(const struct image_snapshot *snapshot, uint8_t *buf, size_t room);

/* A table at @host_off that nothing refers to yet; its length. */
size_t image_put_snapshots(const struct image *image, uint64_t host_off,
                           const struct image_snapshot *snapshots, size_t n);

/* Points the header to a table, in one write of 12 bytes, as QEMU does. Any thread. */
void image_point_to_snapshots(const struct image *image, uint64_t host_off, uint32_t n);

/* Both of the above, in fresh clusters; the table's host offset. */
uint64_t image_add_snapshots(struct image *image, const struct image_snapshot *snapshots, size_t n);

/* What the decoder should make of @snapshot; the strings are borrowed. */
struct qcow_snapshot image_snapshot_view(const struct image *image,
                                         const struct image_snapshot *snapshot);

/* Answers references: backing files by depth of who asks, and one data file; 1 for the rest. */
enum { IMAGE_ANSWERS_MAX = 4 };
struct image_answers {
    const struct image *backing[IMAGE_ANSWERS_MAX];
    const struct image *data;
};
int image_answer(void *ctx, const struct qcow_ref *ref, struct qcow_file *ret_file,
                 struct error *err);

/* Opens with these answers (NULL: no references); a refusal ends the program. */
struct qcow_image *image_open(const struct image *image, const struct image_answers *answers,
                              struct qcow_cache *cache, const struct qcow_snapshot *snapshot);
