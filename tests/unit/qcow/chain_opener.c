/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow/chain.c: what the opener is asked, what it may say, data files. */
#include "qcow/qcow.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/qcow/chain_checks.h"

/* What the opener is asked, and what it may say. */

struct questions {
    int n;
    const struct image *answer;
    struct qcow_ref last;
    char name[64], format[16], from[64];
    int code;
};

static void keep(char *to, size_t room, const char *text)
{
    snprintf(to, room, "%s", text ? text : "(null)");
}

static int ask(void *ctx, const struct qcow_ref *ref, struct qcow_file *ret_file, struct error *err)
{
    struct questions *asked = ctx;
    asked->n++;
    asked->last = *ref;
    keep(asked->name, sizeof(asked->name), ref->name);
    keep(asked->format, sizeof(asked->format), ref->format);
    keep(asked->from, sizeof(asked->from), ref->from);
    if (asked->code < 0)
        return error_set(err, asked->code, "the opener says no");
    if (!asked->answer)
        return 1;
    *ret_file = image_file(asked->answer);
    asked->answer = NULL;
    return 0;
}

static void the_opener_learns_what_the_image_records(void **state)
{
    (void)state;
    struct image top;
    image_create(&top, &(struct image_options){
                           .name = "top",
                           .guest_size = 512,
                           .backing_name = "base.qcow2",
                           .extensions = &(struct image_extension){EXT_BACKING_FORMAT, "qcow2", 5},
                           .n_extensions = 1});
    struct questions asked = {0};
    struct qcow_image *opened;
    assert_int_equal(open_with(&top, ask, &asked, &opened, NULL), 0);
    assert_int_equal(asked.n, 1);
    assert_int_equal(asked.last.kind, QCOW_REF_BACKING);
    assert_int_equal(asked.last.depth, 0);
    assert_string_equal(asked.name, "base.qcow2");
    assert_string_equal(asked.format, "qcow2");
    assert_string_equal(asked.from, "top");
    assert_int_equal(asked.last.from_fd, qcow_layer_file(opened, 0)->fd);
    qcow_close(opened);
    image_destroy(&top);
}

static void the_opener_is_asked_for_images_that_name_nothing_too(void **state)
{
    (void)state;
    struct image top = tiny("top", 512), base = tiny("base", 512);
    struct questions asked = {.answer = &base};
    struct qcow_image *opened;
    assert_int_equal(open_with(&top, ask, &asked, &opened, NULL), 0);
    assert_int_equal(asked.n, 2);
    assert_int_equal(asked.last.depth, 1);
    assert_null(asked.last.name);
    assert_null(asked.last.format);
    assert_string_equal(asked.from, "base");
    assert_int_equal(qcow_depth(opened), 2);
    qcow_close(opened);
    image_destroy(&top), image_destroy(&base);
}

static void a_raw_image_refers_to_nothing(void **state)
{
    (void)state;
    struct image raw;
    image_create_raw(&raw, "raw", 512);
    struct questions asked = {0};
    struct qcow_image *opened;
    assert_int_equal(open_with(&raw, ask, &asked, &opened, NULL), 0);
    assert_int_equal(asked.n, 0);
    qcow_close(opened);
    image_destroy(&raw);
}

static void what_the_opener_says_is_passed_on(void **state)
{
    (void)state;
    struct image top = tiny("top", 512);
    struct questions asked = {.code = -EPERM};
    struct qcow_image *opened;
    struct error err = {0};
    assert_int_equal(open_with(&top, ask, &asked, &opened, &err), -EPERM);
    assert_string_equal(err.text, "the opener says no");
    image_destroy(&top);
}

static void a_layer_below_may_be_refused_by_the_opener(void **state)
{
    (void)state;
    struct image top = tiny("top", 512), base = tiny("base", 512);
    image_poke32(&base, HDR_VERSION, 1);
    struct image_answers answers = {.backing = {&base}};
    expect_refused(&top, &answers, -ENOTSUP, "'base': header: qcow version 1");
    image_destroy(&top), image_destroy(&base);
}

/* Data files. */

