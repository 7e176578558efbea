/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qcow/table.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "qcow/format.h"
#include "tests/lib/image.h"
#include "tests/unit/qcow/faults.h"

/* An image of 512-byte clusters: an L2 table has 64 entries and covers 32 KiB. */
struct fixture {
    struct image image;
    struct qcow_cache *cache;
    struct qcow_image *opened;
};

static void setup(struct fixture *f, unsigned cluster_bits, uint64_t guest_size,
                  uint64_t incompatible)
{
    *f = (struct fixture){0};
    image_create(&f->image, &(struct image_options){.cluster_bits = cluster_bits,
                                                    .guest_size = guest_size,
                                                    .incompatible = incompatible});
    assert_int_equal(qcow_cache_create(1 << 20, &f->cache, NULL), 0);
}

static void teardown(struct fixture *f)
{
    qcow_close(f->opened);
    qcow_cache_destroy(f->cache);
    image_destroy(&f->image);
}

static int find(struct fixture *f, uint64_t guest_off, uint64_t max_len, enum table_grow grow,
                struct cluster_run *run, struct error *err)
{
    if (!f->opened)
        f->opened = image_open(&f->image, NULL, f->cache, NULL);
    return table_find_run(f->cache, &f->opened->layers[0], guest_off, max_len, grow, run, err);
}

static struct cluster_run found(struct fixture *f, uint64_t guest_off, uint64_t max_len,
                                enum table_grow grow)
{
    struct cluster_run run;
    struct error err = {0};
    if (find(f, guest_off, max_len, grow, &run, &err) != 0)
        fail_msg("refused: %s", err.text);
    return run;
}

static void expect_refused(struct fixture *f, uint64_t guest_off, const char *words)
{
    struct cluster_run run;
    struct error err = {0};
    assert_int_equal(find(f, guest_off, 512, TABLE_GROW_CONTIGUOUS, &run, &err), -EBADMSG);
    if (!strstr(err.text, words) || !strstr(err.text, "'tiny.qcow2'"))
        fail_msg("'%s' does not say \"%s\"", err.text, words);
}

static void a_disk_without_l2_tables_is_one_gap(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 9, 1 << 20, 0);
    struct cluster_run run = found(&f, 100, (1 << 20) - 100, TABLE_GROW_CONTIGUOUS);
    assert_int_equal(run.kind, CLUSTER_UNALLOCATED);
    assert_true(run.guest_len == (1 << 20) - 100);
    teardown(&f);
}

static void a_gap_ends_where_the_next_cluster_is(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 9, 1 << 20, 0);
    image_write(&f.image, 5 * 32768 + 1024, 1);
    struct cluster_run run = found(&f, 700, 1 << 19, TABLE_GROW_CONTIGUOUS);
    assert_int_equal(run.kind, CLUSTER_UNALLOCATED);
    assert_true(run.guest_len == 5 * 32768 + 1024 - 700);
    run = found(&f, 5 * 32768 + 1024, 1 << 19, TABLE_GROW_CONTIGUOUS);
    assert_int_equal(run.kind, CLUSTER_DATA);
    assert_true(run.guest_len == 512);
    teardown(&f);
}

static void no_run_is_longer_than_asked(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 9, 1 << 20, 0);
    image_write(&f.image, 0, 1);
    assert_true(found(&f, 10, 7, TABLE_GROW_CONTIGUOUS).guest_len == 7);
    assert_true(found(&f, 10, 7, TABLE_GROW_KIND).guest_len == 7);
    assert_true(found(&f, 65536, 1, TABLE_GROW_CONTIGUOUS).guest_len == 1);
    teardown(&f);
}

