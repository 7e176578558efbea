/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/fuse/interrupt.h"

#include <grp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void on_signal(int number)
{
    (void)number;
}

/* A child that is stopped, so that what is sent to it waits. */
static pid_t stop_child(void)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        sigset_t blocked;
        sigemptyset(&blocked);
        sigaddset(&blocked, SIGUSR1);
        sigprocmask(SIG_BLOCK, &blocked, NULL);
        signal(SIGUSR2, on_signal);
        signal(SIGHUP, SIG_IGN);
        kill(getpid(), SIGSTOP);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    assert_true(WIFSTOPPED(status));
    return pid;
}

static void end_child(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void without_a_signal_nobody_wants_to_be_let_go(void **state)
{
    (void)state;
    assert_false(interrupt_is_signal(getpid()));
    pid_t pid = stop_child();
    assert_false(interrupt_is_signal(pid));
    end_child(pid);
}

static void a_signal_that_is_blocked_or_ignored_does_not_count(void **state)
{
    (void)state;
    pid_t pid = stop_child();
    kill(pid, SIGUSR1);
    kill(pid, SIGHUP);
    assert_false(interrupt_is_signal(pid));
    end_child(pid);
}

static void a_signal_that_ends_a_program_counts(void **state)
{
    (void)state;
    pid_t pid = stop_child();
    kill(pid, SIGINT);
    assert_true(interrupt_is_signal(pid));
    end_child(pid);
}

static void a_signal_that_a_program_handles_counts(void **state)
{
    (void)state;
    pid_t pid = stop_child();
    kill(pid, SIGUSR2);
    assert_true(interrupt_is_signal(pid));
    end_child(pid);
}

/* A shell catches both, and goes on afterwards. */
static void a_signal_that_ends_nothing_is_told_apart(void **state)
{
    (void)state;
    pid_t pid = stop_child();
    kill(pid, SIGWINCH);
    kill(pid, SIGCHLD);
    assert_false(interrupt_is_end(pid));
    kill(pid, SIGUSR2);
    assert_true(interrupt_is_end(pid));
    end_child(pid);
    assert_true(interrupt_is_end(0));
}

/* As root; else the child is in few groups, and this is one test more of the same. */
static void a_program_in_thousands_of_groups_is_judged_alike(void **state)
{
    (void)state;
    enum { N = 3000 };
    gid_t groups[N];
    for (gid_t i = 0; i < N; i++)
        groups[i] = 1000000 + i;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a failed test leaves nobody who holds its output */
        (void)!setgroups(N, groups);
        kill(getpid(), SIGSTOP);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    assert_false(interrupt_is_signal(pid));
    kill(pid, SIGWINCH);
    assert_false(interrupt_is_end(pid));
    kill(pid, SIGINT);
    assert_true(interrupt_is_end(pid));
    end_child(pid);
}

static void who_cannot_be_seen_is_let_go(void **state)
{
    (void)state;
    assert_true(interrupt_is_signal(0)); /* of a namespace that we do not see */
    pid_t pid = stop_child();
    end_child(pid);
    assert_true(interrupt_is_signal(pid));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_signal_nobody_wants_to_be_let_go),
        cmocka_unit_test(a_signal_that_is_blocked_or_ignored_does_not_count),
        cmocka_unit_test(a_signal_that_ends_a_program_counts),
        cmocka_unit_test(a_signal_that_a_program_handles_counts),
        cmocka_unit_test(a_signal_that_ends_nothing_is_told_apart),
        cmocka_unit_test(a_program_in_thousands_of_groups_is_judged_alike),
        cmocka_unit_test(who_cannot_be_seen_is_let_go),
    };
    return cmocka_run_group_tests_name("fuse/interrupt", tests, NULL, NULL);
}
