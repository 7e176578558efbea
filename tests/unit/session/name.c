/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/session/name.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/lib/random.h"

static const char *const targets[] = {"vda", "vdb", "sdaa"};
enum { N_TARGETS = 3 };

/* Checks the one NAME that a lone snapshot gets. */
static void check_shown(const char *raw, const char *id, const char *want)
{
    struct name_request request = {.raw = raw, .id = id};
    assert_int_equal(name_snapshots(&request, 1, targets, N_TARGETS), 0);
    assert_string_equal(request.shown, want);
    free(request.shown);
}

static void writes_odd_bytes_as_percent_codes(void **state)
{
    (void)state;
    check_shown("before upgrade", "1", "before upgrade");
    check_shown("a/b", "1", "a%2Fb");
    check_shown("50%", "1", "50%25");
    check_shown("me@home", "1", "me%40home");
    check_shown("x\n\x7f", "1", "x%0A%7F");
    check_shown(".hidden.txt", "1", "%2Ehidden.txt");
    check_shown("..", "1", "%2E.");
    check_shown("gr\xc3\xbc\xc3\x9f", "1", "gr\xc3\xbc\xc3\x9f");
}

static void hides_a_dot_before_a_target_at_the_end(void **state)
{
    (void)state;
    check_shown("foo.vda", "1", "foo%2Evda");
    check_shown("foo.vda.x", "1", "foo.vda.x");
    check_shown("foo.vdc", "1", "foo.vdc");
    check_shown(".vda", "1", "%2Evda");
    check_shown("", "a.vdb", "@a%2Evdb");
}

static void a_snapshot_called_now_is_not_the_disk_itself(void **state)
{
    (void)state;
    check_shown("now", "1", "%6Eow");
    check_shown("%6Eow", "1", "%256Eow");
    check_shown("nows", "1", "nows");
}

static void later_snapshots_of_one_name_carry_their_id(void **state)
{
    (void)state;
    struct name_request requests[] = {
        {.raw = "s", .id = "1"}, {.raw = "s", .id = "2"},   {.raw = "", .id = "3"},
        {.raw = "s", .id = "2"}, {.raw = "now", .id = "5"}, {.raw = "now", .id = "6/7"},
    };
    static const char *const want[] = {"s", "s@2", "@3", "s@2@3", "%6Eow", "%6Eow@6%2F7"};
    assert_int_equal(name_snapshots(requests, 6, targets, N_TARGETS), 0);
    for (size_t i = 0; i < 6; i++) {
        assert_string_equal(requests[i].shown, want[i]);
        free(requests[i].shown);
    }
}

static void cuts_long_names_between_characters(void **state)
{
    (void)state;
    char raw[600];
    for (size_t i = 0; i + 2 < sizeof(raw); i += 2)
        memcpy(raw + i, "\xc3\xbc", 3);
    struct name_request request = {.raw = raw, .id = "17"};
    assert_int_equal(name_snapshots(&request, 1, targets, N_TARGETS), 0);
    size_t len = strlen(request.shown);
    assert_true(len + strlen(".sdaa.qcow2") <= NAME_FILE_MAX);
    assert_true(len + strlen(".sdaa.qcow2") >= NAME_FILE_MAX - 1);
    assert_string_equal(request.shown + len - 3, "@17");
    assert_int_equal((unsigned char)request.shown[len - 4], 0xbc);
    free(request.shown);
}

static void takes_file_names_apart(void **state)
{
    (void)state;
    char *name;
    int target;
    assert_int_equal(name_parse("now.raw", targets, N_TARGETS, &name, &target), 0);
    assert_string_equal(name, "now");
    assert_int_equal(target, -1);
    free(name);
    assert_int_equal(name_parse("now.vdb.raw", targets, N_TARGETS, &name, &target), 0);
    assert_string_equal(name, "now");
    assert_int_equal(target, 1);
    free(name);
    assert_int_equal(name_parse("a.vdc.raw", targets, N_TARGETS, &name, &target), 0);
    assert_string_equal(name, "a.vdc");
    assert_int_equal(target, -1);
    free(name);
}

static void only_the_last_suffix_says_what_a_file_is(void **state)
{
    (void)state;
    static const char *const with_odd_targets[] = {"vda", "qcow2", "raw"};
    static const struct {
        const char *file;
        enum view view;
        const char *name;
        int target;
    } rows[] = {
        {"now.qcow2", VIEW_QCOW2, "now", -1},
        {"now.vda.qcow2", VIEW_QCOW2, "now", 0},
        {"x.qcow2.raw", VIEW_RAW, "x", 1},
        {"x.qcow2.qcow2", VIEW_QCOW2, "x", 1},
        {"x.raw.qcow2", VIEW_QCOW2, "x", 2},
        {"x%2Eqcow2.raw", VIEW_RAW, "x%2Eqcow2", -1},
        {"x.raw", VIEW_RAW, "x", -1},
        {"x.qcow2", VIEW_QCOW2, "x", -1},
        {"x.qcow.qcow2", VIEW_QCOW2, "x.qcow", -1},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char *name;
        int target;
        assert_int_equal(name_parse(rows[i].file, with_odd_targets, 3, &name, &target), 0);
        if (strcmp(name, rows[i].name) != 0 || target != rows[i].target ||
            name_view(rows[i].file) != rows[i].view)
            fail_msg("'%s': '%s', target %d", rows[i].file, name, target);
        free(name);
    }
    char *name;
    int target;
    /* Without such a target it is a snapshot's own name. */
    assert_int_equal(name_parse("x.qcow2.raw", targets, N_TARGETS, &name, &target), 0);
    assert_string_equal(name, "x.qcow2");
    free(name);
}

