/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Undoing overlays: the rounds for each disk, and what concerns the domain as a whole. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "fs/host/fault.h"
#include "fs/host/overlay_internal.h"
#include "fs/host/power.h"
#include "fs/log.h"

enum { CUTS_MAX = 3 }; /* lost connections that undoing one disk survives */

bool overlay_wait(const struct overlay_undo *undo, unsigned ms)
{
    return mailbox_wait_job(undo->live.lh->mail, undo->jobs_seen,
                            monotonic_ns() + (int64_t)ms * 1000000);
}

int overlay_note(struct overlay_undo *undo, enum change_merge merge, struct error *err)
{
    if (undo->disk->merge == merge)
        return 0;
    enum change_merge before = undo->disk->merge;
    undo->disk->merge = merge;
    int r = undo->steps->note(undo->steps->ctx, undo->change, err);
    if (r < 0)
        undo->disk->merge = before;
    return r;
}

/* "disk ... of domain ...: WHY (overlay '...', base '...')": what a person needs to look at. */
__attribute__((format(printf, 3, 0))) static int tell(const struct overlay_undo *undo, int code,
                                                      const char *fmt, va_list ap,
                                                      struct error *err)
{
    char why[ERROR_TEXT_MAX];
    vsnprintf(why, sizeof(why), fmt, ap);
    return error_set(err, code, "disk '%s' of domain '%s' (overlay '%s', base '%s'): %s",
                     undo->disk->target, undo->live.name, undo->disk->file, undo->disk->base, why);
}

int overlay_leave(const struct overlay_undo *undo, struct error *err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int r = tell(undo, -EBUSY, fmt, ap, err);
    va_end(ap);
    return r;
}

int overlay_defer(const struct overlay_undo *undo, struct error *err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int r = tell(undo, -EAGAIN, fmt, ap, err);
    va_end(ap);
    return r;
}

static int step(struct overlay_undo *undo, struct error *err)
{
    int r = live_attach(&undo->live, err);
    if (r < 0 && r != -ESTALE)
        return r;
    undo->jobs_seen = mailbox_job_count(undo->live.lh->mail);
    r = overlay_look(undo, r == 0, err);
    if (r < 0)
        return r;
    bool is_on_it = undo->found.is_active && undo->found.live != OVERLAY_NOWHERE;
    bool is_late = monotonic_ns() >= undo->live.deadline_ns;
    if (is_on_it)
        return is_late ? overlay_live_give_up(undo, err) : overlay_live_step(undo, err);
    /* Asked once more when it is late: it then says what it waits for. */
    r = overlay_rest_step(undo, err);
    return r > 0 && is_late ? overlay_live_give_up(undo, err) : r;
}

static void cleanup_undo(struct overlay_undo *undo)
{
    overlay_found_fini(&undo->found);
    live_detach(&undo->live);
}

/* After the connection died: 1 to go on over the next one, which has its own time to come. */
static int resume(struct overlay_undo *undo, int r)
{
    live_detach(&undo->live);
    live_renew_deadline(&undo->live);
    return ++undo->n_cuts <= CUTS_MAX && overlay_wait(undo, OVERLAY_RETRY_MS) ? 1 : r;
}

static int undo_disk(struct host *host, struct change *change, struct change_disk *disk,
                     const struct change_steps *steps, struct error *err)
{
    __attribute__((cleanup(cleanup_undo))) struct overlay_undo undo = {
        .live = live_of(host, change), .change = change, .disk = disk, .steps = steps};
    undo.live.steps = steps;
    int r;
    do {
        r = step(&undo, err);
        if (r < 0 && live_is_cut(&undo.live))
            r = resume(&undo, r);
        /* The time is for one step without progress; a domain that went away in between is
         * looked up again in the next round. */
        if (r == -ESTALE && undo.found.is_known) {
            live_detach(&undo.live);
            r = 1;
        }
    } while (r > 0);
    return r;
}

/* A guest that found no room for its overlay goes on where it was stopped. */
static int resume_guest(struct live *live, const struct change *change, struct error *err)
{
    int state, reason;
    if (change->was_paused)
        return 0;
    int r = live_attach(live, err);
    if (r < 0)
        return r == -ESTALE ? 0 : r;
    if (virDomainGetState(live->dom, &state, &reason, 0) < 0)
        return fault_set(err, "cannot read domain '%s'", live->name);
    if (state != VIR_DOMAIN_PAUSED || reason != VIR_DOMAIN_PAUSED_IOERROR)
        return 0;
    if (virDomainResume(live->dom) < 0)
        return fault_set(err, "cannot resume domain '%s', which an I/O error had stopped",
                         live->name);
    log_debug("domain '%s' goes on after its disks were merged", live->name);
    return 0;
}

/*
 * libvirt may still have the call of a caller that was killed or cut off. What has come of it
 * cannot be told without libvirt, nor be undone.
 */
static int look_at_made(struct live *live, struct change *change, const struct change_steps *steps,
                        struct error *err)
{
    int r = live_attach(live, err);
    if (r < 0)
        return r == -ESTALE ? 0 : r;
    power_wait_call(live, change);
    return overlay_find_strays(live, change, steps, err);
}

int overlay_undo_all(struct host *host, struct change *change, const struct change_steps *steps,
                     struct error *err)
{
    auto_live struct live live = live_of(host, change);
    struct error ignored = {0};
    int first = change->is_made ? 0 : look_at_made(&live, change, steps, err);
    for (size_t i = 0; i < change->n_disks; i++) {
        struct error why = {0};
        int r = undo_disk(host, change, &change->disks[i], steps, &why);
        /* One that needs a person counts for more than one that only has to wait. */
        if (r < 0 && (first == 0 || first == -EAGAIN)) {
            first = r;
            *err = why;
        }
    }
    live_renew_deadline(&live);
    if (first == 0)
        first = resume_guest(&live, change, err);
    if (live_attach(&live, &ignored) == 0)
        live_refresh_record(&live);
    return first;
}
