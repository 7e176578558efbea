/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow/l1_check.c: images whose tables would take for ever to walk, and those that only look so. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "qcow/flatten.h"
#include "qcow/format.h"
#include "tests/lib/image.h"

#define TABLE_COVERS (64ULL * 512) /* bytes of guest, with clusters of 512 */

static struct qcow_cache *cache;

static int setup(void **state)
{
    (void)state;
    struct error err = {0};
    return qcow_cache_create(1 << 20, &cache, &err);
}

static int teardown(void **state)
{
    (void)state;
    qcow_cache_destroy(cache);
    return 0;
}

static int flatten(const struct image *image, const struct image_answers *answers,
                   const struct qcow_snapshot *snapshot, struct error *err)
{
    struct qcow_image *opened = image_open(image, answers, cache, snapshot);
    struct qcow_flat *flat = NULL;
    int r = qcow_flat_open(opened, NULL, &flat, err);
    qcow_flat_close(flat);
    qcow_close(opened);
    return r;
}

/* All entries name one L2 table of every other cluster. */
static void make_hostile(struct image *image, uint32_t l1_entries)
{
    struct image_options options = {.guest_size = l1_entries * TABLE_COVERS};
    image_create(image, &options);
    uint64_t l2_off = image_alloc(image, 1);
    for (uint64_t i = 0; i < 64; i += 2)
        image_poke64(image, l2_off + i * 8, 512 | L2_COPIED);
    for (uint32_t i = 0; i < l1_entries; i++)
        image_set_l1(image, i, l2_off | L2_COPIED);
}

static void refuses_to_walk_one_l2_table_over_and_over(void **state)
{
    (void)state;
    struct image image;
    struct error err = {0};
    make_hostile(&image, 1 << 16);
    assert_int_equal(flatten(&image, NULL, NULL, &err), -EBADMSG);
    assert_non_null(strstr(err.text, "more L2 tables than the file has clusters"));
    image_destroy(&image);
}

static void refuses_it_in_a_backing_file_too(void **state)
{
    (void)state;
    struct image top, below;
    struct error err = {0};
    make_hostile(&below, 1 << 16);
    below.name = "below.qcow2";
    struct image_options options = {.guest_size = (1 << 16) * TABLE_COVERS, .backing_name = "b"};
    image_create(&top, &options);
    struct image_answers answers = {.backing = {&below}};
    assert_int_equal(flatten(&top, &answers, NULL, &err), -EBADMSG);
    assert_non_null(strstr(err.text, "'below.qcow2'"));
    image_destroy(&top);
    image_destroy(&below);
}

static void refuses_it_in_a_snapshot_too(void **state)
{
    (void)state;
    struct image image;
    struct error err = {0};
    make_hostile(&image, 1 << 16);
    struct image_snapshot snapshot = {.id = "1",
                                      .name = "s",
                                      .l1_off = image.l1_off,
                                      .l1_entries = 1 << 16,
                                      .extra_len = 24,
                                      .disk_size = (1 << 16) * TABLE_COVERS};
    image_add_snapshots(&image, &snapshot, 1);
    struct qcow_snapshot view = image_snapshot_view(&image, &snapshot);
    assert_int_equal(flatten(&image, NULL, &view, &err), -EBADMSG);
    /* Nor is it damage if the snapshot is gone. */
    struct qcow_image *opened = image_open(&image, NULL, cache, &view);
    image_point_to_snapshots(&image, 0, 0);
    struct qcow_flat *flat = NULL;
    assert_int_equal(qcow_flat_open(opened, NULL, &flat, &err), -ESTALE);
    qcow_close(opened);
    image_destroy(&image);
}

static void takes_an_image_that_is_full_of_tables(void **state)
{
    (void)state;
    struct image image;
    struct error err = {0};
    enum { TABLES = 500 };
    struct image_options options = {.guest_size = TABLES * TABLE_COVERS};
    image_create(&image, &options);
    for (uint64_t i = 0; i < TABLES; i++)
        image_set_l2(&image, i * TABLE_COVERS, 0);
    assert_int_equal(flatten(&image, NULL, NULL, &err), 0);
    image_destroy(&image);
}

static void entries_past_the_end_of_the_disk_do_not_count(void **state)
{
    (void)state;
    struct image image;
    struct error err = {0};
    make_hostile(&image, 1 << 12);
    image_poke64(&image, HDR_SIZE, TABLE_COVERS);
    image.guest_size = TABLE_COVERS;
    assert_int_equal(flatten(&image, NULL, NULL, &err), 0);
    image_destroy(&image);
}

/* For a walk by qcow_map() the same is asked for by itself. */
static void a_walk_is_judged_by_itself(void **state)
{
    (void)state;
    struct image hostile, sound;
    struct error err = {0};
    make_hostile(&hostile, 1 << 16);
    struct image_options options = {.guest_size = 8 * TABLE_COVERS};
    image_create(&sound, &options);
    image_set_l2(&sound, 0, 0);
    struct qcow_image *opened = image_open(&hostile, NULL, cache, NULL);
    for (int i = 0; i < 2; i++)
        assert_int_equal(qcow_check_walk(opened, &err), -EBADMSG);
    qcow_close(opened);
    opened = image_open(&sound, NULL, cache, NULL);
    for (int i = 0; i < 2; i++)
        assert_int_equal(qcow_check_walk(opened, &err), 0);
    qcow_close(opened);
    image_destroy(&sound);
    image_destroy(&hostile);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(refuses_to_walk_one_l2_table_over_and_over),
        TEST(refuses_it_in_a_backing_file_too),
        TEST(refuses_it_in_a_snapshot_too),
        TEST(takes_an_image_that_is_full_of_tables),
        TEST(entries_past_the_end_of_the_disk_do_not_count),
        TEST(a_walk_is_judged_by_itself),
    };
    return cmocka_run_group_tests_name("qcow/l1_check", tests, NULL, NULL);
}
