/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The watch of qcow/snapshots.h while the table changes under it as QEMU changes it; meant for
 * ThreadSanitizer too.
 */
#include "qcow/snapshots.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/qcow/snapshot_watch_checks.h"

/* Changes at a chosen moment: before a read of the table's place, or of a table. */

static int n_places; /* reads of the 12 bytes that say where the table is */
static void (*at_place)(int n);

static ssize_t hook_places(int fd, void *buf, size_t len, off_t host_off)
{
    if (host_off == HDR_N_SNAPSHOTS && len == 12)
        at_place(++n_places);
    return faults_real_pread(fd, buf, len, host_off);
}

static void hook(void (*what)(int n))
{
    n_places = 0;
    at_place = what;
    faults_pread = hook_places;
}

static ssize_t delete_after_place(int fd, void *buf, size_t len, off_t host_off)
{
    ssize_t r = faults_real_pread(fd, buf, len, host_off);
    if (host_off == HDR_N_SNAPSHOTS) {
        faults_pread = NULL;
        SET_TABLE(TABLE_B, &other);
        scribble(TABLE_A);
    }
    return r;
}

static void a_deletion_between_place_and_entry_is_seen(void **state)
{
    (void)state;
    faults_pread = delete_after_place;
    expect_gone();
}

static void delete_others_under_check(int n)
{
    if (n == 1)
        SET_TABLE(TABLE_B, &other, &mine, &third);
    if (n == 3) {
        SET_TABLE(TABLE_C, &mine);
        scribble(TABLE_B);
    }
}

static void a_table_that_moves_under_the_search_is_searched_again(void **state)
{
    (void)state;
    hook(delete_others_under_check);
    expect_there();
    faults_pread = NULL;
    expect_there();
}

/* Reads of the header's first bytes begin a look at the table; it moves there and back. */
static int n_headers;

static ssize_t there_and_back(int fd, void *buf, size_t len, off_t host_off)
{
    if (host_off == 0 && ++n_headers == 1)
        SET_TABLE(TABLE_B, &mine);
    if (host_off == HDR_N_SNAPSHOTS && n_headers > 0) {
        faults_pread = NULL;
        SET_TABLE(TABLE_C, &third, &other, &mine);
    }
    return faults_real_pread(fd, buf, len, host_off);
}

static void an_entry_is_remembered_with_the_table_it_was_seen_in(void **state)
{
    (void)state;
    SET_TABLE(TABLE_C, &third, &other, &mine);
    n_headers = 0;
    faults_pread = there_and_back; /* sees it in B, which is C again before and after */
    expect_there();
    /* what lies in B is stale now; a watch that remembers B's entry under C's place is blind */
    SET_TABLE(TABLE_C, &third, &other, &third);
    expect_gone();
}

static ssize_t shrink_after_search(int fd, void *buf, size_t len, off_t host_off)
{
    if (host_off == 0)
        n_headers++;
    if (host_off == HDR_N_SNAPSHOTS && n_headers > 0) {
        faults_pread = NULL;
        image_point_to_snapshots(&fixture.image, TABLE_C, 1);
    }
    return faults_real_pread(fd, buf, len, host_off);
}

static void a_table_that_gets_shorter_under_the_search_is_searched_again(void **state)
{
    (void)state;
    SET_TABLE(TABLE_C, &third, &other, &mine);
    n_headers = 0;
    faults_pread = shrink_after_search; /* the entry's bytes stay, past the end of the table */
    expect_gone();
    expect_gone();
}

static ssize_t cut_off_after_place(int fd, void *buf, size_t len, off_t host_off)
{
    ssize_t r = faults_real_pread(fd, buf, len, host_off);
    if (host_off == HDR_N_SNAPSHOTS) {
        faults_pread = NULL;
        SET_TABLE(TABLE_A, &mine);
        image_truncate(&fixture.image, TABLE_B);
    }
    return r;
}

static void a_table_that_moved_out_of_a_cut_off_tail_is_found(void **state)
{
    (void)state;
    SET_TABLE(TABLE_C, &other, &mine);
    expect_there();
    faults_pread = cut_off_after_place;
    expect_there();
}

static uint8_t torn_byte;

static ssize_t torn_once(int fd, void *buf, size_t len, off_t host_off)
{
    if (host_off != TABLE_C)
        return faults_real_pread(fd, buf, len, host_off);
    /* freed, used for something else, freed, and the table again: all within one look */
    faults_pread = NULL;
    ssize_t r = faults_real_pread(fd, buf, len, host_off);
    memset(buf, torn_byte, len);
    return r;
}

