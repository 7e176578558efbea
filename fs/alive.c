/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/alive.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "fs/state.h"
#include "qcow/base/cleanup.h"

enum {
    HASH_LEN = 16,    /* of the mountpoint's, in a file's name */
    CREATE_TRIES = 8, /* another server may take a file for a leftover before it is locked */
};

struct alive {
    char *path;
    int fd; /* with the lock */
};

/* The folder of those files. NULL: no memory. */
static char *folder_of(const char *state_dir)
{
    char *folder = NULL;
    return asprintf(&folder, "%s/mounts", state_dir) < 0 ? NULL : folder;
}

/* How the names of a mountpoint's files begin. */
static void make_prefix(const char *real_path, char ret_prefix[HASH_LEN + 2])
{
    char hash[STATE_HASH_LEN];
    state_hash(real_path, strlen(real_path), hash);
    snprintf(ret_prefix, HASH_LEN + 2, "%.*s-", HASH_LEN, hash);
}

static int lock_all(int fd, int command, short type)
{
    struct flock fl = {.l_type = type, .l_whence = SEEK_SET};
    return fcntl(fd, command, &fl) < 0 ? -errno : 0;
}

static bool is_held_by_another(int r)
{
    return r == -EAGAIN || r == -EACCES;
}

/* A server that was killed leaves its file. */
static void delete_leftover(const char *path, void *ctx)
{
    (void)ctx;
    auto_close int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 && lock_all(fd, F_OFD_SETLK, F_WRLCK) == 0)
        unlink(path);
}

/* Calls @visit for each file of that mountpoint. 0 or negative errno; no folder has no files. */
static int walk_files(const char *folder, const char *prefix,
                      void (*visit)(const char *path, void *ctx), void *ctx)
{
    DIR *dir = opendir(folder);
    if (!dir)
        return errno == ENOENT ? 0 : -errno;
    const struct dirent *item;
    int r = 0;
    /* lint: clang-tidy/concurrency-mt-unsafe: nobody else reads this stream */
    /* lint: cppcheck/readdirCalled: glibc calls readdir_r, which is wanted, deprecated */
    for (errno = 0; r == 0 && (item = readdir(dir)); errno = 0) {
        if (strncmp(item->d_name, prefix, strlen(prefix)) != 0)
            continue;
        char *path;
        if (asprintf(&path, "%s/%s", folder, item->d_name) < 0) {
            r = -ENOMEM;
        } else {
            visit(path, ctx);
            free(path);
        }
    }
    r = r < 0 ? r : -errno;
    closedir(dir);
    return r;
}

/* Makes and locks one file. 0; -EAGAIN: another took it for a leftover; negative errno. */
static int try_begin(const char *path, int *ret_fd)
{
    auto_close int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno == EEXIST ? -EAGAIN : -errno;
    struct stat st;
    int r = lock_all(fd, F_OFD_SETLK, F_WRLCK);
    if (r == 0 && fstat(fd, &st) < 0)
        r = -errno;
    if (r == 0 && st.st_nlink == 0)
        return -EAGAIN;
    if (r < 0) {
        unlink(path);
        return is_held_by_another(r) ? -EAGAIN : r;
    }
    char text[16];
    int len = snprintf(text, sizeof(text), "%d\n", (int)getpid());
    r = state_write_all(fd, text, (size_t)len);
    if (r < 0)
        unlink(path);
    else
        *ret_fd = take_fd(fd);
    return r;
}

static int begin(const char *folder, const char *prefix, struct alive *alive)
{
    for (int i = 0; i < CREATE_TRIES; i++) {
        uint64_t random;
        char *path;
        if (getrandom(&random, sizeof(random), 0) != sizeof(random))
            return -EIO;
        if (asprintf(&path, "%s/%s%016" PRIx64, folder, prefix, random) < 0)
            return -ENOMEM;
        int r = try_begin(path, &alive->fd);
        if (r == 0) {
            alive->path = path;
            return 0;
        }
        free(path);
        if (r != -EAGAIN)
            return r;
    }
    return -EBUSY;
}

int alive_begin(const char *state_dir, const char *real_path, struct alive **ret_alive,
                struct error *err)
{
    auto_free char *folder = folder_of(state_dir);
    auto_free struct alive *alive = calloc(1, sizeof(*alive));
    char prefix[HASH_LEN + 2];
    if (!folder || !alive)
        return error_set(err, -ENOMEM, "out of memory");
    make_prefix(real_path, prefix);
    int r = state_make_dirs(folder);
    if (r == 0) {
        walk_files(folder, prefix, delete_leftover, NULL);
        r = begin(folder, prefix, alive);
    }
    if (r < 0)
        return error_set(err, r, "cannot lock a file in '%s': %s", folder, strerrordesc_np(-r));
    *ret_alive = take_ptr(alive);
    return 0;
}

/* The name goes first: who has opened the file waits for its lock all the same. */
void alive_end(struct alive *alive)
{
    if (!alive)
        return;
    unlink(alive->path);
    close(alive->fd);
    free(alive->path);
    free(alive);
}

struct found {
    int *fds;
    size_t n;
    int r; /* negative errno of the first file that could not be opened */
};

static void add_found(const char *path, void *ctx)
{
    struct found *found = ctx;
    auto_close int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        if (errno != ENOENT) /* that one has ended just now */
            found->r = -errno;
        return;
    }
    int *grown = reallocarray(found->fds, found->n + 1, sizeof(*grown));
    if (!grown) {
        found->r = -ENOMEM;
        return;
    }
    found->fds = grown;
    found->fds[found->n++] = take_fd(fd);
}

/* Until no server has it. A shared lock, so that any number may wait. 1: there was a server. */
static int wait_for_one(int fd)
{
    int r = lock_all(fd, F_OFD_SETLK, F_RDLCK);
    if (!is_held_by_another(r))
        return r;
    do
        r = lock_all(fd, F_OFD_SETLKW, F_RDLCK);
    while (r == -EINTR);
    return r < 0 ? r : 1;
}

int alive_wait(const char *state_dir, const char *real_path, size_t *ret_n, struct error *err)
{
    auto_free char *folder = folder_of(state_dir);
    char prefix[HASH_LEN + 2];
    if (!folder)
        return error_set(err, -ENOMEM, "out of memory");
    make_prefix(real_path, prefix);
    struct found found = {0};
    int r = walk_files(folder, prefix, add_found, &found);
    if (r == 0)
        r = found.r;
    size_t n = 0;
    for (size_t i = 0; i < found.n; i++) {
        int one = r < 0 ? 0 : wait_for_one(found.fds[i]);
        n += one > 0;
        r = one < 0 ? one : r;
        close(found.fds[i]);
    }
    free(found.fds);
    if (r < 0)
        return error_set(err, r, "cannot look for servers in '%s': %s", folder,
                         strerrordesc_np(-r));
    *ret_n = n;
    return 0;
}
