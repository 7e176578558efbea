/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow/flatten.c: layouts, and the same bytes whatever way they are read. */
#include "tests/unit/qcow/flatten_checks.h"

#include <pthread.h>

#include "tests/lib/random.h"

/* Where the parts of a file with one cluster of L1 table and one refcount block are. */
enum { L1_OFF = CLUSTER, REFTABLE_OFF = 2 * CLUSTER, REFBLOCK_OFF = 3 * CLUSTER };
enum { L2_OFF = 4 * CLUSTER };
#define L2_COVERS (512ULL << 20)

static void the_header_is_of_version_3_and_names_nothing_else(void **state)
{
    (void)state;
    struct disk disk;
    struct qcow_image *image = disk_open(&disk, 3 * CLUSTER + 512, all_data);
    struct qcow_flat *flat = flat_open(image, 0);
    static const struct {
        int off;
        uint64_t value;
        bool is_long;
    } fields[] = {
        {HDR_MAGIC, QCOW_MAGIC, false},
        {HDR_VERSION, 3, false},
        {HDR_BACKING_OFF, 0, true},
        {HDR_BACKING_LEN, 0, false},
        {HDR_CLUSTER_BITS, 16, false},
        {HDR_SIZE, 3 * CLUSTER + 512, true},
        {HDR_CRYPT, 0, false},
        {HDR_L1_ENTRIES, 1, false},
        {HDR_L1_OFF, L1_OFF, true},
        {HDR_REFTABLE_OFF, REFTABLE_OFF, true},
        {HDR_REFTABLE_CLUSTERS, 1, false},
        {HDR_N_SNAPSHOTS, 0, false},
        {HDR_SNAPSHOTS_OFF, 0, true},
        {HDR_INCOMPATIBLE, 0, true},
        {HDR_COMPATIBLE, 0, true},
        {HDR_AUTOCLEAR, 0, true},
        {HDR_REFCOUNT_ORDER, 4, false},
        {HDR_LENGTH, 104, false},
        {HDR_V3_LEN, EXT_END, true},
    };
    for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
        uint64_t value = fields[i].is_long ? flat_u64(flat, (uint64_t)fields[i].off)
                                           : flat_u32(flat, (uint64_t)fields[i].off);
        if (value != fields[i].value)
            fail_msg("field at %d is %#" PRIx64, fields[i].off, value);
    }
    qcow_flat_close(flat);
    qcow_close(image);
}

/* Clusters of the file; tables and data clusters of the guest; L1 entries. */
static void sizes_at_the_boundaries(void **state)
{
    (void)state;
    static const struct {
        uint64_t guest_size;
        uint64_t (*find_end)(uint64_t, bool *);
        uint64_t n_clusters;
        uint32_t l1_entries;
    } cases[] = {
        {0, no_data, 4, 1},
        {512, no_data, 4, 1},
        {512, all_data, 4 + 1 + 1, 1},
        {CLUSTER, all_data, 4 + 1 + 1, 1},
        {CLUSTER + 512, all_data, 4 + 1 + 2, 1},
        {4 * CLUSTER, thirds, 4 + 1 + 1, 1},
        {L2_COVERS, all_data, 4 + 1 + 8192, 1},
        {L2_COVERS + 512, all_data, 4 + 2 + 8193, 2},
        {L2_COVERS + 512, thirds, 4 + 1 + 2731, 2},
        {1ULL << 40, no_data, 4, 2048},
        /* 8192 L1 entries fill a cluster, 32768 clusters a refcount block. */
        {8192 * L2_COVERS, no_data, 4, 8192},
        {8192 * L2_COVERS + 512, no_data, 5, 8193},
        {32760ULL * CLUSTER, all_data, 1 + 1 + 1 + 1 + 4 + 32760, 4},
        {32761ULL * CLUSTER, all_data, 1 + 1 + 1 + 2 + 4 + 32761, 4},
        /* 8192 refcount blocks fill a cluster of their table. */
        {1ULL << 44, all_data, 1 + 4 + 2 + 8194 + 32768 + (1ULL << 28), 32768},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct disk disk;
        struct qcow_image *image = disk_open(&disk, cases[i].guest_size, cases[i].find_end);
        struct qcow_flat *flat = flat_open(image, 0);
        if (qcow_flat_size(flat) != cases[i].n_clusters * CLUSTER ||
            flat_u32(flat, HDR_L1_ENTRIES) != cases[i].l1_entries)
            fail_msg("row %zu: %" PRIu64 " clusters, %u L1 entries", i,
                     qcow_flat_size(flat) / CLUSTER, flat_u32(flat, HDR_L1_ENTRIES));
        if (qcow_flat_max_size(cases[i].guest_size) < qcow_flat_size(flat) ||
            (cases[i].find_end == all_data &&
             qcow_flat_max_size(cases[i].guest_size) != qcow_flat_size(flat)))
            fail_msg("row %zu: bound %" PRIu64, i, qcow_flat_max_size(cases[i].guest_size));
        qcow_flat_close(flat);
        qcow_close(image);
    }
}

