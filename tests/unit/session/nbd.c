/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fs/session/nbd.c, against qemu-nbd: the server that a backup job has, in a process of its own. */
#include "fs/session/nbd.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "qcow/base/cleanup.h"
#include "qcow/base/thread.h"
#include "tests/lib/image.h"
#include "tests/lib/pause.h"
#include "tests/lib/random.h"

/* 8 MiB of data, 4 MiB that was never written, 4 MiB of written zeros, 16 MiB of data. */
enum { MIB = 1 << 20, DATA_LEN = 8 * MIB, ZEROS_AT = 12 * MIB, TAIL_AT = 16 * MIB };
enum { DISK_SIZE = 32 * MIB, TIMEOUT_MS = 20000, SHORT_MS = 300, START_S = 20 };

static char dir[] = "/tmp/nbd-test.XXXXXX";
static char image_path[64], socket_path[64];
static uint8_t *bytes; /* what the disk holds */
static pid_t server;
static struct qcow_cache *cache;

static void run(const char *command)
{
    if (system(command) != 0)
        fail_msg("failed: %s", command);
}

static int make_image(void **state)
{
    (void)state;
    auto_free char *command = NULL;
    if (!mkdtemp(dir))
        return -1;
    snprintf(image_path, sizeof(image_path), "%s/disk.qcow2", dir);
    snprintf(socket_path, sizeof(socket_path), "%s/socket", dir);
    bytes = calloc(1, DISK_SIZE);
    if (!bytes)
        return -1;
    image_fill(bytes, DATA_LEN, 1);
    image_fill(bytes + TAIL_AT, DISK_SIZE - TAIL_AT, 2);
    if (asprintf(&command,
                 "cd %s && qemu-img convert -f raw -O qcow2 raw disk.qcow2 && "
                 "qemu-io -f qcow2 -c 'write -z 12M 4M' disk.qcow2 >io",
                 dir) < 0)
        return -1;
    char raw[64];
    snprintf(raw, sizeof(raw), "%s/raw", dir);
    auto_close int fd = open(raw, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, DISK_SIZE) < 0 || pwrite(fd, bytes, DATA_LEN, 0) != DATA_LEN ||
        pwrite(fd, bytes + TAIL_AT, DISK_SIZE - TAIL_AT, TAIL_AT) != DISK_SIZE - TAIL_AT)
        return -1;
    run(command);
    return qcow_cache_create(1 << 20, &cache, NULL);
}

static int remove_image(void **state)
{
    (void)state;
    auto_free char *command = NULL;
    qcow_cache_destroy(cache);
    free(bytes);
    if (asprintf(&command, "rm -r %s", dir) < 0)
        return -1;
    run(command);
    return 0;
}

/* The socket's file is there a moment before anybody listens. */
static bool is_listening(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", socket_path);
    auto_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
}

static int start_server(void **state)
{
    (void)state;
    unlink(socket_path);
    server = fork();
    if (server == 0) {
        execlp("qemu-nbd", "qemu-nbd", "-r", "-t", "-e", "8", "-f", "qcow2", "-k", socket_path,
               "-x", "vda", image_path, (char *)NULL);
        _exit(127);
    }
    int64_t deadline_ns = monotonic_ns() + (int64_t)START_S * 1000000000;
    while (!is_listening()) {
        if (monotonic_ns() > deadline_ns)
            return -1;
        pause_us(10000);
    }
    return 0;
}

static void kill_server(void)
{
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    server = 0;
}

static int stop_server(void **state)
{
    (void)state;
    if (server)
        kill_server();
    return 0;
}

static struct qcow_image *open_export(unsigned timeout_ms)
{
    struct qcow_file file;
    struct qcow_image *opened = NULL;
    struct error err = {0};
    if (nbd_open(socket_path, "vda", timeout_ms, &file, &err) < 0 ||
        qcow_open(&file, NULL, cache, NULL, &opened, &err) < 0)
        fail_msg("%s", err.text);
    return opened;
}

static void expect_bytes(struct qcow_image *opened, uint64_t guest_off, size_t len)
{
    auto_free uint8_t *buf = malloc(len);
    struct error err = {0};
    if (qcow_read(opened, guest_off, buf, len, &err) != (ssize_t)len)
        fail_msg("%s", err.text);
    assert_memory_equal(buf, bytes + guest_off, len);
}

static void expect_eio(struct qcow_image *opened, bool is_hanging)
{
    auto_free uint8_t *buf = malloc(MIB);
    struct error err = {0};
    assert_int_equal(qcow_read(opened, 0, buf, MIB, &err), -EIO);
    assert_int_equal(err.code, -EIO);
    assert_non_null(strstr(err.text, "NBD export 'vda' at '"));
    /* A server that is gone is noticed as such, and not by the time that passes. */
    assert_int_equal(strstr(err.text, "no answer within") != NULL, is_hanging);
}

