/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The thread of a domain's instants: takes one, holds it, puts the domain back, and goes on trying
 * where that does not work at once. There is one while there is anything to do.
 */
#include <string.h>

#include "fs/log.h"
#include "fs/session/journal.h"
#include "fs/session/patience.h"
#include "fs/session/registry_internal.h"
#include "fs/session/space.h"
#include "qcow/base/cleanup.h"

enum {
    RETRY_NEWS_MS = 500, /* after a change of the domain, which may be one of several */
    RETRY_FIRST_MS = 5000,
    RETRY_MAX_MS = 300000,
    LAST_SETTLE_MS = 60000, /* for a guest that is frozen when all ends */
};

/* ---- Holding ---- */

/*
 * Ends the instant while there is room for what it takes to undo it. Drops the lock meanwhile.
 * The change is this thread's own, whatever becomes of the session.
 */
static void look_for_room_locked(struct session *session, struct space_watch *watch)
    REQUIRES(registry_role)
{
    struct registry *registry = session->registry;
    struct error err = {0};
    registry_unlock(registry);
    int r = space_look(watch, session->instant.change, registry->config.min_free, &err);
    registry_lock(registry);
    session->space_ns = monotonic_ns() + (int64_t)watch->next_ms * 1000000;
    if (r == -ENOSPC)
        session_end_locked(session, -EIO, err.text);
}

