/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The end of all instants. A merge takes as long as it takes; but a hypervisor that hangs in the
 * middle of a call may do so for ever, and no unmount or shutdown of the host can wait for that.
 * What it left undone is in the journal, as if the program had been killed.
 */
#include <inttypes.h>

#include "fs/log.h"
#include "fs/session/patience.h"
#include "fs/session/registry_internal.h"

bool registry_wait_alive_locked(struct registry *registry, bool (*matters)(const struct slot *slot))
{
    int64_t limit = patience_limit_ns(&registry->config), last = 0;
    const struct slot *slot;
    LIST_FOREACH(slot, &registry->slots, link)
    if (matters(slot) && slot->alive_ns > last)
        last = slot->alive_ns;
    if (limit == INT64_MAX) {
        registry_wait(registry, &registry->changed);
        return true;
    }
    if (monotonic_ns() >= last + limit)
        return false;
    registry_wait_until(registry, &registry->changed, last + limit);
    return true;
}

static void shut_slot_locked(struct slot *slot, struct waiter_list *answers) REQUIRES(registry_role)
{
    static const char reason[] = "the file system is being unmounted";
    struct error err;
    error_set(&err, -ESHUTDOWN, "%s", reason);
    slot_answer_all_locked(slot, &err, answers);
    error_set(&err, -EIO, "%s", reason);
    struct reader *reader;
    LIST_FOREACH(reader, &slot->named, link)
    reader_end(reader, &err);
    if (!slot->session)
        return;
    session_end_locked(slot->session, -EIO, reason);
    cond_wake_all(&slot->session->wake); /* a broken one tries again */
}

static bool has_thread(const struct slot *slot)
{
    return slot->has_thread;
}

/* The record is the host's, since the session's own is its thread's. */
static void tell_given_up(struct host *host, const char *id, const char *method, int64_t silent_ns)
{
    struct domain *domain = host->ops->find(host, id);
    log_warn("domain '%s' is left as it is (%s): the hypervisor has not answered for %" PRId64
             " s; once it does, the next mount or virtsnapfs --recover puts the domain back",
             domain ? domain->name : id, method ? method : "an instant half made",
             silent_ns / 1000000000);
    domain_unref(domain);
}

/* How many there are; each is told once. Drops the lock meanwhile. */
static size_t give_up_locked(struct registry *registry) REQUIRES(registry_role)
{
    size_t n = 0;
    struct slot *slot; /* lives as long as the registry */
    LIST_FOREACH(slot, &registry->slots, link)
    {
        n += slot->has_thread;
        if (!slot->has_thread || slot->is_given_up)
            continue;
        slot->is_given_up = true;
        const char *method = slot->session ? slot->session->method : NULL;
        int64_t silent_ns = monotonic_ns() - slot->alive_ns;
        registry_unlock(registry);
        tell_given_up(registry->config.host, slot->id, method, silent_ns);
        registry_lock(registry);
    }
    return n;
}

size_t registry_shutdown(struct registry *registry)
{
    struct waiter_list answers = TAILQ_HEAD_INITIALIZER(answers);
    registry_lock(registry);
    bool is_first = !registry->is_shut;
    registry->is_shut = true;
    struct slot *slot;
    LIST_FOREACH(slot, &registry->slots, link)
    {
        if (is_first)
            slot->alive_ns = monotonic_ns(); /* who slept until now has not hung */
        shut_slot_locked(slot, &answers);
    }
    registry_unlock(registry);
    waiters_deliver(&answers);
    registry_lock(registry);
    while (registry->n_threads > 0 && registry_wait_alive_locked(registry, has_thread))
        ;
    size_t n = give_up_locked(registry);
    registry_unlock(registry);
    return n;
}
