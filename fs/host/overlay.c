/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/overlay.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/host/fault.h"
#include "fs/host/live.h"
#include "fs/host/overlay_xml.h"
#include "fs/log.h"
#include "qcow/base/cleanup.h"

/* Together they mark an overlay as one of this program's. */
static const char overlay_mark[] = ".virtsnapfs-";
static const char overlay_suffix[] = ".overlay";

static bool is_overlay_name(const char *path)
{
    size_t len = strlen(path), suffix_len = strlen(overlay_suffix);
    return strstr(path, overlay_mark) && len > suffix_len &&
           strcmp(path + len - suffix_len, overlay_suffix) == 0;
}

/* ---- what has to hold before anything is changed ---- */

static int check_jobs(const struct live *live, const char *target, struct error *err)
{
    virDomainJobInfo job = {0};
    virDomainBlockJobInfo block_job;
    if (virDomainGetJobInfo(live->dom, &job) < 0)
        return fault_set(err, "cannot ask domain '%s' for jobs", live->name);
    if (job.type != VIR_DOMAIN_JOB_NONE)
        return error_set(err, -EBUSY, "domain '%s' has a job running (backup, save or migration)",
                         live->name);
    int r = virDomainGetBlockJobInfo(live->dom, target, &block_job, 0);
    if (r < 0)
        return fault_set(err, "cannot ask disk '%s' of domain '%s' for jobs", target, live->name);
    if (r > 0)
        return error_set(err, -EBUSY, "disk '%s' of domain '%s' has a block job running", target,
                         live->name);
    return 0;
}

static int check_domain(const struct live *live, struct error *err)
{
    int is_active = virDomainIsActive(live->dom);
    int has_managed_save = virDomainHasManagedSaveImage(live->dom, 0);
    if (is_active < 0 || has_managed_save < 0)
        return fault_set(err, "cannot read domain '%s'", live->name);
    if (!is_active)
        return error_set(err, -EBUSY, "domain '%s' is not running any more", live->name);
    /* Its next start would take the chain from the save file and leave the overlay aside. */
    if (has_managed_save)
        return error_set(err, -EOPNOTSUPP, "domain '%s' has a managed-save image", live->name);
    return 0;
}

/* libvirt changes the persistent definition along only if it names the same image. */
static int check_definition(const struct live *live, const struct disk *disk, struct error *err)
{
    int is_persistent = virDomainIsPersistent(live->dom);
    if (is_persistent < 0)
        return fault_set(err, "cannot read domain '%s'", live->name);
    if (!is_persistent)
        return 0;
    auto_view struct view view = {0};
    int r = view_read(live, VIR_DOMAIN_XML_INACTIVE, &view, err);
    if (r < 0)
        return r;
    const struct disk *defined = view_find_disk(&view, disk->target);
    if (defined && defined->n_layers && strcmp(defined->layers[0].path, disk->layers[0].path) == 0)
        return 0;
    return error_set(err, -EOPNOTSUPP,
                     "disk '%s' of domain '%s': the persistent definition names another image than "
                     "the running domain",
                     disk->target, live->name);
}

static int check_disk(const struct live *live, const struct view *view, const struct disk *disk,
                      struct error *err)
{
    size_t n_served = 0;
    for (size_t i = 0; i < view->n_disks; i++)
        n_served += !view->disks[i].unsupported;
    if (disk->unsupported)
        return error_set(err, -EOPNOTSUPP, "disk '%s' of domain '%s': %s", disk->target, live->name,
                         disk->unsupported);
    if (n_served > 1)
        return error_set(err, -EOPNOTSUPP, "domain '%s' has %zu disks; live=overlay does one",
                         live->name, n_served);
    const char *top = disk->layers[0].path;
    struct stat st;
    if (stat(top, &st) < 0)
        return error_set(err, -EIO, "cannot use '%s': %s", top, strerrordesc_np(errno));
    if (!S_ISREG(st.st_mode))
        return error_set(err, -EOPNOTSUPP, "'%s' is not a regular file", top);
    if (is_overlay_name(top))
        return error_set(err, -EBUSY,
                         "disk '%s' of domain '%s' is still on an overlay of virtsnapfs, '%s'",
                         disk->target, live->name, top);
    return check_definition(live, disk, err);
}

/* ---- take ---- */

static int make_random(uint64_t *ret_random, struct error *err)
{
    if (getrandom(ret_random, sizeof(*ret_random), 0) != sizeof(*ret_random))
        return error_set(err, -EIO, "no random number: %s", strerrordesc_np(errno));
    return 0;
}

