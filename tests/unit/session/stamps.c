/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/session/stamps.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "fs/log.h"

static int set_up(void **state)
{
    char *dir = strdup("/tmp/stamps.XXXXXX");
    *state = dir;
    log_init(LOG_LEVEL_ERROR); /* the warnings are wanted here */
    return dir && mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
    char command[100];
    snprintf(command, sizeof(command), "rm -rf '%s'", (char *)*state);
    free(*state);
    return system(command);
}

static struct stamps *open_stamps(const char *dir, const char *source)
{
    struct stamps *stamps = NULL;
    struct error err = {0};
    assert_int_equal(stamps_open(dir, source, &stamps, &err), 0);
    return stamps;
}

static bool is_same(struct timespec a, struct timespec b)
{
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

/* Path of the one stamps file in @dir. */
static void find_file(const char *dir, char *ret_path, size_t len)
{
    DIR *d = opendir(dir);
    assert_non_null(d);
    unsigned n = 0;
    const struct dirent *entry;
    /* lint: cppcheck/readdirCalled: glibc calls readdir_r, which is wanted, deprecated */
    while ((entry = readdir(d))) {
        if (entry->d_name[0] == '.')
            continue;
        n++;
        assert_true((size_t)snprintf(ret_path, len, "%s/%s", dir, entry->d_name) < len);
    }
    closedir(d);
    assert_int_equal(n, 1);
}

static void same_content_keeps_its_time(void **state)
{
    struct stamps *stamps = open_stamps(*state, "dir:/a");
    struct timespec a = stamps_get(stamps, "k", 1, NULL);
    struct timespec other = stamps_get(stamps, "other", 1, NULL);
    assert_true(is_same(a, stamps_get(stamps, "k", 1, NULL)));
    assert_true(is_same(other, stamps_get(stamps, "other", 1, NULL)));
    stamps_close(stamps);
}

static void new_content_gets_a_later_time(void **state)
{
    struct stamps *stamps = open_stamps(*state, "dir:/a");
    struct timespec future = {.tv_sec = 4000000000, .tv_nsec = 999999999};
    assert_true(is_same(stamps_get(stamps, "k", 1, &future), future));
    struct timespec next = stamps_get(stamps, "k", 2, NULL);
    assert_int_equal(next.tv_sec, 4000000001);
    assert_int_equal(next.tv_nsec, 0);
    stamps_close(stamps);
}

static void first_is_for_keys_never_seen(void **state)
{
    struct stamps *stamps = open_stamps(*state, "dir:/a");
    struct timespec first = {.tv_sec = 1000, .tv_nsec = 5};
    struct timespec second = {.tv_sec = 2000};
    assert_true(is_same(stamps_get(stamps, "k", 1, &first), first));
    assert_true(is_same(stamps_get(stamps, "k", 1, &second), first));
    struct timespec moved = stamps_get(stamps, "k", 2, &second);
    assert_true(moved.tv_sec > 1000000000);
    stamps_close(stamps);
}

static void times_are_kept_over_a_remount(void **state)
{
    struct stamps *stamps = open_stamps(*state, "dir:/a");
    struct timespec a = stamps_get(stamps, "dir:odd\xff%\n\"name", UINT64_MAX, NULL);
    stamps_close(stamps);
    char path[200];
    find_file(*state, path, sizeof(path));
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    stamps = open_stamps(*state, "dir:/a");
    assert_true(is_same(a, stamps_get(stamps, "dir:odd\xff%\n\"name", UINT64_MAX, NULL)));
    stamps_close(stamps);
}

static void sources_do_not_share_times(void **state)
{
    struct timespec early = {.tv_sec = 1000};
    struct stamps *a = open_stamps(*state, "dir:/a");
    struct stamps *b = open_stamps(*state, "dir:/b");
    stamps_get(a, "k", 1, &early);
    stamps_close(a);
    assert_true(stamps_get(b, "k", 1, NULL).tv_sec > 1000000000);
    stamps_close(b);
}

static void makes_the_state_directory_for_its_owner_only(void **state)
{
    char dir[200];
    snprintf(dir, sizeof(dir), "%s/state/virtsnapfs", (const char *)*state);
    struct stamps *stamps = open_stamps(dir, "dir:/a");
    stamps_get(stamps, "k", 1, NULL);
    stamps_close(stamps);
    struct stat st;
    assert_int_equal(stat(dir, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
}

static void starts_anew_after_garbage(void **state)
{
    static const char *const contents[] = {
        "",
        "{",
        "[]",
        "{\"version\":1}",
        "\xff\xfe",
        "{\"version\":1,\"source\":\"dir:/a\"}",
        "{\"version\":2,\"source\":\"dir:/a\",\"stamps\":{}}",
        "{\"version\":1,\"source\":\"dir:/b\",\"stamps\":{}}",
        "{\"version\":1,\"source\":\"dir:/a\",\"stamps\":{\"k\":[\"1\",2,3]}}",
        "{\"version\":1,\"source\":\"dir:/a\",\"stamps\":{\"k\":[\"0000000000000001\",2,-3]}}",
        "{\"version\":1,\"source\":\"dir:/a\",\"stamps\":{\"k\":3}}",
    };
    char path[200];
    struct stamps *stamps = open_stamps(*state, "dir:/a");
    stamps_get(stamps, "k", 1, NULL);
    stamps_close(stamps);
    find_file(*state, path, sizeof(path));
    for (size_t i = 0; i < sizeof(contents) / sizeof(contents[0]); i++) {
        int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
        assert_int_equal(write(fd, contents[i], strlen(contents[i])), strlen(contents[i]));
        close(fd);
        stamps = open_stamps(*state, "dir:/a");
        struct timespec time = stamps_get(stamps, "k", 1, NULL);
        if (time.tv_sec <= 1000000000)
            print_error("row %zu\n", i);
        assert_true(time.tv_sec > 1000000000);
        stamps_close(stamps);
    }
}

static void follows_no_symlink(void **state)
{
    char path[200], target[200];
    struct stamps *stamps = open_stamps(*state, "dir:/a");
    stamps_get(stamps, "k", 1, NULL);
    stamps_close(stamps);
    find_file(*state, path, sizeof(path));
    snprintf(target, sizeof(target), "%s/elsewhere", (const char *)*state);
    assert_int_equal(rename(path, target), 0);
    assert_int_equal(symlink(target, path), 0);
    stamps = open_stamps(*state, "dir:/a");
    stamps_get(stamps, "k", 2, NULL);
    stamps_close(stamps);
    struct stat st;
    assert_int_equal(lstat(path, &st), 0);
    assert_true(S_ISREG(st.st_mode)); /* replaced, not written through */
}

static void works_in_memory_where_nothing_can_be_written(void **state)
{
    (void)state;
    struct stamps *stamps = open_stamps("/proc/no-such-dir", "dir:/a");
    struct timespec a = stamps_get(stamps, "k", 1, NULL);
    assert_true(is_same(a, stamps_get(stamps, "k", 1, NULL)));
    stamps_close(stamps);
    stamps = open_stamps(NULL, "dir:/a");
    stamps_get(stamps, "k", 1, NULL);
    stamps_close(stamps);
    stamps_close(NULL);
}

static void forgets_what_was_not_used_for_longest(void **state)
{
    enum { LIMIT = 65536 };
    struct stamps *stamps = open_stamps(*state, "dir:/a");
    struct timespec old = {.tv_sec = 1000};
    stamps_get(stamps, "used", 1, &old);
    stamps_get(stamps, "unused", 1, &old);
    for (unsigned i = 0; i < LIMIT; i++) {
        char key[20];
        snprintf(key, sizeof(key), "%u", i);
        stamps_get(stamps, key, 1, &old);
        stamps_get(stamps, "used", 1, NULL);
    }
    struct timespec other = {.tv_sec = 2000};
    assert_int_equal(stamps_get(stamps, "used", 1, &other).tv_sec, 1000);
    assert_int_equal(stamps_get(stamps, "unused", 1, &other).tv_sec, 2000);
    stamps_close(stamps);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(same_content_keeps_its_time),
        TEST(new_content_gets_a_later_time),
        TEST(first_is_for_keys_never_seen),
        TEST(times_are_kept_over_a_remount),
        TEST(sources_do_not_share_times),
        TEST(makes_the_state_directory_for_its_owner_only),
        TEST(starts_anew_after_garbage),
        TEST(follows_no_symlink),
        TEST(works_in_memory_where_nothing_can_be_written),
        TEST(forgets_what_was_not_used_for_longest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
