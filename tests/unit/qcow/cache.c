/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qcow/cache.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/qcow/cache_checks.h"
#include "tests/unit/qcow/faults.h"

static void loads_once_and_then_remembers(void **state)
{
    (void)state;
    struct qcow_cache *cache = new_cache(1 << 20);
    struct cache_key key = {.file_id = 1, .host_off = 0x10000, .kind = CACHE_L2};
    assert_true(touch(cache, &key));
    assert_false(touch(cache, &key));
    assert_int_equal(qcow_cache_used(cache), LEN);
    qcow_cache_destroy(cache);
}

static void every_part_of_a_key_counts(void **state)
{
    (void)state;
    struct qcow_cache *cache = new_cache(1 << 20);
    struct cache_key key = {.file_id = 1, .host_off = 0x10000, .kind = CACHE_L2};
    assert_true(touch(cache, &key));
    key.file_id = 2;
    assert_true(touch(cache, &key));
    key.kind = CACHE_INFLATED;
    assert_true(touch(cache, &key));
    key.host_off = 0x20000;
    assert_true(touch(cache, &key));
    assert_int_equal(qcow_cache_used(cache), 4 * LEN);
    qcow_cache_destroy(cache);
}

static void keys_that_share_a_bucket_stay_apart(void **state)
{
    (void)state;
    /* far more keys than buckets */
    struct qcow_cache *cache = new_cache((size_t)1 << 30);
    struct cache_key key = {.file_id = 1, .kind = CACHE_L2};
    enum { KEYS = 40000 };
    for (uint64_t i = 0; i < KEYS; i++) {
        struct loading loading = {.seed = (uint32_t)i};
        struct cache_ref ref;
        key.host_off = i * 512;
        assert_int_equal(cache_get(cache, &key, 16, load, &loading, &ref, NULL), 0);
        cache_put(cache, &ref);
    }
    for (uint64_t i = 0; i < KEYS; i++) {
        struct loading loading = {.seed = 0};
        struct cache_ref ref;
        key.host_off = i * 512;
        assert_int_equal(cache_get(cache, &key, 16, load, &loading, &ref, NULL), 0);
        assert_int_equal(loading.n_loads, 0);
        expect_content(&ref, 16, (uint32_t)i);
        cache_put(cache, &ref);
    }
    cache_forget_file(cache, 1);
    assert_int_equal(qcow_cache_used(cache), 0);
    qcow_cache_destroy(cache);
}

static void keys_that_share_a_bucket_and_most_of_a_key_stay_apart(void **state)
{
    (void)state;
    struct qcow_cache *cache = new_cache(1 << 20);
    /* so many that some pairs of them share a bucket */
    for (uint64_t i = 0; i < 100000; i++) {
        const struct cache_key keys[] = {
            {1, i * 512, CACHE_L2}, {1, i * 512, CACHE_INFLATED}, {2, i * 512, CACHE_L2}};
        for (uint32_t k = 0; k < 3; k++) {
            struct loading loading = {.seed = k};
            struct cache_ref ref;
            assert_int_equal(cache_get(cache, &keys[k], 16, load, &loading, &ref, NULL), 0);
            expect_content(&ref, 16, k);
            cache_put(cache, &ref);
        }
    }
    qcow_cache_destroy(cache);
}

static void never_keeps_more_than_the_limit(void **state)
{
    (void)state;
    enum { LIMIT = 64 * LEN };
    struct qcow_cache *cache = new_cache(LIMIT);
    struct cache_key key = {.file_id = 1, .kind = CACHE_L2};
    for (uint64_t i = 0; i < 1000; i++) {
        key.host_off = i * LEN;
        touch(cache, &key);
        assert_in_range(qcow_cache_used(cache), LEN, LIMIT);
    }
    assert_in_range(qcow_cache_used(cache), LIMIT / 2, LIMIT);
    qcow_cache_destroy(cache);
}

static size_t used_while_loading;

static int load_and_look(void *ctx, uint8_t *buf, size_t len, struct error *err)
{
    (void)err;
    memset(buf, 1, len);
    used_while_loading = qcow_cache_used(ctx);
    return 0;
}