static void an_export_is_read_byte_for_byte(void **state)
{
    (void)state;
    struct qcow_image *opened = open_export(TIMEOUT_MS);
    assert_true(qcow_size(opened) == DISK_SIZE);
    expect_bytes(opened, 0, 512);
    expect_bytes(opened, 4097, 3);
    expect_bytes(opened, 5 * MIB + 1, 4 * MIB);
    expect_bytes(opened, 0, DISK_SIZE);
    uint8_t buf[1024];
    assert_int_equal(qcow_read(opened, DISK_SIZE - 512, buf, sizeof(buf), NULL), 512);
    assert_memory_equal(buf, bytes + DISK_SIZE - 512, 512);
    qcow_close(opened);
}

static void holes_and_zeros_of_an_export_are_told(void **state)
{
    (void)state;
    static const struct qcow_extent wanted[] = {{0, DATA_LEN, QCOW_DATA},
                                                {DATA_LEN, TAIL_AT - DATA_LEN, QCOW_ZERO},
                                                {TAIL_AT, DISK_SIZE - TAIL_AT, QCOW_DATA},
                                                {100, DATA_LEN - 100, QCOW_DATA},
                                                {ZEROS_AT, TAIL_AT - ZEROS_AT, QCOW_ZERO}};
    struct qcow_image *opened = open_export(TIMEOUT_MS);
    for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++) {
        struct qcow_extent found;
        struct error err = {0};
        if (qcow_map(opened, wanted[i].guest_off, UINT64_MAX, &found, &err) < 0)
            fail_msg("%s", err.text);
        if (found.len != wanted[i].len || found.kind != wanted[i].kind)
            fail_msg("at %llu: %llu bytes of kind %d", (unsigned long long)wanted[i].guest_off,
                     (unsigned long long)found.len, (int)found.kind);
    }
    struct qcow_extent part;
    assert_int_equal(qcow_map(opened, 4096, 8192, &part, NULL), 0);
    assert_true(part.len == 8192 && part.kind == QCOW_DATA);
    qcow_close(opened);
}

struct reader {
    pthread_t thread;
    struct qcow_image *opened;
    unsigned seed;
    bool is_right;
};

/* Who reads on and on asks where zeros come, and then not for the zeros. */
static void zeros_are_not_fetched_by_a_sequential_reader(void **state)
{
    (void)state;
    struct qcow_image *opened = open_export(TIMEOUT_MS);
    const size_t steps[] = {MIB, 4096, 700001, 65536};
    uint64_t at = 0;
    for (size_t i = 0; at < DISK_SIZE; i++) {
        size_t len = steps[i % 4] < DISK_SIZE - at ? steps[i % 4] : DISK_SIZE - at;
        expect_bytes(opened, at, len);
        at += len;
    }
    kill_server();
    expect_bytes(opened, ZEROS_AT, MIB);
    expect_eio(opened, false);
    qcow_close(opened);
}

static void *read_here_and_there(void *ctx)
{
    struct reader *reader = ctx;
    auto_free uint8_t *buf = malloc(MIB);
    reader->is_right = true;
    for (int i = 0; i < 100; i++) {
        uint64_t at = (uint64_t)random_next(&reader->seed) % (DISK_SIZE - MIB);
        struct qcow_extent found;
        reader->is_right = reader->is_right &&
                           qcow_read(reader->opened, at, buf, MIB, NULL) == MIB &&
                           memcmp(buf, bytes + at, MIB) == 0 &&
                           qcow_map(reader->opened, at, 4096, &found, NULL) == 0;
    }
    return NULL;
}

static void more_readers_than_connections_are_all_served(void **state)
{
    (void)state;
    enum { N_READERS = 10 };
    struct reader readers[N_READERS];
    struct qcow_image *opened = open_export(TIMEOUT_MS);
    for (unsigned i = 0; i < N_READERS; i++) {
        readers[i] = (struct reader){.opened = opened, .seed = i};
        assert_int_equal(pthread_create(&readers[i].thread, NULL, read_here_and_there, &readers[i]),
                         0);
    }
    for (unsigned i = 0; i < N_READERS; i++) {
        pthread_join(readers[i].thread, NULL);
        assert_true(readers[i].is_right);
    }
    qcow_close(opened);
}

static void a_missing_server_or_export_is_eio(void **state)
{
    (void)state;
    struct qcow_file file;
    struct error err = {0};
    assert_int_equal(nbd_open(socket_path, "vdb", TIMEOUT_MS, &file, &err), -EIO);
    assert_non_null(strstr(err.text, "NBD export 'vdb' at '"));
    assert_int_equal(nbd_open("/nowhere/socket", "vda", TIMEOUT_MS, &file, &err), -EIO);
    assert_non_null(strstr(err.text, "No such file or directory"));
}