static void the_last_entry_of_one_table_meets_the_first_of_the_next(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 9, 1 << 20, 0);
    /* tables first, so that the clusters follow one another */
    image_l2_place(&f.image, 0);
    image_l2_place(&f.image, 32768);
    uint64_t host_off = image_write(&f.image, 32768 - 512, 1);
    assert_true(image_write(&f.image, 32768, 2) == host_off + 512);
    struct cluster_run run = found(&f, 32768 - 100, 4096, TABLE_GROW_CONTIGUOUS);
    assert_int_equal(run.kind, CLUSTER_DATA);
    assert_true(run.host_off == host_off + 412);
    assert_true(run.guest_len == 612);
    teardown(&f);
}

static void each_l1_entry_has_its_own_l2_table(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 9, 1 << 20, 0);
    uint64_t first = image_write(&f.image, 0, 1), other = image_write(&f.image, 32768, 2);
    assert_true(found(&f, 0, 512, TABLE_GROW_CONTIGUOUS).host_off == first);
    assert_true(found(&f, 32768, 512, TABLE_GROW_CONTIGUOUS).host_off == other);
    teardown(&f);
}

static void slices_of_a_large_table_are_told_apart(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 16, 1 << 30, 0);
    uint64_t last = image_write(&f.image, 511 * 65536ULL, 1);
    uint64_t next = image_write(&f.image, 512 * 65536ULL, 2);
    assert_true(next == last + 65536);
    uint64_t far = image_write(&f.image, 8191 * 65536ULL, 3);
    struct cluster_run run = found(&f, 511 * 65536ULL, 1 << 20, TABLE_GROW_CONTIGUOUS);
    assert_true(run.host_off == last);
    assert_true(run.guest_len == 2 * 65536);
    run = found(&f, 512 * 65536ULL + 5, 1 << 20, TABLE_GROW_CONTIGUOUS);
    assert_true(run.host_off == next + 5);
    assert_true(run.guest_len == 65536 - 5);
    run = found(&f, 8191 * 65536ULL, 1 << 20, TABLE_GROW_CONTIGUOUS);
    assert_true(run.host_off == far);
    assert_true(run.guest_len == 65536);
    teardown(&f);
}

static void data_elsewhere_ends_a_run_to_read_but_not_one_to_map(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 9, 1 << 20, 0);
    image_write(&f.image, 512, 1);
    image_write(&f.image, 0, 2);
    assert_true(found(&f, 0, 4096, TABLE_GROW_CONTIGUOUS).guest_len == 512);
    struct cluster_run run = found(&f, 0, 4096, TABLE_GROW_KIND);
    assert_int_equal(run.kind, CLUSTER_DATA);
    assert_true(run.guest_len == 1024);
    teardown(&f);
}

static void a_compressed_cluster_is_a_run_of_its_own_to_read(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 12, 1 << 20, 0);
    image_write_compressed(&f.image, 0, COMPRESSION_ZLIB, 1);
    image_write_compressed(&f.image, 4096, COMPRESSION_ZLIB, 2);
    image_write(&f.image, 8192, 3);
    struct cluster_run run = found(&f, 10, 16384, TABLE_GROW_CONTIGUOUS);
    assert_int_equal(run.kind, CLUSTER_COMPRESSED);
    assert_true(run.guest_len == 4086);
    run = found(&f, 10, 16384, TABLE_GROW_KIND);
    assert_int_equal(run.kind, CLUSTER_DATA);
    assert_true(run.guest_len == 3 * 4096 - 10);
    teardown(&f);
}

static void zeros_of_both_kinds_are_one_run(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 9, 1 << 20, 0);
    uint64_t host_off = image_write(&f.image, 512, 1);
    image_set_l2(&f.image, 0, L2_ZERO);
    image_set_l2(&f.image, 512, host_off | L2_ZERO);
    struct cluster_run run = found(&f, 0, 4096, TABLE_GROW_CONTIGUOUS);
    assert_int_equal(run.kind, CLUSTER_ZERO);
    assert_true(run.guest_len == 1024);
    teardown(&f);
}

