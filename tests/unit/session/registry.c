/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who gets which instant, and for how long it is kept. */
#include "fs/session/registry.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "qcow/format.h"
#include "tests/lib/image.h"
#include "tests/lib/pause.h"
#include "tests/unit/session/registry_fixture.h"

static void a_running_domain_is_frozen_once_and_merged_back(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    struct reader *reader = open_disk(&f, "live", "vda");
    check_bytes(reader, 0);
    assert_int_equal(fake_host_count(f.fake, FAKE_TAKE), 1);
    reader_close(reader); /* its only disk was read: nothing to linger for */
    fake_host_await_ended(f.fake, FAKE_MERGE, 1);
    fixture_close(&f);
}

static void opens_at_once_share_one_instant(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    fake_host_hold(f.fake, FAKE_TAKE);
    struct asked a, b;
    ask(&f, "live", "vda", &a);
    fake_host_await_begun(f.fake, FAKE_TAKE, 1);
    ask(&f, "live", "vda", &b);
    assert_false(asked_is_done(&a));
    assert_false(asked_is_done(&b));
    fake_host_let_go(f.fake, FAKE_TAKE);
    assert_int_equal(asked_await(&a), 0);
    assert_int_equal(asked_await(&b), 0);
    assert_int_equal(fake_host_count(f.fake, FAKE_TAKE), 1);
    reader_close(a.reader);
    reader_close(b.reader);
    fixture_close(&f);
}

static void a_young_instant_is_joined(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    struct reader *first = open_disk(&f, "live", "vda");
    assert_int_equal(peek_serial(&f, "id-live", "vda"), 1);
    struct reader *second = open_disk(&f, "live", "vda");
    reader_close(first);
    struct reader *third = open_disk(&f, "live", "vda");
    assert_int_equal(fake_host_count(f.fake, FAKE_TAKE), 1);
    reader_close(second);
    reader_close(third);
    fixture_close(&f);
}

static void an_older_instant_with_readers_is_in_the_way(void **state)
{
    (void)state;
    struct fixture f;
    struct registry_config config = patient;
    config.join_s = 0;
    fixture_open(&f, &config);
    struct reader *reader = open_disk(&f, "live", "vda");
    struct error err;
    assert_int_equal(open_fails(&f, "live", "vda", &err), -EBUSY);
    assert_string_equal(err.text, "an instant taken 0 s ago is still read by pid 4711");
    reader_note_upload(reader, 7, "a name");
    assert_int_equal(open_fails(&f, "live", "vda", &err), -EBUSY);
    assert_string_equal(err.text,
                        "an instant taken 0 s ago is still read by upload 7 (a name) of pid 4711");
    struct session_peek peek;
    registry_peek(f.registry, "id-live", "vda", &peek);
    assert_int_equal(peek.serial, 1);
    assert_true(peek.is_taken);
    reader_close(reader);
    reader = open_disk(&f, "live", "vda");
    assert_int_equal(fake_host_count(f.fake, FAKE_TAKE), 2);
    reader_close(reader);
    fixture_close(&f);
}

static void a_disk_not_read_yet_joins_a_lingering_instant(void **state)
{
    (void)state;
    struct fixture f;
    struct registry_config config = patient;
    config.join_s = 0; /* however old it is */
    fixture_open(&f, &config);
    struct reader *reader = open_disk(&f, "off", "vda");
    reader_close(reader);
    assert_int_equal(peek_serial(&f, "id-off", "vdb"), 1);
    assert_int_equal(peek_serial(&f, "id-off", "vda"), 2);
    reader = open_disk(&f, "off", "vdb");
    check_bytes(reader, 1);
    reader_close(reader);
    fixture_close(&f);
}

static void a_disk_read_already_takes_a_fresh_instant(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    reader_close(open_disk(&f, "off", "vda"));
    struct reader *reader = open_disk(&f, "off", "vda");
    assert_int_equal(peek_serial(&f, "id-off", "vdb"), 2); /* of the fresh one */
    reader_close(reader);
    fixture_close(&f);
}

