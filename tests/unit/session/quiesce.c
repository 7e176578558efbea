/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/session/quiesce.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "qcow/base/thread.h"

#include "tests/unit/session/quiesce_fixture.h"

static void freezes_for_the_moment_only(void **state)
{
    (void)state;
    struct guest guest;
    guest_init(&guest);
    struct quiesce *quiesce = create(&guest, QUIESCE_TRY);
    assert_int_equal(begin(&guest, quiesce), 0);
    assert_true(guest.was_noted_before_freeze);
    assert_true(is_frozen(&guest));
    assert_true(guest.change.is_frozen);
    assert_int_equal(end(&guest, quiesce), 0);
    assert_false(is_frozen(&guest));
    assert_false(guest.change.is_frozen);
    assert_false(guest.is_noted);
    assert_int_equal(guest.n_notes, 2);
    check_outcome(quiesce, "filesystem", NULL);
    quiesce_free(quiesce);
    assert_int_equal(guest.n_freezes, 1);
    assert_int_equal(guest.n_thaws, 1);
    guest_fini(&guest);
}

static void leaves_a_guest_alone_that_is_not_to_be_frozen(void **state)
{
    (void)state;
    struct guest guest;
    guest_init(&guest);
    struct quiesce *quiesce = create(&guest, QUIESCE_NEVER);
    assert_int_equal(begin(&guest, quiesce), 0);
    assert_int_equal(end(&guest, quiesce), 0);
    check_outcome(quiesce, "crash", NULL);
    quiesce_free(quiesce);
    assert_int_equal(guest.n_freezes + guest.n_thaws + guest.n_notes, 0);
    guest_fini(&guest);
}

static void needs_nothing_of_a_guest_that_is_off(void **state)
{
    (void)state;
    struct guest guest;
    guest_init(&guest);
    guest.domain->state = DOMAIN_SHUTOFF;
    struct quiesce *quiesce = create(&guest, QUIESCE_REQUIRE);
    assert_int_equal(begin(&guest, quiesce), 0);
    assert_int_equal(end(&guest, quiesce), 0);
    assert_null(quiesce_reason(quiesce));
    quiesce_free(quiesce);
    assert_int_equal(guest.n_freezes + guest.n_thaws + guest.n_notes, 0);
    guest_fini(&guest);
}

static void check_unasked(struct guest *guest, int code, const char *reason)
{
    struct quiesce *quiesce = create(guest, QUIESCE_TRY);
    assert_int_equal(begin(guest, quiesce), 0);
    assert_int_equal(end(guest, quiesce), 0);
    check_outcome(quiesce, "crash", reason);
    quiesce_free(quiesce);
    quiesce = create(guest, QUIESCE_REQUIRE);
    assert_int_equal(begin(guest, quiesce), code);
    assert_non_null(strstr(guest->err.text, reason));
    assert_int_equal(end(guest, quiesce), 0);
    quiesce_free(quiesce);
    assert_int_equal(guest->n_freezes + guest->n_thaws + guest->n_notes, 0);
}

static void does_not_ask_who_cannot_answer(void **state)
{
    (void)state;
    struct guest guest;
    guest_init(&guest);
    guest.domain->state = DOMAIN_PAUSED;
    check_unasked(&guest, -EOPNOTSUPP, "'web' is paused");
    guest.domain->state = DOMAIN_RUNNING;
    guest.host.ops = &plain_ops;
    check_unasked(&guest, -EOPNOTSUPP, "no guest agents");
    domain_unref(guest.domain);
    guest.domain = NULL;
    guest.host.ops = &guest_ops;
    check_unasked(&guest, -ESTALE, "gone");
    guest_fini(&guest);
}

static void does_not_thaw_what_was_refused(void **state)
{
    (void)state;
    struct guest guest;
    guest_init(&guest);
    guest.freeze_result = -EIO;
    struct quiesce *quiesce = create(&guest, QUIESCE_TRY);
    assert_int_equal(begin(&guest, quiesce), 0);
    assert_false(guest.change.is_frozen);
    assert_int_equal(guest.n_notes, 2);
    assert_int_equal(end(&guest, quiesce), 0);
    check_outcome(quiesce, "crash", "the agent said");
    quiesce_free(quiesce);
    quiesce = create(&guest, QUIESCE_REQUIRE);
    assert_int_equal(begin(&guest, quiesce), -EIO);
    assert_int_equal(end(&guest, quiesce), 0);
    quiesce_free(quiesce);
    assert_int_equal(guest.n_thaws, 0);
    guest_fini(&guest);
}

