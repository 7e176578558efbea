/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* External snapshots: which are shown, and readers of the layers that they froze. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "fs/host/ref.h"
#include "fs/session/catalog.h"
#include "tests/lib/image.h"
#include "tests/unit/session/registry_fixture.h"

enum {
    SIZE = 4096,
    GROWN_SIZE = 8192, /* the disk grew after the first snapshot */
    EXT_BACKING_FORMAT = 0xe2792aca,
    CREATED = 1600000000,
    PATH_LEN = 40,
};

/*
 * base <- first <- second: snapshot "one" froze base, "two" froze first. The domain's XML names
 * the top only, as that of a domain which is off.
 */
struct frozen {
    struct host host;
    struct qcow_cache *cache;
    struct registry *registry;
    struct image base, first, second;
    char base_path[PATH_LEN], first_path[PATH_LEN], second_path[PATH_LEN];
    struct domain *domain;
};

/* As the libvirt host answers. */
static int open_ref(void *ctx, const struct qcow_ref *ref, struct qcow_file *ret_file,
                    struct error *err)
{
    const struct disk *disk = ((struct host_image_ctx *)ctx)->disk;
    size_t next = (size_t)ref->depth + 1;
    if (next < disk->n_layers)
        return ref_open_declared(disk->layers[next].path, disk->layers[next].format, ret_file, err);
    if (disk->is_chain_complete || !ref->name)
        return 1;
    /* The images here are called /proc/self/fd/N, where a recorded name may not lead. */
    return ref_open_declared(ref->name, QCOW_FORMAT_QCOW2, ret_file, err);
}

static struct domain *find(struct host *host, const char *id)
{
    (void)id;
    return domain_ref(((struct frozen *)host)->domain);
}

static const struct host_ops ops = {.find = find, .open_ref = open_ref};

static void make_layer(struct image *image, const char *name, uint64_t guest_size,
                       const char *backing_path, char *ret_path)
{
    const struct image_extension format = {EXT_BACKING_FORMAT, "qcow2", 5};
    image_create(image, &(struct image_options){.name = name,
                                                .guest_size = guest_size,
                                                .backing_name = backing_path,
                                                .extensions = &format,
                                                .n_extensions = backing_path ? 1 : 0});
    snprintf(ret_path, PATH_LEN, "/proc/self/fd/%d", image->fd);
}

static void add_layer(struct domain *domain, const char *path)
{
    struct disk *disk = &domain->disks[0];
    disk->layers = reallocarray(disk->layers, disk->n_layers + 1, sizeof(*disk->layers));
    disk->layers[disk->n_layers++] =
        (struct disk_layer){.path = strdup(path), .format = QCOW_FORMAT_QCOW2};
}

/* A domain of its own for each test: catalogs are remembered. */
static struct domain *make_domain(const struct frozen *f, const char *id, const char *top)
{
    struct domain *domain = domain_create(id, "d");
    domain->disks = calloc(1, sizeof(*domain->disks));
    domain->n_disks = 1;
    domain->disks[0].target = strdup("vda");
    add_layer(domain, top);
    struct host_snapshot snapshots[] = {
        {.name = strdup("one"), .created = {.tv_sec = CREATED}},
        {.name = strdup("two"), .created = {.tv_sec = CREATED + 1}},
    };
    assert_int_equal(host_snapshot_add(&snapshots[0], "vda", f->base_path, f->first_path), 0);
    assert_int_equal(host_snapshot_add(&snapshots[1], "vda", f->first_path, f->second_path), 0);
    assert_int_equal(domain_copy_snapshots(domain, snapshots, 2), 0);
    host_snapshot_fini(&snapshots[0]);
    host_snapshot_fini(&snapshots[1]);
    return domain;
}

