/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow/header.c: where tables may lie and how long disks may be. */
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
#include "tests/unit/qcow/header_checks.h"

/* Tables. */

static void refuses_an_image_without_a_refcount_table(void **state)
{
    (void)state;
    struct image image = tiny(3, 16, 65536);
    image_poke32(&image, HDR_REFTABLE_CLUSTERS, 0);
    expect_refused(&image, -EBADMSG, "refcount table (field at 0x38 is 0)");
}

static void refcounts_have_at_most_64_bits(void **state)
{
    (void)state;
    struct image image = tiny(3, 16, 65536);
    image_poke32(&image, HDR_REFCOUNT_ORDER, 6);
    expect_plain_acceptance(&image);
    image = tiny(3, 16, 65536);
    image_poke32(&image, HDR_REFCOUNT_ORDER, 7);
    expect_refused(&image, -EBADMSG, "refcount_order at 0x60 is 7");
}

static void the_refcount_table_has_at_most_8_mib(void **state)
{
    (void)state;
    struct image image = tiny(3, 16, 65536);
    image_poke32(&image, HDR_REFTABLE_CLUSTERS, 128);
    expect_plain_acceptance(&image);
    image = tiny(3, 16, 65536);
    image_poke32(&image, HDR_REFTABLE_CLUSTERS, 129);
    expect_refused(&image, -EBADMSG, "refcount table");
    image = tiny(3, 16, 65536);
    image_poke32(&image, HDR_REFTABLE_CLUSTERS, 0xffffffff);
    expect_refused(&image, -EBADMSG, "4294967295");
}

static void refuses_a_refcount_table_off_the_clusters(void **state)
{
    (void)state;
    struct image image = tiny(3, 16, 65536);
    image_poke64(&image, HDR_REFTABLE_OFF, 0x10200);
    expect_refused(&image, -EBADMSG, "refcount table at 0x10200 is not aligned");
}

static void refuses_a_refcount_table_past_63_bits(void **state)
{
    (void)state;
    struct image image = tiny(3, 16, 65536);
    image_poke64(&image, HDR_REFTABLE_OFF, 0x7fffffffffff0000);
    expect_refused(&image, -EBADMSG, "refcount table at 0x7fffffffffff0000 lies outside any file");
}

static void there_are_at_most_65536_snapshots(void **state)
{
    (void)state;
    struct image image = tiny(3, 16, 65536);
    image_point_to_snapshots(&image, 0x30000, 65536);
    expect_plain_acceptance(&image);
    image = tiny(3, 16, 65536);
    image_point_to_snapshots(&image, 0x30000, 65537);
    expect_refused(&image, -EBADMSG, "snapshot table");
}

static void refuses_a_snapshot_table_off_the_clusters(void **state)
{
    (void)state;
    struct image image = tiny(3, 16, 65536);
    image_point_to_snapshots(&image, 0x30008, 1);
    expect_refused(&image, -EBADMSG, "snapshot table at 0x30008 is not aligned");
}

static void refuses_a_snapshot_table_past_63_bits(void **state)
{
    (void)state;
    struct image image = tiny(3, 16, 65536);
    image_point_to_snapshots(&image, 0x7fffffffffff0000, 1638);
    expect_plain_acceptance(&image);
    image = tiny(3, 16, 65536);
    image_point_to_snapshots(&image, 0x7fffffffffff0000, 1639);
    expect_refused(&image, -EBADMSG, "snapshot table at 0x7fffffffffff0000 lies outside any file");
}

static void the_l1_table_has_at_most_32_mib(void **state)
{
    (void)state;
    struct image image = tiny(3, 16, 65536);
    image_truncate(&image, 64 << 20);
    image_poke32(&image, HDR_L1_ENTRIES, 4 << 20);
    expect_plain_acceptance(&image);
    image = tiny(3, 16, 65536);
    image_truncate(&image, 64 << 20);
    image_poke32(&image, HDR_L1_ENTRIES, (4 << 20) + 1);
    expect_refused(&image, -EBADMSG, "4194305");
}

static void refuses_an_l1_table_off_the_clusters(void **state)
{
    (void)state;
    struct image image = tiny(3, 16, 65536);
    image_poke64(&image, HDR_L1_OFF, 0x20008);
    expect_refused(&image, -EBADMSG, "L1 table at 0x20008 is not aligned");
}

static void refuses_an_l1_table_past_63_bits(void **state)
{
    (void)state;
    struct image image = tiny(3, 16, 65536);
    image_poke64(&image, HDR_L1_OFF, 0x7fffffffffff0000);
    image_poke32(&image, HDR_L1_ENTRIES, 8192);
    expect_refused(&image, -EBADMSG, "L1 table at 0x7fffffffffff0000 lies outside any file");
    image = tiny(3, 16, 65536);
    image_poke64(&image, HDR_L1_OFF, 0x7fffffffffff0000);
    image_poke32(&image, HDR_L1_ENTRIES, 8191);
    expect_refused(&image, -EBADMSG, "(8191 entries) lies outside the 196608-byte file");
    image = tiny(3, 16, 65536);
    image_poke64(&image, HDR_L1_OFF, 0xffffffffffff0000);
    image_poke32(&image, HDR_L1_ENTRIES, 8192);
    expect_refused(&image, -EBADMSG, "L1 table at 0xffffffffffff0000 lies outside any file");
}

