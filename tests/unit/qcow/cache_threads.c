/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow/cache.c under several threads; meant for ThreadSanitizer too. */
#include "qcow/cache.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/lib/random.h"
#include "tests/unit/qcow/cache_checks.h"

enum { THREADS = 6 };

struct reader {
    pthread_t thread;
    struct qcow_cache *cache;
    struct loading *loading;
    unsigned seed;
    int result;
    struct error err;
    bool is_right;
};

static void *get_one(void *ctx)
{
    struct reader *reader = ctx;
    struct cache_key key = {.file_id = 1, .host_off = 0x10000, .kind = CACHE_L2};
    struct cache_ref ref;
    reader->result = cache_get(reader->cache, &key, LEN, load, reader->loading, &ref, &reader->err);
    if (reader->result == 0) {
        uint8_t expected[LEN];
        image_fill(expected, LEN, reader->loading->seed);
        reader->is_right = !memcmp(ref.data, expected, LEN);
        cache_put(reader->cache, &ref);
    }
    return NULL;
}

/* Readers that all meet in one load, which ends with @result. */
static void meet_in_one_load(struct qcow_cache *cache, int result)
{
    atomic_bool may_go = false;
    struct loading loading = {.seed = 9, .result = result, .why = "no luck", .may_go = &may_go};
    struct reader readers[THREADS] = {0};
    for (int i = 0; i < THREADS; i++) {
        readers[i] = (struct reader){.cache = cache, .loading = &loading};
        pthread_create(&readers[i].thread, NULL, get_one, &readers[i]);
    }
    while (atomic_load(&loading.n_loads) == 0)
        sched_yield();
    /* others may come before or after the load ends; both must be right */
    for (int i = 0; i < 1000; i++)
        sched_yield();
    assert_int_equal(qcow_cache_used(cache), LEN);
    atomic_store(&may_go, true);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(readers[i].thread, NULL);
        assert_int_equal(readers[i].result, result);
        if (result < 0)
            assert_string_equal(readers[i].err.text, "no luck");
        else
            assert_true(readers[i].is_right);
    }
    if (result == 0)
        assert_int_equal(loading.n_loads, 1);
}

static void readers_of_one_thing_share_one_load(void **state)
{
    (void)state;
    struct qcow_cache *cache = new_cache(1 << 20);
    meet_in_one_load(cache, 0);
    assert_int_equal(qcow_cache_used(cache), LEN);
    qcow_cache_destroy(cache);
}

static void readers_of_one_thing_share_its_failure(void **state)
{
    (void)state;
    struct qcow_cache *cache = new_cache(1 << 20);
    for (int i = 0; i < 20; i++) {
        meet_in_one_load(cache, -EBADMSG);
        assert_int_equal(qcow_cache_used(cache), 0);
    }
    qcow_cache_destroy(cache);
}

static void *get_another(void *ctx)
{
    struct qcow_cache *cache = ctx;
    struct cache_key key = {.file_id = 2, .kind = CACHE_L2};
    for (uint64_t i = 0; i < 64; i++) { /* some in each shard */
        key.host_off = i * LEN;
        touch(cache, &key);
    }
    return NULL;
}

static void a_slow_load_keeps_nobody_else_waiting(void **state)
{
    (void)state;
    struct qcow_cache *cache = new_cache(1 << 20);
    atomic_bool may_go = false;
    struct loading loading = {.seed = 9, .may_go = &may_go};
    struct reader slow = {.cache = cache, .loading = &loading};
    pthread_create(&slow.thread, NULL, get_one, &slow);
    while (atomic_load(&loading.n_loads) == 0)
        sched_yield();
    pthread_t other;
    pthread_create(&other, NULL, get_another, cache);
    pthread_join(other, NULL); /* hangs if the load holds a lock */
    atomic_store(&may_go, true);
    pthread_join(slow.thread, NULL);
    assert_true(slow.is_right);
    qcow_cache_destroy(cache);
}

/* Sizes that differ by key, as tables and clusters do. */
static size_t len_of(uint64_t key)
{
    return key % 3 ? 512 : LEN;
}

