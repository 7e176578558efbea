/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/session/session.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "fs/log.h"
#include "fs/session/catalog.h"
#include "fs/session/patience.h"
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
    case SESSION_DEFERRED:
        return "deferred";
    case SESSION_BROKEN:
        return "broken";
    }
    return "unknown";
}

#define MOVE(state) (1U << (state))
static const unsigned allowed_moves[] = {
    /* OPEN or LINGERING: taken; RELEASING: taken too late, or undo failed; GONE: failed */
    [SESSION_TAKING] =
        MOVE(SESSION_OPEN) | MOVE(SESSION_LINGERING) | MOVE(SESSION_RELEASING) | MOVE(SESSION_GONE),
    [SESSION_OPEN] = MOVE(SESSION_LINGERING) | MOVE(SESSION_RELEASING),
    [SESSION_LINGERING] = MOVE(SESSION_OPEN) | MOVE(SESSION_RELEASING),
    [SESSION_RELEASING] = MOVE(SESSION_GONE) | MOVE(SESSION_DEFERRED) | MOVE(SESSION_BROKEN),
    [SESSION_GONE] = 0,
    [SESSION_DEFERRED] = MOVE(SESSION_RELEASING),
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

void session_enter_locked(struct session *session, enum session_state next)
{
    assert(allowed_moves[session->state] & MOVE(next));
    log_debug("domain %s: instant %" PRIu64 ": %s -> %s", session->slot->id, session->serial,
              session_state_name(session->state), session_state_name(next));
    session->state = next;
    session->slot->alive_ns = monotonic_ns();
    session_check_locked(session);
    cond_wake_all(&session->wake);
}

/* Nobody waits any more, or nobody may. Who asks is alive. */
static bool is_unwanted(void *ctx)
{
    struct session *session = ctx;
    registry_lock(session->registry);
    session->slot->alive_ns = monotonic_ns();
    if (session->patience)
        patience_renew_locked(session->patience);
    bool is_over = session->registry->is_shut || TAILQ_EMPTY(&session->slot->waiters);
    registry_unlock(session->registry);
    return is_over;
}

struct session *session_create_locked(struct slot *slot, enum session_state state)
{
    struct session *session = calloc(1, sizeof(*session));
    if (!session)
        return NULL;
    session->registry = slot->registry;
    session->slot = slot;
    session->serial = slot->last_serial + 1;
    session->state = state;
    session->instant.config = &slot->registry->config;
    session->instant.is_cancelled = is_unwanted;
    session->instant.ctx = session;
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
    instant_fini(&session->instant);
    cond_fini(&session->wake);
    domain_unref(session->record);
    for (size_t i = 0; i < session->n_growing; i++)
        free(session->growing[i]);
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

/* ---- Taking, on the session's thread ---- */

static struct timespec earlier(struct timespec a, struct timespec b)
{
    bool is_a = a.tv_sec != b.tv_sec ? a.tv_sec < b.tv_sec : a.tv_nsec < b.tv_nsec;
    return is_a ? a : b;
}

/* What stat would have shown of each disk just before the instant. */
static int prepare_disks(struct host *host, struct domain *domain, struct session_disk **ret_disks,
                         struct error *err)
{
    struct session_disk *disks = calloc(domain->n_disks + 1, sizeof(*disks));
    if (!disks)
        return error_set(err, -ENOMEM, "out of memory");
    struct catalog *catalog;
    int r = catalog_get(host, domain, &catalog, err);
    if (r < 0) {
        free(disks);
        return r;
    }
    for (size_t i = 0; i < catalog->n_entries; i++) {
        const struct catalog_entry *entry = &catalog->entries[i];
        if (!entry->is_now || entry->disk_idx >= domain->n_disks)
            continue;
        disks[entry->disk_idx].attr = (struct session_attr){
            .guest_size = entry->guest_size, .mtime = entry->mtime, .blocks = entry->blocks};
        disks[entry->disk_idx].is_undated = entry->is_undated;
    }
    catalog_unref(catalog);
    *ret_disks = disks;
    return 0;
}

static int take(struct session *session, struct session_disk **ret_disks, struct error *err)
{
    struct instant *instant = &session->instant;
    int r = record_find(instant->config->host, session->slot->id, &instant->domain, err);
    if (r == 0)
        r = instant_choose(instant, err);
    if (r < 0)
        return r;
    auto_free struct session_disk *disks = NULL;
    r = prepare_disks(session->registry->config.host, instant->domain, &disks, err);
    if (r == 0 && instant->method)
        registry_note_record(session);
    if (r == 0)
        r = instant_take(instant, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < instant->domain->n_disks; i++)
        disks[i].is_served = instant->images[i] != NULL;
    *ret_disks = take_ptr(disks);
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
        /* Nobody who saw a time of it asks: then nothing is known but that it is not later. */
        if (session->disks[i].is_undated && attr->mtime.tv_sec == 0 && attr->mtime.tv_nsec == 0)
            attr->mtime = instant->taken;
        /* No later than the instant, or a change after it would hide behind the time. */
        attr->mtime = earlier(attr->mtime, instant->taken);
    }
}

void session_show_method_locked(struct session *session)
{
    const struct change *change = session->instant.change;
    session->method = instant_method_name(&session->instant);
    session->is_cold_lock = !session->instant.method;
    session->ends_with_guest = session->instant.method && session->instant.method->ends_with_guest;
    session->growing = change ? calloc(change->n_disks + 1, sizeof(*session->growing)) : NULL;
    for (size_t i = 0; session->growing && i < change->n_disks; i++) {
        const char *file = change->disks[i].file;
        char *copy = file ? strdup(file) : NULL;
        if (copy)
            /* lint: gcc-analyzer/malloc-leak: kept at an index that gcc loses sight of */
            session->growing[session->n_growing++] = copy;
    }
}

static void publish_locked(struct session *session, struct session_disk *disks)
    REQUIRES(registry_role)
{
    const struct instant *instant = &session->instant;
    session_show_method_locked(session);
    session->disks = disks;
    session->is_locked = true;
    for (size_t i = 0; i < instant->domain->n_disks; i++)
        if (instant->images[i])
            session->is_locked = session->is_locked && disk_image_is_locked(instant->images[i]);
    session->taken_ns = monotonic_ns();
    session->hold_ns =
        session->taken_ns + (int64_t)session->registry->config.max_hold_s * 1000000000;
    session->space_ns = instant->change ? session->taken_ns : INT64_MAX;
    session->slot->last_serial = session->serial;
    fix_attrs_locked(session);
    if (session->is_cold_lock && session->saw_run)
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

/* What was begun and could not be undone at once is tried again, as the release of any instant. */
static void fail_locked(struct session *session, const struct error *err,
                        struct waiter_list *answers) REQUIRES(registry_role)
{
    bool is_stuck = session->instant.change != NULL;
    if (is_stuck) {
        session_show_method_locked(session);
        session->broken = *err;
    }
    /* Given up for want of anybody who waits: who has come since gets the next one. */
    if (err->code != -EINTR || session->registry->is_shut)
        slot_answer_all_locked(session->slot, err, answers);
    session_enter_locked(session, is_stuck ? SESSION_RELEASING : SESSION_GONE);
}

void session_take(struct session *session)
{
    struct session_disk *disks = NULL;
    struct error err = {0};
    struct patience patience;
    patience_begin(&patience, session);
    int r = take(session, &disks, &err);
    patience_end(&patience);
    err.code = r;
    struct waiter_list answers = TAILQ_HEAD_INITIALIZER(answers);
    registry_lock(session->registry);
    if (r < 0) {
        fail_locked(session, &err, &answers);
    } else {
        publish_locked(session, disks);
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