static void makes_room_before_it_loads(void **state)
{
    (void)state;
    enum { LIMIT = 16 * LEN };
    struct qcow_cache *cache = new_cache(LIMIT);
    struct cache_key key = {.file_id = 1, .kind = CACHE_L2};
    for (uint64_t i = 0; i < 500; i++) {
        struct cache_ref ref;
        key.host_off = i * LEN;
        assert_int_equal(cache_get(cache, &key, LEN, load_and_look, cache, &ref, NULL), 0);
        cache_put(cache, &ref);
        assert_in_range(used_while_loading, LEN, LIMIT);
    }
    qcow_cache_destroy(cache);
}

static void makes_what_room_it_can_for_what_exceeds_the_limit(void **state)
{
    (void)state;
    /* 16 shards with room for one small entry each, and for no large one */
    struct qcow_cache *cache = new_cache(16 * 1000);
    struct cache_key key = {.file_id = 1, .kind = CACHE_L2};
    struct cache_ref ref;
    for (uint64_t i = 0; i < 1000; i++) {
        key.host_off = i * 512;
        assert_int_equal(cache_get(cache, &key, 512, load_and_look, cache, &ref, NULL), 0);
        cache_put(cache, &ref);
    }
    assert_int_equal(qcow_cache_used(cache), 16 * 512);
    key.kind = CACHE_INFLATED;
    assert_int_equal(cache_get(cache, &key, LEN, load_and_look, cache, &ref, NULL), 0);
    cache_put(cache, &ref);
    assert_int_equal(used_while_loading, 15 * 512 + LEN);
    assert_int_equal(qcow_cache_used(cache), 15 * 512);
    qcow_cache_destroy(cache);
}

static void a_limit_below_one_entry_keeps_nothing(void **state)
{
    (void)state;
    struct qcow_cache *cache = new_cache(0);
    struct cache_key key = {.file_id = 1, .host_off = 0x10000, .kind = CACHE_L2};
    assert_true(touch(cache, &key));
    assert_int_equal(qcow_cache_used(cache), 0);
    assert_true(touch(cache, &key));
    qcow_cache_destroy(cache);
}

static void drops_what_was_unused_longest(void **state)
{
    (void)state;
    /* the one that is asked for all the time stays */
    struct qcow_cache *cache = new_cache(64 * LEN);
    struct cache_key dear = {.file_id = 1, .host_off = 0, .kind = CACHE_L2};
    touch(cache, &dear);
    struct cache_key key = {.file_id = 2, .kind = CACHE_L2};
    for (uint64_t i = 0; i < 1000; i++) {
        key.host_off = i * LEN;
        touch(cache, &key);
        assert_false(touch(cache, &dear));
    }
    /* and once it is not, it goes */
    for (uint64_t i = 0; i < 1000; i++) {
        key.host_off = i * LEN;
        touch(cache, &key);
    }
    assert_true(touch(cache, &dear));
    qcow_cache_destroy(cache);
}

static void what_is_pinned_stays_as_it_is(void **state)
{
    (void)state;
    struct qcow_cache *cache = new_cache(0);
    struct cache_key key = {.file_id = 1, .host_off = 0x10000, .kind = CACHE_L2};
    struct loading loading = {.seed = 7};
    struct cache_ref first, second;
    assert_int_equal(cache_get(cache, &key, LEN, load, &loading, &first, NULL), 0);
    struct cache_key other = {.file_id = 1, .kind = CACHE_INFLATED};
    for (uint64_t i = 0; i < 200; i++) {
        other.host_off = i * LEN;
        touch(cache, &other);
    }
    assert_int_equal(cache_get(cache, &key, LEN, load, &loading, &second, NULL), 0);
    assert_int_equal(loading.n_loads, 1);
    assert_ptr_equal(first.data, second.data);
    cache_put(cache, &first);
    expect_content(&second, LEN, 7);
    assert_int_equal(qcow_cache_used(cache), LEN);
    cache_put(cache, &second);
    assert_int_equal(qcow_cache_used(cache), 0);
    qcow_cache_destroy(cache);
}