static void refuses_l1_table_past_end_of_file(void **state)
{
    (void)state;
    struct image image = tiny(3, 16, 1ULL << 30);
    image_truncate(&image, 0x20000 + 16);
    expect_plain_acceptance(&image);
    image = tiny(3, 16, 1ULL << 30);
    image_truncate(&image, 0x20000 + 15);
    expect_refused(&image, -EBADMSG,
                   "L1 table at 0x20000 (2 entries) lies outside the 131087-byte file");
}

static void refuses_an_l1_table_too_short_for_the_disk(void **state)
{
    (void)state;
    struct image image = tiny(3, 16, 1ULL << 30);
    image_poke64(&image, HDR_SIZE, (1ULL << 30) + 512);
    expect_refused(&image, -EBADMSG,
                   "L1 table at 0x20000 has 2 entries, too few for a disk of "
                   "1073742336 bytes (3)");
}

static void an_extended_l1_table_covers_half_as_much(void **state)
{
    (void)state;
    struct image image = tiny_with(INCOMPAT_EXTENDED_L2, NULL, 0);
    image_poke64(&image, HDR_SIZE, 256 << 20);
    expect_plain_acceptance(&image);
    image = tiny_with(INCOMPAT_EXTENDED_L2, NULL, 0);
    image_poke64(&image, HDR_SIZE, (256 << 20) + 512);
    expect_refused(&image, -EBADMSG, "has 1 entries, too few");
}

static void refuses_sizes_that_no_l1_table_holds(void **state)
{
    (void)state;
    struct image image = tiny(3, 9, 65536);
    image_poke64(&image, HDR_SIZE, (uint64_t)INT32_MAX << 15);
    expect_refused(&image, -EBADMSG, "too few for a disk of 70368744144896 bytes (2147483647)");
    image = tiny(3, 9, 65536);
    image_poke64(&image, HDR_SIZE, ((uint64_t)INT32_MAX << 15) + 512);
    expect_refused(&image, -EBADMSG, "size at 0x18 is 70368744145408 bytes, too large");
}

static void refuses_sizes_near_and_past_63_bits(void **state)
{
    (void)state;
    struct image image = tiny(3, 21, 65536);
    image_poke64(&image, HDR_SIZE, INT64_MAX);
    expect_refused(&image, -EBADMSG, "too few for a disk of 9223372036854775296 bytes (16777216)");
    image = tiny(3, 21, 65536);
    image_poke64(&image, HDR_SIZE, 1ULL << 63);
    expect_refused(&image, -EBADMSG, "size at 0x18 is 9223372036854775808 bytes, too large");
    image = tiny(3, 21, 65536);
    image_poke64(&image, HDR_SIZE, UINT64_MAX);
    expect_refused(&image, -EBADMSG, "too large");
}

static void counts_the_l1_entries_that_a_disk_needs(void **state)
{
    (void)state;
    struct qcow_header hdr = {.cluster_bits = 16};
    assert_true(header_l1_needed(&hdr, 0) == 0);
    assert_true(header_l1_needed(&hdr, 1) == 1);
    assert_true(header_l1_needed(&hdr, 512ULL << 20) == 1);
    assert_true(header_l1_needed(&hdr, (512ULL << 20) + 1) == 2);
    hdr.has_extended_l2 = true;
    assert_true(header_l1_needed(&hdr, 512ULL << 20) == 2);
    hdr = (struct qcow_header){.cluster_bits = 21};
    assert_true(header_l1_needed(&hdr, UINT64_MAX) == 1ULL << 25);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_an_image_without_a_refcount_table),
        cmocka_unit_test(refcounts_have_at_most_64_bits),
        cmocka_unit_test(the_refcount_table_has_at_most_8_mib),
        cmocka_unit_test(refuses_a_refcount_table_off_the_clusters),
        cmocka_unit_test(refuses_a_refcount_table_past_63_bits),
        cmocka_unit_test(there_are_at_most_65536_snapshots),
        cmocka_unit_test(refuses_a_snapshot_table_off_the_clusters),
        cmocka_unit_test(refuses_a_snapshot_table_past_63_bits),
        cmocka_unit_test(the_l1_table_has_at_most_32_mib),
        cmocka_unit_test(refuses_an_l1_table_off_the_clusters),
        cmocka_unit_test(refuses_an_l1_table_past_63_bits),
        cmocka_unit_test(refuses_l1_table_past_end_of_file),
        cmocka_unit_test(refuses_an_l1_table_too_short_for_the_disk),
        cmocka_unit_test(an_extended_l1_table_covers_half_as_much),
        cmocka_unit_test(refuses_sizes_that_no_l1_table_holds),
        cmocka_unit_test(refuses_sizes_near_and_past_63_bits),
        cmocka_unit_test(counts_the_l1_entries_that_a_disk_needs),
    };
    return cmocka_run_group_tests_name("qcow/header: tables", tests, NULL, NULL);
}
