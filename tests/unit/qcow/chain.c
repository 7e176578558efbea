/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qcow/qcow.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/qcow/chain_checks.h"

/* Who answers. */

static void the_nearest_layer_with_an_answer_gives_it(void **state)
{
    (void)state;
    struct image top = tiny("top", 4096), mid = tiny("mid", 4096), base = tiny("base", 4096);
    for (uint64_t at = 0; at < 2048; at += 512)
        image_write(&base, at, 10 + (uint32_t)at);
    image_write(&mid, 512, 20);
    image_write(&mid, 1024, 20);
    image_write(&top, 1024, 30);
    struct image_answers answers = {.backing = {&mid, &base}};
    uint8_t *buf = read_all(&top, &answers);
    expect_fill(buf, 512, 10);
    expect_fill(buf + 512, 512, 20);
    expect_fill(buf + 1024, 512, 30);
    expect_fill(buf + 1536, 512, 10 + 1536);
    expect_zeros(buf + 2048, 2048);
    free(buf);
    image_destroy(&top), image_destroy(&mid), image_destroy(&base);
}

static void zero_clusters_hide_what_is_below(void **state)
{
    (void)state;
    struct image top = tiny("top", 4096), base = tiny("base", 4096);
    image_write(&base, 0, 1);
    image_write(&base, 512, 1);
    uint64_t host_off = image_write(&top, 512, 2);
    image_set_l2(&top, 0, L2_ZERO);
    image_set_l2(&top, 512, host_off | L2_ZERO);
    struct image_answers answers = {.backing = {&base}};
    uint8_t *buf = read_all(&top, &answers);
    expect_zeros(buf, 4096);
    free(buf);
    image_destroy(&top), image_destroy(&base);
}

static void past_a_shorter_backing_file_there_are_zeros(void **state)
{
    (void)state;
    /* even where a longer file below has data: the middle one's disk ends there */
    struct image top = tiny("top", 4096), mid = tiny("mid", 1024), base = tiny("base", 4096);
    for (uint64_t at = 0; at < 4096; at += 512)
        image_write(&base, at, 10 + (uint32_t)at);
    struct image_answers answers = {.backing = {&mid, &base}};
    uint8_t *buf = read_all(&top, &answers);
    expect_fill(buf, 512, 10);
    expect_fill(buf + 512, 512, 10 + 512);
    expect_zeros(buf + 1024, 3072);
    free(buf);
    image_destroy(&top), image_destroy(&mid), image_destroy(&base);
}

static void of_a_longer_backing_file_the_head_is_seen(void **state)
{
    (void)state;
    struct image top = tiny("top", 1536), base = tiny("base", 1 << 20);
    image_write(&base, 1024, 1);
    image_write(&base, 1536, 2);
    struct image_answers answers = {.backing = {&base}};
    struct qcow_image *opened = image_open(&top, &answers, cache, NULL);
    assert_true(qcow_size(opened) == 1536);
    uint8_t buf[4096];
    memset(buf, 0xee, sizeof(buf));
    assert_int_equal(qcow_read(opened, 1024, buf, sizeof(buf), NULL), 512);
    expect_fill(buf, 512, 1);
    assert_int_equal(buf[512], 0xee);
    qcow_close(opened);
    image_destroy(&top), image_destroy(&base);
}

static void a_raw_backing_file_may_end_within_a_sector(void **state)
{
    (void)state;
    struct image top = tiny("top", 128 << 10), base;
    image_create_raw(&base, "base", 100001);
    uint8_t *data = malloc(100001);
    image_fill(data, 100001, 1);
    image_poke(&base, 0, data, 100001);
    struct image_answers answers = {.backing = {&base}};
    uint8_t *buf = read_all(&top, &answers);
    assert_memory_equal(buf, data, 100001);
    expect_zeros(buf + 100001, (128 << 10) - 100001);
    free(buf);
    free(data);
    image_destroy(&top), image_destroy(&base);
}

static void a_raw_image_is_rounded_up_to_a_sector(void **state)
{
    (void)state;
    struct image raw;
    image_create_raw(&raw, "raw", 1001);
    uint8_t data[1001];
    image_fill(data, sizeof(data), 1);
    image_poke(&raw, 0, data, sizeof(data));
    struct qcow_image *opened = image_open(&raw, NULL, cache, NULL);
    assert_true(qcow_size(opened) == 1024);
    uint8_t buf[2048];
    assert_int_equal(qcow_read(opened, 0, buf, sizeof(buf), NULL), 1024);
    assert_memory_equal(buf, data, sizeof(data));
    expect_zeros(buf + 1001, 23);
    qcow_close(opened);
    image_destroy(&raw);
}

static void what_is_declared_raw_is_raw_whatever_it_holds(void **state)
{
    (void)state;
    /* CVE-2011-3147 and its kin: a guest may write any header to its raw disk */
    struct image image = tiny("image", 4096);
    image.format = QCOW_FORMAT_RAW;
    struct qcow_image *opened = image_open(&image, NULL, cache, NULL);
    uint8_t buf[4];
    assert_int_equal(qcow_read(opened, 0, buf, 4, NULL), 4);
    assert_memory_equal(buf, "QFI\xfb", 4);
    assert_int_equal(qcow_depth(opened), 1);
    qcow_close(opened);
    image_destroy(&image);
}

static void what_is_declared_qcow2_must_be_that(void **state)
{
    (void)state;
    struct image raw;
    image_create_raw(&raw, "raw", 4096);
    raw.format = QCOW_FORMAT_QCOW2;
    expect_refused(&raw, NULL, -EBADMSG, "'raw': no qcow2 image");
    struct image top = tiny("top", 4096);
    struct image_answers answers = {.backing = {&raw}};
    expect_refused(&top, &answers, -EBADMSG, "'raw': no qcow2 image");
    image_destroy(&top), image_destroy(&raw);
}

