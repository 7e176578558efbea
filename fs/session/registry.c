/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/session/registry.h"

#include <stdio.h>
#include <string.h>

#include "fs/session/registry_internal.h"
#include "qcow/base/cleanup.h"

/* ---- Slots ---- */

static int compare_slots(const void *a, const void *b)
{
    return strcmp(((const struct slot *)a)->id, ((const struct slot *)b)->id);
}

struct slot *slot_find_locked(struct registry *registry, const char *domain_id)
{
    struct slot key = {.id = (char *)domain_id};
    struct slot **node = tfind(&key, &registry->slots_by_id, compare_slots);
    return node ? *node : NULL;
}

struct slot *slot_get_locked(struct registry *registry, const char *domain_id)
{
    struct slot *slot = slot_find_locked(registry, domain_id);
    if (slot)
        return slot;
    slot = calloc(1, sizeof(*slot));
    char *id = strdup(domain_id);
    if (slot)
        slot->id = id;
    if (!slot || !id || !tsearch(slot, &registry->slots_by_id, compare_slots)) {
        free(id);
        free(slot);
        return NULL;
    }
    slot->registry = registry;
    TAILQ_INIT(&slot->waiters);
    STAILQ_INIT(&slot->left);
    LIST_INIT(&slot->named);
    LIST_INSERT_HEAD(&registry->slots, slot, link);
    registry->n_slots++;
    return slot;
}

int registry_create(const struct registry_config *config, struct registry **ret_registry,
                    struct error *err)
{
    struct registry *registry = calloc(1, sizeof(*registry));
    if (!registry)
        return error_set(err, -ENOMEM, "out of memory");
    registry->config = *config;
    mutex_init(&registry->lock);
    cond_init(&registry->changed);
    LIST_INIT(&registry->slots);
    *ret_registry = registry;
    return 0;
}

static void slot_destroy(void *arg)
{
    struct slot *slot = arg;
    slot_errors_fini(slot);
    free(slot->id);
    free(slot);
}

void registry_destroy(struct registry *registry)
{
    if (!registry)
        return;
    tdestroy(registry->slots_by_id, slot_destroy);
    cond_fini(&registry->changed);
    mutex_fini(&registry->lock);
    free(registry);
}

/* ---- Waiters ---- */

static void waiter_destroy(struct waiter *waiter)
{
    if (waiter)
        free(waiter->target);
    free(waiter);
}

static struct waiter *waiter_create(const struct open_request *request)
{
    struct waiter *waiter = calloc(1, sizeof(*waiter));
    if (!waiter)
        return NULL;
    waiter->target = strdup(request->disk->target);
    waiter->serial = request->serial;
    waiter->shown = request->shown;
    waiter->pid = request->pid;
    waiter->done = request->done;
    waiter->ctx = request->ctx;
    waiter->is_asking = true;
    if (waiter->target)
        return waiter;
    waiter_destroy(waiter);
    return NULL;
}

void waiter_answer_locked(struct slot *slot, struct waiter *waiter, int result,
                          struct reader *reader, const struct error *err,
                          struct waiter_list *answers)
{
    if (waiter->is_queued)
        TAILQ_REMOVE(&slot->waiters, waiter, link);
    waiter->is_queued = false;
    waiter->is_answered = true;
    waiter->result = result;
    waiter->reader = reader;
    waiter->err = *err;
    if (!waiter->is_asking)
        TAILQ_INSERT_TAIL(answers, waiter, link);
}

void slot_answer_all_locked(struct slot *slot, const struct error *err, struct waiter_list *answers)
{
    struct waiter *waiter;
    while ((waiter = TAILQ_FIRST(&slot->waiters)))
        waiter_answer_locked(slot, waiter, err->code, NULL, err, answers);
}

static void deliver(struct waiter *waiter)
{
    waiter->done(waiter->ctx, waiter->result, waiter->reader, &waiter->err);
    waiter_destroy(waiter);
}

