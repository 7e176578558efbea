/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The benchmark's clock: does one thing to a file, and prints how long it took, in seconds.
 *
 *   meter first FILE SINCE          waits until a byte can be read; prints seconds since SINCE (of
 *                                   the clock of day, as in bash's $EPOCHREALTIME)
 *   meter read FILE [FROM [LEN]]    reads by 1 MiB; prints bytes, seconds, and those of open()
 * alone meter data FILE                 the same of what is data, by SEEK_DATA and SEEK_HOLE meter
 * walk FILE                 SEEK_DATA and SEEK_HOLE only; prints extents, their bytes, seconds
 *   meter run COMMAND [ARG...]      prints seconds of the clock and of the processors, and the
 *                                   largest process in KiB, all its descendants included; its
 *                                   output goes to standard error
 *   meter cpu PID...                prints the processor seconds that processes have used by now
 *
 * Exit status 1 if it failed, with a line that says why; with run, the command's.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "qcow/base/cleanup.h"

enum { BLOCK = 1 << 20, ALIGNMENT = 4096, FIRST_TIMEOUT_S = 30, FIRST_NAP_NS = 100 * 1000 };

static double clock_s(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int fail(const char *what)
{
    fprintf(stderr, "meter: '%s': %s\n", what, strerror(errno));
    return 1;
}

/* A mountpoint has a size of its own before anything is mounted there: nothing, or a folder's. */
static bool can_read(const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size == 0)
        return false;
    char byte;
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd >= 0 && pread(fd, &byte, 1, 0) == 1;
}

static int measure_first(const char *path, double since)
{
    double end = clock_s(CLOCK_MONOTONIC) + FIRST_TIMEOUT_S;
    const struct timespec nap = {.tv_nsec = FIRST_NAP_NS};
    while (!can_read(path)) {
        if (clock_s(CLOCK_MONOTONIC) > end) {
            errno = ETIMEDOUT;
            return fail(path);
        }
        nanosleep(&nap, NULL);
    }
    printf("%.6f\n", clock_s(CLOCK_REALTIME) - since);
    return 0;
}

/* Touched before it is timed: its page faults are not the file's. */
static uint8_t *make_buffer(void)
{
    uint8_t *buf = aligned_alloc(ALIGNMENT, BLOCK);
    if (buf)
        memset(buf, 1, BLOCK);
    return buf;
}

/* Bytes read, up to the end of the file; -1 with errno. */
static int64_t read_range(int fd, uint8_t *buf, off_t from, uint64_t len)
{
    uint64_t done = 0;
    while (done < len) {
        size_t want = len - done < BLOCK ? (size_t)(len - done) : BLOCK;
        ssize_t n = pread(fd, buf, want, from + (off_t)done);
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        done += (uint64_t)n;
    }
    return (int64_t)done;
}

static int measure_read(const char *path, uint64_t from, uint64_t len)
{
    auto_free uint8_t *buf = make_buffer();
    double start = clock_s(CLOCK_MONOTONIC);
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (!buf || fd < 0)
        return fail(path);
    double opened = clock_s(CLOCK_MONOTONIC);
    int64_t n = read_range(fd, buf, (off_t)from, len);
    if (n < 0)
        return fail(path);
    printf("%" PRId64 " %.6f %.6f\n", n, clock_s(CLOCK_MONOTONIC) - opened, opened - start);
    return 0;
}

struct extents {
    uint64_t n, bytes;
};

/* Goes from extent to extent; with @buf reads them. 0, or -1 with errno. */
static int walk(int fd, uint8_t *buf, struct extents *ret_extents)
{
    struct extents seen = {0};
    off_t end = 0;
    while (true) {
        off_t start = lseek(fd, end, SEEK_DATA);
        if (start < 0 && errno == ENXIO)
            break;
        end = start < 0 ? -1 : lseek(fd, start, SEEK_HOLE);
        if (end < 0 || (buf && read_range(fd, buf, start, (uint64_t)(end - start)) < 0))
            return -1;
        seen.n++;
        seen.bytes += (uint64_t)(end - start);
    }
    *ret_extents = seen;
    return 0;
}

static int measure_data(const char *path)
{
    auto_free uint8_t *buf = make_buffer();
    double start = clock_s(CLOCK_MONOTONIC);
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct extents extents;
    double opened = clock_s(CLOCK_MONOTONIC);
    if (!buf || fd < 0 || walk(fd, buf, &extents) < 0)
        return fail(path);
    printf("%" PRIu64 " %.6f %.6f\n", extents.bytes, clock_s(CLOCK_MONOTONIC) - opened,
           opened - start);
    return 0;
}

static int measure_walk(const char *path)
{
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail(path);
    struct extents extents;
    double start = clock_s(CLOCK_MONOTONIC);
    if (walk(fd, NULL, &extents) < 0)
        return fail(path);
    printf("%" PRIu64 " %" PRIu64 " %.6f\n", extents.n, extents.bytes,
           clock_s(CLOCK_MONOTONIC) - start);
    return 0;
}

static double seconds_of(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

/* nbdcopy's server is a child that it may not wait for: what is orphaned becomes ours. */
static int measure_run(char **argv)
{
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    double start = clock_s(CLOCK_MONOTONIC);
    pid_t pid = fork();
    if (pid < 0)
        return fail("fork");
    if (pid == 0) {
        dup2(STDERR_FILENO, STDOUT_FILENO);
        execvp(argv[0], argv);
        _exit(fail(argv[0]) + 126);
    }
    double took = 0;
    int how, status = 127;
    for (pid_t ended; (ended = wait(&how)) > 0;) {
        if (ended != pid)
            continue;
        took = clock_s(CLOCK_MONOTONIC) - start;
        status = WIFEXITED(how) ? WEXITSTATUS(how) : 128 + WTERMSIG(how);
    }
    struct rusage usage;
    getrusage(RUSAGE_CHILDREN, &usage);
    printf("%.6f %.6f %ld\n", took, seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime),
           usage.ru_maxrss);
    return status;
}

/* A process's own clock counts threads that have ended, too, and finer than /proc does. */
static int measure_cpu(char **pids)
{
    double sum = 0;
    for (; *pids; pids++) {
        clockid_t clock;
        if (clock_getcpuclockid((pid_t)strtol(*pids, NULL, 10), &clock) == 0)
            sum += clock_s(clock);
    }
    printf("%.6f\n", sum);
    return 0;
}

static uint64_t number_or(const char *text, uint64_t missing)
{
    return text ? strtoull(text, NULL, 10) : missing;
}

int main(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";
    if (strcmp(verb, "first") == 0 && argc == 4)
        return measure_first(argv[2], strtod(argv[3], NULL));
    if (strcmp(verb, "read") == 0 && argc >= 3 && argc <= 5)
        return measure_read(argv[2], number_or(argv[3], 0),
                            number_or(argc > 4 ? argv[4] : NULL, INT64_MAX));
    if (strcmp(verb, "data") == 0 && argc == 3)
        return measure_data(argv[2]);
    if (strcmp(verb, "walk") == 0 && argc == 3)
        return measure_walk(argv[2]);
    if (strcmp(verb, "run") == 0 && argc >= 3)
        return measure_run(argv + 2);
    if (strcmp(verb, "cpu") == 0)
        return measure_cpu(argv + 2);
    fprintf(stderr, "meter: see the head of meter.c\n");
    return 2;
}
