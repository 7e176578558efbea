/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The watch of qcow/snapshots.h: what a check says of each change of the table. */
#include "qcow/snapshots.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/qcow/snapshot_watch_checks.h"

static void an_untouched_snapshot_is_there(void **state)
{
    (void)state;
    expect_there();
    expect_there();
}

static atomic_int n_reads;

static ssize_t count_reads(int fd, void *buf, size_t len, off_t host_off)
{
    atomic_fetch_add(&n_reads, 1);
    return faults_real_pread(fd, buf, len, host_off);
}

static void a_check_costs_two_reads_also_after_the_table_moved(void **state)
{
    (void)state;
    SET_TABLE(TABLE_B, &third, &other, &mine);
    expect_there();
    atomic_store(&n_reads, 0);
    faults_pread = count_reads;
    expect_there();
    assert_int_equal(n_reads, 2);
}

static void a_table_that_moved_keeps_it(void **state)
{
    (void)state;
    SET_TABLE(TABLE_B, &other, &mine, &third);
    scribble(TABLE_A);
    expect_there();
    SET_TABLE(TABLE_A, &mine);
    scribble(TABLE_B);
    expect_there();
}

static void an_entry_that_moved_within_its_table_is_found(void **state)
{
    (void)state;
    SET_TABLE(TABLE_A, &mine, &other);
    expect_there();
    SET_TABLE(TABLE_A, &third, &mine);
    expect_there();
}

static void a_table_rewritten_in_its_place_keeps_it(void **state)
{
    (void)state;
    SET_TABLE(TABLE_A, &other, &mine);
    expect_there();
}

static void a_deleted_snapshot_is_gone(void **state)
{
    (void)state;
    SET_TABLE(TABLE_B, &other);
    expect_gone();
    expect_gone();
}

static void the_last_snapshot_deleted_is_gone(void **state)
{
    (void)state;
    image_point_to_snapshots(&fixture.image, 0, 0);
    expect_gone();
}

static void a_table_that_only_got_shorter_lacks_it(void **state)
{
    (void)state;
    image_point_to_snapshots(&fixture.image, TABLE_A, 1);
    expect_gone();
}

static void a_table_that_only_the_offset_tells_lacks_it(void **state)
{
    (void)state;
    SET_TABLE(TABLE_B, &other, &third); /* as many as before; the old one still lies there */
    expect_gone();
}

static void a_table_rewritten_in_its_place_without_it_lacks_it(void **state)
{
    (void)state;
    SET_TABLE(TABLE_A, &other, &third);
    expect_gone();
}

static void another_snapshot_of_the_same_name_and_id_is_not_it(void **state)
{
    (void)state;
    struct image_snapshot twin = mine;
    twin.l1_off = 0x7000;
    SET_TABLE(TABLE_B, &other, &twin);
    expect_gone();
    twin = mine;
    twin.nsec = 1;
    SET_TABLE(TABLE_A, &other, &twin); /* same place, same length */
    expect_gone();
}

static void one_that_differs_in_bytes_that_nobody_reads_is_found_again(void **state)
{
    (void)state;
    /* QEMU adds extra data to an old entry when it writes the table anew */
    struct image_snapshot more = mine;
    more.extra_len = 24;
    SET_TABLE(TABLE_A, &other, &more);
    expect_there();
}

static void a_snapshot_never_there_cannot_be_watched(void **state)
{
    (void)state;
    struct qcow_snapshot view = image_snapshot_view(&fixture.image, &third);
    struct snapshot_watch watch;
    struct error err = {0};
    assert_int_equal(snapshot_watch_init(&watch, &fixture.src, &view, &err), -ESTALE);
    assert_string_equal(err.text, "'tiny.qcow2': snapshot 'somebody-else's' (id 3) is gone");
}

