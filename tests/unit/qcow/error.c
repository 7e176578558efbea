/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qcow/base/error.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void error_set_gives_its_code_and_keeps_code_and_text(void **state)
{
    (void)state;
    struct error err = {0};
    assert_int_equal(error_set(&err, -EBADMSG, "entry %d is %#x", 3, 0x40), -EBADMSG);
    assert_int_equal(err.code, -EBADMSG);
    assert_string_equal(err.text, "entry 3 is 0x40");
}

static void a_failure_without_a_reason_is_no_success(void **state)
{
    (void)state;
    struct error err = {0};
    assert_int_equal(error_set(&err, 0, "the library does not say why"), -EIO);
    assert_int_equal(err.code, -EIO);
    assert_int_equal(error_set(NULL, 0, "nor to nobody"), -EIO);
    assert_int_equal(error_set(&err, EINVAL, "a sign was forgotten"), -EIO);
}

static void errors_may_go_nowhere(void **state)
{
    (void)state;
    assert_int_equal(error_set(NULL, -EIO, "%s", "unheard"), -EIO);
    error_prefix(NULL, "%s", "unheard");
}

static void a_name_from_an_image_cannot_forge_a_log_line(void **state)
{
    (void)state;
    struct error err = {0};
    error_set(&err, -EIO, "'%s'", "a\nb\rc\033d\177e\001f\037g h");
    assert_string_equal(err.text, "'a?b?c?d?e?f?g h'");
    error_prefix(&err, "disk '%s'", "x\ny\177");
    assert_string_equal(err.text, "disk 'x?y?': 'a?b?c?d?e?f?g h'");
}

static void a_name_from_an_image_cannot_command_a_terminal(void **state)
{
    (void)state;
    struct error err = {0};
    /* CSI as a character of UTF-8, as a byte of Latin-1, behind a character that was cut off, and
     * at the end of one that is whole. */
    error_set(&err, -EIO, "%s",
              "\xc2\x9b"
              "31m\x9b"
              "32m\xe2\x9b"
              "33m\xe2\x82\x9b"
              "34m");
    assert_string_equal(err.text, "??31m?32m\xe2?33m\xe2\x82\x9b"
                                  "34m");
    error_prefix(&err, "%s", "\xc2\x80\xc2\xa0\xc2");
    assert_string_equal(err.text, "??\xc2\xa0\xc2: ??31m?32m\xe2?33m\xe2\x82\x9b"
                                  "34m");
}

static void bytes_above_ascii_stay_as_they_are(void **state)
{
    (void)state;
    struct error err = {0};
    error_set(&err, -EIO, "%s", "d\xc3\xa4mon");
    assert_string_equal(err.text, "d\xc3\xa4mon");
}

static void a_long_text_is_cut_and_ended(void **state)
{
    (void)state;
    char name[2 * ERROR_TEXT_MAX];
    memset(name, 'n', sizeof(name));
    name[sizeof(name) - 1] = '\0';
    struct error err;
    memset(&err, 0x55, sizeof(err));
    error_set(&err, -EIO, "%s", name);
    assert_int_equal(strlen(err.text), ERROR_TEXT_MAX - 1);
}

static void a_prefix_goes_in_front(void **state)
{
    (void)state;
    struct error err = {0};
    error_set(&err, -EBADMSG, "entry is bad");
    error_prefix(&err, "L2 table at %#x", 0x10000);
    assert_int_equal(err.code, -EBADMSG);
    assert_string_equal(err.text, "L2 table at 0x10000: entry is bad");
}

static void a_prefix_in_front_of_a_full_text_cuts_its_tail(void **state)
{
    (void)state;
    char tail[ERROR_TEXT_MAX];
    memset(tail, 't', sizeof(tail));
    tail[sizeof(tail) - 1] = '\0';
    struct error err = {0};
    error_set(&err, -EIO, "%s", tail);
    error_prefix(&err, "disk");
    assert_int_equal(strlen(err.text), ERROR_TEXT_MAX - 1);
    assert_memory_equal(err.text, "disk: ttt", 9);
}

static void a_prefix_longer_than_the_room_is_cut_too(void **state)
{
    (void)state;
    char name[2 * ERROR_TEXT_MAX];
    memset(name, 'n', sizeof(name));
    name[sizeof(name) - 1] = '\0';
    struct error err = {0};
    error_set(&err, -EIO, "gone");
    error_prefix(&err, "%s", name);
    size_t len = strlen(err.text);
    assert_in_range(len, ERROR_TEXT_MAX - 4, ERROR_TEXT_MAX - 1);
    assert_int_equal(strspn(err.text, "n: "), len);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(error_set_gives_its_code_and_keeps_code_and_text),
        cmocka_unit_test(a_failure_without_a_reason_is_no_success),
        cmocka_unit_test(errors_may_go_nowhere),
        cmocka_unit_test(a_name_from_an_image_cannot_forge_a_log_line),
        cmocka_unit_test(a_name_from_an_image_cannot_command_a_terminal),
        cmocka_unit_test(bytes_above_ascii_stay_as_they_are),
        cmocka_unit_test(a_long_text_is_cut_and_ended),
        cmocka_unit_test(a_prefix_goes_in_front),
        cmocka_unit_test(a_prefix_in_front_of_a_full_text_cuts_its_tail),
        cmocka_unit_test(a_prefix_longer_than_the_room_is_cut_too),
    };
    return cmocka_run_group_tests_name("qcow/base/error", tests, NULL, NULL);
}
