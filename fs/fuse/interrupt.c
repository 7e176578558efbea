/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/fuse/interrupt.h"

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qcow/base/cleanup.h"
#include "qcow/base/thread.h"

/* Between two looks at the signals of a thread, each of which costs a few system calls. */
enum { ASK_INTERVAL_NS = 20 * 1000 * 1000 };

/* Hex digits follow @name and a tab; else @ret_signals stays as it is. */
static void find_signals(const char *line, const char *name, uint64_t *ret_signals)
{
    if (strncmp(line, name, strlen(name)) == 0)
        *ret_signals = strtoull(line + strlen(name), NULL, 16);
}

/*
 * Those that wait and are not blocked; all bits if that cannot be told. By lines, which a long one
 * (a user may be in thousands of groups) only makes more of.
 */
static uint64_t find_waiting(pid_t pid)
{
    char path[64], line[256];
    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    auto_stream FILE *file = fopen(path, "re");
    uint64_t of_thread = UINT64_MAX, of_process = UINT64_MAX, blocked = 0;
    while (file && fgets(line, sizeof(line), file)) {
        find_signals(line, "SigPnd:", &of_thread);
        find_signals(line, "ShdPnd:", &of_process);
        find_signals(line, "SigBlk:", &blocked);
    }
    return (of_thread | of_process) & ~blocked;
}

bool interrupt_is_signal(pid_t pid)
{
    return find_waiting(pid);
}

/* What tells a program something, stops it or lets it go on: signal(7). */
static uint64_t find_harmless(void)
{
    static const int numbers[] = {SIGCHLD, SIGWINCH, SIGCONT, SIGURG, SIGIO,
                                  SIGTSTP, SIGTTIN,  SIGTTOU, SIGSTOP};
    uint64_t set = 0;
    for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++)
        set |= UINT64_C(1) << (numbers[i] - 1);
    return set;
}

bool interrupt_is_end(pid_t pid)
{
    return find_waiting(pid) & ~find_harmless();
}

static bool may_ask(struct interrupt *interrupt)
{
    if (!fuse_req_interrupted(interrupt->req))
        return false;
    int64_t now_ns = monotonic_ns();
    if (now_ns < interrupt->ask_ns)
        return false;
    interrupt->ask_ns = now_ns + ASK_INTERVAL_NS;
    return true;
}

bool interrupt_came(void *interrupt)
{
    struct interrupt *self = interrupt;
    return may_ask(self) && interrupt_is_signal(fuse_req_ctx(self->req)->pid);
}

bool interrupt_ends(void *interrupt)
{
    struct interrupt *self = interrupt;
    return may_ask(self) && interrupt_is_end(fuse_req_ctx(self->req)->pid);
}
