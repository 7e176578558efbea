/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/overlay_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "fs/host/file.h"
#include "fs/host/qemulock.h"
#include "qcow/base/cleanup.h"

enum {
    CACHE_LEN = 1 << 20,
    DEPTH_MAX = 200, /* as libvirt */
};

int overlay_file_open(const struct change_disk *disk, struct error *err)
{
    auto_close int fd = open(disk->file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat st;
    if (fd < 0 && errno == ENOENT)
        return error_set(err, -ENOENT, "there is no overlay '%s'", disk->file);
    if (fd < 0 || fstat(fd, &st) < 0)
        return error_set(err, -EIO, "cannot open overlay '%s': %s", disk->file,
                         strerrordesc_np(errno));
    if (!S_ISREG(st.st_mode))
        return error_set(err, -EIO, "overlay '%s' is not a regular file", disk->file);
    return take_fd(fd);
}

/* The overlay by itself: nothing of the base is looked at. */
static int open_no_ref(void *ctx, const struct qcow_ref *ref, struct qcow_file *ret_file,
                       struct error *err)
{
    (void)ctx;
    (void)ret_file;
    if (ref->kind == QCOW_REF_BACKING)
        return 1;
    return error_set(err, -ENOTSUP, "'%s' has a data file", ref->from);
}

static int find_data(struct qcow_image *image, bool *ret_has_data, struct error *err)
{
    uint64_t guest_off = 0, guest_size = qcow_size(image);
    int r = qcow_check_walk(image, err);
    *ret_has_data = false;
    while (r == 0 && guest_off < guest_size) {
        struct qcow_extent extent;
        r = qcow_map(image, guest_off, guest_size - guest_off, &extent, err);
        if (r < 0)
            return r;
        if (extent.kind != QCOW_HOLE) {
            *ret_has_data = true;
            return 0;
        }
        guest_off += extent.len;
    }
    return r;
}

static int read_data(const char *path, int fd, bool *ret_has_data, struct error *err)
{
    static const struct qcow_opener opener = {.open_ref = open_no_ref};
    struct qcow_cache *cache;
    struct qcow_image *image;
    int r = qcow_cache_create(CACHE_LEN, &cache, err);
    if (r < 0)
        return r;
    /* The locks belong to the description of @fd, which the copy shares and does not drop. */
    struct qcow_file file = {
        .fd = fcntl(fd, F_DUPFD_CLOEXEC, 0), .format = QCOW_FORMAT_QCOW2, .name = strdup(path)};
    if (file.fd < 0 || !file.name)
        r = error_set(err, -ENOMEM, "cannot read '%s'", path);
    if (r < 0) {
        if (file.fd >= 0)
            close(file.fd);
        free(file.name);
    } else {
        r = qcow_open(&file, &opener, cache, NULL, &image, err);
    }
    if (r == 0) {
        r = find_data(image, ret_has_data, err);
        qcow_close(image);
    }
    qcow_cache_destroy(cache);
    return r;
}

static bool names_base(const struct change_disk *disk, const struct qcow_info *info)
{
    auto_free char *path = NULL;
    struct error why = {0};
    return info->backing_name && info->backing_format &&
           file_resolve_ref(disk->file, info->backing_name, &path, &why) == 0 &&
           strcmp(path, disk->base) == 0 &&
           strcmp(info->backing_format, qcow_format_name(disk->base_format)) == 0;
}

int overlay_file_read(const struct change_disk *disk, int fd, struct overlay_content *ret,
                      struct error *err)
{
    struct stat st;
    struct qcow_info info;
    struct qcow_file file = {.fd = fd, .format = QCOW_FORMAT_QCOW2, .name = disk->file};
    struct overlay_content content = {0};
    if (fstat(fd, &st) < 0)
        return error_set(err, -EIO, "cannot read '%s': %s", disk->file, strerrordesc_np(errno));
    if (st.st_size == 0) { /* libvirt died between making and formatting it */
        *ret = content;
        return 0;
    }
    int r = qcow_inspect(&file, &info, err);
    if (r < 0)
        return r;
    content.is_over_base = names_base(disk, &info);
    qcow_info_fini(&info);
    r = read_data(disk->file, fd, &content.has_data, err);
    if (r == 0)
        *ret = content;
    return r;
}

/* A header that is being written may be seen half. */
static int inspect_used(const char *path, int fd, struct qcow_info *ret_info, struct error *err)
{
    enum { TRIES = 3 };
    struct qcow_file file = {.fd = fd, .format = QCOW_FORMAT_QCOW2, .name = (char *)path};
    int r = -EIO;
    for (int i = 0; i < TRIES && r < 0; i++)
        r = qcow_inspect(&file, ret_info, err);
    return r;
}

int overlay_file_find_base(const char *path, char **ret_base, enum qcow_format *ret_format,
                           struct error *err)
{
    const struct change_disk disk = {.file = (char *)path};
    auto_close int fd = overlay_file_open(&disk, err);
    struct qcow_info info = {0};
    int r = fd < 0 ? fd : inspect_used(path, fd, &info, err);
    if (r < 0)
        return r == -ENOENT ? -EIO : r;
    if (!info.backing_name || !info.backing_format ||
        qcow_format_parse(info.backing_format, ret_format) < 0)
        r = error_set(err, -EIO, "overlay '%s' does not say what it is over", path);
    else
        r = file_resolve_ref(path, info.backing_name, ret_base, err);
    qcow_info_fini(&info);
    return r;
}

int overlay_file_has_snapshot(const struct change_disk *disk, bool *ret_has_snapshot,
                              struct error *err)
{
    *ret_has_snapshot = false;
    auto_close int fd = overlay_file_open(disk, err);
    if (fd < 0)
        return fd;
    struct stat st;
    if (fstat(fd, &st) == 0 && st.st_size == 0)
        return 0; /* libvirt died between making and formatting it */
    struct qcow_info info = {0};
    int r = inspect_used(disk->file, fd, &info, err);
    if (r < 0)
        return r;
    *ret_has_snapshot = info.n_snapshots > 0;
    qcow_info_fini(&info);
    return 0;
}

bool overlay_file_is_written(const char *path)
{
    struct error why = {0};
    auto_close int fd = file_open_image(path, NULL, 0, &why);
    return fd >= 0 && qemulock_check(fd, path, &why) == -EBUSY;
}

bool overlay_file_is_newer(const struct change_disk *disk)
{
    struct stat base, overlay;
    if (stat(disk->base, &base) < 0 || stat(disk->file, &overlay) < 0 || !S_ISREG(base.st_mode))
        return false;
    if (base.st_mtim.tv_sec != overlay.st_mtim.tv_sec)
        return base.st_mtim.tv_sec < overlay.st_mtim.tv_sec;
    return base.st_mtim.tv_nsec < overlay.st_mtim.tv_nsec;
}

/* What is not known to be of one machine counts as shared. */
static bool is_local(const char *path)
{
    static const unsigned long types[] = {
        EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC,     F2FS_SUPER_MAGIC,
        TMPFS_MAGIC,      RAMFS_MAGIC,     OVERLAYFS_SUPER_MAGIC, 0x2fc12fc1 /* ZFS */,
    };
    struct stat st;
    struct statfs fs;
    if (stat(path, &st) < 0 || !S_ISREG(st.st_mode) || statfs(path, &fs) < 0)
        return false;
    for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++)
        if ((unsigned long)fs.f_type == types[i])
            return true;
    return false;
}

