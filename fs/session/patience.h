/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * While an instant is taken, or put back: whoever waits for it, or for the one after it, is told
 * once the hypervisor has given no sign of life for too long, as with a QEMU or a libvirtd that was
 * stopped in the middle of a call: ETIMEDOUT, or EBUSY. The call goes on, nobody can take it back;
 * what comes of it is undone, since nobody waits any more.
 */
#pragma once

#include <pthread.h>

#include "fs/session/session.h"

/* How long the hypervisor may give no sign of life; INT64_MAX: for ever (no timeout=). */
int64_t patience_limit_ns(const struct registry_config *config);

struct patience {
    /* Immutable. */
    struct session *session;
    pthread_t thread;
    bool has_thread;

    /* Guarded by the registry's lock. */
    int64_t since_ns; /* the last sign of life, or when waiters were told */
    bool is_over;
    struct cond wake;
};

/* Begins to watch; without a thread for it (no memory) nobody is told. Pair: patience_end(). */
void patience_begin(struct patience *patience, struct session *session) EXCLUDES(registry_role);
void patience_end(struct patience *patience) EXCLUDES(registry_role);

/* The method has asked for something: it does not hang. */
void patience_renew_locked(struct patience *patience) REQUIRES(registry_role);
