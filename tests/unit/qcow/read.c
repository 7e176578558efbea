/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qcow/qcow.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "qcow/base/cleanup.h"
#include "tests/lib/random.h"
#include "tests/unit/qcow/read_checks.h"

/* Ranges. */

static void reads_any_range_across_kinds(void **state)
{
    (void)state;
    struct image image = tiny(0);
    image_write(&image, 0, 1);
    image_write_compressed(&image, 4096, COMPRESSION_ZLIB, 2);
    image_set_l2(&image, 8192, L2_ZERO);
    image_write(&image, 12288, 3);
    struct qcow_image *opened = image_open(&image, NULL, cache, NULL);
    enum { ALL = 5 * 4096 };
    uint8_t all[ALL] = {0}, buf[ALL];
    image_fill(all, 4096, 1);
    image_fill(all + 4096, 4096, 2);
    image_fill(all + 12288, 4096, 3);
    const size_t cuts[] = {0, 1, 511, 512, 4095, 4096, 4097, 8191, 8193, 12287, 16385, ALL};
    for (size_t a = 0; a < sizeof(cuts) / sizeof(cuts[0]); a++)
        for (size_t b = a; b < sizeof(cuts) / sizeof(cuts[0]); b++) {
            size_t len = cuts[b] - cuts[a];
            memset(buf, 0xee, sizeof(buf));
            if (qcow_read(opened, cuts[a], buf, len, NULL) != (ssize_t)len ||
                memcmp(buf, all + cuts[a], len) != 0 || (len < ALL && buf[len] != 0xee))
                fail_msg("range %zu to %zu", cuts[a], cuts[b]);
        }
    qcow_close(opened);
    image_destroy(&image);
}

static void reading_ends_with_the_disk(void **state)
{
    (void)state;
    struct image image;
    image_create(&image, &(struct image_options){.cluster_bits = 12, .guest_size = 4096 + 1000});
    image_write(&image, 4096, 1); /* the cluster goes on past the disk's 512 bytes of it */
    struct qcow_image *opened = image_open(&image, NULL, cache, NULL);
    uint8_t buf[8192];
    assert_true(qcow_size(opened) == 4096 + 512);
    assert_int_equal(qcow_read(opened, 4096, buf, sizeof(buf), NULL), 512);
    assert_int_equal(qcow_read(opened, 4607, buf, sizeof(buf), NULL), 1);
    assert_int_equal(qcow_read(opened, 4608, buf, sizeof(buf), NULL), 0);
    assert_int_equal(qcow_read(opened, UINT64_MAX, buf, sizeof(buf), NULL), 0);
    assert_int_equal(qcow_read(opened, 0, buf, 0, NULL), 0);
    qcow_close(opened);
    image_destroy(&image);
}

static void every_cluster_size_is_read(void **state)
{
    (void)state;
    for (unsigned bits = 9; bits <= 21; bits++)
        for (unsigned version = 2; version <= 3; version++) {
            print_message("cluster_bits %u, version %u\n", bits, version);
            struct image image;
            image_create(&image, &(struct image_options){.version = version,
                                                         .cluster_bits = bits,
                                                         .guest_size = 64ULL << bits});
            size_t cluster = (size_t)1 << bits;
            image_write(&image, cluster, 1);
            image_write_compressed(&image, 3 * cluster, COMPRESSION_ZLIB, 2);
            struct qcow_image *opened = image_open(&image, NULL, cache, NULL);
            expect_zeros(opened, 0, cluster);
            expect_fill(opened, cluster, cluster, 1, 0);
            expect_zeros(opened, 2 * cluster, cluster);
            expect_fill(opened, 3 * cluster + 77, cluster - 77, 2, 77);
            qcow_close(opened);
            image_destroy(&image);
        }
}

