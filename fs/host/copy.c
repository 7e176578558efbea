/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * live=copy: the hypervisor copies the top layer of each disk into a file, a qcow2 delta over the
 * same layers below, and keeps the two the same from then on; the instant is the end of that. The
 * domain never runs on the deltas.
 */
#include <errno.h>
#include <fcntl.h>
#include <libvirt/virterror.h>
#include <stdlib.h>
#include <string.h>

#include "fs/host/copy_xml.h"
#include "fs/host/delta.h"
#include "fs/host/fault.h"
#include "fs/host/jobwatch.h"
#include "fs/host/methods.h"
#include "fs/host/power.h"
#include "fs/host/qemulock.h"
#include "qcow/base/cleanup.h"

enum {
    POLL_MS = 300, /* events wake earlier */
    CUTS_MAX = 3,  /* lost connections that one undoing survives */
    /*
     * A guest that writes faster than its disk is copied is made to wait for the copy, from when
     * this many times the disk was copied.
     */
    PASSES_MAX = 2,
};

struct copy {
    struct live live;
    struct change *change;
    const struct change_steps *steps;
    struct jobwatch *watch;
    bool is_synchronous;
    uint64_t jobs_seen; /* of the mailbox */
    /* Sums over all disks, in bytes: */
    unsigned long long done, wanted;
    unsigned long long first_wanted; /* when all jobs had told it */
};

static void cleanup_copy(struct copy *c)
{
    jobwatch_stop(c->watch);
    live_detach(&c->live);
}
#define auto_copy __attribute__((cleanup(cleanup_copy)))

static bool wait_job(const struct copy *c, unsigned ms)
{
    return mailbox_wait_job(c->live.lh->mail, c->jobs_seen, monotonic_ns() + (int64_t)ms * 1000000);
}

/* ---- can, plan ---- */

static int copy_can(const struct host *host, const struct domain *domain, struct error *err)
{
    (void)host;
    if (domain->state == DOMAIN_SHUTOFF)
        return error_set(err, -EBUSY, "domain '%s' is shut off", domain->name);
    for (size_t i = 0; i < domain->n_disks; i++)
        if (!domain->disks[i].unsupported)
            return 0;
    return error_set(err, -EOPNOTSUPP, "domain '%s' has no disk that can be copied", domain->name);
}

static int plan_disk(const struct live *live, const struct disk *disk, struct change *change,
                     struct error *err)
{
    const struct disk_layer *top = &disk->layers[0];
    int r = live_check_block_job(live, disk->target, err);
    if (r < 0)
        return r;
    if (!live->lh->scratch_dir && strncmp(top->path, "/dev/", 5) == 0)
        return error_set(err, -EOPNOTSUPP,
                         "disk '%s' of domain '%s' is a device: scratch=DIR has to say where its "
                         "copy goes",
                         disk->target, live->name);
    if (change_is_layer(top->path))
        return error_set(err, -EBUSY,
                         "disk '%s' of domain '%s' is still on an overlay of virtsnapfs, '%s'",
                         disk->target, live->name, top->path);
    auto_free char *delta = change_file_path(change, top->path, live->lh->scratch_dir, "delta");
    if (!delta)
        return error_set(err, -ENOMEM, "out of memory");
    return change_add_disk(change, disk->target, top->path, top->format, delta, err);
}

static int plan_disks(const struct live *live, struct change *change, struct error *err)
{
    auto_view struct view view = {0};
    int r = view_read(live, 0, &view, err);
    for (size_t i = 0; i < view.n_disks && r == 0; i++)
        if (!view.disks[i].unsupported)
            r = plan_disk(live, &view.disks[i], change, err);
    if (r == 0 && change->n_disks == 0)
        return error_set(err, -EOPNOTSUPP, "domain '%s' has no disk that can be copied",
                         live->name);
    return r < 0 ? r : delta_check_room(change, err);
}

static int copy_plan(struct host *host, const struct domain *domain, struct change *change,
                     struct error *err)
{
    (void)domain;
    auto_live struct live live = live_of(host, change);
    struct power power;
    int r = live_attach(&live, err);
    if (r == 0)
        r = power_check_steady(&live, err);
    if (r == 0)
        r = plan_disks(&live, change, err);
    if (r == 0)
        r = power_read(&live, &power, err);
    if (r != 0)
        return r;
    change->is_persistent = virDomainIsPersistent(live.dom) > 0;
    change->was_paused = power.is_paused;
    return 0;
}

/* ---- make: the copies ---- */

/*
 * libvirt makes the file itself, over the layers below the top. A job that is forgotten when QEMU
 * ends (TRANSIENT_JOB) is the only kind that a persistent domain may have.
 */
