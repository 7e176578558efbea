/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Undoing an overlay that no guest is on: the domain is off, or gone, or the disk was detached, or
 * the guest is back on the base. Which of overlay and base holds the guest's data follows from how
 * far the merging had come by the journal, and from the files; where it does not, nothing is done.
 */
#include <errno.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/host/overlay_file.h"
#include "fs/host/overlay_internal.h"
#include "fs/host/qemu_img.h"
#include "fs/host/qemulock.h"
#include "qcow/base/cleanup.h"

/* ---- May it be touched now? ---- */

static int check_off(const struct overlay_undo *undo, struct error *err)
{
    const struct overlay_found *found = &undo->found;
    bool is_told = found->reason != VIR_DOMAIN_SHUTOFF_UNKNOWN;
    /* What was saved goes on with the chain it had. */
    if (found->has_managed_save || found->reason == VIR_DOMAIN_SHUTOFF_SAVED)
        return overlay_defer(undo, err, "its memory was saved; merged when it runs again");
    if (found->reason == VIR_DOMAIN_SHUTOFF_MIGRATED)
        return overlay_defer(undo, err, "it was moved to another machine");
    if (!is_told && overlay_file_may_be_shared(undo->disk))
        return overlay_defer(undo, err,
                             "it may have been moved to another machine; merged when it runs here");
    if (found->defined == OVERLAY_MIDDLE ||
        (found->defined == OVERLAY_NOWHERE && found->is_below_defined))
        return overlay_defer(undo, err,
                             "somebody put another layer over the overlay; merged when it runs");
    if (found->defined == OVERLAY_STRANGE)
        return overlay_leave(undo, err, "the chain is not as it was left");
    return 0;
}

static int check_gone(const struct overlay_undo *undo, int fd, struct error *err)
{
    struct error why = {0};
    /* Undefined here, or moved away: with the files on this machine alone it is the former. */
    if (overlay_file_may_be_shared(undo->disk))
        return overlay_leave(undo, err,
                             "libvirt has no such domain any more, and another machine may use the "
                             "files; if none does: qemu-img commit '%s' && rm '%s'",
                             undo->disk->file, undo->disk->file);
    if (qemulock_check_unused(fd, undo->disk->file, &why) < 0)
        return overlay_defer(undo, err, "libvirt has no such domain any more, but %s", why.text);
    return 0;
}

static int check_running(const struct overlay_undo *undo, int fd, struct error *err)
{
    struct error why = {0};
    if (qemulock_check(fd, undo->disk->file, &why) == 0)
        return 0;
    if (undo->disk->merge == CHANGE_PIVOTING && monotonic_ns() < undo->live.deadline_ns) {
        overlay_wait(undo, OVERLAY_RETRY_MS);
        return 1;
    }
    /* libvirtd died while it put the overlay there. */
    return overlay_defer(undo, err,
                         "%s, while libvirt takes the guest for being on '%s'; shut it down (a "
                         "reboot is not enough), then it is merged at once; do not start it before",
                         why.text, undo->disk->base);
}

/* 0, 1: to be looked at again, or negative errno. */
static int check_use(const struct overlay_undo *undo, int fd, struct error *err)
{
    if (!undo->found.is_known)
        return check_gone(undo, fd, err);
    int r = undo->found.is_active ? check_running(undo, fd, err) : check_off(undo, err);
    return r;
}

static int check_others(const struct overlay_undo *undo, struct error *err)
{
    bool is_named;
    int r = overlay_is_named_elsewhere(undo, &is_named, err);
    if (r == 0 && is_named)
        return overlay_leave(undo, err, "another domain uses the overlay");
    return r < 0 ? r : overlay_check_snapshots(undo, err);
}

/* ---- What holds the guest's data? ---- */

enum verdict {
    VERDICT_DROP,    /* the base is whole: the overlay can go */
    VERDICT_COMMIT,  /* base and overlay together are whole */
    VERDICT_COMPARE, /* the base is whole if it shows the same bytes, else it cannot be told */
    VERDICT_LEAVE,   /* the base was used without the overlay: two versions of the disk */
};

