/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "qcow/base/cleanup.h"

enum { PROC_PATH_MAX = 32 }; /* "/proc/self/fd/" and a number */

bool file_is_shortage(int code)
{
    return code == -EMFILE || code == -ENFILE || code == -ENOMEM;
}

bool file_is_beneath(const char *real, const char *const *dirs, size_t n_dirs)
{
    for (size_t i = 0; i < n_dirs; i++) {
        size_t len = strlen(dirs[i]);
        while (len > 0 && dirs[i][len - 1] == '/')
            len--;
        if (strncmp(real, dirs[i], len) == 0 && (real[len] == '/' || (real[len] == '\0' && len)))
            return true;
    }
    return false;
}

/*
 * Where the file behind @proc (a link of /proc/self/fd) really lies. The kernel appends
 * " (deleted)" to the name of an unlinked file and does not escape that in a real name, so the
 * name is believed only if it leads to the same file again.
 */
static int find_place(const char *path, const char *proc, const struct stat *st,
                      char ret_real[static PATH_MAX], struct error *err)
{
    char link[PATH_MAX];
    ssize_t len = readlink(proc, link, sizeof(link) - 1);
    if (len < 0)
        return error_set(err, -EIO, "cannot tell where '%s' lies: %s", path,
                         strerrordesc_np(errno));
    link[len] = '\0';
    struct stat there;
    if (link[0] != '/' || lstat(link, &there) < 0 || there.st_dev != st->st_dev ||
        there.st_ino != st->st_ino)
        return error_set(err, -EIO, "'%s' was moved or deleted while it was opened", path);
    memcpy(ret_real, link, (size_t)len + 1);
    return 0;
}

static char *forbidden_tree; /* immutable once images are opened */

int file_forbid_tree(const char *dir, struct error *err)
{
    char *copy = strdup(dir);
    if (!copy)
        return error_set(err, -ENOMEM, "out of memory");
    free(forbidden_tree);
    forbidden_tree = copy;
    return 0;
}

static char **only_dirs; /* NULL: anywhere; immutable once images are opened */
static size_t n_only_dirs;

int file_allow_only(const char *const *dirs, size_t n_dirs, struct error *err)
{
    char **real = NULL;
    int r = dirs ? file_resolve_dirs(dirs, n_dirs, &real, err) : 0;
    if (r < 0)
        return r;
    file_free_dirs(only_dirs, n_only_dirs);
    only_dirs = real;
    n_only_dirs = n_dirs;
    return 0;
}

static int check_tree(const char *path, const char *real, struct error *err)
{
    const char *const tree[] = {forbidden_tree};
    if (!forbidden_tree || !file_is_beneath(real, tree, 1))
        return 0;
    return error_set(err, -EOPNOTSUPP, "'%s' lies in this file system itself", path);
}

static int check_type(const char *path, const struct stat *st, struct error *err)
{
    if (S_ISREG(st->st_mode) || S_ISBLK(st->st_mode))
        return 0;
    return error_set(err, -EOPNOTSUPP, "'%s' is neither a regular file nor a block device", path);
}

static int check_place(const char *path, const char *proc, const struct stat *st,
                       const char *const *dirs, size_t n_dirs, struct error *err)
{
    char real[PATH_MAX];
    int r = find_place(path, proc, st, real, err);
    if (r == 0)
        r = check_tree(path, real, err);
    if (r < 0 || !dirs)
        return r;
    if (file_is_beneath(real, dirs, n_dirs))
        return 0;
    if (strcmp(real, path) == 0)
        return error_set(err, -EPERM, "'%s' lies outside the allowed directories", path);
    return error_set(err, -EPERM, "'%s' leads to '%s', outside the allowed directories", path,
                     real);
}

static int set_open_error(const char *path, struct error *err)
{
    return error_set(err, file_is_shortage(-errno) ? -errno : -EIO, "cannot open '%s': %s", path,
                     strerrordesc_np(errno));
}

/* A kernel or a valgrind without openat2 follows all links. */
static int open_place(const char *path, uint64_t resolve)
{
    struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = resolve};
    int fd = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));
    return fd < 0 && errno == ENOSYS ? open(path, O_PATH | O_CLOEXEC) : fd;
}