static void a_long_entry_is_watched_too(void **state)
{
    (void)state;
    char name[3000];
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    struct image_snapshot longer = mine;
    longer.name = name;
    SET_TABLE(TABLE_B, &other, &longer);
    char shown[256] = {0}; /* as much as is listed of it */
    memcpy(shown, name, sizeof(shown) - 1);
    struct qcow_snapshot view = image_snapshot_view(&fixture.image, &longer);
    view.name = shown;
    struct snapshot_watch watch;
    assert_int_equal(snapshot_watch_init(&watch, &fixture.src, &view, NULL), 0);
    assert_int_equal(snapshot_watch_check(&watch, &fixture.src, NULL), 0);
    faults_fail_allocation(0);
    assert_int_equal(snapshot_watch_check(&watch, &fixture.src, NULL), -ENOMEM);
    faults_fail_allocation(-1);
    name[254] = 'm';
    SET_TABLE(TABLE_B, &other, &longer);
    assert_int_equal(snapshot_watch_check(&watch, &fixture.src, NULL), -ESTALE);
    snapshot_watch_fini(&watch);
}

static ssize_t fail_reads(int fd, void *buf, size_t len, off_t host_off)
{
    (void)fd, (void)buf, (void)len, (void)host_off;
    errno = EIO;
    return -1;
}

static void a_table_that_cannot_be_read_is_eio_not_estale(void **state)
{
    (void)state;
    faults_pread = fail_reads;
    assert_int_equal(check(NULL), -EIO);
}

static ssize_t fail_table_reads(int fd, void *buf, size_t len, off_t host_off)
{
    return host_off < TABLE_A ? faults_real_pread(fd, buf, len, host_off)
                              : fail_reads(fd, buf, len, host_off);
}

static void an_entry_that_cannot_be_read_is_eio_not_estale(void **state)
{
    (void)state;
    faults_pread = fail_table_reads;
    assert_int_equal(check(NULL), -EIO);
}

static void each_failed_allocation_is_enomem(void **state)
{
    (void)state;
    struct qcow_snapshot view = image_snapshot_view(&fixture.image, &mine);
    for (int i = 0;; i++) {
        struct snapshot_watch watch;
        faults_fail_allocation(i);
        int r = snapshot_watch_init(&watch, &fixture.src, &view, NULL);
        bool has_failed = faults_allocation_failed();
        faults_fail_allocation(-1);
        assert_int_equal(r, has_failed ? -ENOMEM : 0);
        if (!has_failed) {
            snapshot_watch_fini(&watch);
            break;
        }
    }
}

static void an_active_l1_table_that_moved_past_the_old_end_of_the_file_is_no_damage(void **state)
{
    (void)state;
    /* the guest's disk was resized meanwhile: QEMU puts the longer L1 table at the file's end */
    image_truncate(&fixture.image, FILE_END + 0x1000);
    image_poke64(&fixture.image, HDR_L1_OFF, FILE_END);
    SET_TABLE(TABLE_B, &other, &mine, &third);
    expect_there();
}

static void a_table_past_the_old_end_of_the_file_is_read(void **state)
{
    (void)state;
    SET_TABLE(FILE_END, &other, &mine, &third);
    expect_there();
    SET_TABLE(FILE_END + 0x1000, &other, &third);
    expect_gone();
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(an_untouched_snapshot_is_there),
        TEST(a_check_costs_two_reads_also_after_the_table_moved),
        TEST(a_table_that_moved_keeps_it),
        TEST(an_entry_that_moved_within_its_table_is_found),
        TEST(a_table_rewritten_in_its_place_keeps_it),
        TEST(a_deleted_snapshot_is_gone),
        TEST(the_last_snapshot_deleted_is_gone),
        TEST(a_table_that_only_got_shorter_lacks_it),
        TEST(a_table_that_only_the_offset_tells_lacks_it),
        TEST(a_table_rewritten_in_its_place_without_it_lacks_it),
        TEST(another_snapshot_of_the_same_name_and_id_is_not_it),
        TEST(one_that_differs_in_bytes_that_nobody_reads_is_found_again),
        TEST(a_snapshot_never_there_cannot_be_watched),
        TEST(a_long_entry_is_watched_too),
        TEST(a_table_that_cannot_be_read_is_eio_not_estale),
        TEST(an_entry_that_cannot_be_read_is_eio_not_estale),
        TEST(each_failed_allocation_is_enomem),
        TEST(an_active_l1_table_that_moved_past_the_old_end_of_the_file_is_no_damage),
        TEST(a_table_past_the_old_end_of_the_file_is_read),
    };
    return cmocka_run_group_tests_name("qcow/snapshots: watch", tests, NULL, NULL);
}
