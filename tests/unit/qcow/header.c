/* SPDX-License-Identifier: LGPL-2.1-or-later */
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

/* Fields of both versions. */

static void reads_every_field_of_a_version_3_header(void **state)
{
    (void)state;
    struct image image = tiny(3, 16, 3ULL << 30);
    image_poke64(&image, HDR_INCOMPATIBLE, INCOMPAT_DIRTY | INCOMPAT_CORRUPT);
    image_alloc(&image, 1);
    image_point_to_snapshots(&image, 0x30000, 7);
    image_poke32(&image, HDR_CRYPT, CRYPT_AES);
    struct qcow_header hdr = expect_accepted(&image);
    assert_int_equal(hdr.version, 3);
    assert_int_equal(hdr.cluster_bits, 16);
    assert_int_equal(hdr.cluster_size, 65536);
    assert_true(hdr.guest_size == 3ULL << 30);
    assert_true(hdr.l1_off == 0x20000);
    assert_int_equal(hdr.l1_entries, 6);
    assert_true(hdr.snapshots_off == 0x30000);
    assert_int_equal(hdr.n_snapshots, 7);
    assert_int_equal(hdr.crypt_method, CRYPT_AES);
    assert_int_equal(hdr.compression, COMPRESSION_ZLIB);
    assert_true(hdr.is_dirty);
    assert_true(hdr.is_corrupt);
    assert_false(hdr.has_extended_l2);
    assert_false(hdr.has_data_file);
    assert_null(hdr.backing_name);
    assert_null(hdr.backing_format);
    assert_null(hdr.data_name);
    header_fini(&hdr);
}

static void dirty_and_corrupt_are_told_apart(void **state)
{
    (void)state;
    struct image image = tiny_with(INCOMPAT_DIRTY, NULL, 0);
    struct qcow_header hdr = expect_accepted(&image);
    assert_true(hdr.is_dirty && !hdr.is_corrupt);
    header_fini(&hdr);
    image = tiny_with(INCOMPAT_CORRUPT, NULL, 0);
    hdr = expect_accepted(&image);
    assert_true(!hdr.is_dirty && hdr.is_corrupt);
    header_fini(&hdr);
}

static void version_2_has_no_feature_fields(void **state)
{
    (void)state;
    uint8_t ones[40];
    memset(ones, 0xff, sizeof(ones));
    /* what are feature fields in version 3 is an extension that nobody knows here */
    struct image image;
    image_create(&image, &(struct image_options){
                             .version = 2,
                             .guest_size = 65536,
                             .extensions = &(struct image_extension){0xffffffff, ones, 40},
                             .n_extensions = 1});
    struct qcow_header hdr = expect_accepted(&image);
    assert_int_equal(hdr.version, 2);
    assert_false(hdr.is_dirty || hdr.is_corrupt || hdr.has_data_file || hdr.has_extended_l2);
    assert_int_equal(hdr.compression, COMPRESSION_ZLIB);
    header_fini(&hdr);
}

static void refuses_another_magic(void **state)
{
    (void)state;
    struct image image = tiny(3, 9, 65536);
    image_poke8(&image, 3, 0xfa);
    expect_refused(&image, -EBADMSG, "0x514649fa");
}

static void refuses_version_1(void **state)
{
    (void)state;
    struct image image = tiny(3, 9, 65536);
    image_poke32(&image, HDR_VERSION, 1);
    expect_refused(&image, -ENOTSUP, "version 1");
}

static void refuses_version_0_and_4(void **state)
{
    (void)state;
    struct image image = tiny(3, 9, 65536);
    image_poke32(&image, HDR_VERSION, 0);
    expect_refused(&image, -ENOTSUP, "version 0");
    image = tiny(3, 9, 65536);
    image_poke32(&image, HDR_VERSION, 4);
    expect_refused(&image, -ENOTSUP, "version 4");
}

