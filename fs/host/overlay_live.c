/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Undoing an overlay that a running guest is on: a commit by libvirt. */
#include <errno.h>
#include <libvirt/virterror.h>
#include <string.h>
#include <sys/statvfs.h>

#include "fs/host/fault.h"
#include "fs/host/overlay_file.h"
#include "fs/host/overlay_internal.h"

enum {
    ORPHAN_ROUNDS = 3,    /* a job shows in the XML a moment after it began */
    LOST_PIVOT_MS = 3000, /* after a pivot the job is gone a moment before the XML says so */
};

enum stage {
    STAGE_FOREIGN,  /* somebody else changed the chain or has a job on it */
    STAGE_OVERLAID, /* on the overlay, no job */
    STAGE_COVERED,  /* on something over the overlay, no job */
    STAGE_COPYING,  /* a commit under way */
    STAGE_READY,    /* an active commit waits for the pivot */
    STAGE_ENDING,   /* an active commit is being pivoted or aborted */
    STAGE_ORPHAN,   /* an active commit that the XML does not show: libvirtd died as it began */
};

static enum stage judge_top(const struct overlay_found *found, bool has_begun)
{
    switch (found->mirror) {
    case OVERLAY_XML_NO_JOB:
        break;
    case OVERLAY_XML_COMMIT:
        return STAGE_COPYING;
    case OVERLAY_XML_COMMIT_READY:
        return STAGE_READY;
    case OVERLAY_XML_COMMIT_ENDING:
        return STAGE_ENDING;
    case OVERLAY_XML_OTHER_JOB:
        return STAGE_FOREIGN;
    }
    if (found->job_type == 0)
        return STAGE_OVERLAID;
    bool is_commit = found->job_type == VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT;
    return is_commit && has_begun ? STAGE_ORPHAN : STAGE_FOREIGN;
}

/* A job can be ours only if the journal says that one was begun. */
static enum stage judge(const struct overlay_undo *undo)
{
    const struct overlay_found *found = &undo->found;
    bool has_begun = undo->disk->merge != CHANGE_UNMERGED;
    if (found->live == OVERLAY_TOP)
        return judge_top(found, has_begun);
    if (found->live != OVERLAY_MIDDLE || found->mirror != OVERLAY_XML_NO_JOB)
        return STAGE_FOREIGN;
    if (found->job_type == 0)
        return STAGE_COVERED;
    bool is_commit = found->job_type == VIR_DOMAIN_BLOCK_JOB_TYPE_COMMIT;
    return is_commit && has_begun ? STAGE_COPYING : STAGE_FOREIGN;
}

static int tell_failed_commit(const struct overlay_undo *undo, struct error *err)
{
    const struct change_disk *o = undo->disk;
    struct statvfs fs;
    unsigned long long n_free = 0;
    if (statvfs(o->base, &fs) == 0)
        n_free = (unsigned long long)fs.f_bavail * fs.f_frsize;
    return error_set(err, -EIO,
                     "the commit of '%s' into '%s' failed (%llu bytes are free there); domain '%s' "
                     "is still on the overlay",
                     o->file, o->base, n_free, undo->live.name);
}

/* A foreign reader's lock on the base passes; a commit that ended without merging does not. */
static int begin_commit(struct overlay_undo *undo, unsigned flags, struct error *err)
{
    const struct change_disk *o = undo->disk;
    if (undo->was_committing)
        return tell_failed_commit(undo, err);
    int r = overlay_check_snapshots(undo, err);
    if (r == 0)
        r = overlay_note(undo, CHANGE_COMMITTING, err);
    if (r < 0)
        return r;
    if (virDomainBlockCommit(undo->live.dom, undo->found.target, o->base, o->file, 0,
                             flags | VIR_DOMAIN_BLOCK_COMMIT_DELETE) == 0) {
        live_renew_deadline(&undo->live); /* it may have waited for another call */
        return 1;
    }
    r = fault_set(err, "cannot commit '%s' into '%s'", o->file, o->base);
    if (!strstr(virGetLastErrorMessage(), "\" lock") || monotonic_ns() >= undo->live.deadline_ns)
        return r;
    return overlay_wait(undo, OVERLAY_RETRY_MS) ? 1 : r;
}

static int follow_commit(struct overlay_undo *undo)
{
    if (undo->found.job_done != undo->done)
        live_renew_deadline(&undo->live);
    undo->done = undo->found.job_done;
    overlay_wait(undo, OVERLAY_POLL_MS);
    return 1;
}

static int pivot(struct overlay_undo *undo, struct error *err)
{
    int r = overlay_note(undo, CHANGE_PIVOTING, err);
    if (r < 0)
        return r;
    if (virDomainBlockJobAbort(undo->live.dom, undo->found.target,
                               VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT) == 0)
        return 1;
    int code = virGetLastErrorCode();
    r = fault_set(err, "cannot pivot disk '%s' of domain '%s' to '%s'", undo->found.target,
                  undo->live.name, undo->disk->base);
    struct error why = {0};
    /* A guest that ended in the middle of it may have written to the base before. */
    bool is_known_not = code == VIR_ERR_BLOCK_COPY_ACTIVE || virDomainIsActive(undo->live.dom) == 1;
    if (is_known_not && !live_is_cut(&undo->live) &&
        overlay_note(undo, CHANGE_COMMITTING, &why) < 0)
        return error_set(err, why.code, "%s", why.text);
    if (code != VIR_ERR_BLOCK_COPY_ACTIVE) /* "not ready for pivot yet" */
        return r;
    overlay_wait(undo, OVERLAY_RETRY_MS);
    return 1;
}

