/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow/flat_map.c: maps that change, fail or want too much, and who stops the walk. */
#include "tests/unit/qcow/flatten_checks.h"

static atomic_int n_until_cancel;

static bool is_cancelled(void *ctx)
{
    (void)ctx;
    return atomic_fetch_sub(&n_until_cancel, 1) == 0;
}

static void the_walk_can_be_stopped_at_any_step(void **state)
{
    (void)state;
    struct disk disk;
    struct qcow_image *image = disk_open(&disk, 4000 * CLUSTER, thirds);
    struct qcow_flat_options options = {.is_cancelled = is_cancelled};
    int n_stopped = 0;
    for (;; n_stopped++) {
        struct qcow_flat *flat;
        struct error err = {0};
        atomic_store(&n_until_cancel, n_stopped);
        int r = qcow_flat_open(image, &options, &flat, &err);
        if (r == 0) {
            qcow_flat_close(flat);
            break;
        }
        assert_int_equal(r, -EINTR);
    }
    /* A walk of 4000 extents asks now and then, not once. */
    assert_in_range(n_stopped, 10, 4001);
    qcow_close(image);
}

static void a_hole_that_became_data_changes_nothing_where_the_map_is_kept(void **state)
{
    (void)state;
    struct disk disk;
    struct qcow_image *image = disk_open(&disk, 100 * CLUSTER, thirds);
    struct qcow_flat *flat = flat_open(image, 0);
    atomic_store(&disk.is_changed, true);
    struct qcow_image *again = flat_reopen(flat);
    expect_same_disk(image, again);
    expect_extent(again, 0, CLUSTER, QCOW_HOLE);
    qcow_close(again);
    struct qcow_flat *other = flat_open(image, 0);
    assert_true(qcow_flat_layout(other) != qcow_flat_layout(flat));
    qcow_flat_close(other);
    qcow_flat_close(flat);
    qcow_close(image);
}

static void a_map_that_changed_since_is_an_error_where_it_is_looked_up(void **state)
{
    (void)state;
    struct disk disk;
    struct qcow_image *image = disk_open(&disk, 100 * CLUSTER, thirds);
    struct qcow_flat *flat = flat_open(image, 1);
    atomic_store(&disk.is_changed, true);
    uint8_t buf[8];
    static const uint64_t places[] = {4 * CLUSTER, 5 * CLUSTER}; /* L2 table and data */
    for (size_t i = 0; i < 2; i++) {
        struct error err = {0};
        assert_int_equal(qcow_flat_read(flat, places[i], buf, sizeof(buf), &err), -EIO);
        assert_non_null(strstr(err.text, "map of the disk from 0 on has changed"));
    }
    atomic_store(&disk.is_changed, false);
    for (size_t i = 0; i < 2; i++)
        flat_read(flat, places[i], buf, sizeof(buf));
    qcow_flat_close(flat);
    qcow_close(image);
}

/* As many data clusters as before, at another place. */
static atomic_bool is_moved;

static uint64_t one_that_moves(uint64_t guest_off, bool *ret_is_data)
{
    uint64_t idx = guest_off / CLUSTER;
    *ret_is_data = idx == (atomic_load(&is_moved) ? 7 : 3);
    return (idx + 1) * CLUSTER;
}

static void data_that_moved_is_an_error_though_the_number_is_the_same(void **state)
{
    (void)state;
    struct disk disk;
    atomic_store(&is_moved, false);
    struct qcow_image *image = disk_open(&disk, 20 * CLUSTER, one_that_moves);
    struct qcow_flat *flat = flat_open(image, 1);
    atomic_store(&is_moved, true);
    uint8_t buf[8];
    assert_int_equal(qcow_flat_read(flat, 5 * CLUSTER, buf, sizeof(buf), NULL), -EIO);
    qcow_flat_close(flat);
    qcow_close(image);
}

static void errors_of_the_image_are_passed_on(void **state)
{
    (void)state;
    struct disk disk;
    struct qcow_image *image = disk_open(&disk, 100 * CLUSTER, thirds);
    struct qcow_flat *flat = flat_open(image, 1), *none;
    disk.code = -ESTALE;
    uint8_t buf[8];
    struct error err = {0};
    assert_int_equal(qcow_flat_open(image, NULL, &none, &err), -ESTALE);
    assert_string_equal(err.text, "the disk is gone");
    assert_int_equal(qcow_flat_read(flat, 5 * CLUSTER, buf, sizeof(buf), NULL), -ESTALE);
    flat_read(flat, 0, buf, sizeof(buf)); /* what needs no map */
    qcow_flat_close(flat);
    qcow_close(image);
}

