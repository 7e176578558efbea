/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/session/session.h"

#include <inttypes.h>
#include <signal.h>
#include <string.h>

#include "fs/log.h"
#include "fs/session/catalog.h"
#include "fs/session/registry_internal.h"
#include "qcow/base/cleanup.h"

const char *session_state_name(enum session_state state)
{
    switch (state) {
    case SESSION_TAKING:
        return "taking";
    case SESSION_OPEN:
        return "open";
    case SESSION_LINGERING:
        return "lingering";
    case SESSION_RELEASING:
        return "releasing";
    case SESSION_GONE:
        return "gone";
    case SESSION_BROKEN:
        return "broken";
    }
    return "unknown";
}

#define MOVE(state) (1u << (state))
static const unsigned allowed_moves[] = {
    /* OPEN or LINGERING: taken; RELEASING: taken too late; GONE: failed; BROKEN: undo failed */
    [SESSION_TAKING] = MOVE(SESSION_OPEN) | MOVE(SESSION_LINGERING) | MOVE(SESSION_RELEASING) |
                       MOVE(SESSION_GONE) | MOVE(SESSION_BROKEN),
    [SESSION_OPEN] = MOVE(SESSION_LINGERING) | MOVE(SESSION_RELEASING),
    [SESSION_LINGERING] = MOVE(SESSION_OPEN) | MOVE(SESSION_RELEASING),
    [SESSION_RELEASING] = MOVE(SESSION_GONE) | MOVE(SESSION_BROKEN),
    [SESSION_GONE] = 0,
    [SESSION_BROKEN] = MOVE(SESSION_RELEASING),
};

static void session_check_locked(const struct session *session) REQUIRES(registry_role)
{
    bool is_usable = session->state == SESSION_OPEN || session->state == SESSION_LINGERING;
    assert(session->state != SESSION_OPEN || session->n_readers > 0);
    assert(session->state != SESSION_LINGERING || session->n_readers == 0);
    assert(!is_usable || (session->instant.images && session->disks && session->method));
    assert(session->state != SESSION_TAKING || session->n_readers == 0);
    (void)is_usable;
}

/* The only place that assigns the state. */
static void session_enter_locked(struct session *session, enum session_state next)
    REQUIRES(registry_role)
{
    assert(allowed_moves[session->state] & MOVE(next));
    log_debug("domain %s: instant %" PRIu64 ": %s -> %s", session->slot->id, session->serial,
              session_state_name(session->state), session_state_name(next));
    session->state = next;
    session_check_locked(session);
    cond_wake_all(&session->wake);
}

static struct session *session_create_locked(struct slot *slot) REQUIRES(registry_role)
{
    struct session *session = calloc(1, sizeof(*session));
    if (!session)
        return NULL;
    session->registry = slot->registry;
    session->slot = slot;
    session->serial = slot->last_serial + 1;
    session->state = SESSION_TAKING;
    session->refs = 1;
    LIST_INIT(&session->readers);
    cond_init(&session->wake);
    return session;
}

bool session_unref_locked(struct session *session)
{
    return --session->refs == 0;
}

void session_free(struct session *session)
{
    if (session->instant.private_data)
        session->method->forget(&session->instant);
    instant_fini(&session->instant);
    cond_fini(&session->wake);
    domain_unref(session->record);
    free(session->growing);
    free(session->disks);
    free(session);
}

void session_end_locked(struct session *session, int code, const char *text)
{
    if (code < 0 && session->end.code == 0)
        error_set(&session->end, code, "%s", text);
    if (session->state != SESSION_OPEN && session->state != SESSION_LINGERING)
        return;
    struct reader *reader;
    LIST_FOREACH(reader, &session->readers, link)
    reader_end(reader, &session->end);
    session_enter_locked(session, SESSION_RELEASING);
}

size_t session_find_disk_locked(const struct session *session, const char *target)
{
    const struct domain *domain = session->instant.domain;
    for (size_t i = 0; i < domain->n_disks; i++)
        if (strcmp(domain->disks[i].target, target) == 0)
            return i;
    return SIZE_MAX;
}