static int start_job(const struct copy *c, const struct change_disk *disk, struct error *err)
{
    auto_free char *xml = NULL;
    int r = copy_xml_build(disk->file, &xml, err);
    if (r < 0)
        return r;
    unsigned flags = VIR_DOMAIN_BLOCK_COPY_SHALLOW | VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB;
    if (c->is_synchronous)
        flags |= VIR_DOMAIN_BLOCK_COPY_SYNCHRONOUS_WRITES;
    if (virDomainBlockCopy(c->live.dom, disk->target, xml, NULL, 0, flags) == 0)
        return 0;
    return fault_set(err, "cannot copy disk '%s' of domain '%s' to '%s'", disk->target,
                     c->live.name, disk->file);
}

static int start_jobs(const struct copy *c, struct error *err)
{
    int r = 0;
    for (size_t i = 0; i < c->change->n_disks && r == 0; i++)
        r = start_job(c, &c->change->disks[i], err);
    return r;
}

/* 1 if all copies are ready, 0 if not yet. */
static int judge_jobs(const struct copy *c, struct error *err)
{
    auto_free char *xml = virDomainGetXMLDesc(c->live.dom, 0);
    if (!xml)
        return fault_set(err, "cannot read the XML of domain '%s'", c->live.name);
    size_t n_ready = 0;
    for (size_t i = 0; i < c->change->n_disks; i++) {
        const struct change_disk *disk = &c->change->disks[i];
        enum copy_xml_state state;
        int r = copy_xml_find(xml, disk->target, disk->file, &state, err);
        if (r < 0)
            return r;
        if (state == COPY_XML_NONE || state == COPY_XML_ENDING)
            return error_set(err, -EIO,
                             "copying disk '%s' of domain '%s' to '%s' failed, or was ended by "
                             "somebody",
                             disk->target, c->live.name, disk->file);
        n_ready += state == COPY_XML_READY;
    }
    return n_ready == c->change->n_disks;
}

static int read_progress(struct copy *c, struct error *err)
{
    unsigned long long done = 0, wanted = 0;
    bool is_told = true;
    for (size_t i = 0; i < c->change->n_disks; i++) {
        virDomainBlockJobInfo info = {0};
        if (virDomainGetBlockJobInfo(c->live.dom, c->change->disks[i].target, &info, 0) < 0)
            return fault_set(err, "cannot ask disk '%s' of domain '%s' for its job",
                             c->change->disks[i].target, c->live.name);
        done += info.cur;
        wanted += info.end;
        is_told = is_told && info.end > 1; /* libvirt says 0 of 1 of a job that is beginning */
    }
    if (is_told && !c->first_wanted)
        c->first_wanted = wanted;
    if (done != c->done || wanted != c->wanted)
        live_renew_deadline(&c->live);
    c->done = done;
    c->wanted = wanted;
    return 0;
}

/* ---- undoing, also between two attempts ---- */

/*
 * A libvirtd that died while it began a copy knows afterwards that there is one, and not into
 * what. It is ours if QEMU has our delta open and the XML has no copy that could be meant.
 */
static bool is_lost_job(const struct live *live, const char *xml, const struct change_disk *disk)
{
    virDomainBlockJobInfo info = {0};
    return !strstr(xml, "<mirror") && qemulock_is_used(disk->file) &&
           virDomainGetBlockJobInfo(live->dom, disk->target, &info, 0) > 0 &&
           info.type == VIR_DOMAIN_BLOCK_JOB_TYPE_COPY;
}

/* 1 while a job copies into that delta: told to end if it is not yet. It is never pivoted. */
static int end_job(const struct live *live, const char *xml, const struct change_disk *disk,
                   struct error *err)
{
    enum copy_xml_state state;
    int r = copy_xml_find(xml, disk->target, disk->file, &state, err);
    if (r < 0)
        return r;
    if (state == COPY_XML_NONE) {
        if (!is_lost_job(live, xml, disk))
            return 0;
        virDomainBlockJobAbort(live->dom, disk->target, 0); /* if it fails: again, for a while */
        return 1;
    }
    if (state == COPY_XML_ENDING || virDomainBlockJobAbort(live->dom, disk->target, 0) == 0)
        return 1;
    return fault_set(err, "cannot end the copy of disk '%s' of domain '%s' to '%s'", disk->target,
                     live->name, disk->file);
}

