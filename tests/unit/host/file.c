/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/file.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/host/scratch.h"

static void check_resolves(const char *from, const char *name, const char *want)
{
    char *path;
    struct error err = {0};
    assert_int_equal(file_resolve_ref(from, name, &path, &err), 0);
    assert_string_equal(path, want);
    free(path);
}

static void resolves_names_as_qemu_does(void **state)
{
    (void)state;
    check_resolves("/d/top", "base", "/d/base");
    check_resolves("/d/top", "sub/base", "/d/sub/base");
    check_resolves("/d/top", "../base", "/d/../base");
    check_resolves("/d/top", "/x/base", "/x/base");
    check_resolves("/top", "base", "/base");
    check_resolves("top", "base", "base");
    check_resolves("/d/top", "file:base", "/d/base");
    check_resolves("/d/top", "file:/x/base", "/x/base");
    check_resolves("/d/top", "./a:b", "/d/./a:b");
    check_resolves("/d/top", "/x/a:b", "/x/a:b");
}

static void refuses_protocols(void **state)
{
    (void)state;
    static const char *const names[] = {"nbd:localhost:1",    "json:{}", "http://h/x", "fat:/etc",
                                        "host_device:/dev/x", "",        "file:"};
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        char *path;
        struct error err = {0};
        print_message("%s\n", names[i]);
        assert_int_equal(file_resolve_ref("/d/top", names[i], &path, &err), -EOPNOTSUPP);
        assert_non_null(strstr(err.text, "/d/top"));
    }
}

static void compares_whole_path_elements(void **state)
{
    (void)state;
    const char *const dirs[] = {"/a/b", "/c/"};
    assert_true(file_is_beneath("/a/b", dirs, 2));
    assert_true(file_is_beneath("/a/b/x", dirs, 2));
    assert_true(file_is_beneath("/c/x", dirs, 2));
    assert_false(file_is_beneath("/a/bc", dirs, 2));
    assert_false(file_is_beneath("/a", dirs, 2));
    assert_false(file_is_beneath("/cd", dirs, 2));
    assert_false(file_is_beneath("/a/b", dirs, 0));
    assert_true(file_is_beneath("/x", (const char *const[]){"/"}, 1));
}