static int load_or_fail(void *ctx, uint8_t *buf, size_t len, struct error *err)
{
    uint64_t *key = ctx;
    if (*key % 7 == 0)
        return error_set(err, -EIO, "key %d", (int)*key);
    image_fill(buf, len, (uint32_t)*key);
    return 0;
}

static atomic_size_t worst_used;

static void *get_many(void *ctx)
{
    struct reader *reader = ctx;
    unsigned seed = reader->seed;
    reader->is_right = true;
    for (int i = 0; i < 4000; i++) {
        uint64_t n = (uint64_t)random_next(&seed) % 200;
        struct cache_key key = {.file_id = 1 + n % 2, .host_off = n * 4096, .kind = CACHE_L2};
        struct cache_ref ref;
        struct error err = {0};
        int r = cache_get(reader->cache, &key, len_of(n), load_or_fail, &n, &ref, &err);
        if (n % 7 == 0) {
            char text[32];
            snprintf(text, sizeof(text), "key %d", (int)n);
            reader->is_right &= r == -EIO && !strcmp(err.text, text);
            continue;
        }
        uint8_t expected[LEN];
        image_fill(expected, len_of(n), (uint32_t)n);
        reader->is_right &= r == 0 && !memcmp(ref.data, expected, len_of(n));
        size_t used = qcow_cache_used(reader->cache), worst = atomic_load(&worst_used);
        while (used > worst && !atomic_compare_exchange_weak(&worst_used, &worst, used))
            ;
        cache_put(reader->cache, &ref);
    }
    return NULL;
}

static void threads_with_little_room_and_failing_loads_stay_within_the_bound(void **state)
{
    (void)state;
    enum { LIMIT = 16 * LEN };
    struct qcow_cache *cache = new_cache(LIMIT);
    struct reader readers[THREADS];
    atomic_store(&worst_used, 0);
    for (int i = 0; i < THREADS; i++) {
        readers[i] = (struct reader){.cache = cache, .seed = (unsigned)i};
        pthread_create(&readers[i].thread, NULL, get_many, &readers[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(readers[i].thread, NULL);
        if (!readers[i].is_right)
            fail_msg("reader %d got wrong data or a wrong error", i);
    }
    assert_in_range(atomic_load(&worst_used), LEN, LIMIT + THREADS * LEN);
    assert_in_range(qcow_cache_used(cache), 1, LIMIT);
    cache_forget_file(cache, 1);
    cache_forget_file(cache, 2);
    assert_int_equal(qcow_cache_used(cache), 0);
    qcow_cache_destroy(cache);
}

static void *forget_many(void *ctx)
{
    struct qcow_cache *cache = ctx;
    for (uint64_t id = 100; id < 200; id++) {
        struct cache_key key = {.file_id = id, .kind = CACHE_L2};
        for (uint64_t i = 0; i < 20; i++) {
            key.host_off = i * LEN;
            touch(cache, &key);
        }
        cache_forget_file(cache, id);
    }
    return NULL;
}

static void files_come_and_go_beside_readers_of_others(void **state)
{
    (void)state;
    struct qcow_cache *cache = new_cache(64 * LEN);
    struct reader reader = {.cache = cache, .seed = 1};
    pthread_t forgetter;
    pthread_create(&reader.thread, NULL, get_many, &reader);
    pthread_create(&forgetter, NULL, forget_many, cache);
    pthread_join(reader.thread, NULL);
    pthread_join(forgetter, NULL);
    assert_true(reader.is_right);
    cache_forget_file(cache, 1);
    cache_forget_file(cache, 2);
    assert_int_equal(qcow_cache_used(cache), 0);
    qcow_cache_destroy(cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readers_of_one_thing_share_one_load),
        cmocka_unit_test(readers_of_one_thing_share_its_failure),
        cmocka_unit_test(a_slow_load_keeps_nobody_else_waiting),
        cmocka_unit_test(threads_with_little_room_and_failing_loads_stay_within_the_bound),
        cmocka_unit_test(files_come_and_go_beside_readers_of_others),
    };
    return cmocka_run_group_tests_name("qcow/cache: threads", tests, NULL, NULL);
}
