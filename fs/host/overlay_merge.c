/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Undoing an overlay. After each step the live XML is read again and says what is next, so that
 * it makes no difference whether a step, or a former attempt, was cut off half way.
 */
#include <errno.h>
#include <libvirt/virterror.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/host/fault.h"
#include "fs/host/live.h"
#include "fs/host/overlay.h"
#include "fs/host/overlay_xml.h"
#include "qcow/base/cleanup.h"

enum {
    POLL_MS = 500,    /* events wake earlier */
    RETRY_MS = 100,   /* for what is over in a moment */
    CUTS_MAX = 3,     /* lost connections that one merge survives */
    DELETE_MS = 5000, /* libvirt deletes the overlay shortly after the pivot */
};

enum stage {
    STAGE_UNKNOWN,
    STAGE_OVERLAID, /* on the overlay, no job */
    STAGE_COPYING,  /* active commit under way */
    STAGE_READY,    /* active commit waits for the pivot */
    STAGE_ENDING,   /* active commit is being pivoted or aborted */
    STAGE_MERGED,   /* back on the base */
    STAGE_OFF,      /* no QEMU process */
    STAGE_FOREIGN,  /* somebody else changed the chain or has a job on it */
};

struct merge {
    struct live live;
    const struct change_disk *disk;
    enum stage stage;
    bool was_committing;
    unsigned n_cuts;
    uint64_t jobs_seen;      /* of the mailbox, before the stage was read */
    unsigned long long done; /* bytes that the job has copied */
};

static bool wait_job(const struct merge *m, unsigned ms)
{
    return mailbox_wait_job(m->live.lh->mail, m->jobs_seen, monotonic_ns() + (int64_t)ms * 1000000);
}

static bool is_layer(const struct disk *disk, size_t depth, const char *path)
{
    return depth < disk->n_layers && strcmp(disk->layers[depth].path, path) == 0;
}

static int judge_chain(const struct merge *m, const struct view *view, enum stage *ret_stage,
                       struct error *err)
{
    const struct disk *disk = view_find_disk(view, m->disk->target);
    *ret_stage = STAGE_FOREIGN;
    if (!disk || disk->unsupported)
        return 0;
    if (is_layer(disk, 0, m->disk->base)) {
        *ret_stage = STAGE_MERGED;
        return 0;
    }
    if (!is_layer(disk, 0, m->disk->file) || !is_layer(disk, 1, m->disk->base))
        return 0;
    enum overlay_xml_job job;
    int r = overlay_xml_find_job(view->xml, m->disk->target, &job, err);
    if (r < 0)
        return r;
    switch (job) {
    case OVERLAY_XML_NO_JOB:
        *ret_stage = STAGE_OVERLAID;
        break;
    case OVERLAY_XML_COMMIT:
        *ret_stage = STAGE_COPYING;
        break;
    case OVERLAY_XML_COMMIT_READY:
        *ret_stage = STAGE_READY;
        break;
    case OVERLAY_XML_COMMIT_ENDING:
        *ret_stage = STAGE_ENDING;
        break;
    case OVERLAY_XML_OTHER_JOB:
        break;
    }
    return 0;
}

static int read_stage(const struct merge *m, enum stage *ret_stage, struct error *err)
{
    int is_active = virDomainIsActive(m->live.dom);
    if (is_active < 0)
        return fault_set(err, "cannot read domain '%s'", m->live.name);
    auto_view struct view view = {0};
    int r = view_read(&m->live, 0, &view, err);
    if (r == 0)
        r = judge_chain(m, &view, ret_stage, err);
    /* A domain that is off and on its base again needs nothing. */
    if (r == 0 && !is_active && *ret_stage != STAGE_MERGED)
        *ret_stage = STAGE_OFF;
    return r;
}

/* ---- one step a stage: 1 to go on, 0 when all is done, negative errno ---- */