static int set_up(void **state)
{
    static unsigned n;
    struct frozen *f = calloc(1, sizeof(*f));
    f->host.ops = &ops;
    make_layer(&f->base, "base", SIZE, NULL, f->base_path);
    make_layer(&f->first, "first", GROWN_SIZE, f->base_path, f->first_path);
    make_layer(&f->second, "second", GROWN_SIZE, f->first_path, f->second_path);
    image_write(&f->base, 0, 1);
    image_write(&f->first, 512, 2);
    image_write(&f->second, 0, 3);
    char id[16];
    snprintf(id, sizeof(id), "id-%u", n++);
    f->domain = make_domain(f, id, f->second_path);
    struct registry_config config = patient;
    assert_int_equal(qcow_cache_create(1 << 20, &f->cache, NULL), 0);
    config.host = &f->host;
    config.cache = f->cache;
    assert_int_equal(registry_create(&config, &f->registry, NULL), 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct frozen *f = *state;
    registry_shutdown(f->registry);
    registry_destroy(f->registry);
    qcow_cache_destroy(f->cache);
    domain_unref(f->domain);
    image_destroy(&f->base);
    image_destroy(&f->first);
    image_destroy(&f->second);
    free(f);
    return 0;
}

static struct catalog *get(struct frozen *f, struct domain *domain)
{
    struct catalog *catalog = NULL;
    assert_int_equal(catalog_get(&f->host, domain, &catalog, NULL), 0);
    return catalog;
}

/* The names of all files, in order, each with a blank behind it. */
static void check_files(struct frozen *f, struct domain *domain, const char *want)
{
    struct catalog *catalog = get(f, domain);
    char files[200] = "";
    for (size_t i = 0; i < catalog->n_entries; i++) {
        char *file = catalog_file_name(catalog, &catalog->entries[i], VIEW_RAW);
        strncat(files, file, sizeof(files) - strlen(files) - 1);
        strncat(files, " ", sizeof(files) - strlen(files) - 1);
        free(file);
    }
    assert_string_equal(files, want);
    catalog_unref(catalog);
}

static void snapshots_have_time_and_size_of_what_they_froze(void **state)
{
    struct frozen *f = *state;
    check_files(f, f->domain, "now.raw one.raw two.raw ");
    struct catalog *catalog = get(f, f->domain);
    const struct catalog_entry *one = catalog_find(catalog, "one.raw");
    const struct catalog_entry *two = catalog_find(catalog, "two.vda.raw");
    assert_false(one->is_now);
    assert_int_equal(one->snapshot.kind, SNAPSHOT_EXTERNAL);
    assert_int_equal(one->mtime.tv_sec, CREATED);
    assert_int_equal(two->mtime.tv_sec, CREATED + 1);
    assert_int_equal(one->guest_size, SIZE);
    assert_int_equal(two->guest_size, GROWN_SIZE);
    assert_in_range(one->blocks, 1, SIZE / 512 - 1);
    assert_in_range(two->blocks, 1, GROWN_SIZE / 512 - 1);
    assert_true(one->ino != two->ino);
    catalog_unref(catalog);
}

static void a_chain_that_the_record_names_is_the_same(void **state)
{
    struct frozen *f = *state;
    struct catalog *off = get(f, f->domain);
    uint64_t ino = catalog_find(off, "one.raw")->ino;
    catalog_unref(off);
    struct domain *live = make_domain(f, f->domain->id, f->second_path);
    add_layer(live, f->first_path);
    add_layer(live, f->base_path);
    live->disks[0].is_chain_complete = true;
    check_files(f, live, "now.raw one.raw two.raw ");
    struct catalog *catalog = get(f, live);
    assert_int_equal(catalog_find(catalog, "one.raw")->ino, ino);
    catalog_unref(catalog);
    domain_unref(live);
}

/* "first" was merged into base: that is in the chain still, but it is not what it was. */
static void what_an_overlay_was_merged_into_is_not_shown(void **state)
{
    struct frozen *f = *state;
    struct image top;
    char path[PATH_LEN];
    make_layer(&top, "top", GROWN_SIZE, f->base_path, path);
    struct domain *domain = make_domain(f, "id-merged", path);
    check_files(f, domain, "now.raw ");
    domain_unref(domain);
    domain = make_domain(f, "id-merged", f->base_path);
    check_files(f, domain, "now.raw ");
    domain_unref(domain);
    image_destroy(&top);
}

/* The record and the images are at odds while a commit ends: nobody can tell what is what. */
static void a_chain_that_images_deny_is_not_believed(void **state)
{
    struct frozen *f = *state;
    struct image top;
    char path[PATH_LEN];
    make_layer(&top, "top", GROWN_SIZE, f->base_path, path);
    struct domain *domain = make_domain(f, "id-denied", path);
    add_layer(domain, f->first_path);
    add_layer(domain, f->base_path);
    domain->disks[0].is_chain_complete = true;
    check_files(f, domain, "now.raw ");
    domain_unref(domain);
    image_destroy(&top);
}

static void an_internal_snapshot_of_that_name_comes_first(void **state)
{
    struct frozen *f = *state;
    struct image_snapshot internal = {
        .id = "1", .name = "two", .l1_off = f->second.l1_off, .l1_entries = f->second.l1_entries};
    image_add_snapshots(&f->second, &internal, 1);
    check_files(f, f->domain, "now.raw two.raw one.raw two@external.raw ");
    struct catalog *catalog = get(f, f->domain);
    assert_int_equal(catalog_find(catalog, "two.raw")->snapshot.kind, SNAPSHOT_INTERNAL);
    catalog_unref(catalog);
}

static void a_record_with_other_snapshots_has_another_catalog(void **state)
{
    struct frozen *f = *state;
    /* Files that were just made prove nothing; then the catalog is used again. */
    struct catalog *before = NULL, *catalog = get(f, f->domain);
    int64_t deadline_ns = monotonic_ns() + (int64_t)20 * 1000000000;
    while (catalog != before) {
        assert_true(monotonic_ns() < deadline_ns);
        catalog_unref(before);
        before = catalog;
        catalog = get(f, f->domain);
    }
    catalog_unref(before);
    catalog_unref(catalog);
    struct domain *domain = make_domain(f, f->domain->id, f->second_path);
    host_snapshot_fini(&domain->snapshots[--domain->n_snapshots]);
    check_files(f, domain, "now.raw one.raw ");
    domain_unref(domain);
}

/* Opens snapshot "two" of @domain. */
static int ask_two(struct frozen *f, struct domain *domain, struct asked *asked)
{
    struct named_snapshot snapshot = {.kind = SNAPSHOT_EXTERNAL,
                                      .external = {.name = (char[]){"two"},
                                                   .created = {.tv_sec = CREATED + 1},
                                                   .path = f->first_path}};
    struct open_request request = {
        .domain = domain,
        .disk = &domain->disks[0],
        .snapshot = &snapshot,
        .shown = {.guest_size = GROWN_SIZE, .mtime = {.tv_sec = CREATED + 1}, .blocks = 3},
        .pid = 815,
        .done = asked_done,
        .ctx = asked,
    };
    asked_init(asked);
    registry_open(f->registry, &request);
    assert_true(asked->is_done);
    return asked->result;
}

static bool may_write(const struct image *image)
{
    struct flock probe = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 201, .l_len = 1};
    assert_int_equal(fcntl(image->fd, F_OFD_GETLK, &probe), 0);
    return probe.l_type == F_UNLCK;
}

