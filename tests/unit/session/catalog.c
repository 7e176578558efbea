/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/session/catalog.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "fs/log.h"
#include "fs/session/catalog_internal.h"
#include "qcow/base/thread.h"
#include "tests/lib/fake_host.h"
#include "tests/lib/image.h"

struct fixture {
    struct fake_host *fake;
    struct domain *domain; /* "d" with two raw disks; or what replaced it */
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->fake = fake_host_create();
    fake_host_add(f->fake, "d", 2);
    f->domain = fake_host_find(f->fake, "d");
    log_init(LOG_LEVEL_ERROR); /* the warnings are wanted here */
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    domain_unref(f->domain);
    fake_host_destroy(f->fake);
    free(f);
    return 0;
}

/* The host is asked for chains only, and these domains have no external snapshots. */
static struct catalog *get(struct domain *domain)
{
    struct catalog *catalog = NULL;
    struct error err = {0};
    assert_int_equal(catalog_get(NULL, domain, &catalog, &err), 0);
    return catalog;
}

/* The catalog after @before, once that has rested for what it cost. */
static struct catalog *get_next(struct domain *domain, const struct catalog *before)
{
    int64_t deadline_ns = monotonic_ns() + (int64_t)20 * 1000000000;
    struct catalog *catalog;
    while ((catalog = get(domain)) == before) {
        catalog_unref(catalog);
        assert_true(monotonic_ns() < deadline_ns);
    }
    return catalog;
}

static const struct catalog_entry *find(const struct catalog *catalog, const char *file)
{
    const struct catalog_entry *entry = catalog_find(catalog, file);
    if (!entry)
        fail_msg("no '%s'", file);
    return entry;
}

static void check_file_name(const struct catalog *catalog, size_t idx, const char *want)
{
    char *file = catalog_file_name(catalog, &catalog->entries[idx]);
    assert_string_equal(file, want);
    assert_ptr_equal(catalog_find(catalog, file), &catalog->entries[idx]);
    free(file);
}

/* A record with one disk on @path. */
static struct domain *make_domain(const char *name, const char *path, enum qcow_format format)
{
    struct domain *domain = domain_create(name, name);
    domain->n_disks = 1;
    domain->disks = calloc(1, sizeof(*domain->disks));
    struct disk *disk = &domain->disks[0];
    disk->target = strdup("vda");
    disk->n_layers = 1;
    disk->layers = calloc(1, sizeof(*disk->layers));
    disk->layers[0].path = strdup(path);
    disk->layers[0].format = format;
    return domain;
}

static struct domain *make_image_domain(const char *name, const struct image *image)
{
    char path[40];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", image->fd);
    return make_domain(name, path, QCOW_FORMAT_QCOW2);
}

static void every_disk_has_a_now(void **state)
{
    struct fixture *f = *state;
    struct catalog *catalog = get(f->domain);
    assert_int_equal(catalog->n_entries, 2);
    check_file_name(catalog, 0, "now.raw");
    check_file_name(catalog, 1, "now.vdb.raw");
    assert_ptr_equal(find(catalog, "now.vda.raw"), &catalog->entries[0]);
    assert_null(catalog_find(catalog, "now"));
    assert_null(catalog_find(catalog, "now.vdc.raw"));
    assert_null(catalog_find(catalog, "s1.raw"));
    catalog_unref(catalog);
}

static void now_has_size_and_time_of_its_file(void **state)
{
    struct fixture *f = *state;
    char *path = fake_host_path(f->fake, "d", 0);
    struct timespec times[2] = {{.tv_sec = 5}, {.tv_sec = 1700000000, .tv_nsec = 123456789}};
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    struct catalog *catalog = get(f->domain);
    const struct catalog_entry *entry = find(catalog, "now.raw");
    assert_true(entry->is_now);
    assert_int_equal(entry->failure, 0);
    assert_int_equal(entry->guest_size, FAKE_DISK_SIZE);
    assert_int_equal(entry->mtime.tv_sec, 1700000000);
    assert_int_equal(entry->mtime.tv_nsec, 123456789);
    catalog_unref(catalog);
    free(path);
}

static void blocks_are_exact_only_where_known(void **state)
{
    struct fixture *f = *state;
    char *path = fake_host_path(f->fake, "d", 0);
    struct catalog *first = get(f->domain);
    assert_int_equal(find(first, "now.raw")->blocks, FAKE_DISK_SIZE / 512);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(
        fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, FAKE_DISK_SIZE / 2), 0);
    struct catalog *second = get_next(f->domain, first);
    uint64_t blocks = find(second, "now.raw")->blocks;
    assert_true(blocks > 0 && blocks < FAKE_DISK_SIZE / 512);
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(ftruncate(fd, FAKE_DISK_SIZE), 0);
    struct catalog *third = get_next(f->domain, second);
    assert_int_equal(find(third, "now.raw")->blocks, 0);
    catalog_unref(first);
    catalog_unref(second);
    catalog_unref(third);
    close(fd);
    free(path);
}