static void subclusters_are_read_one_by_one(void **state)
{
    (void)state;
    struct image image = tiny(INCOMPAT_EXTENDED_L2), base;
    image_create_raw(&base, "base", 1 << 20);
    uint8_t bytes[16384];
    image_fill(bytes, sizeof(bytes), 9);
    image_poke(&base, 0, bytes, sizeof(bytes));
    uint64_t host_off = image_write(&image, 0, 1);
    /* 512 bytes each: 0 and 31 data, 1 zeros, the rest from below */
    image_set_l2_extended(&image, 0, host_off, 0x80000001ULL | 2ULL << 32);
    struct image_answers answers = {.backing = {&base}};
    struct qcow_image *opened = image_open(&image, &answers, cache, NULL);
    expect_fill(opened, 0, 512, 1, 0);
    expect_zeros(opened, 512, 512);
    expect_fill(opened, 1024, 16384 - 1536, 9, 1024);
    expect_fill(opened, 16384 - 512, 512, 1, 16384 - 512);
    qcow_close(opened);
    image_destroy(&image), image_destroy(&base);
}

static void reads_far_offsets_of_huge_disks(void **state)
{
    (void)state;
    struct image image;
    image_create(&image, &(struct image_options){.cluster_bits = 21, .guest_size = 1 << 20});
    image_poke32(&image, HDR_L1_ENTRIES, 4 << 20);
    image_poke64(&image, HDR_SIZE, 1ULL << 61);
    image_alloc(&image, 16);
    image_write(&image, (1ULL << 61) - (2 << 20), 1);
    struct qcow_image *opened = image_open(&image, NULL, cache, NULL);
    assert_true(qcow_size(opened) == 1ULL << 61);
    expect_fill(opened, (1ULL << 61) - 100, 100, 1, (2 << 20) - 100);
    uint8_t buf[200];
    assert_int_equal(qcow_read(opened, (1ULL << 61) - 100, buf, 200, NULL), 100);
    expect_extent(opened, 0, (1ULL << 61) - (2 << 20), QCOW_HOLE);
    expect_extent(opened, (1ULL << 61) - (2 << 20), 2 << 20, QCOW_DATA);
    qcow_close(opened);
    image_destroy(&image);
}

/* Compressed clusters. */

static void zstd_clusters_are_read(void **state)
{
    (void)state;
    struct image image = tiny(INCOMPAT_COMPRESSION);
    image_write_compressed(&image, 4096, COMPRESSION_ZSTD, 1);
    struct qcow_image *opened = image_open(&image, NULL, cache, NULL);
    expect_fill(opened, 4096 + 5, 4000, 1, 5);
    qcow_close(opened);
    image_destroy(&image);
}

/* Compressed data at a chosen place in the file. */
static size_t put_compressed(struct image *image, uint64_t guest_off, uint64_t host_off,
                             uint32_t seed)
{
    uint8_t buf[4096], packed[8192];
    image_fill(buf, sizeof(buf), seed);
    size_t len = image_compress(COMPRESSION_ZLIB, buf, sizeof(buf), packed, sizeof(packed));
    image_set_l2(image, guest_off, image_compressed_entry(image, host_off, len));
    image_poke(image, host_off, packed, len);
    return len;
}

static void compressed_data_shares_sectors_and_crosses_clusters(void **state)
{
    (void)state;
    struct image image = tiny(0);
    image_l2_place(&image, 0);
    uint64_t host_off = image_alloc(&image, 8) + 4096 - 37;
    for (uint32_t i = 0; i < 6; i++)
        host_off += put_compressed(&image, i * 4096, host_off, i + 1);
    struct qcow_image *opened = image_open(&image, NULL, cache, NULL);
    for (uint32_t i = 0; i < 6; i++)
        expect_fill(opened, i * 4096, 4096, i + 1, 0);
    qcow_close(opened);
    image_destroy(&image);
}

