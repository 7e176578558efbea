/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow/read.c and source.c: what the file below does to a reader. */
#include "qcow/qcow.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "qcow/source.h"
#include "tests/unit/qcow/read_checks.h"

/* The end of the host's file. */

static void data_past_the_end_that_the_file_had_is_zeros(void **state)
{
    (void)state;
    struct image image = tiny(0);
    uint64_t host_off = image_write(&image, 0, 1);
    image_set_l2(&image, 4096, 0x800000);
    image_truncate(&image, host_off + 1000);
    struct qcow_image *opened = image_open(&image, NULL, cache, NULL);
    expect_fill(opened, 0, 1000, 1, 0);
    expect_zeros(opened, 1000, 3096);
    expect_zeros(opened, 4096, 4096);
    qcow_close(opened);
    image_destroy(&image);
}

static void a_file_truncated_while_open_is_eio_not_zeros(void **state)
{
    (void)state;
    struct image image = tiny(0);
    uint64_t host_off = image_write(&image, 0, 1);
    struct qcow_image *opened = image_open(&image, NULL, cache, NULL);
    expect_fill(opened, 0, 4096, 1, 0);
    image_truncate(&image, host_off + 1000);
    expect_fill(opened, 0, 1000, 1, 0);
    expect_refused(opened, 512, -EIO,
                   "the file was truncated while open: it had 20480 bytes and "
                   "ends at 0x43e8 now");
    image_truncate(&image, host_off);
    expect_refused(opened, 0, -EIO, "truncated while open");
    qcow_close(opened);
    image_destroy(&image);
}

static void a_raw_file_truncated_while_open_is_eio_not_zeros(void **state)
{
    (void)state;
    struct image raw;
    image_create_raw(&raw, "raw", 65536);
    struct qcow_image *opened = image_open(&raw, NULL, cache, NULL);
    image_truncate(&raw, 4096);
    expect_zeros(opened, 0, 4096);
    expect_refused(opened, 3900, -EIO, "'raw': the file was truncated while open");
    expect_refused(opened, 8192, -EIO, "'raw': the file was truncated while open");
    qcow_close(opened);
    image_destroy(&raw);
}

static void a_raw_file_truncated_while_open_has_no_hole_there(void **state)
{
    (void)state;
    /* else a copy that skips holes would be of zeros, and nobody told */
    struct image raw;
    image_create_raw(&raw, "raw", 65536);
    uint8_t bytes[65536];
    image_fill(bytes, sizeof(bytes), 1);
    image_poke(&raw, 0, bytes, sizeof(bytes));
    struct qcow_image *opened = image_open(&raw, NULL, cache, NULL);
    image_truncate(&raw, 4096);
    struct qcow_extent extent;
    struct error err = {0};
    int r = qcow_map(opened, 8192, UINT64_MAX, &extent, &err);
    assert_true(r == -EIO || (r == 0 && extent.kind == QCOW_DATA));
    qcow_close(opened);
    image_destroy(&raw);
}

static void what_a_raw_file_gained_while_open_is_no_part_of_the_disk(void **state)
{
    (void)state;
    struct image raw;
    image_create_raw(&raw, "raw", 4097);
    struct qcow_image *opened = image_open(&raw, NULL, cache, NULL);
    uint8_t bytes[4096];
    image_fill(bytes, sizeof(bytes), 1);
    image_poke(&raw, 4097, bytes, sizeof(bytes));
    assert_true(qcow_size(opened) == 4608);
    expect_zeros(opened, 4097, 511);
    struct qcow_extent extent;
    assert_int_equal(qcow_map(opened, 4097, UINT64_MAX, &extent, NULL), 0);
    assert_int_not_equal(extent.kind, QCOW_DATA);
    qcow_close(opened);
    image_destroy(&raw);
}

static void a_read_past_63_bits_is_damage_not_a_host_error(void **state)
{
    (void)state;
    struct image raw;
    image_create_raw(&raw, "raw", 512);
    struct source src;
    struct error err = {0};
    uint8_t buf[512];
    assert_int_equal(source_init(&src, raw.fd, raw.name, 1, NULL), 0);
    assert_int_equal(source_read(&src, INT64_MAX - 100, buf, 512, "L2 table", &err), -EBADMSG);
    assert_string_equal(err.text, "'raw': L2 table at 0x7fffffffffffff9b lies outside any file");
    image_destroy(&raw);
}

