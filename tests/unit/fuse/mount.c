/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The mount in this process, over the fake host: what takes a hypervisor that answers late. The
 * asking is done by children, so that a signal meets a lone system call.
 */
#include "fs/fuse/mount.h"
#include "fs/session/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "qcow/base/cleanup.h"
#include "qcow/base/thread.h"
#include "tests/lib/fake_host.h"
#include "tests/lib/pause.h"

enum { EXIT_SKIP = 77, CACHE_LEN = 1 << 20 };

struct fixture {
    struct fake_host *fake;
    struct qcow_cache *cache;
    struct journal *journal;
    struct registry *registry;
    struct stamps *stamps;
    char dir[64]; /* the mount point */
    char now[128];
    pthread_t server;

    struct mutex lock;
    struct cond changed;
    struct mount *mount GUARDED_BY(lock);
    bool has_failed GUARDED_BY(lock);
};

static void *serve(void *arg)
{
    struct fixture *f = arg;
    struct mount_config config = {
        .tree = {.host = fake_host_base(f->fake),
                 .registry = f->registry,
                 .stamps = f->stamps,
                 .umask = 077},
        .attach = {.source = "fake, with a comma and a \\", .mountpoint = f->dir},
    };
    struct error err = {0};
    struct mount *mount = NULL;
    int r = mount_open(&config, &mount, &err);
    if (r < 0)
        print_error("%s\n", err.text);
    mutex_lock(&f->lock);
    f->mount = mount;
    f->has_failed = r < 0;
    cond_wake_all(&f->changed);
    mutex_unlock(&f->lock);
    if (r == 0 && mount_serve(mount, &err) < 0)
        print_error("%s\n", err.text);
    return NULL;
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    struct error err = {0};
    f->fake = fake_host_create();
    fake_host_add(f->fake, "web", 1);
    fake_host_set_state(f->fake, "web", DOMAIN_RUNNING);
    assert_int_equal(qcow_cache_create(CACHE_LEN, &f->cache, &err), 0);
    assert_int_equal(journal_open(fake_host_dir(f->fake), "fake", &f->journal, &err), 0);
    struct registry_config config = {.host = fake_host_base(f->fake),
                                     .journal = f->journal,
                                     .cache = f->cache,
                                     .live = LIVE_OVERLAY,
                                     .join_s = 60,
                                     .max_hold_s = 3600,
                                     .max_open = 16};
    assert_int_equal(registry_create(&config, &f->registry, &err), 0);
    assert_int_equal(stamps_open(fake_host_dir(f->fake), "fake", &f->stamps, &err), 0);
    strcpy(f->dir, "/tmp/virtsnapfs-unit.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->now, sizeof(f->now), "%s/web/snapshots/now.raw", f->dir);
    mutex_init(&f->lock);
    cond_init(&f->changed);
    assert_int_equal(pthread_create(&f->server, NULL, serve, f), 0);
    mutex_lock(&f->lock);
    while (!f->mount && !f->has_failed)
        cond_wait(&f->changed, &f->lock);
    bool has_failed = f->has_failed;
    mutex_unlock(&f->lock);
    assert_false(has_failed);
    *state = f;
    return 0;
}

static struct mount *get_mount(struct fixture *f)
{
    mutex_lock(&f->lock);
    struct mount *mount = f->mount;
    mutex_unlock(&f->lock);
    return mount;
}

static void end_mount(struct fixture *f)
{
    struct mount *mount = get_mount(f);
    if (!mount)
        return;
    mount_stop(mount);
    pthread_join(f->server, NULL);
    mount_close(mount);
    mutex_lock(&f->lock);
    f->mount = NULL;
    mutex_unlock(&f->lock);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    registry_shutdown(f->registry);
    end_mount(f);
    registry_destroy(f->registry);
    journal_close(f->journal);
    stamps_close(f->stamps);
    fake_host_destroy(f->fake);
    qcow_cache_destroy(f->cache);
    assert_int_equal(rmdir(f->dir), 0);
    cond_fini(&f->changed);
    mutex_fini(&f->lock);
    free(f);
    return 0;
}

static void on_signal(int number)
{
    (void)number;
}

/* A child that opens now.raw, reads a byte and leaves with the errno, 0 or 255 for a wrong byte. */
static pid_t start_reader(const struct fixture *f)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid > 0)
        return pid;
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    int fd = open(f->now, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        _exit(errno);
    unsigned char byte;
    if (pread(fd, &byte, 1, 1000) != 1)
        _exit(errno);
    _exit(byte == fake_host_byte(0, 1000) ? 0 : 255);
}

static int await_exit(pid_t pid)
{
    int how;
    while (waitpid(pid, &how, 0) < 0)
        assert_int_equal(errno, EINTR);
    return WIFEXITED(how) ? WEXITSTATUS(how) : -1;
}

static void an_open_waits_for_its_instant_and_then_reads(void **state)
{
    struct fixture *f = *state;
    fake_host_hold(f->fake, FAKE_TAKE);
    pid_t reader = start_reader(f);
    fake_host_await_begun(f->fake, FAKE_TAKE, 1);
    struct stat st;
    assert_int_equal(stat(f->now, &st), 0); /* others are not held up */
    fake_host_let_go(f->fake, FAKE_TAKE);
    assert_int_equal(await_exit(reader), 0);
}

