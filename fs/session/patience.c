/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/session/patience.h"

#include <errno.h>

#include "fs/session/quiesce.h"
#include "fs/session/registry_internal.h"

/*
 * A connection that is waited for, the call itself, and a look at what came of one that was cut off
 * may each take the whole timeout between two signs of life; so may an agent its own time.
 */
enum { PHASES = 3 };

int64_t patience_limit_ns(const struct registry_config *config)
{
    if (config->timeout_ms == 0)
        return INT64_MAX;
    int64_t ms = (int64_t)config->timeout_ms * PHASES;
    if (config->quiesce != QUIESCE_NEVER)
        ms += quiesce_limits_default.freeze_ms;
    return ms * 1000000;
}

/*
 * An end that takes its time, as the deletion of a large snapshot, cannot be told from one that
 * hangs: so it is no time-out, but somebody else's turn.
 */
static void set_reason_locked(const struct patience *patience, struct error *err)
    REQUIRES(registry_role)
{
    long long s = (monotonic_ns() - patience->since_ns) / 1000000000;
    if (patience->session->state == SESSION_TAKING)
        error_set(err, -ETIMEDOUT,
                  "the hypervisor has not answered for %lld s; what was begun is undone once it "
                  "does",
                  s);
    else
        error_set(err, -EBUSY,
                  "an earlier instant is still being put back, without a sign of progress for "
                  "%lld s",
                  s);
}

/* Those who come later are told as well, each after the same time or less. */
static void tell_waiters_locked(struct patience *patience) REQUIRES(registry_role)
{
    struct session *session = patience->session;
    struct registry *registry = session->registry;
    struct waiter_list answers = TAILQ_HEAD_INITIALIZER(answers);
    struct error err;
    set_reason_locked(patience, &err);
    slot_answer_all_locked(session->slot, &err, &answers);
    patience->since_ns = monotonic_ns();
    registry_unlock(registry);
    waiters_deliver(&answers);
    registry_lock(registry);
}

static void *run_patience(void *arg)
{
    struct patience *patience = arg;
    struct registry *registry = patience->session->registry;
    int64_t limit = patience_limit_ns(&registry->config);
    registry_lock(registry);
    while (!patience->is_over) {
        if (monotonic_ns() < patience->since_ns + limit)
            registry_wait_until(registry, &patience->wake, patience->since_ns + limit);
        else
            tell_waiters_locked(patience);
    }
    registry_unlock(registry);
    return NULL;
}

void patience_begin(struct patience *patience, struct session *session)
{
    *patience = (struct patience){.session = session, .since_ns = monotonic_ns()};
    cond_init(&patience->wake);
    if (session->registry->config.timeout_ms == 0)
        return;
    patience->has_thread = thread_start(run_patience, patience, &patience->thread) == 0;
    registry_lock(session->registry);
    session->patience = patience;
    registry_unlock(session->registry);
}

void patience_end(struct patience *patience)
{
    struct registry *registry = patience->session->registry;
    registry_lock(registry);
    patience->is_over = true;
    patience->session->patience = NULL;
    cond_wake_all(&patience->wake);
    registry_unlock(registry);
    if (patience->has_thread)
        pthread_join(patience->thread, NULL);
    cond_fini(&patience->wake);
}

void patience_renew_locked(struct patience *patience)
{
    patience->since_ns = monotonic_ns();
}
