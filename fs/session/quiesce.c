/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/session/quiesce.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/log.h"
#include "qcow/base/cleanup.h"
#include "qcow/base/thread.h"

const struct quiesce_limits quiesce_limits_default = {
    .freeze_ms = 6000, /* the agent's own 5 s and what goes on around them */
    /* Guests have time-outs of their own (Windows: 10 s), and little patience with such a disk. */
    .frozen_ms = 10000,
    .thaw_ms = 2000,
    .retry_ms = 1000,
};

/*
 * The guard's way. From THAWING on it never goes back; a freeze that did not happen for sure goes
 * straight to DONE.
 */
enum guard_state {
    GUARD_FREEZING, /* the agent was asked, or is about to be */
    GUARD_FROZEN,   /* waits for the end of the moment */
    GUARD_THAWING,  /* may be frozen still */
    GUARD_DONE,     /* nothing is frozen by us */
};

struct quiesce {
    /* Immutable. */
    struct host *host;
    char *domain_id;
    enum quiesce_policy policy;
    struct quiesce_limits limits;

    /* The caller's thread's own. */
    pthread_t guard;
    bool has_guard;
    const char *consistency;
    struct error reason; /* code 0: none */

    struct mutex lock;
    struct cond changed;
    enum guard_state state GUARDED_BY(lock);
    int freeze_result GUARDED_BY(lock);         /* from FROZEN on */
    struct error freeze_error GUARDED_BY(lock); /* why it failed */
    bool is_moment_over GUARDED_BY(lock);       /* thaw at once */
    bool is_stopped GUARDED_BY(lock);           /* let the guest be as it is */
    struct error thaw_error GUARDED_BY(lock);   /* the last one */
};

static int64_t after_ms(unsigned ms)
{
    return monotonic_ns() + (int64_t)ms * 1000000;
}

struct quiesce *quiesce_create(struct host *host, const char *domain_id, enum quiesce_policy policy,
                               const struct quiesce_limits *limits)
{
    struct quiesce *quiesce = calloc(1, sizeof(*quiesce));
    char *id = strdup(domain_id);
    if (!quiesce || !id) {
        free(quiesce);
        free(id);
        return NULL;
    }
    *quiesce = (struct quiesce){
        .host = host,
        .domain_id = id,
        .policy = policy,
        .limits = *limits,
        .consistency = "crash",
    };
    mutex_init(&quiesce->lock);
    cond_init(&quiesce->changed);
    return quiesce;
}

/* ---- the guard ---- */

static void enter_locked(struct quiesce *quiesce, enum guard_state state) REQUIRES(quiesce->lock)
{
    assert(state > quiesce->state);
    quiesce->state = state;
    cond_wake_all(&quiesce->changed);
}

/* FREEZING to one of the others. */
static void guard_freeze(struct quiesce *quiesce)
{
    struct error err = {0};
    int r = quiesce->host->ops->freeze(quiesce->host, quiesce->domain_id, &err);
    mutex_lock(&quiesce->lock);
    quiesce->freeze_result = r;
    quiesce->freeze_error = err;
    if (r == 0 && !quiesce->is_moment_over)
        enter_locked(quiesce, GUARD_FROZEN);
    else if (r == 0 || r == -EINPROGRESS)
        enter_locked(quiesce, GUARD_THAWING);
    else
        enter_locked(quiesce, GUARD_DONE);
    mutex_unlock(&quiesce->lock);
}

/* FROZEN to THAWING, at the end of the moment or when it takes too long. */
static void guard_watch(struct quiesce *quiesce)
{
    int64_t deadline_ns = after_ms(quiesce->limits.frozen_ms);
    mutex_lock(&quiesce->lock);
    while (quiesce->state == GUARD_FROZEN && !quiesce->is_moment_over && !quiesce->is_stopped)
        if (!cond_wait_until(&quiesce->changed, &quiesce->lock, deadline_ns))
            break;
    if (quiesce->state == GUARD_FROZEN)
        enter_locked(quiesce, GUARD_THAWING);
    mutex_unlock(&quiesce->lock);
}

/*
 * A guest that is off has nothing frozen; but one that was saved in this state is frozen again
 * when it is restored.
 */
static bool is_off_for_good(struct host *host, const char *domain_id)
{
    struct error err = {0};
    if (host->ops->refresh && host->ops->refresh(host, domain_id, &err) < 0)
        log_debug("%s", err.text);
    struct domain *domain = host->ops->find(host, domain_id);
    bool is_final = !domain || (domain->state == DOMAIN_SHUTOFF && !domain->has_managed_save);
    domain_unref(domain);
    return is_final;
}

static bool thaw_once(struct quiesce *quiesce, struct error *err)
{
    int r = quiesce->host->ops->thaw(quiesce->host, quiesce->domain_id, err);
    return r == 0 || (r == -ESTALE && is_off_for_good(quiesce->host, quiesce->domain_id));
}

