/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A guest on demand for quiesce.c: what its agent answers and when, and a journal that counts. */
#pragma once

#include "fs/session/quiesce.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "qcow/base/thread.h"

enum { PLENTY_MS = 20000 };

/* A guest whose agent answers as the test says. Also the host, so it comes first. */
struct guest {
    struct host host;
    struct domain *domain;

    struct mutex lock;
    struct cond changed;
    int freeze_result GUARDED_BY(lock), thaw_result GUARDED_BY(lock);
    bool is_freeze_held GUARDED_BY(lock), is_thaw_held GUARDED_BY(lock);
    bool is_frozen GUARDED_BY(lock);
    unsigned n_freezes GUARDED_BY(lock), n_thaws GUARDED_BY(lock);

    /* The journal, on the test's thread. */
    unsigned n_notes;
    bool is_noted, was_noted_before_freeze;
    int note_result;
    struct change change;
    struct quiesce_journal journal;
    struct quiesce_limits limits;
    struct error err;
};

static inline int guest_freeze(struct host *host, const char *id, struct error *err)
{
    struct guest *guest = (struct guest *)host;
    (void)id;
    mutex_lock(&guest->lock);
    guest->n_freezes++;
    guest->was_noted_before_freeze = guest->is_noted;
    while (guest->is_freeze_held)
        cond_wait(&guest->changed, &guest->lock);
    int r = guest->freeze_result;
    guest->is_frozen = guest->is_frozen || r == 0 || r == -EINPROGRESS;
    cond_wake_all(&guest->changed);
    mutex_unlock(&guest->lock);
    return r < 0 ? error_set(err, r, "the agent said %d", r) : 0;
}

static inline int guest_thaw(struct host *host, const char *id, struct error *err)
{
    struct guest *guest = (struct guest *)host;
    (void)id;
    mutex_lock(&guest->lock);
    guest->n_thaws++;
    cond_wake_all(&guest->changed);
    while (guest->is_thaw_held)
        cond_wait(&guest->changed, &guest->lock);
    int r = guest->thaw_result;
    if (r == 0)
        guest->is_frozen = false;
    mutex_unlock(&guest->lock);
    return r < 0 ? error_set(err, r, "no thaw: %d", r) : 0;
}

static inline struct domain *guest_find(struct host *host, const char *id)
{
    struct guest *guest = (struct guest *)host;
    (void)id;
    mutex_lock(&guest->lock);
    struct domain *domain = guest->domain ? domain_ref(guest->domain) : NULL;
    mutex_unlock(&guest->lock);
    return domain;
}

static const struct host_ops guest_ops = {
    .find = guest_find, .freeze = guest_freeze, .thaw = guest_thaw};
static const struct host_ops plain_ops = {.find = guest_find};

static inline int guest_note(void *ctx, const struct change *change, struct error *err)
{
    struct guest *guest = ctx;
    if (guest->note_result < 0)
        return error_set(err, guest->note_result, "disk full");
    guest->n_notes++;
    guest->is_noted = change->is_frozen;
    return 0;
}

static char domain_id[] = "id";

static inline void guest_init(struct guest *guest)
{
    *guest = (struct guest){
        .host.ops = &guest_ops,
        .domain = domain_create(domain_id, "web"),
        .change = {.domain_id = domain_id, .domain_name = domain_id},
        /* So long that what is awaited comes first, unless a test wants it otherwise. */
        .limits = {PLENTY_MS, PLENTY_MS, PLENTY_MS, 1},
    };
    assert_non_null(guest->domain);
    guest->domain->state = DOMAIN_RUNNING;
    guest->journal = (struct quiesce_journal){guest_note, guest};
    mutex_init(&guest->lock);
    cond_init(&guest->changed);
}

static inline void guest_fini(struct guest *guest)
{
    domain_unref(guest->domain);
    cond_fini(&guest->changed);
    mutex_fini(&guest->lock);
}

static inline void set_thaw(struct guest *guest, int result, bool is_held)
{
    mutex_lock(&guest->lock);
    guest->thaw_result = result;
    guest->is_thaw_held = is_held;
    cond_wake_all(&guest->changed);
    mutex_unlock(&guest->lock);
}

static inline void let_freeze_go(struct guest *guest)
{
    mutex_lock(&guest->lock);
    guest->is_freeze_held = false;
    cond_wake_all(&guest->changed);
    mutex_unlock(&guest->lock);
}

static inline void await_thaws(struct guest *guest, unsigned n)
{
    int64_t deadline_ns = monotonic_ns() + PLENTY_MS * INT64_C(1000000);
    bool is_in_time = true;
    mutex_lock(&guest->lock);
    while (guest->n_thaws < n && is_in_time)
        is_in_time = cond_wait_until(&guest->changed, &guest->lock, deadline_ns);
    mutex_unlock(&guest->lock);
    assert_true(is_in_time);
}

static inline bool is_frozen(struct guest *guest)
{
    mutex_lock(&guest->lock);
    bool is_frozen = guest->is_frozen;
    mutex_unlock(&guest->lock);
    return is_frozen;
}

static inline struct quiesce *create(struct guest *guest, enum quiesce_policy policy)
{
    struct quiesce *quiesce = quiesce_create(&guest->host, domain_id, policy, &guest->limits);
    assert_non_null(quiesce);
    return quiesce;
}

static inline int begin(struct guest *guest, struct quiesce *quiesce)
{
    return quiesce_begin(quiesce, &guest->change, &guest->journal, &guest->err);
}

static inline int end(struct guest *guest, struct quiesce *quiesce)
{
    return quiesce_end(quiesce, &guest->change, &guest->journal, &guest->err);
}

static inline int settle(struct guest *guest, struct quiesce *quiesce, unsigned timeout_ms)
{
    return quiesce_settle(quiesce, &guest->change, &guest->journal, timeout_ms, &guest->err);
}

static inline void check_outcome(const struct quiesce *quiesce, const char *consistency,
                                 const char *reason)
{
    assert_string_equal(quiesce_consistency(quiesce), consistency);
    if (!reason) {
        assert_null(quiesce_reason(quiesce));
        return;
    }
    assert_non_null(quiesce_reason(quiesce));
    assert_non_null(strstr(quiesce_reason(quiesce), reason));
}