static void an_open_that_waits_can_be_interrupted(void **state)
{
    struct fixture *f = *state;
    fake_host_hold(f->fake, FAKE_TAKE);
    pid_t reader = start_reader(f);
    fake_host_await_begun(f->fake, FAKE_TAKE, 1);
    assert_int_equal(kill(reader, SIGINT), 0);
    assert_int_equal(await_exit(reader), EINTR);
    fake_host_let_go(f->fake, FAKE_TAKE);
}

static void a_killed_program_does_not_leave_a_reader(void **state)
{
    struct fixture *f = *state;
    fake_host_hold(f->fake, FAKE_TAKE);
    pid_t reader = start_reader(f);
    fake_host_await_begun(f->fake, FAKE_TAKE, 1);
    assert_int_equal(kill(reader, SIGKILL), 0);
    assert_int_equal(await_exit(reader), -1);
    fake_host_let_go(f->fake, FAKE_TAKE);
    fake_host_await_ended(f->fake, FAKE_MERGE, 1); /* nobody holds the instant */
}

/* Whichever comes first, the signal or the answer: no reply is lost and none is given twice. */
static void interrupts_and_answers_may_meet(void **state)
{
    struct fixture *f = *state;
    enum { N_ROUNDS = 100, N_READERS = 4 };
    for (unsigned round = 0; round < N_ROUNDS; round++) {
        pid_t readers[N_READERS];
        for (unsigned i = 0; i < N_READERS; i++)
            readers[i] = start_reader(f);
        pause_us(round * 37 % 3000);
        for (unsigned i = 0; i < N_READERS; i++)
            kill(readers[i], i % 2 ? SIGINT : SIGKILL);
        for (unsigned i = 0; i < N_READERS; i++)
            (void)await_exit(readers[i]);
    }
    assert_int_equal(await_exit(start_reader(f)), 0);
}

static void *shut_down(void *arg)
{
    registry_shutdown(((struct fixture *)arg)->registry);
    return NULL;
}

static void a_stop_answers_opens_that_wait(void **state)
{
    struct fixture *f = *state;
    fake_host_hold(f->fake, FAKE_TAKE);
    pid_t reader = start_reader(f);
    fake_host_await_begun(f->fake, FAKE_TAKE, 1);
    pthread_t stopper;
    assert_int_equal(pthread_create(&stopper, NULL, shut_down, f), 0);
    assert_int_equal(await_exit(reader), EIO);
    fake_host_let_go(f->fake, FAKE_TAKE);
    pthread_join(stopper, NULL);
}

/* The kernel will not release them any more; the leak checker sees to the rest. */
static void a_stop_closes_what_is_open(void **state)
{
    struct fixture *f = *state;
    char path[128];
    snprintf(path, sizeof(path), "%s/web/status", f->dir);
    int fds[] = {
        open(f->now, O_RDONLY | O_CLOEXEC),
        open(path, O_RDONLY | O_CLOEXEC),
        open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC),
    };
    for (unsigned i = 0; i < 3; i++)
        assert_true(fds[i] >= 0);
    registry_shutdown(f->registry);
    char byte;
    assert_int_equal(pread(fds[0], &byte, 1, 0), -1);
    assert_int_equal(errno, EIO);
    end_mount(f);
    for (unsigned i = 0; i < 3; i++)
        close(fds[i]);
}

/* Old and new readers never share a page cache, though the file has one number. */
static void each_instant_has_a_node_behind_one_number(void **state)
{
    struct fixture *f = *state;
    struct stat first, second;
    auto_close int old = open(f->now, O_RDONLY | O_CLOEXEC);
    assert_true(old >= 0);
    char byte;
    assert_int_equal(pread(old, &byte, 1, 0), 1);
    assert_int_equal(fstat(old, &first), 0);
    close(take_fd(old));
    fake_host_await_ended(f->fake, FAKE_MERGE, 1);
    auto_free char *path = fake_host_path(f->fake, "web", 0);
    auto_close int image = open(path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(image, "\xee", 1, 0), 1);
    auto_close int fresh = open(f->now, O_RDONLY | O_CLOEXEC);
    assert_true(fresh >= 0);
    assert_int_equal(fstat(fresh, &second), 0);
    assert_true(first.st_ino == second.st_ino);
    assert_int_equal(pread(fresh, &byte, 1, 0), 1);
    assert_int_equal((unsigned char)byte, 0xee);
}

int main(void)
{
    if (access("/dev/fuse", R_OK | W_OK) < 0) {
        puts("skipped: no /dev/fuse");
        return EXIT_SKIP;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_open_waits_for_its_instant_and_then_reads, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(an_open_that_waits_can_be_interrupted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_killed_program_does_not_leave_a_reader, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(interrupts_and_answers_may_meet, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_stop_answers_opens_that_wait, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_stop_closes_what_is_open, set_up, tear_down),
        cmocka_unit_test_setup_teardown(each_instant_has_a_node_behind_one_number, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