static void subclusters_of_neighbours_are_one_run(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 16, 1 << 30, INCOMPAT_EXTENDED_L2);
    uint64_t host_off = image_write(&f.image, 0, 1);
    assert_true(image_write(&f.image, 65536, 2) == host_off + 65536);
    image_set_l2_extended(&f.image, 0, host_off, 0x80000000);
    image_set_l2_extended(&f.image, 65536, host_off + 65536, 1 | 2ULL << 32);
    struct cluster_run run = found(&f, 65536 - 2048, 65536, TABLE_GROW_CONTIGUOUS);
    assert_int_equal(run.kind, CLUSTER_DATA);
    assert_true(run.host_off == host_off + 65536 - 2048);
    assert_true(run.guest_len == 4096);
    /* 256 extended entries a slice, 4096 a table */
    uint64_t far = image_write(&f.image, 4095 * 65536ULL, 3);
    uint64_t next = image_write(&f.image, 256 * 65536ULL, 4);
    qcow_close(f.opened);
    f.opened = NULL;
    assert_true(found(&f, 4095 * 65536ULL, 1, TABLE_GROW_KIND).host_off == far);
    assert_true(found(&f, 256 * 65536ULL, 1, TABLE_GROW_KIND).host_off == next);
    teardown(&f);
}

static void reserved_bits_of_l1_entries_are_ignored(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 9, 1 << 20, 0);
    uint64_t host_off = image_write(&f.image, 0, 1);
    uint64_t l2_off = image_l2_place(&f.image, 0);
    image_set_l1(&f.image, 0, 0x7f000000000001ffULL | l2_off);
    image_set_l1(&f.image, 1, 0xff000000000001ffULL);
    assert_true(found(&f, 0, 512, TABLE_GROW_CONTIGUOUS).host_off == host_off);
    assert_int_equal(found(&f, 32768, 512, TABLE_GROW_CONTIGUOUS).kind, CLUSTER_UNALLOCATED);
    teardown(&f);
}

static void refuses_an_l2_table_off_the_clusters(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 12, 64 << 20, 0);
    image_alloc(&f.image, 4);
    image_set_l1(&f.image, 1, L2_COPIED | 0x3200);
    expect_refused(&f, 2 << 20,
                   "L1 table at 0x2000: entry 1 is 0x8000000000003200: L2 table at 0x3200 is not "
                   "aligned to clusters");
    teardown(&f);
}

static void refuses_an_l2_table_outside_the_file(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 12, 64 << 20, 0);
    image_set_l1(&f.image, 0, 0x3000);
    image_set_l1(&f.image, 1, 0x00fffffffffff000ULL);
    expect_refused(&f, 0, "entry 0 is 0x3000: L2 table at 0x3000 lies outside the file");
    expect_refused(&f, 2 << 20, "L2 table at 0xfffffffffff000 lies outside the file");
    teardown(&f);
}

static void an_l2_table_may_end_where_the_file_ends(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 12, 64 << 20, 0);
    image_set_l1(&f.image, 0, 0x3000);
    image_truncate(&f.image, 0x4000);
    assert_int_equal(found(&f, 0, 512, TABLE_GROW_CONTIGUOUS).kind, CLUSTER_UNALLOCATED);
    teardown(&f);
    setup(&f, 12, 64 << 20, 0);
    image_set_l1(&f.image, 0, 0x3000);
    image_truncate(&f.image, 0x3fff);
    expect_refused(&f, 0, "L2 table at 0x3000 lies outside the file");
    teardown(&f);
}

static void a_damaged_entry_is_named_and_spoils_its_own_cluster_only(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 12, 64 << 20, 0);
    image_write(&f.image, 0, 1);
    image_set_l2(&f.image, 4096, 0x3200);
    image_write(&f.image, 8192, 2);
    assert_true(found(&f, 0, 16384, TABLE_GROW_CONTIGUOUS).guest_len == 4096);
    assert_true(found(&f, 0, 16384, TABLE_GROW_KIND).guest_len == 4096);
    expect_refused(&f, 4096 + 17, "L2 table at 0x3000: entry 1: entry 0x3200 has offset 0x3200");
    assert_int_equal(found(&f, 8192, 4096, TABLE_GROW_CONTIGUOUS).kind, CLUSTER_DATA);
    teardown(&f);
}