static void a_single_look_at_a_table_in_motion_deletes_nothing(void **state)
{
    (void)state;
    SET_TABLE(TABLE_C, &third, &other, &mine);
    torn_byte = 0xa5; /* no table */
    faults_pread = torn_once;
    expect_there();
    SET_TABLE(TABLE_B, &third, &other, &mine);
    expect_there();
    SET_TABLE(TABLE_C, &other, &mine);
    torn_byte = 0; /* a table of nameless snapshots */
    faults_pread = torn_once;
    expect_there();
}

static void move_always(int n)
{
    if (n % 2)
        SET_TABLE(TABLE_B, &other, &mine);
    else
        SET_TABLE(TABLE_C, &other, &mine);
}

static void a_table_that_never_stands_still_is_eio_not_estale(void **state)
{
    (void)state;
    hook(move_always);
    struct error err = {0};
    assert_int_equal(check(&err), -EIO);
    assert_non_null(strstr(err.text, "snapshot table keeps moving"));
}

/* Threads: readers check while the table is rewritten. */

enum { READERS = 3, REWRITES = 200 };

struct reader {
    pthread_t thread;
    atomic_uint n_checks;
    int wrong; /* an errno that should not have been */
    char text[ERROR_TEXT_MAX];
};

static atomic_bool is_over;
static atomic_bool is_deleted; /* set once the header without it is written */

static void *check_all_the_time(void *ctx)
{
    struct reader *reader = ctx;
    while (!atomic_load(&is_over) && reader->wrong == 0) {
        bool was_deleted = atomic_load(&is_deleted);
        struct error err = {0};
        int r = check(&err);
        if (was_deleted ? r != -ESTALE : r != 0 && !atomic_load(&is_deleted)) {
            reader->wrong = r == 0 ? 1 : r;
            snprintf(reader->text, sizeof(reader->text), "%s", err.text);
        }
        atomic_fetch_add(&reader->n_checks, 1);
        sched_yield();
    }
    atomic_fetch_add(&reader->n_checks, 1000000); /* waits for this one no longer */
    return NULL;
}

/* Until each reader has made at least one whole check from here on. */
static void wait_for_checks(struct reader *readers)
{
    unsigned seen[READERS];
    for (int i = 0; i < READERS; i++)
        seen[i] = atomic_load(&readers[i].n_checks);
    for (int i = 0; i < READERS; i++)
        while (atomic_load(&readers[i].n_checks) < seen[i] + 2)
            sched_yield();
}

static void readers_never_lose_it_and_never_miss_its_deletion(void **state)
{
    (void)state;
    const uint64_t places[] = {TABLE_A, TABLE_B, TABLE_C};
    struct reader readers[READERS] = {0};
    atomic_store(&is_over, false);
    atomic_store(&is_deleted, false);
    for (int i = 0; i < READERS; i++)
        pthread_create(&readers[i].thread, NULL, check_all_the_time, &readers[i]);
    for (unsigned i = 1; i < REWRITES; i++) {
        uint64_t old = places[(i - 1) % 3], now = places[i % 3];
        switch (i % 4) {
        case 0:
            SET_TABLE(now, &other, &mine);
            break;
        case 1:
            SET_TABLE(now, &other, &mine, &third);
            break;
        case 2:
            SET_TABLE(now, &third, &other, &mine);
            break;
        case 3:
            SET_TABLE(now, &mine);
            break;
        }
        scribble(old); /* freed, and something else there at once */
        wait_for_checks(readers);
    }
    SET_TABLE(places[REWRITES % 3], &other, &third);
    atomic_store(&is_deleted, true);
    wait_for_checks(readers);
    atomic_store(&is_over, true);
    for (int i = 0; i < READERS; i++) {
        pthread_join(readers[i].thread, NULL);
        if (readers[i].wrong)
            fail_msg("reader %d: %d (%s)", i, readers[i].wrong, readers[i].text);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_deletion_between_place_and_entry_is_seen),
        TEST(a_table_that_moves_under_the_search_is_searched_again),
        TEST(an_entry_is_remembered_with_the_table_it_was_seen_in),
        TEST(a_table_that_gets_shorter_under_the_search_is_searched_again),
        TEST(a_table_that_moved_out_of_a_cut_off_tail_is_found),
        TEST(a_single_look_at_a_table_in_motion_deletes_nothing),
        TEST(a_table_that_never_stands_still_is_eio_not_estale),
        TEST(readers_never_lose_it_and_never_miss_its_deletion),
    };
    return cmocka_run_group_tests_name("qcow/snapshots: races", tests, NULL, NULL);
}