static void an_image_is_never_shown_empty_or_full_by_guess(void **state)
{
    (void)state;
    static const struct {
        uint64_t guest_size, want_max;
    } rows[] = {{512, 1}, {1024, 1}, {4096, 7}, {1 << 20, 2047}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct image image;
        image_create(&image, &(struct image_options){.guest_size = rows[i].guest_size});
        struct domain *domain = make_image_domain("estimate", &image);
        struct catalog *catalog = get(domain);
        const struct catalog_entry *entry = find(catalog, "now.raw");
        assert_int_equal(entry->guest_size, rows[i].guest_size);
        if (entry->blocks < 1 || entry->blocks > rows[i].want_max)
            print_error("row %zu: %llu\n", i, (unsigned long long)entry->blocks);
        assert_in_range(entry->blocks, 1, rows[i].want_max);
        catalog_unref(catalog);
        domain_unref(domain);
        image_destroy(&image);
    }
}

static void snapshots_are_listed_in_order_with_their_own_size(void **state)
{
    (void)state;
    struct image image;
    image_create(&image, &(struct image_options){.guest_size = 65536});
    struct image_snapshot snapshots[] = {
        {.id = "1",
         .name = "zz",
         .l1_off = image.l1_off,
         .l1_entries = image.l1_entries,
         .sec = 1600000000,
         .nsec = 42,
         .extra_len = 16,
         .disk_size = 32768},
        {.id = "2",
         .name = "now",
         .l1_off = image.l1_off,
         .l1_entries = image.l1_entries,
         .sec = 1600000001,
         .extra_len = 16,
         .disk_size = 65536},
        {.id = "3",
         .name = "zz",
         .l1_off = image.l1_off,
         .l1_entries = image.l1_entries,
         .sec = 1600000002,
         .extra_len = 16,
         .disk_size = 65536},
    };
    image_add_snapshots(&image, snapshots, 3);
    struct domain *domain = make_image_domain("snapshots", &image);
    struct catalog *catalog = get(domain);
    assert_int_equal(catalog->n_entries, 4);
    check_file_name(catalog, 0, "now.raw");
    check_file_name(catalog, 1, "zz.raw");
    check_file_name(catalog, 2, "%6Eow.raw");
    check_file_name(catalog, 3, "zz@3.raw");
    const struct catalog_entry *entry = find(catalog, "zz.vda.raw");
    assert_ptr_equal(entry, &catalog->entries[1]);
    assert_false(entry->is_now);
    assert_int_equal(entry->guest_size, 32768);
    assert_int_equal(entry->mtime.tv_sec, 1600000000);
    assert_int_equal(entry->mtime.tv_nsec, 42);
    assert_string_equal(entry->snapshot.internal.id, "1");
    for (size_t i = 0; i < 4; i++)
        for (size_t j = 0; j < i; j++)
            assert_int_not_equal(catalog->entries[i].ino, catalog->entries[j].ino);
    catalog_unref(catalog);
    domain_unref(domain);
    image_destroy(&image);
}

static void the_hash_of_names_moves_with_the_names_only(void **state)
{
    (void)state;
    struct image image;
    image_create(&image, &(struct image_options){.guest_size = 65536});
    struct domain *domain = make_image_domain("names", &image);
    struct catalog *before = get(domain);
    image_write(&image, 0, 7);
    struct catalog *written = get_next(domain, before);
    assert_int_equal(written->names_hash, before->names_hash);
    struct image_snapshot snapshot = {.id = "1",
                                      .name = "s",
                                      .l1_off = image.l1_off,
                                      .l1_entries = image.l1_entries,
                                      .extra_len = 16,
                                      .disk_size = 65536};
    image_add_snapshots(&image, &snapshot, 1);
    struct catalog *after = get_next(domain, written);
    assert_int_not_equal(after->names_hash, before->names_hash);
    catalog_unref(before);
    catalog_unref(written);
    catalog_unref(after);
    domain_unref(domain);
    image_destroy(&image);
}

