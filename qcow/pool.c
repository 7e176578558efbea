/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qcow/pool.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/queue.h>

#include "qcow/base/thread.h"

/* One call of pool_run(), on the caller's stack until all its jobs are done. */
struct batch {
    pool_job_fn *job; /* immutable, as are ctx and n */
    void *ctx;
    unsigned n;
    /* Guarded by the pool's lock: */
    unsigned next, n_done; /* jobs taken, and of these done */
    TAILQ_ENTRY(batch) link;
};

/* lint: cppcheck/unusedStructMember: it does not see what the macros of queue.h use */
TAILQ_HEAD(batches, batch);

struct pool {
    unsigned n_helpers; /* wanted, besides the callers; immutable */

    struct mutex lock;
    struct cond work, done;
    /* Guarded by lock: */
    struct batches batches; /* that have jobs left to take */
    bool is_started, is_stopping;
    unsigned n_threads;
    pthread_t threads[]; /* n_threads of them */
};

int pool_create(unsigned n_threads, struct pool **ret_pool)
{
    unsigned n_helpers = n_threads > 0 ? n_threads - 1 : 0;
    struct pool *pool = calloc(1, sizeof(*pool) + n_helpers * sizeof(pool->threads[0]));
    if (!pool)
        return -ENOMEM;
    pool->n_helpers = n_helpers;
    mutex_init(&pool->lock);
    cond_init(&pool->work);
    cond_init(&pool->done);
    TAILQ_INIT(&pool->batches);
    *ret_pool = pool;
    return 0;
}

void pool_destroy(struct pool *pool)
{
    if (!pool)
        return;
    mutex_lock(&pool->lock);
    assert(TAILQ_EMPTY(&pool->batches));
    pool->is_stopping = true;
    unsigned n_threads = pool->n_threads;
    cond_wake_all(&pool->work);
    mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < n_threads; i++)
        pthread_join(pool->threads[i], NULL);
    cond_fini(&pool->done);
    cond_fini(&pool->work);
    mutex_fini(&pool->lock);
    free(pool);
}

/* Does the next job of @batch, which has one, without the lock. */
static void work_locked(struct pool *pool, struct batch *batch) REQUIRES(pool->lock)
{
    unsigned idx = batch->next++;
    if (batch->next == batch->n)
        TAILQ_REMOVE(&pool->batches, batch, link);
    mutex_unlock(&pool->lock);
    batch->job(batch->ctx, idx);
    mutex_lock(&pool->lock);
    if (++batch->n_done == batch->n)
        cond_wake_all(&pool->done);
}

static void *help(void *arg)
{
    struct pool *pool = arg;
    mutex_lock(&pool->lock);
    while (!pool->is_stopping) {
        if (TAILQ_EMPTY(&pool->batches))
            cond_wait(&pool->work, &pool->lock);
        else
            work_locked(pool, TAILQ_FIRST(&pool->batches));
    }
    mutex_unlock(&pool->lock);
    return NULL;
}

/* As many as the system gives. */
static void start_locked(struct pool *pool) REQUIRES(pool->lock)
{
    pool->is_started = true;
    while (pool->n_threads < pool->n_helpers &&
           thread_start(help, pool, &pool->threads[pool->n_threads]) == 0)
        pool->n_threads++;
}

static void run_shared(struct pool *pool, struct batch *batch)
{
    mutex_lock(&pool->lock);
    if (!pool->is_started)
        start_locked(pool);
    TAILQ_INSERT_TAIL(&pool->batches, batch, link);
    /* One each: where many readers come, waking all of a large pool every time would cost more
     * than it helps. */
    for (unsigned i = 1; i < batch->n && i <= pool->n_threads; i++)
        cond_wake_one(&pool->work);
    while (batch->next < batch->n)
        work_locked(pool, batch);
    while (batch->n_done < batch->n)
        cond_wait(&pool->done, &pool->lock);
    mutex_unlock(&pool->lock);
}

void pool_run(struct pool *pool, pool_job_fn *job, void *ctx, unsigned n)
{
    if (n > 1 && pool->n_helpers > 0) {
        struct batch batch = {.job = job, .ctx = ctx, .n = n};
        run_shared(pool, &batch);
        return;
    }
    for (unsigned i = 0; i < n; i++)
        job(ctx, i);
}