static void accepts_clusters_of_512_bytes_and_2_mib(void **state)
{
    (void)state;
    struct image image = tiny(3, 9, 65536);
    expect_plain_acceptance(&image);
    image = tiny(3, 21, 65536);
    expect_plain_acceptance(&image);
}

static void refuses_cluster_bits_8(void **state)
{
    (void)state;
    struct image image = tiny(3, 9, 65536);
    image_poke32(&image, HDR_CLUSTER_BITS, 8);
    expect_refused(&image, -EBADMSG, "cluster_bits at 0x14 is 8");
}

static void refuses_cluster_bits_22(void **state)
{
    (void)state;
    struct image image = tiny(3, 21, 65536);
    image_poke32(&image, HDR_CLUSTER_BITS, 22);
    expect_refused(&image, -EBADMSG, "cluster_bits at 0x14 is 22");
}

static void refuses_cluster_bits_that_no_shift_survives(void **state)
{
    (void)state;
    struct image image = tiny(3, 9, 65536);
    image_poke32(&image, HDR_CLUSTER_BITS, 0xffffffff);
    expect_refused(&image, -EBADMSG, "cluster_bits at 0x14 is 4294967295");
}

static void rounds_the_size_down_to_whole_sectors(void **state)
{
    (void)state;
    struct image image = tiny(3, 16, 1000001);
    struct qcow_header hdr = expect_accepted(&image);
    assert_true(hdr.guest_size == 999936);
    header_fini(&hdr);
}

static void accepts_a_disk_of_no_bytes(void **state)
{
    (void)state;
    struct image image = tiny(3, 16, 0);
    image_poke64(&image, HDR_L1_OFF, 0);
    struct qcow_header hdr = expect_accepted(&image);
    assert_true(hdr.guest_size == 0);
    header_fini(&hdr);
}

static void knows_three_encryption_methods_and_refuses_the_fourth(void **state)
{
    (void)state;
    struct image image = tiny(3, 16, 65536);
    image_poke32(&image, HDR_CRYPT, CRYPT_LUKS);
    struct qcow_header hdr = expect_accepted(&image);
    assert_int_equal(hdr.crypt_method, CRYPT_LUKS);
    header_fini(&hdr);
    image = tiny(3, 16, 65536);
    image_poke32(&image, HDR_CRYPT, 3);
    expect_refused(&image, -ENOTSUP, "encryption method 3");
}

/* Lengths. */

static void refuses_an_empty_file(void **state)
{
    (void)state;
    struct image image = tiny(3, 9, 65536);
    image_truncate(&image, 0);
    expect_refused(&image, -EBADMSG, "0 bytes are too few");
}

static void refuses_a_file_shorter_than_a_version_2_header(void **state)
{
    (void)state;
    struct image image = tiny(2, 9, 0);
    image_poke64(&image, HDR_L1_OFF, 0);
    image_truncate(&image, HDR_V2_LEN - 1);
    expect_refused(&image, -EBADMSG, "71 bytes are too few");
}

static void accepts_a_file_that_is_a_version_2_header(void **state)
{
    (void)state;
    struct image image = tiny(2, 9, 0);
    image_poke64(&image, HDR_L1_OFF, 0);
    image_truncate(&image, HDR_V2_LEN);
    expect_plain_acceptance(&image);
}

static void refuses_a_file_that_ends_in_a_version_3_header(void **state)
{
    (void)state;
    struct image image = tiny(3, 9, 0);
    image_truncate(&image, HDR_V3_LEN - 1);
    expect_refused(&image, -EBADMSG, "ends within its header (103 bytes)");
}

static void refuses_a_file_that_ends_in_the_longer_header_it_announces(void **state)
{
    (void)state;
    struct image image = tiny(3, 9, 0);
    image_poke64(&image, HDR_L1_OFF, 0);
    image_truncate(&image, 111);
    expect_refused(&image, -EBADMSG, "ends within its header (111 bytes)");
}