static void the_last_compressed_sector_may_lie_past_the_end_of_the_file(void **state)
{
    (void)state;
    struct image image = tiny(0);
    image_l2_place(&image, 0);
    uint64_t host_off = image_alloc(&image, 2);
    size_t len = put_compressed(&image, 0, host_off, 1);
    image_truncate(&image, host_off + len);
    struct qcow_image *opened = image_open(&image, NULL, cache, NULL);
    expect_fill(opened, 0, 4096, 1, 0);
    qcow_close(opened);
    image_destroy(&image);
}

static void compressed_data_past_the_end_of_the_file_is_damage(void **state)
{
    (void)state;
    struct image image = tiny(0);
    image_set_l2(&image, 0, image_compressed_entry(&image, 0x100000, 700));
    image_set_l2(&image, 4096, L2_COMPRESSED | ((1ULL << 58) - 512));
    struct qcow_image *opened = image_open(&image, NULL, cache, NULL);
    expect_refused(opened, 0, -EBADMSG,
                   ": compressed cluster at 0x100000 (1024 bytes): damaged zlib");
    expect_refused(opened, 4096, -EBADMSG, "compressed cluster at 0x3fffffffffffe00 (512 bytes)");
    qcow_close(opened);
    image_destroy(&image);
}

static void damaged_compressed_data_is_named_each_time(void **state)
{
    (void)state;
    struct image image = tiny(INCOMPAT_COMPRESSION);
    uint64_t entry = image_write_compressed(&image, 0, COMPRESSION_ZSTD, 1);
    image_poke8(&image, entry & 0xffffff, 0);
    struct qcow_image *opened = image_open(&image, NULL, cache, NULL);
    expect_refused(opened, 512, -EBADMSG, "damaged zstd data");
    expect_refused(opened, 512, -EBADMSG, "compressed cluster at 0x3000");
    qcow_close(opened);
    image_destroy(&image);
}

static atomic_int n_reads;

static ssize_t count_reads(int fd, void *buf, size_t len, off_t host_off)
{
    atomic_fetch_add(&n_reads, 1);
    return faults_real_pread(fd, buf, len, host_off);
}

static void a_compressed_cluster_is_inflated_once(void **state)
{
    (void)state;
    struct image image = tiny(0);
    image_write_compressed(&image, 0, COMPRESSION_ZLIB, 1);
    struct qcow_image *opened = image_open(&image, NULL, cache, NULL);
    expect_fill(opened, 0, 512, 1, 0);
    atomic_store(&n_reads, 0);
    faults_pread = count_reads;
    expect_fill(opened, 512, 3584, 1, 512);
    assert_int_equal(n_reads, 0);
    faults_pread = NULL;
    qcow_close(opened);
    image_destroy(&image);
}

static void neighbouring_compressed_clusters_are_read_at_once(void **state)
{
    (void)state;
    struct image image = tiny(0);
    image_l2_place(&image, 0);
    uint64_t host_off = image_alloc(&image, 8) + 77;
    for (uint32_t i = 0; i < 3; i++)
        host_off += put_compressed(&image, i * 4096, host_off, i + 1);
    put_compressed(&image, 3 * 4096, image_alloc(&image, 2), 4); /* elsewhere */
    struct qcow_image *opened = image_open(&image, NULL, cache, NULL);
    expect_zeros(opened, 4 * 4096, 512); /* the tables are in the cache */
    auto_free uint8_t *buf = malloc(4 * 4096), *expected = malloc(4096);
    atomic_store(&n_reads, 0);
    faults_pread = count_reads;
    assert_int_equal(qcow_read(opened, 0, buf, 4 * 4096, NULL), 4 * 4096);
    faults_pread = NULL;
    assert_int_equal(n_reads, 2);
    for (uint32_t i = 0; i < 4; i++) {
        image_fill(expected, 4096, i + 1);
        assert_memory_equal(buf + i * 4096, expected, 4096);
    }
    qcow_close(opened);
    image_destroy(&image);
}

static off_t bad_off;