static void write_as_qemu(const struct image *image, short type)
{
    struct flock fl = {.l_type = type, .l_whence = SEEK_SET, .l_start = 101, .l_len = 1};
    assert_int_equal(fcntl(image->fd, F_OFD_SETLK, &fl), 0);
}

static void a_reader_holds_what_it_reads_and_nothing_above(void **state)
{
    struct frozen *f = *state;
    write_as_qemu(&f->second, F_RDLCK);
    struct asked asked;
    assert_int_equal(ask_two(f, f->domain, &asked), 0);
    unsigned char want[1024], got[GROWN_SIZE + 1];
    image_fill(want, 512, 1);
    image_fill(want + 512, 512, 2);
    struct error err = {0};
    assert_int_equal(reader_read(asked.reader, 0, got, sizeof(got), &err), GROWN_SIZE);
    assert_memory_equal(got, want, sizeof(want));
    assert_false(may_write(&f->base));
    assert_false(may_write(&f->first));
    assert_true(may_write(&f->second));
    reader_close(asked.reader);
    assert_true(may_write(&f->base));
    assert_true(may_write(&f->first));
}

static void a_layer_that_is_written_to_is_busy(void **state)
{
    struct frozen *f = *state;
    const struct image *layers[] = {&f->base, &f->first};
    for (size_t i = 0; i < 2; i++) {
        struct asked asked;
        write_as_qemu(layers[i], F_RDLCK);
        assert_int_equal(ask_two(f, f->domain, &asked), -EBUSY);
        write_as_qemu(layers[i], F_UNLCK);
        assert_true(may_write(&f->base));
        assert_true(may_write(&f->first));
    }
}

