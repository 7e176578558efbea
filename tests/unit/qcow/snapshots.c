/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qcow/snapshots.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "qcow/format.h"
#include "tests/lib/image.h"
#include "tests/unit/qcow/faults.h"

/* The table as the decoder reads it. */
struct list {
    struct qcow_snapshot *items;
    size_t n;
};

static struct image tiny(unsigned version)
{
    struct image image;
    image_create(&image, &(struct image_options){
                             .version = version, .cluster_bits = 12, .guest_size = 64 << 20});
    return image;
}

static int read_list(const struct image *image, struct list *list, struct error *err)
{
    struct source src;
    struct qcow_header hdr;
    assert_int_equal(source_init(&src, image->fd, image->name, 1, err), 0);
    if (header_read(&src, &hdr, err) != 0)
        fail_msg("header: %s", err->text);
    int r = snapshots_read(&src, &hdr, &list->items, &list->n, err);
    header_fini(&hdr);
    return r;
}

static struct list expect_list(const struct image *image, size_t n)
{
    struct list list;
    struct error err = {0};
    if (read_list(image, &list, &err) != 0)
        fail_msg("refused: %s", err.text);
    assert_int_equal(list.n, n);
    return list;
}

static void free_list(struct list *list)
{
    for (size_t i = 0; i < list->n; i++)
        qcow_snapshot_fini(&list->items[i]);
    free(list->items);
}

static void expect_refused(struct image *image, const char *words)
{
    struct list list;
    struct error err = {0};
    assert_int_equal(read_list(image, &list, &err), -EBADMSG);
    assert_int_equal(err.code, -EBADMSG);
    if (!strstr(err.text, words) || !strstr(err.text, "'tiny.qcow2'"))
        fail_msg("'%s' does not say \"%s\"", err.text, words);
    image_destroy(image);
}

/* Adds one snapshot and reads it back; the caller ends the list, this ends the image. */
static struct list read_back(struct image *image, const struct image_snapshot *snapshot)
{
    image_add_snapshots(image, snapshot, 1);
    struct list list = expect_list(image, 1);
    image_destroy(image);
    return list;
}

/* The table. */

static void an_image_without_snapshots_has_an_empty_list(void **state)
{
    (void)state;
    struct image image = tiny(3);
    struct list list = expect_list(&image, 0);
    free_list(&list);
    image_destroy(&image);
}

static void reads_every_field_of_an_entry(void **state)
{
    (void)state;
    struct image image = tiny(3);
    const struct image_snapshot snapshot = {.id = "17",
                                            .name = "before-upgrade",
                                            .l1_off = 0x123456789000,
                                            .l1_entries = 33,
                                            .sec = 0xfedcba98,
                                            .nsec = 999999999,
                                            .vm_state_size = 5,
                                            .extra_len = 24,
                                            .vm_state_size_large = 0x500000001,
                                            .disk_size = 32 << 20};
    struct list list = read_back(&image, &snapshot);
    const struct qcow_snapshot *s = &list.items[0];
    assert_string_equal(s->id, "17");
    assert_string_equal(s->name, "before-upgrade");
    assert_true(s->l1_off == 0x123456789000);
    assert_int_equal(s->l1_entries, 33);
    assert_true(s->created.tv_sec == 0xfedcba98);
    assert_int_equal(s->created.tv_nsec, 999999999);
    assert_true(s->vm_state_size == 0x500000001);
    assert_true(s->guest_size == 32 << 20);
    free_list(&list);
}

static void without_extra_data_the_size_is_the_disks(void **state)
{
    (void)state;
    struct image image = tiny(2);
    const struct image_snapshot snapshot = {.id = "1", .name = "old", .vm_state_size = 0xffffffff};
    struct list list = read_back(&image, &snapshot);
    assert_true(list.items[0].guest_size == 64 << 20);
    assert_true(list.items[0].vm_state_size == 0xffffffff);
    assert_string_equal(list.items[0].name, "old");
    free_list(&list);
}

