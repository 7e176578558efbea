/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/power.h"

#include <errno.h>
#include <libvirt/virterror.h>
#include <string.h>
#include <time.h>

#include "fs/host/eventloop.h"
#include "fs/host/fault.h"

enum {
    POLL_MS = 200,
    CUTS_MAX = 3, /* lost connections that one restore survives */
};

/* ---- looking ---- */

int power_read(const struct live *live, struct power *ret_power, struct error *err)
{
    int state = 0, reason = 0;
    int is_active = virDomainIsActive(live->dom);
    if (is_active < 0 || virDomainGetState(live->dom, &state, &reason, 0) < 0)
        return fault_set(err, "cannot read domain '%s'", live->name);
    /* It may have gone off since; the reasons for that have the numbers of others for a pause. */
    bool is_on = is_active && state != VIR_DOMAIN_SHUTOFF;
    *ret_power = (struct power){.is_active = is_on,
                                .is_paused = is_on && state != VIR_DOMAIN_RUNNING &&
                                             state != VIR_DOMAIN_BLOCKED,
                                .reason = reason};
    return 0;
}

int power_check_steady(const struct live *live, struct error *err)
{
    struct power power;
    virDomainJobInfo job = {0};
    int r = power_read(live, &power, err);
    if (r < 0)
        return r;
    if (!power.is_active)
        return error_set(err, -EBUSY, "domain '%s' is not running", live->name);
    if (power.is_paused && power.reason == VIR_DOMAIN_PAUSED_IOERROR)
        return error_set(err, -EBUSY, "domain '%s' was stopped by an I/O error", live->name);
    if (virDomainGetJobInfo(live->dom, &job) < 0)
        return fault_set(err, "cannot ask domain '%s' for jobs", live->name);
    if (job.type != VIR_DOMAIN_JOB_NONE)
        return error_set(err, -EBUSY, "domain '%s' has a job running (backup, save or migration)",
                         live->name);
    return 0;
}

static bool wait_ms(const struct live *live, unsigned ms)
{
    return mailbox_sleep(live->lh->mail, monotonic_ns() + (int64_t)ms * 1000000);
}

/* False if none is under way or none can be asked for: a domain that is off. */
static bool read_job(const struct live *live, virDomainJobInfo *ret_job)
{
    *ret_job = (virDomainJobInfo){0};
    return virDomainGetJobInfo(live->dom, ret_job) == 0 && ret_job->type != VIR_DOMAIN_JOB_NONE;
}

int power_settle(struct live *live, struct error *err)
{
    virDomainJobInfo job;
    unsigned long long done = 0;
    live_renew_deadline(live);
    while (read_job(live, &job)) {
        if (job.dataProcessed != done)
            live_renew_deadline(live);
        done = job.dataProcessed;
        if (monotonic_ns() >= live->deadline_ns || !wait_ms(live, POLL_MS))
            return error_set(err, -EBUSY,
                             "domain '%s' has a job running (backup, save or migration)",
                             live->name);
    }
    return 0;
}

void power_wait_call(const struct live *live, const struct change *change)
{
    virDomainBlockJobInfo info;
    if (change->n_disks)
        virDomainGetBlockJobInfo(live->dom, change->disks[0].target, &info, 0);
}

/* ---- hold and go on ---- */

int power_suspend(const struct live *live, struct error *err)
{
    if (virDomainSuspend(live->dom) == 0)
        return 0;
    return fault_set(err, "cannot suspend domain '%s'", live->name);
}

int power_resume(const struct live *live, struct error *err)
{
    if (virDomainResume(live->dom) == 0)
        return 0;
    int r = fault_set(err, "cannot resume domain '%s'; to do so: virsh resume %s", live->name,
                      live->name);
    struct power power;
    struct error why = {0};
    if (power_read(live, &power, &why) == 0 && power.is_active && !power.is_paused)
        return 0;
    return r;
}

/* ---- save: the call blocks, so it has a thread of its own, watched from this one ---- */

struct save {
    const struct live *live;
    int result;
    struct error err; /* filled on the call's thread, where libvirt keeps its error */
    bool has_ended;   /* atomic */
};

static void *run_save(void *arg)
{
    struct save *save = arg;
    if (virDomainManagedSave(save->live->dom, 0) < 0)
        save->result = fault_set(&save->err, "cannot save domain '%s'", save->live->name);
    __atomic_store_n(&save->has_ended, true, __ATOMIC_RELEASE);
    mailbox_post_job(save->live->lh->mail);
    return NULL;
}

/* Ends the save job, which leaves the guest running; another's job is not touched. */
static void abort_save(const struct live *live)
{
    virTypedParameterPtr params = NULL;
    int n_params = 0, type = 0, operation = 0;
    if (virDomainGetJobStats(live->dom, &type, &params, &n_params, 0) == 0 &&
        virTypedParamsGetInt(params, n_params, VIR_DOMAIN_JOB_OPERATION, &operation) > 0 &&
        operation == VIR_DOMAIN_JOB_OPERATION_SAVE)
        virDomainAbortJob(live->dom);
    virTypedParamsFree(params, n_params);
}