static void a_damaged_disk_keeps_its_name_and_spares_the_others(void **state)
{
    struct fixture *f = *state;
    char *path = fake_host_path(f->fake, "d", 0);
    assert_int_equal(unlink(path), 0);
    free(path);
    struct catalog *catalog = get(f->domain);
    assert_int_equal(find(catalog, "now.raw")->failure, -EIO);
    assert_int_equal(find(catalog, "now.raw")->guest_size, 0);
    assert_int_equal(find(catalog, "now.vdb.raw")->failure, 0);
    catalog_unref(catalog);
}

/* A record with one disk that has no file, of so many bytes. */
static struct domain *make_remote(uint64_t capacity)
{
    struct domain *domain = make_domain("network", "", QCOW_FORMAT_RAW);
    struct disk *disk = &domain->disks[0];
    disk->n_layers = 0;
    free(disk->layers[0].path);
    disk->unsupported = strdup("network disk");
    disk->is_remote = true;
    disk->capacity = capacity;
    return domain;
}

static void a_disk_of_the_hypervisor_alone_has_the_size_that_it_tells(void **state)
{
    struct fixture *f = *state;
    struct domain *off = make_remote(0), *running = make_remote((1 << 20) + 1);
    struct catalog *catalog = get(off);
    assert_int_equal(find(catalog, "now.raw")->failure, -EOPNOTSUPP);
    catalog_unref(catalog);
    catalog = get(running);
    const struct catalog_entry *entry = find(catalog, "now.raw");
    assert_int_equal(entry->failure, 0);
    assert_true(entry->guest_size == (1 << 20) + 512);
    assert_true(entry->blocks > 0 && entry->blocks < entry->guest_size / 512);
    assert_true(entry->is_undated && entry->mtime.tv_sec == 0);
    catalog_unref(catalog);
    catalog = get(f->domain);
    assert_false(find(catalog, "now.raw")->is_undated);
    catalog_unref(catalog);
    domain_unref(off);
    domain_unref(running);
}

static void an_unsupported_disk_has_a_size_if_it_has_a_file(void **state)
{
    struct fixture *f = *state;
    f->domain->disks[1].unsupported = strdup("shareable");
    struct catalog *catalog = get(f->domain);
    assert_int_equal(find(catalog, "now.vdb.raw")->failure, 0);
    assert_int_equal(find(catalog, "now.vdb.raw")->guest_size, FAKE_DISK_SIZE);
    catalog_unref(catalog);
}

static void a_disputed_format_is_no_size(void **state)
{
    struct fixture *f = *state;
    f->domain->disks[0].is_format_disputed = true;
    struct catalog *catalog = get(f->domain);
    assert_int_equal(find(catalog, "now.raw")->failure, -EOPNOTSUPP);
    catalog_unref(catalog);
}

static void unchanged_files_are_not_opened_again(void **state)
{
    struct fixture *f = *state;
    usleep(60000); /* past the clock's granularity, or a change could have gone unseen */
    struct catalog *first = get(f->domain);
    struct catalog *second = get(f->domain);
    assert_ptr_equal(first, second);
    catalog_unref(second);
    struct domain *copy =
        make_domain(f->domain->id, f->domain->disks[0].layers[0].path, QCOW_FORMAT_RAW);
    second = get(copy); /* other disks: another catalog */
    assert_ptr_not_equal(first, second);
    catalog_unref(second);
    domain_unref(copy);
    second = get(f->domain);
    catalog_unref(first);
    int fd = open(f->domain->disks[1].layers[0].path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "x", 1, 77), 1);
    close(fd);
    first = get_next(f->domain, second);
    catalog_unref(first);
    catalog_unref(second);
}

static void a_file_changed_just_now_is_looked_at_again(void **state)
{
    struct fixture *f = *state;
    int fd = open(f->domain->disks[0].layers[0].path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "x", 1, 77), 1);
    struct catalog *first = get(f->domain);
    struct catalog *second = get_next(f->domain, first); /* though its times stay */
    catalog_unref(first);
    catalog_unref(second);
    close(fd);
}

/* An image with @n snapshots, whose names are @name_len bytes long. */
static void make_long_table(struct image *image, size_t n, int name_len)
{
    image_create(image, &(struct image_options){.guest_size = 65536});
    struct image_snapshot *snapshots = calloc(n, sizeof(*snapshots));
    char *names = calloc(n, (size_t)name_len + 1), *ids = calloc(n, 8);
    for (size_t i = 0; i < n; i++) {
        char *name = names + i * ((size_t)name_len + 1), *id = ids + i * 8;
        snprintf(id, 8, "%u", (unsigned)i + 1);
        snprintf(name, (size_t)name_len + 1, "%0*u", name_len, (unsigned)i);
        snapshots[i] = (struct image_snapshot){.id = id,
                                               .name = name,
                                               .l1_off = image->l1_off,
                                               .l1_entries = image->l1_entries,
                                               .extra_len = 16,
                                               .disk_size = 65536};
    }
    image_add_snapshots(image, snapshots, n);
    free(snapshots);
    free(names);
    free(ids);
}