static enum verdict judge(const struct overlay_undo *undo, const struct overlay_content *content)
{
    const struct overlay_found *found = &undo->found;
    enum change_merge merge = undo->disk->merge;
    if (!content->has_data)
        return VERDICT_DROP;
    /* A start from a definition that still named it may have used it since. */
    if (merge == CHANGE_MERGED)
        return found->defined == OVERLAY_TOP ? VERDICT_COMPARE : VERDICT_DROP;
    /* Asked for by us, and carried out: a guest comes from the overlay to the base in no other way
     * while it runs. */
    if (merge == CHANGE_PIVOTING)
        return found->is_active && found->is_base_live ? VERDICT_DROP : VERDICT_COMPARE;
    if (found->is_active && found->is_base_live)
        return VERDICT_LEAVE;
    if (found->defined == OVERLAY_TOP)
        return VERDICT_COMMIT;
    /* The commit has written to the base, so its time says nothing. */
    if (merge == CHANGE_COMMITTING)
        return found->is_base_defined ? VERDICT_COMPARE : VERDICT_COMMIT;
    /* Detached, undefined, or put there by a libvirtd that died before it knew. */
    return overlay_file_is_newer(undo->disk) ? VERDICT_COMMIT : VERDICT_LEAVE;
}

static int leave_both(const struct overlay_undo *undo, struct error *err)
{
    if (undo->disk->merge == CHANGE_COMMITTING) /* the base alone is not whole then */
        return overlay_leave(undo, err,
                             "a merge was cut off half way; to finish it, with the domain off: "
                             "qemu-img commit '%s' && rm '%s'",
                             undo->disk->file, undo->disk->file);
    if (undo->disk->merge == CHANGE_PIVOTING)
        return overlay_leave(
            undo, err,
            "QEMU ended as the guest was taken from the overlay to the base, and it "
            "cannot be told which of them it wrote to last; keep the base: rm '%s'; "
            "or, with the domain off and on the base, the overlay's: qemu-img "
            "commit '%s' && rm '%s'",
            undo->disk->file, undo->disk->file, undo->disk->file);
    return overlay_leave(undo, err,
                         "the base was used without the overlay, so there are two versions of the "
                         "disk; keep the base: rm '%s'; or, with the domain off and on the base, "
                         "the overlay's: qemu-img commit '%s' && rm '%s'",
                         undo->disk->file, undo->disk->file, undo->disk->file);
}

/* ---- Doing it ---- */

static void on_wait(void *ctx)
{
    const struct overlay_undo *undo = ctx;
    undo->steps->is_cancelled(undo->steps->ctx);
}

/* A large overlay takes hours, and is not to be taken for one that hangs. */
static struct qemu_img_watch watch_of(struct overlay_undo *undo)
{
    return (struct qemu_img_watch){.on_wait = on_wait, .ctx = undo};
}

static int commit(struct overlay_undo *undo, const struct overlay_content *content, int fd,
                  struct error *err)
{
    if (!content->is_over_base)
        return overlay_leave(undo, err, "the overlay does not record '%s' as its base",
                             undo->disk->base);
    struct qemu_img_watch watch = watch_of(undo);
    int r = qemulock_check_unused(fd, undo->disk->file, err);
    /* From here on the base's time says nothing: see judge(). */
    if (r == 0)
        r = overlay_note(undo, CHANGE_COMMITTING, err);
    if (r == 0)
        r = qemu_img_commit(undo->disk, &watch, err);
    live_renew_deadline(&undo->live); /* however long that took */
    return r < 0 ? r : 1;             /* the next round finds it empty */
}

/* True unless it is certain that libvirt has not begun a start meanwhile. */
static bool may_have_started(const struct overlay_undo *undo)
{
    return undo->found.is_known && !undo->found.is_active && virDomainIsActive(undo->live.dom) != 0;
}

/*
 * With the lock held no QEMU gets the overlay open for writing: a start that libvirt begins from
 * the old definition fails, and so does one that comes to the file when it is deleted. One that
 * came before us is seen by its lock, or by libvirt.
 */
