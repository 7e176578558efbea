/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Instants that cannot be had, that end early, or that cannot be undone. */
#include "fs/session/registry.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "tests/unit/session/registry_fixture.h"

static void a_failed_take_tells_all_and_keeps_the_serial(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    fake_host_hold(f.fake, FAKE_TAKE);
    fake_host_fail(f.fake, FAKE_TAKE, -ETIMEDOUT);
    struct asked a, b;
    ask(&f, "live", "vda", &a);
    ask(&f, "live", "vda", &b);
    fake_host_await_begun(f.fake, FAKE_TAKE, 1);
    fake_host_let_go(f.fake, FAKE_TAKE);
    assert_int_equal(asked_await(&a), -ETIMEDOUT);
    assert_int_equal(asked_await(&b), -ETIMEDOUT);
    assert_string_equal(a.err.text, "the fake host refuses the overlay");
    fake_host_fail(f.fake, FAKE_TAKE, 0);
    assert_int_equal(peek_serial(&f, "id-live", "vda"), 1);
    reader_close(open_disk(&f, "live", "vda"));
    assert_int_equal(peek_serial(&f, "id-live", "vda"), 2);
    fixture_close(&f);
}

/* To be waited for, but enough for an open that nothing holds up, also on a slow machine or under
 * valgrind. */
enum { SHORT_MS = 300 };

static void who_waits_for_a_hypervisor_that_hangs_is_told(void **state)
{
    (void)state;
    struct fixture f;
    struct registry_config config = patient;
    config.timeout_ms = SHORT_MS;
    config.quiesce = QUIESCE_NEVER;
    config.linger_s = 0;
    fixture_open(&f, &config);
    fake_host_hold(f.fake, FAKE_TAKE);
    for (int i = 0; i < 2; i++) {
        struct error err;
        assert_int_equal(open_fails(&f, "live", "vda", &err), -ETIMEDOUT);
        assert_non_null(strstr(err.text, "has not answered"));
    }
    /* It goes on: what was begun comes to its end, and is undone. */
    assert_int_equal(fake_host_count(f.fake, FAKE_MERGE), 0);
    fake_host_let_go(f.fake, FAKE_TAKE);
    fake_host_await_ended(f.fake, FAKE_MERGE, 1);
    reader_close(open_disk(&f, "live", "vda"));
    fixture_close(&f);
}

static void who_waits_for_a_release_that_hangs_is_told(void **state)
{
    (void)state;
    struct fixture f;
    struct registry_config config = patient;
    config.timeout_ms = SHORT_MS;
    config.quiesce = QUIESCE_NEVER;
    config.linger_s = 0;
    fixture_open(&f, &config);
    fake_host_hold(f.fake, FAKE_MERGE);
    reader_close(open_disk(&f, "live", "vda"));
    fake_host_await_begun(f.fake, FAKE_MERGE, 1);
    for (int i = 0; i < 2; i++) {
        struct error err;
        assert_int_equal(open_fails(&f, "live", "vda", &err), -EBUSY);
        assert_non_null(strstr(err.text, "is still being put back"));
    }
    /* It goes on, and nothing of it sticks. */
    fake_host_let_go(f.fake, FAKE_MERGE);
    fake_host_await_ended(f.fake, FAKE_MERGE, 1);
    reader_close(open_disk(&f, "live", "vda"));
    fixture_close(&f);
}

static void images_that_cannot_be_opened_undo_the_overlay(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    char *path = fake_host_path(f.fake, "live", 0);
    int writer = open(path, O_RDWR | O_CLOEXEC); /* somebody else's QEMU */
    struct flock fl = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 101, .l_len = 1};
    assert_int_equal(fcntl(writer, F_OFD_SETLK, &fl), 0);
    struct error err;
    assert_int_equal(open_fails(&f, "live", "vda", &err), -EBUSY);
    assert_non_null(strstr(err.text, path));
    assert_int_equal(fake_host_count(f.fake, FAKE_MERGE), 1);
    close(writer);
    reader_close(open_disk(&f, "live", "vda"));
    free(path);
    fixture_close(&f);
}

