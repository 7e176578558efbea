/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/mailbox.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>

#include "qcow/base/thread.h"

static int64_t soon(void)
{
    return monotonic_ns() + 20 * 1000000;
}

static int64_t late(void)
{
    return monotonic_ns() + INT64_C(60) * 1000000000;
}

static void delivers_in_order_and_each_once(void **state)
{
    (void)state;
    char id[MAIL_ID_SIZE];
    struct mailbox *box = mailbox_create();
    mailbox_post_changed(box, "a");
    mailbox_post_announce(box, "a");
    mailbox_post_changed(box, "b");
    mailbox_post_changed(box, "a");
    assert_int_equal(mailbox_take(box, late(), id), MAIL_CHANGED);
    assert_string_equal(id, "a");
    assert_int_equal(mailbox_take(box, late(), id), MAIL_ANNOUNCE);
    assert_string_equal(id, "a");
    assert_int_equal(mailbox_take(box, late(), id), MAIL_CHANGED);
    assert_string_equal(id, "b");
    assert_int_equal(mailbox_take(box, soon(), id), MAIL_NONE);
    mailbox_unref(box);
}

static void a_lost_connection_goes_first(void **state)
{
    (void)state;
    char id[MAIL_ID_SIZE];
    struct mailbox *box = mailbox_create();
    mailbox_post_changed(box, "a");
    mailbox_post_lost(box);
    assert_int_equal(mailbox_take(box, late(), id), MAIL_LOST);
    assert_int_equal(mailbox_take(box, late(), id), MAIL_CHANGED);
    mailbox_unref(box);
}

static void too_much_at_once_asks_for_all(void **state)
{
    (void)state;
    char id[MAIL_ID_SIZE];
    struct mailbox *box = mailbox_create();
    for (int i = 0; i < 5000; i++) {
        snprintf(id, sizeof(id), "%d", i);
        mailbox_post_changed(box, id);
    }
    mailbox_post_announce(box, "kept");
    assert_int_equal(mailbox_take(box, late(), id), MAIL_RESYNC);
    enum mail mail;
    size_t n_announced = 0;
    while ((mail = mailbox_take(box, soon(), id)) != MAIL_NONE)
        n_announced += mail == MAIL_ANNOUNCE;
    assert_int_equal(n_announced, 1);
    mailbox_unref(box);
}

static void *stop_box(void *box)
{
    mailbox_stop(box);
    return NULL;
}

static void stopping_ends_every_wait(void **state)
{
    (void)state;
    char id[MAIL_ID_SIZE];
    struct mailbox *box = mailbox_create();
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, stop_box, box), 0);
    assert_false(mailbox_sleep(box, late()));
    assert_int_equal(pthread_join(thread, NULL), 0);
    mailbox_post_changed(box, "a");
    assert_int_equal(mailbox_take(box, late(), id), MAIL_STOP);
    assert_false(mailbox_wait_job(box, mailbox_job_count(box), late()));
    assert_true(mailbox_is_stopped(box));
    mailbox_unref(box);
}

static void *post_job(void *box)
{
    mailbox_post_job(box);
    return NULL;
}

static void a_job_wakes_who_waits_for_it(void **state)
{
    (void)state;
    struct mailbox *box = mailbox_create();
    uint64_t seen = mailbox_job_count(box);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, post_job, box), 0);
    assert_true(mailbox_wait_job(box, seen, late()));
    assert_int_equal(mailbox_job_count(box), seen + 1);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(mailbox_wait_job(box, seen + 1, soon()));
    mailbox_unref(box);
}

static void a_callback_may_outlive_the_owner(void **state)
{
    (void)state;
    struct mailbox *box = mailbox_create();
    struct mailbox *other = mailbox_ref(box);
    mailbox_unref(box);
    mailbox_post_lost(other);
    mailbox_unref(other);
    mailbox_unref(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(delivers_in_order_and_each_once),
        cmocka_unit_test(a_lost_connection_goes_first),
        cmocka_unit_test(too_much_at_once_asks_for_all),
        cmocka_unit_test(stopping_ends_every_wait),
        cmocka_unit_test(a_job_wakes_who_waits_for_it),
        cmocka_unit_test(a_callback_may_outlive_the_owner),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