static int drop(struct overlay_undo *undo, int fd, bool must_compare, struct error *err)
{
    bool is_locked;
    struct overlay_content content = {0};
    int r = qemulock_take(fd, undo->disk->file, QEMULOCK_NO_WRITERS, &is_locked, err);
    if (r < 0 || may_have_started(undo)) {
        bool has_time = monotonic_ns() < undo->live.deadline_ns;
        if (r == 0 || (has_time && overlay_wait(undo, OVERLAY_RETRY_MS)))
            return 1;
        return r;
    }
    struct qemu_img_watch watch = watch_of(undo);
    if (must_compare) {
        r = qemu_img_compare(undo->disk, &watch, err);
        if (r > 0)
            return leave_both(undo, err);
    } else if (undo->disk->merge < CHANGE_PIVOTING) {
        r = overlay_file_read(undo->disk, fd, &content, err);
        if (r == 0 && content.has_data)
            return 1;
    }
    if (r == 0)
        r = overlay_define_back(undo, err);
    if (r < 0)
        return r;
    live_refresh_record(&undo->live); /* else listings look for the file that is deleted now */
    return overlay_file_delete(undo->disk, err);
}

/*
 * Once a pivot was asked for, libvirt deletes the overlay as the last thing of it, before it saves
 * the definition: a libvirtd that was killed in between, and a guest that ended then, leave a name
 * without a file. Only beside the base it is certain that the file is gone, and not its file
 * system.
 */
static bool was_pivoted(const struct overlay_undo *undo)
{
    struct stat base, folder;
    auto_free char *path = strdup(undo->disk->file);
    return path && undo->disk->merge == CHANGE_PIVOTING && stat(undo->disk->base, &base) == 0 &&
           /* lint: clang-tidy/concurrency-mt-unsafe: it changes the copy alone */
           stat(dirname(path), &folder) == 0 && base.st_dev == folder.st_dev;
}

/* What only a definition is left of. */
static int finish(const struct overlay_undo *undo, struct error *err)
{
    struct stat st;
    if (stat(undo->disk->base, &st) < 0)
        return overlay_defer(undo, err,
                             "neither the overlay nor its base can be found (%s); is their file "
                             "system mounted?",
                             strerrordesc_np(errno));
    if (undo->disk->merge == CHANGE_PIVOTING && undo->found.defined == OVERLAY_TOP &&
        !undo->found.is_active && !was_pivoted(undo))
        return overlay_leave(undo, err,
                             "the overlay is gone, and it cannot be told whether it was merged "
                             "before; if it was, put the base into the definition again "
                             "(virsh edit)");
    if (undo->disk->merge < CHANGE_PIVOTING && undo->found.defined == OVERLAY_TOP &&
        !undo->found.is_active)
        return overlay_leave(undo, err,
                             "somebody deleted the overlay, and what the guest wrote since with "
                             "it; if there is no copy of it, put the base into the definition "
                             "again (virsh edit)");
    return overlay_define_back(undo, err);
}

/* libvirt deletes the overlay shortly after a pivot; what it leaves, we do. */
static int await_deletion(struct overlay_undo *undo, struct error *err)
{
    enum { DELETE_MS = 5000 };
    int r = overlay_note(undo, CHANGE_MERGED, err);
    int64_t deadline_ns = monotonic_ns() + (int64_t)DELETE_MS * 1000000;
    while (r == 0 && monotonic_ns() < deadline_ns) {
        struct error why = {0};
        auto_close int fd = overlay_file_open(undo->disk, &why);
        if (fd == -ENOENT)
            break;
        if (!overlay_wait(undo, OVERLAY_RETRY_MS))
            break;
    }
    return r < 0 ? r : 1;
}

int overlay_rest_step(struct overlay_undo *undo, struct error *err)
{
    struct overlay_content content;
    auto_close int fd = overlay_file_open(undo->disk, err);
    if (fd < 0)
        return fd == -ENOENT ? finish(undo, err) : fd;
    int r = check_use(undo, fd, err);
    if (r != 0)
        return r;
    if (undo->disk->merge == CHANGE_PIVOTING && undo->found.is_active && undo->found.is_base_live)
        return await_deletion(undo, err);
    r = overlay_file_read(undo->disk, fd, &content, err);
    if (r == 0)
        r = check_others(undo, err);
    if (r < 0)
        return r;
    enum verdict verdict = judge(undo, &content);
    switch (verdict) {
    case VERDICT_DROP:
    case VERDICT_COMPARE:
        return drop(undo, fd, verdict == VERDICT_COMPARE, err);
    case VERDICT_COMMIT:
        return commit(undo, &content, fd, err);
    case VERDICT_LEAVE:
        break;
    }
    return leave_both(undo, err);
}
