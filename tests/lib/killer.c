/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * For LD_PRELOAD: counts the steps by which the program changes a domain or its journal, and kills
 * the process with SIGKILL at one of them. Steps are numbered from 1, in the order in which they
 * begin.
 *
 *   KILL_LOG=FILE     a line "N NAME" for each step, as it begins
 *   KILL_AT=N         at which step; none if it is not set
 *   KILL_WHEN=WHEN    "before" it, "after" it, or "during" it: KILL_DELAY_US after it began,
 *                     whatever is going on then
 *   KILL_ALSO=FILES   files with process ids, parted by ':', that are killed just before
 *   KILL_ORDER=FILE   for another test: "NAME WHEN SIGNAL FILE", which may come at any time. At the
 *                     next step of that name the file of the order is deleted, and the process
 *                     whose id stands in FILE gets the signal; this one goes on.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <libvirt/libvirt.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { NOT_A_STEP = 0 };

static void signal_named(const char *path, int signal)
{
    FILE *file = fopen(path, "re");
    int pid = 0;
    if (file && fscanf(file, "%d", &pid) == 1 && pid > 1 && pid != getpid())
        kill(pid, signal);
    else if (file && pid == getpid())
        raise(signal); /* by this thread: with another to take it, this one would go on a while */
    if (file)
        fclose(file);
}