/* True if there is to be another try. */
static bool wait_for_retry(struct quiesce *quiesce, const struct error *err)
{
    int64_t deadline_ns = after_ms(quiesce->limits.retry_ms);
    mutex_lock(&quiesce->lock);
    quiesce->thaw_error = *err;
    while (!quiesce->is_stopped)
        if (!cond_wait_until(&quiesce->changed, &quiesce->lock, deadline_ns))
            break;
    bool is_stopped = quiesce->is_stopped;
    mutex_unlock(&quiesce->lock);
    return !is_stopped;
}

/* THAWING to DONE, unless it is stopped. Two lines in the log, however long it takes. */
static void guard_thaw(struct quiesce *quiesce)
{
    struct error err = {0};
    bool is_told = false;
    while (!thaw_once(quiesce, &err)) {
        if (!is_told)
            log_warn("the guest's file systems may still be frozen (%s); its agent is asked to "
                     "thaw them until it says so",
                     err.text);
        is_told = true;
        if (!wait_for_retry(quiesce, &err))
            return;
    }
    if (is_told)
        log_info("domain %s: no file systems are frozen any more", quiesce->domain_id);
    mutex_lock(&quiesce->lock);
    enter_locked(quiesce, GUARD_DONE);
    mutex_unlock(&quiesce->lock);
}

static enum guard_state get_state(struct quiesce *quiesce)
{
    mutex_lock(&quiesce->lock);
    enum guard_state state = quiesce->state;
    mutex_unlock(&quiesce->lock);
    return state;
}

static void *guard_main(void *arg)
{
    struct quiesce *quiesce = arg;
    guard_freeze(quiesce);
    if (get_state(quiesce) == GUARD_FROZEN)
        guard_watch(quiesce);
    if (get_state(quiesce) == GUARD_THAWING)
        guard_thaw(quiesce);
    return NULL;
}

static int start_guard(struct quiesce *quiesce, struct error *err)
{
    int r = thread_start(guard_main, quiesce, &quiesce->guard);
    quiesce->has_guard = r == 0;
    return r < 0 ? error_set(err, -ENOMEM, "cannot start a thread: %s", strerrordesc_np(-r)) : 0;
}

/* ---- the caller ---- */

/* Then its file systems are as its shutdown left them. */
static bool is_off(const struct quiesce *quiesce)
{
    struct domain *domain = quiesce->host->ops->find(quiesce->host, quiesce->domain_id);
    bool is_off = domain && domain->state == DOMAIN_SHUTOFF;
    domain_unref(domain);
    return is_off;
}

/* 0, or why there is no point in asking the agent. */
static int check_guest(const struct quiesce *quiesce, struct error *err)
{
    struct host *host = quiesce->host;
    if (!host->ops->freeze || !host->ops->thaw)
        return error_set(err, -EOPNOTSUPP, "this kind of source has no guest agents");
    struct domain *domain = host->ops->find(host, quiesce->domain_id);
    if (!domain)
        return error_set(err, -ESTALE, "the domain is gone");
    int r = 0;
    if (domain->state != DOMAIN_RUNNING)
        r = error_set(err, -EOPNOTSUPP, "domain '%s' is %s, its guest cannot answer", domain->name,
                      domain_state_name(domain->state));
    domain_unref(domain);
    return r;
}

static int note(const struct quiesce_journal *journal, struct change *change, bool is_frozen,
                struct error *err)
{
    bool before = change->is_frozen;
    change->is_frozen = is_frozen;
    int r = journal->note(journal->ctx, change, err);
    if (r < 0)
        change->is_frozen = before;
    return r;
}

/* Tells the guard that the moment is over. */
static void let_thaw(struct quiesce *quiesce)
{
    mutex_lock(&quiesce->lock);
    quiesce->is_moment_over = true;
    cond_wake_all(&quiesce->changed);
    mutex_unlock(&quiesce->lock);
}

static void stop(struct quiesce *quiesce)
{
    mutex_lock(&quiesce->lock);
    quiesce->is_stopped = true;
    quiesce->is_moment_over = true;
    cond_wake_all(&quiesce->changed);
    mutex_unlock(&quiesce->lock);
}

/* Waits for the guard to be further than @state; the state it is in. */
static enum guard_state await(struct quiesce *quiesce, enum guard_state state, unsigned timeout_ms)
{
    int64_t deadline_ns = after_ms(timeout_ms);
    mutex_lock(&quiesce->lock);
    while (quiesce->state <= state)
        if (!cond_wait_until(&quiesce->changed, &quiesce->lock, deadline_ns))
            break;
    enum guard_state reached = quiesce->state;
    mutex_unlock(&quiesce->lock);
    return reached;
}

