/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the programs that test qcow/cache.c share. */
#pragma once

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "qcow/cache.h"
#include "tests/lib/image.h"

enum { LEN = 4096 };

/* What a load is to do, and what came of it. Shared by threads. */
struct loading {
    uint32_t seed;
    int result;
    const char *why;
    atomic_int n_loads;
    atomic_bool *may_go; /* NULL: at once */
};

static inline int load(void *ctx, uint8_t *buf, size_t len, struct error *err)
{
    struct loading *loading = ctx;
    atomic_fetch_add(&loading->n_loads, 1);
    while (loading->may_go && !atomic_load(loading->may_go))
        sched_yield();
    if (loading->result < 0)
        return error_set(err, loading->result, "%s", loading->why);
    image_fill(buf, len, loading->seed);
    return 0;
}

static inline void expect_content(const struct cache_ref *ref, size_t len, uint32_t seed)
{
    uint8_t expected[LEN];
    image_fill(expected, len, seed);
    assert_memory_equal(ref->data, expected, len);
}

static inline struct qcow_cache *new_cache(size_t limit)
{
    struct qcow_cache *cache;
    assert_int_equal(qcow_cache_create(limit, &cache, NULL), 0);
    return cache;
}

/* Gets and lets go; whether it had to be loaded. */
static inline bool touch(struct qcow_cache *cache, const struct cache_key *key)
{
    struct loading loading = {.seed = (uint32_t)key->host_off};
    struct cache_ref ref;
    assert_int_equal(cache_get(cache, key, LEN, load, &loading, &ref, NULL), 0);
    expect_content(&ref, LEN, (uint32_t)key->host_off);
    cache_put(cache, &ref);
    assert_null(ref.data);
    return loading.n_loads > 0;
}