static void a_failed_release_is_kept_for_a_person(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    fake_host_fail(f.fake, FAKE_MERGE, -EIO);
    reader_close(open_disk(&f, "live", "vda"));
    fake_host_await_ended(f.fake, FAKE_MERGE, 1);
    struct error err;
    assert_int_equal(open_fails(&f, "live", "vda", &err), -EBUSY);
    assert_non_null(strstr(err.text, "the fake host refuses the merge"));
    struct domain *domain = fake_host_find(f.fake, "live");
    char *text = registry_status(f.registry, domain, NULL, 0);
    assert_non_null(strstr(text, "\"state\": \"broken\""));
    assert_non_null(strstr(text, "live-vda.img.virtsnapfs-"));
    free(text);
    domain_unref(domain);
    fake_host_fail(f.fake, FAKE_MERGE, 0); /* shutdown tries once more */
    registry_shutdown(f.registry);
    assert_int_equal(fake_host_count(f.fake, FAKE_MERGE), 2);
    fixture_close(&f);
}

static void an_overlay_that_cannot_be_undone_after_a_failed_take_is_kept_too(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    char *path = fake_host_path(f.fake, "live", 0);
    assert_int_equal(unlink(path), 0);
    free(path);
    fake_host_fail(f.fake, FAKE_MERGE, -EIO);
    struct error err;
    assert_int_equal(open_fails(&f, "live", "vda", &err), -EIO);
    assert_non_null(strstr(err.text, "could not be put back"));
    assert_int_equal(open_fails(&f, "live", "vda", &err), -EBUSY);
    fixture_close(&f);
}

/* In the folder that holds the journal. */
static void run_there(struct fixture *fixture, const char *command)
{
    char line[200];
    snprintf(line, sizeof(line), "cd '%s' && %s", fake_host_dir(fixture->fake), command);
    assert_int_equal(system(line), 0);
}

static void without_a_place_for_the_journal_a_domain_is_put_back_all_the_same(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    struct reader *reader = open_disk(&f, "live", "vda");
    run_there(&f, "rm -r journal && touch journal");
    reader_close(reader);
    fake_host_await_ended(f.fake, FAKE_MERGE, 1);
    struct error err;
    assert_int_equal(open_fails(&f, "live", "vda", &err), -EIO);
    assert_non_null(strstr(err.text, "journal"));
    assert_int_equal(fake_host_count(f.fake, FAKE_TAKE), 1);
    run_there(&f, "rm journal");
    reader_close(open_disk(&f, "live", "vda"));
    fixture_close(&f);
}

/* What stands there would tell the next daemon that nothing is merged yet. */
static void nothing_is_merged_if_the_note_cannot_be_replaced(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    struct reader *reader = open_disk(&f, "live", "vda");
    run_there(&f, "rm journal/*/lock && mv journal away && touch journal");
    reader_close(reader);
    struct error err;
    assert_int_equal(open_fails(&f, "live", "vda", &err), -EBUSY);
    assert_int_equal(fake_host_count(f.fake, FAKE_MERGE), 0);
    run_there(&f, "rm journal");
    registry_shutdown(f.registry);
    assert_int_equal(fake_host_count(f.fake, FAKE_MERGE), 1);
    fixture_close(&f);
}

static void an_instant_held_too_long_ends(void **state)
{
    (void)state;
    struct fixture f;
    struct registry_config config = patient;
    config.max_hold_s = 1;
    fixture_open(&f, &config);
    struct reader *reader = open_disk(&f, "live", "vda");
    check_bytes(reader, 0);
    fake_host_await_ended(f.fake, FAKE_MERGE, 1);
    struct error err = {0};
    assert_int_equal(read_code(reader, &err), -EIO);
    assert_non_null(strstr(err.text, "max_hold"));
    uint64_t off;
    assert_int_equal(reader_seek(reader, 0, SEEK_DATA, NULL, NULL, &off, &err), -EIO);
    struct reader *fresh = open_disk(&f, "live", "vda"); /* the old one is in nobody's way */
    check_bytes(fresh, 0);
    assert_int_equal(read_code(reader, &err), -EIO);
    reader_close(fresh);
    reader_close(reader);
    fixture_close(&f);
}