/* Until the call has ended. 0, or why it was given up. */
static int watch_save(struct live *live, const struct save *save, const struct change_steps *steps,
                      struct error *err)
{
    unsigned long long done = 0;
    int r = 0;
    live_renew_deadline(live);
    while (!__atomic_load_n(&save->has_ended, __ATOMIC_ACQUIRE)) {
        uint64_t seen = mailbox_job_count(live->lh->mail);
        virDomainJobInfo job;
        if (read_job(live, &job) && job.dataProcessed != done) {
            live_renew_deadline(live);
            done = job.dataProcessed;
        }
        if (r == 0 && steps->is_cancelled(steps->ctx))
            r = error_set(err, -EINTR, "nobody waits for domain '%s' any more", live->name);
        if (r == 0 && monotonic_ns() >= live->deadline_ns)
            r = error_set(err, -ETIMEDOUT, "saving domain '%s' makes no progress", live->name);
        if (r < 0)
            abort_save(live);
        if (!__atomic_load_n(&save->has_ended, __ATOMIC_ACQUIRE) &&
            !mailbox_wait_job(live->lh->mail, seen, monotonic_ns() + (int64_t)POLL_MS * 1000000))
            /* The host ends: no mail wakes anybody any more. */
            nanosleep(&(struct timespec){.tv_nsec = POLL_MS * 1000000L}, NULL);
    }
    return r;
}

int power_save(struct live *live, const struct change_steps *steps, struct error *err)
{
    struct save save = {.live = live};
    pthread_t thread;
    int r = eventloop_spawn(&thread, run_save, &save);
    if (r < 0)
        return error_set(err, r, "cannot start a thread: %s", strerrordesc_np(-r));
    r = watch_save(live, &save, steps, err);
    pthread_join(thread, NULL);
    if (save.result == 0)
        return 0; /* even if it was given up a moment too late */
    if (r == 0)
        *err = save.err;
    return r < 0 ? r : save.result;
}

/* ---- restore ---- */

static int start_saved(const struct live *live, bool was_paused, struct error *err)
{
    if (virDomainCreateWithFlags(live->dom, was_paused ? VIR_DOMAIN_START_PAUSED : 0) == 0)
        return 0;
    int r = fault_set(err,
                      "domain '%s' is off with its memory saved and cannot be started; to start "
                      "it: virsh start %s",
                      live->name, live->name);
    struct power power;
    struct error why = {0};
    if (power_read(live, &power, &why) == 0 && power.is_active)
        return 0; /* by somebody else */
    return r;
}

/* A guest that a save has stopped: not by its user, and not by itself. */
static bool is_stopped_by_save(const struct power *power)
{
    return power->is_paused &&
           (power->reason == VIR_DOMAIN_PAUSED_SAVE || power->reason == VIR_DOMAIN_PAUSED_UNKNOWN ||
            power->reason == VIR_DOMAIN_PAUSED_MIGRATION ||
            power->reason == VIR_DOMAIN_PAUSED_STARTING_UP);
}

/*
 * Memory that was saved in part, or that a libvirtd which died did not delete after it had started
 * the guest from it: the next start would put it over disks that are newer.
 */
static int drop_stale_save(const struct live *live, struct error *err)
{
    if (virDomainManagedSaveRemove(live->dom, 0) == 0 ||
        virDomainHasManagedSaveImage(live->dom, 0) == 0)
        return 0;
    return fault_set(err,
                     "domain '%s' runs and has an old managed-save image besides; to remove that: "
                     "virsh managedsave-remove %s",
                     live->name, live->name);
}

static int restore_once(struct live *live, const struct change *change, struct error *err)
{
    struct power power;
    int r = live_attach(live, err);
    if (r == 0)
        r = power_settle(live, err);
    if (r < 0)
        return r;
    power_wait_call(live, change);
    r = power_read(live, &power, err);
    int has_managed_save = virDomainHasManagedSaveImage(live->dom, 0);
    if (r == 0 && has_managed_save < 0)
        r = fault_set(err, "cannot read domain '%s'", live->name);
    if (r < 0)
        return r;
    if (!power.is_active)
        return has_managed_save ? start_saved(live, change->was_paused, err) : 0;
    if (!change->was_paused && is_stopped_by_save(&power))
        r = power_resume(live, err);
    if (r == 0 && has_managed_save)
        r = drop_stale_save(live, err);
    return r;
}

int power_restore(struct live *live, const struct change *change, struct error *err)
{
    int r = 0;
    for (unsigned n_cuts = 0; n_cuts <= CUTS_MAX; n_cuts++) {
        live_renew_deadline(live);
        r = restore_once(live, change, err);
        if (r == 0 || !live_is_cut(live))
            return r;
        live_detach(live);
        if (!wait_ms(live, POLL_MS))
            return r;
    }
    return r;
}
