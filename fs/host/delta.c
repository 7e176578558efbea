/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/delta.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "fs/host/file.h"
#include "fs/host/qemulock.h"
#include "qcow/base/cleanup.h"

/* Tables of a qcow2 file: under a thousandth of its data, and a little to begin with. */
enum { TABLES_DIVISOR = 1024, TABLES_MIN = 1 << 20 };

struct need {
    dev_t dev;
    uint64_t bytes;
};

static int stat_folder(const char *path, struct stat *ret_st, struct statvfs *ret_fs,
                       struct error *err)
{
    auto_free char *folder = strdup(path);
    if (!folder)
        return error_set(err, -ENOMEM, "out of memory");
    char *slash = strrchr(folder, '/');
    slash[slash == folder] = '\0'; /* paths are absolute */
    if (stat(folder, ret_st) < 0 || statvfs(folder, ret_fs) < 0)
        return error_set(err, -EIO, "cannot put a copy into '%s': %s", folder,
                         strerrordesc_np(errno));
    return 0;
}

/* What a copy of @base can come to: all its blocks, or all of a device. */
static int count_bytes(const char *base, uint64_t *ret_bytes, struct error *err)
{
    auto_close int fd = file_open_image(base, NULL, 0, err);
    struct stat st;
    if (fd < 0)
        return fd;
    if (fstat(fd, &st) < 0)
        return error_set(err, -EIO, "cannot use '%s': %s", base, strerrordesc_np(errno));
    off_t device_size = S_ISBLK(st.st_mode) ? lseek(fd, 0, SEEK_END) : 0;
    uint64_t bytes = device_size > 0 ? (uint64_t)device_size : (uint64_t)st.st_blocks * 512;
    *ret_bytes = bytes + bytes / TABLES_DIVISOR + TABLES_MIN;
    return 0;
}

static int check_disk(const struct change_disk *disk, struct need *needs, struct error *err)
{
    struct stat st;
    struct statvfs fs;
    uint64_t bytes = 0;
    if (lstat(disk->file, &st) == 0)
        return error_set(err, -EBUSY, "'%s' exists already", disk->file);
    int r = stat_folder(disk->file, &st, &fs, err);
    if (r == 0)
        r = count_bytes(disk->base, &bytes, err);
    if (r < 0)
        return r;
    while (needs->bytes && needs->dev != st.st_dev)
        needs++;
    needs->dev = st.st_dev;
    needs->bytes += bytes;
    uint64_t room = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (needs->bytes > room)
        return error_set(err, -ENOSPC,
                         "a copy of '%s' needs up to %" PRIu64
                         " bytes, and its file system has %" PRIu64 " for all copies",
                         disk->base, bytes, room);
    return 0;
}

int delta_check_room(const struct change *change, struct error *err)
{
    /* One for each file system, ended by one of no bytes. */
    auto_free struct need *needs = calloc(change->n_disks + 1, sizeof(*needs));
    if (!needs)
        return error_set(err, -ENOMEM, "out of memory");
    int r = 0;
    for (size_t i = 0; i < change->n_disks && r == 0; i++)
        r = check_disk(&change->disks[i], needs, err);
    return r;
}

int delta_delete(const char *path, struct error *err)
{
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT)
        return 0;
    if (fd < 0)
        return error_set(err, -EIO, "cannot delete '%s': %s", path, strerrordesc_np(errno));
    struct stat st;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return error_set(err, -EIO, "cannot delete '%s': not a regular file", path);
    int r = qemulock_check_unused(fd, path, err);
    if (r < 0)
        return r;
    if (unlink(path) < 0 && errno != ENOENT)
        return error_set(err, -EIO, "cannot delete '%s': %s", path, strerrordesc_np(errno));
    return 0;
}
