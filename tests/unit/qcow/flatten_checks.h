/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the programs that test qcow/flatten.c share: a disk of any size that lies in no file, whose
 * bytes are made from where they are, and whose map is a function.
 */
#pragma once

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "qcow/base/bytes.h"
#include "qcow/flatten.h"
#include "tests/unit/qcow/read_checks.h"

enum { CLUSTER = 65536 };

struct disk {
    struct qcow_remote remote;
    uint64_t (*find_end)(uint64_t guest_off, bool *ret_is_data); /* of the run at that place */
    atomic_bool is_changed;                                      /* another map from now on */
    int code;                                                    /* what reads and maps answer */
};

/* Eight bytes tell where they are; never zero. */
static inline uint64_t disk_word(uint64_t guest_off)
{
    return (guest_off / 8 + 1) * 0x9e3779b97f4a7c15ULL | 1;
}

static inline void disk_fill(uint64_t guest_off, uint8_t *buf, size_t len)
{
    for (size_t i = 0; i < len; i++)
        buf[i] = (uint8_t)(disk_word(guest_off + i) >> (8 * ((guest_off + i) % 8)));
}

static inline int disk_read(void *ctx, uint64_t host_off, void *buf, size_t len, struct error *err)
{
    const struct disk *disk = ctx;
    uint8_t *to = buf;
    if (disk->code)
        return error_set(err, disk->code, "the disk is gone");
    while (len > 0) {
        bool is_data;
        size_t part = (size_t)min_u64(len, disk->find_end(host_off, &is_data) - host_off);
        if (is_data)
            disk_fill(host_off, to, part);
        else
            memset(to, 0, part);
        host_off += part;
        to += part;
        len -= part;
    }
    return 0;
}

static inline int disk_map(void *ctx, uint64_t host_off, uint64_t max_len, bool *ret_is_data,
                           uint64_t *ret_len, struct error *err)
{
    struct disk *disk = ctx;
    if (disk->code)
        return error_set(err, disk->code, "the disk is gone");
    *ret_len = min_u64(max_len, disk->find_end(host_off, ret_is_data) - host_off);
    /* A hole that was read: some file systems call it data from then on. */
    if (atomic_load(&disk->is_changed) && host_off < CLUSTER) {
        *ret_is_data = true;
        *ret_len = min_u64(max_len, CLUSTER - host_off);
    }
    return 0;
}

static inline void disk_close(void *ctx)
{
    (void)ctx;
}

/* Opens a disk of that many bytes; @disk lives longer. */
static inline struct qcow_image *disk_open(struct disk *disk, uint64_t guest_size,
                                           uint64_t (*find_end)(uint64_t, bool *))
{
    *disk = (struct disk){.find_end = find_end};
    disk->remote = (struct qcow_remote){.host_size = guest_size,
                                        .read = disk_read,
                                        .map = disk_map,
                                        .close = disk_close,
                                        .ctx = disk};
    struct qcow_file file = {
        .fd = -1, .format = QCOW_FORMAT_RAW, .name = strdup("disk"), .remote = &disk->remote};
    struct qcow_image *opened;
    struct error err = {0};
    if (qcow_open(&file, NULL, cache, NULL, &opened, &err) < 0)
        fail_msg("%s", err.text);
    return opened;
}

/* Maps. */

static inline uint64_t all_data(uint64_t guest_off, bool *ret_is_data)
{
    (void)guest_off;
    *ret_is_data = true;
    return UINT64_MAX;
}

static inline uint64_t no_data(uint64_t guest_off, bool *ret_is_data)
{
    (void)guest_off;
    *ret_is_data = false;
    return UINT64_MAX;
}

/* Every third cluster, beginning with the second. */
static inline uint64_t thirds(uint64_t guest_off, bool *ret_is_data)
{
    uint64_t idx = guest_off / CLUSTER;
    *ret_is_data = idx % 3 == 1;
    return (idx + (idx % 3 == 2 ? 2 : 1)) * CLUSTER;
}

static inline struct qcow_flat *flat_open(struct qcow_image *image, size_t map_len)
{
    struct qcow_flat *flat;
    struct error err = {0};
    if (qcow_flat_open(image, &(struct qcow_flat_options){.map_len = map_len}, &flat, &err) < 0)
        fail_msg("%s", err.text);
    return flat;
}

static inline void flat_read(const struct qcow_flat *flat, uint64_t off, void *buf, size_t len)
{
    struct error err = {0};
    if (qcow_flat_read(flat, off, buf, len, &err) != (ssize_t)len)
        fail_msg("%zu bytes at %#" PRIx64 ": %s", len, off, err.text);
}

static inline uint64_t flat_u64(const struct qcow_flat *flat, uint64_t off)
{
    uint8_t bytes[8];
    flat_read(flat, off, bytes, sizeof(bytes));
    return load_be64(bytes);
}

static inline uint32_t flat_u32(const struct qcow_flat *flat, uint64_t off)
{
    uint8_t bytes[4];
    flat_read(flat, off, bytes, sizeof(bytes));
    return load_be32(bytes);
}

/* The whole file in memory, as an image for the decoder. */
static inline struct qcow_image *flat_reopen(const struct qcow_flat *flat)
{
    size_t len = (size_t)qcow_flat_size(flat);
    int fd = memfd_create("flat", MFD_CLOEXEC);
    assert_true(fd >= 0 && ftruncate(fd, (off_t)len) == 0);
    uint8_t *bytes = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(bytes, MAP_FAILED);
    flat_read(flat, 0, bytes, len);
    munmap(bytes, len);
    struct qcow_file file = {.fd = fd, .format = QCOW_FORMAT_QCOW2, .name = strdup("flat")};
    static const struct image_answers none = {0};
    const struct qcow_opener opener = {.open_ref = image_answer, .ctx = (void *)&none};
    struct qcow_image *opened;
    struct error err = {0};
    if (qcow_open(&file, &opener, cache, NULL, &opened, &err) < 0)
        fail_msg("%s", err.text);
    return opened;
}

/* Both have the same bytes, all of them. */
static inline void expect_same_disk(struct qcow_image *a, struct qcow_image *b)
{
    static uint8_t left[1 << 20], right[1 << 20];
    uint64_t guest_size = qcow_size(a);
    assert_true(qcow_size(b) == guest_size);
    for (uint64_t at = 0; at < guest_size; at += sizeof(left)) {
        ssize_t n = qcow_read(a, at, left, sizeof(left), NULL);
        assert_true(n > 0 && qcow_read(b, at, right, sizeof(right), NULL) == n);
        assert_memory_equal(left, right, (size_t)n);
    }
}
