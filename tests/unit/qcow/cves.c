/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Images that broke others: one test for each lesson that this decoder could have had to learn, by
 * the whole library and not by one of its files. docs/hostile-images.md has the list.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "qcow/flatten.h"
#include "qcow/format.h"
#include "tests/lib/image.h"
#include "tests/unit/qcow/faults.h"

enum { DISK_LEN = 1 << 20 };

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
    int left = (int)qcow_cache_used(cache);
    qcow_cache_destroy(cache);
    return left;
}

static struct image make(void)
{
    struct image image;
    image_create(&image, &(struct image_options){.guest_size = DISK_LEN});
    image_write(&image, 0, 1);
    return image;
}

/* What an opener was asked for; it opens nothing. */
struct asked {
    unsigned n;
    enum qcow_ref_kind kind;
    char name[256];
};

static int refuse(void *ctx, const struct qcow_ref *ref, struct qcow_file *ret_file,
                  struct error *err)
{
    struct asked *asked = ctx;
    (void)ret_file;
    if (!ref->name)
        return 1;
    asked->n++;
    asked->kind = ref->kind;
    snprintf(asked->name, sizeof(asked->name), "%s", ref->name);
    return error_set(err, -EPERM, "not allowed");
}

/* Opens and, if that works, reads the begin of the disk: the first error, or 0. */
static int try_all(const struct image *image, const struct qcow_snapshot *snapshot,
                   struct error *err)
{
    struct image_answers none = {0};
    struct qcow_opener opener = {.open_ref = image_answer, .ctx = &none};
    struct qcow_file file = image_file(image);
    struct qcow_image *opened;
    char buf[4096];
    int r = qcow_open(&file, &opener, cache, snapshot, &opened, err);
    if (r < 0)
        return r;
    ssize_t n = qcow_read(opened, 0, buf, sizeof(buf), err);
    qcow_close(opened);
    return n < 0 ? (int)n : 0;
}

/* Each row: one field of an image that is sound otherwise. */
static void cve_2014_0143_0144_0145_fields_beyond_all_limits(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        int off, len;
        uint64_t value;
    } rows[] = {
        {"header_length", HDR_LENGTH, 4, 0xffffffff},
        {"header_length past the cluster", HDR_LENGTH, 4, 513},
        {"an extension of nearly 4 GiB", 112 + 4, 4, 0xfffffff9},
        {"an extension that wraps around", 112 + 4, 4, 0xffffffff},
        {"backing_file_offset", HDR_BACKING_OFF, 8, UINT64_MAX},
        {"backing_file_offset, signed", HDR_BACKING_OFF, 8, 1ULL << 63},
        {"a name past the cluster", HDR_BACKING_OFF, 8, 513},
        {"cluster_bits 0", HDR_CLUSTER_BITS, 4, 0},
        {"cluster_bits 64", HDR_CLUSTER_BITS, 4, 64},
        {"cluster_bits, signed", HDR_CLUSTER_BITS, 4, 0xffffffff},
        {"refcount_table_clusters", HDR_REFTABLE_CLUSTERS, 4, 0xffffffff},
        {"refcount_table_clusters that wrap around", HDR_REFTABLE_CLUSTERS, 4, 1 << 23},
        {"no refcount table", HDR_REFTABLE_CLUSTERS, 4, 0},
        {"refcount_table_offset", HDR_REFTABLE_OFF, 8, INT64_MAX - 511},
        {"refcount_table_offset off the clusters", HDR_REFTABLE_OFF, 8, 513},
        {"refcount_order", HDR_REFCOUNT_ORDER, 4, 7},
        {"l1_size", HDR_L1_ENTRIES, 4, 0xffffffff},
        {"l1_size that wraps around", HDR_L1_ENTRIES, 4, 1 << 29},
        {"l1_size, too short", HDR_L1_ENTRIES, 4, 1},
        {"no L1 table", HDR_L1_ENTRIES, 4, 0},
        {"l1_table_offset", HDR_L1_OFF, 8, INT64_MAX - 511},
        {"l1_table_offset off the clusters", HDR_L1_OFF, 8, 513},
        {"l1_table_offset past the end", HDR_L1_OFF, 8, 1 << 30},
        {"nb_snapshots", HDR_N_SNAPSHOTS, 4, 0xffffffff},
        {"size", HDR_SIZE, 8, UINT64_MAX},
        {"size, signed", HDR_SIZE, 8, 1ULL << 63},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct image image = make();
        struct error err = {0};
        image_poke32(&image, image.ext_off, 0x12345678); /* for the rows with an extension */
        if (rows[i].len == 4)
            image_poke32(&image, (uint64_t)rows[i].off, (uint32_t)rows[i].value);
        else
            image_poke64(&image, (uint64_t)rows[i].off, rows[i].value);
        if (rows[i].off == HDR_BACKING_OFF)
            image_poke32(&image, HDR_BACKING_LEN, 8);
        int r = try_all(&image, NULL, &err);
        if (r != -EBADMSG || r != err.code)
            fail_msg("%s: %d, %s", rows[i].what, r, err.text);
        image_destroy(&image);
    }
}