static void a_server_that_dies_is_eio_at_once(void **state)
{
    (void)state;
    struct qcow_image *opened = open_export(TIMEOUT_MS);
    struct qcow_image *unread = open_export(TIMEOUT_MS);
    expect_bytes(opened, 0, MIB);
    kill_server();
    expect_eio(opened, false);
    expect_eio(opened, false);
    struct qcow_extent found;
    assert_int_equal(qcow_map(unread, 0, 4096, &found, NULL), -EIO);
    expect_eio(unread, false);
    qcow_close(opened);
    qcow_close(unread);
}

/* Under valgrind: libnbd must not be asked to say anything to it. */
static void a_server_that_died_unnoticed_is_hung_up_on(void **state)
{
    (void)state;
    struct qcow_image *opened = open_export(TIMEOUT_MS);
    expect_bytes(opened, 0, MIB);
    kill_server();
    qcow_close(opened);
}

/* Or each read would have a line of its own in the log. */
static void a_server_that_dies_has_one_reason(void **state)
{
    (void)state;
    struct qcow_image *opened = open_export(TIMEOUT_MS);
    expect_bytes(opened, 0, MIB);
    kill_server();
    for (int i = 0; i < 4; i++) {
        char byte;
        struct error err = {0};
        assert_int_equal(qcow_read(opened, 0, &byte, 1, &err), -EIO);
        if (!strstr(err.text, "the connection was lost"))
            fail_msg("read %d: %s", i, err.text);
    }
    qcow_close(opened);
}

static void *expect_eio_there(void *ctx)
{
    expect_eio(ctx, false);
    return NULL;
}

static void readers_under_way_get_eio_when_the_server_dies(void **state)
{
    (void)state;
    enum { N_READERS = 6 };
    pthread_t threads[N_READERS];
    struct qcow_image *opened = open_export(TIMEOUT_MS);
    kill(server, SIGSTOP);
    for (int i = 0; i < N_READERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, expect_eio_there, opened), 0);
    pause_us(100000); /* whether they wait already or begin later makes no difference to them */
    kill_server();
    for (int i = 0; i < N_READERS; i++)
        pthread_join(threads[i], NULL);
    qcow_close(opened);
}

static void a_server_that_hangs_is_eio_in_time_and_read_again_later(void **state)
{
    (void)state;
    struct qcow_image *opened = open_export(SHORT_MS);
    struct qcow_extent found;
    kill(server, SIGSTOP);
    expect_eio(opened, true);
    expect_eio(opened, true); /* over a new connection, which nobody accepts */
    assert_int_equal(qcow_map(opened, 0, 4096, &found, NULL), -EIO);
    struct qcow_file file;
    struct error err = {0};
    assert_int_equal(nbd_open(socket_path, "vda", SHORT_MS, &file, &err), -ETIMEDOUT);
    assert_non_null(strstr(err.text, "no answer within 300 ms"));
    kill(server, SIGCONT);
    auto_free uint8_t *buf = malloc(MIB);
    ssize_t n = -1;
    for (int i = 0; i < START_S * 1000 / SHORT_MS && n < 0; i++)
        n = qcow_read(opened, 5, buf, MIB, NULL);
    assert_int_equal(n, MIB);
    assert_memory_equal(buf, bytes + 5, MIB);
    qcow_close(opened);
}

static void a_socket_where_nobody_answers_times_out(void **state)
{
    (void)state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/silent", dir);
    auto_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 1), 0);
    struct qcow_file file;
    assert_int_equal(nbd_open(address.sun_path, "vda", SHORT_MS, &file, NULL), -ETIMEDOUT);
}

int main(void)
{
    if (system("command -v qemu-nbd >/dev/null && command -v qemu-io >/dev/null") != 0) {
        puts("skipped: no qemu-nbd or qemu-io");
        return 77;
    }
    signal(SIGPIPE, SIG_DFL);
#define SERVED(test) cmocka_unit_test_setup_teardown(test, start_server, stop_server)
    const struct CMUnitTest tests[] = {
        SERVED(an_export_is_read_byte_for_byte),
        SERVED(holes_and_zeros_of_an_export_are_told),
        SERVED(zeros_are_not_fetched_by_a_sequential_reader),
        SERVED(more_readers_than_connections_are_all_served),
        SERVED(a_missing_server_or_export_is_eio),
        SERVED(a_server_that_dies_is_eio_at_once),
        SERVED(a_server_that_died_unnoticed_is_hung_up_on),
        SERVED(a_server_that_dies_has_one_reason),
        SERVED(readers_under_way_get_eio_when_the_server_dies),
        SERVED(a_server_that_hangs_is_eio_in_time_and_read_again_later),
        cmocka_unit_test(a_socket_where_nobody_answers_times_out),
    };
    return cmocka_run_group_tests(tests, make_image, remove_image);
}
