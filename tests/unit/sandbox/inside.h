/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Runs a piece of a test in a child that is in the sandbox. */
#pragma once

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fs/sandbox/sandbox.h"
#include "tests/unit/host/scratch.h"

enum { INSIDE_NOT_ENTERED = 2 };

static unsigned n_faults; /* of the child */

static inline void judge_refusal(const char *file, int line, const char *call, long result,
                                 int wanted)
{
    if (result == -1 && errno == wanted)
        return;
    fprintf(stderr, "%s:%d: %s: %s, wanted %s\n", file, line, call, strerrorname_np(errno),
            strerrorname_np(wanted));
    n_faults++;
}

static inline void judge_truth(const char *file, int line, const char *condition, bool is_true)
{
    if (is_true)
        return;
    fprintf(stderr, "%s:%d: %s: %s\n", file, line, condition, strerrorname_np(errno));
    n_faults++;
}

/* In the child: a call that must fail with that errno. */
#define MUST_FAIL(errnum, call)                                                                    \
    (errno = 0, judge_refusal(__FILE__, __LINE__, #call, (long)(call), errnum))
/* In the child: what must be true. */
#define MUST(condition) (errno = 0, judge_truth(__FILE__, __LINE__, #condition, condition))

/* The child's status, as waitpid() gives it. */
static inline int inside_run(const struct sandbox_config *config, void (*attempt)(const void *arg),
                             const void *arg)
{
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct sandbox_report report;
        if (sandbox_enter(config, &report, NULL) < 0 || !report.is_on)
            _exit(INSIDE_NOT_ENTERED);
        attempt(arg);
        _exit(n_faults != 0 ? 1 : 0);
    }
    int how;
    while (waitpid(pid, &how, 0) < 0)
        assert_int_equal(errno, EINTR);
    return how;
}

/* The state directory is "state" in the scratch folder. */
static inline struct sandbox_config inside_config(const struct scratch *s)
{
    return (struct sandbox_config){.state_dir = scratch_path(s, "state")};
}

static inline void inside_check(const struct scratch *s, void (*attempt)(const void *arg))
{
    struct sandbox_config config = inside_config(s);
    assert_int_equal(inside_run(&config, attempt, s), 0);
}