static void a_damaged_table_is_found_at_open(void **state)
{
    (void)state;
    struct image image = tiny(0);
    image_write(&image, 0, 1);
    image_set_l2(&image, 8192, 0x4200);
    struct qcow_image *opened = image_open(&image, NULL, cache, NULL);
    struct qcow_flat *flat;
    struct error err = {0};
    assert_int_equal(qcow_flat_open(opened, NULL, &flat, &err), -EBADMSG);
    assert_non_null(strstr(err.text, "entry 0x4200"));
    qcow_close(opened);
    image_destroy(&image);
}

enum { N_TABLES = 64 };

/*
 * N_TABLES L1 entries, 32 GiB, for one L2 table: each second cluster is data. Nothing of the map is
 * kept, and the cache is 1 MiB.
 */
static void tables_that_are_used_over_and_over_take_no_memory(void **state)
{
    (void)state;
    struct image image;
    image_create(&image, &(struct image_options){.cluster_bits = 16,
                                                 .guest_size = N_TABLES * 8192ULL * CLUSTER});
    uint64_t l2_off = image_alloc(&image, 1), data_off = image_alloc(&image, 1);
    uint8_t pattern[CLUSTER];
    image_fill(pattern, sizeof(pattern), 1);
    image_poke(&image, data_off, pattern, sizeof(pattern));
    for (uint64_t i = 0; i < 8192; i += 2)
        image_poke64(&image, l2_off + 8 * i, data_off | L2_COPIED);
    for (uint64_t i = 0; i < N_TABLES; i++)
        image_set_l1(&image, i, l2_off | L2_COPIED);
    image_alloc(&image, N_TABLES); /* as long as if each had its own; see qcow/l1_check.h */
    struct qcow_image *opened = image_open(&image, NULL, cache, NULL);
    struct qcow_flat *flat = flat_open(opened, 1);
    uint64_t n_data = N_TABLES * 4096ULL;
    uint64_t n_blocks = (n_data + N_TABLES) / 32768 + 1;
    assert_true(qcow_flat_size(flat) == (1 + 1 + 1 + n_blocks + N_TABLES + n_data) * CLUSTER);
    uint8_t buf[CLUSTER];
    for (uint64_t i = 0; i < n_data; i += n_data / 64 + 1) {
        flat_read(flat, qcow_flat_size(flat) - (i + 1) * CLUSTER, buf, sizeof(buf));
        assert_memory_equal(buf, pattern, sizeof(buf));
    }
    uint64_t table_off = (3 + n_blocks + N_TABLES - 1) * CLUSTER; /* the last one */
    for (uint64_t i = 0; i < 8192; i++) {
        uint64_t wanted = qcow_flat_size(flat) - (8192 - i) / 2 * CLUSTER;
        assert_true(flat_u64(flat, table_off + 8 * i) == (i % 2 ? 0 : wanted | L2_COPIED));
    }
    assert_true(qcow_cache_used(cache) <= 1 << 20);
    qcow_flat_close(flat);
    qcow_close(opened);
    image_destroy(&image);
}

/* Tables are counted by 64 then; one data cluster at the begin of each 1 TiB, but not in all. */
enum { PIB_SHIFT = 50, TIB_SHIFT = 40 };

static uint64_t one_in_a_tib(uint64_t guest_off, bool *ret_is_data)
{
    uint64_t tib = guest_off >> TIB_SHIFT;
    uint64_t begin = (tib << TIB_SHIFT) + tib * CLUSTER;
    *ret_is_data = guest_off >= begin && guest_off < begin + CLUSTER;
    if (guest_off < begin)
        return begin;
    return *ret_is_data ? begin + CLUSTER : (tib + 1) << TIB_SHIFT;
}

