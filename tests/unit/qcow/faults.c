/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/qcow/faults.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

ssize_t __real_pread64(int fd, void *buf, size_t len, off_t host_off);
ssize_t __wrap_pread64(int fd, void *buf, size_t len, off_t host_off);
void *__real_malloc(size_t len);
void *__wrap_malloc(size_t len);
void *__real_calloc(size_t n, size_t len);
void *__wrap_calloc(size_t n, size_t len);
void *__real_reallocarray(void *old, size_t n, size_t len);
void *__wrap_reallocarray(void *old, size_t n, size_t len);
char *__real_strdup(const char *text);
char *__wrap_strdup(const char *text);
char *__real_strndup(const char *text, size_t len);
char *__wrap_strndup(const char *text, size_t len);

faults_pread_fn *faults_pread;

static atomic_int until_failure = -1;
static atomic_int n_failed;

ssize_t faults_real_pread(int fd, void *buf, size_t len, off_t host_off)
{
    return __real_pread64(fd, buf, len, host_off);
}

ssize_t __wrap_pread64(int fd, void *buf, size_t len, off_t host_off)
{
    return faults_pread ? faults_pread(fd, buf, len, host_off)
                        : __real_pread64(fd, buf, len, host_off);
}

void faults_fail_allocation(int n)
{
    atomic_store(&n_failed, 0);
    atomic_store(&until_failure, n);
}

int faults_allocation_failed(void)
{
    return atomic_load(&n_failed);
}

static int fails_now(void)
{
    if (atomic_load(&until_failure) < 0 || atomic_fetch_sub(&until_failure, 1) != 0)
        return 0;
    atomic_fetch_add(&n_failed, 1);
    errno = ENOMEM;
    return 1;
}

void *__wrap_malloc(size_t len)
{
    return fails_now() ? NULL : __real_malloc(len);
}

void *__wrap_calloc(size_t n, size_t len)
{
    return fails_now() ? NULL : __real_calloc(n, len);
}

void *__wrap_reallocarray(void *old, size_t n, size_t len)
{
    return fails_now() ? NULL : __real_reallocarray(old, n, len);
}

char *__wrap_strdup(const char *text)
{
    return fails_now() ? NULL : __real_strdup(text);
}

char *__wrap_strndup(const char *text, size_t len)
{
    return fails_now() ? NULL : __real_strndup(text, len);
}

size_t faults_count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    assert(dir);
    size_t n = 0;
    /* lint: cppcheck/readdirCalled: glibc calls readdir_r, which is wanted, deprecated */
    while (readdir(dir))
        n++;
    closedir(dir);
    return n - 3; /* itself, "." and ".." */
}