static void layers_are_counted_from_the_top(void **state)
{
    (void)state;
    struct image top = tiny("top", 4096), mid = tiny("mid", 4096), base;
    image_create_raw(&base, "base", 4096);
    struct image_answers answers = {.backing = {&mid, &base}};
    struct qcow_image *opened = image_open(&top, &answers, cache, NULL);
    assert_int_equal(qcow_depth(opened), 3);
    assert_string_equal(qcow_layer_file(opened, 0)->name, "top");
    assert_string_equal(qcow_layer_file(opened, 1)->name, "mid");
    assert_string_equal(qcow_layer_file(opened, 2)->name, "base");
    assert_int_equal(qcow_layer_file(opened, 1)->format, QCOW_FORMAT_QCOW2);
    assert_int_equal(qcow_layer_file(opened, 2)->format, QCOW_FORMAT_RAW);
    qcow_close(opened);
    image_destroy(&top), image_destroy(&mid), image_destroy(&base);
}

/* Refusals. */

static void refuses_encrypted_images_anywhere_in_the_chain(void **state)
{
    (void)state;
    struct image top = tiny("top", 4096), base = tiny("base", 4096);
    struct image_answers answers = {.backing = {&base}};
    image_poke32(&base, HDR_CRYPT, CRYPT_AES);
    expect_refused(&base, NULL, -ENOTSUP, "'base': the image is encrypted (AES)");
    expect_refused(&top, &answers, -ENOTSUP, "'base': the image is encrypted (AES)");
    image_poke32(&base, HDR_CRYPT, CRYPT_LUKS);
    expect_refused(&top, &answers, -ENOTSUP, "'base': the image is encrypted (LUKS)");
    image_destroy(&top), image_destroy(&base);
}

static void refuses_an_image_that_is_its_own_backing_file(void **state)
{
    (void)state;
    struct image top = tiny("top", 4096);
    struct image_answers answers = {.backing = {&top}};
    expect_refused(&top, &answers, -ELOOP, "'top': backing file 'top' is 'top' again: a loop");
    image_destroy(&top);
}

static void refuses_a_longer_loop_also_under_another_name_or_format(void **state)
{
    (void)state;
    struct image top = tiny("top", 4096), mid = tiny("mid", 4096);
    struct image again = top;
    again.name = "another-name";
    again.format = QCOW_FORMAT_RAW;
    struct image_answers answers = {.backing = {&mid, &again}};
    expect_refused(&top, &answers, -ELOOP, "'mid': backing file 'another-name' is 'top' again");
    image_destroy(&top), image_destroy(&mid);
}

/* A chain of any length. */
struct many {
    struct image *images;
    unsigned n;
};

static int answer_many(void *ctx, const struct qcow_ref *ref, struct qcow_file *ret_file,
                       struct error *err)
{
    (void)err;
    const struct many *many = ctx;
    if (ref->depth + 1 >= many->n)
        return 1;
    *ret_file = image_file(&many->images[ref->depth + 1]);
    return 0;
}

static struct many new_chain(unsigned n)
{
    struct many many = {.images = calloc(n, sizeof(struct image)), .n = n};
    for (unsigned i = 0; i < n; i++)
        many.images[i] = tiny("link", 512);
    return many;
}

static void free_chain(struct many *many)
{
    for (unsigned i = 0; i < many->n; i++)
        image_destroy(&many->images[i]);
    free(many->images);
}

static void a_chain_of_200_images_is_read_to_the_end(void **state)
{
    (void)state;
    struct many many = new_chain(200);
    image_write(&many.images[199], 0, 7);
    struct qcow_image *opened;
    struct error err = {0};
    if (open_with(&many.images[0], answer_many, &many, &opened, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(qcow_depth(opened), 200);
    uint8_t buf[512];
    assert_int_equal(qcow_read(opened, 0, buf, 512, NULL), 512);
    expect_fill(buf, 512, 7);
    qcow_close(opened);
    free_chain(&many);
}

static void a_chain_of_201_images_is_refused(void **state)
{
    (void)state;
    struct many many = new_chain(201);
    struct qcow_image *opened;
    struct error err = {0};
    assert_int_equal(open_with(&many.images[0], answer_many, &many, &opened, &err), -ELOOP);
    assert_non_null(strstr(err.text, "deeper than 200"));
    free_chain(&many);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(the_nearest_layer_with_an_answer_gives_it),
        TEST(zero_clusters_hide_what_is_below),
        TEST(past_a_shorter_backing_file_there_are_zeros),
        TEST(of_a_longer_backing_file_the_head_is_seen),
        TEST(a_raw_backing_file_may_end_within_a_sector),
        TEST(a_raw_image_is_rounded_up_to_a_sector),
        TEST(what_is_declared_raw_is_raw_whatever_it_holds),
        TEST(what_is_declared_qcow2_must_be_that),
        TEST(layers_are_counted_from_the_top),
        TEST(refuses_encrypted_images_anywhere_in_the_chain),
        TEST(refuses_an_image_that_is_its_own_backing_file),
        TEST(refuses_a_longer_loop_also_under_another_name_or_format),
        TEST(a_chain_of_200_images_is_read_to_the_end),
        TEST(a_chain_of_201_images_is_refused),
    };
    return cmocka_run_group_tests_name("qcow/chain", tests, NULL, NULL);
}