static ssize_t fail_over_bad(int fd, void *buf, size_t len, off_t host_off)
{
    if (host_off <= bad_off && bad_off < host_off + (off_t)len) {
        errno = EIO;
        return -1;
    }
    return faults_real_pread(fd, buf, len, host_off);
}

static void of_neighbours_the_one_that_cannot_be_read_is_named(void **state)
{
    (void)state;
    struct image image = tiny(0);
    image_l2_place(&image, 0);
    uint64_t first_off = image_alloc(&image, 8);
    uint64_t host_off = first_off;
    for (uint32_t i = 0; i < 3; i++)
        host_off += put_compressed(&image, i * 4096, host_off, i + 1);
    struct qcow_image *opened = image_open(&image, NULL, cache, NULL);
    expect_zeros(opened, 4 * 4096, 512);
    auto_free uint8_t *buf = malloc(3 * 4096);
    struct error err = {0};
    bad_off = (off_t)host_off - 1; /* of the last one */
    faults_pread = fail_over_bad;
    assert_int_equal(qcow_read(opened, 0, buf, 3 * 4096, &err), -EIO);
    assert_int_equal(qcow_read(opened, 0, buf, 4096, NULL), 4096);
    faults_pread = NULL;
    char words[64];
    snprintf(words, sizeof(words), "at %#llx failed", (unsigned long long)first_off);
    assert_null(strstr(err.text, words));
    assert_non_null(strstr(err.text, " failed: Input/output error"));
    qcow_close(opened);
    image_destroy(&image);
}

static void the_length_tells_compressed_clusters_at_one_place_apart(void **state)
{
    (void)state;
    struct image image = tiny(0);
    uint64_t entry = image_write_compressed(&image, 0, COMPRESSION_ZLIB, 1);
    image_set_l2(&image, 4096, L2_COMPRESSED | (entry & 0xffffff)); /* one sector only */
    struct qcow_image *opened = image_open(&image, NULL, cache, NULL);
    expect_fill(opened, 0, 4096, 1, 0);
    expect_refused(opened, 4096, -EBADMSG, "compressed cluster at 0x3000 (512 bytes): damaged");
    qcow_close(opened);
    image_destroy(&image);
}

static void a_table_is_not_taken_for_the_cluster_at_its_place(void **state)
{
    (void)state;
    struct image image = tiny(0);
    uint64_t l2_off = image_l2_place(&image, 0);
    image_set_l2(&image, 0, L2_COMPRESSED | l2_off);
    struct qcow_image *opened = image_open(&image, NULL, cache, NULL);
    expect_refused(opened, 0, -EBADMSG, "compressed cluster at 0x3000 (512 bytes): damaged zlib");
    qcow_close(opened);
    image_destroy(&image);
}

static void images_do_not_mix_in_a_shared_cache(void **state)
{
    (void)state;
    struct image one = tiny(0), two = tiny(0);
    image_write_compressed(&one, 0, COMPRESSION_ZLIB, 1);
    image_write_compressed(&two, 0, COMPRESSION_ZLIB, 2);
    struct qcow_image *first = image_open(&one, NULL, cache, NULL);
    struct qcow_image *second = image_open(&two, NULL, cache, NULL);
    expect_fill(first, 0, 4096, 1, 0);
    expect_fill(second, 0, 4096, 2, 0);
    expect_fill(first, 0, 4096, 1, 0);
    qcow_close(first);
    expect_fill(second, 0, 4096, 2, 0);
    qcow_close(second);
    assert_int_equal(qcow_cache_used(cache), 0);
    image_destroy(&one), image_destroy(&two);
}

/* Threads. */

enum { THREADS = 6, CLUSTERS = 48 };

struct reader {
    pthread_t thread;
    struct qcow_image *opened;
    const uint8_t *disk;
    unsigned seed;
    bool is_right;
    char text[ERROR_TEXT_MAX + 64];
};