static void a_fresh_instant_waits_for_the_release_of_the_old(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    fake_host_hold(f.fake, FAKE_MERGE);
    reader_close(open_disk(&f, "live", "vda"));
    fake_host_await_begun(f.fake, FAKE_MERGE, 1);
    struct asked a, b;
    ask(&f, "live", "vda", &a);
    ask(&f, "live", "vda", &b);
    assert_int_equal(peek_serial(&f, "id-live", "vda"), 2);
    assert_int_equal(fake_host_count(f.fake, FAKE_TAKE), 1);
    assert_false(asked_is_done(&a));
    fake_host_let_go(f.fake, FAKE_MERGE);
    assert_int_equal(asked_await(&a), 0);
    assert_int_equal(asked_await(&b), 0);
    assert_int_equal(fake_host_count(f.fake, FAKE_TAKE), 2);
    reader_close(a.reader);
    reader_close(b.reader);
    fixture_close(&f);
}

static void lingering_ends_by_itself(void **state)
{
    (void)state;
    struct fixture f;
    struct registry_config config = patient;
    config.linger_s = 1;
    fixture_open(&f, &config);
    reader_close(open_disk(&f, "off", "vda"));
    int64_t deadline = monotonic_ns() + (int64_t)20 * 1000000000;
    while (peek_serial(&f, "id-off", "vdb") == 1 && monotonic_ns() < deadline)
        pause_us(10000);
    assert_int_equal(peek_serial(&f, "id-off", "vdb"), 2);
    fixture_close(&f);
}

static void a_serial_that_is_over_is_stale(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    reader_close(open_disk(&f, "live", "vda"));
    fake_host_await_ended(f.fake, FAKE_MERGE, 1);
    static const uint64_t serials[] = {0, 1, 3};
    for (size_t i = 0; i < 3; i++) {
        struct asked asked;
        asked_init(&asked);
        ask_serial(&f, "live", "vda", serials[i], &asked);
        assert_int_equal(asked_await(&asked), -ESTALE);
    }
    fixture_close(&f);
}

static void a_reader_keeps_what_was_shown_before_its_open(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    struct reader *reader = open_disk(&f, "off", "vda");
    struct session_attr attr;
    reader_attr(reader, &attr);
    assert_int_equal(attr.guest_size, FAKE_DISK_SIZE);
    assert_int_equal(attr.mtime.tv_sec, 1000);
    assert_int_equal(attr.blocks, 77);
    struct session_peek peek; /* the other disk has its own */
    registry_peek(f.registry, "id-off", "vdb", &peek);
    assert_true(peek.is_taken);
    assert_int_equal(peek.attr.guest_size, FAKE_DISK_SIZE);
    assert_true(peek.attr.mtime.tv_sec > 1000000000);
    reader_close(reader);
    fixture_close(&f);
}

static void a_time_to_come_becomes_that_of_the_instant(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    struct domain *domain = fake_host_find(f.fake, "off");
    struct asked asked;
    asked_init(&asked);
    struct open_request request = {
        .domain = domain,
        .disk = &domain->disks[0],
        .serial = 1,
        .shown = {.guest_size = FAKE_DISK_SIZE, .mtime = {.tv_sec = 4000000000}, .blocks = 5},
        .done = asked_done,
        .ctx = &asked,
    };
    registry_open(f.registry, &request);
    assert_int_equal(asked_await(&asked), 0);
    struct session_attr attr;
    reader_attr(asked.reader, &attr);
    assert_true(attr.mtime.tv_sec < 4000000000);
    reader_close(asked.reader);
    domain_unref(domain);
    fixture_close(&f);
}

static void a_disk_that_changed_its_size_is_looked_up_again(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    char *path = fake_host_path(f.fake, "off", 0);
    assert_int_equal(truncate(path, 2 * FAKE_DISK_SIZE), 0);
    free(path);
    struct error err;
    assert_int_equal(open_fails(&f, "off", "vda", &err), -ESTALE);
    struct session_peek peek; /* what the second look shows can be opened */
    registry_peek(f.registry, "id-off", "vda", &peek);
    assert_int_equal(peek.serial, 1);
    assert_true(peek.is_taken);
    assert_int_equal(peek.attr.guest_size, 2 * FAKE_DISK_SIZE);
    fixture_close(&f);
}