/* 1 while any is left. */
static int end_jobs(const struct live *live, const struct change *change, struct error *err)
{
    auto_free char *xml = virDomainGetXMLDesc(live->dom, 0);
    if (!xml)
        return fault_set(err, "cannot read the XML of domain '%s'", live->name);
    int n_left = 0;
    for (size_t i = 0; i < change->n_disks; i++) {
        int r = end_job(live, xml, &change->disks[i], err);
        if (r < 0)
            return r;
        n_left += r;
    }
    return n_left > 0;
}

static int wait_jobs_end(struct copy *c, struct error *err)
{
    live_renew_deadline(&c->live);
    for (;;) {
        c->jobs_seen = mailbox_job_count(c->live.lh->mail);
        int r = end_jobs(&c->live, c->change, err);
        if (r <= 0)
            return r;
        if (monotonic_ns() >= c->live.deadline_ns || !wait_job(c, POLL_MS))
            return error_set(err, -ETIMEDOUT, "the copies of domain '%s' do not end", c->live.name);
    }
}

/* QEMU closes the file a moment after the job has gone. */
static int delete_deltas(struct copy *c, struct error *err)
{
    int r = 0;
    live_renew_deadline(&c->live);
    for (size_t i = 0; i < c->change->n_disks; i++) {
        int deleted = delta_delete(c->change->disks[i].file, err);
        while (deleted == -EBUSY && monotonic_ns() < c->live.deadline_ns &&
               mailbox_sleep(c->live.lh->mail, monotonic_ns() + (int64_t)POLL_MS * 1000000))
            deleted = delta_delete(c->change->disks[i].file, err);
        if (deleted < 0)
            r = deleted;
    }
    return r;
}

/* ---- make: waiting for them ---- */

/* Once more from the start, in the way in which the guest's writes wait for the copy. */
static int restart_synchronous(struct copy *c, struct error *err)
{
    int r = wait_jobs_end(c, err);
    if (r == 0)
        r = delete_deltas(c, err);
    if (r < 0)
        return r;
    /* The watch tells of the old jobs' ends otherwise. */
    jobwatch_stop(c->watch);
    c->watch = NULL;
    r = jobwatch_start(&c->live, &c->watch, err);
    c->is_synchronous = true;
    return r < 0 ? r : start_jobs(c, err);
}

static int wait_ready(struct copy *c, struct error *err)
{
    live_renew_deadline(&c->live);
    for (;;) {
        c->jobs_seen = mailbox_job_count(c->live.lh->mail);
        int r = judge_jobs(c, err);
        if (r != 0)
            return r < 0 ? r : 0;
        r = read_progress(c, err);
        if (r < 0)
            return r;
        if (c->steps->is_cancelled(c->steps->ctx))
            return error_set(err, -EINTR, "nobody waits for the copy of domain '%s' any more",
                             c->live.name);
        if (monotonic_ns() >= c->live.deadline_ns)
            return error_set(err, -ETIMEDOUT, "copying domain '%s' makes no progress",
                             c->live.name);
        bool is_losing = c->first_wanted && c->done > PASSES_MAX * c->first_wanted;
        if (is_losing && !c->is_synchronous)
            r = restart_synchronous(c, err);
        else if (!wait_job(c, POLL_MS))
            r = error_set(err, -EINTR, "the program ends");
        if (r < 0)
            return r;
    }
}

/* ---- make: the moment ---- */

/* Ends one copy that is ready; it counts only if its last bytes arrived. */
static int fix_disk(struct copy *c, const struct change_disk *disk, struct error *err)
{
    if (virDomainBlockJobAbort(c->live.dom, disk->target, 0) < 0)
        return fault_set(err, "cannot end the copy of disk '%s' of domain '%s'", disk->target,
                         c->live.name);
    live_renew_deadline(&c->live);
    int r = jobwatch_wait_end(c->watch, disk->target, c->live.deadline_ns);
    if (r > 0)
        return 0;
    return error_set(err, r < 0 ? -ETIMEDOUT : -EIO,
                     "copying disk '%s' of domain '%s' to '%s' failed at its end", disk->target,
                     c->live.name, disk->file);
}

static int fix_disks(struct copy *c, struct error *err)
{
    int r = 0;
    for (size_t i = 0; i < c->change->n_disks && r == 0; i++)
        r = fix_disk(c, &c->change->disks[i], err);
    return r;
}

/* Several disks belong to one moment only if the guest holds still. */
static int fix_halted(struct copy *c, struct error *err)
{
    struct error why = {0};
    int r = power_suspend(&c->live, err);
    if (r == 0)
        r = fix_disks(c, err);
    int resumed = power_resume(&c->live, &why);
    if (r == 0 && resumed < 0)
        *err = why;
    if (resumed == 0)
        c->change->is_halted = false;
    return r < 0 ? r : resumed;
}