static void a_disk_beyond_2_pib_gets_larger_clusters(void **state)
{
    (void)state;
    static const struct {
        uint64_t guest_size;
        uint32_t bits;
    } cases[] = {
        {1ULL << 50, 16}, {(1ULL << 51) - (1ULL << 40), 16},
        {1ULL << 51, 17}, {(1ULL << 51) + 512, 17},
        {1ULL << 58, 20}, {1ULL << 61, 21},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct disk disk;
        struct qcow_image *image = disk_open(&disk, cases[i].guest_size, no_data);
        struct qcow_flat *flat = flat_open(image, 0);
        if (flat_u32(flat, HDR_CLUSTER_BITS) != cases[i].bits)
            fail_msg("row %zu: %u", i, flat_u32(flat, HDR_CLUSTER_BITS));
        assert_true(flat_u32(flat, HDR_L1_ENTRIES) <= 4 << 20);
        assert_true(qcow_flat_size(flat) <= qcow_flat_max_size(cases[i].guest_size));
        qcow_flat_close(flat);
        qcow_close(image);
    }
}

static void what_no_qcow2_file_can_hold_is_refused(void **state)
{
    (void)state;
    static const struct {
        uint64_t guest_size;
        uint64_t (*find_end)(uint64_t, bool *);
        const char *words;
    } cases[] = {
        {(1ULL << 61) + 512, no_data, "2305843009213694464 bytes is too large"},
        {INT64_MAX - 511, no_data, "is too large"},
        {1ULL << 57, all_data, "more data than"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct disk disk;
        struct qcow_image *image = disk_open(&disk, cases[i].guest_size, cases[i].find_end);
        struct qcow_flat *flat = NULL;
        struct error err = {0};
        if (qcow_flat_open(image, NULL, &flat, &err) != -EFBIG || !strstr(err.text, cases[i].words))
            fail_msg("row %zu: '%s'", i, err.text);
        assert_true(qcow_flat_max_size(cases[i].guest_size) <= 1ULL << 56);
        qcow_close(image);
    }
}

static void each_cluster_of_the_file_is_counted_once_and_none_past_its_end(void **state)
{
    (void)state;
    struct disk disk;
    struct qcow_image *image = disk_open(&disk, 5ULL << 30, all_data);
    struct qcow_flat *flat = flat_open(image, 0);
    uint64_t n_clusters = qcow_flat_size(flat) / CLUSTER;
    uint64_t table_off = flat_u64(flat, HDR_REFTABLE_OFF);
    static uint8_t block[CLUSTER];
    uint64_t n_blocks = 0;
    for (; flat_u64(flat, table_off + 8 * n_blocks); n_blocks++) {
        uint64_t block_off = flat_u64(flat, table_off + 8 * n_blocks);
        assert_true(block_off == table_off + CLUSTER * (1 + n_blocks));
        flat_read(flat, block_off, block, sizeof(block));
        for (uint64_t i = 0; i < 32768; i++) {
            unsigned wanted = n_blocks * 32768 + i < n_clusters;
            if (block[2 * i] != 0 || block[2 * i + 1] != wanted)
                fail_msg("cluster %" PRIu64 ": %u", n_blocks * 32768 + i, block[2 * i + 1]);
        }
    }
    assert_int_equal(n_blocks, 3);
    qcow_flat_close(flat);
    qcow_close(image);
}

static void tables_and_data_stand_in_the_guests_order(void **state)
{
    (void)state;
    struct disk disk;
    struct qcow_image *image = disk_open(&disk, 3 * L2_COVERS, thirds);
    struct qcow_flat *flat = flat_open(image, 0);
    uint64_t next = L2_OFF + 3 * CLUSTER;
    for (uint64_t i = 0; i < 3; i++) {
        uint64_t table_off = L2_OFF + i * CLUSTER;
        assert_true(flat_u64(flat, L1_OFF + 8 * i) == (table_off | L2_COPIED));
        for (uint64_t j = 0; j < 8192; j++) {
            uint64_t wanted = (i * 8192 + j) % 3 == 1 ? (next | L2_COPIED) : 0;
            assert_true(flat_u64(flat, table_off + 8 * j) == wanted);
            next += wanted ? CLUSTER : 0;
        }
    }
    assert_true(next == qcow_flat_size(flat));
    assert_true(flat_u64(flat, L1_OFF + 24) == 0);
    qcow_flat_close(flat);
    qcow_close(image);
}

static void a_flat_disk_reads_like_its_image(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {512,           CLUSTER - 512,       CLUSTER,
                                     CLUSTER + 512, 10 * CLUSTER + 1024, 300 * CLUSTER};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        struct disk disk;
        struct qcow_image *image = disk_open(&disk, sizes[i], i % 2 ? thirds : all_data);
        struct qcow_flat *flat = flat_open(image, 0);
        struct qcow_image *again = flat_reopen(flat);
        expect_same_disk(image, again);
        qcow_close(again);
        qcow_flat_close(flat);
        qcow_close(image);
    }
}

