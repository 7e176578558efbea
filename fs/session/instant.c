/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/session/instant.h"

#include <errno.h>
#include <stdlib.h>

#include "fs/host/file.h"
#include "fs/log.h"
#include "fs/session/journal.h"
#include "qcow/base/cleanup.h"
#include "qcow/base/thread.h"

enum {
    SETTLE_MS = 1000,
    /*
     * The moment is as long as it takes to save and start the guest, which has a time-out of its
     * own; and a guest that is halted can neither be thawed nor lose patience.
     */
    SAVE_MS = 24 * 3600 * 1000,
};

const char *instant_method_name(const struct instant *instant)
{
    return instant->method ? change_method_name(instant->method->method) : "lock";
}

/* ---- Which method ---- */

static int use(struct instant *instant, enum change_method wanted, struct error *err)
{
    struct host *host = instant->config->host;
    const struct host_method *method = host->ops->method(host, wanted);
    if (!method)
        return error_set(err, -EOPNOTSUPP, "'%s' does not work with this kind of source",
                         change_method_name(wanted));
    int r = method->can(host, instant->domain, err);
    if (r == 0)
        instant->method = method;
    return r;
}

/*
 * The definition is not ours to touch, not even for a while, if another manager looks after it; and
 * some disks can be had in no other way.
 */
static int choose_auto(struct instant *instant, struct error *err)
{
    const struct domain *domain = instant->domain;
    bool is_ours = domain->is_persistent && !domain->has_manager;
    for (size_t i = 0; i < domain->n_disks; i++)
        is_ours = is_ours && !domain->disks[i].is_remote;
    return use(instant, is_ours ? CHANGE_OVERLAY : CHANGE_BACKUP, err);
}

static int choose_live(struct instant *instant, struct error *err)
{
    switch (instant->config->live) {
    case LIVE_AUTO:
        return choose_auto(instant, err);
    case LIVE_OVERLAY:
        return use(instant, CHANGE_OVERLAY, err);
    case LIVE_BACKUP:
        return use(instant, CHANGE_BACKUP, err);
    case LIVE_COPY:
        return use(instant, CHANGE_COPY, err);
    case LIVE_MANAGEDSAVE:
        return use(instant, CHANGE_MANAGEDSAVE, err);
    }
    return error_set(err, -EINVAL, "unknown method");
}

int instant_choose(struct instant *instant, struct error *err)
{
    if (instant->domain->state != DOMAIN_SHUTOFF)
        return choose_live(instant, err);
    switch (instant->config->cold) {
    case COLD_LOCK:
        return 0;
    case COLD_INTERNAL:
        return use(instant, CHANGE_INTERNAL, err);
    case COLD_OVERLAY:
        return use(instant, CHANGE_COLD_OVERLAY, err);
    }
    return error_set(err, -EINVAL, "unknown method");
}

/* ---- The steps of a method that changes the domain ---- */

/*
 * Whoever deletes the state directory must not leave a guest on its overlay for good. Overlays are
 * known by their names to --recover, if this daemon dies before it is done.
 */
static int undo_without_note(struct instant *instant, const struct error *why)
{
    if (!instant->is_without_note)
        log_error("domain '%s': %s; what was done to it is undone without a note on disk",
                  instant->change->domain_name, why->text);
    instant->is_without_note = true;
    return 0;
}

static int step_note(void *ctx, const struct change *change, struct error *err)
{
    struct instant *instant = ctx;
    instant->is_cancelled(instant->ctx); /* a step that was done is a sign of life */
    struct error why = {0};
    int r = journal_update(instant->entry, change, &why);
    if (r < 0 && instant->is_undoing && !file_is_shortage(r) &&
        journal_entry_is_lost(instant->entry))
        return undo_without_note(instant, &why);
    return r < 0 ? error_set(err, r, "%s", why.text) : 0;
}

/* Where the guard of the freeze notes what is frozen. */
static struct quiesce_journal journal_of(struct instant *instant)
{
    return (struct quiesce_journal){.note = step_note, .ctx = instant};
}