/* Somebody may have suspended it while its file systems were frozen: then it stays so. */
static int look_again(struct copy *c, bool *has_to_halt, struct error *err)
{
    struct power power;
    int r = *has_to_halt ? power_read(&c->live, &power, err) : 0;
    if (r < 0 || !*has_to_halt || !power.is_paused)
        return r;
    c->change->was_paused = true;
    c->change->is_halted = false;
    *has_to_halt = false;
    return c->steps->note(c->steps->ctx, c->change, err);
}

static int fix_moment(struct copy *c, struct error *err)
{
    struct power power;
    int r = power_read(&c->live, &power, err);
    if (r < 0)
        return r;
    bool has_to_halt = c->change->n_disks > 1 && !power.is_paused;
    if (has_to_halt) {
        c->change->was_paused = false;
        c->change->is_halted = true;
        r = c->steps->note(c->steps->ctx, c->change, err);
    }
    if (r == 0)
        r = c->steps->enter(c->steps->ctx, c->change, err);
    if (r < 0)
        return r;
    r = look_again(c, &has_to_halt, err);
    if (r == 0)
        r = has_to_halt ? fix_halted(c, err) : fix_disks(c, err);
    /* After the guest goes on: one that is suspended cannot thaw its file systems. */
    c->steps->leave(c->steps->ctx, c->change);
    if (r == 0 && has_to_halt)
        r = c->steps->note(c->steps->ctx, c->change, err);
    return r;
}

static int copy_make(struct host *host, struct change *change, const struct change_steps *steps,
                     struct error *err)
{
    auto_copy struct copy c = {.live = live_of(host, change), .change = change, .steps = steps};
    live_renew_deadline(&c.live);
    int r = live_attach(&c.live, err);
    if (r == 0)
        r = jobwatch_start(&c.live, &c.watch, err);
    if (r == 0)
        r = start_jobs(&c, err);
    if (r == 0)
        r = wait_ready(&c, err);
    return r < 0 ? r : fix_moment(&c, err);
}

/* ---- undo ---- */

static int resume_halted(const struct copy *c, struct error *err)
{
    struct change *change = c->change;
    struct power power;
    int r = power_read(&c->live, &power, err);
    if (r == 0 && power.is_paused && power.reason == VIR_DOMAIN_PAUSED_USER && !change->was_paused)
        r = power_resume(&c->live, err);
    if (r < 0)
        return r;
    change->is_halted = false;
    return c->steps->note(c->steps->ctx, change, err);
}

/* Somebody may have pivoted the domain to a delta: then it is the disk. */
static int check_unused(const struct copy *c, unsigned flags, struct error *err)
{
    auto_view struct view view = {0};
    int r = view_read(&c->live, flags, &view, err);
    for (size_t i = 0; i < c->change->n_disks && r == 0; i++)
        if (view_names_file(&view, c->change->disks[i].file))
            r = error_set(err, -EBUSY,
                          "disk '%s' of domain '%s' uses the copy '%s'; left for a person",
                          c->change->disks[i].target, c->live.name, c->change->disks[i].file);
    return r;
}

static int undo_once(struct copy *c, struct error *err)
{
    int r = live_attach(&c->live, err);
    if (r < 0)
        return r;
    power_wait_call(&c->live, c->change); /* the start of a copy, of a caller that was killed */
    if (c->change->is_halted)
        r = resume_halted(c, err);
    if (r == 0)
        r = wait_jobs_end(c, err);
    if (r == 0)
        r = check_unused(c, 0, err);
    if (r == 0)
        r = check_unused(c, VIR_DOMAIN_XML_INACTIVE, err);
    return r;
}

static int copy_undo(struct host *host, struct change *change, const struct change_steps *steps,
                     struct error *err)
{
    auto_copy struct copy c = {.live = live_of(host, change), .change = change, .steps = steps};
    c.live.steps = steps;
    int r = 0;
    for (unsigned n_cuts = 0; n_cuts <= CUTS_MAX; n_cuts++) {
        live_renew_deadline(&c.live);
        r = undo_once(&c, err);
        if (r == 0 || !live_is_cut(&c.live))
            break;
        live_detach(&c.live);
    }
    /* A domain that is gone runs no job, and has no other use for the files. */
    return r == 0 || r == -ESTALE ? delete_deltas(&c, err) : r;
}

const struct host_method host_method_copy = {
    .method = CHANGE_COPY,
    .can = copy_can,
    .plan = copy_plan,
    .make = copy_make,
    .undo = copy_undo,
};