static void data_comes_from_the_data_file_and_tables_do_not(void **state)
{
    (void)state;
    struct image top = with_data_file("disk.raw"), data;
    image_create_raw(&data, "disk.raw", 4096);
    uint8_t bytes[4096];
    image_fill(bytes, sizeof(bytes), 1);
    image_poke(&data, 0, bytes, sizeof(bytes));
    image_set_l2(&top, 0, L2_COPIED);
    image_set_l2(&top, 1024, L2_COPIED | 1024);
    image_set_l2(&top, 1536, L2_ZERO);
    struct image_answers answers = {.data = &data};
    uint8_t *buf = read_all(&top, &answers);
    assert_memory_equal(buf, bytes, 512);
    expect_zeros(buf + 512, 512);
    assert_memory_equal(buf + 1024, bytes + 1024, 512);
    expect_zeros(buf + 1536, 2560);
    free(buf);
    image_destroy(&top), image_destroy(&data);
}

static void the_opener_is_asked_for_the_data_file_as_raw(void **state)
{
    (void)state;
    struct image top = with_data_file("/etc/passwd"), data;
    image_create_raw(&data, "data", 4096);
    struct questions asked = {.code = -EPERM};
    struct qcow_image *opened;
    struct error err = {0};
    assert_int_equal(open_with(&top, ask, &asked, &opened, &err), -EPERM);
    assert_string_equal(err.text, "the opener says no");
    assert_int_equal(asked.n, 1);
    assert_int_equal(asked.last.kind, QCOW_REF_DATA);
    assert_int_equal(asked.last.depth, 0);
    assert_string_equal(asked.name, "/etc/passwd");
    assert_string_equal(asked.format, "raw");
    assert_string_equal(asked.from, "top");
    image_destroy(&top), image_destroy(&data);
}

static void there_is_no_disk_without_its_data_file(void **state)
{
    (void)state;
    struct image top = with_data_file("disk.raw");
    expect_refused(&top, NULL, -EIO, "no answer for external data file 'disk.raw'");
    image_destroy(&top);
    top = with_data_file("");
    expect_refused(&top, NULL, -EBADMSG, "'top': the image has an external data file but does");
    image_destroy(&top);
}

static void a_data_file_of_a_lower_layer_has_that_depth(void **state)
{
    (void)state;
    struct image top = tiny("first", 4096), below = with_data_file("disk.raw");
    struct questions asked = {.answer = &below};
    struct qcow_image *opened;
    assert_int_equal(open_with(&top, ask, &asked, &opened, NULL), -EIO);
    assert_int_equal(asked.last.kind, QCOW_REF_DATA);
    assert_int_equal(asked.last.depth, 1);
    image_destroy(&top), image_destroy(&below);
}

static void a_data_file_without_its_feature_bit_is_none(void **state)
{
    (void)state;
    struct image top;
    image_create(&top, &(struct image_options){
                           .guest_size = 512,
                           .extensions = &(struct image_extension){EXT_DATA_FILE, "disk.raw", 8},
                           .n_extensions = 1});
    struct questions asked = {0};
    struct qcow_image *opened;
    assert_int_equal(open_with(&top, ask, &asked, &opened, NULL), 0);
    assert_int_equal(asked.n, 1);
    assert_int_equal(asked.last.kind, QCOW_REF_BACKING);
    qcow_close(opened);
    image_destroy(&top);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(the_opener_learns_what_the_image_records),
        TEST(the_opener_is_asked_for_images_that_name_nothing_too),
        TEST(a_raw_image_refers_to_nothing),
        TEST(what_the_opener_says_is_passed_on),
        TEST(a_layer_below_may_be_refused_by_the_opener),
        TEST(data_comes_from_the_data_file_and_tables_do_not),
        TEST(the_opener_is_asked_for_the_data_file_as_raw),
        TEST(there_is_no_disk_without_its_data_file),
        TEST(a_data_file_of_a_lower_layer_has_that_depth),
        TEST(a_data_file_without_its_feature_bit_is_none),
    };
    return cmocka_run_group_tests_name("qcow/chain: opener", tests, NULL, NULL);
}
