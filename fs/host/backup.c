/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/backup.h"

#include <errno.h>
#include <fcntl.h>
#include <libvirt/virterror.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "fs/host/backup_xml.h"
#include "fs/host/fault.h"
#include "fs/host/live.h"
#include "fs/host/power.h"
#include "fs/host/qemulock.h"
#include "qcow/base/cleanup.h"

/* Where QEMU's own sockets are: its user may write there. */
static const char system_socket_dir[] = "/var/lib/libvirt/qemu";

/* The part of the disks that a backup job can do. */
static bool is_usable(const struct disk *disk)
{
    return !disk->unsupported || disk->is_remote;
}

static int backup_can(const struct host *host, const struct domain *domain, struct error *err)
{
    (void)host;
    if (domain->state == DOMAIN_SHUTOFF)
        return error_set(err, -EBUSY, "domain '%s' is shut off", domain->name);
    for (size_t i = 0; i < domain->n_disks; i++)
        if (is_usable(&domain->disks[i]))
            return 0;
    return error_set(err, -EOPNOTSUPP, "domain '%s' has no disk that a backup job can do",
                     domain->name);
}

/* ---- whose job ---- */

enum job { JOB_NONE, JOB_OURS, JOB_FOREIGN };

/* The backup job of the domain. 0 or negative errno. */
static int find_job(const struct live *live, const struct change *change, enum job *ret_job,
                    struct error *err)
{
    auto_free char *xml = virDomainBackupGetXMLDesc(live->dom, 0);
    if (!xml && virGetLastErrorCode() == VIR_ERR_NO_DOMAIN_BACKUP) {
        *ret_job = JOB_NONE;
        return 0;
    }
    if (!xml)
        return fault_set(err, "cannot ask domain '%s' for a backup job", live->name);
    auto_free char *socket = NULL;
    int r = backup_xml_find_socket(xml, &socket, err);
    if (r < 0)
        return r;
    bool is_ours = socket && change->socket && strcmp(socket, change->socket) == 0;
    *ret_job = is_ours ? JOB_OURS : JOB_FOREIGN;
    return 0;
}

/*
 * A libvirtd that died while it began a backup job knows afterwards that there is one, and nothing
 * else: "backup job data missing". No call ends it before QEMU ends (libvirt 9.0).
 */
static bool is_lost_job(void)
{
    return virGetLastErrorCode() == VIR_ERR_INTERNAL_ERROR;
}

/* ---- plan ---- */

static int check_jobs(const struct live *live, const struct change *change, struct error *err)
{
    virDomainJobInfo job = {0};
    enum job backup = JOB_NONE;
    if (virDomainGetJobInfo(live->dom, &job) < 0) {
        int r = fault_set(err, "cannot ask domain '%s' for jobs", live->name);
        return is_lost_job()
                   ? error_set(err, -EBUSY,
                               "domain '%s' has a job that libvirt lost track of (%s); it "
                               "ends when the guest is shut off",
                               live->name, virGetLastErrorMessage())
                   : r;
    }
    int r = find_job(live, change, &backup, err);
    if (r < 0)
        return r;
    if (backup != JOB_NONE)
        return error_set(err, -EBUSY, "domain '%s' has another backup job running", live->name);
    if (job.type != VIR_DOMAIN_JOB_NONE)
        return error_set(err, -EBUSY, "domain '%s' has a job running (save, dump or migration)",
                         live->name);
    return 0;
}

static int check_disk(const struct live *live, const struct disk *disk, struct error *err)
{
    int r = live_check_block_job(live, disk->target, err);
    if (r < 0)
        return r;
    /* Who made it waits for the moment to merge it, which our job would put off. */
    if (disk->n_layers > 0 && change_is_layer(disk->layers[0].path))
        return error_set(err, -EBUSY,
                         "disk '%s' of domain '%s' is on an overlay of virtsnapfs, '%s'",
                         disk->target, live->name, disk->layers[0].path);
    return 0;
}

static int check_unused(const char *path, struct error *err)
{
    struct stat st;
    if (lstat(path, &st) == 0)
        return error_set(err, -EBUSY, "'%s' exists already", path);
    if (errno != ENOENT)
        return error_set(err, -EIO, "cannot put a file at '%s': %s", path, strerrordesc_np(errno));
    return 0;
}

