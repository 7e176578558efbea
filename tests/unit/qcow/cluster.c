/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qcow/cluster.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "qcow/format.h"

/* 64 KiB clusters */
static const struct cluster_shape v3 = {.version = 3, .cluster_bits = 16};
static const struct cluster_shape v2 = {.version = 2, .cluster_bits = 16};
static const struct cluster_shape extended = {
    .version = 3, .cluster_bits = 16, .has_extended_l2 = true};
static const struct cluster_shape with_data_file = {
    .version = 3, .cluster_bits = 16, .has_data_file = true};

static const uint64_t reserved_bits = 0x3f000000000001feULL;

static struct cluster_run decoded(const struct cluster_shape *shape, uint64_t entry,
                                  uint64_t bitmap, uint64_t guest_off)
{
    struct cluster_run run;
    struct error err = {0};
    const struct cluster_entry both = {.entry = entry, .bitmap = bitmap};
    if (cluster_decode(shape, &both, guest_off, &run, &err) != 0)
        fail_msg("refused: %s", err.text);
    return run;
}

static void expect_refused(const struct cluster_shape *shape, uint64_t entry, uint64_t bitmap,
                           uint64_t guest_off, const char *words)
{
    struct cluster_run run;
    struct error err = {0};
    const struct cluster_entry both = {.entry = entry, .bitmap = bitmap};
    assert_int_equal(cluster_decode(shape, &both, guest_off, &run, &err), -EBADMSG);
    if (!strstr(err.text, words))
        fail_msg("'%s' does not say \"%s\"", err.text, words);
}

static void an_entry_of_zeros_is_unallocated(void **state)
{
    (void)state;
    struct cluster_run run = decoded(&v3, 0, 0, 0x50000);
    assert_int_equal(run.kind, CLUSTER_UNALLOCATED);
    assert_true(run.guest_len == 0x10000);
}

static void offset_0_is_unallocated_even_with_copied(void **state)
{
    (void)state;
    assert_int_equal(decoded(&v3, L2_COPIED, 0, 0).kind, CLUSTER_UNALLOCATED);
    assert_int_equal(decoded(&v2, L2_COPIED, 0, 0).kind, CLUSTER_UNALLOCATED);
    assert_int_equal(decoded(&extended, L2_COPIED, 0, 0).kind, CLUSTER_UNALLOCATED);
}

static void a_run_begins_at_the_byte_asked_for(void **state)
{
    (void)state;
    struct cluster_run run = decoded(&v3, L2_COPIED | 0x30000, 0, 0x51234);
    assert_int_equal(run.kind, CLUSTER_DATA);
    assert_true(run.host_off == 0x31234);
    assert_true(run.guest_len == 0x10000 - 0x1234);
}

static void copied_does_not_matter_to_a_reader(void **state)
{
    (void)state;
    struct cluster_run run = decoded(&v3, 0x30000, 0, 0);
    assert_int_equal(run.kind, CLUSTER_DATA);
    assert_true(run.host_off == 0x30000);
}

static void offsets_have_56_bits(void **state)
{
    (void)state;
    struct cluster_run run = decoded(&v3, 0x00ffffffffff0000ULL, 0, 0);
    assert_true(run.host_off == 0x00ffffffffff0000ULL);
}

static void reserved_bits_are_ignored(void **state)
{
    (void)state;
    struct cluster_run run = decoded(&v3, reserved_bits | 0x30000, 0, 0);
    assert_int_equal(run.kind, CLUSTER_DATA);
    assert_true(run.host_off == 0x30000);
    assert_int_equal(decoded(&v3, reserved_bits, 0, 0).kind, CLUSTER_UNALLOCATED);
}

static void both_kinds_of_zero_clusters_read_as_zeros(void **state)
{
    (void)state;
    struct cluster_run run = decoded(&v3, L2_ZERO, 0, 0x100);
    assert_int_equal(run.kind, CLUSTER_ZERO);
    assert_true(run.guest_len == 0x10000 - 0x100);
    assert_int_equal(decoded(&v3, L2_ZERO | L2_COPIED | 0x30000, 0, 0).kind, CLUSTER_ZERO);
}

