/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Tables for people. */
#include "fs/columns.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char *print(struct columns *columns)
{
    char *text = NULL;
    size_t len;
    FILE *to = open_memstream(&text, &len);
    assert_non_null(to);
    assert_int_equal(columns_print(columns, to), 0);
    assert_int_equal(fclose(to), 0);
    columns_fini(columns);
    return text;
}

static void test_columns_are_as_wide_as_their_widest_cell(void **state)
{
    (void)state;
    static const char *const headings[] = {"A", ">NUMBER", "REST"};
    struct columns columns = COLUMNS_INIT(headings);
    columns_add(&columns, "%s", "long text");
    columns_add(&columns, "%d", 7);
    columns_add(&columns, "x");
    columns_add(&columns, "\xc3\xa4"); /* one character of two bytes */
    columns_add(&columns, "12345678");
    columns_add(&columns, "the rest is not padded");
    char *text = print(&columns);
    assert_string_equal(text, "A            NUMBER  REST\n"
                              "long text         7  x\n"
                              "\xc3\xa4          12345678  the rest is not padded\n");
    free(text);
}

static void test_a_table_without_rows_is_its_heading(void **state)
{
    (void)state;
    static const char *const headings[] = {"A", "B"};
    struct columns columns = COLUMNS_INIT(headings);
    char *text = print(&columns);
    assert_string_equal(text, "A  B\n");
    free(text);
}

static void test_no_cell_commands_the_terminal(void **state)
{
    (void)state;
    static const char *const headings[] = {"A"};
    struct columns columns = COLUMNS_INIT(headings);
    columns_add(&columns, "a\x1b[2J\r\n\x7f\xc2\x9b\xc2\xa0z\x9b");
    char *text = print(&columns);
    assert_string_equal(text, "A\na?[2J?????\xc2\xa0z?\n");
    free(text);
}

static void test_names_are_shortened_to_fit(void **state)
{
    (void)state;
    static const char *const headings[] = {"NAME", ">N", "REASON"};
    struct columns columns = COLUMNS_INIT(headings);
    columns.max_width = 45; /* 15 for the name, 2 + 2 + 2, 24 of the reason */
    columns_add(&columns, "\xc3\xa4"
                          "bcdefghijklmnopqrstuvwxyz");
    columns_add(&columns, "12");
    columns_add(&columns, "a reason goes on over the edge of the screen");
    columns_add(&columns, "short");
    columns_add(&columns, "3");
    columns_add(&columns, "x");
    char *text = print(&columns);
    assert_string_equal(text, "NAME              N  REASON\n"
                              "\xc3\xa4"
                              "bcdef...uvwxyz  12  a reason goes on over\n"
                              "                     the edge of the screen\n"
                              "short             3  x\n");
    free(text);
}

static void test_columns_stay_readable_on_a_narrow_terminal(void **state)
{
    (void)state;
    static const char *const headings[] = {"NAME", "OTHER", ">N"};
    struct columns columns = COLUMNS_INIT(headings);
    columns.max_width = 5;
    columns_add(&columns, "abcdefghijklmnopqrst");
    columns_add(&columns, "other");
    columns_add(&columns, "1");
    char *text = print(&columns);
    assert_string_equal(text, "NAME      OTHER  N\n"
                              "abcde...  other  1\n");
    free(text);
}

static void test_the_widest_names_lose_most(void **state)
{
    (void)state;
    static const char *const headings[] = {"A", "B", "C", "D", "REST"};
    struct columns columns = COLUMNS_INIT(headings);
    /* 13 and 12 stay, and the two wide ones share what is left of it: 15 and 16. */
    columns.max_width = 13 + 15 + 16 + 12 + 4 * 2 + 4;
    columns_add(&columns, "1234567890abc");
    columns_add(&columns, "1234567890abcdefghijklmnopqrst");
    columns_add(&columns, "1234567890abcdefghij");
    columns_add(&columns, "1234567890ab");
    columns_add(&columns, "rest");
    char *text = print(&columns);
    assert_string_equal(text,
                        "A              B                C                 D             REST\n"
                        "1234567890abc  123456...opqrst  1234567...efghij  1234567890ab  rest\n");
    free(text);
}

