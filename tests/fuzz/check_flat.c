/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "qcow/base/bytes.h"
#include "qcow/flatten.h"
#include "qcow/format.h"
#include "tests/fuzz/check.h"

enum {
    FILE_LEN_MAX = 2 << 20, /* a longer one is looked at here and there */
    WALK_STEPS_MAX = 5000,  /* of a walk that a damaged table makes long */
    PIECE_MAX = 70000,
};

static uint8_t piece[PIECE_MAX], again[PIECE_MAX];

static bool is_enough(void *ctx)
{
    unsigned *n_left = ctx;
    return *n_left == 0 || --*n_left == 0;
}

static int no_ref(void *ctx, const struct qcow_ref *ref, struct qcow_file *ret_file,
                  struct error *err)
{
    (void)ctx;
    (void)ret_file;
    (void)err;
    fuzz_check(ref->kind == QCOW_REF_BACKING && !ref->name);
    return 1;
}

static uint64_t size_at(int fd, uint64_t off, size_t len)
{
    uint8_t raw[8];
    fuzz_check(pread(fd, raw, len, (off_t)off) == (ssize_t)len);
    return len == 8 ? load_be64(raw) : len == 4 ? load_be32(raw) : load_be16(raw);
}

/*
 * Not by the decoder: each cluster of the file belongs to one thing, each thing lies in the file,
 * and the refcounts say so. (The refcounts have 16 bits, and all tables are short here.)
 */
struct form {
    int fd;
    unsigned bits;
    uint64_t n_clusters;
    uint8_t *used;
};

static void use(struct form *form, uint64_t host_off, uint64_t n)
{
    fuzz_check((host_off & ((1ULL << form->bits) - 1)) == 0);
    uint64_t first = host_off >> form->bits;
    fuzz_check(first < form->n_clusters && n <= form->n_clusters - first);
    for (uint64_t i = first; i < first + n; i++) {
        fuzz_check(!form->used[i]);
        form->used[i] = 1;
    }
}

static uint64_t entry_off(uint64_t entry)
{
    fuzz_check((entry & ~(L2_COPIED | L2_OFF_MASK)) == 0);
    fuzz_check(!entry == !(entry & L2_COPIED));
    return entry & L2_OFF_MASK;
}

static void use_mapping(struct form *form)
{
    uint64_t cluster = 1ULL << form->bits;
    uint64_t l1_entries = size_at(form->fd, HDR_L1_ENTRIES, 4);
    uint64_t l1_off = size_at(form->fd, HDR_L1_OFF, 8);
    use(form, l1_off, (l1_entries * 8 + cluster - 1) >> form->bits);
    for (uint64_t i = 0; i < l1_entries; i++) {
        uint64_t l2_off = entry_off(size_at(form->fd, l1_off + i * 8, 8));
        if (!l2_off)
            continue;
        use(form, l2_off, 1);
        uint8_t *table = malloc(cluster);
        fuzz_check(table && pread(form->fd, table, cluster, (off_t)l2_off) == (ssize_t)cluster);
        for (uint64_t at = 0; at < cluster; at += 8) {
            uint64_t data_off = entry_off(load_be64(table + at));
            if (data_off)
                use(form, data_off, 1);
        }
        free(table);
    }
}

static void use_refcounts(struct form *form)
{
    uint64_t per_block = (1ULL << form->bits) / 2;
    uint64_t n_table = size_at(form->fd, HDR_REFTABLE_CLUSTERS, 4);
    uint64_t table_off = size_at(form->fd, HDR_REFTABLE_OFF, 8);
    use(form, table_off, n_table);
    for (uint64_t i = 0; i < form->n_clusters; i += per_block) {
        uint64_t block_off = size_at(form->fd, table_off + i / per_block * 8, 8);
        use(form, block_off, 1);
        for (uint64_t j = i; j < form->n_clusters && j < i + per_block; j++)
            fuzz_check(size_at(form->fd, block_off + (j - i) * 2, 2) == 1);
    }
}

void check_flat_form(int fd, uint64_t guest_size)
{
    struct form form = {.fd = fd, .bits = (unsigned)size_at(fd, HDR_CLUSTER_BITS, 4)};
    fuzz_check(form.bits >= 16 && form.bits <= 21);
    fuzz_check(size_at(fd, HDR_MAGIC, 4) == QCOW_MAGIC && size_at(fd, HDR_VERSION, 4) == 3);
    fuzz_check(size_at(fd, HDR_SIZE, 8) == guest_size);
    fuzz_check(size_at(fd, HDR_REFCOUNT_ORDER, 4) == 4 && size_at(fd, HDR_INCOMPATIBLE, 8) == 0);
    off_t end = lseek(fd, 0, SEEK_END);
    fuzz_check(end > 0 && is_aligned((uint64_t)end, 1ULL << form.bits));
    form.n_clusters = (uint64_t)end >> form.bits;
    form.used = calloc(1, form.n_clusters);
    fuzz_check(form.used);
    use(&form, 0, 1);
    use_mapping(&form);
    use_refcounts(&form);
    for (uint64_t i = 0; i < form.n_clusters; i++)
        fuzz_check(form.used[i]);
    free(form.used);
}