static void a_damaged_l1_entry_ends_a_run_too(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 12, 64 << 20, 0);
    image_set_l1(&f.image, 1, 0x3200);
    struct cluster_run run = found(&f, 4096, 8 << 20, TABLE_GROW_KIND);
    assert_int_equal(run.kind, CLUSTER_UNALLOCATED);
    assert_true(run.guest_len == (2 << 20) - 4096);
    teardown(&f);
}

static void what_lies_past_a_short_l1_table_is_unallocated(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 9, 1 << 20, 0);
    uint64_t host_off = image_write(&f.image, 0, 1);
    image_write(&f.image, 32768, 2);
    f.opened = image_open(&f.image, NULL, f.cache, NULL);
    f.opened->layers[0].l1_entries = 1; /* as that of a snapshot may be */
    assert_true(found(&f, 0, 512, TABLE_GROW_CONTIGUOUS).host_off == host_off);
    struct cluster_run run = found(&f, 32768, (1 << 20) - 32768, TABLE_GROW_CONTIGUOUS);
    assert_int_equal(run.kind, CLUSTER_UNALLOCATED);
    assert_true(run.guest_len == (1 << 20) - 32768);
    teardown(&f);
}

static void nothing_past_the_l1_table_is_read(void **state)
{
    (void)state;
    /* 65 entries: one more than a slice of 512 bytes, and the file ends behind it */
    struct fixture f;
    setup(&f, 9, 65 * 32768, 0);
    image_truncate(&f.image, f.image.l1_off + 65 * 8);
    struct cluster_run run = found(&f, 64 * 32768, 32768, TABLE_GROW_CONTIGUOUS);
    assert_int_equal(run.kind, CLUSTER_UNALLOCATED);
    assert_true(run.guest_len == 32768);
    run = found(&f, 63 * 32768, 65536, TABLE_GROW_CONTIGUOUS);
    assert_true(run.guest_len == 65536);
    teardown(&f);
}

static void an_l1_table_cut_off_while_open_is_named(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 9, 65 * 32768, 0);
    f.opened = image_open(&f.image, NULL, f.cache, NULL);
    image_truncate(&f.image, f.image.l1_off + 512);
    expect_refused(&f, 64 * 32768, "L1 table at 0x600 (8 bytes) lies outside");
    teardown(&f);
}

static atomic_size_t n_bytes;

static ssize_t count_bytes(int fd, void *buf, size_t len, off_t host_off)
{
    atomic_fetch_add(&n_bytes, len);
    return faults_real_pread(fd, buf, len, host_off);
}

static void the_largest_l1_table_is_opened_without_reading_it(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 16, 1 << 20, 0);
    image_poke32(&f.image, HDR_L1_ENTRIES, 4 << 20);
    image_poke64(&f.image, HDR_SIZE, (4ULL << 20) << 29); /* 2 PiB */
    image_truncate(&f.image, f.image.l1_off + (32 << 20));
    atomic_store(&n_bytes, 0);
    faults_pread = count_bytes;
    f.opened = image_open(&f.image, NULL, f.cache, NULL);
    assert_in_range(atomic_load(&n_bytes), 1, 2 * 65536);
    uint64_t last = ((4ULL << 20) << 29) - 512;
    assert_int_equal(found(&f, last, 512, TABLE_GROW_CONTIGUOUS).kind, CLUSTER_UNALLOCATED);
    faults_pread = NULL;
    assert_in_range(atomic_load(&n_bytes), 1, 2 * 65536 + 4096);
    assert_in_range(qcow_cache_used(f.cache), 1, 4096);
    teardown(&f);
}

