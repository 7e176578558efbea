/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow/header.c: extensions, the backing name, and failures below. */
#include "qcow/header.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "qcow/format.h"
#include "tests/unit/qcow/faults.h"
#include "tests/unit/qcow/header_checks.h"

/* Extensions. */

static void skips_extensions_that_nobody_knows(void **state)
{
    (void)state;
    const struct image_extension list[] = {
        {0x11111111, "", 0},
        {0x22222222, "1234567", 7},
        {EXT_BACKING_FORMAT, "qcow2", 5},
        {0x33333333, "12345678", 8},
        {EXT_DATA_FILE, "data.raw", 8},
    };
    struct image image = tiny_with(INCOMPAT_DATA_FILE, list, 5);
    struct qcow_header hdr = expect_accepted(&image);
    assert_string_equal(hdr.backing_format, "qcow2");
    assert_string_equal(hdr.data_name, "data.raw");
    header_fini(&hdr);
}

static void version_2_has_extensions_too(void **state)
{
    (void)state;
    struct image image;
    image_create(&image, &(struct image_options){
                             .version = 2,
                             .guest_size = 512,
                             .extensions = &(struct image_extension){EXT_BACKING_FORMAT, "raw", 3},
                             .n_extensions = 1});
    struct qcow_header hdr = expect_accepted(&image);
    assert_string_equal(hdr.backing_format, "raw");
    header_fini(&hdr);
}

static void nothing_counts_after_the_end_mark(void **state)
{
    (void)state;
    const struct image_extension list[] = {{EXT_END, "", 0}, {EXT_BACKING_FORMAT, "raw", 3}};
    struct image image = tiny_with(0, list, 2);
    struct qcow_header hdr = expect_accepted(&image);
    assert_null(hdr.backing_format);
    header_fini(&hdr);
}

static void an_extension_may_end_where_the_cluster_ends(void **state)
{
    (void)state;
    struct image image = tiny(3, 9, 512);
    image_poke32(&image, 112, 0x12345678);
    image_poke32(&image, 116, 512 - 120);
    expect_plain_acceptance(&image);
    image = tiny(3, 9, 512);
    image_poke32(&image, 112, 0x12345678);
    image_poke32(&image, 116, 512 - 120 - 1); /* without its padding */
    expect_plain_acceptance(&image);
}

static void refuses_an_extension_past_the_cluster(void **state)
{
    (void)state;
    struct image image = tiny(3, 9, 512);
    image_poke32(&image, 112, 0x12345678);
    image_poke32(&image, 116, 512 - 120 + 1);
    expect_refused(&image, -EBADMSG,
                   "header extension 0x12345678 at 0x70 has 393 bytes, more than the 392 left");
}

static void refuses_extension_lengths_that_overflow(void **state)
{
    (void)state;
    struct image image = tiny(3, 9, 512);
    image_poke32(&image, 112, 0x12345678);
    image_poke32(&image, 116, 0xffffffff);
    expect_refused(&image, -EBADMSG, "has 4294967295 bytes");
    image = tiny(3, 9, 512);
    image_poke32(&image, 112, 0x12345678);
    image_poke32(&image, 116, 0x7ffffff9);
    expect_refused(&image, -EBADMSG, "has 2147483641 bytes");
}

static void extensions_end_before_the_backing_name(void **state)
{
    (void)state;
    struct image image = tiny(3, 9, 512);
    image_poke64(&image, HDR_BACKING_OFF, 128);
    image_poke32(&image, HDR_BACKING_LEN, 4);
    image_poke(&image, 128, "base", 4);
    image_poke32(&image, 112, 0x12345678);
    image_poke32(&image, 116, 8);
    struct qcow_header hdr = expect_accepted(&image);
    assert_string_equal(hdr.backing_name, "base");
    header_fini(&hdr);
    image = tiny(3, 9, 512);
    image_poke64(&image, HDR_BACKING_OFF, 128);
    image_poke32(&image, HDR_BACKING_LEN, 4);
    image_poke32(&image, 112, 0x12345678);
    image_poke32(&image, 116, 9);
    expect_refused(&image, -EBADMSG, "has 9 bytes, more than the 8 left");
}

