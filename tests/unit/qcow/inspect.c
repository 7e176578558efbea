/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "qcow/format.h"
#include "qcow/qcow.h"
#include "tests/lib/image.h"
#include "tests/unit/qcow/faults.h"

static const struct image_snapshot first = {
    .id = "1", .name = "first", .l1_off = 0x5000, .l1_entries = 1, .sec = 1};
static const struct image_snapshot second = {
    .id = "2", .name = "second", .l1_off = 0x6000, .l1_entries = 1, .sec = 2};

static struct image image; /* for the hooks, which know no context */

static int inspect(struct qcow_info *info, struct error *err)
{
    struct qcow_file file = image_file(&image);
    int r = qcow_inspect(&file, info, err);
    close(file.fd);
    free(file.name);
    return r;
}

static struct qcow_info inspected(void)
{
    struct qcow_info info;
    struct error err = {0};
    if (inspect(&info, &err) != 0)
        fail_msg("refused: %s", err.text);
    return info;
}

static void tiny(void)
{
    image_create(&image, &(struct image_options){.cluster_bits = 12, .guest_size = 1 << 20});
}

static void tells_header_references_and_snapshots(void **state)
{
    (void)state;
    const struct image_extension list[] = {{EXT_BACKING_FORMAT, "raw", 3},
                                           {EXT_DATA_FILE, "disk.raw", 8}};
    image_create(&image, &(struct image_options){.cluster_bits = 12,
                                                 .guest_size = 1 << 20,
                                                 .incompatible = INCOMPAT_DIRTY | INCOMPAT_CORRUPT |
                                                                 INCOMPAT_DATA_FILE,
                                                 .backing_name = "base.raw",
                                                 .extensions = list,
                                                 .n_extensions = 2});
    const struct image_snapshot both[] = {first, second};
    image_add_snapshots(&image, both, 2);
    struct qcow_info info = inspected();
    assert_true(info.guest_size == 1 << 20);
    assert_int_equal(info.cluster_size, 4096);
    assert_int_equal(info.version, 3);
    assert_false(info.is_encrypted);
    assert_true(info.is_dirty);
    assert_true(info.is_corrupt);
    assert_string_equal(info.backing_name, "base.raw");
    assert_string_equal(info.backing_format, "raw");
    assert_string_equal(info.data_name, "disk.raw");
    assert_int_equal(info.n_snapshots, 2);
    assert_string_equal(info.snapshots[0].name, "first");
    assert_string_equal(info.snapshots[1].name, "second");
    qcow_info_fini(&info);
    assert_int_equal(info.n_snapshots, 0);
    qcow_info_fini(&info);
    image_destroy(&image);
}

static void tells_what_is_not_there(void **state)
{
    (void)state;
    image_create(&image, &(struct image_options){.version = 2, .guest_size = 1000});
    struct qcow_info info = inspected();
    assert_int_equal(info.version, 2);
    assert_true(info.guest_size == 512);
    assert_false(info.is_dirty || info.is_corrupt || info.is_encrypted);
    assert_null(info.backing_name);
    assert_null(info.backing_format);
    assert_null(info.data_name);
    assert_int_equal(info.n_snapshots, 0);
    qcow_info_fini(&info);
    image_destroy(&image);
}

static void a_data_file_without_its_feature_bit_is_none(void **state)
{
    (void)state;
    image_create(&image, &(struct image_options){
                             .guest_size = 512,
                             .extensions = &(struct image_extension){EXT_DATA_FILE, "disk.raw", 8},
                             .n_extensions = 1});
    struct qcow_info info = inspected();
    assert_null(info.data_name);
    qcow_info_fini(&info);
    image_destroy(&image);
}

static void encryption_is_told_not_refused(void **state)
{
    (void)state;
    tiny();
    image_poke32(&image, HDR_CRYPT, CRYPT_LUKS);
    struct qcow_info info = inspected();
    assert_true(info.is_encrypted);
    qcow_info_fini(&info);
    image_destroy(&image);
}