static void a_start_seen_ends_a_cold_instant(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    struct reader *reader = open_disk(&f, "off", "vda");
    fake_host_set_state(f.fake, "off", DOMAIN_SHUTOFF); /* some other change */
    check_bytes(reader, 0);
    fake_host_set_state(f.fake, "off", DOMAIN_RUNNING);
    struct error err = {0};
    assert_int_equal(read_code(reader, &err), -EIO);
    assert_non_null(strstr(err.text, "started"));
    reader_close(reader);
    fixture_close(&f);
}

static void a_start_while_the_instant_is_taken_ends_it_too(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    fake_host_hold(f.fake, FAKE_FIND);
    struct asked asked;
    ask(&f, "off", "vda", &asked);
    fake_host_await_begun(f.fake, FAKE_FIND, 1);
    struct domain *domain = fake_host_find(f.fake, "off");
    domain->state = DOMAIN_RUNNING; /* an event that is overtaken by the record */
    registry_domain_changed(f.registry, domain);
    domain->state = DOMAIN_SHUTOFF;
    domain_unref(domain);
    fake_host_let_go(f.fake, FAKE_FIND);
    assert_int_equal(asked_await(&asked), -EIO);
    fixture_close(&f);
}

static void a_domain_that_goes_ends_its_instants(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    struct reader *cold = open_disk(&f, "off", "vda");
    struct reader *live = open_disk(&f, "live", "vda");
    fake_host_remove(f.fake, "off");
    fake_host_remove(f.fake, "live");
    struct error err = {0};
    assert_int_equal(read_code(cold, &err), -ESTALE);
    assert_int_equal(read_code(live, &err), -ESTALE);
    fake_host_await_ended(f.fake, FAKE_MERGE, 1);
    reader_close(cold);
    reader_close(live);
    fixture_close(&f);
}

static void *shut_down(void *arg)
{
    registry_shutdown(arg);
    return NULL;
}

static void shutdown_answers_everybody_and_releases_all(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    struct reader *cold = open_disk(&f, "off", "vda");
    fake_host_hold(f.fake, FAKE_TAKE);
    struct asked asked;
    ask(&f, "live", "vda", &asked);
    fake_host_await_begun(f.fake, FAKE_TAKE, 1);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, shut_down, f.registry), 0);
    assert_int_equal(asked_await(&asked), -ESHUTDOWN); /* not held up by the host */
    fake_host_let_go(f.fake, FAKE_TAKE);
    pthread_join(thread, NULL);
    assert_int_equal(fake_host_count(f.fake, FAKE_MERGE), 1);
    struct error err = {0};
    assert_int_equal(read_code(cold, &err), -EIO);
    assert_int_equal(open_fails(&f, "live", "vda", &err), -ESHUTDOWN);
    reader_close(cold);
    fixture_close(&f);
}

static void too_many_instants_are_refused(void **state)
{
    (void)state;
    struct fixture f;
    struct registry_config config = patient;
    config.max_open = 1;
    fixture_open(&f, &config);
    struct reader *reader = open_disk(&f, "off", "vda");
    struct error err;
    assert_int_equal(open_fails(&f, "live", "vda", &err), -EMFILE);
    reader_close(reader);
    fixture_close(&f);
}