static void *read_at_random(void *ctx)
{
    struct reader *reader = ctx;
    static const size_t len_max = 3 * 4096;
    uint8_t *buf = malloc(len_max);
    reader->is_right = true;
    for (int i = 0; i < 1500 && reader->is_right; i++) {
        size_t at = (size_t)random_next(&reader->seed) % (CLUSTERS * 4096);
        size_t len = (size_t)random_next(&reader->seed) % len_max;
        if (len > CLUSTERS * 4096 - at)
            len = CLUSTERS * 4096 - at;
        struct error err = {0};
        ssize_t n = qcow_read(reader->opened, at, buf, len, &err);
        reader->is_right = n == (ssize_t)len && !memcmp(buf, reader->disk + at, len);
        struct qcow_extent extent;
        if (i % 8 == 0)
            reader->is_right &= qcow_map(reader->opened, at, 65536, &extent, &err) == 0;
        snprintf(reader->text, sizeof(reader->text), "%zu bytes at %zu: %s", len, at, err.text);
    }
    free(buf);
    return NULL;
}

static void threads_read_one_image_with_hardly_any_cache(void **state)
{
    (void)state;
    struct image image;
    image_create(&image,
                 &(struct image_options){.cluster_bits = 12, .guest_size = CLUSTERS * 4096});
    uint8_t *disk = calloc(CLUSTERS, 4096);
    for (uint32_t i = 0; i < CLUSTERS; i++) {
        if (i % 4 != 3)
            image_fill(disk + i * 4096, 4096, i);
        if (i % 4 == 0)
            image_write(&image, i * 4096, i);
        else if (i % 4 != 3)
            image_write_compressed(&image, i * 4096, COMPRESSION_ZLIB, i);
    }
    struct image_snapshot snapshot = {
        .id = "1", .name = "n", .l1_off = image.l1_off, .l1_entries = image.l1_entries};
    image_add_snapshots(&image, &snapshot, 1);
    struct qcow_snapshot view = image_snapshot_view(&image, &snapshot);
    struct qcow_cache *small;
    assert_int_equal(qcow_cache_create(8192, &small, NULL), 0);
    struct qcow_image *opened = image_open(&image, NULL, small, &view);
    struct reader readers[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        readers[i] = (struct reader){.opened = opened, .disk = disk, .seed = i};
        pthread_create(&readers[i].thread, NULL, read_at_random, &readers[i]);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(readers[i].thread, NULL);
        if (!readers[i].is_right)
            fail_msg("reader %u: %s", i, readers[i].text);
    }
    assert_in_range(qcow_cache_used(small), 0, 8192);
    qcow_close(opened);
    assert_int_equal(qcow_cache_used(small), 0);
    qcow_cache_destroy(small);
    image_destroy(&image);
    free(disk);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(reads_any_range_across_kinds),
        TEST(reading_ends_with_the_disk),
        TEST(every_cluster_size_is_read),
        TEST(subclusters_are_read_one_by_one),
        TEST(reads_far_offsets_of_huge_disks),
        TEST(zstd_clusters_are_read),
        TEST(compressed_data_shares_sectors_and_crosses_clusters),
        TEST(the_last_compressed_sector_may_lie_past_the_end_of_the_file),
        TEST(compressed_data_past_the_end_of_the_file_is_damage),
        TEST(damaged_compressed_data_is_named_each_time),
        TEST(a_compressed_cluster_is_inflated_once),
        TEST(neighbouring_compressed_clusters_are_read_at_once),
        TEST(of_neighbours_the_one_that_cannot_be_read_is_named),
        TEST(the_length_tells_compressed_clusters_at_one_place_apart),
        TEST(a_table_is_not_taken_for_the_cluster_at_its_place),
        TEST(images_do_not_mix_in_a_shared_cache),
        TEST(threads_read_one_image_with_hardly_any_cache),
    };
    return cmocka_run_group_tests_name("qcow/read", tests, NULL, NULL);
}
