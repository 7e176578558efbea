/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qcow/base/bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "qcow/base/cleanup.h"

static void loads_are_big_endian_and_need_no_alignment(void **state)
{
    (void)state;
    const uint8_t raw[] = {0xff, 0x81, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x88};
    assert_int_equal(load_be16(raw + 1), 0x8102);
    assert_int_equal(load_be32(raw + 1), 0x81020304);
    assert_true(load_be64(raw + 1) == 0x8102030405060788ULL);
}

static void sums_that_do_not_fit_are_seen(void **state)
{
    (void)state;
    uint64_t sum = 0;
    assert_true(add_u64(UINT64_MAX - 5, 5, &sum));
    assert_true(sum == UINT64_MAX);
    assert_false(add_u64(UINT64_MAX - 5, 6, &sum));
}

static void products_that_do_not_fit_are_seen(void **state)
{
    (void)state;
    uint64_t product = 0;
    assert_true(mul_u64(1ULL << 32, (1ULL << 32) - 1, &product));
    assert_true(product == 0xffffffff00000000ULL);
    assert_false(mul_u64(1ULL << 32, 1ULL << 32, &product));
    assert_true(mul_u64(UINT64_MAX, 0, &product));
    assert_true(product == 0);
}

static void alignment_counts_from_zero(void **state)
{
    (void)state;
    assert_true(is_aligned(0, 512));
    assert_true(is_aligned(1024, 512));
    assert_false(is_aligned(1023, 512));
    assert_false(is_aligned(1025, 512));
    assert_false(is_aligned(256, 512));
}

static void align_down_and_up_meet_at_multiples(void **state)
{
    (void)state;
    assert_true(align_down(1023, 512) == 512);
    assert_true(align_down(1024, 512) == 1024);
    assert_true(align_down(511, 512) == 0);
    assert_true(align_up(1023, 512) == 1024);
    assert_true(align_up(1024, 512) == 1024);
    assert_true(align_up(1025, 512) == 1536);
    assert_true(align_up(0, 512) == 0);
    assert_true(align_down(UINT64_MAX, 512) == UINT64_MAX - 511);
}

static void smaller_and_larger(void **state)
{
    (void)state;
    assert_true(min_u64(3, UINT64_MAX) == 3);
    assert_true(min_u64(UINT64_MAX, 3) == 3);
    assert_true(max_u64(3, UINT64_MAX) == UINT64_MAX);
    assert_true(max_u64(UINT64_MAX, 3) == UINT64_MAX);
}

static void a_scope_closes_its_descriptor_and_keeps_errno(void **state)
{
    (void)state;
    int seen;
    {
        auto_close int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        assert_true(fd >= 0);
        seen = fd;
        errno = EXDEV;
    }
    assert_int_equal(errno, EXDEV);
    assert_int_equal(fcntl(seen, F_GETFD), -1);
}

static void what_is_taken_is_not_released(void **state)
{
    (void)state;
    int fd;
    char *text;
    {
        auto_close int mine = open("/dev/null", O_RDONLY | O_CLOEXEC);
        auto_free char *words = strdup("kept");
        fd = take_fd(mine);
        text = take_ptr(words);
        assert_int_equal(mine, -1);
        assert_null(words);
    }
    assert_true(fcntl(fd, F_GETFD) >= 0);
    assert_string_equal(text, "kept");
    close(fd);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loads_are_big_endian_and_need_no_alignment),
        cmocka_unit_test(sums_that_do_not_fit_are_seen),
        cmocka_unit_test(products_that_do_not_fit_are_seen),
        cmocka_unit_test(alignment_counts_from_zero),
        cmocka_unit_test(align_down_and_up_meet_at_multiples),
        cmocka_unit_test(smaller_and_larger),
        cmocka_unit_test(a_scope_closes_its_descriptor_and_keeps_errno),
        cmocka_unit_test(what_is_taken_is_not_released),
    };
    return cmocka_run_group_tests_name("qcow/base/bytes", tests, NULL, NULL);
}