/* Both fail, or both give the same. */
static void compare_disks(struct qcow_image *image, struct qcow_image *copy, uint64_t guest_off,
                          size_t len)
{
    struct error err = {0};
    ssize_t n = qcow_read(image, guest_off, piece, len, &err);
    if (n < 0)
        fuzz_fail("the flat file could be read, but not %#" PRIx64 " of the disk: %s", guest_off,
                  err.text);
    fuzz_check(qcow_read(copy, guest_off, again, len, &err) == n);
    fuzz_check(memcmp(piece, again, (size_t)n) == 0);
}

static void compare_all(struct qcow_image *image, struct qcow_image *copy)
{
    uint64_t guest_size = qcow_size(image), at = 0;
    fuzz_check(qcow_size(copy) == guest_size);
    while (at < guest_size) {
        struct qcow_extent extent;
        struct error err = {0};
        fuzz_check(qcow_map(copy, at, guest_size - at, &extent, &err) == 0);
        if (extent.kind == QCOW_DATA) {
            for (uint64_t off = 0; off < extent.len; off += PIECE_MAX)
                compare_disks(image, copy, at + off, (size_t)min_u64(extent.len - off, PIECE_MAX));
        } else { /* what is left out has no data */
            compare_disks(image, copy, at, (size_t)min_u64(extent.len, 4096));
            compare_disks(image, copy, at + extent.len - min_u64(extent.len, 4096), 4096);
        }
        at += extent.len;
    }
}

/* The whole of the file into @fd, by pieces; false if some of its data cannot be read. */
static bool write_out(const struct qcow_flat *flat, int fd, uint64_t *state)
{
    uint64_t end = qcow_flat_size(flat);
    for (uint64_t at = 0; at < end;) {
        size_t len = 1 + (size_t)(fuzz_random(state) % (fuzz_random(state) % 2 ? 3000 : PIECE_MAX));
        struct error err = {0};
        ssize_t n = qcow_flat_read(flat, at, piece, len, &err);
        if (n < 0)
            return false;
        fuzz_check((uint64_t)n == min_u64(len, end - at));
        fuzz_check(pwrite(fd, piece, (size_t)n, (off_t)at) == n);
        at += (uint64_t)n;
    }
    return true;
}

static void check_written(struct qcow_image *image, struct qcow_cache *cache, int fd)
{
    static const struct qcow_opener opener = {.open_ref = no_ref};
    check_flat_form(fd, qcow_size(image));
    struct qcow_file file = {.fd = fcntl(fd, F_DUPFD_CLOEXEC, 0),
                             .format = QCOW_FORMAT_QCOW2,
                             .name = strdup("flat.qcow2")};
    struct qcow_image *copy;
    struct error err = {0};
    if (qcow_open(&file, &opener, cache, NULL, &copy, &err) < 0)
        fuzz_fail("cannot open the flat file: %s", err.text);
    compare_all(image, copy);
    qcow_close(copy);
}

/* A long file: pieces of the same place, in one and in two. */
static void check_some(const struct qcow_flat *flat, uint64_t *state)
{
    uint64_t end = qcow_flat_size(flat);
    for (int i = 0; i < 8; i++) {
        uint64_t at = fuzz_random(state) % end;
        size_t len = 2 + (size_t)(fuzz_random(state) % (PIECE_MAX - 2)), half = len / 2;
        struct error err = {0};
        ssize_t n = qcow_flat_read(flat, at, piece, len, &err);
        ssize_t first = qcow_flat_read(flat, at, again, half, &err);
        ssize_t second = qcow_flat_read(flat, at + half, again + half, len - half, &err);
        fuzz_check((n < 0) == (first < 0 || second < 0));
        fuzz_check(n < 0 || (n == first + second && memcmp(piece, again, (size_t)n) == 0));
    }
}

void check_flat(struct qcow_image *image, struct qcow_cache *cache, uint64_t seed)
{
    unsigned n_left = WALK_STEPS_MAX;
    struct qcow_flat_options options = {.is_cancelled = is_enough, .ctx = &n_left};
    if (seed % 4 == 0)
        options.map_len = 1024; /* most of it is looked up again */
    struct qcow_flat *flat;
    struct error err = {0};
    int r = qcow_flat_open(image, &options, &flat, &err);
    if (r < 0) {
        fuzz_check(r == err.code && err.text[0]);
        return;
    }
    fuzz_check(qcow_flat_size(flat) <= qcow_flat_max_size(qcow_size(image)));
    int fd = fuzz_file("flat", NULL, 0);
    if (qcow_flat_size(flat) > FILE_LEN_MAX)
        check_some(flat, &seed);
    else if (write_out(flat, fd, &seed))
        check_written(image, cache, fd);
    close(fd);
    qcow_flat_close(flat);
}