static void extra_data_counts_as_far_as_it_goes(void **state)
{
    (void)state;
    struct image image = tiny(3);
    struct image_snapshot snapshot = {.id = "1",
                                      .name = "n",
                                      .vm_state_size = 5,
                                      .vm_state_size_large = 1ULL << 32,
                                      .disk_size = 512};
    snapshot.extra_len = 7;
    struct list list = read_back(&image, &snapshot);
    assert_true(list.items[0].vm_state_size == 5);
    free_list(&list);
    image = tiny(3);
    snapshot.extra_len = 8;
    list = read_back(&image, &snapshot);
    assert_true(list.items[0].vm_state_size == 1ULL << 32);
    assert_true(list.items[0].guest_size == 64 << 20);
    free_list(&list);
    image = tiny(3);
    snapshot.extra_len = 15;
    list = read_back(&image, &snapshot);
    assert_true(list.items[0].guest_size == 64 << 20);
    free_list(&list);
    image = tiny(3);
    snapshot.extra_len = 16;
    list = read_back(&image, &snapshot);
    assert_true(list.items[0].guest_size == 512);
    free_list(&list);
}

static void extra_data_has_at_most_1024_bytes(void **state)
{
    (void)state;
    struct image image = tiny(3);
    struct image_snapshot snapshot = {.id = "1", .name = "n", .extra_len = 1024, .disk_size = 512};
    struct list list = read_back(&image, &snapshot);
    assert_string_equal(list.items[0].name, "n");
    free_list(&list);
    image = tiny(3);
    snapshot.extra_len = 1025;
    image_add_snapshots(&image, &snapshot, 1);
    expect_refused(&image, "snapshot table at 0x3000: entry 0 has 1025 bytes of extra data");
    image = tiny(3);
    snapshot.extra_len = 16;
    image_add_snapshots(&image, &snapshot, 1);
    image_poke32(&image, 0x3000 + SNAP_EXTRA_LEN, 0xffffffff);
    expect_refused(&image, "entry 0 has 4294967295 bytes of extra data");
}

static void the_size_of_a_snapshot_is_whole_sectors(void **state)
{
    (void)state;
    struct image image = tiny(3);
    const struct image_snapshot snapshot = {
        .id = "1", .name = "n", .extra_len = 16, .disk_size = 1000001};
    struct list list = read_back(&image, &snapshot);
    assert_true(list.items[0].guest_size == 999936);
    free_list(&list);
}

static void refuses_a_snapshot_too_large_for_any_l1_table(void **state)
{
    (void)state;
    struct image image = tiny(3);
    struct image_snapshot list[] = {
        {.id = "1", .name = "n", .extra_len = 16, .disk_size = 512},
        {.id = "2", .name = "m", .extra_len = 16, .disk_size = UINT64_MAX}};
    image_add_snapshots(&image, list, 2);
    expect_refused(&image, "snapshot table at 0x3000: entry 1 has a disk of 18446744073709551104");
    image = tiny(3);
    list[1].disk_size = (uint64_t)INT32_MAX << 21;
    image_add_snapshots(&image, list, 2);
    struct list read = expect_list(&image, 2);
    free_list(&read);
    image_destroy(&image);
    image = tiny(3);
    list[1].disk_size += 512;
    image_add_snapshots(&image, list, 2);
    expect_refused(&image, "entry 1 has a disk of 4503599625273856 bytes");
}

static void refuses_a_snapshot_past_63_bits(void **state)
{
    (void)state;
    struct image image;
    image_create(&image, &(struct image_options){.cluster_bits = 21, .guest_size = 512});
    struct image_snapshot snapshot = {.id = "1", .extra_len = 16, .disk_size = INT64_MAX};
    struct list list = read_back(&image, &snapshot);
    assert_true(list.items[0].guest_size == 0x7ffffffffffffe00);
    free_list(&list);
    image_create(&image, &(struct image_options){.cluster_bits = 21, .guest_size = 512});
    snapshot.disk_size = 1ULL << 63;
    image_add_snapshots(&image, &snapshot, 1);
    expect_refused(&image, "entry 0 has a disk of 9223372036854775808 bytes, too large");
}