static void a_cancelled_open_is_interrupted_and_the_others_go_on(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    fake_host_hold(f.fake, FAKE_TAKE);
    struct asked a, b;
    ask(&f, "live", "vda", &a);
    ask(&f, "live", "vda", &b);
    registry_cancel(f.registry, &a);
    assert_int_equal(asked_await(&a), -EINTR);
    assert_false(asked_is_done(&b));
    fake_host_let_go(f.fake, FAKE_TAKE);
    assert_int_equal(asked_await(&b), 0);
    registry_cancel(f.registry, &b); /* answered already: nothing happens */
    reader_close(b.reader);
    fixture_close(&f);
}

static void giving_up_before_the_request_waits_is_noticed(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    fake_host_hold(f.fake, FAKE_TAKE);
    struct asked asked;
    asked_init(&asked);
    asked.has_given_up = true;
    ask_serial(&f, "live", "vda", 1, &asked);
    assert_int_equal(asked_await(&asked), -EINTR);
    fake_host_let_go(f.fake, FAKE_TAKE);
    fixture_close(&f);
}

static bool is_write_locked(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 201, .l_len = 1};
    assert_int_equal(fcntl(fd, F_OFD_GETLK, &fl), 0);
    close(fd);
    return fl.l_type != F_UNLCK;
}

static void a_cold_image_is_locked_until_the_last_close(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    char *path = fake_host_path(f.fake, "solo", 0);
    struct reader *reader = open_disk(&f, "solo", "vda");
    assert_true(is_write_locked(path));
    reader_close(reader);
    int64_t deadline = monotonic_ns() + (int64_t)20 * 1000000000;
    while (is_write_locked(path) && monotonic_ns() < deadline)
        pause_us(1000);
    assert_false(is_write_locked(path));
    free(path);
    fixture_close(&f);
}

static void holes_are_found_by_seek(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    char *path = fake_host_path(f.fake, "solo", 0);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(
        fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 65536, FAKE_DISK_SIZE - 65536),
        0);
    close(fd);
    free(path);
    struct reader *reader = open_disk(&f, "solo", "vda");
    struct error err = {0};
    uint64_t off = 0;
    assert_int_equal(reader_seek(reader, 100, SEEK_DATA, NULL, NULL, &off, &err), 0);
    assert_int_equal(off, 100);
    assert_int_equal(reader_seek(reader, 100, SEEK_HOLE, NULL, NULL, &off, &err), 0);
    assert_int_equal(off, 65536);
    assert_int_equal(reader_seek(reader, 65536, SEEK_DATA, NULL, NULL, &off, &err), -ENXIO);
    assert_int_equal(reader_seek(reader, FAKE_DISK_SIZE - 1, SEEK_HOLE, NULL, NULL, &off, &err), 0);
    assert_int_equal(off, FAKE_DISK_SIZE - 1);
    assert_int_equal(reader_seek(reader, FAKE_DISK_SIZE, SEEK_HOLE, NULL, NULL, &off, &err),
                     -ENXIO);
    assert_int_equal(reader_seek(reader, UINT64_MAX, SEEK_DATA, NULL, NULL, &off, &err), -ENXIO);
    reader_close(reader);
    fixture_close(&f);
}

/* A disk of @n_tables times 32 KiB, each L1 entry of which names the same empty L2 table. */
static void put_hostile(struct fixture *f, uint32_t n_tables, uint64_t guest_size)
{
    struct image image;
    image_create(&image, &(struct image_options){.name = "solo", .guest_size = guest_size});
    uint64_t l2_off = image_alloc(&image, 1);
    for (uint32_t i = 0; i < n_tables; i++)
        image_set_l1(&image, i, l2_off | L2_COPIED);
    fake_host_put_image(f->fake, "solo", 0, image.fd);
    image_destroy(&image);
}