static void test_notes_stand_below_their_row(void **state)
{
    (void)state;
    static const char *const headings[] = {"A", ">N"};
    struct columns columns = COLUMNS_INIT(headings);
    columns.max_width = 0;
    columns_add(&columns, "a");
    columns_add(&columns, "1");
    columns_add_note(&columns, "a note\x1b as long as it is %d", 1);
    columns_add_note(&columns, "another one");
    columns_add(&columns, "b");
    columns_add(&columns, "2");
    char *text = print(&columns);
    assert_string_equal(text, "A  N\n"
                              "a  1\n"
                              "    a note? as long as it is 1\n"
                              "    another one\n"
                              "b  2\n");
    free(text);
}

static void test_notes_are_wrapped(void **state)
{
    (void)state;
    static const char *const headings[] = {">N"};
    struct columns columns = COLUMNS_INIT(headings);
    columns.max_width = 30; /* 26 for notes */
    columns_add(&columns, "1");
    columns_add_note(&columns, "\xc3\xa4"
                               "bcdefghijklmnopqrst words  abcdefghijklmnopqrstuvwxyz0123 end");
    char *text = print(&columns);
    assert_string_equal(text, "N\n"
                              "1\n"
                              "    \xc3\xa4"
                              "bcdefghijklmnopqrst words\n"
                              "    abcdefghijklmnopqrstuvwxyz\n"
                              "    0123 end\n");
    free(text);
}

static void test_spans_and_speeds(void **state)
{
    (void)state;
    static const struct {
        long long seconds;
        const char *want;
    } spans[] = {{-1, "0s"}, {59, "59s"}, {185, "3m05s"}, {7800, "2h10m"}, {356400, "4d03h"}};
    static const struct {
        double speed;
        const char *want;
    } speeds[] = {{0, "0 B/s"}, {999, "999 B/s"}, {1000, "1.0 kB/s"}, {112.4e6, "112.4 MB/s"}};
    char text[COLUMNS_SPAN_LEN];
    for (size_t i = 0; i < sizeof(spans) / sizeof(*spans); i++) {
        columns_format_span(spans[i].seconds, text);
        assert_string_equal(text, spans[i].want);
    }
    for (size_t i = 0; i < sizeof(speeds) / sizeof(*speeds); i++) {
        columns_format_speed(speeds[i].speed, text);
        assert_string_equal(text, speeds[i].want);
    }
}

static void check_size(unsigned long long bytes, const char *want)
{
    char text[COLUMNS_SIZE_LEN];
    columns_format_size(bytes, text);
    assert_string_equal(text, want);
}

static void test_sizes(void **state)
{
    (void)state;
    check_size(0, "0 B");
    check_size(1023, "1023 B");
    check_size(1024, "1.0 KiB");
    check_size(1536, "1.5 KiB");
    check_size(100 << 10, "100 KiB");
    check_size((1 << 20) - 1, "1.0 MiB");
    check_size(20ULL << 30, "20.0 GiB");
    check_size(UINT64_MAX, "16.0 EiB");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_columns_are_as_wide_as_their_widest_cell),
        cmocka_unit_test(test_a_table_without_rows_is_its_heading),
        cmocka_unit_test(test_no_cell_commands_the_terminal),
        cmocka_unit_test(test_names_are_shortened_to_fit),
        cmocka_unit_test(test_columns_stay_readable_on_a_narrow_terminal),
        cmocka_unit_test(test_the_widest_names_lose_most),
        cmocka_unit_test(test_notes_stand_below_their_row),
        cmocka_unit_test(test_notes_are_wrapped),
        cmocka_unit_test(test_spans_and_speeds),
        cmocka_unit_test(test_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