void waiters_deliver(struct waiter_list *answers)
{
    struct waiter *waiter;
    while ((waiter = TAILQ_FIRST(answers))) {
        TAILQ_REMOVE(answers, waiter, link);
        deliver(waiter);
    }
}

/* ---- Who gets which instant ---- */

enum verdict {
    VERDICT_JOIN,  /* the instant that is there */
    VERDICT_WAIT,  /* the instant that is being taken, or that follows the one being released */
    VERDICT_FRESH, /* a new one, after the one that lingers is put back */
    VERDICT_BUSY,  /* none: others still read an older one */
    VERDICT_STUCK, /* none: an earlier one could not be put back */
};

struct decision {
    enum verdict verdict;
    uint64_t serial; /* of the instant it is about; VERDICT_BUSY: of the one in the way */
};

static bool is_young_locked(const struct session *session) REQUIRES(registry_role)
{
    int64_t age_ns = monotonic_ns() - session->taken_ns;
    return age_ns < (int64_t)session->registry->config.join_s * 1000000000;
}

static bool was_read_locked(const struct session *session, const char *target)
    REQUIRES(registry_role)
{
    size_t idx = session_find_disk_locked(session, target);
    return idx == SIZE_MAX || session->disks[idx].was_read;
}

/* The rules of joining and lingering. @slot may be NULL: a domain never opened. */
static struct decision decide_locked(const struct slot *slot, const char *target)
    REQUIRES(registry_role)
{
    const struct session *session = slot ? slot->session : NULL;
    if (!session) {
        if (slot && !STAILQ_EMPTY(&slot->left))
            return (struct decision){VERDICT_STUCK, slot->last_serial + 1};
        return (struct decision){slot && slot->has_thread ? VERDICT_WAIT : VERDICT_FRESH,
                                 slot ? slot->last_serial + 1 : 1};
    }
    uint64_t serial = session->serial;
    switch (session->state) {
    case SESSION_TAKING:
        return (struct decision){VERDICT_WAIT, serial};
    case SESSION_OPEN:
        return (struct decision){is_young_locked(session) ? VERDICT_JOIN : VERDICT_BUSY, serial};
    case SESSION_LINGERING:
        if (!was_read_locked(session, target))
            return (struct decision){VERDICT_JOIN, serial};
        return (struct decision){VERDICT_FRESH, serial + 1};
    case SESSION_RELEASING:
        if (session->is_left || session->n_tries > 0)
            break;
        return (struct decision){VERDICT_WAIT, slot->last_serial + 1};
    case SESSION_GONE:
        return (struct decision){VERDICT_WAIT, slot->last_serial + 1};
    case SESSION_DEFERRED:
    case SESSION_BROKEN:
        break;
    }
    return (struct decision){VERDICT_STUCK, slot->last_serial + 1};
}

/*
 * Looked the name up while somebody read, and opens just after the last close. The kernel takes
 * one -ESTALE for a reason to look again, but shows a second one to the program, and with several
 * readers that come and go there would be a second one now and then.
 */
static bool is_late_joiner_locked(const struct session *session, const struct waiter *waiter)
    REQUIRES(registry_role)
{
    return session && session->state == SESSION_LINGERING && session->serial == waiter->serial &&
           is_young_locked(session);
}

static void peek_locked(const struct slot *slot, const char *target, struct session_peek *ret_peek)
    REQUIRES(registry_role)
{
    struct decision decision = decide_locked(slot, target);
    *ret_peek = (struct session_peek){.serial = decision.serial};
    if (decision.verdict != VERDICT_JOIN && decision.verdict != VERDICT_BUSY)
        return;
    /* While an older one is in the way, it is what stat shows: an open gets -EBUSY anyway. */
    size_t idx = session_find_disk_locked(slot->session, target);
    if (idx == SIZE_MAX || !slot->session->disks[idx].is_served)
        return;
    ret_peek->is_taken = true;
    ret_peek->attr = slot->session->disks[idx].attr;
}