static void an_l2_table_cut_off_while_open_is_named(void **state)
{
    (void)state;
    struct image image = tiny(0);
    image_write(&image, 0, 1);
    struct qcow_image *opened = image_open(&image, NULL, cache, NULL);
    image_truncate(&image, 0x3000);
    expect_refused(opened, 0, -EBADMSG, "'tiny.qcow2': L2 table at 0x3000 (4096 bytes) lies");
    qcow_close(opened);
    image_destroy(&image);
}

static ssize_t fail_data(int fd, void *buf, size_t len, off_t host_off)
{
    if (host_off < 0x4000)
        return faults_real_pread(fd, buf, len, host_off);
    errno = EIO;
    return -1;
}

static void a_host_read_error_is_eio_and_does_not_stick(void **state)
{
    (void)state;
    struct image image = tiny(0);
    image_write(&image, 0, 1);
    image_write_compressed(&image, 4096, COMPRESSION_ZLIB, 2);
    struct qcow_image *opened = image_open(&image, NULL, cache, NULL);
    faults_pread = fail_data;
    expect_refused(opened, 0, -EIO, "'tiny.qcow2': reading 512 bytes at 0x4000 failed");
    expect_refused(opened, 4096, -EIO, "at 0x5000 failed");
    faults_pread = NULL;
    expect_fill(opened, 0, 4096, 1, 0);
    expect_fill(opened, 4096, 4096, 2, 0);
    qcow_close(opened);
    image_destroy(&image);
}

static ssize_t read_in_drips(int fd, void *buf, size_t len, off_t host_off)
{
    static int n;
    if (++n % 3 == 0) {
        errno = EINTR;
        return -1;
    }
    return faults_real_pread(fd, buf, len < 7 ? len : 7, host_off);
}

static void short_and_interrupted_reads_are_gone_on_with(void **state)
{
    (void)state;
    struct image image = tiny(0);
    image_write(&image, 0, 1);
    image_write_compressed(&image, 4096, COMPRESSION_ZLIB, 2);
    faults_pread = read_in_drips;
    struct qcow_image *opened = image_open(&image, NULL, cache, NULL);
    expect_fill(opened, 0, 4096, 1, 0);
    expect_fill(opened, 4096, 4096, 2, 0);
    qcow_close(opened);
    faults_pread = NULL;
    image_destroy(&image);
}

static void each_failed_allocation_is_enomem(void **state)
{
    (void)state;
    struct image image = tiny(0);
    image_write_compressed(&image, 0, COMPRESSION_ZLIB, 1);
    for (int i = 0;; i++) {
        struct qcow_image *opened = image_open(&image, NULL, cache, NULL);
        uint8_t buf[512];
        qcow_thread_release(); /* what the last round left to inflate with */
        faults_fail_allocation(i);
        ssize_t n = qcow_read(opened, 0, buf, sizeof(buf), NULL);
        bool has_failed = faults_allocation_failed();
        faults_fail_allocation(-1);
        qcow_close(opened);
        assert_int_equal(n, has_failed ? -ENOMEM : 512);
        if (!has_failed) {
            assert_int_equal(i, 5);
            break;
        }
    }
    image_destroy(&image);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(data_past_the_end_that_the_file_had_is_zeros),
        TEST(a_file_truncated_while_open_is_eio_not_zeros),
        TEST(a_raw_file_truncated_while_open_is_eio_not_zeros),
        TEST(a_raw_file_truncated_while_open_has_no_hole_there),
        TEST(what_a_raw_file_gained_while_open_is_no_part_of_the_disk),
        TEST(a_read_past_63_bits_is_damage_not_a_host_error),
        TEST(an_l2_table_cut_off_while_open_is_named),
        TEST(a_host_read_error_is_eio_and_does_not_stick),
        TEST(short_and_interrupted_reads_are_gone_on_with),
        TEST(each_failed_allocation_is_enomem),
    };
    return cmocka_run_group_tests_name("qcow/read: host file", tests, NULL, NULL);
}