static void a_backing_format_has_at_most_15_bytes(void **state)
{
    (void)state;
    struct image_extension ext = {EXT_BACKING_FORMAT, "fifteen-letters", 15};
    struct image image = tiny_with(0, &ext, 1);
    struct qcow_header hdr = expect_accepted(&image);
    assert_string_equal(hdr.backing_format, "fifteen-letters");
    header_fini(&hdr);
    ext = (struct image_extension){EXT_BACKING_FORMAT, "sixteen-letters!", 16};
    image = tiny_with(0, &ext, 1);
    expect_refused(&image, -EBADMSG, "backing format at 0x70 has 16 bytes");
}

static void of_two_extensions_of_a_kind_the_last_counts(void **state)
{
    (void)state;
    const struct image_extension list[] = {{EXT_BACKING_FORMAT, "raw", 3},
                                           {EXT_BACKING_FORMAT, "qcow2", 5},
                                           {EXT_DATA_FILE, "a", 1},
                                           {EXT_DATA_FILE, "b", 1}};
    struct image image = tiny_with(INCOMPAT_DATA_FILE, list, 4);
    struct qcow_header hdr = expect_accepted(&image);
    assert_string_equal(hdr.backing_format, "qcow2");
    assert_string_equal(hdr.data_name, "b");
    header_fini(&hdr);
}

/* The backing file's name. */

static struct image with_backing(unsigned cluster_bits, uint64_t off, uint32_t len)
{
    struct image image = tiny(3, cluster_bits, 512);
    char name[4096];
    memset(name, 'n', sizeof(name));
    image_poke64(&image, HDR_BACKING_OFF, off);
    image_poke32(&image, HDR_BACKING_LEN, len);
    if (off > 0 && off < image.cluster_size)
        image_poke(&image, off, name, len < image.cluster_size - off ? len : 0);
    return image;
}

static void a_backing_name_has_at_most_1023_bytes(void **state)
{
    (void)state;
    struct image image = with_backing(12, 128, 1023);
    struct qcow_header hdr = expect_accepted(&image);
    assert_int_equal(strlen(hdr.backing_name), 1023);
    header_fini(&hdr);
    image = with_backing(12, 128, 1024);
    expect_refused(&image, -EBADMSG, "backing file name at 0x80 has 1024 bytes");
}

static void a_backing_name_lies_in_the_first_cluster(void **state)
{
    (void)state;
    struct image image = with_backing(9, 508, 4);
    image_poke(&image, 508, "base", 4);
    struct qcow_header hdr = expect_accepted(&image);
    assert_string_equal(hdr.backing_name, "base");
    header_fini(&hdr);
    image = with_backing(9, 508, 5);
    expect_refused(&image, -EBADMSG, "backing file name at 0x1fc has 5 bytes");
    image = with_backing(9, 512, 1);
    expect_refused(&image, -EBADMSG, "backing file name at 0x200 has 1 bytes");
    image = with_backing(9, 513, 1);
    expect_refused(&image, -EBADMSG, "backing_file_offset at 0x8 is 0x201");
    image = with_backing(9, UINT64_MAX, 2);
    expect_refused(&image, -EBADMSG, "backing_file_offset at 0x8 is 0xffffffffffffffff");
}

static void refuses_a_backing_name_past_the_end_of_the_file(void **state)
{
    (void)state;
    struct image image = tiny(3, 16, 0);
    image_poke64(&image, HDR_L1_OFF, 0);
    image_poke64(&image, HDR_BACKING_OFF, 128);
    image_poke32(&image, HDR_BACKING_LEN, 4);
    image_truncate(&image, 132);
    expect_plain_acceptance(&image);
    image = tiny(3, 16, 0);
    image_poke64(&image, HDR_L1_OFF, 0);
    image_poke64(&image, HDR_BACKING_OFF, 128);
    image_poke32(&image, HDR_BACKING_LEN, 4);
    image_truncate(&image, 131);
    expect_refused(&image, -EBADMSG, "backing file name at 0x80 lies outside the 131-byte file");
}