static int freeze(struct instant *instant, struct change *change, struct error *err)
{
    const struct registry_config *config = instant->config;
    struct quiesce_journal journal = journal_of(instant);
    struct quiesce_limits limits = quiesce_limits_default;
    if (change->method == CHANGE_MANAGEDSAVE)
        limits.frozen_ms = SAVE_MS;
    instant->quiesce = quiesce_create(config->host, change->domain_id, config->quiesce, &limits);
    if (!instant->quiesce)
        return error_set(err, -ENOMEM, "out of memory");
    return quiesce_begin(instant->quiesce, change, &journal, err);
}

/*
 * A copy grows for hours before there is an instant that the session could watch. What is undone
 * makes room, and is not to be stopped by this.
 */
static bool lacks_room(struct instant *instant)
{
    struct space_watch *watch = &instant->watch;
    if (!instant->is_making || instant->no_room.code < 0)
        return instant->is_making;
    if (monotonic_ns() < instant->look_ns)
        return false;
    struct error err = {0};
    int r = space_look(watch, instant->change, instant->config->min_free, &err);
    instant->look_ns = monotonic_ns() + (int64_t)watch->next_ms * 1000000;
    if (r == -ENOSPC)
        instant->no_room = err;
    return r == -ENOSPC;
}

static int step_enter(void *ctx, struct change *change, struct error *err)
{
    struct instant *instant = ctx;
    if (lacks_room(instant))
        return error_set(err, -ENOSPC, "%s", instant->no_room.text);
    if (instant->is_cancelled(instant->ctx))
        return error_set(err, -EINTR, "nobody waits for the instant any more");
    int r = freeze(instant, change, err);
    if (r < 0)
        return r;
    /* Before the call: a change may be noticed once too often by this, but never missed. */
    clock_gettime(CLOCK_REALTIME, &instant->taken);
    return 0;
}

static void step_leave(void *ctx, struct change *change)
{
    struct instant *instant = ctx;
    if (!instant->quiesce)
        return;
    struct quiesce_journal journal = journal_of(instant);
    int r = quiesce_end(instant->quiesce, change, &journal, &instant->missed_freeze);
    instant->missed_freeze.code = r;
    instant->consistency = quiesce_consistency(instant->quiesce);
}

static bool step_is_cancelled(void *ctx)
{
    struct instant *instant = ctx;
    return lacks_room(instant) || instant->is_cancelled(instant->ctx);
}

static struct change_steps steps_of(struct instant *instant)
{
    return (struct change_steps){.note = step_note,
                                 .enter = step_enter,
                                 .leave = step_leave,
                                 .is_cancelled = step_is_cancelled,
                                 .ctx = instant};
}

/*
 * What is wrong with the state directory would read as if it were about the program's own file:
 * read-only, not there, not allowed.
 */
static int blame_host(int r, struct error *err)
{
    if (r == 0 || r == -ENOSPC || r == -EDQUOT || file_is_shortage(r))
        return r;
    return err->code = -EIO;
}

static int plan(struct instant *instant, struct error *err)
{
    struct host *host = instant->config->host;
    const struct domain *domain = instant->domain;
    struct change *change;
    int r = change_create(instant->method->method, domain->id, domain->name, &change, err);
    if (r < 0)
        return r;
    change->is_persistent = domain->is_persistent;
    change->was_paused = domain->state == DOMAIN_PAUSED;
    r = instant->method->plan(host, domain, change, err);
    if (r == 0)
        r = space_check(change, instant->config->min_free, err);
    if (r == 0)
        r = blame_host(journal_add(instant->config->journal, change, &instant->entry, err), err);
    if (r < 0)
        change_free(change);
    else
        instant->change = change;
    return r;
}

static int make(struct instant *instant, struct error *err)
{
    struct change_steps steps = steps_of(instant);
    struct host *host = instant->config->host;
    instant->is_making = true;
    int r = instant->method->make(host, instant->change, &steps, err);
    instant->is_making = false;
    if (r == -EINTR && instant->no_room.code < 0)
        return error_set(err, -ENOSPC, "%s", instant->no_room.text);
    if (r < 0)
        return r;
    if (instant->missed_freeze.code < 0)
        return error_set(err, instant->missed_freeze.code, "%s", instant->missed_freeze.text);
    const char *reason = instant->quiesce ? quiesce_reason(instant->quiesce) : NULL;
    if (reason)
        log_info("domain '%s': the instant is crash-consistent: %s", instant->domain->name, reason);
    instant->change->is_made = true;
    claim_take(&instant->claim, instant->change);
    r = blame_host(journal_update(instant->entry, instant->change, err), err);
    return r < 0 ? r : instant_open_images(instant, err);
}