static void version_2_knows_no_zero_clusters(void **state)
{
    (void)state;
    expect_refused(&v2, L2_ZERO, 0, 0, "entry 0x1 is marked as zeros");
    expect_refused(&v2, L2_ZERO | 0x30000, 0, 0, "entry 0x30001 is marked as zeros");
}

static void refuses_offsets_off_the_clusters(void **state)
{
    (void)state;
    expect_refused(&v3, L2_COPIED | 0x30200, 0, 0,
                   "entry 0x8000000000030200 has offset 0x30200, not aligned to the 65536-byte");
    expect_refused(&v3, 0x200, 0, 0, "has offset 0x200");
    expect_refused(&v3, 0x38000, 0, 0, "has offset 0x38000");
    expect_refused(&extended, 0x30200, 1, 0, "has offset 0x30200");
}

static void refuses_them_under_a_zero_mark_too(void **state)
{
    (void)state;
    expect_refused(&v3, 0x30201, 0, 0, "has offset 0x30200");
    expect_refused(&extended, 0x30200, 1ULL << 32, 0, "has offset 0x30200");
}

static void clusters_of_512_bytes_may_lie_at_any_sector(void **state)
{
    (void)state;
    const struct cluster_shape small = {.version = 3, .cluster_bits = 9};
    assert_true(decoded(&small, 0x30200, 0, 0x400).host_off == 0x30200);
}

/* Compressed clusters. */

static void a_compressed_descriptor_splits_at_the_cluster_size(void **state)
{
    (void)state;
    /* 64 KiB: 54 bits of offset, 8 bits of sectors */
    struct cluster_run run = decoded(&v3, L2_COMPRESSED | 3ULL << 54 | 0x12345, 0, 0x51000);
    assert_int_equal(run.kind, CLUSTER_COMPRESSED);
    assert_true(run.host_off == 0x12345);
    assert_true(run.host_len == 4 * 512 - 0x145);
    assert_true(run.guest_len == 0xf000);
    run = decoded(&v3, L2_COMPRESSED | 0xffULL << 54 | ((1ULL << 54) - 1), 0, 0);
    assert_true(run.host_off == (1ULL << 54) - 1);
    assert_true(run.host_len == 256 * 512 - 511);
}

static void clusters_of_512_bytes_leave_one_bit_for_sectors(void **state)
{
    (void)state;
    const struct cluster_shape small = {.version = 3, .cluster_bits = 9};
    struct cluster_run run = decoded(&small, L2_COMPRESSED | 1ULL << 61 | 0x600, 0, 0);
    assert_true(run.host_off == 0x600);
    assert_true(run.host_len == 1024);
    run = decoded(&small, L2_COMPRESSED | 1ULL << 60 | 0x7ff, 0, 0);
    assert_true(run.host_off == (1ULL << 60 | 0x7ff));
    assert_true(run.host_len == 1);
}

static void clusters_of_2_mib_leave_13_bits_for_sectors(void **state)
{
    (void)state;
    const struct cluster_shape large = {.version = 3, .cluster_bits = 21};
    struct cluster_run run = decoded(&large, L2_COMPRESSED | 0x1fffULL << 49 | 0x200, 0, 0);
    assert_true(run.host_off == 0x200);
    assert_true(run.host_len == 8192 * 512);
}

static void the_zero_mark_is_a_bit_of_a_compressed_offset(void **state)
{
    (void)state;
    struct cluster_run run = decoded(&v2, L2_COMPRESSED | 0x30001, 0, 0);
    assert_int_equal(run.kind, CLUSTER_COMPRESSED);
    assert_true(run.host_off == 0x30001);
}

static void a_descriptor_tells_clusters_apart_but_not_their_copied_bits(void **state)
{
    (void)state;
    uint64_t entry = L2_COMPRESSED | 3ULL << 54 | 0x12345;
    struct cluster_run run = decoded(&v3, entry, 0, 0);
    struct cluster_run same = decoded(&v3, entry | L2_COPIED, 0, 0x20000);
    struct cluster_run longer = decoded(&v3, entry + (1ULL << 54), 0, 0);
    assert_true(run.descriptor == same.descriptor);
    assert_true(same.host_off == 0x12345);
    assert_true(same.host_len == run.host_len);
    assert_true(run.descriptor != longer.descriptor);
}

