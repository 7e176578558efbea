/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The end of all instants: it waits for what gets on, and not for what hangs. */
#include "fs/session/registry.h"

#include <errno.h>
#include <sched.h>

#include "tests/unit/session/registry_fixture.h"

static const char mark[] = "virtsnapfs-0123456789abcdef";

static struct registry_config with_timeout(unsigned timeout_ms)
{
    struct registry_config config = patient;
    config.timeout_ms = timeout_ms;
    config.quiesce = QUIESCE_NEVER;
    config.linger_s = 0;
    return config;
}

/* Until what was held up has come to its end. */
static void await_all(struct fixture *fixture)
{
    while (registry_shutdown(fixture->registry) > 0)
        sched_yield();
}

static bool has_overlay(struct fixture *fixture)
{
    struct domain *domain = fake_host_find(fixture->fake, "live");
    bool has_it = domain->disks[0].n_layers > 1;
    domain_unref(domain);
    return has_it;
}

static void a_release_that_hangs_is_not_waited_for(void **state)
{
    (void)state;
    struct fixture f;
    struct registry_config config = with_timeout(500);
    fixture_open(&f, &config);
    fake_host_hold(f.fake, FAKE_MERGE);
    reader_close(open_disk(&f, "live", "vda"));
    fake_host_await_begun(f.fake, FAKE_MERGE, 1);
    assert_int_equal(registry_shutdown(f.registry), 1);
    assert_int_equal(registry_shutdown(f.registry), 1);
    assert_true(has_overlay(&f));
    /* Should it come to life before the process has ended, no harm is done. */
    fake_host_let_go(f.fake, FAKE_MERGE);
    await_all(&f);
    assert_false(has_overlay(&f));
    fixture_close(&f);
}

static void a_take_that_hangs_is_not_waited_for(void **state)
{
    (void)state;
    struct fixture f;
    struct registry_config config = with_timeout(500);
    fixture_open(&f, &config);
    fake_host_hold(f.fake, FAKE_TAKE);
    struct asked asked;
    ask(&f, "live", "vda", &asked);
    fake_host_await_begun(f.fake, FAKE_TAKE, 1);
    assert_int_equal(registry_shutdown(f.registry), 1);
    assert_true(asked_await(&asked) < 0);
    fake_host_let_go(f.fake, FAKE_TAKE);
    await_all(&f);
    assert_int_equal(fake_host_count(f.fake, FAKE_MERGE), 1);
    assert_false(has_overlay(&f));
    fixture_close(&f);
}

static void *shut_down(void *arg)
{
    return registry_shutdown(arg) > 0 ? arg : NULL;
}

static void a_merge_that_gets_on_is_waited_for(void **state)
{
    (void)state;
    enum { TIMEOUT_MS = 400, SIGN_MS = 5 }; /* three time-outs of silence end it */
    struct fixture f;
    struct registry_config config = with_timeout(TIMEOUT_MS);
    fixture_open(&f, &config);
    fake_host_hold(f.fake, FAKE_MERGE);
    fake_host_show_life(f.fake, true);
    reader_close(open_disk(&f, "live", "vda"));
    fake_host_await_begun(f.fake, FAKE_MERGE, 1);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, shut_down, f.registry), 0);
    unsigned before = fake_host_count_signs(f.fake);
    while (fake_host_count_signs(f.fake) - before < 4 * TIMEOUT_MS / SIGN_MS)
        sched_yield();
    fake_host_let_go(f.fake, FAKE_MERGE);
    void *n_left;
    pthread_join(thread, &n_left);
    assert_null(n_left);
    assert_false(has_overlay(&f));
    fixture_close(&f);
}

/* The leftover of a daemon that is gone, by its journal. */
static struct journal_leftover leave_entry(struct fixture *fixture)
{
    struct journal_leftover leftover;
    struct error err = {0};
    char *base = fake_host_path(fixture->fake, "live", 0);
    char *file = NULL;
    assert_true(asprintf(&file, "%s.%s.overlay", base, mark) > 0);
    FILE *overlay = fopen(file, "wxe");
    assert_non_null(overlay);
    fclose(overlay);
    assert_int_equal(change_create(CHANGE_OVERLAY, "id-live", "live", &leftover.change, &err), 0);
    memcpy(leftover.change->mark, mark, CHANGE_MARK_LEN);
    assert_int_equal(change_add_disk(leftover.change, "vda", base, QCOW_FORMAT_RAW, file, &err), 0);
    assert_int_equal(journal_add(fixture->journal, leftover.change, &leftover.entry, &err), 0);
    free(base);
    free(file);
    return leftover;
}

static void a_recovery_that_hangs_is_counted_and_stays_in_the_journal(void **state)
{
    (void)state;
    struct fixture f;
    struct registry_config config = with_timeout(500);
    fixture_open(&f, &config);
    fake_host_hold(f.fake, FAKE_MERGE);
    struct journal_leftover leftover = leave_entry(&f);
    registry_recover(f.registry, &leftover, 1);
    assert_int_equal(registry_await_recovery(f.registry), 1);
    assert_int_equal(registry_shutdown(f.registry), 1);
    assert_true(journal_names(f.journal, mark));
    fake_host_let_go(f.fake, FAKE_MERGE);
    await_all(&f);
    assert_false(journal_names(f.journal, mark));
    fixture_close(&f);
}

static void a_recovery_that_gets_on_is_waited_for(void **state)
{
    (void)state;
    enum { TIMEOUT_MS = 400, SIGN_MS = 5 };
    struct fixture f;
    struct registry_config config = with_timeout(TIMEOUT_MS);
    fixture_open(&f, &config);
    fake_host_hold(f.fake, FAKE_MERGE);
    fake_host_show_life(f.fake, true);
    struct journal_leftover leftover = leave_entry(&f);
    registry_recover(f.registry, &leftover, 1);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, shut_down, f.registry), 0);
    while (fake_host_count_signs(f.fake) < 4 * TIMEOUT_MS / SIGN_MS)
        sched_yield();
    fake_host_let_go(f.fake, FAKE_MERGE);
    void *n_left;
    pthread_join(thread, &n_left);
    assert_null(n_left);
    assert_false(journal_names(f.journal, mark));
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_release_that_hangs_is_not_waited_for),
        cmocka_unit_test(a_take_that_hangs_is_not_waited_for),
        cmocka_unit_test(a_merge_that_gets_on_is_waited_for),
        cmocka_unit_test(a_recovery_that_hangs_is_counted_and_stays_in_the_journal),
        cmocka_unit_test(a_recovery_that_gets_on_is_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
