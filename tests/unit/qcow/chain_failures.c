/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow/chain.c and image.c: an open that fails leaves nothing behind. */
#include "qcow/qcow.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/qcow/chain_checks.h"

/* What fails leaves nothing open: teardown counts descriptors after each of these. */

static int n_reads_left;

static ssize_t fail_later(int fd, void *buf, size_t len, off_t host_off)
{
    if (n_reads_left-- > 0)
        return faults_real_pread(fd, buf, len, host_off);
    errno = EIO;
    return -1;
}

static struct image with_everything(void)
{
    struct image image = with_data_file("disk.raw");
    image_add_snapshots(&image, &(struct image_snapshot){.id = "1", .name = "n"}, 1);
    return image;
}

static int open_everything(const struct image *top, struct image_answers *answers,
                           struct qcow_image **opened)
{
    struct image_snapshot snapshot = {.id = "1", .name = "n"};
    struct qcow_snapshot view = image_snapshot_view(top, &snapshot);
    struct qcow_opener opener = {.open_ref = image_answer, .ctx = answers};
    struct qcow_file file = image_file(top);
    return qcow_open(&file, &opener, cache, &view, opened, NULL);
}

static void each_failing_read_of_an_open_is_eio_and_leaks_nothing(void **state)
{
    (void)state;
    struct image top = with_everything(), data, base = tiny("base", 4096);
    image_create_raw(&data, "disk.raw", 4096);
    struct image_answers answers = {.backing = {&base}, .data = &data};
    for (int i = 0;; i++) {
        struct qcow_image *opened;
        n_reads_left = i;
        faults_pread = fail_later;
        int r = open_everything(&top, &answers, &opened);
        faults_pread = NULL;
        if (r == 0) {
            assert_true(n_reads_left >= 0 && i > 4);
            qcow_close(opened);
            break;
        }
        assert_int_equal(r, -EIO);
    }
    image_destroy(&top), image_destroy(&data), image_destroy(&base);
}

static void each_failing_allocation_of_an_open_is_enomem_and_leaks_nothing(void **state)
{
    (void)state;
    struct image top = with_everything(), data, base = tiny("base", 4096);
    image_create_raw(&data, "disk.raw", 4096);
    struct image_answers answers = {.backing = {&base}, .data = &data};
    for (int i = 0;; i++) {
        struct image_snapshot snapshot = {.id = "1", .name = "n"};
        struct qcow_snapshot view = image_snapshot_view(&top, &snapshot);
        struct qcow_opener opener = {.open_ref = image_answer, .ctx = &answers};
        struct qcow_file file = image_file(&top);
        struct qcow_image *opened;
        faults_fail_allocation(i);
        int r = qcow_open(&file, &opener, cache, &view, &opened, NULL);
        bool has_failed = faults_allocation_failed();
        faults_fail_allocation(-1);
        assert_int_equal(r, has_failed ? -ENOMEM : 0);
        if (!has_failed) {
            qcow_close(opened);
            break;
        }
    }
    image_destroy(&top), image_destroy(&data), image_destroy(&base);
}

static void a_snapshot_that_is_not_there_leaks_nothing(void **state)
{
    (void)state;
    struct image top = tiny("top", 4096);
    struct image_snapshot snapshot = {.id = "1", .name = "n"};
    struct qcow_snapshot view = image_snapshot_view(&top, &snapshot);
    struct image_answers none = {0};
    struct qcow_opener opener = {.open_ref = image_answer, .ctx = &none};
    struct qcow_file file = image_file(&top);
    struct qcow_image *opened;
    struct error err = {0};
    assert_int_equal(qcow_open(&file, &opener, cache, &view, &opened, &err), -ESTALE);
    assert_string_equal(err.text, "'top': snapshot 'n' (id 1) is gone");
    file = image_file(&top);
    file.format = QCOW_FORMAT_RAW;
    assert_int_equal(qcow_open(&file, &opener, cache, &view, &opened, &err), -ESTALE);
    assert_string_equal(err.text, "'top': a raw image has no snapshots");
    image_destroy(&top);
}

static void refuses_the_l1_table_of_a_snapshot_where_no_table_may_lie(void **state)
{
    (void)state;
    struct image top = tiny("top", 4096);
    struct image_snapshot snapshots[] = {
        {.id = "1", .name = "odd", .l1_off = 0x608, .l1_entries = 1},
        {.id = "2", .name = "long", .l1_off = 0x600, .l1_entries = (4 << 20) + 1},
        {.id = "3", .name = "far", .l1_off = 0x7ffffffffffffe00, .l1_entries = 64},
    };
    const char *const words[] = {"'top': L1 table of a snapshot at 0x608 is not aligned", "4194305",
                                 "L1 table of a snapshot at 0x7ffffffffffffe00 lies"};
    image_add_snapshots(&top, snapshots, 3);
    struct image_answers none = {0};
    struct qcow_opener opener = {.open_ref = image_answer, .ctx = &none};
    for (int i = 0; i < 3; i++) {
        struct qcow_snapshot view = image_snapshot_view(&top, &snapshots[i]);
        struct qcow_file file = image_file(&top);
        struct qcow_image *opened;
        struct error err = {0};
        assert_int_equal(qcow_open(&file, &opener, cache, &view, &opened, &err), -EBADMSG);
        if (!strstr(err.text, words[i]))
            fail_msg("'%s' does not say \"%s\"", err.text, words[i]);
    }
    image_destroy(&top);
}

static void a_descriptor_that_is_no_file_is_eio(void **state)
{
    (void)state;
    struct qcow_file file = {.fd = -1, .format = QCOW_FORMAT_RAW, .name = strdup("nothing")};
    struct image_answers none = {0};
    struct qcow_opener opener = {.open_ref = image_answer, .ctx = &none};
    struct qcow_image *opened;
    struct error err = {0};
    assert_int_equal(qcow_open(&file, &opener, cache, NULL, &opened, &err), -EIO);
    assert_non_null(strstr(err.text, "cannot stat 'nothing'"));
}

static void closing_nothing_is_fine(void **state)
{
    (void)state;
    qcow_close(NULL);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(each_failing_read_of_an_open_is_eio_and_leaks_nothing),
        TEST(each_failing_allocation_of_an_open_is_enomem_and_leaks_nothing),
        TEST(a_snapshot_that_is_not_there_leaks_nothing),
        TEST(refuses_the_l1_table_of_a_snapshot_where_no_table_may_lie),
        TEST(a_descriptor_that_is_no_file_is_eio),
        TEST(closing_nothing_is_fine),
    };
    return cmocka_run_group_tests_name("qcow/chain: failures", tests, NULL, NULL);
}
