/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The chain of a disk opened through the host's policy and held by QEMU's locks. */
#include "fs/session/image.h"

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

#include "tests/lib/image.h"

/* A host whose only verb is to answer references. */
struct chain_host {
    struct host base;
    struct image_answers answers;
    int refuse; /* what a reference gets instead, or 0 */
};

struct fixture {
    struct chain_host host;
    struct image top, base;
    struct disk disk;
    struct disk_layer layer;
    char path[40];
    struct qcow_cache *cache;
};

static int chain_open_ref(void *ctx, const struct qcow_ref *ref, struct qcow_file *ret_file,
                          struct error *err)
{
    const struct host_image_ctx *image_ctx = ctx;
    struct chain_host *host = (struct chain_host *)image_ctx->host;
    if (host->refuse)
        return error_set(err, host->refuse, "refused");
    int r = image_answer(&host->answers, ref, ret_file, err);
    if (r != 0)
        return r;
    /* A description of its own: its locks would not be seen through the one it was copied from. */
    char path[40];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", ret_file->fd);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    close(ret_file->fd);
    ret_file->fd = fd;
    return 0;
}

static const struct host_ops chain_ops = {.open_ref = chain_open_ref};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->host.base.ops = &chain_ops;
    image_create(&f->base, &(struct image_options){.name = "base", .guest_size = 65536});
    image_create(&f->top, &(struct image_options){
                              .name = "top", .guest_size = 65536, .backing_name = "base"});
    image_write(&f->base, 0, 1);
    image_write(&f->top, 512, 2);
    f->host.answers.backing[0] = &f->base;
    snprintf(f->path, sizeof(f->path), "/proc/self/fd/%d", f->top.fd);
    f->layer = (struct disk_layer){.path = f->path, .format = QCOW_FORMAT_QCOW2};
    f->disk = (struct disk){.target = "vda", .layers = &f->layer, .n_layers = 1};
    *state = f;
    return qcow_cache_create(1 << 20, &f->cache, NULL);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    qcow_cache_destroy(f->cache);
    image_destroy(&f->top);
    image_destroy(&f->base);
    free(f);
    return 0;
}

static int try_open(struct fixture *f, enum qemulock_hold hold, struct disk_image **ret_image,
                    struct error *err)
{
    struct disk_image_request request = {
        .host = &f->host.base, .disk = &f->disk, .cache = f->cache, .top_hold = hold};
    return disk_image_open(&request, ret_image, err);
}

/* What QEMU would find on that file. */
static bool is_held(const struct image *image, off_t at)
{
    struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
    assert_int_equal(fcntl(image->fd, F_OFD_GETLK, &fl), 0);
    return fl.l_type != F_UNLCK;
}

static void write_as_qemu(const struct image *image)
{
    struct flock fl = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 101, .l_len = 1};
    assert_int_equal(fcntl(image->fd, F_OFD_SETLK, &fl), 0);
}

static void every_layer_is_held_until_the_last_reference(void **state)
{
    struct fixture *f = *state;
    struct disk_image *image;
    assert_int_equal(try_open(f, QEMULOCK_NO_WRITERS, &image, NULL), 0);
    assert_true(disk_image_is_locked(image));
    assert_int_equal(qcow_depth(disk_image_qcow(image)), 2);
    assert_true(is_held(&f->top, 201) && is_held(&f->base, 201));
    disk_image_ref(image);
    disk_image_unref(image);
    assert_true(is_held(&f->top, 201) && is_held(&f->base, 201));
    disk_image_unref(image);
    assert_false(is_held(&f->top, 201) || is_held(&f->base, 201));
    assert_false(is_held(&f->top, 100) || is_held(&f->base, 100));
}

static void dropped_locks_leave_the_image_readable(void **state)
{
    struct fixture *f = *state;
    struct disk_image *image;
    assert_int_equal(try_open(f, QEMULOCK_NO_WRITERS, &image, NULL), 0);
    disk_image_drop_locks(image);
    assert_false(is_held(&f->top, 201) || is_held(&f->base, 201));
    unsigned char buf[1024];
    assert_int_equal(qcow_read(disk_image_qcow(image), 0, buf, sizeof(buf), NULL), sizeof(buf));
    disk_image_unref(image);
}

static void a_visible_top_lets_its_writer_be_but_not_one_below(void **state)
{
    struct fixture *f = *state;
    struct disk_image *image;
    struct error err = {0};
    write_as_qemu(&f->top);
    assert_int_equal(try_open(f, QEMULOCK_NO_WRITERS, &image, &err), -EBUSY);
    assert_int_equal(try_open(f, QEMULOCK_VISIBLE, &image, &err), 0);
    assert_true(is_held(&f->top, 100));
    assert_false(is_held(&f->top, 201));
    assert_true(is_held(&f->base, 201));
    disk_image_unref(image);
    write_as_qemu(&f->base);
    assert_int_equal(try_open(f, QEMULOCK_VISIBLE, &image, &err), -EBUSY);
    assert_non_null(strstr(err.text, "base"));
}

static void a_writer_is_found_before_the_header_is_read(void **state)
{
    struct fixture *f = *state;
    struct disk_image *image;
    struct error err = {0};
    image_poke32(&f->top, 0, 0); /* no qcow2 any more: half-written by somebody */
    write_as_qemu(&f->top);
    assert_int_equal(try_open(f, QEMULOCK_NO_WRITERS, &image, &err), -EBUSY);
}

static void a_refused_reference_leaves_no_lock(void **state)
{
    struct fixture *f = *state;
    struct disk_image *image;
    struct error err = {0};
    f->host.refuse = -EPERM;
    assert_int_equal(try_open(f, QEMULOCK_NO_WRITERS, &image, &err), -EPERM);
    assert_false(is_held(&f->top, 100) || is_held(&f->top, 201));
}

static void a_damaged_image_leaves_no_lock(void **state)
{
    struct fixture *f = *state;
    struct disk_image *image;
    struct error err = {0};
    image_poke32(&f->base, 0, 0);
    assert_int_equal(try_open(f, QEMULOCK_NO_WRITERS, &image, &err), -EBADMSG);
    assert_false(is_held(&f->top, 201) || is_held(&f->base, 201));
}

static void unsupported_and_disputed_disks_are_refused_with_the_reason(void **state)
{
    struct fixture *f = *state;
    struct disk_image *image;
    struct error err = {0};
    f->disk.is_format_disputed = true;
    assert_int_equal(try_open(f, QEMULOCK_VISIBLE, &image, &err), -EOPNOTSUPP);
    assert_non_null(strstr(err.text, "say format=qcow2 or format=raw"));
    f->disk.unsupported = "network disk";
    assert_int_equal(try_open(f, QEMULOCK_VISIBLE, &image, &err), -EOPNOTSUPP);
    assert_string_equal(err.text, "network disk");
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(every_layer_is_held_until_the_last_reference),
        TEST(dropped_locks_leave_the_image_readable),
        TEST(a_visible_top_lets_its_writer_be_but_not_one_below),
        TEST(a_writer_is_found_before_the_header_is_read),
        TEST(a_refused_reference_leaves_no_lock),
        TEST(a_damaged_image_leaves_no_lock),
        TEST(unsupported_and_disputed_disks_are_refused_with_the_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