bool overlay_file_may_be_shared(const struct change_disk *disk)
{
    return !is_local(disk->file) || !is_local(disk->base);
}

/*
 * Of a backing file. What says nothing counts as qcow2 if it looks like that: at worst an overlay
 * that is not used waits for its merge, where the other mistake would merge one that is.
 */
static enum qcow_format format_of_next(const char *recorded, const char *path)
{
    struct error why = {0};
    enum qcow_format format;
    if (recorded)
        return qcow_format_parse(recorded, &format) == 0 ? format : QCOW_FORMAT_RAW;
    auto_close int fd = file_open_image(path, NULL, 0, &why);
    return fd >= 0 && qcow_has_magic(fd) ? QCOW_FORMAT_QCOW2 : QCOW_FORMAT_RAW;
}

/*
 * The next file of the chain, as the image records it, and its format; NULL at its end. A raw
 * image is the end, whatever a guest has written there.
 */
static char *follow(const char *path, enum qcow_format *format)
{
    struct error why = {0};
    if (*format != QCOW_FORMAT_QCOW2)
        return NULL;
    auto_close int fd = file_open_image(path, NULL, 0, &why);
    if (fd < 0)
        return NULL;
    struct qcow_file file = {.fd = fd, .format = QCOW_FORMAT_QCOW2, .name = (char *)path};
    struct qcow_info info;
    if (qcow_inspect(&file, &info, &why) < 0)
        return NULL;
    char *next = NULL;
    if (info.backing_name && file_resolve_ref(path, info.backing_name, &next, &why) < 0)
        next = NULL;
    if (next)
        *format = format_of_next(info.backing_format, next);
    qcow_info_fini(&info);
    return next;
}

bool overlay_file_is_below(const struct change_disk *disk, const char *path,
                           enum qcow_format format)
{
    char *at = strdup(path);
    bool is_found = false;
    for (int depth = 0; at && depth < DEPTH_MAX && !is_found; depth++) {
        is_found = strcmp(at, disk->file) == 0;
        char *next = is_found ? NULL : follow(at, &format);
        free(at);
        at = next;
    }
    free(at);
    return is_found;
}

static void sync_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    auto_free char *folder = strndup(path, slash ? (size_t)(slash - path) + 1 : 0);
    auto_close int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0)
        fsync(fd);
}

int overlay_file_delete(const struct change_disk *disk, struct error *err)
{
    if (unlink(disk->file) < 0 && errno != ENOENT)
        return error_set(err, -EIO, "cannot delete merged overlay '%s': %s", disk->file,
                         strerrordesc_np(errno));
    sync_folder(disk->file);
    return 0;
}