/* What each kind of cluster becomes. */
static void all_kinds_of_clusters_of_a_chain_are_there(void **state)
{
    (void)state;
    struct image top, base;
    struct image_options options = {.cluster_bits = 12, .guest_size = 70 * CLUSTER};
    image_create(&top, &options);
    image_create(&base, &options);
    image_write(&top, 4096, 1);
    image_write_compressed(&top, 2 * CLUSTER, COMPRESSION_ZLIB, 2);
    image_set_l2(&top, 4 * CLUSTER, L2_ZERO);
    image_write(&base, 4 * CLUSTER, 3); /* hidden */
    image_write(&base, 6 * CLUSTER + 3 * 4096, 4);
    image_write(&base, 70 * CLUSTER - 4096, 5);
    struct image_answers answers = {.backing = {&base}};
    struct qcow_image *image = image_open(&top, &answers, cache, NULL);
    struct qcow_flat *flat = flat_open(image, 0);
    assert_true(qcow_flat_size(flat) == (4 + 1 + 4) * CLUSTER);
    struct qcow_image *again = flat_reopen(flat);
    expect_same_disk(image, again);
    expect_extent(again, 0, CLUSTER, QCOW_DATA);
    expect_extent(again, CLUSTER, CLUSTER, QCOW_HOLE);
    expect_extent(again, 2 * CLUSTER, CLUSTER, QCOW_DATA);
    expect_extent(again, 3 * CLUSTER, 3 * CLUSTER, QCOW_HOLE);
    expect_extent(again, 69 * CLUSTER, CLUSTER, QCOW_DATA);
    qcow_close(again);
    qcow_flat_close(flat);
    qcow_close(image);
    image_destroy(&top), image_destroy(&base);
}