/* A foreign reader's lock on the base passes; a commit that ended without merging does not. */
static int begin_commit(struct merge *m, struct error *err)
{
    const struct change_disk *o = m->disk;
    if (m->was_committing)
        return error_set(err, -EIO,
                         "the commit of '%s' into '%s' failed; domain '%s' is still on the overlay",
                         o->file, o->base, m->live.name);
    virDomainBlockJobInfo info;
    if (virDomainGetBlockJobInfo(m->live.dom, o->target, &info, 0) > 0)
        return error_set(err, -EBUSY,
                         "disk '%s' of domain '%s' has a block job running that its XML does not "
                         "show; left for a person",
                         o->target, m->live.name);
    if (virDomainBlockCommit(m->live.dom, o->target, o->base, o->file, 0,
                             VIR_DOMAIN_BLOCK_COMMIT_ACTIVE | VIR_DOMAIN_BLOCK_COMMIT_DELETE) == 0)
        return 1;
    int r = fault_set(err, "cannot commit '%s' into '%s'", o->file, o->base);
    if (!strstr(virGetLastErrorMessage(), "\" lock") || monotonic_ns() >= m->live.deadline_ns)
        return r;
    return wait_job(m, RETRY_MS) ? 1 : r;
}

static int follow_commit(struct merge *m, struct error *err)
{
    virDomainBlockJobInfo info = {0};
    if (virDomainGetBlockJobInfo(m->live.dom, m->disk->target, &info, 0) < 0)
        return fault_set(err, "cannot ask disk '%s' of domain '%s' for its job", m->disk->target,
                         m->live.name);
    if (info.cur != m->done)
        live_renew_deadline(&m->live);
    m->done = info.cur;
    wait_job(m, POLL_MS);
    return 1;
}

static int pivot(struct merge *m, struct error *err)
{
    if (virDomainBlockJobAbort(m->live.dom, m->disk->target, VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT) == 0)
        return 1;
    int code = virGetLastErrorCode();
    int r = fault_set(err, "cannot pivot disk '%s' of domain '%s' to '%s'", m->disk->target,
                      m->live.name, m->disk->base);
    if (code != VIR_ERR_BLOCK_COPY_ACTIVE) /* "not ready for pivot yet" */
        return r;
    wait_job(m, RETRY_MS);
    return 1;
}

static bool is_gone(const char *path)
{
    struct stat st;
    return lstat(path, &st) < 0 && errno == ENOENT;
}

/* The definition for the next start must not need the overlay. */
static int check_definition(const struct merge *m, struct error *err)
{
    int is_persistent = virDomainIsPersistent(m->live.dom);
    if (is_persistent < 0)
        return fault_set(err, "cannot read domain '%s'", m->live.name);
    if (!is_persistent)
        return 0;
    auto_view struct view view = {0};
    int r = view_read(&m->live, VIR_DOMAIN_XML_INACTIVE, &view, err);
    if (r < 0)
        return r;
    if (view_names_file(&view, m->disk->file))
        return error_set(err, -EBUSY,
                         "domain '%s' is back on '%s', but its persistent definition still names "
                         "overlay '%s'",
                         m->live.name, m->disk->base, m->disk->file);
    return 0;
}

/*
 * libvirt deletes the overlay. What it leaves is deleted only if the pivot was seen here: else the
 * disk may have been put on its base by hand, with its newest data still in the overlay.
 */
static int finish(const struct merge *m, struct error *err)
{
    const char *overlay = m->disk->file;
    int r = check_definition(m, err);
    if (r < 0 || is_gone(overlay))
        return r;
    if (!m->was_committing)
        return error_set(err, -EBUSY,
                         "domain '%s' is on '%s' again, but overlay '%s' exists; left for a person",
                         m->live.name, m->disk->base, overlay);
    int64_t deadline_ns = monotonic_ns() + (int64_t)DELETE_MS * 1000000;
    while (!is_gone(overlay) && monotonic_ns() < deadline_ns)
        wait_job(m, RETRY_MS);
    if (unlink(overlay) < 0 && errno != ENOENT)
        return error_set(err, -EIO, "cannot delete merged overlay '%s': %s", overlay,
                         strerrordesc_np(errno));
    return 0;
}

/* One word for a shell, whatever is in it; NULL: no memory. */
static char *quote_word(const char *text)
{
    char *word = malloc(4 * strlen(text) + 3), *end = word;
    if (!word)
        return NULL;
    *end++ = '\'';
    for (; *text; text++)
        if (*text == '\'')
            end = stpcpy(end, "'\\''");
        else
            *end++ = *text;
    stpcpy(end, "'");
    return word;
}

