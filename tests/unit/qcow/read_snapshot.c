/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow/read.c: internal snapshots, also while they are deleted. */
#include "qcow/qcow.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/qcow/read_checks.h"

/* Snapshots. */

struct with_snapshot {
    struct image image;
    struct image_snapshot snapshot;
    struct qcow_image *opened;
};

/* A snapshot of a disk of 256 KiB, that has grown or shrunk since; short L1 table by choice. */
static void open_snapshot(struct with_snapshot *w, uint64_t disk_size, uint32_t l1_entries)
{
    image_create(&w->image, &(struct image_options){.guest_size = 256 << 10});
    image_write(&w->image, 0, 1);
    image_write(&w->image, 32768, 2);
    image_write(&w->image, 7 * 32768, 3);
    w->snapshot = (struct image_snapshot){.id = "1",
                                          .name = "n",
                                          .l1_off = w->image.l1_off,
                                          .l1_entries = l1_entries,
                                          .extra_len = 16,
                                          .disk_size = disk_size};
    /* the active disk has a table of its own, with nothing in it */
    w->image.l1_off = image_alloc(&w->image, 1);
    image_poke64(&w->image, HDR_L1_OFF, w->image.l1_off);
    image_add_snapshots(&w->image, &w->snapshot, 1);
    struct qcow_snapshot view = image_snapshot_view(&w->image, &w->snapshot);
    w->opened = image_open(&w->image, NULL, cache, &view);
}

static void close_snapshot(struct with_snapshot *w)
{
    qcow_close(w->opened);
    image_destroy(&w->image);
}

static void a_snapshot_is_read_through_its_own_tables(void **state)
{
    (void)state;
    struct with_snapshot w;
    open_snapshot(&w, 256 << 10, 8);
    expect_fill(w.opened, 0, 512, 1, 0);
    expect_fill(w.opened, 7 * 32768, 512, 3, 0);
    struct qcow_image *active = image_open(&w.image, NULL, cache, NULL);
    expect_zeros(active, 0, 256 << 10);
    qcow_close(active);
    close_snapshot(&w);
}

static void a_snapshot_has_its_own_size(void **state)
{
    (void)state;
    struct with_snapshot w;
    open_snapshot(&w, 65536, 8); /* the disk grew since; VM state may lie beyond: no data */
    assert_true(qcow_size(w.opened) == 65536);
    uint8_t buf[512];
    assert_int_equal(qcow_read(w.opened, 65536, buf, 512, NULL), 0);
    expect_fill(w.opened, 32768, 512, 2, 0);
    close_snapshot(&w);
    open_snapshot(&w, 1 << 20, 8); /* the disk shrank since */
    assert_true(qcow_size(w.opened) == 1 << 20);
    expect_fill(w.opened, 7 * 32768, 512, 3, 0);
    expect_zeros(w.opened, 8 * 32768, (1 << 20) - 8 * 32768);
    close_snapshot(&w);
}

static void past_a_short_l1_table_of_a_snapshot_nothing_is_allocated(void **state)
{
    (void)state;
    struct with_snapshot w;
    open_snapshot(&w, 256 << 10, 1);
    expect_fill(w.opened, 0, 512, 1, 0);
    expect_zeros(w.opened, 32768, 7 * 32768);
    expect_extent(w.opened, 512, (256 << 10) - 512, QCOW_HOLE);
    close_snapshot(&w);
    open_snapshot(&w, 256 << 10, 0);
    expect_zeros(w.opened, 0, 256 << 10);
    close_snapshot(&w);
}

static void an_l1_table_of_a_snapshot_past_the_end_of_the_file_is_named(void **state)
{
    (void)state;
    struct image image = tiny(0);
    struct image_snapshot snapshot = {.id = "1", .name = "n", .l1_off = 0x100000, .l1_entries = 1};
    image_add_snapshots(&image, &snapshot, 1);
    struct qcow_snapshot view = image_snapshot_view(&image, &snapshot);
    struct qcow_image *opened = image_open(&image, NULL, cache, &view);
    expect_refused(opened, 0, -EBADMSG, "'tiny.qcow2': L1 table at 0x100000 (8 bytes) lies");
    qcow_close(opened);
    image_destroy(&image);
}

