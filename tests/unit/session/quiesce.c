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

enum { PLENTY_MS = 20000 };

/* A guest whose agent answers as the test says. Also the host, so it comes first. */
struct guest {
    struct host host;
    struct domain *domain;

    struct mutex lock;
    struct cond changed;
    int freeze_result GUARDED_BY(lock), thaw_result GUARDED_BY(lock);
    bool is_freeze_held GUARDED_BY(lock), is_thaw_held GUARDED_BY(lock);
    bool is_frozen GUARDED_BY(lock);
    unsigned n_freezes GUARDED_BY(lock), n_thaws GUARDED_BY(lock);

    /* The journal, on the test's thread. */
    unsigned n_notes;
    bool is_noted, was_noted_before_freeze;
    int note_result;
    struct change change;
    struct quiesce_journal journal;
    struct quiesce_limits limits;
    struct error err;
};

static int guest_freeze(struct host *host, const char *id, struct error *err)
{
    struct guest *guest = (struct guest *)host;
    (void)id;
    mutex_lock(&guest->lock);
    guest->n_freezes++;
    guest->was_noted_before_freeze = guest->is_noted;
    while (guest->is_freeze_held)
        cond_wait(&guest->changed, &guest->lock);
    int r = guest->freeze_result;
    guest->is_frozen = guest->is_frozen || r == 0 || r == -EINPROGRESS;
    cond_wake_all(&guest->changed);
    mutex_unlock(&guest->lock);
    return r < 0 ? error_set(err, r, "the agent said %d", r) : 0;
}

static int guest_thaw(struct host *host, const char *id, struct error *err)
{
    struct guest *guest = (struct guest *)host;
    (void)id;
    mutex_lock(&guest->lock);
    guest->n_thaws++;
    cond_wake_all(&guest->changed);
    while (guest->is_thaw_held)
        cond_wait(&guest->changed, &guest->lock);
    int r = guest->thaw_result;
    if (r == 0)
        guest->is_frozen = false;
    mutex_unlock(&guest->lock);
    return r < 0 ? error_set(err, r, "no thaw: %d", r) : 0;
}

static struct domain *guest_find(struct host *host, const char *id)
{
    struct guest *guest = (struct guest *)host;
    (void)id;
    mutex_lock(&guest->lock);
    struct domain *domain = guest->domain ? domain_ref(guest->domain) : NULL;
    mutex_unlock(&guest->lock);
    return domain;
}

static const struct host_ops guest_ops = {
    .find = guest_find, .freeze = guest_freeze, .thaw = guest_thaw};
static const struct host_ops plain_ops = {.find = guest_find};

static int guest_note(void *ctx, const struct change *change, struct error *err)
{
    struct guest *guest = ctx;
    if (guest->note_result < 0)
        return error_set(err, guest->note_result, "disk full");
    guest->n_notes++;
    guest->is_noted = change->is_frozen;
    return 0;
}

static char domain_id[] = "id";

static void guest_init(struct guest *guest)
{
    *guest = (struct guest){
        .host.ops = &guest_ops,
        .domain = domain_create(domain_id, "web"),
        .change = {.domain_id = domain_id, .domain_name = domain_id},
        /* So long that what is awaited comes first, unless a test wants it otherwise. */
        .limits = {PLENTY_MS, PLENTY_MS, PLENTY_MS, 1},
    };
    assert_non_null(guest->domain);
    guest->domain->state = DOMAIN_RUNNING;
    guest->journal = (struct quiesce_journal){guest_note, guest};
    mutex_init(&guest->lock);
    cond_init(&guest->changed);
}

static void guest_fini(struct guest *guest)
{
    domain_unref(guest->domain);
    cond_fini(&guest->changed);
    mutex_fini(&guest->lock);
}

static void set_thaw(struct guest *guest, int result, bool is_held)
{
    mutex_lock(&guest->lock);
    guest->thaw_result = result;
    guest->is_thaw_held = is_held;
    cond_wake_all(&guest->changed);
    mutex_unlock(&guest->lock);
}

static void let_freeze_go(struct guest *guest)
{
    mutex_lock(&guest->lock);
    guest->is_freeze_held = false;
    cond_wake_all(&guest->changed);
    mutex_unlock(&guest->lock);
}

static void await_thaws(struct guest *guest, unsigned n)
{
    int64_t deadline_ns = monotonic_ns() + PLENTY_MS * INT64_C(1000000);
    bool is_in_time = true;
    mutex_lock(&guest->lock);
    while (guest->n_thaws < n && is_in_time)
        is_in_time = cond_wait_until(&guest->changed, &guest->lock, deadline_ns);
    mutex_unlock(&guest->lock);
    assert_true(is_in_time);
}

static bool is_frozen(struct guest *guest)
{
    mutex_lock(&guest->lock);
    bool is_frozen = guest->is_frozen;
    mutex_unlock(&guest->lock);
    return is_frozen;
}

static struct quiesce *create(struct guest *guest, enum quiesce_policy policy)
{
    struct quiesce *quiesce = quiesce_create(&guest->host, domain_id, policy, &guest->limits);
    assert_non_null(quiesce);
    return quiesce;
}

static int begin(struct guest *guest, struct quiesce *quiesce)
{
    return quiesce_begin(quiesce, &guest->change, &guest->journal, &guest->err);
}

static int end(struct guest *guest, struct quiesce *quiesce)
{
    return quiesce_end(quiesce, &guest->change, &guest->journal, &guest->err);
}

static int settle(struct guest *guest, struct quiesce *quiesce, unsigned timeout_ms)
{
    return quiesce_settle(quiesce, &guest->change, &guest->journal, timeout_ms, &guest->err);
}

static void check_outcome(const struct quiesce *quiesce, const char *consistency,
                          const char *reason)
{
    assert_string_equal(quiesce_consistency(quiesce), consistency);
    if (!reason) {
        assert_null(quiesce_reason(quiesce));
        return;
    }
    assert_non_null(quiesce_reason(quiesce));
    assert_non_null(strstr(quiesce_reason(quiesce), reason));
}

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
    int64_t before_ns = monotonic_ns();
    quiesce_free(quiesce);
    assert_true(monotonic_ns() - before_ns < PLENTY_MS / 2 * INT64_C(1000000));
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
