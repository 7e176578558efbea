/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/helper.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ARGS(...) ((char *[]){__VA_ARGS__, NULL})

static int count(char *const *args)
{
    int n = 0;
    while (args[n])
        n++;
    return n;
}

/* Both are released by the caller. */
static void check_parses(struct helper *ret_helper, struct options *ret_options, char *const *args)
{
    struct error err = {0};
    if (helper_parse(count(args), args, ret_helper, ret_options, &err) < 0)
        fail_msg("%s", err.text);
}

/* Refused with a reason that says @what. */
static void check_refused(const char *what, char *const *args)
{
    struct helper h;
    struct options o;
    struct error err = {0};
    assert_int_equal(helper_parse(count(args), args, &h, &o, &err), -EINVAL);
    if (!strstr(err.text, what))
        fail_msg("'%s' does not say '%s'", err.text, what);
    options_fini(&o);
    helper_fini(&h);
}

static void release(struct helper *helper, struct options *options)
{
    options_fini(options);
    helper_fini(helper);
}

static void another_name_is_the_programs_own_command_line(void **state)
{
    (void)state;
    struct helper h;
    struct options o;
    check_parses(&h, &o, ARGS("/usr/bin/virtsnapfs", "-f", "-s", "dir:/i", "/mnt"));
    assert_false(h.is_called);
    assert_false(h.is_fake);
    assert_true(o.is_foreground);
    assert_true(o.is_single_thread);
    release(&h, &o);
}

static void f_and_s_are_fake_and_sloppy(void **state)
{
    (void)state;
    struct helper h;
    struct options o;
    check_parses(&h, &o,
                 ARGS("/sbin/mount.virtsnapfs", "qemu:///system", "/mnt", "-s", "-f", "-n", "-v",
                      "-o", "rw,frobnicate=1,umask=0277"));
    assert_true(h.is_called);
    assert_true(h.is_fake);
    assert_true(h.is_verbose);
    assert_null(h.namespace_path);
    assert_false(o.is_foreground);
    assert_false(o.is_single_thread);
    assert_string_equal(o.source, "qemu:///system");
    assert_string_equal(o.mountpoint, "/mnt");
    assert_int_equal(o.umask, 0277);
    release(&h, &o);
}

static void takes_a_type_and_several_lists(void **state)
{
    (void)state;
    struct helper h;
    struct options o;
    check_parses(&h, &o,
                 ARGS("mount.fuse.virtsnapfs", "dir:/i", "/mnt", "-o", "ro", "-t",
                      "fuse.virtsnapfs", "-o", "join=1,user,_netdev"));
    assert_true(h.is_called);
    assert_true(o.is_ro);
    assert_int_equal(o.join_s, 1);
    release(&h, &o);
}

static void sloppy_keeps_what_is_escaped(void **state)
{
    (void)state;
    struct helper h;
    struct options o;
    check_parses(&h, &o,
                 ARGS("mount.virtsnapfs", "dir:/i", "/mnt", "-s", "-o",
                      "a\\,b=1,backing_dir=/a\\,b,c,scratch=/d"));
    assert_int_equal(o.n_backing_dirs, 1);
    assert_string_equal(o.backing_dirs[0], "/a,b");
    assert_string_equal(o.scratch_dir, "/d");
    release(&h, &o);
}

static void unknown_options_are_errors_without_s(void **state)
{
    (void)state;
    check_refused("frobnicate", ARGS("mount.virtsnapfs", "dir:/i", "/mnt", "-o", "frobnicate"));
    check_refused("-q", ARGS("mount.virtsnapfs", "dir:/i", "/mnt", "-q"));
    check_refused("-o", ARGS("mount.virtsnapfs", "dir:/i", "/mnt", "-o"));
}

static void sloppy_is_not_careless_with_values_or_remounts(void **state)
{
    (void)state;
    check_refused("join", ARGS("mount.virtsnapfs", "dir:/i", "/mnt", "-s", "-o", "join=soon"));
    check_refused("cannot be changed",
                  ARGS("mount.virtsnapfs", "dir:/i", "/mnt", "-s", "-o", "rw,remount"));
}