static void cve_2014_0143_0145_l1_tables_of_snapshots_have_the_same_limits(void **state)
{
    (void)state;
    static const struct {
        uint64_t l1_off;
        uint32_t l1_entries;
    } rows[] = {{0, 0xffffffff}, {0, 1 << 29}, {INT64_MAX - 511, 1}, {513, 1}, {1 << 30, 1}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct image image = make();
        struct image_snapshot snapshot = {.id = "1",
                                          .name = "s",
                                          .l1_off = rows[i].l1_off,
                                          .l1_entries = rows[i].l1_entries,
                                          .extra_len = 24,
                                          .disk_size = DISK_LEN};
        image_add_snapshots(&image, &snapshot, 1);
        struct qcow_snapshot view = image_snapshot_view(&image, &snapshot);
        struct error err = {0};
        if (try_all(&image, &view, &err) != -EBADMSG)
            fail_msg("row %zu: %s", i, err.text);
        image_destroy(&image);
    }
}

/* QEMU closed a file that it had not opened yet. */
static void cve_2014_0146_an_open_that_fails_leaves_nothing(void **state)
{
    (void)state;
    struct image image = make();
    struct error err = {0};
    for (uint64_t len = 0; len < image.end; len += 37) {
        struct image cut = make();
        image_truncate(&cut, len);
        if (len < image.l1_off)
            assert_int_equal(try_all(&cut, NULL, &err), -EBADMSG);
        else
            try_all(&cut, NULL, &err);
        assert_int_equal(qcow_cache_used(cache), 0);
        image_destroy(&cut);
    }
    image_destroy(&image);
}

static void cve_2014_0222_0223_version_1_is_not_read(void **state)
{
    (void)state;
    struct image image = make();
    struct error err = {0};
    image_poke32(&image, HDR_VERSION, 1);
    assert_int_equal(try_all(&image, NULL, &err), -ENOTSUP);
    image_destroy(&image);
}

/* And CVE-2011-3147, CVE-2015-7548, CVE-2016-2140, CVE-2026-24708: written by the guest itself. */
static void cve_2015_5163_a_header_on_a_raw_disk_is_data(void **state)
{
    (void)state;
    struct image image;
    image_create(&image,
                 &(struct image_options){.guest_size = DISK_LEN, .backing_name = "/etc/passwd"});
    struct asked asked = {0};
    struct qcow_opener opener = {.open_ref = refuse, .ctx = &asked};
    struct qcow_file file = image_file(&image);
    struct qcow_image *opened;
    struct error err = {0};
    uint8_t buf[4];
    file.format = QCOW_FORMAT_RAW;
    assert_int_equal(qcow_open(&file, &opener, cache, NULL, &opened, &err), 0);
    assert_int_equal(asked.n, 0);
    assert_true(qcow_size(opened) == image.end);
    assert_int_equal(qcow_read(opened, 0, buf, sizeof(buf), &err), sizeof(buf));
    assert_memory_equal(buf, "QFI\xfb", sizeof(buf));
    qcow_close(opened);
    image_destroy(&image);
}