static void a_failed_load_says_why_and_leaves_nothing_behind(void **state)
{
    (void)state;
    struct qcow_cache *cache = new_cache(1 << 20);
    struct cache_key key = {.file_id = 1, .host_off = 0x10000, .kind = CACHE_L2};
    struct loading loading = {.result = -EIO, .why = "the disk is on fire"};
    struct cache_ref ref;
    struct error err = {0};
    assert_int_equal(cache_get(cache, &key, LEN, load, &loading, &ref, &err), -EIO);
    assert_int_equal(err.code, -EIO);
    assert_string_equal(err.text, "the disk is on fire");
    assert_int_equal(qcow_cache_used(cache), 0);
    assert_true(touch(cache, &key)); /* and is tried again */
    qcow_cache_destroy(cache);
}

static void forgets_a_file_and_no_other(void **state)
{
    (void)state;
    struct qcow_cache *cache = new_cache(1 << 20);
    struct cache_key mine = {.file_id = 1, .kind = CACHE_L2};
    struct cache_key other = {.file_id = 2, .kind = CACHE_L2};
    for (uint64_t i = 0; i < 50; i++) {
        mine.host_off = other.host_off = i * LEN;
        touch(cache, &mine);
        touch(cache, &other);
    }
    cache_forget_file(cache, 1);
    assert_int_equal(qcow_cache_used(cache), 50 * LEN);
    for (uint64_t i = 0; i < 50; i++) {
        mine.host_off = other.host_off = i * LEN;
        assert_true(touch(cache, &mine));
        assert_false(touch(cache, &other));
    }
    qcow_cache_destroy(cache);
}

static void file_ids_are_never_given_twice(void **state)
{
    (void)state;
    struct qcow_cache *cache = new_cache(0);
    uint64_t last = 0; /* which no file has */
    for (int i = 0; i < 100; i++) {
        uint64_t id = cache_new_file_id(cache);
        assert_true(id > last);
        last = id;
    }
    qcow_cache_destroy(cache);
}

static void each_failed_allocation_is_enomem(void **state)
{
    (void)state;
    struct qcow_cache *cache;
    struct error err = {0};
    faults_fail_allocation(0);
    int r = qcow_cache_create(0, &cache, &err);
    assert_int_equal(r, -ENOMEM);
    faults_fail_allocation(-1);
    cache = new_cache(1 << 20);
    struct cache_key key = {.file_id = 1, .host_off = 0x10000, .kind = CACHE_L2};
    struct loading loading = {.seed = 1};
    struct cache_ref ref;
    faults_fail_allocation(0);
    r = cache_get(cache, &key, LEN, load, &loading, &ref, &err);
    faults_fail_allocation(-1);
    assert_int_equal(r, -ENOMEM);
    assert_int_equal(loading.n_loads, 0);
    assert_int_equal(qcow_cache_used(cache), 0);
    qcow_cache_destroy(cache);
    qcow_cache_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loads_once_and_then_remembers),
        cmocka_unit_test(every_part_of_a_key_counts),
        cmocka_unit_test(keys_that_share_a_bucket_stay_apart),
        cmocka_unit_test(keys_that_share_a_bucket_and_most_of_a_key_stay_apart),
        cmocka_unit_test(never_keeps_more_than_the_limit),
        cmocka_unit_test(makes_room_before_it_loads),
        cmocka_unit_test(makes_what_room_it_can_for_what_exceeds_the_limit),
        cmocka_unit_test(a_limit_below_one_entry_keeps_nothing),
        cmocka_unit_test(drops_what_was_unused_longest),
        cmocka_unit_test(what_is_pinned_stays_as_it_is),
        cmocka_unit_test(a_failed_load_says_why_and_leaves_nothing_behind),
        cmocka_unit_test(forgets_a_file_and_no_other),
        cmocka_unit_test(file_ids_are_never_given_twice),
        cmocka_unit_test(each_failed_allocation_is_enomem),
    };
    return cmocka_run_group_tests_name("qcow/cache", tests, NULL, NULL);
}