/*
 * Ending such a job without a pivot leaves the guest on the overlay, and takes nothing from
 * anybody: whatever it has copied stands in the overlay too.
 */
static int end_orphan(struct overlay_undo *undo, struct error *err)
{
    if (++undo->n_orphans >= ORPHAN_ROUNDS) {
        if (virDomainBlockJobAbort(undo->live.dom, undo->found.target, 0) < 0)
            return fault_set(err, "cannot end the commit of '%s' that libvirt lost sight of",
                             undo->disk->file);
        undo->n_orphans = 0;
    }
    overlay_wait(undo, OVERLAY_RETRY_MS);
    return 1;
}

/*
 * libvirtd died within a pivot: its XML shows it as under way for as long as the guest runs, though
 * the job is gone, and nothing else can be done with the disk. Only QEMU knows where it writes to,
 * and its locks tell.
 */
static int settle_lost_pivot(struct overlay_undo *undo, struct error *err)
{
    const struct change_disk *o = undo->disk;
    bool is_overlay_written = overlay_file_is_written(o->file);
    bool is_base_written = overlay_file_is_written(o->base);
    if (is_overlay_written == is_base_written)
        return overlay_leave(undo, err,
                             "libvirt lost track of a pivot, and it cannot be told which of the "
                             "two the guest writes to");
    int r = overlay_note(undo, is_base_written ? CHANGE_MERGED : CHANGE_COMMITTING, err);
    /* The next start takes the persistent definition, and may come before we do. */
    if (r == 0 && is_base_written)
        r = overlay_define_back(undo, err);
    if (r < 0)
        return r;
    return overlay_defer(undo, err,
                         "libvirt lost track of a pivot; the guest writes to '%s' and goes on; all "
                         "is put right when it is shut down (not only rebooted)",
                         is_base_written ? o->base : o->file);
}

static int end_pivot(struct overlay_undo *undo, struct error *err)
{
    int64_t now = monotonic_ns();
    if (undo->found.job_type)
        undo->lost_ns = 0;
    else if (!undo->lost_ns)
        undo->lost_ns = now;
    else if (now - undo->lost_ns > (int64_t)LOST_PIVOT_MS * 1000000)
        return settle_lost_pivot(undo, err);
    overlay_wait(undo, OVERLAY_RETRY_MS);
    return 1;
}

static int act(struct overlay_undo *undo, enum stage stage, struct error *err)
{
    switch (stage) {
    case STAGE_OVERLAID:
        return begin_commit(undo, VIR_DOMAIN_BLOCK_COMMIT_ACTIVE, err);
    case STAGE_COVERED:
        return begin_commit(undo, 0, err);
    case STAGE_COPYING:
        return follow_commit(undo);
    case STAGE_READY:
        return pivot(undo, err);
    case STAGE_ENDING:
        return end_pivot(undo, err);
    case STAGE_ORPHAN:
        return end_orphan(undo, err);
    case STAGE_FOREIGN:
        break;
    }
    return overlay_leave(undo, err,
                         "the chain is not as it was left, or has another job; tried again when "
                         "that is over");
}

int overlay_live_step(struct overlay_undo *undo, struct error *err)
{
    enum stage stage = judge(undo);
    enum change_merge merge = undo->disk->merge;
    /*
     * Begun, not seen to fail, and no job: the guest was on the base, perhaps, and was started from
     * a definition that still named the overlay. What the overlay holds would go over newer data.
     */
    bool is_restarted =
        merge == CHANGE_PIVOTING && (stage == STAGE_OVERLAID || stage == STAGE_COVERED);
    /* What it holds is older than the base: see settle_lost_pivot(). */
    if (is_restarted || (merge == CHANGE_MERGED && stage != STAGE_ENDING))
        return overlay_leave(
            undo, err,
            "the guest was started on an overlay that may have been merged before; "
            "compare both before one is used");
    int r = act(undo, stage, err);
    if (stage == STAGE_COPYING || stage == STAGE_READY || stage == STAGE_ENDING)
        undo->was_committing = true;
    if (stage != STAGE_ORPHAN)
        undo->n_orphans = 0;
    return r;
}

int overlay_live_give_up(struct overlay_undo *undo, struct error *err)
{
    enum stage stage = judge(undo);
    struct error ignored = {0};
    if ((stage == STAGE_COPYING || stage == STAGE_READY) &&
        virDomainBlockJobAbort(undo->live.dom, undo->found.target, 0) == 0)
        overlay_note(undo, CHANGE_COMMITTING, &ignored); /* it can no more be pivoted */
    return error_set(
        err, -ETIMEDOUT,
        "merging '%s' into '%s' makes no progress; domain '%s' is still on the overlay",
        undo->disk->file, undo->disk->base, undo->live.name);
}