static void a_compressed_cluster_has_no_subclusters(void **state)
{
    (void)state;
    struct cluster_run run = decoded(&extended, L2_COMPRESSED | 0x30000, UINT64_MAX, 0x100);
    assert_int_equal(run.kind, CLUSTER_COMPRESSED);
    assert_true(run.guest_len == 0x10000 - 0x100);
}

/* Subclusters: 2 KiB each here. */

static void each_subcluster_has_its_own_kind(void **state)
{
    (void)state;
    uint64_t bitmap = 0x2ULL | 0x4ULL << 32; /* 0 from below, 1 data, 2 zeros, the rest below */
    struct cluster_run run = decoded(&extended, 0x30000, bitmap, 0);
    assert_int_equal(run.kind, CLUSTER_UNALLOCATED);
    assert_true(run.guest_len == 0x800);
    run = decoded(&extended, 0x30000, bitmap, 0x900);
    assert_int_equal(run.kind, CLUSTER_DATA);
    assert_true(run.host_off == 0x30900);
    assert_true(run.guest_len == 0x700);
    run = decoded(&extended, 0x30000, bitmap, 0x1000);
    assert_int_equal(run.kind, CLUSTER_ZERO);
    assert_true(run.guest_len == 0x800);
    run = decoded(&extended, 0x30000, bitmap, 0x1800);
    assert_int_equal(run.kind, CLUSTER_UNALLOCATED);
    assert_true(run.guest_len == 0x10000 - 0x1800);
}

static void subclusters_of_a_kind_are_one_run(void **state)
{
    (void)state;
    struct cluster_run run = decoded(&extended, 0x30000, 0x7eULL, 0x850);
    assert_int_equal(run.kind, CLUSTER_DATA);
    assert_true(run.guest_len == 6 * 0x800 - 0x50);
    run = decoded(&extended, 0x30000, 0xffffffffULL, 0x20000);
    assert_true(run.guest_len == 0x10000);
}

static void the_last_subcluster_counts_too(void **state)
{
    (void)state;
    struct cluster_run run = decoded(&extended, 0x30000, 1ULL << 31, 0xf800);
    assert_int_equal(run.kind, CLUSTER_DATA);
    assert_true(run.guest_len == 0x800);
    run = decoded(&extended, 0, 1ULL << 63, 0xffff);
    assert_int_equal(run.kind, CLUSTER_ZERO);
    assert_true(run.guest_len == 1);
}

static void zero_subclusters_need_no_cluster(void **state)
{
    (void)state;
    struct cluster_run run = decoded(&extended, 0, 0xffffffff00000000ULL, 0);
    assert_int_equal(run.kind, CLUSTER_ZERO);
    assert_true(run.guest_len == 0x10000);
}

static void the_zero_mark_of_plain_entries_means_nothing_with_subclusters(void **state)
{
    (void)state;
    assert_int_equal(decoded(&extended, L2_ZERO, 0, 0).kind, CLUSTER_UNALLOCATED);
    assert_int_equal(decoded(&extended, L2_ZERO | 0x30000, 1, 0).kind, CLUSTER_DATA);
}

static void refuses_subclusters_both_allocated_and_zero(void **state)
{
    (void)state;
    /* wherever the reader looks */
    expect_refused(&extended, 0x30000, 1ULL << 31 | 1ULL << 63, 0,
                   "entry 0x30000 has subcluster bitmap 0x8000000080000000: subclusters both");
    expect_refused(&extended, 0x30000, 1ULL | 1ULL << 32, 0xf800, "0x100000001");
}

static void refuses_subclusters_allocated_without_a_cluster(void **state)
{
    (void)state;
    expect_refused(&extended, 0, 1ULL << 31, 0,
                   "entry 0 has subcluster bitmap 0x80000000: subclusters allocated without");
    expect_refused(&extended, L2_COPIED, 1, 0, "allocated without a cluster");
}

static void a_bitmap_is_not_looked_at_without_subclusters(void **state)
{
    (void)state;
    assert_int_equal(decoded(&v3, 0x30000, UINT64_MAX, 0).kind, CLUSTER_DATA);
}

/* External data file. */

