/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow/source.c: a raw image whose bytes lie in a remote; here, in memory. */
#include "qcow/qcow.h"

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "qcow/base/error.h"
#include "tests/unit/qcow/read_checks.h"

enum { REMOTE_SIZE = 3 * 4096 + 100, BLOCK = 4096 };

struct memory {
    struct qcow_remote remote;
    uint8_t bytes[REMOTE_SIZE]; /* the second block is a hole */
    int code;                   /* what reads and maps answer */
    int *n_closed;
};

static int memory_read(void *ctx, uint64_t host_off, void *buf, size_t len, struct error *err)
{
    struct memory *memory = ctx;
    assert_true(len > 0 && host_off < REMOTE_SIZE && len <= REMOTE_SIZE - host_off);
    if (memory->code)
        return error_set(err, memory->code, "the memory is gone");
    memcpy(buf, memory->bytes + host_off, len);
    return 0;
}

static int memory_map(void *ctx, uint64_t host_off, uint64_t max_len, bool *ret_is_data,
                      uint64_t *ret_len, struct error *err)
{
    struct memory *memory = ctx;
    assert_true(max_len > 0 && host_off < REMOTE_SIZE && max_len <= REMOTE_SIZE - host_off);
    if (memory->code)
        return error_set(err, memory->code, "the memory is gone");
    uint64_t rest = BLOCK - host_off % BLOCK;
    *ret_is_data = host_off / BLOCK != 1;
    *ret_len = rest < max_len ? rest : max_len;
    return 0;
}

static uint64_t memory_find_zeros(void *ctx, uint64_t host_off, uint64_t max_len)
{
    (void)ctx;
    assert_true(max_len > 0 && host_off < REMOTE_SIZE);
    uint64_t rest = BLOCK - host_off % BLOCK;
    if (host_off / BLOCK != 1)
        return 0;
    return rest < max_len ? rest : max_len;
}

static void memory_close(void *ctx)
{
    struct memory *memory = ctx;
    (*memory->n_closed)++;
    free(memory);
}

static struct memory *make_memory(int *n_closed)
{
    struct memory *memory = calloc(1, sizeof(*memory));
    assert_non_null(memory);
    memory->remote = (struct qcow_remote){.host_size = REMOTE_SIZE,
                                          .read = memory_read,
                                          .map = memory_map,
                                          .close = memory_close,
                                          .ctx = memory};
    image_fill(memory->bytes, REMOTE_SIZE, 1);
    memset(memory->bytes + BLOCK, 0, BLOCK);
    *n_closed = 0;
    memory->n_closed = n_closed;
    return memory;
}

static struct qcow_file file_of(const struct memory *memory, enum qcow_format format)
{
    return (struct qcow_file){
        .fd = -1, .format = format, .name = strdup("memory"), .remote = &memory->remote};
}

static struct qcow_image *open_memory(const struct memory *memory)
{
    struct qcow_file file = file_of(memory, QCOW_FORMAT_RAW);
    struct qcow_image *opened;
    struct error err = {0};
    if (qcow_open(&file, NULL, cache, NULL, &opened, &err) < 0)
        fail_msg("%s", err.text);
    return opened;
}

static void a_remote_is_read_like_a_file(void **state)
{
    (void)state;
    int n_closed;
    struct qcow_image *opened = open_memory(make_memory(&n_closed));
    assert_true(qcow_size(opened) == 3 * 4096 + 512);
    assert_int_equal(qcow_depth(opened), 1);
    assert_int_equal(qcow_layer_file(opened, 0)->fd, -1);
    expect_fill(opened, 0, 4096, 1, 0);
    expect_fill(opened, 8200, 4096, 1, 8200);
    qcow_close(opened);
    assert_int_equal(n_closed, 1);
}

static void what_lies_past_the_end_of_a_remote_is_zeros(void **state)
{
    (void)state;
    int n_closed;
    struct qcow_image *opened = open_memory(make_memory(&n_closed));
    expect_fill(opened, REMOTE_SIZE - 50, 50, 1, REMOTE_SIZE - 50);
    expect_zeros(opened, REMOTE_SIZE, 412);
    uint8_t buf[4096];
    assert_int_equal(qcow_read(opened, REMOTE_SIZE - 100, buf, sizeof(buf), NULL), 512);
    assert_int_equal(qcow_read(opened, 3 * 4096 + 512, buf, sizeof(buf), NULL), 0);
    expect_extent(opened, REMOTE_SIZE, 412, QCOW_ZERO);
    qcow_close(opened);
}

static void a_remote_tells_where_holes_are(void **state)
{
    (void)state;
    int n_closed;
    struct qcow_image *opened = open_memory(make_memory(&n_closed));
    expect_extent(opened, 10, 4086, QCOW_DATA);
    expect_extent(opened, 4096, 4096, QCOW_ZERO);
    expect_extent(opened, 8192, 4096 + 100, QCOW_DATA);
    qcow_close(opened);
}