static void accepts_a_file_that_is_a_version_3_header(void **state)
{
    (void)state;
    struct image image = tiny(3, 9, 0);
    image_poke64(&image, HDR_L1_OFF, 0);
    image_truncate(&image, 112);
    expect_plain_acceptance(&image);
}

static void refuses_header_length_103(void **state)
{
    (void)state;
    struct image image = tiny(3, 9, 65536);
    image_poke32(&image, HDR_LENGTH, 103);
    expect_refused(&image, -EBADMSG, "header_length at 0x64 is 103");
}

static void accepts_header_length_104(void **state)
{
    (void)state;
    struct image image = tiny(3, 9, 65536);
    image_poke32(&image, HDR_LENGTH, 104);
    expect_plain_acceptance(&image);
}

static void accepts_a_header_of_a_whole_cluster(void **state)
{
    (void)state;
    struct image image = tiny(3, 9, 65536);
    image_poke32(&image, HDR_LENGTH, 512);
    expect_plain_acceptance(&image);
}

static void refuses_a_header_longer_than_a_cluster(void **state)
{
    (void)state;
    struct image image = tiny(3, 9, 65536);
    image_poke32(&image, HDR_LENGTH, 520);
    expect_refused(&image, -EBADMSG, "header_length at 0x64 is 520");
}

static void ignores_header_bytes_that_nobody_knows(void **state)
{
    (void)state;
    struct image image;
    image_create(&image, &(struct image_options){.guest_size = 65536, .header_len = 256});
    uint8_t ones[256 - HDR_COMPRESSION - 1];
    memset(ones, 0xff, sizeof(ones));
    image_poke(&image, HDR_COMPRESSION + 1, ones, sizeof(ones));
    expect_plain_acceptance(&image);
}

/* Features. */

static const struct image_extension features = {
    EXT_FEATURE_TABLE,
    "\x01\x05"
    "a compatible feature\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    "\x00\x07"
    "another bit\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    "\x00\x05"
    "a name of the whole forty-six bytes of a field"
    "\x00\x06"
    "bad\nname\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    4 * FEATURE_ENTRY_LEN,
};

static void refuses_an_unknown_feature_by_the_name_in_the_table(void **state)
{
    (void)state;
    struct image image = tiny_with(1ULL << 7, &features, 1);
    expect_refused(&image, -ENOTSUP, "bit 7 ('another bit')");
}

static void a_feature_name_need_not_end_in_nul(void **state)
{
    (void)state;
    struct image image = tiny_with(1ULL << 5, &features, 1);
    expect_refused(&image, -ENOTSUP, "bit 5 ('a name of the whole forty-six bytes of a field')");
}

static void a_feature_name_cannot_forge_a_log_line(void **state)
{
    (void)state;
    struct image image = tiny_with(1ULL << 6, &features, 1);
    expect_refused(&image, -ENOTSUP, "bit 6 ('bad?name')");
}

static void finds_the_feature_table_behind_other_extensions(void **state)
{
    (void)state;
    const struct image_extension both[] = {{0x12345678, "thirteen bytes", 13}, features};
    struct image image = tiny_with(1ULL << 7, both, 2);
    expect_refused(&image, -ENOTSUP, "bit 7 ('another bit')");
}

static void refuses_an_unknown_feature_without_a_name(void **state)
{
    (void)state;
    struct image image = tiny_with(1ULL << 63, &features, 1);
    expect_refused(&image, -ENOTSUP, "bit 63");
    image = tiny_with(1ULL << 5, NULL, 0);
    expect_refused(&image, -ENOTSUP, "bit 5");
}

static void a_feature_table_that_lies_about_its_length_names_nothing(void **state)
{
    (void)state;
    struct image image = tiny_with(1ULL << 7, &features, 1);
    image_poke32(&image, image.ext_off + 4, 0xfffffff9);
    expect_refused(&image, -ENOTSUP, "bit 7");
    image = tiny_with(1ULL << 7, &features, 1);
    image_poke32(&image, image.ext_off + 4, 2 * FEATURE_ENTRY_LEN - 1);
    struct qcow_header hdr;
    struct error err = {0};
    assert_int_equal(read_header(&image, &hdr, &err), -ENOTSUP);
    assert_null(strstr(err.text, "another bit"));
    image_destroy(&image);
}

