/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fs/log.h"
#include "qcow/base/cleanup.h"

/* Contract section 7: "system or configuration". */
enum { EXIT_NO_VERDICT = 2 };

int daemon_open_streams(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        /* The lowest number that is free; without O_CLOEXEC, as streams are. */
        /* lint: clang-tidy/android-cloexec-open: programs that are run inherit them */
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) < 0)
            return -errno;
    return 0;
}

static ssize_t read_verdict(int fd, unsigned char *ret_status)
{
    ssize_t n;
    do
        n = read(fd, ret_status, 1);
    while (n < 0 && errno == EINTR);
    return n;
}

static pid_t server;

static void pass_on(int number)
{
    kill(server, number);
    (void)raise(number); /* its handler is reset: this ends us on return */
}

/*
 * A start that hangs, as libvirt does, keeps nobody waiting: a signal ends the parent at once. The
 * child has it pending then, and ends instead of serving.
 */
static void let_signals_end_us(pid_t child)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    const struct sigaction action = {.sa_handler = pass_on, .sa_flags = (int)SA_RESETHAND};
    sigset_t set;
    sigemptyset(&set);
    server = child;
    for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
        struct sigaction before;
        if (sigaction(numbers[i], NULL, &before) < 0 || before.sa_handler == SIG_IGN)
            continue; /* nohup(1) */
        sigaction(numbers[i], &action, NULL);
        sigaddset(&set, numbers[i]);
    }
    /* lint: clang-tidy/concurrency-mt-unsafe: the parent has no other thread */
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

/* _exit, since what atexit handlers would flush or free belongs to the child as well. */
static _Noreturn void leave_with_verdict(int fd, pid_t child)
{
    unsigned char status = EXIT_NO_VERDICT;
    if (read_verdict(fd, &status) == 1)
        _exit(status);
    int how = 0;
    if (waitpid(child, &how, 0) == child && WIFSIGNALED(how))
        /* lint: clang-tidy/concurrency-mt-unsafe: the parent has no other thread */
        log_error("the server died before the mount was ready: %s", strsignal(WTERMSIG(how)));
    else
        log_error("the server ended before the mount was ready");
    _exit(EXIT_NO_VERDICT);
}

int daemon_fork(struct daemon *ret_daemon, struct error *err)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0)
        return error_set(err, -errno, "cannot make a pipe: %s", strerrordesc_np(errno));
    /* lint: cppcheck/variableScope: the child closes it, too */
    auto_close int from_child = fds[0];
    auto_close int to_parent = fds[1];
    fflush(NULL);
    pid_t child = fork();
    if (child < 0)
        return error_set(err, -errno, "cannot fork: %s", strerrordesc_np(errno));
    if (child > 0) {
        close(take_fd(to_parent));
        let_signals_end_us(child);
        leave_with_verdict(from_child, child);
    }
    ret_daemon->verdict_fd = take_fd(to_parent);
    return 0;
}

/* A parent that is gone already is no reason to fail: SIGPIPE is ignored. */
static void send_verdict(struct daemon *daemon, unsigned char status)
{
    ssize_t n;
    do
        n = write(daemon->verdict_fd, &status, 1);
    while (n < 0 && errno == EINTR);
    close(take_fd(daemon->verdict_fd));
}

static void drop_terminal(void)
{
    auto_close int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0)
        return;
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        dup2(null, fd);
    if (null <= STDERR_FILENO)
        (void)take_fd(null);
}

void daemon_leave_terminal(void)
{
    if (chdir("/") < 0)
        log_debug("cannot change to /: %s", strerrordesc_np(errno));
    log_to_syslog();
    drop_terminal();
}

void daemon_ready(struct daemon *daemon)
{
    if (daemon->verdict_fd < 0)
        return;
    setsid();
    daemon_leave_terminal();
    send_verdict(daemon, 0);
}

void daemon_fail(struct daemon *daemon, int exit_status)
{
    if (daemon->verdict_fd >= 0)
        send_verdict(daemon, (unsigned char)exit_status);
}