static void what_a_remote_knows_to_be_zeros_is_not_read(void **state)
{
    (void)state;
    int n_closed;
    struct memory *memory = make_memory(&n_closed);
    memory->remote.find_zeros = memory_find_zeros;
    struct qcow_image *opened = open_memory(memory);
    uint8_t buf[REMOTE_SIZE];
    struct error err = {0};
    assert_int_equal(qcow_read(opened, 0, buf, REMOTE_SIZE, &err), REMOTE_SIZE);
    assert_memory_equal(buf, memory->bytes, REMOTE_SIZE);
    memory->code = -EIO;
    memset(buf, 0xee, BLOCK);
    assert_int_equal(qcow_read(opened, BLOCK + 10, buf, BLOCK - 10, &err), BLOCK - 10);
    assert_memory_equal(buf, memory->bytes + BLOCK, BLOCK - 10);
    assert_int_equal(qcow_read(opened, BLOCK + 10, buf, BLOCK, &err), -EIO);
    qcow_close(opened);
}

static void a_remote_that_fails_is_never_zeros(void **state)
{
    (void)state;
    int n_closed;
    struct memory *memory = make_memory(&n_closed);
    struct qcow_image *opened = open_memory(memory);
    memory->code = -EIO;
    expect_refused(opened, 0, -EIO, "the memory is gone");
    expect_refused(opened, REMOTE_SIZE - 10, -EIO, "the memory is gone");
    struct qcow_extent extent;
    assert_int_equal(qcow_map(opened, 0, 4096, &extent, NULL), -EIO);
    qcow_close(opened);
}

static void a_remote_can_be_inspected(void **state)
{
    (void)state;
    int n_closed;
    struct qcow_file file = file_of(make_memory(&n_closed), QCOW_FORMAT_RAW);
    struct qcow_info info;
    assert_int_equal(qcow_inspect(&file, &info, NULL), 0);
    assert_true(info.guest_size == 3 * 4096 + 512);
    qcow_info_fini(&info);
    assert_int_equal(n_closed, 0);
    qcow_file_close(&file);
    assert_int_equal(n_closed, 1);
    assert_true(file.fd == -1 && !file.name && !file.remote);
}

static void a_qcow2_image_in_a_remote_is_refused_and_closed(void **state)
{
    (void)state;
    int n_closed;
    struct qcow_file file = file_of(make_memory(&n_closed), QCOW_FORMAT_QCOW2);
    struct qcow_image *opened;
    struct error err = {0};
    assert_int_equal(qcow_open(&file, NULL, cache, NULL, &opened, &err), -ENOTSUP);
    assert_string_equal(err.text, "'memory': only raw images are read from a remote");
    assert_int_equal(n_closed, 1);
}

static void a_remote_is_closed_when_memory_runs_out(void **state)
{
    (void)state;
    for (int n = 0;; n++) {
        int n_closed;
        struct qcow_file file = file_of(make_memory(&n_closed), QCOW_FORMAT_RAW);
        struct qcow_image *opened;
        faults_fail_allocation(n);
        int r = qcow_open(&file, NULL, cache, NULL, &opened, NULL);
        int was_reached = faults_allocation_failed();
        faults_fail_allocation(-1);
        if (r == 0)
            qcow_close(opened);
        else
            assert_int_equal(r, -ENOMEM);
        assert_int_equal(n_closed, 1);
        if (!was_reached)
            break;
    }
}

static int answer_memory(void *ctx, const struct qcow_ref *ref, struct qcow_file *ret_file,
                         struct error *err)
{
    (void)ref;
    (void)err;
    *ret_file = file_of(ctx, QCOW_FORMAT_RAW);
    return 0;
}

static void a_remote_can_lie_below_an_image(void **state)
{
    (void)state;
    int n_closed;
    struct image image = tiny(0);
    image_write(&image, 4096, 7);
    struct qcow_opener opener = {.open_ref = answer_memory, .ctx = make_memory(&n_closed)};
    struct qcow_file file = image_file(&image);
    struct qcow_image *opened;
    struct error err = {0};
    if (qcow_open(&file, &opener, cache, NULL, &opened, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(qcow_depth(opened), 2);
    expect_fill(opened, 0, 4096, 1, 0);
    expect_fill(opened, 4096, 4096, 7, 0);
    expect_zeros(opened, REMOTE_SIZE, 4096);
    qcow_close(opened);
    assert_int_equal(n_closed, 1);
    image_destroy(&image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_remote_is_read_like_a_file, setup, teardown),
        cmocka_unit_test_setup_teardown(what_lies_past_the_end_of_a_remote_is_zeros, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_remote_tells_where_holes_are, setup, teardown),
        cmocka_unit_test_setup_teardown(what_a_remote_knows_to_be_zeros_is_not_read, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_remote_that_fails_is_never_zeros, setup, teardown),
        cmocka_unit_test_setup_teardown(a_remote_can_be_inspected, setup, teardown),
        cmocka_unit_test_setup_teardown(a_qcow2_image_in_a_remote_is_refused_and_closed, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_remote_is_closed_when_memory_runs_out, setup, teardown),
        cmocka_unit_test_setup_teardown(a_remote_can_lie_below_an_image, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