static void a_feature_table_longer_than_what_is_left_is_not_read(void **state)
{
    (void)state;
    struct image image = tiny(3, 9, 512);
    image_poke64(&image, HDR_INCOMPATIBLE, 1ULL << 7);
    image_poke32(&image, 112, 0x12345678);
    image_poke32(&image, 116, 200);
    image_poke32(&image, 320, EXT_FEATURE_TABLE);
    image_poke32(&image, 324, 390); /* less than all extensions, more than the rest of them */
    expect_refused(&image, -ENOTSUP, "bit 7");
}

static void every_single_unknown_feature_bit_is_refused(void **state)
{
    (void)state;
    for (unsigned bit = 5; bit < 64; bit++) {
        struct image image = tiny_with(1ULL << bit, NULL, 0);
        struct qcow_header hdr;
        if (read_header(&image, &hdr, NULL) != -ENOTSUP)
            fail_msg("bit %u is accepted", bit);
        image_destroy(&image);
    }
}

static void known_features_are_kept(void **state)
{
    (void)state;
    struct image image = tiny_with(INCOMPAT_DATA_FILE | INCOMPAT_EXTENDED_L2, NULL, 0);
    struct qcow_header hdr = expect_accepted(&image);
    assert_true(hdr.has_data_file);
    assert_true(hdr.has_extended_l2);
    assert_false(hdr.is_dirty || hdr.is_corrupt);
    header_fini(&hdr);
}

static void ignores_compatible_and_autoclear_features(void **state)
{
    (void)state;
    struct image image = tiny(3, 16, 65536);
    image_poke64(&image, HDR_COMPATIBLE, UINT64_MAX);
    image_poke64(&image, HDR_AUTOCLEAR, UINT64_MAX);
    expect_plain_acceptance(&image);
}

static void subclusters_need_cluster_bits_14(void **state)
{
    (void)state;
    struct image image = tiny(3, 14, 65536);
    image_poke64(&image, HDR_INCOMPATIBLE, INCOMPAT_EXTENDED_L2);
    expect_plain_acceptance(&image);
    image = tiny(3, 13, 65536);
    image_poke64(&image, HDR_INCOMPATIBLE, INCOMPAT_EXTENDED_L2);
    expect_refused(&image, -EBADMSG, "cluster_bits at 0x14 is 13");
}

/* Compression type and its feature bit. */

static void zstd_needs_both_type_and_bit(void **state)
{
    (void)state;
    struct image image = tiny_with(INCOMPAT_COMPRESSION, NULL, 0);
    image_poke8(&image, HDR_COMPRESSION, COMPRESSION_ZSTD);
    struct qcow_header hdr = expect_accepted(&image);
    assert_int_equal(hdr.compression, COMPRESSION_ZSTD);
    header_fini(&hdr);
    image = tiny_with(0, NULL, 0);
    image_poke8(&image, HDR_COMPRESSION, COMPRESSION_ZSTD);
    expect_refused(&image, -EBADMSG, "compression type 1 at 0x68");
}

static void zlib_must_not_have_the_bit(void **state)
{
    (void)state;
    struct image image = tiny_with(INCOMPAT_COMPRESSION, NULL, 0);
    expect_refused(&image, -EBADMSG, "compression type 0 at 0x68");
}

static void the_bit_needs_a_header_with_the_type(void **state)
{
    (void)state;
    struct image image;
    image_create(&image, &(struct image_options){.guest_size = 512,
                                                 .header_len = 104,
                                                 .incompatible = INCOMPAT_COMPRESSION});
    image_poke8(&image, HDR_COMPRESSION, COMPRESSION_ZSTD);
    expect_refused(&image, -EBADMSG, "compression type 0 at 0x68");
}