static void in_a_data_file_offsets_are_the_guests(void **state)
{
    (void)state;
    struct cluster_run run = decoded(&with_data_file, L2_COPIED | 0x50000, 0, 0x50010);
    assert_int_equal(run.kind, CLUSTER_DATA);
    assert_true(run.host_off == 0x50010);
    expect_refused(&with_data_file, L2_COPIED | 0x60000, 0, 0x50010,
                   "entry 0x8000000000060000 has offset 0x60000 in the external data file, not "
                   "its guest offset 0x50000");
}

static void in_a_data_file_copied_tells_offset_0_from_none(void **state)
{
    (void)state;
    struct cluster_run run = decoded(&with_data_file, L2_COPIED, 0, 0x10);
    assert_int_equal(run.kind, CLUSTER_DATA);
    assert_true(run.host_off == 0x10);
    assert_int_equal(decoded(&with_data_file, 0, 0, 0).kind, CLUSTER_UNALLOCATED);
    expect_refused(&with_data_file, L2_COPIED, 0, 0x50000, "not its guest offset 0x50000");
}

static void in_a_data_file_the_same_holds_for_subclusters(void **state)
{
    (void)state;
    struct cluster_shape shape = extended;
    shape.has_data_file = true;
    assert_int_equal(decoded(&shape, L2_COPIED, 1, 0).kind, CLUSTER_DATA);
    expect_refused(&shape, 0, 1, 0, "allocated without a cluster");
    expect_refused(&shape, L2_COPIED | 0x60000, 1, 0x50000, "not its guest offset");
}

static void in_a_data_file_zero_marks_need_no_cluster(void **state)
{
    (void)state;
    assert_int_equal(decoded(&with_data_file, L2_ZERO, 0, 0x50000).kind, CLUSTER_ZERO);
}

static void a_data_file_holds_nothing_compressed(void **state)
{
    (void)state;
    expect_refused(&with_data_file, L2_COMPRESSED | 0x30000, 0, 0x30000,
                   "entry 0x4000000000030000 is compressed");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_entry_of_zeros_is_unallocated),
        cmocka_unit_test(offset_0_is_unallocated_even_with_copied),
        cmocka_unit_test(a_run_begins_at_the_byte_asked_for),
        cmocka_unit_test(copied_does_not_matter_to_a_reader),
        cmocka_unit_test(offsets_have_56_bits),
        cmocka_unit_test(reserved_bits_are_ignored),
        cmocka_unit_test(both_kinds_of_zero_clusters_read_as_zeros),
        cmocka_unit_test(version_2_knows_no_zero_clusters),
        cmocka_unit_test(refuses_offsets_off_the_clusters),
        cmocka_unit_test(refuses_them_under_a_zero_mark_too),
        cmocka_unit_test(clusters_of_512_bytes_may_lie_at_any_sector),
        cmocka_unit_test(a_compressed_descriptor_splits_at_the_cluster_size),
        cmocka_unit_test(clusters_of_512_bytes_leave_one_bit_for_sectors),
        cmocka_unit_test(clusters_of_2_mib_leave_13_bits_for_sectors),
        cmocka_unit_test(the_zero_mark_is_a_bit_of_a_compressed_offset),
        cmocka_unit_test(a_descriptor_tells_clusters_apart_but_not_their_copied_bits),
        cmocka_unit_test(a_compressed_cluster_has_no_subclusters),
        cmocka_unit_test(each_subcluster_has_its_own_kind),
        cmocka_unit_test(subclusters_of_a_kind_are_one_run),
        cmocka_unit_test(the_last_subcluster_counts_too),
        cmocka_unit_test(zero_subclusters_need_no_cluster),
        cmocka_unit_test(the_zero_mark_of_plain_entries_means_nothing_with_subclusters),
        cmocka_unit_test(refuses_subclusters_both_allocated_and_zero),
        cmocka_unit_test(refuses_subclusters_allocated_without_a_cluster),
        cmocka_unit_test(a_bitmap_is_not_looked_at_without_subclusters),
        cmocka_unit_test(in_a_data_file_offsets_are_the_guests),
        cmocka_unit_test(in_a_data_file_copied_tells_offset_0_from_none),
        cmocka_unit_test(in_a_data_file_the_same_holds_for_subclusters),
        cmocka_unit_test(in_a_data_file_zero_marks_need_no_cluster),
        cmocka_unit_test(a_data_file_holds_nothing_compressed),
    };
    return cmocka_run_group_tests_name("qcow/cluster", tests, NULL, NULL);
}