static void tables_of_a_huge_disk_are_counted_in_groups(void **state)
{
    (void)state;
    for (size_t map_len = 0; map_len < 2; map_len++) {
        struct disk disk;
        struct qcow_image *image = disk_open(&disk, 1ULL << PIB_SHIFT, one_in_a_tib);
        struct qcow_flat *flat = flat_open(image, map_len);
        uint64_t l1_clusters = (1 << 21) / 8192;
        uint64_t l2_off = (1 + l1_clusters + 2) * CLUSTER;
        uint64_t data_off = l2_off + 1024 * CLUSTER;
        assert_true(qcow_flat_size(flat) == data_off + 1024 * CLUSTER);
        for (uint64_t tib = 0; tib < 1024; tib += 93) {
            uint64_t l1_idx = tib * 2048 + tib / 8192;
            uint64_t table_off = l2_off + tib * CLUSTER;
            assert_true(flat_u64(flat, CLUSTER + 8 * l1_idx) == (table_off | L2_COPIED));
            assert_true(flat_u64(flat, CLUSTER + 8 * (l1_idx + 1)) == 0);
            uint64_t entry = flat_u64(flat, table_off + 8 * (tib % 8192));
            assert_true(entry == ((data_off + tib * CLUSTER) | L2_COPIED));
            assert_true(flat_u64(flat, data_off + tib * CLUSTER) ==
                        htobe64(disk_word((tib << TIB_SHIFT) + tib * CLUSTER)));
        }
        qcow_flat_close(flat);
        qcow_close(image);
    }
}

static atomic_int n_reads;

static ssize_t count_reads(int fd, void *buf, size_t len, off_t host_off)
{
    atomic_fetch_add(&n_reads, 1);
    return faults_real_pread(fd, buf, len, host_off);
}

/* A sparse disk of 1 TiB: its L1 table is checked, and has 4 slices, and no data is read. */
static void holes_cost_next_to_nothing(void **state)
{
    (void)state;
    struct image image;
    image_create(&image, &(struct image_options){.cluster_bits = 16, .guest_size = 1ULL << 40});
    image_write(&image, 1ULL << 39, 1);
    struct qcow_image *opened = image_open(&image, NULL, cache, NULL);
    atomic_store(&n_reads, 0);
    faults_pread = count_reads;
    struct qcow_flat *flat = flat_open(opened, 0);
    faults_pread = NULL;
    assert_in_range(n_reads, 6, 1 + 4 + 16);
    qcow_flat_close(flat);
    qcow_close(opened);
    image_destroy(&image);
}

static void without_memory_open_fails_and_leaves_nothing(void **state)
{
    (void)state;
    struct disk disk;
    struct qcow_image *image = disk_open(&disk, 9000 * CLUSTER, thirds);
    int n = 0;
    for (;; n++) {
        struct qcow_flat *flat = NULL;
        faults_fail_allocation(n);
        int r = qcow_flat_open(image, NULL, &flat, NULL);
        faults_fail_allocation(-1);
        if (r == 0) {
            qcow_flat_close(flat);
            break;
        }
        assert_int_equal(r, -ENOMEM);
    }
    assert_in_range(n, 4, 100);
    qcow_close(image);
}

static void without_memory_a_read_fails_and_can_be_repeated(void **state)
{
    (void)state;
    struct disk disk;
    struct qcow_image *image = disk_open(&disk, 100 * CLUSTER, thirds);
    struct qcow_flat *flat = flat_open(image, 1);
    uint8_t buf[8];
    faults_fail_allocation(0);
    assert_int_equal(qcow_flat_read(flat, 5 * CLUSTER, buf, sizeof(buf), NULL), -ENOMEM);
    faults_fail_allocation(-1);
    flat_read(flat, 5 * CLUSTER, buf, sizeof(buf));
    qcow_flat_close(flat);
    qcow_close(image);
}

static void a_file_may_be_closed_after_its_image(void **state)
{
    (void)state;
    struct disk disk;
    struct qcow_image *image = disk_open(&disk, 100 * CLUSTER, thirds);
    struct qcow_flat *flat = flat_open(image, 1);
    uint8_t buf[8];
    flat_read(flat, 5 * CLUSTER, buf, sizeof(buf));
    assert_true(qcow_cache_used(cache) > 0);
    qcow_close(image);
    qcow_flat_close(flat);
    assert_int_equal(qcow_cache_used(cache), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(the_walk_can_be_stopped_at_any_step),
        TEST(a_hole_that_became_data_changes_nothing_where_the_map_is_kept),
        TEST(a_map_that_changed_since_is_an_error_where_it_is_looked_up),
        TEST(data_that_moved_is_an_error_though_the_number_is_the_same),
        TEST(errors_of_the_image_are_passed_on),
        TEST(a_damaged_table_is_found_at_open),
        TEST(tables_that_are_used_over_and_over_take_no_memory),
        TEST(tables_of_a_huge_disk_are_counted_in_groups),
        TEST(holes_cost_next_to_nothing),
        TEST(without_memory_open_fails_and_leaves_nothing),
        TEST(without_memory_a_read_fails_and_can_be_repeated),
        TEST(a_file_may_be_closed_after_its_image),
    };
    return cmocka_run_group_tests_name("qcow/flat_map", tests, NULL, NULL);
}