static void a_walk_that_the_image_does_not_account_for_is_refused(void **state)
{
    (void)state;
    enum { N_TABLES = 1 << 20 };
    const uint64_t guest_size = (uint64_t)N_TABLES * 64 * 512;
    struct fixture f;
    fixture_open(&f, &patient);
    put_hostile(&f, N_TABLES, guest_size);
    struct domain *domain = fake_host_find(f.fake, "solo");
    struct asked asked;
    asked_init(&asked);
    struct open_request request = {.domain = domain,
                                   .disk = domain_find_disk(domain, "vda"),
                                   .serial = peek_serial(&f, "id-solo", "vda"),
                                   .shown = {.guest_size = guest_size},
                                   .done = asked_done,
                                   .ctx = &asked};
    registry_open(f.registry, &request);
    assert_int_equal(asked_await(&asked), 0);
    struct error err = {0};
    uint64_t off = 0;
    assert_int_equal(reader_seek(asked.reader, 0, SEEK_DATA, NULL, NULL, &off, &err), -EBADMSG);
    assert_non_null(strstr(err.text, "more L2 tables than the file has clusters"));
    /* Where it does not take long, it is walked. */
    assert_int_equal(
        reader_seek(asked.reader, guest_size - 65536, SEEK_DATA, NULL, NULL, &off, &err), -ENXIO);
    reader_close(asked.reader);
    domain_unref(domain);
    fixture_close(&f);
}

/* Number of layers in what the disks are shown from, for who was told @current by the host. */
static size_t count_layers(struct fixture *f, struct domain *current)
{
    struct domain *record = registry_record(f->registry, current);
    size_t n = record->disks[0].n_layers;
    domain_unref(record);
    return n;
}

static void disks_are_shown_without_the_overlay(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    struct domain *before = fake_host_find(f.fake, "live");
    struct reader *reader = open_disk(&f, "live", "vda");
    struct domain *meanwhile = fake_host_find(f.fake, "live");
    assert_int_equal(meanwhile->disks[0].n_layers, 2);
    assert_int_equal(count_layers(&f, meanwhile), 1);
    assert_int_equal(count_layers(&f, before), 1);
    fake_host_hold(f.fake, FAKE_MERGE);
    reader_close(reader);
    fake_host_await_begun(f.fake, FAKE_MERGE, 1);
    assert_int_equal(count_layers(&f, meanwhile), 1);
    fake_host_let_go(f.fake, FAKE_MERGE);
    registry_shutdown(f.registry);
    /* Asked before the end, and looked at only now. */
    assert_int_equal(count_layers(&f, meanwhile), 1);
    domain_unref(before);
    domain_unref(meanwhile);
    fixture_close(&f);
}

static void a_locked_image_hides_no_change_of_the_record(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    struct reader *reader = open_disk(&f, "solo", "vda");
    fake_host_set_unsupported(f.fake, "solo", 0, "shareable");
    struct domain *changed = fake_host_find(f.fake, "solo");
    struct domain *record = registry_record(f.registry, changed);
    assert_ptr_equal(record, changed);
    domain_unref(record);
    domain_unref(changed);
    reader_close(reader);
    fixture_close(&f);
}

int main(void)
{
    log_init(LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_running_domain_is_frozen_once_and_merged_back),
        cmocka_unit_test(opens_at_once_share_one_instant),
        cmocka_unit_test(a_young_instant_is_joined),
        cmocka_unit_test(an_older_instant_with_readers_is_in_the_way),
        cmocka_unit_test(a_disk_not_read_yet_joins_a_lingering_instant),
        cmocka_unit_test(a_disk_read_already_takes_a_fresh_instant),
        cmocka_unit_test(a_fresh_instant_waits_for_the_release_of_the_old),
        cmocka_unit_test(lingering_ends_by_itself),
        cmocka_unit_test(a_serial_that_is_over_is_stale),
        cmocka_unit_test(a_reader_keeps_what_was_shown_before_its_open),
        cmocka_unit_test(a_time_to_come_becomes_that_of_the_instant),
        cmocka_unit_test(a_disk_that_changed_its_size_is_looked_up_again),
        cmocka_unit_test(a_cancelled_open_is_interrupted_and_the_others_go_on),
        cmocka_unit_test(giving_up_before_the_request_waits_is_noticed),
        cmocka_unit_test(a_cold_image_is_locked_until_the_last_close),
        cmocka_unit_test(holes_are_found_by_seek),
        cmocka_unit_test(a_walk_that_the_image_does_not_account_for_is_refused),
        cmocka_unit_test(disks_are_shown_without_the_overlay),
        cmocka_unit_test(a_locked_image_hides_no_change_of_the_record),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