static void refuses_what_is_no_disk_file(void **state)
{
    (void)state;
    static const char *const files[] = {"now", ".raw",     ".qcow2",   "now.qcow",
                                        "",    "now.raw ", ".vda.raw", ".vda.qcow2"};
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        char *name;
        int target;
        int r = name_parse(files[i], targets, N_TARGETS, &name, &target);
        if (r != -ENOENT)
            print_error("row %zu: '%s'\n", i, files[i]);
        assert_int_equal(r, -ENOENT);
    }
}

static void domain_names_are_one_path_component(void **state)
{
    (void)state;
    char *name = name_of_domain("a/../b@c.vda");
    assert_string_equal(name, "a%2F..%2Fb%40c.vda");
    free(name);
    name = name_of_domain("..");
    assert_string_equal(name, "%2E.");
    free(name);
}

static void long_domain_names_stay_apart(void **state)
{
    (void)state;
    char raw[300];
    memset(raw, '%', sizeof(raw) - 2);
    raw[sizeof(raw) - 1] = '\0';
    raw[sizeof(raw) - 2] = 'a';
    char *a = name_of_domain(raw);
    raw[sizeof(raw) - 2] = 'b';
    char *b = name_of_domain(raw);
    assert_true(strlen(a) <= NAME_FILE_MAX);
    assert_string_not_equal(a, b);
    free(a);
    free(b);
}

/* A text of bytes that are likely to get in each other's way. */
static char *random_text(unsigned *seed)
{
    static const char *const parts[] = {"s",        "now",  ".",    "vda",   ".vda", ".vdb",
                                        "@",        "%",    "%2E",  "/",     "\n",   "1",
                                        "\xc3\xbc", "\xff", ".raw", ".qcow2"};
    size_t max = random_next(seed) % 8 == 0 ? 200 : 4;
    size_t n = (size_t)random_next(seed) % (max + 1);
    char *text = calloc(n + 1, sizeof(".qcow2"));
    for (size_t i = 0; text && i < n; i++)
        strcat(text, parts[(size_t)random_next(seed) % (sizeof(parts) / sizeof(parts[0]))]);
    return text;
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void check_file(const char *shown, int want_target, enum view view)
{
    char file[NAME_FILE_MAX + 1];
    const char *dot = want_target < 0 ? "" : ".";
    const char *shown_target = want_target < 0 ? "" : targets[want_target];
    int len = snprintf(file, sizeof(file), "%s%s%s%s", shown, dot, shown_target, name_suffix(view));
    assert_true(len > 0 && len < (int)sizeof(file));
    assert_null(strchr(file, '/'));
    assert_int_not_equal(file[0], '.');
    char *name;
    int target;
    assert_int_equal(name_parse(file, targets, N_TARGETS, &name, &target), 0);
    assert_string_equal(name, shown);
    assert_int_equal(target, want_target);
    assert_int_equal(name_view(file), view);
    free(name);
}

static void any_names_become_unique_files_that_parse_back(void **state)
{
    (void)state;
    enum { ROUNDS = 300, NAMES = 60 };
    unsigned seed = 20231121;
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct name_request requests[NAMES] = {0};
        const char *shown[NAMES];
        for (size_t i = 0; i < NAMES; i++) {
            requests[i].raw = random_text(&seed);
            requests[i].id = random_text(&seed);
        }
        assert_int_equal(name_snapshots(requests, NAMES, targets, N_TARGETS), 0);
        for (size_t i = 0; i < NAMES; i++) {
            shown[i] = requests[i].shown;
            assert_true(strlen(shown[i]) + strlen(".sdaa.qcow2") <= NAME_FILE_MAX);
            assert_string_not_equal(shown[i], "now");
            for (int target = -1; target < N_TARGETS; target++)
                check_file(shown[i], target, VIEW_RAW), check_file(shown[i], target, VIEW_QCOW2);
        }
        qsort(shown, NAMES, sizeof(shown[0]), compare_texts);
        for (size_t i = 1; i < NAMES; i++)
            assert_string_not_equal(shown[i - 1], shown[i]);
        for (size_t i = 0; i < NAMES; i++) {
            free((char *)requests[i].raw);
            free((char *)requests[i].id);
            free(requests[i].shown);
        }
    }
}

static void many_snapshots_of_one_name_and_id_are_quick(void **state)
{
    (void)state;
    enum { N = 65536 };
    struct name_request *requests = calloc(N, sizeof(*requests));
    assert_non_null(requests);
    for (size_t i = 0; i < N; i++)
        requests[i] = (struct name_request){.raw = "same", .id = "1"};
    assert_int_equal(name_snapshots(requests, N, targets, N_TARGETS), 0);
    assert_string_equal(requests[N - 1].shown, "same@1@65535");
    for (size_t i = 0; i < N; i++)
        free(requests[i].shown);
    free(requests);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_odd_bytes_as_percent_codes),
        cmocka_unit_test(hides_a_dot_before_a_target_at_the_end),
        cmocka_unit_test(a_snapshot_called_now_is_not_the_disk_itself),
        cmocka_unit_test(later_snapshots_of_one_name_carry_their_id),
        cmocka_unit_test(cuts_long_names_between_characters),
        cmocka_unit_test(takes_file_names_apart),
        cmocka_unit_test(only_the_last_suffix_says_what_a_file_is),
        cmocka_unit_test(refuses_what_is_no_disk_file),
        cmocka_unit_test(domain_names_are_one_path_component),
        cmocka_unit_test(long_domain_names_stay_apart),
        cmocka_unit_test(any_names_become_unique_files_that_parse_back),
        cmocka_unit_test(many_snapshots_of_one_name_and_id_are_quick),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