static void nanoseconds_past_a_second_are_none(void **state)
{
    (void)state;
    struct image image = tiny(3);
    const struct image_snapshot snapshot = {.id = "1", .sec = 7, .nsec = 1000000000};
    struct list list = read_back(&image, &snapshot);
    assert_true(list.items[0].created.tv_sec == 7);
    assert_int_equal(list.items[0].created.tv_nsec, 0);
    free_list(&list);
}

static void names_are_any_bytes_and_may_be_empty_or_twice(void **state)
{
    (void)state;
    struct image image = tiny(3);
    const struct image_snapshot snapshots[] = {{.id = "1", .name = "a/b\nc\xff"},
                                               {0},
                                               {.id = "2", .name = "twin"},
                                               {.id = "3", .name = "twin"},
                                               {.id = "", .name = "now"}};
    image_add_snapshots(&image, snapshots, 5);
    struct list list = expect_list(&image, 5);
    assert_string_equal(list.items[0].name, "a/b\nc\xff");
    assert_string_equal(list.items[1].name, "");
    assert_string_equal(list.items[1].id, "");
    assert_string_equal(list.items[2].name, "twin");
    assert_string_equal(list.items[3].id, "3");
    assert_string_equal(list.items[4].name, "now");
    free_list(&list);
    image_destroy(&image);
}

static void a_name_ends_at_its_first_nul(void **state)
{
    (void)state;
    struct image image = tiny(3);
    image_add_snapshots(&image, &(struct image_snapshot){.id = "12", .name = "a-name"}, 1);
    image_poke8(&image, 0x3000 + SNAP_HEADER_LEN + 3, 0);
    struct list list = expect_list(&image, 1);
    assert_string_equal(list.items[0].id, "12");
    assert_string_equal(list.items[0].name, "a");
    free_list(&list);
    image_destroy(&image);
}

static void entries_are_padded_to_8_bytes(void **state)
{
    (void)state;
    struct image image = tiny(3);
    struct image_snapshot snapshots[9] = {0};
    const char *const names[] = {"", "1", "22", "333", "4444", "55555", "666666", "7777777", "8"};
    for (int i = 0; i < 9; i++)
        snapshots[i] = (struct image_snapshot){.name = names[i], .l1_off = (uint64_t)i << 16};
    image_add_snapshots(&image, snapshots, 9);
    struct list list = expect_list(&image, 9);
    for (int i = 0; i < 9; i++) {
        assert_string_equal(list.items[i].name, names[i]);
        assert_true(list.items[i].l1_off == (uint64_t)i << 16);
    }
    free_list(&list);
    image_destroy(&image);
}

static void assert_begin(const char *found, const char *whole, size_t max)
{
    size_t len = strlen(whole);
    assert_int_equal(strlen(found), len < max ? len : max);
    assert_memory_equal(found, whole, strlen(found));
}

/* As much is kept of a name as QEMU shows. */
static void long_tables_of_long_names_are_read_to_the_end(void **state)
{
    (void)state;
    struct image image = tiny(3);
    enum { N = 40 };
    char *names[N];
    struct image_snapshot snapshots[N];
    for (int i = 0; i < N; i++) {
        size_t len = i % 3 == 0   ? 65535
                     : i % 3 == 1 ? (size_t)(i * 997 + 1)
                                  : (size_t)(115 + 4 * i);
        names[i] = malloc(len + 1);
        memset(names[i], 'a' + i % 26, len);
        names[i][len] = '\0';
        snapshots[i] = (struct image_snapshot){
            .id = names[i], .name = names[i], .extra_len = 1024, .disk_size = 512};
    }
    image_add_snapshots(&image, snapshots, N);
    struct list list = expect_list(&image, N);
    for (int i = 0; i < N; i++) {
        assert_begin(list.items[i].id, names[i], 127);
        assert_begin(list.items[i].name, names[i], 255);
        free(names[i]);
    }
    free_list(&list);
    image_destroy(&image);
}