static void unallocated_parts_of_a_snapshot_are_the_backing_files(void **state)
{
    (void)state;
    struct with_snapshot w;
    open_snapshot(&w, 256 << 10, 1);
    struct image base;
    image_create(&base, &(struct image_options){.name = "base", .guest_size = 256 << 10});
    image_write(&base, 65536, 5);
    struct image_answers answers = {.backing = {&base}};
    struct qcow_snapshot view = image_snapshot_view(&w.image, &w.snapshot);
    struct qcow_image *opened = image_open(&w.image, &answers, cache, &view);
    expect_fill(opened, 0, 512, 1, 0);
    expect_fill(opened, 65536, 512, 5, 0);
    qcow_close(opened);
    close_snapshot(&w);
    image_destroy(&base);
}

static void a_snapshot_deleted_while_open_is_estale(void **state)
{
    (void)state;
    struct with_snapshot w;
    open_snapshot(&w, 256 << 10, 8);
    expect_fill(w.opened, 0, 512, 1, 0);
    image_point_to_snapshots(&w.image, 0, 0);
    expect_refused(w.opened, 0, -ESTALE, "snapshot 'n' (id 1) is gone");
    struct qcow_extent extent;
    assert_int_equal(qcow_map(w.opened, 0, 512, &extent, NULL), -ESTALE);
    close_snapshot(&w);
}

static void damage_in_a_deleted_snapshot_is_estale_in_one_that_is_there_it_is_damage(void **state)
{
    (void)state;
    struct with_snapshot w;
    open_snapshot(&w, 256 << 10, 8);
    image_poke64(&w.image, w.snapshot.l1_off, 0xffffffffffe00);
    expect_refused(w.opened, 0, -EBADMSG, "L1 table at 0x400: entry 0 is 0xffffffffffe00");
    image_point_to_snapshots(&w.image, 0, 0);
    expect_refused(w.opened, 0, -ESTALE, "is gone");
    struct qcow_extent extent;
    assert_int_equal(qcow_map(w.opened, 0, 512, &extent, NULL), -ESTALE);
    close_snapshot(&w);
}

static ssize_t fail_watch(int fd, void *buf, size_t len, off_t host_off)
{
    if (host_off != HDR_N_SNAPSHOTS)
        return faults_real_pread(fd, buf, len, host_off);
    errno = EIO;
    return -1;
}

static void what_cannot_be_confirmed_is_not_served(void **state)
{
    (void)state;
    struct with_snapshot w;
    open_snapshot(&w, 256 << 10, 8);
    faults_pread = fail_watch;
    expect_refused(w.opened, 0, -EIO, "at 0x3c failed");
    faults_pread = NULL;
    expect_fill(w.opened, 0, 512, 1, 0);
    close_snapshot(&w);
}

static void the_end_of_a_snapshot_costs_no_read(void **state)
{
    (void)state;
    struct with_snapshot w;
    open_snapshot(&w, 65536, 8);
    uint8_t buf[512];
    faults_pread = fail_watch;
    assert_int_equal(qcow_read(w.opened, 65536, buf, sizeof(buf), NULL), 0);
    faults_pread = NULL;
    close_snapshot(&w);
}

static ssize_t delete_before_data(int fd, void *buf, size_t len, off_t host_off)
{
    if (len == 512 && host_off > 0x600) {
        faults_pread = NULL;
        uint8_t none[12] = {0};
        ssize_t n = pwrite(fd, none, sizeof(none), HDR_N_SNAPSHOTS);
        assert_int_equal(n, sizeof(none));
    }
    return faults_real_pread(fd, buf, len, host_off);
}

static void a_deletion_under_a_read_is_seen_by_that_read(void **state)
{
    (void)state;
    struct with_snapshot w;
    open_snapshot(&w, 256 << 10, 8);
    faults_pread = delete_before_data;
    expect_refused(w.opened, 0, -ESTALE, "is gone");
    close_snapshot(&w);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_snapshot_is_read_through_its_own_tables),
        TEST(a_snapshot_has_its_own_size),
        TEST(past_a_short_l1_table_of_a_snapshot_nothing_is_allocated),
        TEST(an_l1_table_of_a_snapshot_past_the_end_of_the_file_is_named),
        TEST(unallocated_parts_of_a_snapshot_are_the_backing_files),
        TEST(a_snapshot_deleted_while_open_is_estale),
        TEST(damage_in_a_deleted_snapshot_is_estale_in_one_that_is_there_it_is_damage),
        TEST(what_cannot_be_confirmed_is_not_served),
        TEST(the_end_of_a_snapshot_costs_no_read),
        TEST(a_deletion_under_a_read_is_seen_by_that_read),
    };
    return cmocka_run_group_tests_name("qcow/read: snapshots", tests, NULL, NULL);
}