static int choose_scratch(const struct live *live, const struct change *change,
                          const struct disk *disk, char **ret_path, struct error *err)
{
    const char *top = disk->n_layers > 0 ? disk->layers[0].path : NULL;
    struct stat st = {0};
    auto_free char *path = NULL;
    if (top && stat(top, &st) < 0)
        return error_set(err, -EIO, "cannot use '%s': %s", top, strerrordesc_np(errno));
    if (live->lh->scratch_dir) /* by target: there, two images may have one name */
        path = change_file_path(change, disk->target, live->lh->scratch_dir, "scratch");
    else if (top && S_ISREG(st.st_mode))
        path = change_file_path(change, top, NULL, "scratch");
    else
        return error_set(err, -EOPNOTSUPP,
                         "disk '%s' of domain '%s' is not a file beside which the hypervisor could "
                         "save what the guest overwrites meanwhile: say scratch=DIR",
                         disk->target, live->name);
    if (!path)
        return error_set(err, -ENOMEM, "out of memory");
    int r = check_unused(path, err);
    if (r == 0)
        *ret_path = take_ptr(path);
    return r;
}

static int add_disk(const struct live *live, const struct disk *disk, struct change *change,
                    struct error *err)
{
    auto_free char *scratch = NULL;
    int r = check_disk(live, disk, err);
    if (r == 0)
        r = choose_scratch(live, change, disk, &scratch, err);
    if (r < 0)
        return r;
    bool has_layer = disk->n_layers > 0;
    return change_add_disk(change, disk->target, has_layer ? disk->layers[0].path : "",
                           has_layer ? disk->layers[0].format : QCOW_FORMAT_RAW, scratch, err);
}

/* A user's own libvirtd and its guests run as that user, who has one such folder. */
static const char *find_socket_dir(const struct libvirt_host *lh)
{
    if (geteuid() == 0 || !strstr(lh->uri, ":///session"))
        return system_socket_dir;
    /* lint: clang-tidy/concurrency-mt-unsafe: nobody sets variables once there are instants */
    const char *dir = getenv("XDG_RUNTIME_DIR");
    return dir && *dir == '/' ? dir : NULL;
}

