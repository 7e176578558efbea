/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads that share the work of one call: clusters of one read that are to be inflated. They are
 * started by the first call that has work for them, so that a program that never needs them has
 * none, and one that forks after pool_create() loses none. Any thread.
 */
#pragma once

struct pool;

/* Work @idx of a call; runs on any thread of the pool or on the caller's. */
typedef void pool_job_fn(void *ctx, unsigned idx);

/*
 * @n_threads  that work on one call at the same time, the caller's among them: 1 starts none
 *
 * 0 or -ENOMEM.
 */
int pool_create(unsigned n_threads, struct pool **ret_pool);
void pool_destroy(
    struct pool *pool); /* joins its threads; no call may be under way; NULL is fine */

/*
 * Runs @job for 0 to @n - 1, in any order and several at a time, and returns when all are done.
 * Never fails: what no other thread takes, the caller does, also where threads cannot be started.
 */
void pool_run(struct pool *pool, pool_job_fn *job, void *ctx, unsigned n);