static int open_image(const char *path, uint64_t resolve, const char *const *dirs, size_t n_dirs,
                      struct error *err)
{
    if (!dirs && only_dirs) {
        dirs = (const char *const *)only_dirs;
        n_dirs = n_only_dirs;
    }
    int r = check_tree(path, path, err); /* by the name alone: nothing is asked of the mount */
    if (r < 0)
        return r;
    auto_close int place = open_place(path, resolve);
    struct stat st;
    if (place < 0 || fstat(place, &st) < 0)
        return set_open_error(path, err);
    r = check_type(path, &st, err);
    if (r < 0)
        return r;
    char proc[PROC_PATH_MAX];
    snprintf(proc, sizeof(proc), "/proc/self/fd/%d", place);
    if (dirs || forbidden_tree) {
        r = check_place(path, proc, &st, dirs, n_dirs, err);
        if (r < 0)
            return r;
    }
    auto_close int fd = open(proc, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return set_open_error(path, err);
    /* O_NONBLOCK was for the open (leases, drives without a medium) only; splice() heeds it too */
    if (fcntl(fd, F_SETFL, 0) < 0)
        return set_open_error(path, err);
    return take_fd(fd);
}

int file_open_image(const char *path, const char *const *dirs, size_t n_dirs, struct error *err)
{
    return open_image(path, 0, dirs, n_dirs, err);
}

int file_open_recorded(const char *path, const char *const *dirs, size_t n_dirs, struct error *err)
{
    return open_image(path, RESOLVE_NO_MAGICLINKS, dirs, n_dirs, err);
}

/* QEMU takes what stands before a colon for a protocol unless a slash comes first. */
static bool has_protocol(const char *name)
{
    return name[strcspn(name, ":/")] == ':';
}

int file_resolve_ref(const char *from, const char *name, char **ret_path, struct error *err)
{
    static const char file_protocol[] = "file:";
    const char *path = name;
    if (strncmp(name, file_protocol, strlen(file_protocol)) == 0)
        path += strlen(file_protocol);
    else if (has_protocol(name))
        return error_set(err, -EOPNOTSUPP, "'%s' refers to '%s': only files can be followed", from,
                         name);
    if (!*path)
        return error_set(err, -EOPNOTSUPP, "'%s' refers to '%s': no file name", from, name);

    const char *slash = strrchr(from, '/');
    int dir_len = *path == '/' || !slash ? 0 : (int)(slash - from) + 1;
    char *joined;
    if (asprintf(&joined, "%.*s%s", dir_len, from, path) < 0)
        return error_set(err, -ENOMEM, "out of memory");
    *ret_path = joined;
    return 0;
}

void file_free_dirs(char **dirs, size_t n_dirs)
{
    for (size_t i = 0; dirs && i < n_dirs; i++)
        free(dirs[i]);
    free(dirs);
}

static int resolve_dir(const char *dir, char **ret_real, struct error *err)
{
    auto_free char *real = realpath(dir, NULL);
    if (!real)
        return error_set(err, -errno, "cannot use directory '%s': %s", dir, strerrordesc_np(errno));
    struct stat st;
    if (stat(real, &st) < 0)
        return error_set(err, -errno, "cannot use directory '%s': %s", dir, strerrordesc_np(errno));
    if (!S_ISDIR(st.st_mode))
        return error_set(err, -ENOTDIR, "'%s' is not a directory", dir);
    *ret_real = take_ptr(real);
    return 0;
}

int file_resolve_dirs(const char *const *dirs, size_t n_dirs, char ***ret_real, struct error *err)
{
    char **real = calloc(n_dirs + 1, sizeof(*real));
    if (!real)
        return error_set(err, -ENOMEM, "out of memory");
    for (size_t i = 0; i < n_dirs; i++) {
        int r = resolve_dir(dirs[i], &real[i], err);
        if (r < 0) {
            file_free_dirs(real, n_dirs);
            return r;
        }
    }
    *ret_real = real;
    return 0;
}