void registry_peek(struct registry *registry, const char *domain_id, const char *target,
                   struct session_peek *ret_peek)
{
    registry_lock(registry);
    peek_locked(slot_find_locked(registry, domain_id), target, ret_peek);
    registry_unlock(registry);
}

static int refuse_stuck_locked(const struct session *session, struct error *err)
    REQUIRES(registry_role)
{
    if (!session || session->broken.code == 0)
        return error_set(err, -EBUSY, "what an earlier mount left in the domain is being undone");
    return error_set(err, -EBUSY, "an earlier instant was not put back: %s", session->broken.text);
}

static int queue_locked(struct slot *slot, struct waiter *waiter, struct error *err)
    REQUIRES(registry_role)
{
    if (!slot->has_thread) {
        int r = session_start_locked(slot, err);
        if (r < 0)
            return r;
    }
    TAILQ_INSERT_TAIL(&slot->waiters, waiter, link);
    waiter->is_queued = true;
    return 0;
}

/* 0 if the waiter was queued (no reader) or has its reader, or why not. */
static int admit_locked(struct registry *registry, const char *domain_id, struct waiter *waiter,
                        struct reader **ret_reader, struct error *err) REQUIRES(registry_role)
{
    if (registry->is_shut)
        return error_set(err, -ESHUTDOWN, "the file system is being unmounted");
    struct slot *slot = slot_get_locked(registry, domain_id);
    if (!slot)
        return error_set(err, -ENOMEM, "out of memory");
    struct session *session = slot->session;
    struct decision decision = decide_locked(slot, waiter->target);
    if (decision.verdict == VERDICT_BUSY)
        return registry_refuse_busy_locked(session, err);
    if (decision.verdict == VERDICT_STUCK)
        return refuse_stuck_locked(session, err);
    if (is_late_joiner_locked(session, waiter))
        decision = (struct decision){VERDICT_JOIN, waiter->serial};
    if (decision.serial != waiter->serial)
        return error_set(err, -ESTALE, "the instant is over");
    if (decision.verdict == VERDICT_JOIN)
        return session_join_locked(session, waiter->target, &waiter->shown, waiter->pid, ret_reader,
                                   err);
    if (decision.verdict == VERDICT_FRESH && session)
        session_end_locked(session, 0, NULL);
    return queue_locked(slot, waiter, err);
}

/*
 * Asks the asker once the request can be found by registry_cancel(), so that giving up is noticed
 * whenever it comes. Until then nobody else hands out the answer, or ctx could be gone.
 */
static void finish_asking(struct registry *registry, const char *domain_id, struct waiter *waiter,
                          bool (*is_cancelled)(void *ctx)) EXCLUDES(registry_role)
{
    bool has_given_up = is_cancelled && is_cancelled(waiter->ctx);
    struct waiter_list none = TAILQ_HEAD_INITIALIZER(none);
    registry_lock(registry);
    if (has_given_up && !waiter->is_answered) {
        struct error err;
        error_set(&err, -EINTR, "interrupted");
        waiter_answer_locked(slot_find_locked(registry, domain_id), waiter, -EINTR, NULL, &err,
                             &none);
    }
    waiter->is_asking = false;
    bool is_answered = waiter->is_answered;
    registry_unlock(registry);
    if (is_answered)
        deliver(waiter);
}

static void open_now(struct registry *registry, const struct open_request *request)
{
    struct error err = {0};
    struct waiter *waiter = waiter_create(request);
    if (!waiter) {
        error_set(&err, -ENOMEM, "out of memory");
        request->done(request->ctx, -ENOMEM, NULL, &err);
        return;
    }
    /* The request's record may go once it is answered, and that may be before this returns. */
    auto_free char *domain_id = strdup(request->domain->id);
    bool (*is_cancelled)(void *ctx) = request->is_cancelled;
    struct reader *reader = NULL;
    int r = domain_id ? 0 : error_set(&err, -ENOMEM, "out of memory");
    registry_lock(registry);
    if (r == 0)
        r = admit_locked(registry, domain_id, waiter, &reader, &err);
    bool is_queued = waiter->is_queued;
    registry_unlock(registry);
    if (is_queued) {
        finish_asking(registry, domain_id, waiter, is_cancelled);
        return;
    }
    waiter->result = r;
    waiter->reader = reader;
    waiter->err = err;
    deliver(waiter);
}