static int choose_socket(const struct live *live, struct change *change, struct error *err)
{
    const char *dir = find_socket_dir(live->lh);
    if (!dir)
        return error_set(err, -EOPNOTSUPP,
                         "no folder for the socket of a backup job: XDG_RUNTIME_DIR is not set");
    if (faccessat(AT_FDCWD, dir, W_OK | X_OK, AT_EACCESS) < 0)
        return error_set(err, -EOPNOTSUPP, "no socket of a backup job can be reached in '%s': %s",
                         dir, strerrordesc_np(errno));
    if (asprintf(&change->socket, "%s/%s.socket", dir, change->mark) < 0) {
        change->socket = NULL;
        return error_set(err, -ENOMEM, "out of memory");
    }
    if (strlen(change->socket) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
        return error_set(err, -EOPNOTSUPP, "'%s' is too long for the path of a socket",
                         change->socket);
    return check_unused(change->socket, err);
}

static int plan_attached(const struct live *live, struct change *change, struct error *err)
{
    int is_active = virDomainIsActive(live->dom);
    if (is_active < 0)
        return fault_set(err, "cannot read domain '%s'", live->name);
    if (!is_active)
        return error_set(err, -EBUSY, "domain '%s' is not running any more", live->name);
    int r = check_jobs(live, change, err); /* first: under a job, other calls may hang */
    if (r == 0)
        r = choose_socket(live, change, err);
    if (r < 0)
        return r;
    auto_view struct view view = {0};
    r = view_read(live, 0, &view, err);
    for (size_t i = 0; i < view.n_disks && r == 0; i++)
        if (is_usable(&view.disks[i]))
            r = add_disk(live, &view.disks[i], change, err);
    if (r == 0 && change->n_disks == 0)
        r = error_set(err, -EOPNOTSUPP, "domain '%s' has no disk that a backup job can do",
                      live->name);
    return r;
}

static int backup_plan(struct host *host, const struct domain *domain, struct change *change,
                       struct error *err)
{
    (void)domain; /* what counts is the domain as it is now */
    auto_live struct live live = live_of(host, change);
    int r = live_attach(&live, err);
    return r < 0 ? r : plan_attached(&live, change, err);
}

/* ---- make ---- */

/*
 * After the connection died in the middle of the call: libvirtd may have carried it out. What
 * counts is whether our job is running. 0 if it is, else @err stays as it is.
 */
static int settle(struct live *live, const struct change *change, struct error *err)
{
    struct error why = {0};
    enum job job = JOB_NONE;
    live_detach(live);
    live_renew_deadline(live);
    int r = live_attach(live, &why);
    if (r == 0)
        r = find_job(live, change, &job, &why);
    if (r < 0)
        error_prefix(err, "domain '%s' may have a backup job (%s)", live->name, why.text);
    return r == 0 && job == JOB_OURS ? 0 : -EIO;
}

static int backup_make(struct host *host, struct change *change, const struct change_steps *steps,
                       struct error *err)
{
    auto_live struct live live = live_of(host, change);
    auto_view struct view view = {0};
    auto_free char *xml = NULL;
    int r = live_attach(&live, err);
    if (r == 0)
        r = view_read(&live, 0, &view, err);
    if (r == 0)
        r = backup_xml_build(view.xml, change, &xml, err);
    if (r == 0)
        r = steps->enter(steps->ctx, change, err);
    if (r < 0)
        return r;
    if (virDomainBackupBegin(live.dom, xml, NULL, 0) < 0)
        r = fault_set(err, "cannot begin a backup job of domain '%s'", live.name);
    steps->leave(steps->ctx, change);
    return r < 0 && live_is_cut(&live) ? settle(&live, change, err) : r;
}

/* ---- undo ---- */

enum {
    POLL_MS = 100,
    CUTS_MAX = 3,       /* lost connections that one undo survives */
    ABORT_MS = 1000,    /* from one call that ends the job to the next */
    QUEUE_MS = 31000,   /* libvirt lets a call wait 30 s for the domain's other jobs */
    RELEASE_MS = 10000, /* QEMU closes its files a moment after its job or its life is over */
};

static bool sleep_ms(const struct live *live, unsigned ms)
{
    return mailbox_sleep(live->lh->mail, monotonic_ns() + (int64_t)ms * 1000000);
}

/*
 * Whether our job may begin yet, of a caller that was killed or cut: it waits for another job to
 * end, or its files are being made, while libvirt says of it what it says of one that it lost.
 */
static bool may_begin(const struct live *live, const struct change *change)
{
    virDomainJobInfo job = {0};
    if (change->is_made)
        return false;
    if (virDomainGetJobInfo(live->dom, &job) < 0)
        return is_lost_job();
    return job.type != VIR_DOMAIN_JOB_NONE;
}

/*
 * Ends our job. 1 to look again, 0 once there is none of ours, or none that libvirt could end.
 *
 * @abort_ns  when to tell libvirt; set forward each time
 */
static int end_job_once(struct live *live, const struct change *change, int64_t *abort_ns,
                        struct error *err)
{
    int is_active = virDomainIsActive(live->dom);
    enum job job = JOB_NONE;
    if (is_active < 0)
        return fault_set(err, "cannot read domain '%s'", live->name);
    int r = 0;
    if (is_active)
        r = find_job(live, change, &job, err);
    if (r < 0 && virDomainIsActive(live->dom) == 0)
        return 1; /* it went off meanwhile */
    if (r == 0 && job == JOB_OURS && *abort_ns == 0)
        live_renew_deadline(live); /* from when it is told to end */
    bool is_late = monotonic_ns() >= live->deadline_ns;
    if (r == 0 && is_active && job != JOB_OURS && !is_late)
        return may_begin(live, change);
    if (r < 0 || job != JOB_OURS)
        return r;
    if (is_late)
        return error_set(err, -ETIMEDOUT,
                         "the backup job of domain '%s' does not end; to try it by hand: virsh "
                         "domjobabort %s",
                         live->name, live->name);
    /* Ending takes a moment after the call, which does nothing to a job that is being set up. */
    if (monotonic_ns() < *abort_ns)
        return 1;
    if (virDomainAbortJob(live->dom) < 0 && virGetLastErrorCode() != VIR_ERR_OPERATION_INVALID)
        return fault_set(err, "cannot end the backup job of domain '%s'", live->name);
    *abort_ns = monotonic_ns() + (int64_t)ABORT_MS * 1000000;
    return 1;
}

static int end_job(struct live *live, const struct change *change, struct error *err)
{
    unsigned n_cuts = 0;
    int64_t abort_ns = 0;
    bool is_sure = change->is_made; /* between two jobs there is none for a moment */
    for (;;) {
        bool is_new = !live->dom;
        int r = live_attach(live, err);
        if (r == 0 && is_new && !change->is_made) {
            power_wait_call(live, change); /* the beginning, of a caller that was killed or cut */
            live_renew_deadline(live);
            int64_t queue_ns = monotonic_ns() + (int64_t)QUEUE_MS * 1000000;
            live->deadline_ns = live->deadline_ns < queue_ns ? queue_ns : live->deadline_ns;
        }
        if (r == 0)
            r = end_job_once(live, change, &abort_ns, err);
        if (r == -ESTALE)
            return 0; /* the domain is gone, and its job with it */
        if (r < 0 && live_is_cut(live) && ++n_cuts <= CUTS_MAX) {
            abort_ns = 0;
            live_detach(live);
            live_renew_deadline(live);
            r = 1;
        }
        if (r < 0 || (r == 0 && is_sure))
            return r;
        is_sure = r == 0 || change->is_made;
        if (!sleep_ms(live, POLL_MS))
            return error_set(err, -EAGAIN, "the backup job of domain '%s' was not waited for",
                             live->name);
    }
}

static bool is_there(const char *path, mode_t type)
{
    struct stat st;
    return lstat(path, &st) == 0 && (st.st_mode & S_IFMT) == type;
}

/* libvirt deletes it when the job is over, but not if either died meanwhile. */
static int remove_scratch(const struct live *live, const char *path, struct error *err)
{
    int64_t deadline_ns = monotonic_ns() + (int64_t)RELEASE_MS * 1000000;
    while (is_there(path, S_IFREG) && qemulock_is_used(path)) {
        if (monotonic_ns() >= deadline_ns || !sleep_ms(live, POLL_MS))
            return error_set(err, -EAGAIN,
                             "'%s' is still in use by the QEMU process of domain '%s'; it can be "
                             "deleted once the guest is off",
                             path, live->name);
    }
    if (is_there(path, S_IFREG) && unlink(path) < 0 && errno != ENOENT)
        return error_set(err, -EIO, "cannot delete '%s': %s", path, strerrordesc_np(errno));
    return 0;
}

/* All that can be deleted is; the first reason why something was left is told. */
static int remove_files(const struct live *live, const struct change *change, struct error *err)
{
    int result = 0;
    for (size_t i = 0; i < change->n_disks; i++) {
        const char *scratch = change->disks[i].file;
        int r = scratch ? remove_scratch(live, scratch, result < 0 ? NULL : err) : 0;
        result = result < 0 ? result : r;
    }
    if (change->socket && is_there(change->socket, S_IFSOCK) && unlink(change->socket) < 0 &&
        errno != ENOENT && result == 0)
        result =
            error_set(err, -EIO, "cannot delete '%s': %s", change->socket, strerrordesc_np(errno));
    return result;
}

/*
 * What is left of a job that libvirt began and lost goes with the guest, and only when libvirtd is
 * restarted then: 9.0 takes the domain for busy until that, so that it cannot be started.
 */
static int check_lost(const struct live *live, struct error *err)
{
    virDomainJobInfo job;
    if (!live->dom || virDomainIsActive(live->dom) <= 0 ||
        virDomainGetJobInfo(live->dom, &job) == 0 || !is_lost_job())
        return 0;
    return error_set(
        err, -EAGAIN,
        "libvirt lost track of the backup job of domain '%s' (%s); to end it, shut the "
        "guest off, restart libvirtd, then start the guest",
        live->name, virGetLastErrorMessage());
}

static int backup_undo(struct host *host, struct change *change, const struct change_steps *steps,
                       struct error *err)
{
    auto_live struct live live = live_of(host, change);
    live.steps = steps;
    int r = end_job(&live, change, err);
    if (r == 0)
        r = remove_files(&live, change, err);
    return r < 0 ? r : check_lost(&live, err);
}

const struct host_method host_method_backup = {
    .method = CHANGE_BACKUP,
    .ends_with_guest = true,
    .can = backup_can,
    .plan = backup_plan,
    .make = backup_make,
    .undo = backup_undo,
};