/* DIR/BASE.virtsnapfs-HEX.overlay, a name that no file has. */
static int name_overlay(const char *base, const char *scratch_dir, char **ret_path,
                        struct error *err)
{
    uint64_t random;
    int r = make_random(&random, err);
    if (r < 0)
        return r;
    const char *slash = strrchr(base, '/'); /* paths of disks are absolute */
    int dir_len = scratch_dir ? (int)strlen(scratch_dir) : (int)(slash - base);
    char suffix[64];
    int suffix_len = snprintf(suffix, sizeof(suffix), "%s%016" PRIx64 "%s", overlay_mark, random,
                              overlay_suffix);
    auto_free char *path = NULL;
    if (asprintf(&path, "%.*s/%.*s%s", dir_len, scratch_dir ? scratch_dir : base,
                 NAME_MAX - suffix_len, slash + 1, suffix) < 0) {
        path = NULL;
        return error_set(err, -ENOMEM, "out of memory");
    }
    struct stat st;
    if (lstat(path, &st) == 0)
        return error_set(err, -EBUSY, "'%s' exists already", path);
    if (errno != ENOENT)
        return error_set(err, -EIO, "cannot put an overlay at '%s': %s", path,
                         strerrordesc_np(errno));
    *ret_path = take_ptr(path);
    return 0;
}

/*
 * A libvirtd that died half way leaves the file it had made. It may also have died after QEMU took
 * the overlay into use and before that was noted, so the file goes only if nobody has a lock in it:
 * QEMU locks bytes of each image that it has open.
 */
static void delete_unused_overlay(const char *path)
{
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_OFD_GETLK, &lock) < 0 || lock.l_type != F_UNLCK || unlink(path) < 0)
        log_warn("overlay '%s' may be in use by QEMU without libvirt's knowledge; it is left",
                 path);
}

/*
 * After the connection died in the middle of the call: libvirtd may have carried it out. What
 * counts is where the disk is now. 0 if it is on the overlay, else @err stays as it is.
 */
static int settle_take(struct live *live, const struct host_overlay *overlay, struct error *err)
{
    auto_view struct view view = {0};
    struct error why = {0};
    live_detach(live);
    live_renew_deadline(live);
    int r = live_attach(live, &why);
    if (r == 0)
        r = view_read(live, 0, &view, &why);
    if (r < 0) {
        error_prefix(err, "disk '%s' may be on overlay '%s' (%s)", overlay->target,
                     overlay->overlay, why.text);
        return -EIO;
    }
    const struct disk *disk = view_find_disk(&view, overlay->target);
    if (disk && disk->n_layers && strcmp(disk->layers[0].path, overlay->overlay) == 0)
        return 0;
    if (!view_names_file(&view, overlay->overlay))
        delete_unused_overlay(overlay->overlay);
    return -EIO;
}

static int create_snapshot(struct live *live, const struct view *view,
                           const struct host_overlay *overlay, struct error *err)
{
    const char *mark = strstr(strrchr(overlay->overlay, '/'), overlay_mark);
    auto_free char *xml = NULL;
    int r = overlay_xml_build(view->xml, mark + 1, overlay->target, overlay->overlay, &xml, err);
    if (r < 0)
        return r;
    virDomainSnapshotPtr snapshot = virDomainSnapshotCreateXML(
        live->dom, xml,
        VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY | VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC |
            VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA);
    if (snapshot) {
        virDomainSnapshotFree(snapshot);
        return 0;
    }
    r = fault_set(err, "cannot put overlay '%s' over disk '%s' of domain '%s'", overlay->overlay,
                  overlay->target, live->name);
    return live_is_cut(live) ? settle_take(live, overlay, err) : r;
}

static int fill_overlay(const struct live *live, const struct disk *disk,
                        struct host_overlay *overlay, struct error *err)
{
    overlay->target = strdup(disk->target);
    overlay->base = strdup(disk->layers[0].path);
    if (!overlay->target || !overlay->base)
        return error_set(err, -ENOMEM, "out of memory");
    return name_overlay(overlay->base, live->lh->scratch_dir, &overlay->overlay, err);
}

int snapshot_take(struct host *host, const struct domain *domain, const struct disk *disk,
                  struct host_overlay *ret_overlay, struct error *err)
{
    auto_live struct live live = {
        .lh = (struct libvirt_host *)host, .id = domain->id, .name = domain->name};
    auto_view struct view view = {0};
    live_renew_deadline(&live);
    int r = live_attach(&live, err);
    if (r == 0)
        r = check_domain(&live, err);
    if (r == 0)
        r = view_read(&live, 0, &view, err);
    if (r < 0)
        return r;
    const struct disk *now = view_find_disk(&view, disk->target);
    if (!now)
        return error_set(err, -ESTALE, "domain '%s' has no disk '%s' any more", domain->name,
                         disk->target);
    r = check_disk(&live, &view, now, err);
    if (r == 0)
        r = check_jobs(&live, now->target, err);
    if (r < 0)
        return r;
    __attribute__((cleanup(host_overlay_fini))) struct host_overlay overlay = {0};
    r = fill_overlay(&live, now, &overlay, err);
    if (r == 0)
        r = create_snapshot(&live, &view, &overlay, err);
    if (r < 0)
        return r;
    live_refresh_record(&live);
    *ret_overlay = overlay;
    overlay = (struct host_overlay){0};
    return 0;
}