static void a_mount_is_no_errand(void **state)
{
    (void)state;
    check_refused("help", ARGS("mount.virtsnapfs", "dir:/i", "/mnt", "-o", "help"));
    check_refused("version", ARGS("mount.virtsnapfs", "dir:/i", "/mnt", "-o", "version"));
    check_refused("/mnt", ARGS("mount.virtsnapfs", "dir:/i", "/mnt", "-o", "recover"));
}

static void wants_two_operands(void **state)
{
    (void)state;
    check_refused("SPEC", ARGS("mount.virtsnapfs"));
    check_refused("DIR", ARGS("mount.virtsnapfs", "dir:/i"));
    check_refused("more", ARGS("mount.virtsnapfs", "dir:/i", "/mnt", "more"));
}

static void a_namespace_is_a_process_or_a_path(void **state)
{
    (void)state;
    struct helper h;
    struct options o;
    check_parses(&h, &o, ARGS("mount.virtsnapfs", "dir:/i", "/mnt", "-N", "12"));
    assert_string_equal(h.namespace_path, "/proc/12/ns/mnt");
    release(&h, &o);
    check_parses(&h, &o, ARGS("mount.virtsnapfs", "dir:/i", "/mnt", "-N", "/proc/9/fd/4"));
    assert_string_equal(h.namespace_path, "/proc/9/fd/4");
    release(&h, &o);
}

static void help_and_version_need_no_operands(void **state)
{
    (void)state;
    struct helper h;
    struct options o;
    check_parses(&h, &o, ARGS("mount.virtsnapfs", "-h"));
    assert_int_equal(o.action, OPTIONS_HELP);
    release(&h, &o);
    check_parses(&h, &o, ARGS("mount.virtsnapfs", "-V"));
    assert_int_equal(o.action, OPTIONS_VERSION);
    release(&h, &o);
}

static void statuses_are_those_of_mount(void **state)
{
    (void)state;
    const struct helper helper = {.is_called = true};
    const struct helper other = {.is_called = false};
    static const int wanted[] = {0, 1, 2, 32, 32, 32, 32, 32};
    for (int status = 0; status < 8; status++) {
        if (helper_status(&helper, status) != wanted[status])
            fail_msg("status %d becomes %d", status, helper_status(&helper, status));
        if (helper_status(&other, status) != status)
            fail_msg("status %d of the program becomes another", status);
    }
}

static void options_may_follow_operands_whatever_the_environment_says(void **state)
{
    (void)state;
    struct helper h;
    struct options o;
    assert_int_equal(setenv("POSIXLY_CORRECT", "1", 1), 0);
    check_parses(&h, &o, ARGS("/sbin/mount.virtsnapfs", "dir:/i", "/mnt", "-v", "-o", "join=7"));
    assert_true(h.is_verbose);
    assert_int_equal(o.join_s, 7);
    assert_string_equal(o.mountpoint, "/mnt");
    release(&h, &o);
    check_parses(&h, &o, ARGS("mount.virtsnapfs", "-o", "join=8", "dir:/i", "--", "/-v"));
    assert_int_equal(o.join_s, 8);
    assert_string_equal(o.mountpoint, "/-v");
    release(&h, &o);
    check_refused("too many: 'x'", ARGS("mount.virtsnapfs", "dir:/i", "/mnt", "-n", "x", "y"));
    assert_int_equal(unsetenv("POSIXLY_CORRECT"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_may_follow_operands_whatever_the_environment_says),
        cmocka_unit_test(another_name_is_the_programs_own_command_line),
        cmocka_unit_test(f_and_s_are_fake_and_sloppy),
        cmocka_unit_test(takes_a_type_and_several_lists),
        cmocka_unit_test(sloppy_keeps_what_is_escaped),
        cmocka_unit_test(unknown_options_are_errors_without_s),
        cmocka_unit_test(sloppy_is_not_careless_with_values_or_remounts),
        cmocka_unit_test(a_mount_is_no_errand),
        cmocka_unit_test(wants_two_operands),
        cmocka_unit_test(a_namespace_is_a_process_or_a_path),
        cmocka_unit_test(help_and_version_need_no_operands),
        cmocka_unit_test(statuses_are_those_of_mount),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
