/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * For LD_PRELOAD: lets allocations and new threads of the program fail, and moves its clock, while
 * it runs. What is to happen stands in a file of 64-bit numbers that the test writes to at any time
 * (FAULTY_FILE; tests/lib/faulty.py):
 *
 *   [0] allocations that still succeed; then one fails. Negative: none fails.
 *   [1] allocations that failed
 *   [2] all allocations
 *   [3] new threads that still succeed; then all fail. Negative: none fails.
 *   [4] threads that could not be started
 *   [5] seconds by which the clock of the day is ahead
 *   [6] not 0: from the failing allocation on, all of FAULTY_LEN_MIN bytes and more fail
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { N_FIELDS = 8, EARLY_ROOM = 1 << 16 };

struct control {
    _Atomic int64_t until_alloc_fails, n_failed_allocs, n_allocs;
    _Atomic int64_t until_thread_fails, n_failed_threads;
    _Atomic int64_t clock_ahead_s;
    _Atomic int64_t stays_failing;
    _Atomic int64_t unused;
};
_Static_assert(sizeof(struct control) == N_FIELDS * sizeof(int64_t), "as faulty.py writes it");

static struct control nothing = {.until_alloc_fails = -1, .until_thread_fails = -1};
static struct control *control = &nothing;

/* Before the real functions are found: dlsym() itself may allocate. Never freed. */
static alignas(16) char early[EARLY_ROOM];
static atomic_size_t early_used;

static void *(*real_malloc)(size_t);
static void *(*real_calloc)(size_t, size_t);
static void *(*real_realloc)(void *, size_t);
static void *(*real_reallocarray)(void *, size_t, size_t);
static void *(*real_aligned_alloc)(size_t, size_t);
static int (*real_posix_memalign)(void **, size_t, size_t);
static void (*real_free)(void *);

static void *find_real(const char *name)
{
    void *real = dlsym(RTLD_NEXT, name);
    if (!real)
        abort();
    return real;
}

/* False while the functions are looked for, by this thread: dlsym() calls for memory itself. */
static bool is_ready(void)
{
    static bool is_done, is_under_way;
    if (is_done || is_under_way)
        return is_done;
    is_under_way = true; /* there is no second thread as early as this */
    real_free = find_real("free");
    real_calloc = find_real("calloc");
    real_realloc = find_real("realloc");
    real_reallocarray = find_real("reallocarray");
    real_aligned_alloc = find_real("aligned_alloc");
    real_posix_memalign = find_real("posix_memalign");
    real_malloc = find_real("malloc");
    is_done = true;
    return true;
}

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("FAULTY_FILE");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *map = mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map != MAP_FAILED)
        control = map;
}

static void *early_alloc(size_t len)
{
    size_t at = atomic_fetch_add(&early_used, (len + 15) / 16 * 16);
    if (at + len > EARLY_ROOM)
        abort();
    return early + at;
}

static bool is_early(const void *p)
{
    return (uintptr_t)p - (uintptr_t)early < EARLY_ROOM;
}

/* What is left is counted down only while there is something, so that it never wraps around. */
static bool is_turn(_Atomic int64_t *left)
{
    int64_t seen = atomic_load(left);
    while (seen >= 0)
        if (atomic_compare_exchange_weak(left, &seen, seen - 1))
            return seen == 0;
    return false;
}

/* The address sanitizer gives up when it cannot find out where a new thread's stack lies. */
static __thread int exempt __attribute__((tls_model("initial-exec")));

static bool alloc_fails(void)
{
    if (exempt)
        return false;
    atomic_fetch_add(&control->n_allocs, 1);
    if (!is_turn(&control->until_alloc_fails))
        return false;
    if (atomic_load(&control->stays_failing))
        atomic_store(&control->until_alloc_fails, 0);
    atomic_fetch_add(&control->n_failed_allocs, 1);
    errno = ENOMEM;
    return true;
}

