/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/session/catalog_fixture.h"

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

static void snapshots_that_an_instant_made_are_not_shown(void **state)
{
    (void)state;
    struct image image;
    image_create(&image, &(struct image_options){.guest_size = 65536});
    static const char *const names[] = {"virtsnapfs-0123456789abcdef", "virtsnapfs-mine", "s"};
    struct image_snapshot snapshots[3];
    for (size_t i = 0; i < 3; i++)
        snapshots[i] = (struct image_snapshot){.id = i == 0   ? "1"
                                                     : i == 1 ? "2"
                                                              : "3",
                                               .name = names[i],
                                               .l1_off = image.l1_off,
                                               .l1_entries = image.l1_entries,
                                               .extra_len = 16,
                                               .disk_size = 65536};
    image_add_snapshots(&image, snapshots, 3);
    struct domain *domain = make_image_domain("marked", &image);
    struct catalog *catalog = get(domain);
    assert_int_equal(catalog->n_entries, 3);
    check_file_name(catalog, 0, "now.raw");
    check_file_name(catalog, 1, "virtsnapfs-mine.raw");
    check_file_name(catalog, 2, "s.raw");
    assert_null(catalog_find(catalog, "virtsnapfs-0123456789abcdef.raw"));
    catalog_unref(catalog);
    domain_unref(domain);
    image_destroy(&image);
}

/* The record of a domain that is on @overlay, as libvirt's is until a merge has ended. */
static void put_on_top(struct domain *domain, const char *overlay)
{
    struct disk *disk = &domain->disks[0];
    disk->layers = reallocarray(disk->layers, disk->n_layers + 1, sizeof(*disk->layers));
    memmove(&disk->layers[1], &disk->layers[0], disk->n_layers * sizeof(*disk->layers));
    disk->layers[0] = (struct disk_layer){.path = strdup(overlay), .format = QCOW_FORMAT_QCOW2};
    disk->n_layers++;
}

static void an_overlay_of_ours_hides_no_snapshot_even_if_it_is_gone(void **state)
{
    (void)state;
    struct image image;
    image_create(&image, &(struct image_options){.guest_size = 65536});
    struct image_snapshot snapshot = {.id = "1",
                                      .name = "s",
                                      .l1_off = image.l1_off,
                                      .l1_entries = image.l1_entries,
                                      .extra_len = 16,
                                      .disk_size = 65536};
    image_add_snapshots(&image, &snapshot, 1);
    struct domain *domain = make_image_domain("merged", &image);
    put_on_top(domain, "/nowhere/d.qcow2.virtsnapfs-0123456789abcdef.overlay");
    struct catalog *catalog = get(domain);
    assert_int_equal(catalog->n_entries, 2);
    assert_int_equal(find(catalog, "now.raw")->failure, 0);
    assert_int_equal(find(catalog, "now.raw")->guest_size, 65536);
    check_file_name(catalog, 1, "s.raw");
    catalog_unref(catalog);
    put_on_top(domain, "/nowhere/d.overlay"); /* another's */
    catalog = get(domain);
    assert_int_equal(find(catalog, "now.raw")->failure, -EIO);
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

/* A block device that can be read, or NULL. */
static const char *find_device(void)
{
    static const char *const devices[] = {"/dev/vda", "/dev/sda", "/dev/nvme0n1", "/dev/loop0"};
    for (size_t i = 0; i < sizeof(devices) / sizeof(*devices); i++)
        if (access(devices[i], R_OK) == 0)
            return devices[i];
    return NULL;
}

/* Writing to a device does not touch its node. */
static void a_block_device_is_undated(void **state)
{
    (void)state;
    const char *device = find_device();
    assert_non_null(device);
    struct domain *domain = make_domain("device", device, QCOW_FORMAT_RAW);
    struct catalog *catalog = get(domain);
    const struct catalog_entry *entry = find(catalog, "now.raw");
    assert_true(entry->is_undated);
    assert_true(entry->mtime.tv_sec == 0 && entry->mtime.tv_nsec == 0);
    catalog_unref(catalog);
    domain_unref(domain);
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

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(every_disk_has_a_now),
        TEST(now_has_size_and_time_of_its_file),
        TEST(blocks_are_exact_only_where_known),
        TEST(an_image_is_never_shown_empty_or_full_by_guess),
        TEST(snapshots_are_listed_in_order_with_their_own_size),
        TEST(snapshots_that_an_instant_made_are_not_shown),
        TEST(an_overlay_of_ours_hides_no_snapshot_even_if_it_is_gone),
        TEST(the_hash_of_names_moves_with_the_names_only),
        TEST(a_damaged_disk_keeps_its_name_and_spares_the_others),
        TEST(a_disk_of_the_hypervisor_alone_has_the_size_that_it_tells),
        TEST(a_block_device_is_undated),
        TEST(an_unsupported_disk_has_a_size_if_it_has_a_file),
        TEST(a_disputed_format_is_no_size),
        TEST(inode_numbers_are_stable_and_tell_files_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