static int refuse_off(const struct merge *m, struct error *err)
{
    auto_free char *uri = quote_word(m->live.lh->uri);
    auto_free char *name = quote_word(m->live.name);
    auto_free char *target = quote_word(m->disk->target);
    auto_free char *base = quote_word(m->disk->base);
    auto_free char *top = quote_word(m->disk->file);
    if (!uri || !name || !target || !base || !top)
        return error_set(err, -ENOMEM, "out of memory");
    return error_set(err, -EBUSY,
                     "domain '%s' was shut off on an overlay; to merge it: virsh -c %s start %s && "
                     "virsh -c %s blockcommit %s %s --base %s --top %s --active --pivot --delete",
                     m->live.name, uri, name, uri, name, target, base, top);
}

static int act(struct merge *m, struct error *err)
{
    switch (m->stage) {
    case STAGE_OVERLAID:
        return begin_commit(m, err);
    case STAGE_COPYING:
        return follow_commit(m, err);
    case STAGE_READY:
        return pivot(m, err);
    case STAGE_ENDING:
        wait_job(m, POLL_MS);
        return 1;
    case STAGE_MERGED:
        return finish(m, err);
    case STAGE_OFF:
        return refuse_off(m, err);
    case STAGE_UNKNOWN:
    case STAGE_FOREIGN:
        break;
    }
    return error_set(err, -EBUSY,
                     "disk '%s' of domain '%s' is not on overlay '%s' over '%s' as it was left, or "
                     "has another job; left for a person",
                     m->disk->target, m->live.name, m->disk->file, m->disk->base);
}

static void enter_stage(struct merge *m, enum stage stage)
{
    if (stage != m->stage)
        live_renew_deadline(&m->live);
    m->stage = stage;
    if (stage == STAGE_COPYING || stage == STAGE_READY || stage == STAGE_ENDING)
        m->was_committing = true;
}

/* A job that can still be ended is, so that the domain is on the overlay as before. */
static int give_up(struct merge *m, struct error *err)
{
    const struct change_disk *o = m->disk;
    /* A libvirtd that died within a pivot shows it as under way for ever. */
    if (m->stage == STAGE_ENDING)
        return error_set(err, -ETIMEDOUT,
                         "the pivot of disk '%s' of domain '%s' from '%s' to '%s' does not end; "
                         "left for a person",
                         o->target, m->live.name, o->file, o->base);
    if (m->stage == STAGE_COPYING || m->stage == STAGE_READY)
        virDomainBlockJobAbort(m->live.dom, o->target, 0);
    return error_set(
        err, -ETIMEDOUT,
        "merging '%s' into '%s' makes no progress; domain '%s' is still on the overlay", o->file,
        o->base, m->live.name);
}

static int step(struct merge *m, struct error *err)
{
    int r = live_attach(&m->live, err);
    if (r < 0)
        return r;
    enum stage stage = STAGE_UNKNOWN;
    m->jobs_seen = mailbox_job_count(m->live.lh->mail);
    r = read_stage(m, &stage, err);
    if (r < 0)
        return r;
    enter_stage(m, stage);
    if (monotonic_ns() >= m->live.deadline_ns)
        return give_up(m, err);
    return act(m, err);
}

static void cleanup_merge(struct merge *m)
{
    live_detach(&m->live);
}

/* After the connection died: 1 to go on over the next one, which has its own time to come. */
static int resume(struct merge *m, int r)
{
    live_detach(&m->live);
    live_renew_deadline(&m->live);
    return ++m->n_cuts <= CUTS_MAX && wait_job(m, RETRY_MS) ? 1 : r;
}

static int merge_disk(struct host *host, const struct change *change,
                      const struct change_disk *disk, struct error *err)
{
    __attribute__((cleanup(cleanup_merge))) struct merge m = {
        .live = {.lh = (struct libvirt_host *)host,
                 .id = change->domain_id,
                 .name = change->domain_name},
        .disk = disk};
    live_renew_deadline(&m.live);
    int r;
    do {
        r = step(&m, err);
        if (r < 0 && live_is_cut(&m.live))
            r = resume(&m, r);
    } while (r > 0);
    if (r == -ESTALE)
        error_prefix(err, "disk '%s' is left on overlay '%s' over '%s'", disk->target, disk->file,
                     disk->base);
    live_refresh_record(&m.live);
    return r;
}

int overlay_merge(struct host *host, struct change *change, const struct change_steps *steps,
                  struct error *err)
{
    (void)steps;
    int first = 0;
    for (size_t i = 0; i < change->n_disks; i++) {
        struct error why = {0};
        int r = merge_disk(host, change, &change->disks[i], &why);
        if (r < 0 && first == 0) {
            first = r;
            *err = why;
        }
    }
    return first;
}