int session_join_locked(struct session *session, const char *target,
                        const struct session_attr *shown, pid_t pid, struct reader **ret_reader,
                        struct error *err)
{
    size_t idx = session_find_disk_locked(session, target);
    if (idx == SIZE_MAX)
        return error_set(err, -ESTALE, "disk '%s' is not part of the instant", target);
    const struct error *failure = &session->instant.failures[idx];
    if (failure->code < 0)
        return error_set(err, failure->code, "%s", failure->text);
    struct session_disk *disk = &session->disks[idx];
    if (shown->guest_size != disk->attr.guest_size)
        return error_set(err, -ESTALE, "disk '%s' has changed its size meanwhile", target);
    struct reader *reader = reader_create_locked(session, idx, pid);
    if (!reader)
        return error_set(err, -ENOMEM, "out of memory");
    session->n_readers++;
    session->refs++;
    disk->was_read = true;
    if (session->state == SESSION_LINGERING)
        session_enter_locked(session, SESSION_OPEN);
    *ret_reader = reader;
    return 0;
}

/*
 * Lingering is for disks that nobody has read yet. Without any, just long enough for those who
 * found the name while it was read and are about to open it.
 */
enum { LINGER_MIN_MS = 100 };

static void linger_locked(struct session *session) REQUIRES(registry_role)
{
    bool is_useful = false;
    for (size_t i = 0; i < session->instant.domain->n_disks; i++)
        is_useful = is_useful || (session->disks[i].is_served && !session->disks[i].was_read);
    int64_t linger_ms = is_useful ? (int64_t)session->registry->config.linger_s * 1000 : 0;
    if (linger_ms < LINGER_MIN_MS)
        linger_ms = LINGER_MIN_MS;
    session->linger_ns = monotonic_ns() + linger_ms * 1000000;
    session_enter_locked(session, SESSION_LINGERING);
}

void session_leave_locked(struct session *session)
{
    session->n_readers--;
    if (session->state == SESSION_OPEN && session->n_readers == 0)
        linger_locked(session);
}

/* ---- The thread: taking ---- */

static const struct method *choose_method(const struct registry *registry,
                                          const struct domain *domain, struct error *err)
{
    if (domain->state == DOMAIN_SHUTOFF)
        return &method_lock;
    if (registry->config.live == LIVE_OVERLAY)
        return &method_overlay;
    error_set(err, -EOPNOTSUPP, "domain '%s' is %s: say live=overlay, or shut it down",
              domain->name, domain_state_name(domain->state));
    return NULL;
}

static struct timespec earlier(struct timespec a, struct timespec b)
{
    bool is_a = a.tv_sec != b.tv_sec ? a.tv_sec < b.tv_sec : a.tv_nsec < b.tv_nsec;
    return is_a ? a : b;
}

/* What stat would have shown of each disk just before the instant. */
static int prepare_disks(struct domain *domain, struct session_disk **ret_disks, struct error *err)
{
    struct session_disk *disks = calloc(domain->n_disks + 1, sizeof(*disks));
    if (!disks)
        return error_set(err, -ENOMEM, "out of memory");
    struct catalog *catalog;
    int r = catalog_get(domain, &catalog, err);
    if (r < 0) {
        free(disks);
        return r;
    }
    for (size_t i = 0; i < catalog->n_entries; i++) {
        const struct catalog_entry *entry = &catalog->entries[i];
        if (entry->is_now && entry->disk_idx < domain->n_disks)
            disks[entry->disk_idx].attr = (struct session_attr){
                .guest_size = entry->guest_size, .mtime = entry->mtime, .blocks = entry->blocks};
    }
    catalog_unref(catalog);
    *ret_disks = disks;
    return 0;
}

struct taken {
    const struct method *method;
    struct session_disk *disks;
};