static void a_backing_name_of_no_bytes_is_none(void **state)
{
    (void)state;
    struct image image = with_backing(9, 128, 0);
    struct qcow_header hdr = expect_accepted(&image);
    assert_null(hdr.backing_name);
    header_fini(&hdr);
    image = with_backing(9, 0, 1000);
    hdr = expect_accepted(&image);
    assert_null(hdr.backing_name);
    header_fini(&hdr);
}

static void a_backing_name_may_lie_within_the_header(void **state)
{
    (void)state;
    /* no room for extensions then, as in QEMU */
    struct image image = tiny(3, 9, 512);
    image_poke64(&image, HDR_BACKING_OFF, 16);
    image_poke32(&image, HDR_BACKING_LEN, 1);
    expect_plain_acceptance(&image);
}

/* Reading. */

static ssize_t fail_read(int fd, void *buf, size_t len, off_t host_off)
{
    (void)fd, (void)buf, (void)len, (void)host_off;
    errno = EIO;
    return -1;
}

static void a_host_read_error_is_eio(void **state)
{
    (void)state;
    struct image image = tiny(3, 9, 512);
    faults_pread = fail_read;
    struct qcow_header hdr;
    struct error err = {0};
    int r = read_header(&image, &hdr, &err);
    faults_pread = NULL;
    assert_int_equal(r, -EIO);
    assert_non_null(strstr(err.text, "at 0 failed"));
    image_destroy(&image);
}

static void each_failed_allocation_is_enomem(void **state)
{
    (void)state;
    const struct image_extension list[] = {{EXT_BACKING_FORMAT, "raw", 3},
                                           {EXT_DATA_FILE, "data", 4}};
    struct image image;
    image_create(&image, &(struct image_options){.guest_size = 512,
                                                 .incompatible = INCOMPAT_DATA_FILE,
                                                 .backing_name = "base",
                                                 .extensions = list,
                                                 .n_extensions = 2});
    for (int i = 0;; i++) {
        struct qcow_header hdr;
        faults_fail_allocation(i);
        int r = read_header(&image, &hdr, NULL);
        bool has_failed = faults_allocation_failed();
        faults_fail_allocation(-1);
        assert_int_equal(r, has_failed ? -ENOMEM : 0);
        if (!has_failed) {
            assert_int_equal(i, 4);
            header_fini(&hdr);
            break;
        }
    }
    image_destroy(&image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(skips_extensions_that_nobody_knows),
        cmocka_unit_test(version_2_has_extensions_too),
        cmocka_unit_test(nothing_counts_after_the_end_mark),
        cmocka_unit_test(an_extension_may_end_where_the_cluster_ends),
        cmocka_unit_test(refuses_an_extension_past_the_cluster),
        cmocka_unit_test(refuses_extension_lengths_that_overflow),
        cmocka_unit_test(extensions_end_before_the_backing_name),
        cmocka_unit_test(a_backing_format_has_at_most_15_bytes),
        cmocka_unit_test(of_two_extensions_of_a_kind_the_last_counts),
        cmocka_unit_test(a_backing_name_has_at_most_1023_bytes),
        cmocka_unit_test(a_backing_name_lies_in_the_first_cluster),
        cmocka_unit_test(refuses_a_backing_name_past_the_end_of_the_file),
        cmocka_unit_test(a_backing_name_of_no_bytes_is_none),
        cmocka_unit_test(a_backing_name_may_lie_within_the_header),
        cmocka_unit_test(a_host_read_error_is_eio),
        cmocka_unit_test(each_failed_allocation_is_enomem),
    };
    return cmocka_run_group_tests_name("qcow/header: extensions", tests, NULL, NULL);
}