/* What came of the freeze. */
static int await_freeze(struct quiesce *quiesce, struct error *err)
{
    if (await(quiesce, GUARD_FREEZING, quiesce->limits.freeze_ms) == GUARD_FREEZING)
        return error_set(err, -ETIMEDOUT, "the guest agent did not freeze within %u ms",
                         quiesce->limits.freeze_ms);
    mutex_lock(&quiesce->lock);
    int r = quiesce->freeze_result;
    if (r < 0)
        *err = quiesce->freeze_error;
    mutex_unlock(&quiesce->lock);
    return r == -EINPROGRESS ? -ETIMEDOUT : r;
}

/* With try that is how it is, with require the end. */
static int refuse(struct quiesce *quiesce, int code, const struct error *why, struct error *err)
{
    quiesce->reason = *why;
    quiesce->reason.code = code;
    quiesce->consistency = "crash";
    if (quiesce->policy != QUIESCE_REQUIRE)
        return 0;
    error_set(err, code, "quiesce=require: %s", why->text);
    return code;
}

int quiesce_begin(struct quiesce *quiesce, struct change *change,
                  const struct quiesce_journal *journal, struct error *err)
{
    assert(!quiesce->has_guard);
    if (quiesce->policy == QUIESCE_NEVER || is_off(quiesce))
        return 0;
    struct error why = {0};
    int r = check_guest(quiesce, &why);
    if (r < 0)
        return refuse(quiesce, r, &why, err);
    r = note(journal, change, true, err);
    if (r < 0)
        return r;
    r = start_guard(quiesce, err);
    if (r < 0) {
        struct error undo = {0};
        if (note(journal, change, false, &undo) < 0)
            log_debug("%s", undo.text); /* thawing once too often does no harm */
        return r;
    }
    r = await_freeze(quiesce, &why);
    if (r == 0) {
        quiesce->consistency = "filesystem";
        return 0;
    }
    let_thaw(quiesce);
    if (get_state(quiesce) == GUARD_DONE) {
        int noted = note(journal, change, false, err);
        if (noted < 0)
            return noted;
    }
    return refuse(quiesce, r, &why, err);
}

int quiesce_end(struct quiesce *quiesce, struct change *change,
                const struct quiesce_journal *journal, struct error *err)
{
    if (!change->is_frozen || !quiesce->has_guard)
        return 0;
    bool was_frozen = strcmp(quiesce->consistency, "filesystem") == 0;
    if (!was_frozen) /* the agent hangs: begin() has waited long enough */
        return 0;
    bool is_expired = get_state(quiesce) != GUARD_FROZEN;
    let_thaw(quiesce);
    struct error ignored = {0};
    if (quiesce_settle(quiesce, change, journal, quiesce->limits.thaw_ms, &ignored) < 0)
        log_debug("%s", ignored.text); /* it is settled later */
    if (!is_expired)
        return 0;
    struct error why;
    error_set(&why, -ETIMEDOUT, "the moment took longer than the %u ms that a guest may be frozen",
              quiesce->limits.frozen_ms);
    return refuse(quiesce, -ETIMEDOUT, &why, err);
}

int quiesce_settle(struct quiesce *quiesce, struct change *change,
                   const struct quiesce_journal *journal, unsigned timeout_ms, struct error *err)
{
    if (!change->is_frozen || !quiesce->has_guard)
        return 0;
    let_thaw(quiesce);
    if (await(quiesce, GUARD_THAWING, timeout_ms) == GUARD_DONE)
        return note(journal, change, false, err);
    mutex_lock(&quiesce->lock);
    struct error why = quiesce->thaw_error;
    mutex_unlock(&quiesce->lock);
    return error_set(err, -ETIMEDOUT, "the guest's file systems may be frozen%s%s",
                     why.code ? ": " : "", why.text);
}

void quiesce_free(struct quiesce *quiesce)
{
    if (!quiesce)
        return;
    if (quiesce->has_guard) {
        stop(quiesce);
        pthread_join(quiesce->guard, NULL);
    }
    cond_fini(&quiesce->changed);
    mutex_fini(&quiesce->lock);
    free(quiesce->domain_id);
    free(quiesce);
}

int quiesce_undo(struct host *host, struct change *change, const struct quiesce_journal *journal,
                 struct error *err)
{
    if (!change->is_frozen)
        return 0;
    int r = host->ops->thaw ? host->ops->thaw(host, change->domain_id, err) : 0;
    if (r == -ESTALE && !is_off_for_good(host, change->domain_id))
        return error_set(err, -EAGAIN,
                         "domain '%s' was saved while its file systems were frozen; they are "
                         "thawed when it runs again",
                         change->domain_name);
    return r < 0 && r != -ESTALE ? r : note(journal, change, false, err);
}

const char *quiesce_consistency(const struct quiesce *quiesce)
{
    return quiesce->consistency;
}

const char *quiesce_reason(const struct quiesce *quiesce)
{
    return quiesce->reason.code ? quiesce->reason.text : NULL;
}
