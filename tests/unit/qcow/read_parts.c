/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow/read.c: what goes past the buffer or past the cache, and several threads for one read. */
#include <errno.h>
#include <stdio.h>

#include "tests/unit/qcow/read_checks.h"

enum { CLUSTER = 4096, N_CLUSTERS = 100, ALL = N_CLUSTERS * CLUSTER };

/* What qcow_read_parts() gave, as one buffer; how many bytes of it were not in @buf. */
static size_t gather(const struct qcow_parts *parts, const uint8_t *buf, size_t len, uint8_t *out)
{
    size_t at = 0, n_elsewhere = 0;
    assert_in_range(parts->n, 0, QCOW_PARTS_MAX);
    for (int i = 0; i < parts->n; i++) {
        const uint8_t *base = parts->iov[i].iov_base;
        size_t n = parts->iov[i].iov_len;
        assert_true(n > 0 && n <= len - at);
        memcpy(out + at, base, n);
        if (base < buf || base >= buf + len)
            n_elsewhere += n;
        else
            assert_ptr_equal(base, buf + at);
        at += n;
    }
    assert_true(at == len);
    return n_elsewhere;
}

static void expect_parts(struct qcow_image *opened, uint64_t guest_off, size_t len,
                         const uint8_t *expected, size_t n_elsewhere)
{
    uint8_t *buf = malloc(len), *out = malloc(len);
    struct qcow_parts parts;
    struct error err = {0};
    memset(buf, 0xee, len);
    if (qcow_read_parts(opened, guest_off, buf, len, &parts, &err) != (ssize_t)len)
        fail_msg("%s", err.text);
    assert_true(gather(&parts, buf, len, out) == n_elsewhere);
    assert_memory_equal(out, expected, len);
    free(buf);
    free(out);
}

static void long_zeros_are_not_written(void **state)
{
    (void)state;
    struct image image = tiny(0);
    uint8_t *expected = calloc(1, ALL);
    const unsigned data[] = {0, 1, 4, 60, 62, 99}; /* zeros of 2 and of 1 are short */
    for (size_t i = 0; i < sizeof(data) / sizeof(data[0]); i++) {
        image_write(&image, data[i] * CLUSTER, data[i]);
        image_fill(expected + data[i] * CLUSTER, CLUSTER, data[i]);
    }
    image_set_l2(&image, 20 * CLUSTER, L2_ZERO);
    struct qcow_image *opened = image_open(&image, NULL, cache, NULL);
    expect_parts(opened, 0, ALL, expected, (54 + 36) * CLUSTER); /* cluster 20 is short */
    expect_parts(opened, 100, 4 * CLUSTER, expected + 100, 0);
    expect_parts(opened, 30 * CLUSTER + 1, 20 * CLUSTER, expected + 30 * CLUSTER + 1, 20 * CLUSTER);
    struct qcow_parts parts;
    uint8_t byte;
    assert_int_equal(qcow_read_parts(opened, 1 << 20, &byte, 1, &parts, NULL), 0);
    assert_int_equal(parts.n, 0);
    qcow_close(opened);
    image_destroy(&image);
    free(expected);
}

/* More changes between data and long zeros than there are parts. */
static void too_many_parts_are_written(void **state)
{
    (void)state;
    enum { STRIDE = 5 * CLUSTER, N = 51 };
    struct image image = tiny(0);
    uint8_t *expected = calloc(1, N * STRIDE);
    for (unsigned i = 0; i < N; i++) {
        image_write(&image, i * STRIDE, i);
        image_fill(expected + i * STRIDE, CLUSTER, i);
    }
    struct qcow_image *opened = image_open(&image, NULL, cache, NULL);
    expect_parts(opened, 0, N * STRIDE, expected, (QCOW_PARTS_MAX / 2 - 1) * 4 * CLUSTER);
    qcow_close(opened);
    image_destroy(&image);
    free(expected);
}

/* Compressed clusters with seeds from 0 on; the guest bytes go to @expected. */
static struct image compressed(unsigned compression, uint8_t *expected)
{
    struct image image = tiny(compression ? INCOMPAT_COMPRESSION : 0);
    for (unsigned i = 0; i < N_CLUSTERS; i++) {
        image_write_compressed(&image, i * CLUSTER, compression, i);
        image_fill(expected + i * CLUSTER, CLUSTER, i);
    }
    return image;
}

static void threads_unpack_one_read(void **state)
{
    (void)state;
    uint8_t *expected = malloc(ALL);
    for (unsigned compression = 0; compression < 2; compression++) {
        struct image image = compressed(compression, expected);
        assert_int_equal(qcow_cache_set_threads(cache, 4, NULL), 0);
        struct qcow_image *opened = image_open(&image, NULL, cache, NULL);
        size_t used = qcow_cache_used(cache);
        expect_parts(opened, 0, ALL, expected, 0);
        assert_true(qcow_cache_used(cache) - used < CLUSTER * 4); /* tables, no cluster */
        expect_parts(opened, 5, ALL - 9, expected + 5, 0);
        qcow_close(opened);
        image_destroy(&image);
    }
    free(expected);
}

/* What a small read has left in the cache is not inflated again. */
static void a_whole_cluster_may_come_from_the_cache(void **state)
{
    (void)state;
    uint8_t *expected = malloc(ALL);
    struct image image = compressed(COMPRESSION_ZLIB, expected);
    struct qcow_image *opened = image_open(&image, NULL, cache, NULL);
    expect_parts(opened, 3 * CLUSTER + 7, 1, expected + 3 * CLUSTER + 7, 0);
    image_truncate(&image, CLUSTER); /* the tables are in the cache, too */
    expect_parts(opened, 3 * CLUSTER, CLUSTER, expected + 3 * CLUSTER, 0);
    uint8_t buf[CLUSTER];
    assert_int_equal(qcow_read(opened, 4 * CLUSTER, buf, CLUSTER, NULL), -EIO);
    qcow_close(opened);
    image_destroy(&image);
    free(expected);
}

/* The first damaged cluster is told, whichever thread was first to find one. */
static void the_first_damage_is_told(void **state)
{
    (void)state;
    uint8_t *expected = malloc(ALL), *buf = malloc(ALL);
    struct image image = compressed(COMPRESSION_ZLIB, expected);
    const uint8_t junk[64] = {0xff, 0xff, 0xff};
    uint64_t first = 0;
    for (unsigned i = 40; i < 60; i += 7) {
        image_set_l2(&image, i * CLUSTER,
                     image_compressed_entry(&image, image_alloc(&image, 1), sizeof(junk)));
        image_poke(&image, image.end - image.cluster_size, junk, sizeof(junk));
        if (i == 40)
            first = image.end - image.cluster_size;
    }
    assert_int_equal(qcow_cache_set_threads(cache, 4, NULL), 0);
    struct qcow_image *opened = image_open(&image, NULL, cache, NULL);
    char place[64];
    snprintf(place, sizeof(place), "compressed cluster at %#llx", (unsigned long long)first);
    for (int i = 0; i < 20; i++) {
        struct error err = {0};
        assert_int_equal(qcow_read(opened, 0, buf, ALL, &err), -EBADMSG);
        assert_non_null(strstr(err.text, place));
    }
    qcow_close(opened);
    image_destroy(&image);
    free(expected);
    free(buf);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(long_zeros_are_not_written), TEST(too_many_parts_are_written),
        TEST(threads_unpack_one_read),    TEST(a_whole_cluster_may_come_from_the_cache),
        TEST(the_first_damage_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