static void one_entry_of_a_2_mib_table_costs_a_page(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 21, 1ULL << 40, 0);
    uint64_t host_off = image_write(&f.image, 100000ULL << 21, 1);
    f.opened = image_open(&f.image, NULL, f.cache, NULL);
    atomic_store(&n_bytes, 0);
    faults_pread = count_bytes;
    struct cluster_run run = found(&f, (100000ULL << 21) + 77, 1000, TABLE_GROW_CONTIGUOUS);
    faults_pread = NULL;
    assert_true(run.host_off == host_off + 77);
    assert_in_range(atomic_load(&n_bytes), 1, 2 * 4096);
    teardown(&f);
}

static void offsets_near_the_end_of_the_largest_disk_do_not_overflow(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 21, 1 << 20, 0);
    image_poke32(&f.image, HDR_L1_ENTRIES, 4 << 20);
    image_poke64(&f.image, HDR_SIZE, 1ULL << 61);
    image_truncate(&f.image, f.image.end + (32 << 20));
    f.image.end += 32 << 20;
    uint64_t host_off = image_write(&f.image, (1ULL << 61) - (2 << 20), 1);
    struct cluster_run run = found(&f, (1ULL << 61) - 512, 512, TABLE_GROW_CONTIGUOUS);
    assert_int_equal(run.kind, CLUSTER_DATA);
    assert_true(run.host_off == host_off + (2 << 20) - 512);
    run = found(&f, 0, 1ULL << 61, TABLE_GROW_KIND);
    assert_int_equal(run.kind, CLUSTER_UNALLOCATED);
    /* not to its end: 256 slices of 512 L1 entries of 512 GiB are enough at a time */
    assert_true(run.guest_len == 1ULL << 56);
    run = found(&f, (1ULL << 61) - (8 << 20), 8 << 20, TABLE_GROW_KIND);
    assert_true(run.guest_len == 6 << 20);
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_disk_without_l2_tables_is_one_gap),
        cmocka_unit_test(a_gap_ends_where_the_next_cluster_is),
        cmocka_unit_test(no_run_is_longer_than_asked),
        cmocka_unit_test(the_last_entry_of_one_table_meets_the_first_of_the_next),
        cmocka_unit_test(each_l1_entry_has_its_own_l2_table),
        cmocka_unit_test(slices_of_a_large_table_are_told_apart),
        cmocka_unit_test(data_elsewhere_ends_a_run_to_read_but_not_one_to_map),
        cmocka_unit_test(a_compressed_cluster_is_a_run_of_its_own_to_read),
        cmocka_unit_test(zeros_of_both_kinds_are_one_run),
        cmocka_unit_test(subclusters_of_neighbours_are_one_run),
        cmocka_unit_test(reserved_bits_of_l1_entries_are_ignored),
        cmocka_unit_test(refuses_an_l2_table_off_the_clusters),
        cmocka_unit_test(refuses_an_l2_table_outside_the_file),
        cmocka_unit_test(an_l2_table_may_end_where_the_file_ends),
        cmocka_unit_test(a_damaged_entry_is_named_and_spoils_its_own_cluster_only),
        cmocka_unit_test(a_damaged_l1_entry_ends_a_run_too),
        cmocka_unit_test(what_lies_past_a_short_l1_table_is_unallocated),
        cmocka_unit_test(nothing_past_the_l1_table_is_read),
        cmocka_unit_test(an_l1_table_cut_off_while_open_is_named),
        cmocka_unit_test(the_largest_l1_table_is_opened_without_reading_it),
        cmocka_unit_test(one_entry_of_a_2_mib_table_costs_a_page),
        cmocka_unit_test(offsets_near_the_end_of_the_largest_disk_do_not_overflow),
    };
    return cmocka_run_group_tests_name("qcow/table", tests, NULL, NULL);
}