static void die(void)
{
    const char *also = getenv("KILL_ALSO");
    char *paths = also ? strdup(also) : NULL;
    char *rest = paths;
    for (char *path = strsep(&rest, ":"); path; path = strsep(&rest, ":"))
        signal_named(path, SIGKILL);
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

static void sleep_a_while(void)
{
    const char *delay = getenv("KILL_DELAY_US");
    nanosleep(&(struct timespec){.tv_nsec = delay ? atoi(delay) * 1000L : 0}, NULL);
}

static void *die_later(void *arg)
{
    (void)arg;
    sleep_a_while();
    die();
    return NULL;
}

struct order {
    char name[64], when[16], pid_file[256];
    int signal;
};

static void *obey_later(void *arg)
{
    struct order *order = arg;
    sleep_a_while();
    signal_named(order->pid_file, order->signal);
    free(order);
    return NULL;
}

/* Whoever deletes the order carries it out. */
static void obey(const char *name, const char *when)
{
    const char *path = getenv("KILL_ORDER");
    FILE *file = path ? fopen(path, "re") : NULL;
    if (!file)
        return;
    struct order order;
    int n =
        fscanf(file, "%63s %15s %d %255s", order.name, order.when, &order.signal, order.pid_file);
    fclose(file);
    if (n != 4 || strcmp(order.name, name) != 0 || strcmp(order.when, when) != 0 ||
        remove(path) != 0)
        return;
    if (strcmp(when, "during") != 0) {
        signal_named(order.pid_file, order.signal);
        return;
    }
    struct order *copy = malloc(sizeof(order));
    pthread_t thread;
    if (!copy)
        abort();
    *copy = order;
    if (pthread_create(&thread, NULL, obey_later, copy) != 0)
        abort();
    pthread_detach(thread);
}

static bool is_time(int step, const char *when)
{
    const char *at = getenv("KILL_AT");
    const char *wanted = getenv("KILL_WHEN");
    return at && wanted && atoi(at) == step && strcmp(wanted, when) == 0;
}

static void note(int step, const char *name)
{
    const char *path = getenv("KILL_LOG");
    int fd = path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (fd < 0)
        return;
    dprintf(fd, "%d %s\n", step, name);
    close(fd);
}

static int step_begin(const char *name)
{
    static atomic_int n_steps;
    int step = atomic_fetch_add(&n_steps, 1) + 1;
    note(step, name);
    obey(name, "before");
    obey(name, "during");
    if (is_time(step, "before"))
        die();
    pthread_t thread;
    if (is_time(step, "during"))
        pthread_create(&thread, NULL, die_later, NULL);
    return step;
}

static void step_end(int step, const char *name)
{
    if (step == NOT_A_STEP)
        return;
    obey(name, "after");
    if (is_time(step, "after"))
        die();
}

/* A file that a change makes, or that the journal keeps. */
static bool is_ours(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    return strstr(name, "virtsnapfs-") || strcmp(name, "lock") == 0;
}

static bool is_journal(int fd)
{
    char link[64], path[4096];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    /* lint: clang-tidy/readability-suspicious-call-argument: this is their order */
    ssize_t len = readlink(link, path, sizeof(path) - 1);
    path[len > 0 ? len : 0] = '\0';
    return strstr(path, "/journal");
}

/* The function that this one stands before; one that is missing is a fault of the test. */
static void *find_real(const char *name)
{
    void *real = dlsym(RTLD_NEXT, name);
    if (!real)
        abort();
    return real;
}

/* A function that is a step whenever @is_step is true of its arguments. */
#define WRAP_IF(type, name, params, args, is_step)                                                 \
    type name params;                                                                              \
    type name params                                                                               \
    {                                                                                              \
        /* lint: clang-tidy/bugprone-macro-parentheses: parameters have their own */               \
        type(*real) params = find_real(#name);                                                     \
        int step = (is_step) ? step_begin(#name) : NOT_A_STEP;                                     \
        type result = real args;                                                                   \
        step_end(step, #name);                                                                     \
        return result;                                                                             \
    }
#define WRAP(type, name, params, args) WRAP_IF(type, name, params, args, true)

WRAP_IF(int, fsync, (int fd), (fd), is_journal(fd))
WRAP_IF(int, fdatasync, (int fd), (fd), is_journal(fd))
WRAP_IF(int, unlink, (const char *path), (path), is_ours(path))
WRAP_IF(int, unlinkat, (int fd, const char *path, int flags), (fd, path, flags), is_ours(path))
WRAP_IF(int, renameat, (int fd, const char *path, int fd2, const char *path2),
        (fd, path, fd2, path2), is_ours(path))
WRAP_IF(int, rename, (const char *path, const char *path2), (path, path2), is_ours(path))

/* qemu-img; it may go on when the program is dead. */
WRAP_IF(int, posix_spawn,
        (pid_t *restrict pid, const char *restrict path, const posix_spawn_file_actions_t *files,
         const posix_spawnattr_t *restrict attr, char *const args[restrict],
         char *const env[restrict]),
        (pid, path, files, attr, args, env), strstr(path, "qemu-img"))

WRAP(virDomainPtr, virDomainDefineXML, (virConnectPtr conn, const char *xml), (conn, xml))
WRAP(virDomainPtr, virDomainDefineXMLFlags, (virConnectPtr conn, const char *xml, unsigned flags),
     (conn, xml, flags))
WRAP(int, virDomainCreate, (virDomainPtr dom), (dom))
WRAP(int, virDomainCreateWithFlags, (virDomainPtr dom, unsigned flags), (dom, flags))
WRAP(int, virDomainSuspend, (virDomainPtr dom), (dom))
WRAP(int, virDomainResume, (virDomainPtr dom), (dom))
WRAP(int, virDomainManagedSave, (virDomainPtr dom, unsigned flags), (dom, flags))
WRAP(int, virDomainAbortJob, (virDomainPtr dom), (dom))
WRAP(virDomainSnapshotPtr, virDomainSnapshotCreateXML,
     (virDomainPtr dom, const char *xml, unsigned flags), (dom, xml, flags))
WRAP(int, virDomainSnapshotDelete, (virDomainSnapshotPtr snapshot, unsigned flags),
     (snapshot, flags))
WRAP(int, virDomainBlockCommit,
     (virDomainPtr dom, const char *disk, const char *base, const char *top,
      unsigned long bandwidth, unsigned flags),
     (dom, disk, base, top, bandwidth, flags))
WRAP(int, virDomainBlockCopy,
     (virDomainPtr dom, const char *disk, const char *xml, virTypedParameterPtr params,
      int n_params, unsigned flags),
     (dom, disk, xml, params, n_params, flags))
WRAP(int, virDomainBlockJobAbort, (virDomainPtr dom, const char *disk, unsigned flags),
     (dom, disk, flags))
WRAP(int, virDomainBackupBegin,
     (virDomainPtr dom, const char *xml, const char *checkpoint, unsigned flags),
     (dom, xml, checkpoint, flags))
WRAP(int, virDomainFSFreeze,
     (virDomainPtr dom, const char **mountpoints, unsigned n_mountpoints, unsigned flags),
     (dom, mountpoints, n_mountpoints, flags))
WRAP(int, virDomainFSThaw,
     (virDomainPtr dom, const char **mountpoints, unsigned n_mountpoints, unsigned flags),
     (dom, mountpoints, n_mountpoints, flags))