static int take_by_change(struct instant *instant, struct error *err)
{
    int r = plan(instant, err);
    if (r < 0)
        return r;
    r = make(instant, err);
    if (r < 0) {
        struct error undo = {0};
        if (instant_release(instant, &undo) < 0)
            error_prefix(err, "the domain could not be put back (%s)", undo.text);
    }
    return r;
}

static int take_by_locks(struct instant *instant, struct error *err)
{
    int r = instant_open_images(instant, err);
    if (r < 0)
        return r;
    clock_gettime(CLOCK_REALTIME, &instant->taken);
    return 0;
}

int instant_take(struct instant *instant, struct error *err)
{
    bool is_off = instant->domain->state == DOMAIN_SHUTOFF;
    /* With its memory saved the guest never unmounted: the disk alone is as after a crash. */
    bool is_clean = is_off && !instant->domain->has_managed_save;
    int r = instant->method ? take_by_change(instant, err) : take_by_locks(instant, err);
    if (r == 0 && (!instant->consistency || is_clean))
        instant->consistency = is_clean ? "shutdown" : "crash";
    return r;
}

/*
 * What was frozen must be thawed before the change is forgotten. Nobody waits here for an agent
 * that hangs: it is asked in the background, and looked after again with the next try.
 */
static int thaw(struct instant *instant, struct error *err)
{
    struct quiesce_journal journal = journal_of(instant);
    int r = instant->quiesce
                ? quiesce_settle(instant->quiesce, instant->change, &journal, SETTLE_MS, err)
                : quiesce_undo(instant->config->host, instant->change, &journal, err);
    return r == -ETIMEDOUT ? -EAGAIN : r;
}

/* The end of the program: who is still frozen once it has gone stays so. */
static int thaw_at_last(struct instant *instant, struct error *err)
{
    struct quiesce_journal journal = journal_of(instant);
    unsigned ms = instant->settle_ms;
    instant->settle_ms = 0;
    log_warn("domain '%s': %s; waiting up to %u s for them to be thawed",
             instant->change->domain_name, err->text, ms / 1000);
    int r = -ETIMEDOUT;
    for (unsigned waited = 0; r == -ETIMEDOUT && waited < ms; waited += SETTLE_MS) {
        instant->is_cancelled(instant->ctx); /* it is the agent that hangs, not this */
        r = quiesce_settle(instant->quiesce, instant->change, &journal, SETTLE_MS, err);
    }
    return r == -ETIMEDOUT ? -EAGAIN : r;
}

int instant_release(struct instant *instant, struct error *err)
{
    struct error frozen = {0};
    instant_close_images(instant); /* QEMU refuses to commit into a base that we hold */
    if (!instant->change)
        return 0;
    instant->is_undoing = true;
    claim_take(&instant->claim, instant->change); /* what was left by another is ours now */
    int thawed = thaw(instant, &frozen);
    struct change_steps steps = steps_of(instant);
    int r = instant->method->undo(instant->config->host, instant->change, &steps, err);
    if (thawed == -EAGAIN && instant->quiesce && instant->settle_ms > 0)
        thawed = thaw_at_last(instant, &frozen);
    if (r < 0)
        return r;
    if (thawed < 0)
        return error_set(err, thawed, "%s", frozen.text);
    claim_drop(&instant->claim);
    journal_remove(take_ptr(instant->entry));
    change_free(take_ptr(instant->change));
    return 0;
}

void instant_fini(struct instant *instant)
{
    if (instant->entry)
        log_warn("domain '%s' is left to the next mount or to --recover; '%s' says what was done",
                 instant->change->domain_name, journal_entry_path(instant->entry));
    instant_close_images(instant);
    claim_drop(&instant->claim);
    free(take_ptr(instant->failures));
    quiesce_free(take_ptr(instant->quiesce));
    journal_forget(take_ptr(instant->entry));
    change_free(take_ptr(instant->change));
    domain_unref(take_ptr(instant->domain));
}
