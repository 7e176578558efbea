/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/fuse/mountpoint.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static void reads_a_line_with_tags(void **state)
{
    (void)state;
    struct mountinfo info;
    assert_int_equal(mountinfo_parse("36 35 98:5 /mnt1 /mnt2 rw,noatime shared:1 master:2 - "
                                     "fuse.virtsnapfs dir:/a rw,max_read=1048576\n",
                                     &info),
                     0);
    assert_int_equal(info.major, 98);
    assert_int_equal(info.minor, 5);
    assert_string_equal(info.path, "/mnt2");
    assert_string_equal(info.type, "fuse.virtsnapfs");
    assert_string_equal(info.source, "dir:/a");
    mountinfo_fini(&info);
}

static void reads_a_line_without_tags_and_odd_bytes_in_paths(void **state)
{
    (void)state;
    struct mountinfo info;
    assert_int_equal(
        mountinfo_parse("36 35 0:49 / /mnt/a\\040b\\011\\012\\134040 rw - ext4 /dev/x\\040y rw\n",
                        &info),
        0);
    assert_string_equal(info.path, "/mnt/a b\t\n\\040");
    assert_string_equal(info.type, "ext4");
    assert_string_equal(info.source, "/dev/x y");
    mountinfo_fini(&info);
}

static void white_space_that_is_not_escaped_belongs_to_the_path(void **state)
{
    (void)state;
    struct mountinfo info;
    assert_int_equal(
        mountinfo_parse("36 35 0:49 / /mnt/a\rb\fc rw - fuse.virtsnapfs dir:/x\vy rw\n", &info), 0);
    assert_string_equal(info.path, "/mnt/a\rb\fc");
    assert_string_equal(info.source, "dir:/x\vy");
    mountinfo_fini(&info);
}

static void refuses_other_lines(void **state)
{
    (void)state;
    struct mountinfo info;
    assert_int_equal(mountinfo_parse("", &info), -EINVAL);
    assert_int_equal(mountinfo_parse("36\t35\t0:49 - ext4 /dev/x", &info), -EINVAL);
    assert_int_equal(mountinfo_parse("36 35 0:49 / /mnt rw\n", &info), -EINVAL);
    assert_int_equal(mountinfo_parse("36 35 0 / /mnt rw - ext4 /dev/x rw\n", &info), -EINVAL);
    assert_int_equal(mountinfo_parse("36 35 0:49 / /mnt rw - ", &info), -EINVAL);
}

static void a_file_or_nothing_cannot_be_mounted_on(void **state)
{
    (void)state;
    struct error err = {0};
    char *real = NULL;
    assert_int_equal(mountpoint_prepare("/dev/null", &real, &err), -ENOTDIR);
    assert_int_equal(mountpoint_prepare("/nonexistent/x", &real, &err), -ENOENT);
    assert_null(real);
}

static void the_real_path_is_what_mountinfo_shows(void **state)
{
    (void)state;
    struct error err = {0};
    char *real = NULL;
    assert_int_equal(mountpoint_prepare("/usr/../usr//", &real, &err), 0);
    assert_string_equal(real, "/usr");
    free(real);
}

static void what_is_no_mount_of_ours_covers_nothing(void **state)
{
    (void)state;
    assert_false(mountpoint_covers("/proc/self/status"));
    assert_true(mountpoint_covers("/nonexistent/x")); /* in doubt */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(white_space_that_is_not_escaped_belongs_to_the_path),
        cmocka_unit_test(reads_a_line_with_tags),
        cmocka_unit_test(reads_a_line_without_tags_and_odd_bytes_in_paths),
        cmocka_unit_test(refuses_other_lines),
        cmocka_unit_test(a_file_or_nothing_cannot_be_mounted_on),
        cmocka_unit_test(the_real_path_is_what_mountinfo_shows),
        cmocka_unit_test(what_is_no_mount_of_ours_covers_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
