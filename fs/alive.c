/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/alive.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "fs/state.h"
#include "qcow/base/cleanup.h"

enum {
    HASH_LEN = 16,    /* of the mountpoint's, in a file's name */
    CREATE_TRIES = 8, /* another server may take a file for a leftover before it is locked */
    TEXT_MAX = 4096,  /* of a file: a number and a source */
    EXIT_MS = 10000,  /* from the first lock that a process lets go of to the last */
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
static int try_begin(const char *path, const char *source, int *ret_fd)
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
    auto_free char *text = NULL;
    int len = asprintf(&text, "%d\n%s\n", (int)getpid(), source);
    if (len < 0)
        text = NULL;
    r = len < 0 ? -ENOMEM : state_write_all(fd, text, (size_t)len);
    if (r < 0)
        unlink(path);
    else
        *ret_fd = take_fd(fd);
    return r;
}

static int begin(const char *folder, const char *prefix, const char *source, struct alive *alive)
{
    for (int i = 0; i < CREATE_TRIES; i++) {
        uint64_t random;
        char *path;
        if (getrandom(&random, sizeof(random), 0) != sizeof(random))
            return -EIO;
        if (asprintf(&path, "%s/%s%016" PRIx64, folder, prefix, random) < 0)
            return -ENOMEM;
        int r = try_begin(path, source, &alive->fd);
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

int alive_begin(const char *state_dir, const char *real_path, const char *source,
                struct alive **ret_alive, struct error *err)
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
        r = begin(folder, prefix, source, alive);
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

/* What is in the file: a number, and a source that points into @text. False: nothing of ours. */
static bool read_server(int fd, char text[TEXT_MAX], struct alive_ended *ret_server)
{
    ssize_t n = pread(fd, text, TEXT_MAX - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    char *end;
    long pid = strtol(text, &end, 10);
    if (end == text || *end != '\n' || pid <= 0)
        return false;
    char *source = end + 1;
    source[strcspn(source, "\n")] = '\0';
    *ret_server = (struct alive_ended){.pid = (pid_t)pid, .source = source};
    return true;
}

static bool is_locked(int fd)
{
    struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fcntl(fd, F_OFD_GETLK, &fl) == 0 && fl.l_type != F_UNLCK;
}

static void close_found(struct found *found)
{
    for (size_t i = 0; i < found->n; i++)
        close(found->fds[i]);
    free(found->fds);
}

static int find_files(const char *state_dir, const char *real_path, struct found *found)
{
    auto_free char *folder = folder_of(state_dir);
    char prefix[HASH_LEN + 2];
    if (!folder)
        return -ENOMEM;
    make_prefix(real_path, prefix);
    int r = walk_files(folder, prefix, add_found, found);
    return r < 0 ? r : found->r;
}

pid_t alive_find(const char *state_dir, const char *real_path)
{
    struct found found = {0};
    char text[TEXT_MAX];
    pid_t pid = 0;
    size_t n = 0;
    find_files(state_dir, real_path, &found);
    for (size_t i = 0; i < found.n; i++) {
        struct alive_ended server;
        if (!is_locked(found.fds[i]))
            continue;
        n++;
        pid = read_server(found.fds[i], text, &server) ? server.pid : 0;
    }
    close_found(&found);
    return n == 1 ? pid : 0;
}

/*
 * Until no server has it. A shared lock, so that any number may wait. One that is killed lets go of
 * its locks one by one: all are free once it has exited. 1: there was a server.
 */
static int wait_for_one(int fd)
{
    char text[TEXT_MAX];
    struct alive_ended server;
    int r = lock_all(fd, F_OFD_SETLK, F_RDLCK);
    if (!is_held_by_another(r))
        return r;
    auto_close int process = read_server(fd, text, &server) ? pidfd_open(server.pid, 0) : -1;
    do
        r = lock_all(fd, F_OFD_SETLKW, F_RDLCK);
    while (r == -EINTR);
    struct pollfd gone = {.fd = process, .events = POLLIN};
    if (r == 0 && process >= 0 && poll(&gone, 1, EXIT_MS) < 0)
        return -errno;
    return r < 0 ? r : 1;
}

/* The file of one that was killed has not been deleted. */
static void tell(int fd, const struct alive_visitor *visitor)
{
    char text[TEXT_MAX];
    struct alive_ended server;
    if (read_server(fd, text, &server))
        visitor->ended(visitor->ctx, &server);
}

int alive_wait(const char *state_dir, const char *real_path, const struct alive_visitor *visitor,
               size_t *ret_n, struct error *err)
{
    struct found found = {0};
    int r = find_files(state_dir, real_path, &found);
    for (size_t i = 0; r >= 0 && i < found.n; i++)
        r = wait_for_one(found.fds[i]);
    for (size_t i = 0; r >= 0 && i < found.n; i++)
        tell(found.fds[i], visitor);
    close_found(&found);
    if (r < 0)
        return error_set(err, r, "cannot look for servers in '%s/mounts': %s", state_dir,
                         strerrordesc_np(-r));
    *ret_n = found.n;
    return 0;
}