static void a_raw_image_has_a_size_in_whole_sectors(void **state)
{
    (void)state;
    image_create_raw(&image, "raw", 1001);
    image_poke(&image, 0, "QFI\xfb", 4);
    struct qcow_info info = inspected();
    assert_true(info.guest_size == 1024);
    assert_int_equal(info.version, 0);
    assert_int_equal(info.n_snapshots, 0);
    qcow_info_fini(&info);
    image_destroy(&image);
}

static void refuses_what_is_damaged_and_says_where(void **state)
{
    (void)state;
    struct qcow_info info;
    struct error err = {0};
    tiny();
    image_poke32(&image, HDR_CLUSTER_BITS, 8);
    assert_int_equal(inspect(&info, &err), -EBADMSG);
    assert_non_null(strstr(err.text, "cluster_bits at 0x14 is 8"));
    image_destroy(&image);
    tiny();
    image_point_to_snapshots(&image, 0x100000, 1);
    assert_int_equal(inspect(&info, &err), -EBADMSG);
    assert_non_null(strstr(err.text, "snapshot table at 0x100000"));
    image_destroy(&image);
    tiny();
    image_truncate(&image, 71);
    assert_int_equal(inspect(&info, &err), -EBADMSG);
    assert_non_null(strstr(err.text, "71 bytes are too few"));
    image_destroy(&image);
    tiny();
    image_poke32(&image, HDR_VERSION, 1);
    assert_int_equal(inspect(&info, &err), -ENOTSUP);
    assert_non_null(strstr(err.text, "version 1"));
    image_destroy(&image);
}

static ssize_t fail_reads(int fd, void *buf, size_t len, off_t host_off)
{
    (void)fd, (void)buf, (void)len, (void)host_off;
    errno = EIO;
    return -1;
}

static void a_host_read_error_is_eio(void **state)
{
    (void)state;
    struct qcow_info info;
    tiny();
    faults_pread = fail_reads;
    int r = inspect(&info, NULL);
    faults_pread = NULL;
    assert_int_equal(r, -EIO);
    image_destroy(&image);
}

static void each_failed_allocation_is_enomem(void **state)
{
    (void)state;
    const struct image_extension list[] = {{EXT_BACKING_FORMAT, "raw", 3},
                                           {EXT_DATA_FILE, "disk.raw", 8}};
    image_create(&image, &(struct image_options){.cluster_bits = 12,
                                                 .guest_size = 1 << 20,
                                                 .incompatible = INCOMPAT_DATA_FILE,
                                                 .backing_name = "base.raw",
                                                 .extensions = list,
                                                 .n_extensions = 2});
    image_add_snapshots(&image, &first, 1);
    for (int i = 0;; i++) {
        struct qcow_info info;
        faults_fail_allocation(i);
        int r = inspect(&info, NULL);
        bool has_failed = faults_allocation_failed();
        faults_fail_allocation(-1);
        assert_int_equal(r, has_failed ? -ENOMEM : 0);
        if (!has_failed) {
            qcow_info_fini(&info);
            break;
        }
    }
    image_destroy(&image);
}

/* A running guest's image changes meanwhile. */

enum { TABLE_A = 0x10000, TABLE_B = 0x11000 };

static ssize_t move_table_once(int fd, void *buf, size_t len, off_t host_off)
{
    if (host_off == TABLE_A) {
        faults_pread = NULL;
        image_put_snapshots(&image, TABLE_B, &second, 1);
        image_point_to_snapshots(&image, TABLE_B, 1);
        uint8_t junk[0x1000];
        memset(junk, 0xa5, sizeof(junk));
        image_poke(&image, TABLE_A, junk, sizeof(junk));
    }
    return faults_real_pread(fd, buf, len, host_off);
}

static void a_table_that_moves_meanwhile_is_read_again(void **state)
{
    (void)state;
    tiny();
    image_truncate(&image, 0x12000);
    image_put_snapshots(&image, TABLE_A, &first, 1);
    image_point_to_snapshots(&image, TABLE_A, 1);
    faults_pread = move_table_once;
    struct qcow_info info = inspected();
    assert_int_equal(info.n_snapshots, 1);
    assert_string_equal(info.snapshots[0].name, "second");
    qcow_info_fini(&info);
    image_destroy(&image);
}