static void a_method_that_the_host_lacks_is_refused(void **state)
{
    (void)state;
    struct fixture f;
    struct registry_config config = patient;
    config.live = LIVE_BACKUP;
    config.cold = COLD_INTERNAL;
    fixture_open(&f, &config);
    struct error err;
    assert_int_equal(open_fails(&f, "live", "vda", &err), -EOPNOTSUPP);
    assert_non_null(strstr(err.text, "backup"));
    assert_int_equal(open_fails(&f, "off", "vda", &err), -EOPNOTSUPP);
    assert_non_null(strstr(err.text, "internal"));
    fixture_close(&f);
}

static void all_disks_are_of_one_instant_but_for_those_left_out(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    fake_host_set_state(f.fake, "off", DOMAIN_PAUSED);
    struct reader *vda = open_disk(&f, "off", "vda");
    struct reader *vdb = open_disk(&f, "off", "vdb");
    assert_int_equal(fake_host_count(f.fake, FAKE_TAKE), 1);
    reader_close(vda);
    reader_close(vdb);
    fake_host_await_ended(f.fake, FAKE_MERGE, 1);
    fake_host_set_unsupported(f.fake, "off", 1, "shareable");
    struct error err;
    vda = open_disk(&f, "off", "vda");
    assert_int_equal(open_fails(&f, "off", "vdb", &err), -EOPNOTSUPP);
    assert_string_equal(err.text, "disk 'vdb': shareable");
    reader_close(vda);
    fixture_close(&f);
}

static void a_damaged_disk_spoils_only_its_own_file(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    char *path = fake_host_path(f.fake, "off", 1);
    assert_int_equal(unlink(path), 0);
    free(path);
    struct reader *reader = open_disk(&f, "off", "vda");
    check_bytes(reader, 0);
    struct error err;
    assert_int_equal(open_fails(&f, "off", "vdb", &err), -EIO);
    assert_non_null(strstr(err.text, "disk 'vdb'"));
    reader_close(reader);
    fixture_close(&f);
}

static void a_writer_on_any_disk_fails_a_cold_instant(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    char *path = fake_host_path(f.fake, "off", 1);
    int writer = open(path, O_RDWR | O_CLOEXEC);
    free(path);
    struct flock fl = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 101, .l_len = 1};
    assert_int_equal(fcntl(writer, F_OFD_SETLK, &fl), 0);
    struct error err;
    assert_int_equal(open_fails(&f, "off", "vda", &err), -EBUSY);
    close(writer);
    reader_close(open_disk(&f, "off", "vda"));
    fixture_close(&f);
}

int main(void)
{
    log_init(LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failed_take_tells_all_and_keeps_the_serial),
        cmocka_unit_test(who_waits_for_a_hypervisor_that_hangs_is_told),
        cmocka_unit_test(who_waits_for_a_release_that_hangs_is_told),
        cmocka_unit_test(images_that_cannot_be_opened_undo_the_overlay),
        cmocka_unit_test(a_failed_release_is_kept_for_a_person),
        cmocka_unit_test(an_overlay_that_cannot_be_undone_after_a_failed_take_is_kept_too),
        cmocka_unit_test(without_a_place_for_the_journal_a_domain_is_put_back_all_the_same),
        cmocka_unit_test(nothing_is_merged_if_the_note_cannot_be_replaced),
        cmocka_unit_test(an_instant_held_too_long_ends),
        cmocka_unit_test(a_start_seen_ends_a_cold_instant),
        cmocka_unit_test(a_start_while_the_instant_is_taken_ends_it_too),
        cmocka_unit_test(a_domain_that_goes_ends_its_instants),
        cmocka_unit_test(shutdown_answers_everybody_and_releases_all),
        cmocka_unit_test(too_many_instants_are_refused),
        cmocka_unit_test(a_method_that_the_host_lacks_is_refused),
        cmocka_unit_test(all_disks_are_of_one_instant_but_for_those_left_out),
        cmocka_unit_test(a_damaged_disk_spoils_only_its_own_file),
        cmocka_unit_test(a_writer_on_any_disk_fails_a_cold_instant),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