static void opens_a_regular_file_without_directories_given(void **state)
{
    const struct scratch *s = *state;
    scratch_write(s, "x", "hello");
    struct error err = {0};
    int fd = file_open_image(scratch_path(s, "x"), NULL, 0, &err);
    assert_true(fd >= 0);
    char buf[8];
    assert_int_equal(read(fd, buf, sizeof(buf)), 5);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    assert_int_equal(fcntl(fd, F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_RDONLY);
    close(fd);
}

static void refuses_other_types_without_hanging(void **state)
{
    const struct scratch *s = *state;
    struct error err = {0};
    assert_int_equal(mkfifo(scratch_path(s, "fifo"), 0600), 0);
    assert_int_equal(file_open_image(scratch_path(s, "fifo"), NULL, 0, &err), -EOPNOTSUPP);
    assert_int_equal(file_open_image(s->dir, NULL, 0, &err), -EOPNOTSUPP);
    assert_int_equal(file_open_image("/dev/null", NULL, 0, &err), -EOPNOTSUPP);
}

static void a_missing_file_is_a_host_fault(void **state)
{
    const struct scratch *s = *state;
    struct error err = {0};
    assert_int_equal(file_open_image(scratch_path(s, "none"), NULL, 0, &err), -EIO);
    assert_non_null(strstr(err.text, "No such file"));
}

static void a_symlink_may_not_lead_out(void **state)
{
    const struct scratch *s = *state;
    struct error err = {0};
    scratch_mkdir(s, "in");
    scratch_mkdir(s, "in2");
    scratch_write(s, "in/x", "x");
    scratch_write(s, "in2/x", "x");
    scratch_link(s, "../in2/x", "in/out");
    scratch_link(s, "x", "in/same");
    const char *const dirs[] = {scratch_path(s, "in")};
    char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s/in/same", s->dir);
    int fd = file_open_image(path, dirs, 1, &err);
    assert_true(fd >= 0);
    close(fd);
    snprintf(path, sizeof(path), "%s/in/out", s->dir);
    assert_int_equal(file_open_image(path, dirs, 1, &err), -EPERM);
    assert_non_null(strstr(err.text, "in/out"));
    assert_non_null(strstr(err.text, "in2/x"));
    snprintf(path, sizeof(path), "%s/in/../in2/x", s->dir);
    assert_int_equal(file_open_image(path, dirs, 1, &err), -EPERM);
    snprintf(path, sizeof(path), "%s/in/x", s->dir);
    assert_int_equal(file_open_image(path, dirs, 0, &err), -EPERM);
}

/* The kernel shows an unlinked file as "NAME (deleted)", which is a fine name for another one. */
static void a_deleted_file_does_not_pass_for_another(void **state)
{
    const struct scratch *s = *state;
    struct error err = {0};
    scratch_mkdir(s, "in");
    scratch_write(s, "in/x", "x");
    scratch_write(s, "in/x (deleted)", "y");
    int held = open(scratch_path(s, "in/x"), O_RDONLY | O_CLOEXEC);
    assert_true(held >= 0);
    assert_int_equal(unlink(scratch_path(s, "in/x")), 0);
    const char *const dirs[] = {scratch_path(s, "in")};
    char path[PATH_MAX];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", held);
    assert_int_equal(file_open_image(path, dirs, 1, &err), -EIO);
    close(held);
    snprintf(path, sizeof(path), "%s/in/x (deleted)", s->dir);
    int fd = file_open_image(path, dirs, 1, &err);
    assert_true(fd >= 0);
    close(fd);
}

static void resolves_directories_once(void **state)
{
    const struct scratch *s = *state;
    struct error err = {0};
    char **real;
    scratch_mkdir(s, "in");
    scratch_link(s, "in", "link");
    scratch_write(s, "file", "");
    const char *const dirs[] = {scratch_path(s, "in/.."), scratch_path(s, "link/")};
    assert_int_equal(file_resolve_dirs(dirs, 2, &real, &err), 0);
    assert_string_equal(real[0], s->dir);
    assert_string_equal(real[1], scratch_path(s, "in"));
    file_free_dirs(real, 2);
    assert_int_equal(file_resolve_dirs(dirs, 0, &real, &err), 0);
    assert_non_null(real);
    file_free_dirs(real, 0);
    const char *const bad[] = {scratch_path(s, "in"), scratch_path(s, "file")};
    assert_int_equal(file_resolve_dirs(bad, 2, &real, &err), -ENOTDIR);
    const char *const none[] = {scratch_path(s, "none")};
    assert_int_equal(file_resolve_dirs(none, 1, &real, &err), -ENOENT);
}

#define WITH_SCRATCH(test) cmocka_unit_test_setup_teardown(test, scratch_setup, scratch_teardown)

static void a_recorded_name_leads_through_no_link_to_what_is_open(void **state)
{
    const struct scratch *s = *state;
    struct error err = {0};
    scratch_write(s, "open", "x");
    int fd = open(scratch_path(s, "open"), O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    char link[64];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    scratch_link(s, link, "symlink");
    assert_int_equal(file_open_recorded(link, NULL, 0, &err), -EIO);
    assert_int_equal(file_open_recorded(scratch_path(s, "symlink"), NULL, 0, &err), -EIO);
    close(fd);
    int plain = file_open_recorded(scratch_path(s, "open"), NULL, 0, &err);
    assert_true(plain >= 0);
    close(plain);
}

/* Also what a link was put in the place of only after somebody looked at it. */
static void opens_nothing_elsewhere_once_places_are_given(void **state)
{
    const struct scratch *s = *state;
    struct error err = {0};
    scratch_mkdir(s, "in");
    scratch_write(s, "in/image", "x");
    scratch_write(s, "secret", "x");
    scratch_link(s, "../secret", "in/link");
    const char *const dirs[] = {scratch_path(s, "in")};
    assert_int_equal(file_allow_only(dirs, 1, &err), 0);
    int inside = file_open_image(scratch_path(s, "in/image"), NULL, 0, &err);
    int outside = file_open_image(scratch_path(s, "in/link"), NULL, 0, &err);
    assert_int_equal(file_allow_only(NULL, 0, &err), 0);
    int anywhere = file_open_image(scratch_path(s, "in/link"), NULL, 0, &err);
    assert_true(inside >= 0 && anywhere >= 0);
    assert_int_equal(outside, -EPERM);
    close(inside);
    close(anywhere);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resolves_names_as_qemu_does),
        cmocka_unit_test(refuses_protocols),
        cmocka_unit_test(compares_whole_path_elements),
        WITH_SCRATCH(opens_a_regular_file_without_directories_given),
        WITH_SCRATCH(refuses_other_types_without_hanging),
        WITH_SCRATCH(a_missing_file_is_a_host_fault),
        WITH_SCRATCH(a_symlink_may_not_lead_out),
        WITH_SCRATCH(a_deleted_file_does_not_pass_for_another),
        WITH_SCRATCH(resolves_directories_once),
        WITH_SCRATCH(a_recorded_name_leads_through_no_link_to_what_is_open),
        WITH_SCRATCH(opens_nothing_elsewhere_once_places_are_given),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
