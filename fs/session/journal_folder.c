/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/session/journal_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "fs/log.h"
#include "fs/state.h"
#include "qcow/base/cleanup.h"

enum { CREATE_TRIES = 8 }; /* an adopter may take a folder for a leftover before it is locked */

static const char lock_name[] = "lock";

void journal_folder_close(struct journal_folder *folder)
{
    if (!folder)
        return;
    if (folder->lock_fd >= 0)
        close(folder->lock_fd);
    if (folder->fd >= 0)
        close(folder->fd);
    free(folder->path);
    free(folder);
}

static void cleanup_folder(struct journal_folder **folder)
{
    journal_folder_close(*folder);
}

#define auto_folder __attribute__((cleanup(cleanup_folder)))

/* Takes @path. */
static struct journal_folder *folder_new(char *path)
{
    struct journal_folder *folder = path ? malloc(sizeof(*folder)) : NULL;
    if (folder)
        *folder = (struct journal_folder){.path = path, .fd = -1, .lock_fd = -1};
    else
        free(path);
    return folder;
}

int journal_folder_check(int fd, mode_t type, const char *path, struct error *err)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return error_set(err, -errno, "cannot look at '%s': %s", path, strerrordesc_np(errno));
    if ((st.st_mode & S_IFMT) != type)
        return error_set(err, -EPERM, "'%s' is not a %s", path,
                         type == S_IFDIR ? "folder" : "plain file");
    if (st.st_uid != geteuid())
        return error_set(err, -EPERM, "'%s' belongs to user %u, not %u", path, (unsigned)st.st_uid,
                         (unsigned)geteuid());
    if (st.st_mode & (S_IWGRP | S_IWOTH))
        return error_set(err, -EPERM, "'%s' may be written by others (mode %04o)", path,
                         (unsigned)st.st_mode & 07777);
    return 0;
}

/* @ret_fd is set only on success. 0, -ENOENT, -EPERM or another negative errno. */
static int open_folder(const char *path, int *ret_fd, struct error *err)
{
    auto_close int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return error_set(err, -errno, "cannot open '%s': %s", path, strerrordesc_np(errno));
    int r = journal_folder_check(fd, S_IFDIR, path, err);
    if (r == 0)
        *ret_fd = take_fd(fd);
    return r;
}

/*
 * Takes the lock of the folder. The lock counts only if its file is still the one in the folder:
 * whoever removes a folder does so under the lock.
 * 0; -EAGAIN: another has it, or just removed it; negative errno.
 */
static int lock_folder(struct journal_folder *folder, int flags, struct error *err)
{
    auto_close int fd =
        openat(folder->fd, lock_name, flags | O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 && (errno == ENOENT || errno == EEXIST))
        return -EAGAIN;
    if (fd < 0)
        return error_set(err, -errno, "cannot open '%s/%s': %s", folder->path, lock_name,
                         strerrordesc_np(errno));
    struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_OFD_SETLK, &fl) < 0) {
        if (errno == EAGAIN || errno == EACCES)
            return -EAGAIN;
        return error_set(err, -errno, "cannot lock '%s/%s': %s", folder->path, lock_name,
                         strerrordesc_np(errno));
    }
    struct stat st;
    if (fstat(fd, &st) < 0)
        return error_set(err, -errno, "cannot look at '%s/%s': %s", folder->path, lock_name,
                         strerrordesc_np(errno));
    if (st.st_nlink == 0)
        return -EAGAIN;
    folder->lock_fd = take_fd(fd);
    return 0;
}

bool journal_folder_is_owned(const char *path)
{
    auto_close int folder = open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    auto_close int fd = openat(folder, lock_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fd >= 0 && fcntl(fd, F_OFD_GETLK, &fl) == 0 && fl.l_type != F_UNLCK;
}

bool journal_folder_is_gone(const struct journal_folder *folder)
{
    struct stat st;
    return fstat(folder->lock_fd, &st) == 0 && st.st_nlink == 0;
}

void journal_folder_remove(const struct journal_folder *folder)
{
    if (unlinkat(folder->fd, lock_name, 0) == 0 && rmdir(folder->path) < 0 && errno != ENOTEMPTY)
        log_debug("cannot remove '%s': %s", folder->path, strerrordesc_np(errno));
}

static int make_root(const char *root, struct error *err)
{
    int r = state_make_dirs(root);
    if (r == 0)
        r = state_sync_dirs(root);
    if (r < 0)
        return error_set(err, r, "cannot make '%s': %s", root, strerrordesc_np(-r));
    auto_close int fd = -1;
    return open_folder(root, &fd, err);
}

/* -EAGAIN: try again under another name. */
static int try_make_folder(const char *root, const char *prefix, struct journal_folder **ret_folder,
                           struct error *err)
{
    uint64_t random;
    char *path = NULL;
    if (getrandom(&random, sizeof(random), 0) != sizeof(random))
        return error_set(err, -EIO, "no random number: %s", strerrordesc_np(errno));
    if (asprintf(&path, "%s/%s%016" PRIx64, root, prefix, random) < 0)
        path = NULL;
    auto_folder struct journal_folder *folder = folder_new(path);
    if (!folder)
        return error_set(err, -ENOMEM, "out of memory");
    /* lint: gcc-analyzer/malloc-leak: auto_folder */
    if (mkdir(folder->path, 0700) < 0)
        return errno == EEXIST ? -EAGAIN
                               : error_set(err, -errno, "cannot make '%s': %s", folder->path,
                                           strerrordesc_np(errno));
    int r = open_folder(folder->path, &folder->fd, err);
    if (r == 0)
        r = lock_folder(folder, O_EXCL, err);
    if (r < 0) {
        if (r == -ENOENT || r == -EAGAIN)
            return -EAGAIN;
        unlinkat(folder->fd, lock_name, 0);
        rmdir(folder->path);
        return r;
    }
    auto_close int root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root_fd < 0 || fsync(root_fd) < 0) {
        r = error_set(err, -errno, "cannot sync '%s': %s", root, strerrordesc_np(errno));
        journal_folder_remove(folder);
        return r;
    }
    *ret_folder = take_ptr(folder);
    return 0;
}

int journal_folder_make(const char *root, const char *prefix, struct journal_folder **ret_folder,
                        struct error *err)
{
    int r = make_root(root, err);
    if (r < 0)
        return r;
    for (int i = 0; i < CREATE_TRIES; i++) {
        r = try_make_folder(root, prefix, ret_folder, err);
        if (r != -EAGAIN)
            return r;
    }
    return error_set(err, -EIO, "cannot make a folder in '%s': others remove it each time", root);
}

int journal_folder_open_root(const char *root, int *ret_fd, struct error *err)
{
    return open_folder(root, ret_fd, err);
}

int journal_folder_take(char *path, struct journal_folder **ret_folder, struct error *err)
{
    auto_folder struct journal_folder *folder = folder_new(path);
    if (!folder)
        return error_set(err, -ENOMEM, "out of memory");
    int r = open_folder(folder->path, &folder->fd, err);
    if (r == -ENOENT)
        return -EAGAIN;
    if (r == 0)
        r = lock_folder(folder, 0, err);
    if (r == 0)
        *ret_folder = take_ptr(folder);
    return r;
}