static void refuses_a_table_past_the_end_of_the_file(void **state)
{
    (void)state;
    struct image image = tiny(3);
    image_point_to_snapshots(&image, 0x100000, 1);
    expect_refused(&image, "snapshot table at 0x100000 (40 bytes) lies outside the 12288-byte");
    image = tiny(3);
    image_add_snapshots(&image, &(struct image_snapshot){.id = "1", .name = "cut-off"}, 1);
    image_truncate(&image, 0x3000 + SNAP_HEADER_LEN + 7);
    expect_refused(&image, "snapshot table at 0x3000 (48 bytes) lies outside the 12335-byte");
}

static void the_last_entry_may_end_where_the_file_ends(void **state)
{
    (void)state;
    struct image image = tiny(3);
    image_add_snapshots(&image, &(struct image_snapshot){.id = "1", .name = "cut-off"}, 1);
    image_truncate(&image, 0x3000 + SNAP_HEADER_LEN + 8);
    struct list list = expect_list(&image, 1);
    free_list(&list);
    image_destroy(&image);
}

static void refuses_more_entries_than_there_are(void **state)
{
    (void)state;
    struct image image = tiny(3);
    image_point_to_snapshots(&image, 0x2000, 65536);
    expect_refused(&image, "snapshot table at 0x2ff0 (40 bytes) lies outside");
}

/* 512 entries of 128 KiB each: 64 MiB. */
static struct image with_a_table_of_64_mib(void)
{
    struct image image = tiny(3);
    for (uint64_t i = 0; i < 512; i++) {
        uint64_t at = 0x3000 + i * 131072;
        image_poke16(&image, at + SNAP_ID_LEN, 65535);
        image_poke16(&image, at + SNAP_NAME_LEN, 65000);
        image_poke32(&image, at + SNAP_EXTRA_LEN, 131072 - 40 - 65535 - 65000);
    }
    image_truncate(&image, 0x3000 + (64 << 20) + 8);
    image_point_to_snapshots(&image, 0x3000, 512);
    return image;
}

static void the_table_has_at_most_64_mib(void **state)
{
    (void)state;
    struct image image = with_a_table_of_64_mib();
    struct list list = expect_list(&image, 512);
    free_list(&list);
    image_destroy(&image);
    image = with_a_table_of_64_mib();
    image_poke16(&image, 0x3000 + 511 * 131072 + SNAP_NAME_LEN, 65001);
    expect_refused(&image, "snapshot table at 0x3000 is longer than 67108864 bytes");
}

static void each_failed_allocation_of_a_list_is_enomem(void **state)
{
    (void)state;
    struct image image = tiny(3);
    struct image_snapshot snapshots[20];
    for (int i = 0; i < 20; i++)
        snapshots[i] = (struct image_snapshot){.id = "1", .name = "n"};
    image_add_snapshots(&image, snapshots, 20);
    for (int i = 1;; i++) { /* the first one is the header's */
        struct list list;
        struct error err = {0};
        struct source src;
        struct qcow_header hdr;
        assert_int_equal(source_init(&src, image.fd, image.name, 1, &err), 0);
        assert_int_equal(header_read(&src, &hdr, &err), 0);
        faults_fail_allocation(i - 1);
        int r = snapshots_read(&src, &hdr, &list.items, &list.n, &err);
        bool has_failed = faults_allocation_failed();
        faults_fail_allocation(-1);
        assert_int_equal(r, has_failed ? -ENOMEM : 0);
        if (!has_failed) {
            free_list(&list);
            break;
        }
    }
    image_destroy(&image);
}

