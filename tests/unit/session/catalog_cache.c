/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/lib/pause.h"
#include "tests/unit/session/catalog_fixture.h"

static void unchanged_files_are_not_opened_again(void **state)
{
    struct fixture *f = *state;
    pause_us(60000); /* past the clock's granularity, or a change could have gone unseen */
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
    for (unsigned i = 0; i < 12; i++) {
        char name[20];
        snprintf(name, sizeof(name), "fat-%u", i);
        struct domain *domain = make_image_domain(name, &image);
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

static void more_domains_than_places_are_all_served(void **state)
{
    struct fixture *f = *state;
    pause_us(60000);
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
        TEST(unchanged_files_are_not_opened_again),
        TEST(a_file_changed_just_now_is_looked_at_again),
        TEST(a_long_table_is_not_read_again_for_each_change),
        TEST(remembered_catalogs_are_bounded_by_bytes),
        TEST(the_newest_catalog_is_remembered_whatever_its_size),
        TEST(more_domains_than_places_are_all_served),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
