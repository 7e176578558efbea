/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow/read.c: qcow_map(). */
#include "qcow/qcow.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/qcow/read_checks.h"

static atomic_int n_reads;

static ssize_t count_reads(int fd, void *buf, size_t len, off_t host_off)
{
    atomic_fetch_add(&n_reads, 1);
    return faults_real_pread(fd, buf, len, host_off);
}

/* Maps. */

static void a_map_tells_data_zeros_and_holes_apart(void **state)
{
    (void)state;
    struct image image = tiny(0);
    image_write(&image, 4096, 1);
    image_write_compressed(&image, 8192, COMPRESSION_ZLIB, 2);
    image_write(&image, 12288, 3);
    image_set_l2(&image, 16384, L2_ZERO);
    struct qcow_image *opened = image_open(&image, NULL, cache, NULL);
    expect_extent(opened, 0, 4096, QCOW_HOLE);
    expect_extent(opened, 100, 3996, QCOW_HOLE);
    expect_extent(opened, 4096, 3 * 4096, QCOW_DATA);
    expect_extent(opened, 8195, 2 * 4096 - 3, QCOW_DATA);
    expect_extent(opened, 16384, 4096, QCOW_ZERO);
    expect_extent(opened, 20480, (1 << 20) - 20480, QCOW_HOLE);
    qcow_close(opened);
    image_destroy(&image);
}

static void a_map_is_no_longer_than_asked_and_ends_with_the_disk(void **state)
{
    (void)state;
    struct image image = tiny(0);
    struct qcow_image *opened = image_open(&image, NULL, cache, NULL);
    struct qcow_extent extent;
    struct error err = {0};
    assert_int_equal(qcow_map(opened, 5, 7, &extent, NULL), 0);
    assert_true(extent.guest_off == 5 && extent.len == 7);
    assert_int_equal(qcow_map(opened, (1 << 20) - 1, 7, &extent, NULL), 0);
    assert_true(extent.len == 1);
    assert_int_equal(qcow_map(opened, 1 << 20, 7, &extent, &err), -ENXIO);
    assert_non_null(strstr(err.text, "0x100000 is past the end"));
    assert_int_equal(qcow_map(opened, UINT64_MAX, UINT64_MAX, &extent, NULL), -ENXIO);
    qcow_close(opened);
    image_destroy(&image);
}

static void a_map_joins_what_several_layers_hold(void **state)
{
    (void)state;
    struct image top = tiny(0), base = tiny(0);
    image_write(&top, 0, 1);
    image_write(&base, 4096, 2);
    image_write(&top, 8192, 3);
    image_set_l2(&top, 12288, L2_ZERO);
    image_write(&base, 12288, 4);
    image_set_l2(&base, 16384, L2_ZERO);
    struct image_answers answers = {.backing = {&base}};
    struct qcow_image *opened = image_open(&top, &answers, cache, NULL);
    expect_extent(opened, 0, 12288, QCOW_DATA);
    expect_extent(opened, 12288, 8192, QCOW_ZERO);
    expect_extent(opened, 20480, (1 << 20) - 20480, QCOW_HOLE);
    qcow_close(opened);
    image_destroy(&top), image_destroy(&base);
}

static void a_map_reads_no_data(void **state)
{
    (void)state;
    struct image image = tiny(0);
    image_write(&image, 0, 1);
    image_write_compressed(&image, 4096, COMPRESSION_ZLIB, 2);
    struct qcow_image *opened = image_open(&image, NULL, cache, NULL);
    atomic_store(&n_reads, 0);
    faults_pread = count_reads;
    expect_extent(opened, 0, 8192, QCOW_DATA);
    faults_pread = NULL;
    assert_in_range(n_reads, 1, 2); /* a slice of L1, a slice of L2 */
    qcow_close(opened);
    image_destroy(&image);
}

static void a_map_ends_before_damage_which_is_told_to_who_asks_there(void **state)
{
    (void)state;
    struct image image = tiny(0);
    image_write(&image, 0, 1);
    image_set_l2(&image, 4096, 0x4200);
    struct qcow_image *opened = image_open(&image, NULL, cache, NULL);
    expect_extent(opened, 0, 4096, QCOW_DATA);
    struct qcow_extent extent;
    struct error err = {0};
    assert_int_equal(qcow_map(opened, 4096, 1, &extent, &err), -EBADMSG);
    assert_string_equal(err.text, "'tiny.qcow2': L2 table at 0x3000: entry 1: entry 0x4200 has "
                                  "offset 0x4200, not aligned to the 4096-byte clusters");
    qcow_close(opened);
    image_destroy(&image);
}

static void holes_of_a_raw_image_are_its_files(void **state)
{
    (void)state;
    struct image raw;
    image_create_raw(&raw, "raw", 1000001);
    uint8_t bytes[65536];
    image_fill(bytes, sizeof(bytes), 1);
    image_poke(&raw, 131072, bytes, sizeof(bytes));
    struct qcow_image *opened = image_open(&raw, NULL, cache, NULL);
    struct qcow_extent extent;
    assert_int_equal(qcow_map(opened, 0, UINT64_MAX, &extent, NULL), 0);
    assert_int_not_equal(extent.kind, QCOW_DATA);
    assert_true(extent.len == 131072);
    expect_extent(opened, 131072, 65536, QCOW_DATA);
    expect_extent(opened, 131073, 65535, QCOW_DATA);
    assert_int_equal(qcow_map(opened, 196608, UINT64_MAX, &extent, NULL), 0);
    assert_int_not_equal(extent.kind, QCOW_DATA);
    assert_true(extent.len == 1000448 - 196608);
    qcow_close(opened);
    image_destroy(&raw);
}

static void data_at_the_end_of_a_raw_image_ends_with_the_file(void **state)
{
    (void)state;
    struct image raw;
    image_create_raw(&raw, "raw", 4097);
    uint8_t bytes[4097];
    image_fill(bytes, sizeof(bytes), 1);
    image_poke(&raw, 0, bytes, sizeof(bytes));
    struct qcow_image *opened = image_open(&raw, NULL, cache, NULL);
    struct qcow_extent extent;
    assert_int_equal(qcow_map(opened, 0, UINT64_MAX, &extent, NULL), 0);
    assert_int_equal(extent.kind, QCOW_DATA);
    assert_in_range(extent.len, 4097, 4608);
    expect_fill(opened, 0, 4097, 1, 0);
    expect_zeros(opened, 4097, 511);
    qcow_close(opened);
    image_destroy(&raw);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_map_tells_data_zeros_and_holes_apart),
        TEST(a_map_is_no_longer_than_asked_and_ends_with_the_disk),
        TEST(a_map_joins_what_several_layers_hold),
        TEST(a_map_reads_no_data),
        TEST(a_map_ends_before_damage_which_is_told_to_who_asks_there),
        TEST(holes_of_a_raw_image_are_its_files),
        TEST(data_at_the_end_of_a_raw_image_ends_with_the_file),
    };
    return cmocka_run_group_tests_name("qcow/read: maps", tests, NULL, NULL);
}