static void a_copy_is_equal_and_stands_alone(void **state)
{
    (void)state;
    struct image image = tiny(3);
    const struct image_snapshot snapshot = {.id = "1", .name = "n", .sec = 1};
    struct list list = read_back(&image, &snapshot);
    struct qcow_snapshot copy;
    assert_int_equal(qcow_snapshot_copy(&list.items[0], &copy), 0);
    assert_true(qcow_snapshot_is_same(&copy, &list.items[0]));
    assert_ptr_not_equal(copy.id, list.items[0].id);
    for (int i = 0; i < 2; i++) {
        struct qcow_snapshot none;
        faults_fail_allocation(i);
        int r = qcow_snapshot_copy(&list.items[0], &none);
        faults_fail_allocation(-1);
        assert_int_equal(r, -ENOMEM);
    }
    free_list(&list);
    assert_string_equal(copy.name, "n");
    qcow_snapshot_fini(&copy);
}

static void every_field_tells_snapshots_apart(void **state)
{
    (void)state;
    const struct qcow_snapshot one = {.id = "1",
                                      .name = "n",
                                      .guest_size = 512,
                                      .vm_state_size = 3,
                                      .created = {4, 5},
                                      .l1_off = 6,
                                      .l1_entries = 7};
    struct qcow_snapshot other = one;
    assert_true(qcow_snapshot_is_same(&one, &other));
    other.id = "2";
    assert_false(qcow_snapshot_is_same(&one, &other));
    other = one, other.name = "m";
    assert_false(qcow_snapshot_is_same(&one, &other));
    other = one, other.guest_size = 1024;
    assert_false(qcow_snapshot_is_same(&one, &other));
    other = one, other.vm_state_size = 4;
    assert_false(qcow_snapshot_is_same(&one, &other));
    other = one, other.created.tv_sec = 5;
    assert_false(qcow_snapshot_is_same(&one, &other));
    other = one, other.created.tv_nsec = 4;
    assert_false(qcow_snapshot_is_same(&one, &other));
    other = one, other.l1_off = 7;
    assert_false(qcow_snapshot_is_same(&one, &other));
    other = one, other.l1_entries = 6;
    assert_false(qcow_snapshot_is_same(&one, &other));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_image_without_snapshots_has_an_empty_list),
        cmocka_unit_test(reads_every_field_of_an_entry),
        cmocka_unit_test(without_extra_data_the_size_is_the_disks),
        cmocka_unit_test(extra_data_counts_as_far_as_it_goes),
        cmocka_unit_test(extra_data_has_at_most_1024_bytes),
        cmocka_unit_test(the_size_of_a_snapshot_is_whole_sectors),
        cmocka_unit_test(refuses_a_snapshot_too_large_for_any_l1_table),
        cmocka_unit_test(refuses_a_snapshot_past_63_bits),
        cmocka_unit_test(nanoseconds_past_a_second_are_none),
        cmocka_unit_test(names_are_any_bytes_and_may_be_empty_or_twice),
        cmocka_unit_test(a_name_ends_at_its_first_nul),
        cmocka_unit_test(entries_are_padded_to_8_bytes),
        cmocka_unit_test(long_tables_of_long_names_are_read_to_the_end),
        cmocka_unit_test(refuses_a_table_past_the_end_of_the_file),
        cmocka_unit_test(the_last_entry_may_end_where_the_file_ends),
        cmocka_unit_test(refuses_more_entries_than_there_are),
        cmocka_unit_test(the_table_has_at_most_64_mib),
        cmocka_unit_test(each_failed_allocation_of_a_list_is_enomem),
        cmocka_unit_test(a_copy_is_equal_and_stands_alone),
        cmocka_unit_test(every_field_tells_snapshots_apart),
    };
    return cmocka_run_group_tests_name("qcow/snapshots", tests, NULL, NULL);
}