static void a_snapshot_that_is_gone_is_stale(void **state)
{
    struct frozen *f = *state;
    struct asked asked;
    struct image top;
    char path[PATH_LEN];
    make_layer(&top, "top", GROWN_SIZE, f->first_path, path);
    struct domain *domain = make_domain(f, "id-gone", path);
    assert_int_equal(ask_two(f, domain, &asked), -ESTALE);
    assert_true(may_write(&f->first));
    domain_unref(domain);
    image_destroy(&top);
    domain = make_domain(f, "id-gone", f->second_path);
    host_snapshot_fini(&domain->snapshots[--domain->n_snapshots]);
    assert_int_equal(ask_two(f, domain, &asked), -ESTALE);
    domain_unref(domain);
}

static void attributes_and_status_tell_what_it_is(void **state)
{
    struct frozen *f = *state;
    struct asked asked;
    assert_int_equal(ask_two(f, f->domain, &asked), 0);
    char *text = registry_status(f->registry, f->domain, NULL, 0);
    assert_non_null(strstr(text, "\"pid\": 815"));
    assert_non_null(strstr(text, "\"snapshot\": \"two\""));
    free(text);
    reader_close(asked.reader);
    struct catalog *catalog = get(f, f->domain);
    const struct catalog_entry *entry = catalog_find(catalog, "two.raw");
    struct error err;
    error_set(&err, -EIO, "torn");
    registry_note_error(f->registry, f->domain->id, "two.raw", &err);
    const struct {
        const char *name, *want;
    } rows[] = {{"taken", "2020-09-13T12:26:41.000000000Z"},
                {"method", "external"},
                {"source", f->first_path},
                {"error", "torn"}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char *value = registry_xattr(f->registry, f->domain, &f->domain->disks[0], &entry->snapshot,
                                     0, rows[i].name);
        assert_string_equal(value, rows[i].want);
        free(value);
    }
    assert_null(registry_xattr(f->registry, f->domain, &f->domain->disks[0], &entry->snapshot, 0,
                               "consistency"));
    catalog_unref(catalog);
}

int main(void)
{
    log_init(LOG_LEVEL_ERROR);
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(snapshots_have_time_and_size_of_what_they_froze),
        TEST(a_chain_that_the_record_names_is_the_same),
        TEST(what_an_overlay_was_merged_into_is_not_shown),
        TEST(a_chain_that_images_deny_is_not_believed),
        TEST(an_internal_snapshot_of_that_name_comes_first),
        TEST(a_record_with_other_snapshots_has_another_catalog),
        TEST(a_reader_holds_what_it_reads_and_nothing_above),
        TEST(a_layer_that_is_written_to_is_busy),
        TEST(a_snapshot_that_is_gone_is_stale),
        TEST(attributes_and_status_tell_what_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