bool registry_make_room_locked(struct registry *registry)
{
    struct session *oldest = NULL;
    struct slot *slot;
    LIST_FOREACH(slot, &registry->slots, link)
    {
        struct session *session = slot->session;
        if (session && session->state == SESSION_LINGERING &&
            (!oldest || session->linger_ns < oldest->linger_ns))
            oldest = session;
    }
    if (oldest)
        session_end_locked(oldest, 0, NULL);
    return oldest != NULL;
}

/* A disk that only a running hypervisor can read, and that may be asked to. */
static bool may_ask_hypervisor(const struct registry *registry, const struct open_request *request)
{
    enum live_method live = registry->config.live;
    return request->disk->is_remote && !request->snapshot &&
           request->domain->state != DOMAIN_SHUTOFF && (live == LIVE_AUTO || live == LIVE_BACKUP);
}

void registry_open(struct registry *registry, const struct open_request *request)
{
    if (request->disk->unsupported && !may_ask_hypervisor(registry, request)) {
        struct error err;
        error_set(&err, -EOPNOTSUPP, "disk '%s': %s", request->disk->target,
                  request->disk->unsupported);
        request->done(request->ctx, -EOPNOTSUPP, NULL, &err);
    } else if (request->snapshot) {
        reader_open_named(registry, request);
    } else {
        open_now(registry, request);
    }
}

static void cancel_locked(struct registry *registry, const void *ctx, struct waiter_list *answers)
    REQUIRES(registry_role)
{
    struct error err;
    error_set(&err, -EINTR, "interrupted");
    struct slot *slot;
    struct waiter *waiter;
    LIST_FOREACH(slot, &registry->slots, link)
    {
        TAILQ_FOREACH(waiter, &slot->waiters, link)
        {
            if (waiter->ctx != ctx)
                continue;
            waiter_answer_locked(slot, waiter, -EINTR, NULL, &err, answers);
            return;
        }
    }
}

void registry_cancel(struct registry *registry, void *ctx)
{
    struct waiter_list answers = TAILQ_HEAD_INITIALIZER(answers);
    registry_lock(registry);
    cancel_locked(registry, ctx, &answers);
    registry_unlock(registry);
    waiters_deliver(&answers);
}

/* ---- Events ---- */

static void domain_changed_locked(struct session *session, enum domain_state state)
    REQUIRES(registry_role)
{
    session->has_news = true;
    if (state == DOMAIN_PAUSED && session->space_ns != INT64_MAX)
        session->space_ns = 0; /* perhaps for want of room */
    cond_wake_all(&session->wake);
    if (state == DOMAIN_SHUTOFF && session->ends_with_guest)
        session_end_locked(session, -EIO, "the domain was stopped while its disks were read");
    if (state != DOMAIN_RUNNING)
        return;
    if (session->state == SESSION_TAKING)
        session->saw_run = true;
    else if (session->is_cold_lock)
        session_end_locked(session, -EIO, "the domain was started while its disks were read");
}

void registry_domain_changed(struct registry *registry, const struct domain *domain)
{
    registry_lock(registry);
    struct slot *slot = slot_find_locked(registry, domain->id);
    if (slot && slot->session)
        domain_changed_locked(slot->session, domain->state);
    registry_unlock(registry);
}

void registry_domain_gone(struct registry *registry, const char *domain_id)
{
    registry_lock(registry);
    struct slot *slot = slot_find_locked(registry, domain_id);
    if (slot && slot->session) {
        slot->session->has_news = true;
        cond_wake_all(&slot->session->wake);
        session_end_locked(slot->session, -ESTALE, "the domain is gone");
    }
    registry_unlock(registry);
}
