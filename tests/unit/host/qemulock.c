/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/qemulock.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct files {
    char path[64];
    int ours, theirs; /* two descriptions of one file */
};

static int set_up(void **state)
{
    struct files *files = calloc(1, sizeof(*files));
    strcpy(files->path, "/tmp/qemulock.XXXXXX");
    files->theirs = mkstemp(files->path);
    files->ours = open(files->path, O_RDONLY | O_CLOEXEC);
    *state = files;
    return files->theirs >= 0 && files->ours >= 0 ? 0 : -1;
}

static int tear_down(void **state)
{
    struct files *files = *state;
    close(files->ours);
    close(files->theirs);
    unlink(files->path);
    free(files);
    return 0;
}

static void lock_as_them(const struct files *files, short type, off_t at)
{
    struct flock fl = {.l_type = type, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
    assert_int_equal(fcntl(files->theirs, F_OFD_SETLK, &fl), 0);
}

/* What QEMU asks: is that byte held by somebody else? */
static bool they_see(const struct files *files, off_t at)
{
    struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
    assert_int_equal(fcntl(files->theirs, F_OFD_GETLK, &fl), 0);
    return fl.l_type != F_UNLCK;
}

static void no_writers_forbids_writing_and_resizing(void **state)
{
    const struct files *files = *state;
    bool is_locked = false;
    struct error err = {0};
    assert_int_equal(qemulock_take(files->ours, files->path, QEMULOCK_NO_WRITERS, &is_locked, &err),
                     0);
    assert_true(is_locked);
    assert_true(they_see(files, 100));
    assert_true(they_see(files, 201));
    assert_true(they_see(files, 203));
    assert_false(they_see(files, 101));
    assert_false(they_see(files, 200));
    assert_false(they_see(files, 202));
}

static void visible_forbids_nothing(void **state)
{
    const struct files *files = *state;
    bool is_locked = false;
    struct error err = {0};
    assert_int_equal(qemulock_take(files->ours, files->path, QEMULOCK_VISIBLE, &is_locked, &err),
                     0);
    assert_true(is_locked);
    assert_true(they_see(files, 100));
    for (off_t at = 200; at < 205; at++)
        assert_false(they_see(files, at));
}

static void a_writer_is_found_and_nothing_stays_locked(void **state)
{
    const struct files *files = *state;
    lock_as_them(files, F_RDLCK, 101);
    bool is_locked = false;
    struct error err = {0};
    assert_int_equal(qemulock_take(files->ours, files->path, QEMULOCK_NO_WRITERS, &is_locked, &err),
                     -EBUSY);
    assert_non_null(strstr(err.text, files->path));
    assert_non_null(strstr(err.text, "open for writing"));
    assert_false(they_see(files, 100));
    assert_false(they_see(files, 201));
    assert_int_equal(qemulock_check(files->ours, files->path, &err), -EBUSY);
}

static void a_resizer_is_found(void **state)
{
    const struct files *files = *state;
    lock_as_them(files, F_RDLCK, 103);
    bool is_locked = false;
    struct error err = {0};
    assert_int_equal(qemulock_take(files->ours, files->path, QEMULOCK_NO_WRITERS, &is_locked, &err),
                     -EBUSY);
}

static void visible_does_not_mind_a_writer(void **state)
{
    const struct files *files = *state;
    lock_as_them(files, F_RDLCK, 101);
    bool is_locked = false;
    struct error err = {0};
    assert_int_equal(qemulock_take(files->ours, files->path, QEMULOCK_VISIBLE, &is_locked, &err),
                     0);
    assert_true(is_locked);
}

static void other_readers_are_welcome(void **state)
{
    const struct files *files = *state;
    lock_as_them(files, F_RDLCK, 100); /* as qemu-io -r: QEMU reading below an overlay */
    lock_as_them(files, F_RDLCK, 201);
    lock_as_them(files, F_RDLCK, 203);
    bool is_locked = false;
    struct error err = {0};
    assert_int_equal(qemulock_take(files->ours, files->path, QEMULOCK_NO_WRITERS, &is_locked, &err),
                     0);
}

static void an_exclusive_lock_is_in_the_way_of_no_writers_only(void **state)
{
    const struct files *files = *state;
    lock_as_them(files, F_WRLCK, 100);
    bool is_locked = true;
    struct error err = {0};
    assert_int_equal(qemulock_take(files->ours, files->path, QEMULOCK_VISIBLE, &is_locked, &err),
                     0);
    assert_false(is_locked);
    assert_int_equal(qemulock_take(files->ours, files->path, QEMULOCK_NO_WRITERS, &is_locked, &err),
                     -EBUSY);
}

static void dropping_lets_writers_in(void **state)
{
    const struct files *files = *state;
    bool is_locked = false;
    struct error err = {0};
    assert_int_equal(qemulock_take(files->ours, files->path, QEMULOCK_NO_WRITERS, &is_locked, &err),
                     0);
    qemulock_drop(files->ours);
    for (off_t at = 100; at < 210; at++)
        assert_false(they_see(files, at));
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(no_writers_forbids_writing_and_resizing),
        TEST(visible_forbids_nothing),
        TEST(a_writer_is_found_and_nothing_stays_locked),
        TEST(a_resizer_is_found),
        TEST(visible_does_not_mind_a_writer),
        TEST(other_readers_are_welcome),
        TEST(an_exclusive_lock_is_in_the_way_of_no_writers_only),
        TEST(dropping_lets_writers_in),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