static int take(struct session *session, struct taken *ret_taken, struct error *err)
{
    struct registry *registry = session->registry;
    struct host *host = registry->config.host;
    struct instant *instant = &session->instant;
    instant->host = host;
    instant->cache = registry->config.cache;
    int r = record_find(host, session->slot->id, &instant->domain, err);
    if (r < 0)
        return r;
    const struct method *method = choose_method(registry, instant->domain, err);
    if (!method)
        return -EOPNOTSUPP;
    ret_taken->method = method;
    r = method->can(host, instant->domain, err);
    if (r < 0)
        return r;
    auto_free struct session_disk *disks = NULL;
    r = prepare_disks(instant->domain, &disks, err);
    if (r == 0 && method != &method_lock)
        registry_note_record(session);
    if (r == 0)
        r = method->take(instant, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < instant->domain->n_disks; i++)
        disks[i].is_served = instant->images[i] != NULL;
    ret_taken->disks = take_ptr(disks);
    return 0;
}

/* The attributes for the life of the instant: what its first asker saw, if that is still true. */
static void fix_attrs_locked(struct session *session) REQUIRES(registry_role)
{
    const struct instant *instant = &session->instant;
    for (size_t i = 0; i < instant->domain->n_disks; i++) {
        if (!instant->images[i])
            continue;
        struct session_attr *attr = &session->disks[i].attr;
        uint64_t guest_size = qcow_size(disk_image_qcow(instant->images[i]));
        attr->guest_size = guest_size;
        const struct waiter *waiter;
        TAILQ_FOREACH(waiter, &session->slot->waiters, link)
        {
            if (strcmp(waiter->target, instant->domain->disks[i].target) == 0 &&
                waiter->shown.guest_size == guest_size) {
                *attr = waiter->shown;
                break;
            }
        }
        /* No later than the instant, or a change after it would hide behind the time. */
        attr->mtime = earlier(attr->mtime, instant->taken);
    }
}

static void publish_locked(struct session *session, const struct taken *taken)
    REQUIRES(registry_role)
{
    const struct instant *instant = &session->instant;
    session->method = taken->method;
    session->disks = taken->disks;
    session->growing = instant->growing ? strdup(instant->growing) : NULL;
    session->is_locked = true;
    for (size_t i = 0; i < instant->domain->n_disks; i++)
        if (instant->images[i])
            session->is_locked = session->is_locked && disk_image_is_locked(instant->images[i]);
    session->taken_ns = monotonic_ns();
    session->hold_ns =
        session->taken_ns + (int64_t)session->registry->config.max_hold_s * 1000000000;
    session->slot->last_serial = session->serial;
    fix_attrs_locked(session);
    if (taken->method == &method_lock && session->saw_run)
        session_end_locked(session, -EIO, "the domain was started meanwhile");
}

/* Everybody who waited gets a reader or the reason why not. */
static void admit_waiters_locked(struct session *session, struct waiter_list *answers)
    REQUIRES(registry_role)
{
    struct slot *slot = session->slot;
    struct waiter *waiter;
    while ((waiter = TAILQ_FIRST(&slot->waiters))) {
        struct reader *reader = NULL;
        struct error err = {0};
        int r = session_join_locked(session, waiter->target, &waiter->shown, waiter->pid, &reader,
                                    &err);
        waiter_answer_locked(slot, waiter, r, reader, &err, answers);
    }
}

static void fail_locked(struct session *session, const struct error *err,
                        struct waiter_list *answers) REQUIRES(registry_role)
{
    bool is_stuck = session->instant.private_data != NULL;
    if (is_stuck) {
        session->broken = *err;
        session->growing = session->instant.growing ? strdup(session->instant.growing) : NULL;
    }
    slot_answer_all_locked(session->slot, err, answers);
    session_enter_locked(session, is_stuck ? SESSION_BROKEN : SESSION_GONE);
}

/* TAKING to one of the states after it; returns without the lock, all answers given. */
static void session_take(struct session *session) EXCLUDES(registry_role)
{
    struct taken taken = {0};
    struct error err = {0};
    int r = take(session, &taken, &err);
    err.code = r;
    struct waiter_list answers = TAILQ_HEAD_INITIALIZER(answers);
    registry_lock(session->registry);
    if (r < 0) {
        session->method = taken.method;
        fail_locked(session, &err, &answers);
    } else {
        publish_locked(session, &taken);
        if (session->end.code < 0) {
            slot_answer_all_locked(session->slot, &session->end, &answers);
            session_enter_locked(session, SESSION_RELEASING);
        } else {
            admit_waiters_locked(session, &answers);
            if (session->n_readers > 0)
                session_enter_locked(session, SESSION_OPEN);
            else
                linger_locked(session);
        }
    }
    registry_unlock(session->registry);
    waiters_deliver(&answers);
}

