/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/fuse/interrupt.h"

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "qcow/base/cleanup.h"
#include "qcow/base/thread.h"

/* Between two looks at the signals of a thread, each of which costs a few system calls. */
enum { ASK_INTERVAL_NS = 20 * 1000 * 1000 };

/* NAME: in /proc/PID/status is followed by a tab and hex digits; all bits if there is none. */
static uint64_t find_signals(const char *status, const char *name)
{
    const char *line = strstr(status, name);
    return line ? strtoull(line + strlen(name), NULL, 16) : UINT64_MAX;
}

/* Those that wait and are not blocked; all bits if that cannot be told. */
static uint64_t find_waiting(pid_t pid)
{
    char path[64], status[4096];
    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, status, sizeof(status) - 1);
    if (n < 0)
        return UINT64_MAX;
    status[n] = '\0';
    uint64_t waiting = find_signals(status, "\nSigPnd:") | find_signals(status, "\nShdPnd:");
    const char *blocked = strstr(status, "\nSigBlk:");
    return waiting & ~(blocked ? find_signals(blocked, "\nSigBlk:") : 0);
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
