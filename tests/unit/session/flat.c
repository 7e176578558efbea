/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fs/session/reader.c, image.c: a disk read as one qcow2 file. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "tests/unit/session/registry_fixture.h"

enum {
    CLUSTER = 65536,
    DATA_OFF = 5 * CLUSTER, /* header, L1, refcount table and block, one L2 table */
    FLAT_SIZE = DATA_OFF + FAKE_DISK_SIZE,
};

static void flatten(struct reader *reader)
{
    struct error err = {0};
    if (reader_flatten(reader, NULL, NULL, &err) < 0)
        fail_msg("%s", err.text);
}

static void check_data(struct reader *reader, unsigned disk)
{
    unsigned char buf[4096];
    struct error err = {0};
    assert_int_equal(reader_read(reader, DATA_OFF + 5000, buf, sizeof(buf), &err), sizeof(buf));
    for (unsigned i = 0; i < sizeof(buf); i++)
        assert_int_equal(buf[i], fake_host_byte(disk, 5000 + i));
}

static void a_flattened_reader_reads_a_qcow2_file(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    struct reader *reader = open_disk(&f, "off", "vdb");
    assert_int_equal(reader_size(reader), FAKE_DISK_SIZE);
    flatten(reader);
    assert_int_equal(reader_size(reader), FLAT_SIZE);
    assert_true(reader_size(reader) <= reader_max_flat_size(FAKE_DISK_SIZE));
    unsigned char buf[8];
    assert_int_equal(reader_read(reader, 0, buf, sizeof(buf), NULL), sizeof(buf));
    assert_memory_equal(buf, "QFI\xfb\0\0\0\3", sizeof(buf));
    check_data(reader, 1);
    assert_int_equal(reader_read(reader, FLAT_SIZE - 3, buf, sizeof(buf), NULL), 3);
    assert_int_equal(reader_read(reader, FLAT_SIZE, buf, sizeof(buf), NULL), 0);
    struct session_attr attr;
    reader_attr(reader, &attr);
    assert_int_equal(attr.guest_size, FAKE_DISK_SIZE);
    reader_close(reader);
    fixture_close(&f);
}

static void a_file_is_all_data(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    struct reader *reader = open_disk(&f, "off", "vda");
    flatten(reader);
    uint64_t off = 0;
    assert_int_equal(reader_seek(reader, 70000, SEEK_DATA, NULL, NULL, &off, NULL), 0);
    assert_int_equal(off, 70000);
    assert_int_equal(reader_seek(reader, 70000, SEEK_HOLE, NULL, NULL, &off, NULL), 0);
    assert_int_equal(off, FLAT_SIZE);
    assert_int_equal(reader_seek(reader, FLAT_SIZE, SEEK_DATA, NULL, NULL, &off, NULL), -ENXIO);
    assert_int_equal(reader_seek(reader, FLAT_SIZE, SEEK_HOLE, NULL, NULL, &off, NULL), -ENXIO);
    reader_close(reader);
    fixture_close(&f);
}

/* Or one node would stand for two files. */
static void all_readers_of_an_instant_get_the_same_file(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    struct reader *first = open_disk(&f, "live", "vda"), *second = open_disk(&f, "live", "vda");
    flatten(first);
    char *path = fake_host_path(f.fake, "live", 0);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    /* The file system has its own mind about holes. */
    assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 8 * CLUSTER), 0);
    flatten(second);
    assert_int_equal(reader_size(second), reader_size(first));
    assert_true(reader_layout(second) == reader_layout(first));
    reader_close(first);
    reader_close(second);
    /* The next instant finds the hole. */
    fake_host_await_ended(f.fake, FAKE_MERGE, 1);
    struct reader *third = open_disk(&f, "live", "vda");
    flatten(third);
    assert_int_equal(reader_size(third), FLAT_SIZE - 8 * CLUSTER);
    reader_close(third);
    close(fd);
    free(path);
    fixture_close(&f);
}

static bool gives_up(void *ctx)
{
    ++*(int *)ctx;
    return true;
}

static void who_gives_up_can_ask_again(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    struct reader *reader = open_disk(&f, "off", "vda");
    struct error err = {0};
    int n_asked = 0;
    assert_int_equal(reader_flatten(reader, gives_up, &n_asked, &err), -EINTR);
    assert_int_equal(n_asked, 1);
    assert_int_equal(reader_size(reader), FAKE_DISK_SIZE);
    check_bytes(reader, 0);
    flatten(reader);
    check_data(reader, 0);
    reader_close(reader);
    fixture_close(&f);
}

/* Called in the middle of the walk. */
static bool start_guest(void *ctx)
{
    struct fixture *f = ctx;
    fake_host_set_state(f->fake, "solo", DOMAIN_RUNNING);
    return false;
}

static void an_instant_that_ends_meanwhile_ends_the_walk(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    struct reader *reader = open_disk(&f, "solo", "vda");
    struct error err = {0};
    assert_int_equal(reader_flatten(reader, start_guest, &f, &err), -EIO);
    assert_non_null(strstr(err.text, "was started"));
    assert_int_equal(reader_flatten(reader, NULL, NULL, &err), -EIO);
    reader_close(reader);
    fixture_close(&f);
}

static void after_the_end_of_an_instant_its_file_fails(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    struct reader *reader = open_disk(&f, "solo", "vda");
    flatten(reader);
    check_data(reader, 0);
    fake_host_set_state(f.fake, "solo", DOMAIN_RUNNING);
    struct error err = {0};
    uint64_t off;
    assert_int_equal(read_code(reader, &err), -EIO);
    assert_int_equal(reader_seek(reader, 0, SEEK_DATA, NULL, NULL, &off, &err), -EIO);
    reader_close(reader);
    fixture_close(&f);
}

int main(void)
{
    log_init(LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_flattened_reader_reads_a_qcow2_file),
        cmocka_unit_test(a_file_is_all_data),
        cmocka_unit_test(all_readers_of_an_instant_get_the_same_file),
        cmocka_unit_test(who_gives_up_can_ask_again),
        cmocka_unit_test(an_instant_that_ends_meanwhile_ends_the_walk),
        cmocka_unit_test(after_the_end_of_an_instant_its_file_fails),
    };
    return cmocka_run_group_tests_name("session/flat", tests, NULL, NULL);
}