struct expected {
    const struct qcow_flat *flat;
    const uint8_t *bytes;
    size_t len;
    unsigned seed;
};

static void *read_at_random(void *arg)
{
    const struct expected *expected = arg;
    enum { MAX = 200000 };
    uint8_t *buf = malloc(MAX);
    unsigned seed = expected->seed;
    for (int i = 0; i < 300 && buf; i++) {
        size_t off = random_next(&seed) % expected->len;
        size_t len = (size_t)random_next(&seed) % (i % 2 ? 64 : MAX);
        size_t wanted = min_u64(len, expected->len - off);
        if (qcow_flat_read(expected->flat, off, buf, len, NULL) != (ssize_t)wanted ||
            memcmp(buf, expected->bytes + off, wanted) != 0) {
            free(buf);
            return arg;
        }
    }
    free(buf);
    return NULL;
}

/* With all of the map kept, and with all of it looked up each time. */
static void any_range_is_a_piece_of_the_whole_for_many_threads(void **state)
{
    (void)state;
    static const size_t map_lens[] = {0, 1};
    for (size_t k = 0; k < 2; k++) {
        struct disk disk;
        struct qcow_image *image = disk_open(&disk, 700 * CLUSTER + 512, thirds);
        struct qcow_flat *flat = flat_open(image, map_lens[k]);
        struct expected expected[4];
        size_t len = (size_t)qcow_flat_size(flat);
        uint8_t *bytes = malloc(len);
        assert_non_null(bytes);
        flat_read(flat, 0, bytes, len);
        pthread_t threads[4];
        for (unsigned i = 0; i < 4; i++) {
            expected[i] = (struct expected){flat, bytes, len, i};
            assert_int_equal(pthread_create(&threads[i], NULL, read_at_random, &expected[i]), 0);
        }
        void *wrong[4];
        for (size_t i = 0; i < 4; i++)
            pthread_join(threads[i], &wrong[i]);
        for (size_t i = 0; i < 4; i++)
            assert_null(wrong[i]);
        free(bytes);
        qcow_flat_close(flat);
        qcow_close(image);
    }
}

static void reads_past_the_end_give_nothing(void **state)
{
    (void)state;
    struct disk disk;
    struct qcow_image *image = disk_open(&disk, 512, all_data);
    struct qcow_flat *flat = flat_open(image, 0);
    uint64_t size = qcow_flat_size(flat);
    uint8_t buf[100];
    assert_int_equal(qcow_flat_read(flat, size, buf, sizeof(buf), NULL), 0);
    assert_int_equal(qcow_flat_read(flat, UINT64_MAX, buf, sizeof(buf), NULL), 0);
    assert_int_equal(qcow_flat_read(flat, size - 7, buf, sizeof(buf), NULL), 7);
    /* The guest has 512 bytes, the cluster 65536. */
    memset(buf, 0xee, sizeof(buf));
    flat_read(flat, size - CLUSTER + 512, buf, sizeof(buf));
    for (size_t i = 0; i < sizeof(buf); i++)
        assert_int_equal(buf[i], 0);
    qcow_flat_close(flat);
    qcow_close(image);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(the_header_is_of_version_3_and_names_nothing_else),
        TEST(sizes_at_the_boundaries),
        TEST(a_disk_beyond_2_pib_gets_larger_clusters),
        TEST(what_no_qcow2_file_can_hold_is_refused),
        TEST(each_cluster_of_the_file_is_counted_once_and_none_past_its_end),
        TEST(tables_and_data_stand_in_the_guests_order),
        TEST(a_flat_disk_reads_like_its_image),
        TEST(all_kinds_of_clusters_of_a_chain_are_there),
        TEST(any_range_is_a_piece_of_the_whole_for_many_threads),
        TEST(reads_past_the_end_give_nothing),
    };
    return cmocka_run_group_tests_name("qcow/flatten", tests, NULL, NULL);
}
