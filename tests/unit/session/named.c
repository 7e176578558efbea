/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Readers of internal snapshots: no instant, no lock that could bother the guest. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "tests/lib/image.h"
#include "tests/unit/session/registry_fixture.h"

enum { GUEST_SIZE = 4096, SNAPSHOT_SIZE = 2048 };

struct named {
    struct fixture f;
    struct image image;
    struct image_snapshot raw;
    struct domain *domain;
};

/* Domain "snap" with a qcow2 disk whose snapshot "s" keeps a cluster of its own. */
static int set_up(void **state)
{
    struct named *named = calloc(1, sizeof(*named));
    fixture_open(&named->f, &patient);
    struct image *image = &named->image;
    image_create(image, &(struct image_options){.name = "snap", .guest_size = GUEST_SIZE});
    image_write(image, 0, 1);
    named->raw = (struct image_snapshot){.id = "1",
                                         .name = "s",
                                         .l1_off = image->l1_off,
                                         .l1_entries = image->l1_entries,
                                         .sec = 1600000000,
                                         .extra_len = 16,
                                         .disk_size = SNAPSHOT_SIZE};
    image_add_snapshots(image, &named->raw, 1);
    char path[40];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", image->fd);
    named->domain = domain_create("id-snap", "snap");
    named->domain->state = DOMAIN_RUNNING;
    named->domain->n_disks = 1;
    named->domain->disks = calloc(1, sizeof(*named->domain->disks));
    struct disk *disk = &named->domain->disks[0];
    disk->target = strdup("vda");
    disk->n_layers = 1;
    disk->layers = calloc(1, sizeof(*disk->layers));
    disk->layers[0] = (struct disk_layer){.path = strdup(path), .format = QCOW_FORMAT_QCOW2};
    *state = named;
    return 0;
}

static int tear_down(void **state)
{
    struct named *named = *state;
    fixture_close(&named->f);
    domain_unref(named->domain);
    image_destroy(&named->image);
    free(named);
    return 0;
}

static int ask_named(struct named *named, uint64_t shown_size, struct asked *asked)
{
    struct named_snapshot snapshot = {.internal = image_snapshot_view(&named->image, &named->raw)};
    struct open_request request = {
        .domain = named->domain,
        .disk = &named->domain->disks[0],
        .snapshot = &snapshot,
        .shown = {.guest_size = shown_size, .mtime = {.tv_sec = 1600000000}, .blocks = 3},
        .pid = 815,
        .done = asked_done,
        .ctx = asked,
    };
    asked_init(asked);
    registry_open(named->f.registry, &request);
    assert_true(asked->is_done); /* there is nothing to wait for */
    return asked->result;
}

static void a_snapshot_is_read_while_its_image_is_written(void **state)
{
    struct named *named = *state;
    struct flock writer = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 101, .l_len = 1};
    assert_int_equal(fcntl(named->image.fd, F_OFD_SETLK, &writer), 0);
    struct asked asked;
    assert_int_equal(ask_named(named, SNAPSHOT_SIZE, &asked), 0);
    unsigned char want[512], got[GUEST_SIZE];
    image_fill(want, sizeof(want), 1);
    struct error err = {0};
    assert_int_equal(reader_read(asked.reader, 0, got, sizeof(got), &err), SNAPSHOT_SIZE);
    assert_memory_equal(got, want, sizeof(want));
    struct session_attr attr;
    reader_attr(asked.reader, &attr);
    assert_int_equal(attr.guest_size, SNAPSHOT_SIZE);
    assert_int_equal(attr.mtime.tv_sec, 1600000000);
    assert_int_equal(attr.blocks, 3);
    struct flock probe = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 201, .l_len = 1};
    assert_int_equal(fcntl(named->image.fd, F_OFD_GETLK, &probe), 0);
    assert_int_equal(probe.l_type, F_UNLCK); /* nothing forbids writing */
    reader_close(asked.reader);
}

static void a_deleted_snapshot_is_stale_for_its_readers(void **state)
{
    struct named *named = *state;
    struct asked asked, late;
    assert_int_equal(ask_named(named, SNAPSHOT_SIZE, &asked), 0);
    image_point_to_snapshots(&named->image, 0, 0);
    struct error err = {0};
    assert_int_equal(read_code(asked.reader, &err), -ESTALE);
    assert_int_equal(ask_named(named, SNAPSHOT_SIZE, &late), -ESTALE);
    reader_close(asked.reader);
}

static void another_size_than_shown_is_stale(void **state)
{
    struct named *named = *state;
    struct asked asked;
    assert_int_equal(ask_named(named, GUEST_SIZE, &asked), -ESTALE);
}

static void status_names_the_reader(void **state)
{
    struct named *named = *state;
    struct asked asked;
    assert_int_equal(ask_named(named, SNAPSHOT_SIZE, &asked), 0);
    char *text = registry_status(named->f.registry, named->domain, NULL, 0);
    assert_non_null(strstr(text, "\"pid\": 815"));
    assert_non_null(strstr(text, "\"snapshot\": \"s\""));
    free(text);
    reader_close(asked.reader);
    text = registry_status(named->f.registry, named->domain, NULL, 0);
    assert_null(strstr(text, "815"));
    free(text);
}

static void attributes_tell_what_a_snapshot_is(void **state)
{
    struct named *named = *state;
    struct named_snapshot snapshot = {.internal = image_snapshot_view(&named->image, &named->raw)};
    static const struct {
        const char *name, *want;
    } rows[] = {{"taken", "2020-09-13T12:26:40.000000000Z"},
                {"method", "internal"},
                {"consistency", NULL},
                {"error", "torn"}};
    struct error err;
    error_set(&err, -EIO, "torn");
    registry_note_error(named->f.registry, "id-snap", "s.raw", &err);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char *value = registry_xattr(named->f.registry, named->domain, &named->domain->disks[0],
                                     &snapshot, 0, rows[i].name);
        if (rows[i].want)
            assert_string_equal(value, rows[i].want);
        else
            assert_null(value);
        free(value);
    }
}

static void shutdown_ends_named_readers_too(void **state)
{
    struct named *named = *state;
    struct asked asked, late;
    assert_int_equal(ask_named(named, SNAPSHOT_SIZE, &asked), 0);
    registry_shutdown(named->f.registry);
    struct error err = {0};
    assert_int_equal(read_code(asked.reader, &err), -EIO);
    assert_int_equal(ask_named(named, SNAPSHOT_SIZE, &late), -ESHUTDOWN);
    reader_close(asked.reader);
}

int main(void)
{
    log_init(LOG_LEVEL_ERROR);
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_snapshot_is_read_while_its_image_is_written),
        TEST(a_deleted_snapshot_is_stale_for_its_readers),
        TEST(another_size_than_shown_is_stale),
        TEST(status_names_the_reader),
        TEST(attributes_tell_what_a_snapshot_is),
        TEST(shutdown_ends_named_readers_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