static void cve_2022_47951_another_format_is_not_taken_for_qcow2(void **state)
{
    (void)state;
    struct image image = make();
    struct error err = {0};
    static const char vmdk[] = "# Disk DescriptorFile\nversion=1\nRW 1 FLAT \"/etc/passwd\" 0\n";
    image_poke(&image, 0, vmdk, sizeof(vmdk));
    assert_int_equal(try_all(&image, NULL, &err), -EBADMSG);
    image_destroy(&image);
}

static atomic_int n_reads;

static ssize_t count_reads(int fd, void *buf, size_t len, off_t host_off)
{
    atomic_fetch_add(&n_reads, 1);
    return faults_real_pread(fd, buf, len, host_off);
}

/* And CVE-2018-10908: half a MiB that says it is the largest disk there is. */
static void cve_2015_5162_a_tiny_image_of_a_huge_disk_costs_little(void **state)
{
    (void)state;
    struct image image;
    struct error err = {0};
    image_create(&image, &(struct image_options){.cluster_bits = 21,
                                                 .guest_size = (1ULL << 61) - 512,
                                                 .l1_entries = 4 << 20});
    struct qcow_image *opened = image_open(&image, NULL, cache, NULL);
    struct qcow_extent extent;
    struct qcow_flat *flat;
    char buf[512];
    faults_pread = count_reads;
    atomic_store(&n_reads, 0);
    assert_int_equal(qcow_read(opened, qcow_size(opened) / 2, buf, sizeof(buf), &err), 512);
    assert_int_equal(qcow_map(opened, 0, qcow_size(opened), &extent, &err), 0);
    assert_in_range(n_reads, 1, 20000);
    assert_int_equal(qcow_flat_open(opened, NULL, &flat, &err), 0);
    assert_in_range(n_reads, 1, 40000); /* the L1 table, twice, and nothing else */
    faults_pread = NULL;
    assert_true(qcow_flat_size(flat) < 100 << 20);
    qcow_flat_close(flat);
    qcow_close(opened);
    image_destroy(&image);
}

/* And CVE-2024-40767: not in a layer below either, since each layer's reference is asked for. */
static void cve_2024_32498_4467_what_a_data_file_names_is_not_opened_here(void **state)
{
    (void)state;
    static const char *const names[] = {"/etc/passwd",
                                        "json:{\"driver\":\"file\",\"filename\":\"/etc/passwd\"}",
                                        "nbd://host/export"};
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        struct image_extension ext = {EXT_DATA_FILE, names[i], (uint32_t)strlen(names[i])};
        struct image image;
        image_create(&image, &(struct image_options){.guest_size = DISK_LEN,
                                                     .incompatible = INCOMPAT_DATA_FILE,
                                                     .extensions = &ext,
                                                     .n_extensions = 1});
        struct asked asked = {0};
        struct qcow_opener opener = {.open_ref = refuse, .ctx = &asked};
        struct qcow_file file = image_file(&image);
        struct qcow_image *opened;
        struct qcow_info info;
        struct error err = {0};
        assert_int_equal(qcow_inspect(&file, &info, &err), 0); /* asks for nothing at all */
        assert_string_equal(info.data_name, names[i]);
        qcow_info_fini(&info);
        assert_int_equal(qcow_open(&file, &opener, cache, NULL, &opened, &err), -EPERM);
        assert_int_equal(asked.n, 1);
        assert_int_equal(asked.kind, QCOW_REF_DATA);
        assert_string_equal(asked.name, names[i]);
        image_destroy(&image);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(cve_2014_0143_0144_0145_fields_beyond_all_limits),
        TEST(cve_2014_0143_0145_l1_tables_of_snapshots_have_the_same_limits),
        TEST(cve_2014_0146_an_open_that_fails_leaves_nothing),
        TEST(cve_2014_0222_0223_version_1_is_not_read),
        TEST(cve_2015_5163_a_header_on_a_raw_disk_is_data),
        TEST(cve_2022_47951_another_format_is_not_taken_for_qcow2),
        TEST(cve_2015_5162_a_tiny_image_of_a_huge_disk_costs_little),
        TEST(cve_2024_32498_4467_what_a_data_file_names_is_not_opened_here),
    };
    return cmocka_run_group_tests_name("qcow/cves", tests, NULL, NULL);
}