static void gives_a_moment_up_that_cannot_be_noted(void **state)
{
    (void)state;
    struct guest guest;
    guest_init(&guest);
    guest.note_result = -ENOSPC;
    struct quiesce *quiesce = create(&guest, QUIESCE_TRY);
    assert_int_equal(begin(&guest, quiesce), -ENOSPC);
    assert_false(guest.change.is_frozen);
    quiesce_free(quiesce);
    assert_int_equal(guest.n_freezes, 0);
    guest_fini(&guest);
}

static void thaws_until_an_agent_that_hung_says_so(void **state)
{
    (void)state;
    struct guest guest;
    guest_init(&guest);
    guest.freeze_result = -EINPROGRESS;
    guest.thaw_result = -ETIMEDOUT;
    struct quiesce *quiesce = create(&guest, QUIESCE_TRY);
    assert_int_equal(begin(&guest, quiesce), 0);
    assert_int_equal(end(&guest, quiesce), 0);
    check_outcome(quiesce, "crash", "the agent said");
    await_thaws(&guest, 4);
    assert_int_equal(settle(&guest, quiesce, 1), -ETIMEDOUT);
    assert_true(guest.change.is_frozen);
    assert_true(guest.is_noted);
    set_thaw(&guest, 0, false);
    assert_int_equal(settle(&guest, quiesce, PLENTY_MS), 0);
    assert_false(is_frozen(&guest));
    assert_false(guest.change.is_frozen);
    assert_false(guest.is_noted);
    quiesce_free(quiesce);
    guest_fini(&guest);
}

static void refuses_a_hung_agent_where_it_is_required(void **state)
{
    (void)state;
    struct guest guest;
    guest_init(&guest);
    guest.freeze_result = -EINPROGRESS;
    struct quiesce *quiesce = create(&guest, QUIESCE_REQUIRE);
    assert_int_equal(begin(&guest, quiesce), -ETIMEDOUT);
    assert_int_equal(settle(&guest, quiesce, PLENTY_MS), 0);
    assert_false(is_frozen(&guest));
    quiesce_free(quiesce);
    assert_int_equal(guest.n_thaws, 1);
    guest_fini(&guest);
}

static void thaws_a_freeze_that_comes_late(void **state)
{
    (void)state;
    struct guest guest;
    guest_init(&guest);
    guest.limits.freeze_ms = 20;
    guest.is_freeze_held = true;
    struct quiesce *quiesce = create(&guest, QUIESCE_TRY);
    assert_int_equal(begin(&guest, quiesce), 0);
    assert_int_equal(end(&guest, quiesce), 0);
    check_outcome(quiesce, "crash", "did not freeze within");
    assert_true(guest.change.is_frozen);
    assert_int_equal(guest.n_thaws, 0);
    let_freeze_go(&guest);
    assert_int_equal(settle(&guest, quiesce, PLENTY_MS), 0);
    assert_false(is_frozen(&guest));
    assert_int_equal(guest.n_thaws, 1);
    quiesce_free(quiesce);
    guest_fini(&guest);
}

static void thaws_while_the_moment_hangs(void **state)
{
    (void)state;
    struct guest guest;
    guest_init(&guest);
    guest.limits.frozen_ms = 20;
    struct quiesce *quiesce = create(&guest, QUIESCE_TRY);
    assert_int_equal(begin(&guest, quiesce), 0);
    await_thaws(&guest, 1);
    assert_int_equal(end(&guest, quiesce), 0);
    assert_false(is_frozen(&guest));
    check_outcome(quiesce, "crash", "took longer than the 20 ms");
    assert_false(guest.change.is_frozen);
    quiesce_free(quiesce);
    quiesce = create(&guest, QUIESCE_REQUIRE);
    assert_int_equal(begin(&guest, quiesce), 0);
    await_thaws(&guest, 2);
    assert_int_equal(end(&guest, quiesce), -ETIMEDOUT);
    assert_false(is_frozen(&guest));
    quiesce_free(quiesce);
    guest_fini(&guest);
}

static void does_not_wait_long_for_a_thaw(void **state)
{
    (void)state;
    struct guest guest;
    guest_init(&guest);
    guest.limits.thaw_ms = 20;
    guest.is_thaw_held = true;
    struct quiesce *quiesce = create(&guest, QUIESCE_REQUIRE);
    assert_int_equal(begin(&guest, quiesce), 0);
    assert_int_equal(end(&guest, quiesce), 0);
    check_outcome(quiesce, "filesystem", NULL);
    assert_true(guest.change.is_frozen);
    set_thaw(&guest, 0, false);
    assert_int_equal(settle(&guest, quiesce, PLENTY_MS), 0);
    assert_false(guest.change.is_frozen);
    quiesce_free(quiesce);
    guest_fini(&guest);
}

