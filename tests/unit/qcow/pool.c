/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow/pool.c; meant for ThreadSanitizer too. */
#include "qcow/pool.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "qcow/base/thread.h"

enum { JOBS = 200, CALLERS = 5, CALLS = 50 };

struct work {
    atomic_int times[JOBS];
    int results[JOBS]; /* not atomic: pool_run() has to order them before its return */
};

static void do_one(void *ctx, unsigned idx)
{
    struct work *work = ctx;
    atomic_fetch_add(&work->times[idx], 1);
    work->results[idx] = (int)idx + 1;
}

static void check_once_each(struct pool *pool, unsigned n)
{
    struct work work = {0};
    pool_run(pool, do_one, &work, n);
    for (unsigned i = 0; i < JOBS; i++) {
        assert_int_equal(atomic_load(&work.times[i]), i < n);
        assert_int_equal(work.results[i], i < n ? i + 1 : 0);
    }
}

static void each_job_is_done_once(void **state)
{
    (void)state;
    const unsigned n_threads[] = {0, 1, 2, 7};
    for (size_t i = 0; i < sizeof(n_threads) / sizeof(n_threads[0]); i++) {
        struct pool *pool;
        assert_int_equal(pool_create(n_threads[i], &pool), 0);
        for (unsigned n = 0; n <= JOBS; n += n < 5 ? 1 : 39)
            check_once_each(pool, n);
        pool_destroy(pool);
    }
}

static void *call_often(void *ctx)
{
    for (unsigned i = 0; i < CALLS; i++)
        check_once_each(ctx, JOBS - i);
    return NULL;
}

static void several_may_call(void **state)
{
    (void)state;
    struct pool *pool;
    pthread_t callers[CALLERS];
    assert_int_equal(pool_create(3, &pool), 0);
    for (int i = 0; i < CALLERS; i++)
        assert_int_equal(pthread_create(&callers[i], NULL, call_often, pool), 0);
    for (int i = 0; i < CALLERS; i++)
        pthread_join(callers[i], NULL);
    pool_destroy(pool);
}

/* Two jobs that end only when both have begun. */
struct meeting {
    struct mutex lock;
    struct cond changed;
    unsigned n_there GUARDED_BY(lock);
};

static void meet(void *ctx, unsigned idx)
{
    (void)idx;
    struct meeting *meeting = ctx;
    mutex_lock(&meeting->lock);
    meeting->n_there++;
    cond_wake_all(&meeting->changed);
    while (meeting->n_there < 2)
        cond_wait(&meeting->changed, &meeting->lock);
    mutex_unlock(&meeting->lock);
}

static void jobs_run_at_the_same_time(void **state)
{
    (void)state;
    struct pool *pool;
    struct meeting meeting = {.n_there = 0};
    mutex_init(&meeting.lock);
    cond_init(&meeting.changed);
    assert_int_equal(pool_create(2, &pool), 0);
    pool_run(pool, meet, &meeting, 2);
    assert_int_equal(meeting.n_there, 2);
    pool_destroy(pool);
    cond_fini(&meeting.changed);
    mutex_fini(&meeting.lock);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_job_is_done_once),
        cmocka_unit_test(several_may_call),
        cmocka_unit_test(jobs_run_at_the_same_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
