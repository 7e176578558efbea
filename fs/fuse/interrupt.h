/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whether who waits for an answer of ours wants to be let go. The kernel interrupts a request for
 * whatever else waits to be done by the thread, too: QEMU's event loop over io_uring gets such
 * interrupts all the time, and would take EINTR from open(2) for a failure. Any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "fs/fuse/reply.h"

/*
 * True if a signal waits for thread @pid that it does not block, as the kernel says in /proc; also
 * if that cannot be told, or the thread is gone. Signals that are ignored never wait.
 */
bool interrupt_is_signal(pid_t pid);

/*
 * The same, but only of signals that end programs unless they are caught: for work that a shell is
 * not to lose because its window was resized, or another child of it has ended.
 */
bool interrupt_is_end(pid_t pid);

/* For long work on a request; zeroed but for req. */
struct interrupt {
    fuse_req_t req;
    int64_t ask_ns; /* monotonic: when to look at the signals again */
};

/*
 * True once @interrupt (a struct interrupt) was interrupted by a signal. Cheap. It goes on asking
 * after an interrupt that meant nothing, since the kernel does not send a second one.
 */
bool interrupt_came(void *interrupt);
/* Likewise, once it is interrupt_is_end(). */
bool interrupt_ends(void *interrupt);
