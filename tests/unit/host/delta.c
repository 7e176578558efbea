/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/delta.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/host/scratch.h"

static struct change *make_change(const char *base, const char *delta)
{
    struct change *change;
    struct error err = {0};
    assert_int_equal(change_create(CHANGE_COPY, "id", "d", &change, &err), 0);
    assert_int_equal(change_add_disk(change, "vda", base, QCOW_FORMAT_RAW, delta, &err), 0);
    return change;
}

static int check_room(const char *base, const char *delta, struct error *err)
{
    struct change *change = make_change(base, delta);
    int r = delta_check_room(change, err);
    change_free(change);
    return r;
}

static void looks_for_room_and_a_free_name(void **state)
{
    struct scratch *s = *state;
    struct error err = {0};
    scratch_write(s, "base", "data");
    assert_int_equal(check_room(scratch_path(s, "base"), scratch_path(s, "delta"), &err), 0);
    assert_int_equal(check_room(scratch_path(s, "base"), scratch_path(s, "base"), &err), -EBUSY);
    assert_int_equal(check_room(scratch_path(s, "none"), scratch_path(s, "delta"), &err), -EIO);
    assert_int_equal(check_room(scratch_path(s, "base"), scratch_path(s, "no/delta"), &err), -EIO);
    assert_int_equal(check_room(scratch_path(s, "base"), "/proc/delta", &err), -ENOSPC);
}

static void deletes_what_nobody_uses(void **state)
{
    struct scratch *s = *state;
    struct error err = {0};
    scratch_write(s, "delta", "data");
    assert_int_equal(delta_delete(scratch_path(s, "delta"), &err), 0);
    assert_int_not_equal(access(scratch_path(s, "delta"), F_OK), 0);
    assert_int_equal(delta_delete(scratch_path(s, "delta"), &err), 0);
}

static void leaves_a_file_with_a_lock_in_it(void **state)
{
    struct scratch *s = *state;
    struct error err = {0};
    scratch_write(s, "delta", "data");
    int fd = open(scratch_path(s, "delta"), O_RDONLY | O_CLOEXEC);
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 100, .l_len = 1};
    assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
    assert_int_equal(delta_delete(scratch_path(s, "delta"), &err), -EBUSY);
    assert_int_equal(access(scratch_path(s, "delta"), F_OK), 0);
    close(fd);
    assert_int_equal(delta_delete(scratch_path(s, "delta"), &err), 0);
}

static void follows_no_link(void **state)
{
    struct scratch *s = *state;
    struct error err = {0};
    scratch_write(s, "other", "data");
    scratch_link(s, scratch_path(s, "other"), "delta");
    assert_int_equal(delta_delete(scratch_path(s, "delta"), &err), -EIO);
    assert_int_equal(access(scratch_path(s, "other"), F_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(looks_for_room_and_a_free_name, scratch_setup,
                                        scratch_teardown),
        cmocka_unit_test_setup_teardown(deletes_what_nobody_uses, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(leaves_a_file_with_a_lock_in_it, scratch_setup,
                                        scratch_teardown),
        cmocka_unit_test_setup_teardown(follows_no_link, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