static int n_moves;

static ssize_t move_table_always(int fd, void *buf, size_t len, off_t host_off)
{
    if (host_off == 0)
        image_point_to_snapshots(&image, n_moves++ % 2 ? TABLE_A : TABLE_B, 1);
    return faults_real_pread(fd, buf, len, host_off);
}

static void a_table_that_never_stands_still_is_eagain(void **state)
{
    (void)state;
    tiny();
    image_truncate(&image, 0x12000);
    image_put_snapshots(&image, TABLE_A, &first, 1);
    image_put_snapshots(&image, TABLE_B, &first, 1);
    /* an odd number of header reads a try: before and after always differ */
    struct qcow_info info;
    struct error err = {0};
    n_moves = 0;
    faults_pread = move_table_always;
    int r = inspect(&info, &err);
    faults_pread = NULL;
    assert_int_equal(r, -EAGAIN);
    assert_non_null(strstr(err.text, "keeps moving"));
    image_destroy(&image);
}

static ssize_t grow_once(int fd, void *buf, size_t len, off_t host_off)
{
    faults_pread = NULL;
    uint64_t l1_off = image.end;
    image_alloc(&image, 1);
    image_poke64(&image, HDR_L1_OFF, l1_off);
    return faults_real_pread(fd, buf, len, host_off);
}

static void a_file_that_grows_meanwhile_is_no_damage(void **state)
{
    (void)state;
    tiny();
    faults_pread = grow_once; /* after the file's size was asked for */
    struct qcow_info info = inspected();
    qcow_info_fini(&info);
    image_destroy(&image);
}

/* Small things of qcow.h. */

static void formats_have_names(void **state)
{
    (void)state;
    enum qcow_format format = QCOW_FORMAT_RAW;
    assert_int_equal(qcow_format_parse("qcow2", &format), 0);
    assert_int_equal(format, QCOW_FORMAT_QCOW2);
    assert_string_equal(qcow_format_name(format), "qcow2");
    assert_int_equal(qcow_format_parse("raw", &format), 0);
    assert_int_equal(format, QCOW_FORMAT_RAW);
    assert_string_equal(qcow_format_name(format), "raw");
    assert_int_equal(qcow_format_parse("qcow", &format), -ENOTSUP);
    assert_int_equal(qcow_format_parse("", &format), -ENOTSUP);
    assert_int_equal(qcow_format_parse("RAW", &format), -ENOTSUP);
    assert_int_equal(format, QCOW_FORMAT_RAW);
}

static void the_magic_is_told_without_a_header(void **state)
{
    (void)state;
    image_create_raw(&image, "raw", 0);
    assert_false(qcow_has_magic(image.fd));
    image_poke(&image, 0, "QFI", 3);
    assert_false(qcow_has_magic(image.fd));
    image_poke(&image, 0, "QFI\xfb", 4);
    assert_true(qcow_has_magic(image.fd));
    image_poke(&image, 0, "QFI\xfa", 4);
    assert_false(qcow_has_magic(image.fd));
    assert_false(qcow_has_magic(-1));
    image_destroy(&image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tells_header_references_and_snapshots),
        cmocka_unit_test(tells_what_is_not_there),
        cmocka_unit_test(a_data_file_without_its_feature_bit_is_none),
        cmocka_unit_test(encryption_is_told_not_refused),
        cmocka_unit_test(a_raw_image_has_a_size_in_whole_sectors),
        cmocka_unit_test(refuses_what_is_damaged_and_says_where),
        cmocka_unit_test(a_host_read_error_is_eio),
        cmocka_unit_test(each_failed_allocation_is_enomem),
        cmocka_unit_test(a_table_that_moves_meanwhile_is_read_again),
        cmocka_unit_test(a_table_that_never_stands_still_is_eagain),
        cmocka_unit_test(a_file_that_grows_meanwhile_is_no_damage),
        cmocka_unit_test(formats_have_names),
        cmocka_unit_test(the_magic_is_told_without_a_header),
    };
    return cmocka_run_group_tests_name("qcow/inspect", tests, NULL, NULL);
}