static void a_header_of_105_bytes_has_the_type(void **state)
{
    (void)state;
    struct image image;
    image_create(&image, &(struct image_options){.guest_size = 512,
                                                 .header_len = 105,
                                                 .compression = COMPRESSION_ZSTD,
                                                 .incompatible = INCOMPAT_COMPRESSION});
    struct qcow_header hdr = expect_accepted(&image);
    assert_int_equal(hdr.compression, COMPRESSION_ZSTD);
    header_fini(&hdr);
}

static void refuses_an_unknown_compression_type(void **state)
{
    (void)state;
    struct image image = tiny_with(INCOMPAT_COMPRESSION, NULL, 0);
    image_poke8(&image, HDR_COMPRESSION, 2);
    expect_refused(&image, -ENOTSUP, "compression type 2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_every_field_of_a_version_3_header),
        cmocka_unit_test(dirty_and_corrupt_are_told_apart),
        cmocka_unit_test(version_2_has_no_feature_fields),
        cmocka_unit_test(refuses_another_magic),
        cmocka_unit_test(refuses_version_1),
        cmocka_unit_test(refuses_version_0_and_4),
        cmocka_unit_test(accepts_clusters_of_512_bytes_and_2_mib),
        cmocka_unit_test(refuses_cluster_bits_8),
        cmocka_unit_test(refuses_cluster_bits_22),
        cmocka_unit_test(refuses_cluster_bits_that_no_shift_survives),
        cmocka_unit_test(rounds_the_size_down_to_whole_sectors),
        cmocka_unit_test(accepts_a_disk_of_no_bytes),
        cmocka_unit_test(knows_three_encryption_methods_and_refuses_the_fourth),
        cmocka_unit_test(refuses_an_empty_file),
        cmocka_unit_test(refuses_a_file_shorter_than_a_version_2_header),
        cmocka_unit_test(accepts_a_file_that_is_a_version_2_header),
        cmocka_unit_test(refuses_a_file_that_ends_in_a_version_3_header),
        cmocka_unit_test(refuses_a_file_that_ends_in_the_longer_header_it_announces),
        cmocka_unit_test(accepts_a_file_that_is_a_version_3_header),
        cmocka_unit_test(refuses_header_length_103),
        cmocka_unit_test(accepts_header_length_104),
        cmocka_unit_test(accepts_a_header_of_a_whole_cluster),
        cmocka_unit_test(refuses_a_header_longer_than_a_cluster),
        cmocka_unit_test(ignores_header_bytes_that_nobody_knows),
        cmocka_unit_test(refuses_an_unknown_feature_by_the_name_in_the_table),
        cmocka_unit_test(a_feature_name_need_not_end_in_nul),
        cmocka_unit_test(a_feature_name_cannot_forge_a_log_line),
        cmocka_unit_test(finds_the_feature_table_behind_other_extensions),
        cmocka_unit_test(refuses_an_unknown_feature_without_a_name),
        cmocka_unit_test(a_feature_table_that_lies_about_its_length_names_nothing),
        cmocka_unit_test(a_feature_table_longer_than_what_is_left_is_not_read),
        cmocka_unit_test(every_single_unknown_feature_bit_is_refused),
        cmocka_unit_test(known_features_are_kept),
        cmocka_unit_test(ignores_compatible_and_autoclear_features),
        cmocka_unit_test(subclusters_need_cluster_bits_14),
        cmocka_unit_test(zstd_needs_both_type_and_bit),
        cmocka_unit_test(zlib_must_not_have_the_bit),
        cmocka_unit_test(the_bit_needs_a_header_with_the_type),
        cmocka_unit_test(a_header_of_105_bytes_has_the_type),
        cmocka_unit_test(refuses_an_unknown_compression_type),
    };
    return cmocka_run_group_tests_name("qcow/header", tests, NULL, NULL);
}