static int64_t earliest(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Returns in RELEASING or GONE. */
static void hold_locked(struct session *session) REQUIRES(registry_role)
{
    struct registry *registry = session->registry;
    struct space_watch watch = {0};
    while (session->state == SESSION_OPEN || session->state == SESSION_LINGERING) {
        int64_t now = monotonic_ns();
        bool is_lingering = session->state == SESSION_LINGERING;
        if (is_lingering && now >= session->linger_ns)
            session_end_locked(session, 0, NULL);
        else if (now >= session->hold_ns)
            session_end_locked(session, -EIO, "the instant was held longer than max_hold");
        else if (now >= session->space_ns)
            look_for_room_locked(session, &watch);
        else
            registry_wait_until(registry, &session->wake,
                                earliest(earliest(session->hold_ns, session->space_ns),
                                         is_lingering ? session->linger_ns : INT64_MAX));
    }
}

/* ---- Putting back ---- */

/* Not again what was said already. */
static void tell_failure(struct session *session, int r, const struct error *why)
{
    struct error err = *why;
    err.code = r;
    error_prefix(&err, r == -EAGAIN ? "the domain cannot be put back yet"
                                    : "the domain could not be put back");
    registry_note_error(session->registry, session->slot->id, "now", &err);
}

/* The first of several could not be undone: the others wait for it, nobody for them. */
static void count_out_queued_locked(struct slot *slot) REQUIRES(registry_role)
{
    struct left_change *left;
    STAILQ_FOREACH(left, &slot->left, link)
    {
        if (left->is_untried)
            slot->registry->n_untried--;
        left->is_untried = false;
    }
}

static void settle_locked(struct session *session, int r, const struct error *err)
    REQUIRES(registry_role)
{
    if (session->is_untried)
        session->registry->n_untried--;
    session->is_untried = false;
    session->n_tries++;
    if (r < 0) {
        session->broken = *err;
        count_out_queued_locked(session->slot);
    }
    session->broken.code = r;
    enum session_state failed = r == -EAGAIN ? SESSION_DEFERRED : SESSION_BROKEN;
    session_enter_locked(session, r < 0 ? failed : SESSION_GONE);
    cond_wake_all(&session->registry->changed);
}

/* A lock is dropped at once. */
static int release_patiently(struct session *session, struct error *err)
{
    if (!session->instant.change)
        return instant_release(&session->instant, err);
    struct patience patience;
    patience_begin(&patience, session);
    int r = instant_release(&session->instant, err);
    patience_end(&patience);
    return r;
}

/* RELEASING to GONE, DEFERRED or BROKEN; drops the lock meanwhile. */
static void release_locked(struct session *session) REQUIRES(registry_role)
{
    struct registry *registry = session->registry;
    struct error end = session->end;
    struct error before = session->broken;
    struct error err = {0};
    bool is_news = end.code < 0 && session->n_readers > 0 && !registry->is_shut;
    bool is_first = !session->is_left && session->n_tries == 0;
    session->has_news = false;
    if (registry->is_shut && !session->was_patient) {
        session->was_patient = true;
        session->instant.settle_ms = LAST_SETTLE_MS;
    }
    registry_unlock(registry);
    if (is_news && is_first)
        registry_note_end(session, &end);
    int r = release_patiently(session, &err);
    if (r < 0 && (r != before.code || strcmp(err.text, before.text) != 0))
        tell_failure(session, r, &err);
    if (r == 0 && !is_first)
        log_info("domain %s was put back (%s)", session->slot->id, session->method);
    registry_lock(registry);
    settle_locked(session, r, &err);
}

static int64_t retry_ms(const struct session *session)
{
    int64_t ms = RETRY_FIRST_MS;
    for (unsigned i = 1; i < session->n_tries && ms < RETRY_MAX_MS; i++)
        ms *= 2;
    return ms < RETRY_MAX_MS ? ms : RETRY_MAX_MS;
}

/* Until there is a reason to try again; false if it is the last one. */
static bool wait_retry_locked(struct session *session) REQUIRES(registry_role)
{
    struct registry *registry = session->registry;
    int64_t begin_ns = monotonic_ns();
    for (;;) {
        int64_t ms = session->has_news ? RETRY_NEWS_MS : retry_ms(session);
        int64_t deadline_ns = begin_ns + ms * 1000000;
        if (registry->is_shut)
            return false;
        if (monotonic_ns() >= deadline_ns)
            return true;
        registry_wait_until(registry, &session->wake, deadline_ns);
    }
}

static bool is_stuck(const struct session *session) REQUIRES(registry_role)
{
    return session->state == SESSION_BROKEN || session->state == SESSION_DEFERRED;
}

static void refuse_waiters_locked(struct session *session) REQUIRES(registry_role)
{
    struct waiter_list answers = TAILQ_HEAD_INITIALIZER(answers);
    struct error err;
    error_set(&err, -EBUSY, "an earlier instant was not put back: %s", session->broken.text);
    slot_answer_all_locked(session->slot, &err, &answers);
    registry_unlock(session->registry);
    waiters_deliver(&answers);
    registry_lock(session->registry);
}

/* From RELEASING until the domain is as it was, or all ends. What is left then is in the journal.
 */
static void put_back_locked(struct session *session) REQUIRES(registry_role)
{
    struct registry *registry = session->registry;
    release_locked(session);
    bool may_go_on = !registry->is_shut || session->n_tries == 1;
    while (is_stuck(session) && may_go_on) {
        refuse_waiters_locked(session);
        registry->n_open--;
        may_go_on = wait_retry_locked(session);
        registry->n_open++;
        session_enter_locked(session, SESSION_RELEASING);
        release_locked(session);
    }
}

static void end_locked(struct session *session) REQUIRES(registry_role)
{
    struct registry *registry = session->registry;
    session->slot->session = NULL;
    if (session_unref_locked(session)) {
        registry_unlock(registry);
        session_free(session);
        registry_lock(registry);
    }
}

/* ---- The thread ---- */

/* One instant from TAKING to its end. Called and returns with the lock. */
static void serve_locked(struct slot *slot) REQUIRES(registry_role)
{
    struct registry *registry = slot->registry;
    struct session *session = session_create_locked(slot, SESSION_TAKING);
    if (!session) {
        struct waiter_list answers = TAILQ_HEAD_INITIALIZER(answers);
        slot_answer_all_locked(slot, &(struct error){.code = -ENOMEM, .text = "out of memory"},
                               &answers);
        registry_unlock(registry);
        waiters_deliver(&answers);
        registry_lock(registry);
        return;
    }
    slot->session = session;
    registry_unlock(registry);
    session_take(session);
    registry_lock(registry);
    hold_locked(session);
    if (session->state == SESSION_RELEASING)
        put_back_locked(session);
    end_locked(session);
}

/* What a daemon before us left, from RELEASING to its end. */
static void recover_locked(struct slot *slot) REQUIRES(registry_role)
{
    struct registry *registry = slot->registry;
    struct left_change *left = STAILQ_FIRST(&slot->left);
    struct host *host = registry->config.host;
    const struct host_method *method = host->ops->method(host, left->change->method);
    STAILQ_REMOVE_HEAD(&slot->left, link);
    struct session *session = method ? session_create_locked(slot, SESSION_RELEASING) : NULL;
    if (!session) {
        registry->n_untried -= left->is_untried;
        log_error("domain '%s' is left as it is (%s): %s", left->change->domain_name,
                  change_method_name(left->change->method),
                  method ? "out of memory" : "this source has no such method");
        change_free(left->change);
        journal_forget(left->entry);
    } else {
        session->is_left = true;
        session->is_untried = left->is_untried;
        session->instant.change = left->change;
        session->instant.entry = left->entry;
        session->instant.method = method;
        session_show_method_locked(session);
        slot->session = session;
        put_back_locked(session);
        end_locked(session);
    }
    free(left);
}

static void *session_main(void *arg)
{
    struct slot *slot = arg;
    struct registry *registry = slot->registry;
    registry_lock(registry);
    while (!STAILQ_EMPTY(&slot->left))
        recover_locked(slot);
    while (!TAILQ_EMPTY(&slot->waiters))
        serve_locked(slot);
    slot->has_thread = false;
    registry->n_open--;
    registry->n_threads--;
    cond_wake_all(&registry->changed);
    registry_unlock(registry);
    return NULL;
}

int session_start_locked(struct slot *slot, struct error *err)
{
    struct registry *registry = slot->registry;
    if (STAILQ_EMPTY(&slot->left) && registry->n_open >= registry->config.max_open &&
        !registry_make_room_locked(registry))
        return error_set(err, -EMFILE, "%u instants are open already (max_open)", registry->n_open);
    int r = thread_start_detached(session_main, slot);
    if (r < 0)
        return error_set(err, -ENOMEM, "cannot start a thread: %s", strerrordesc_np(-r));
    slot->has_thread = true;
    slot->alive_ns = monotonic_ns();
    registry->n_open++;
    registry->n_threads++;
    return 0;
}