/* ---- The thread: holding and releasing ---- */

/* Returns in RELEASING. */
static void hold_locked(struct session *session) REQUIRES(registry_role)
{
    struct registry *registry = session->registry;
    while (session->state == SESSION_OPEN || session->state == SESSION_LINGERING) {
        int64_t now = monotonic_ns();
        bool is_lingering = session->state == SESSION_LINGERING;
        if (is_lingering && now >= session->linger_ns)
            session_end_locked(session, 0, NULL);
        else if (now >= session->hold_ns)
            session_end_locked(session, -EIO, "the instant was held longer than max_hold");
        else if (is_lingering && session->linger_ns < session->hold_ns)
            registry_wait_until(registry, &session->wake, session->linger_ns);
        else
            registry_wait_until(registry, &session->wake, session->hold_ns);
    }
}

/* RELEASING to GONE or BROKEN; drops the lock meanwhile. */
static void release_locked(struct session *session) REQUIRES(registry_role)
{
    struct registry *registry = session->registry;
    struct error end = session->end;
    struct error err = {0};
    bool is_news = end.code < 0 && session->n_readers > 0 && !registry->is_shut;
    registry_unlock(registry);
    if (is_news)
        registry_note_error(registry, session->slot->id, "now", &end);
    int r = session->method->release(&session->instant, &err);
    if (r < 0) {
        err.code = r;
        error_prefix(&err, "the domain could not be put back");
        registry_note_error(registry, session->slot->id, "now", &err);
    }
    registry_lock(registry);
    if (r < 0)
        session->broken = err;
    session_enter_locked(session, r < 0 ? SESSION_BROKEN : SESSION_GONE);
}

/* One more try when all ends: what stood in the way may be over. */
static void stay_broken_locked(struct session *session) REQUIRES(registry_role)
{
    struct registry *registry = session->registry;
    registry->n_open--;
    while (!registry->is_shut)
        registry_wait(registry, &session->wake);
    registry->n_open++;
    session_enter_locked(session, SESSION_RELEASING);
    release_locked(session);
}

static void refuse_waiters_locked(struct session *session, struct waiter_list *answers)
    REQUIRES(registry_role)
{
    struct error err;
    error_set(&err, -EBUSY, "an earlier instant was not put back: %s", session->broken.text);
    slot_answer_all_locked(session->slot, &err, answers);
}

/* One instant from TAKING to its end. Called and returns with the lock. */
static void serve_locked(struct slot *slot) REQUIRES(registry_role)
{
    struct registry *registry = slot->registry;
    struct waiter_list answers = TAILQ_HEAD_INITIALIZER(answers);
    struct session *session = session_create_locked(slot);
    if (!session) {
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
        release_locked(session);
    if (session->state == SESSION_BROKEN) {
        refuse_waiters_locked(session, &answers);
        registry_unlock(registry);
        waiters_deliver(&answers);
        registry_lock(registry);
        stay_broken_locked(session);
    }
    slot->session = NULL;
    if (session_unref_locked(session)) {
        registry_unlock(registry);
        session_free(session);
        registry_lock(registry);
    }
}

static void *session_main(void *arg)
{
    struct slot *slot = arg;
    struct registry *registry = slot->registry;
    registry_lock(registry);
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
    if (registry->n_open >= registry->config.max_open && !registry_make_room_locked(registry))
        return error_set(err, -EMFILE, "%u instants are open already (max_open)", registry->n_open);
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    sigset_t all, before; /* signals are for the main thread */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    int r = pthread_create(&thread, &attr, session_main, slot);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    if (r != 0)
        return error_set(err, -ENOMEM, "cannot start a thread: %s", strerrordesc_np(r));
    slot->has_thread = true;
    registry->n_open++;
    registry->n_threads++;
    return 0;
}
