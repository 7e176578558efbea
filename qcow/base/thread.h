/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pthread threads, and mutexes and conditions with clang's thread-safety annotations, so that
 * `-Wthread-safety` refuses code that touches guarded fields without the lock.
 * https://clang.llvm.org/docs/ThreadSafetyAnalysis.html
 */
#pragma once

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#if defined(__clang__)
#define THREAD_ATTR(x) __attribute__((x))
#else
#define THREAD_ATTR(x)
#endif
/* For the reader only: in C, clang 14 cannot name a sibling field in an attribute. */
#define GUARDED_BY(x)
#define REQUIRES(...) THREAD_ATTR(requires_capability(__VA_ARGS__))
#define EXCLUDES(...) THREAD_ATTR(locks_excluded(__VA_ARGS__))
#define ACQUIRE(...) THREAD_ATTR(acquire_capability(__VA_ARGS__))
#define RELEASE(...) THREAD_ATTR(release_capability(__VA_ARGS__))
#define NO_THREAD_SAFETY THREAD_ATTR(no_thread_safety_analysis)

struct THREAD_ATTR(capability("mutex")) mutex {
    pthread_mutex_t m;
};

#define MUTEX_INITIALIZER                                                                          \
    {                                                                                              \
        PTHREAD_MUTEX_INITIALIZER                                                                  \
    }

struct cond {
    pthread_cond_t c; /* on CLOCK_MONOTONIC */
};

static inline void mutex_init(struct mutex *m)
{
    pthread_mutex_init(&m->m, NULL);
}

static inline void mutex_fini(struct mutex *m)
{
    pthread_mutex_destroy(&m->m);
}

static inline void mutex_lock(struct mutex *m) ACQUIRE(*m) NO_THREAD_SAFETY
{
    int r = pthread_mutex_lock(&m->m);
    assert(r == 0);
    (void)r;
}

static inline void mutex_unlock(struct mutex *m) RELEASE(*m) NO_THREAD_SAFETY
{
    int r = pthread_mutex_unlock(&m->m);
    assert(r == 0);
    (void)r;
}

static inline void cond_init(struct cond *c)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&c->c, &attr);
    pthread_condattr_destroy(&attr);
}

static inline void cond_fini(struct cond *c)
{
    pthread_cond_destroy(&c->c);
}

static inline void cond_wake_all(struct cond *c)
{
    pthread_cond_broadcast(&c->c);
}

static inline void cond_wake_one(struct cond *c)
{
    pthread_cond_signal(&c->c);
}

static inline void cond_wait(struct cond *c, struct mutex *m) REQUIRES(*m)
{
    pthread_cond_wait(&c->c, &m->m);
}

/*
 * A thread with all signals blocked: they are for others. But for those of its own faults, which
 * would end the program without a word from a sanitizer. The caller joins it. 0 or negative errno.
 */
static inline int thread_start(void *(*run)(void *ctx), void *ctx, pthread_t *ret_thread)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGSYS, SIGTRAP, SIGABRT};
    sigset_t all, before;
    sigfillset(&all);
    for (size_t i = 0; i < sizeof(faults) / sizeof(*faults); i++)
        sigdelset(&all, faults[i]);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = pthread_create(ret_thread, NULL, run, ctx);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -r;
}

/* The same for a thread that nobody joins. */
static inline int thread_start_detached(void *(*run)(void *ctx), void *ctx)
{
    pthread_t thread;
    int r = thread_start(run, ctx, &thread);
    return r < 0 ? r : -pthread_detach(thread);
}

/* Nanoseconds of CLOCK_MONOTONIC. */
static inline int64_t monotonic_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* Waits until woken or until monotonic_ns() reaches @deadline_ns; false when the time was up. */
static inline bool cond_wait_until(struct cond *c, struct mutex *m, int64_t deadline_ns)
    REQUIRES(*m)
{
    struct timespec ts = {.tv_sec = deadline_ns / 1000000000, .tv_nsec = deadline_ns % 1000000000};
    return pthread_cond_timedwait(&c->c, &m->m, &ts) != ETIMEDOUT;
}