static void a_long_table_is_not_read_again_for_each_change(void **state)
{
    (void)state;
    struct image image;
    make_long_table(&image, 5000, 16);
    struct domain *domain = make_image_domain("long", &image);
    struct catalog *first = get(domain);
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(futimens(image.fd, NULL), 0); /* the guest writes */
        struct catalog *again = get(domain);
        assert_ptr_equal(again, first);
        catalog_unref(again);
    }
    struct catalog *next = get_next(domain, first);
    catalog_unref(next);
    catalog_unref(first);
    domain_unref(domain);
    image_destroy(&image);
}

static void remembered_catalogs_are_bounded_by_bytes(void **state)
{
    (void)state;
    struct image image;
    make_long_table(&image, 4000, 900);
    struct domain *domain;
    for (unsigned i = 0; i < 12; i++) {
        char name[20];
        snprintf(name, sizeof(name), "fat-%u", i);
        domain = make_image_domain(name, &image);
        catalog_unref(get(domain));
        domain_unref(domain);
        assert_in_range(catalog_remembered_bytes(), 4000 * 900, CATALOG_BYTES_MAX);
    }
    image_destroy(&image);
}

static void the_newest_catalog_is_remembered_whatever_its_size(void **state)
{
    struct fixture *f = *state;
    struct image image;
    make_long_table(&image, 40000, 900);
    struct domain *domain = make_image_domain("giant", &image);
    struct catalog *first = get(domain), *second = get(domain);
    assert_ptr_equal(first, second);
    assert_true(catalog_remembered_bytes() > CATALOG_BYTES_MAX);
    catalog_unref(second);
    catalog_unref(get(f->domain)); /* and goes for the next one */
    assert_true(catalog_remembered_bytes() < CATALOG_BYTES_MAX);
    catalog_unref(first);
    domain_unref(domain);
    image_destroy(&image);
}

static void inode_numbers_are_stable_and_tell_files_apart(void **state)
{
    struct fixture *f = *state;
    struct catalog *catalog = get(f->domain);
    uint64_t ino = find(catalog, "now.raw")->ino;
    assert_int_not_equal(ino, find(catalog, "now.vdb.raw")->ino);
    assert_true(ino > 1);
    catalog_unref(catalog);
    struct fixture other;
    void *other_state = &other;
    assert_int_equal(set_up(&other_state), 0);
    catalog = get(((struct fixture *)other_state)->domain); /* other files, the same ids */
    assert_int_equal(find(catalog, "now.raw")->ino, ino);
    catalog_unref(catalog);
    tear_down(&other_state);
    assert_int_not_equal(catalog_ino("ab", "c"), catalog_ino("a", "bc"));
    assert_int_equal(catalog_ino("id", "dir"), catalog_ino("id", "dir"));
}

static void more_domains_than_places_are_all_served(void **state)
{
    struct fixture *f = *state;
    usleep(60000);
    for (unsigned i = 0; i < 5000; i++) {
        char name[20];
        snprintf(name, sizeof(name), "many-%u", i);
        struct domain *domain =
            make_domain(name, f->domain->disks[0].layers[0].path, QCOW_FORMAT_RAW);
        struct catalog *catalog = get(domain);
        assert_string_equal(catalog->domain->id, name);
        catalog_unref(catalog);
        domain_unref(domain);
    }
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(every_disk_has_a_now),
        TEST(now_has_size_and_time_of_its_file),
        TEST(blocks_are_exact_only_where_known),
        TEST(an_image_is_never_shown_empty_or_full_by_guess),
        TEST(snapshots_are_listed_in_order_with_their_own_size),
        TEST(the_hash_of_names_moves_with_the_names_only),
        TEST(a_damaged_disk_keeps_its_name_and_spares_the_others),
        TEST(a_disk_of_the_hypervisor_alone_has_the_size_that_it_tells),
        TEST(an_unsupported_disk_has_a_size_if_it_has_a_file),
        TEST(a_disputed_format_is_no_size),
        TEST(unchanged_files_are_not_opened_again),
        TEST(a_file_changed_just_now_is_looked_at_again),
        TEST(a_long_table_is_not_read_again_for_each_change),
        TEST(remembered_catalogs_are_bounded_by_bytes),
        TEST(the_newest_catalog_is_remembered_whatever_its_size),
        TEST(inode_numbers_are_stable_and_tell_files_apart),
        TEST(more_domains_than_places_are_all_served),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