void *malloc(size_t len)
{
    if (!is_ready())
        return early_alloc(len);
    return alloc_fails() ? NULL : real_malloc(len);
}

/*
 * libfuse has no memory for a request: it answers ENOMEM by itself. If that was the one that tells
 * of a close, nobody ever hears of it (docs/SECURITY.md, known gaps), and all that follows would
 * fail.
 */
static bool is_of_libfuse(const void *caller)
{
    Dl_info info;
    return atomic_load(&control->until_alloc_fails) == 0 && dladdr(caller, &info) != 0 &&
           strstr(info.dli_fname, "/libfuse3.so") != NULL;
}

void *calloc(size_t n, size_t len)
{
    if (!is_ready())
        return early_alloc(n * len); /* fresh, hence zeroed */
    if (is_of_libfuse(__builtin_return_address(0)))
        return real_calloc(n, len);
    return alloc_fails() ? NULL : real_calloc(n, len);
}

void *realloc(void *old, size_t len)
{
    if (!is_ready() || is_early(old)) {
        void *moved = malloc(len);
        size_t known = old ? (size_t)(early + EARLY_ROOM - (char *)old) : 0;
        if (moved && known)
            memcpy(moved, old, len < known ? len : known);
        return moved;
    }
    return alloc_fails() ? NULL : real_realloc(old, len);
}

void *reallocarray(void *old, size_t n, size_t len)
{
    if (!is_ready() || is_early(old))
        return realloc(old, n * len);
    return alloc_fails() ? NULL : real_reallocarray(old, n, len);
}

void *aligned_alloc(size_t alignment, size_t len)
{
    if (!is_ready())
        return early_alloc(len);
    return alloc_fails() ? NULL : real_aligned_alloc(alignment, len);
}

int posix_memalign(void **ret, size_t alignment, size_t len)
{
    if (!is_ready())
        return (*ret = early_alloc(len)) ? 0 : ENOMEM;
    return alloc_fails() ? ENOMEM : real_posix_memalign(ret, alignment, len);
}

void free(void *p)
{
    if (p && !is_early(p) && is_ready())
        real_free(p);
}

/* Within libc these call an allocator that no preload sees. */
char *strdup(const char *text)
{
    return strndup(text, strlen(text));
}

char *strndup(const char *text, size_t len)
{
    size_t used = strnlen(text, len);
    char *copy = malloc(used + 1);
    if (!copy)
        return NULL;
    copy[used] = '\0';
    return memcpy(copy, text, used);
}

int pthread_getattr_np(pthread_t thread, pthread_attr_t *attr)
{
    int (*real)(pthread_t, pthread_attr_t *) = find_real("pthread_getattr_np");
    exempt++;
    int r = real(thread, attr);
    exempt--;
    return r;
}

int pthread_create(pthread_t *restrict thread, const pthread_attr_t *restrict attr,
                   void *(*run)(void *), void *restrict arg)
{
    if (is_turn(&control->until_thread_fails)) {
        atomic_store(&control->until_thread_fails, 0);
        atomic_fetch_add(&control->n_failed_threads, 1);
        return EAGAIN;
    }
    int (*real)(pthread_t *restrict, const pthread_attr_t *restrict, void *(*)(void *),
                void *restrict) = find_real("pthread_create");
    return real(thread, attr, run, arg);
}

int clock_gettime(clockid_t clock, struct timespec *ts)
{
    int (*real)(clockid_t, struct timespec *) = find_real("clock_gettime");
    int r = real(clock, ts);
    if (r == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        ts->tv_sec += atomic_load(&control->clock_ahead_s);
    return r;
}

time_t time(time_t *ret_time)
{
    struct timespec ts = {0};
    clock_gettime(CLOCK_REALTIME, &ts);
    if (ret_time)
        *ret_time = ts.tv_sec;
    return ts.tv_sec;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
    struct timespec ts = {0};
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &ts);
    *tv = (struct timeval){.tv_sec = ts.tv_sec, .tv_usec = ts.tv_nsec / 1000};
    return 0;
}
