/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qcow/inflate.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <zlib.h>

#include "qcow/format.h"
#include "tests/lib/image.h"

enum { CLUSTER = 65536, ROOM = 2 * CLUSTER };

static uint8_t plain[CLUSTER + 1], packed[ROOM], out[CLUSTER + 16];

static size_t pack(unsigned compression, size_t len)
{
    memset(packed, 0, sizeof(packed));
    image_fill(plain, len, 1);
    return image_compress(compression, plain, len, packed, ROOM);
}

static void expect_plain(unsigned compression, size_t in_len)
{
    struct error err = {0};
    memset(out, 0xee, sizeof(out));
    if (inflate_cluster(compression, packed, in_len, out, CLUSTER, &err) != 0)
        fail_msg("refused: %s", err.text);
    assert_memory_equal(out, plain, CLUSTER);
    for (size_t i = CLUSTER; i < sizeof(out); i++)
        assert_int_equal(out[i], 0xee);
}

static void expect_damage(unsigned compression, size_t in_len, const char *words)
{
    struct error err = {0};
    memset(out, 0xee, sizeof(out));
    assert_int_equal(inflate_cluster(compression, packed, in_len, out, CLUSTER, &err), -EBADMSG);
    if (!strstr(err.text, words))
        fail_msg("'%s' does not say \"%s\"", err.text, words);
    for (size_t i = CLUSTER; i < sizeof(out); i++)
        assert_int_equal(out[i], 0xee);
}

static void inflates_a_cluster_of_raw_deflate(void **state)
{
    (void)state;
    expect_plain(COMPRESSION_ZLIB, pack(COMPRESSION_ZLIB, CLUSTER));
}

static void inflates_a_cluster_of_zstd(void **state)
{
    (void)state;
    expect_plain(COMPRESSION_ZSTD, pack(COMPRESSION_ZSTD, CLUSTER));
}

static void the_rest_of_the_last_sector_is_ignored(void **state)
{
    (void)state;
    size_t len = pack(COMPRESSION_ZLIB, CLUSTER);
    memset(packed + len, 0xa5, 511);
    expect_plain(COMPRESSION_ZLIB, len + 511);
    len = pack(COMPRESSION_ZSTD, CLUSTER);
    memset(packed + len, 0xa5, 511);
    expect_plain(COMPRESSION_ZSTD, len + 511);
}

static void deflate_that_would_give_more_fills_the_cluster(void **state)
{
    (void)state;
    /* as QEMU: Z_BUF_ERROR with a full output is fine */
    expect_plain(COMPRESSION_ZLIB, pack(COMPRESSION_ZLIB, CLUSTER + 1));
}

static void deflate_whose_end_is_missing_is_fine_once_the_cluster_is_full(void **state)
{
    (void)state;
    /* stored blocks: the data is complete before the stream is */
    image_fill(plain, CLUSTER, 1);
    z_stream strm = {.next_in = plain, .avail_in = CLUSTER, .next_out = packed, .avail_out = ROOM};
    assert_int_equal(deflateInit2(&strm, 0, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&strm, Z_SYNC_FLUSH), Z_OK);
    size_t len = ROOM - strm.avail_out;
    deflateEnd(&strm);
    expect_plain(COMPRESSION_ZLIB, len);
}

static void refuses_deflate_that_gives_too_little(void **state)
{
    (void)state;
    size_t len = pack(COMPRESSION_ZLIB, CLUSTER - 1);
    expect_damage(COMPRESSION_ZLIB, len, "1 bytes are missing");
}

static void refuses_deflate_that_is_cut_off(void **state)
{
    (void)state;
    size_t len = pack(COMPRESSION_ZLIB, CLUSTER);
    expect_damage(COMPRESSION_ZLIB, len / 2, "damaged zlib data");
}

static void refuses_deflate_with_a_zlib_header(void **state)
{
    (void)state;
    image_fill(plain, CLUSTER, 1);
    uLongf len = ROOM;
    assert_int_equal(compress(packed, &len, plain, CLUSTER), Z_OK);
    expect_damage(COMPRESSION_ZLIB, len, "damaged zlib data");
}

static void refuses_zeros_and_noise(void **state)
{
    (void)state;
    memset(packed, 0, 512);
    expect_damage(COMPRESSION_ZLIB, 512, "damaged zlib data");
    expect_damage(COMPRESSION_ZSTD, 512, "damaged zstd data");
    memset(packed, 0xff, 512);
    expect_damage(COMPRESSION_ZLIB, 512, "damaged zlib data");
    expect_damage(COMPRESSION_ZSTD, 512, "damaged zstd data");
}

static void each_compression_refuses_the_other(void **state)
{
    (void)state;
    size_t len = pack(COMPRESSION_ZSTD, CLUSTER);
    expect_damage(COMPRESSION_ZLIB, len, "damaged zlib data");
    len = pack(COMPRESSION_ZLIB, CLUSTER);
    expect_damage(COMPRESSION_ZSTD, len, "damaged zstd data");
}

static void inflates_several_zstd_frames(void **state)
{
    (void)state;
    image_fill(plain, CLUSTER, 1);
    size_t len = 0;
    for (size_t at = 0; at < CLUSTER; at += CLUSTER / 4)
        len += image_compress(COMPRESSION_ZSTD, plain + at, CLUSTER / 4, packed + len, ROOM - len);
    expect_plain(COMPRESSION_ZSTD, len);
}

static void refuses_zstd_that_gives_too_little(void **state)
{
    (void)state;
    size_t len = pack(COMPRESSION_ZSTD, CLUSTER - 1);
    expect_damage(COMPRESSION_ZSTD, len, "1 bytes are missing");
}

static void refuses_zstd_that_gives_too_much(void **state)
{
    (void)state;
    size_t len = pack(COMPRESSION_ZSTD, CLUSTER + 1);
    expect_damage(COMPRESSION_ZSTD, len, "damaged zstd data");
}

static void refuses_zstd_that_is_cut_off(void **state)
{
    (void)state;
    size_t len = pack(COMPRESSION_ZSTD, CLUSTER);
    expect_damage(COMPRESSION_ZSTD, len / 2, "damaged zstd data");
    expect_damage(COMPRESSION_ZSTD, 0, "65536 bytes are missing");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(inflates_a_cluster_of_raw_deflate),
        cmocka_unit_test(inflates_a_cluster_of_zstd),
        cmocka_unit_test(the_rest_of_the_last_sector_is_ignored),
        cmocka_unit_test(deflate_that_would_give_more_fills_the_cluster),
        cmocka_unit_test(deflate_whose_end_is_missing_is_fine_once_the_cluster_is_full),
        cmocka_unit_test(refuses_deflate_that_gives_too_little),
        cmocka_unit_test(refuses_deflate_that_is_cut_off),
        cmocka_unit_test(refuses_deflate_with_a_zlib_header),
        cmocka_unit_test(refuses_zeros_and_noise),
        cmocka_unit_test(each_compression_refuses_the_other),
        cmocka_unit_test(inflates_several_zstd_frames),
        cmocka_unit_test(refuses_zstd_that_gives_too_little),
        cmocka_unit_test(refuses_zstd_that_gives_too_much),
        cmocka_unit_test(refuses_zstd_that_is_cut_off),
    };
    return cmocka_run_group_tests_name("qcow/inflate", tests, NULL, NULL);
}