static void set_domain(struct guest *guest, enum domain_state domain_state, bool has_managed_save)
{
    struct domain *domain = domain_create(domain_id, "web");
    assert_non_null(domain);
    domain->state = domain_state;
    domain->has_managed_save = has_managed_save;
    mutex_lock(&guest->lock);
    struct domain *before = guest->domain;
    guest->domain = domain;
    mutex_unlock(&guest->lock);
    domain_unref(before);
}

static void is_done_with_a_guest_that_is_off_unless_it_was_saved(void **state)
{
    (void)state;
    struct guest guest;
    guest_init(&guest);
    guest.limits.thaw_ms = 1;
    guest.thaw_result = -ESTALE;
    struct quiesce *quiesce = create(&guest, QUIESCE_TRY);
    assert_int_equal(begin(&guest, quiesce), 0);
    set_domain(&guest, DOMAIN_SHUTOFF, true);
    assert_int_equal(end(&guest, quiesce), 0);
    await_thaws(&guest, 3);
    assert_int_equal(settle(&guest, quiesce, 1), -ETIMEDOUT);
    set_domain(&guest, DOMAIN_SHUTOFF, false);
    assert_int_equal(settle(&guest, quiesce, PLENTY_MS), 0);
    assert_false(guest.change.is_frozen);
    quiesce_free(quiesce);
    guest_fini(&guest);
}

static void can_be_ended_while_the_agent_hangs(void **state)
{
    (void)state;
    struct guest guest;
    guest_init(&guest);
    guest.limits.retry_ms = PLENTY_MS;
    guest.thaw_result = guest.freeze_result = -EINPROGRESS;
    struct quiesce *quiesce = create(&guest, QUIESCE_TRY);
    assert_int_equal(begin(&guest, quiesce), 0);
    await_thaws(&guest, 1);
    quiesce_free(quiesce);
    assert_true(guest.is_noted);
    guest_fini(&guest);
}

static void thaws_at_least_once_when_it_is_ended(void **state)
{
    (void)state;
    struct guest guest;
    guest_init(&guest);
    struct quiesce *quiesce = create(&guest, QUIESCE_TRY);
    assert_int_equal(begin(&guest, quiesce), 0);
    quiesce_free(quiesce);
    assert_false(is_frozen(&guest));
    guest_fini(&guest);
}

static int undo(struct guest *guest)
{
    return quiesce_undo(&guest->host, &guest->change, &guest->journal, &guest->err);
}

static void thaws_what_an_earlier_process_froze(void **state)
{
    (void)state;
    struct guest guest;
    guest_init(&guest);
    assert_int_equal(undo(&guest), 0);
    assert_int_equal(guest.n_thaws, 0);
    guest.change.is_frozen = guest.is_frozen = true;
    guest.thaw_result = -ETIMEDOUT;
    assert_int_equal(undo(&guest), -ETIMEDOUT);
    assert_true(guest.change.is_frozen);
    guest.thaw_result = 0;
    assert_int_equal(undo(&guest), 0);
    assert_false(guest.is_frozen || guest.change.is_frozen || guest.is_noted);
    guest.change.is_frozen = true;
    guest.thaw_result = -ESTALE;
    set_domain(&guest, DOMAIN_SHUTOFF, true);
    assert_int_equal(undo(&guest), -EAGAIN);
    assert_true(guest.change.is_frozen);
    set_domain(&guest, DOMAIN_SHUTOFF, false);
    assert_int_equal(undo(&guest), 0);
    assert_false(guest.change.is_frozen);
    guest_fini(&guest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(freezes_for_the_moment_only),
        cmocka_unit_test(leaves_a_guest_alone_that_is_not_to_be_frozen),
        cmocka_unit_test(needs_nothing_of_a_guest_that_is_off),
        cmocka_unit_test(does_not_ask_who_cannot_answer),
        cmocka_unit_test(does_not_thaw_what_was_refused),
        cmocka_unit_test(gives_a_moment_up_that_cannot_be_noted),
        cmocka_unit_test(thaws_until_an_agent_that_hung_says_so),
        cmocka_unit_test(refuses_a_hung_agent_where_it_is_required),
        cmocka_unit_test(thaws_a_freeze_that_comes_late),
        cmocka_unit_test(thaws_while_the_moment_hangs),
        cmocka_unit_test(does_not_wait_long_for_a_thaw),
        cmocka_unit_test(is_done_with_a_guest_that_is_off_unless_it_was_saved),
        cmocka_unit_test(can_be_ended_while_the_agent_hangs),
        cmocka_unit_test(thaws_at_least_once_when_it_is_ended),
        cmocka_unit_test(thaws_what_an_earlier_process_froze),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
