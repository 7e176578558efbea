/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Jobs: who is answered when, whose turn it is, and what is left when something fails. */
#include "fs/glance/upload.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "qcow/base/cleanup.h"
#include "tests/lib/pause.h"
#include "tests/unit/glance/upload_double.h"

static struct uploads *open_uploads(unsigned max_running)
{
    double_reset();
    struct uploads_config config = {
        .glance = double_glance(), .max_running = max_running, .source = double_source()};
    struct uploads *uploads;
    assert_int_equal(uploads_create(&config, &uploads), 0);
    return uploads;
}

static void close_uploads(struct uploads *uploads)
{
    uploads_shutdown(uploads);
    assert_int_equal(uploads_count(uploads), 0);
    assert_int_equal(double_bodies(), 0);
    uploads_destroy(uploads);
}

/* All have ended. */
static void await_all(struct uploads *uploads)
{
    while (uploads_count(uploads) > 0)
        pause_us(1000);
}

static void check_table(struct uploads *uploads, const char *domain, const char *const *wanted)
{
    auto_free char *table = uploads_table(uploads, domain);
    assert_non_null(table);
    for (const char *at = table; *wanted; wanted++) {
        at = strstr(at, *wanted);
        if (!at)
            fail_msg("no '%s' in, or not in that order:\n%s", *wanted, table);
    }
}

static const char *state_of(struct uploads *uploads, unsigned id)
{
    struct upload_info *infos;
    size_t n;
    const char *state = NULL;
    assert_int_equal(uploads_list(uploads, "web", &infos, &n), 0);
    for (size_t i = 0; i < n; i++)
        if (infos[i].id == id)
            state = infos[i].state;
    uploads_list_free(infos, n);
    assert_non_null(state);
    return state;
}

/* Of the only upload of web. */
static struct upload_info *get_info(struct uploads *uploads, size_t *ret_n)
{
    struct upload_info *infos;
    assert_int_equal(uploads_list(uploads, "web", &infos, ret_n), 0);
    assert_int_equal(*ret_n, 1);
    return infos;
}

static void check_sending_again(struct uploads *uploads)
{
    size_t n;
    struct upload_info *info = get_info(uploads, &n);
    assert_string_equal(info->disk, "vda");
    assert_string_equal(info->format, "raw");
    assert_int_equal(info->attempt, 2);
    assert_string_equal(info->retry, "the line is cut");
    assert_int_equal(info->n_sent, DOUBLE_SIZE / 2);
    assert_int_equal(info->size, DOUBLE_SIZE);
    assert_true(info->idle_s >= 0);
    assert_int_equal(info->ended_s, -1);
    uploads_list_free(info, n);
}

static void check_ended(struct uploads *uploads)
{
    size_t n;
    struct upload_info *info = get_info(uploads, &n);
    assert_int_equal(info->attempt, 2);
    assert_null(info->retry);
    assert_int_equal(info->n_sent, DOUBLE_SIZE);
    assert_true(info->speed >= 0);
    assert_int_equal(info->rest_s, -1);
    assert_int_equal(info->idle_s, -1);
    assert_true(info->ended_s >= 0);
    assert_true(info->ended.tv_sec > 0);
    uploads_list_free(info, n);
}

static void answers_when_the_bytes_are_fixed(void **state)
{
    (void)state;
    struct uploads *uploads = open_uploads(2);
    struct double_writer writer;
    double_hold(STEP_SEND);
    double_write(uploads, &writer, "web", "now");
    assert_int_equal(double_answer(&writer), 0);
    double_await(STEP_SEND, 1);
    assert_int_equal(double_bodies(), 1);
    const char *sending[] = {"ID",       "SNAPSHOT", "1 ", "now", "now-of-web",
                             "image-1b", "sending",  "49", NULL};
    check_table(uploads, "web", sending);
    check_sending_again(uploads);
    double_let_go(STEP_SEND);
    await_all(uploads);
    const char *active[] = {"image-1b", "active", "100", " -\n", NULL};
    check_table(uploads, "web", active);
    check_ended(uploads);
    assert_int_equal(double_images(), 1);
    assert_int_equal(double_ends(), 1);
    assert_string_equal(double_reason(), "");
    assert_string_equal(double_replaced(), "web 1 image-1 image-1b");
    close_uploads(uploads);
}

static void answers_a_poll_when_the_image_is_active(void **state)
{
    (void)state;
    struct uploads *uploads = open_uploads(2);
    struct double_writer writer;
    double_hold(STEP_VERIFY);
    double_write(uploads, &writer, "web", "now name --poll");
    double_await(STEP_VERIFY, 1);
    assert_false(double_is_answered(&writer));
    double_let_go(STEP_VERIFY);
    assert_int_equal(double_answer(&writer), 0);
    assert_string_equal(state_of(uploads, 1), "active");
    close_uploads(uploads);
}

static void holds_the_bytes_only_while_they_are_sent(void **state)
{
    (void)state;
    struct uploads *uploads = open_uploads(2);
    struct double_writer writer;
    double_hold(STEP_VERIFY);
    double_write(uploads, &writer, "web", "now");
    double_await(STEP_VERIFY, 1);
    assert_int_equal(double_bodies(), 0);
    assert_string_equal(state_of(uploads, 1), "verifying");
    double_let_go(STEP_VERIFY);
    close_uploads(uploads);
}

static void queues_what_is_too_much_at_once(void **state)
{
    (void)state;
    struct uploads *uploads = open_uploads(1);
    struct double_writer first, second, third;
    double_hold(STEP_SEND);
    double_write(uploads, &first, "web", "now");
    double_await(STEP_SEND, 1);
    double_write(uploads, &second, "web", "now");
    double_write(uploads, &third, "db", "now --poll");
    assert_int_equal(double_answer(&second), 0);
    double_await(STEP_CREATE, 3);
    assert_string_equal(state_of(uploads, 2), "queued");
    assert_int_equal(double_bodies(), 1); /* no instant for who waits */
    assert_int_equal(double_count(STEP_OPEN), 1);
    assert_false(double_is_answered(&third));
    double_let_go(STEP_SEND);
    assert_int_equal(double_answer(&third), 0);
    await_all(uploads);
    assert_int_equal(double_images(), 3);
    close_uploads(uploads);
}

static void refuses_what_can_be_told_at_once(void **state)
{
    (void)state;
    struct uploads *uploads = open_uploads(2);
    struct double_writer writer;
    double_write(uploads, &writer, "web", "now what=1");
    assert_int_equal(double_answer(&writer), -EINVAL);
    double_write(uploads, &writer, "web", "nope");
    assert_int_equal(double_answer(&writer), -ENOENT);
    const char *rows[] = {"2 ", "nope", "failed", "no snapshot 'nope'",
                          "1 ", "now",  "failed", "unknown key 'what'",
                          NULL};
    check_table(uploads, "web", rows);
    const char *other[] = {"ERROR\n", NULL};
    check_table(uploads, "db", other);
    assert_int_equal(double_count(STEP_LOGIN), 0);
    assert_int_equal(double_ends(), 2);
    close_uploads(uploads);
}

/* CSI as one character, which is two bytes. */
static void shows_no_control_characters(void **state)
{
    (void)state;
    struct uploads *uploads = open_uploads(2);
    struct double_writer writer;
    double_write(uploads, &writer, "web",
                 "red\xc2\x9b"
                 "31m");
    assert_true(double_answer(&writer) < 0);
    const char *row[] = {"red??31m", "failed", NULL};
    check_table(uploads, "web", row);
    auto_free char *table = uploads_table(uploads, "web");
    assert_null(strstr(table, "\x9b"));
    close_uploads(uploads);
}

static void refuses_without_credentials(void **state)
{
    (void)state;
    double_reset();
    struct uploads_config config = {.max_running = 1, .source = double_source()};
    struct uploads *uploads;
    struct double_writer writer;
    assert_int_equal(uploads_create(&config, &uploads), 0);
    double_write(uploads, &writer, "web", "now");
    assert_int_equal(double_answer(&writer), -EACCES);
    assert_non_null(strstr(double_reason(), "no cloud is configured"));
    close_uploads(uploads);
    config.refusal = "clouds.yaml is odd";
    assert_int_equal(uploads_create(&config, &uploads), 0);
    double_write(uploads, &writer, "web", "now");
    assert_int_equal(double_answer(&writer), -EACCES);
    assert_string_equal(double_reason(), "clouds.yaml is odd");
    close_uploads(uploads);
}

/* A step fails: the writer hears of it, the table says it, nothing is left. */
static void check_failing(enum double_step step, const char *line, int answer)
{
    struct uploads *uploads = open_uploads(2);
    struct double_writer writer;
    double_fail(step, -EDQUOT);
    double_write(uploads, &writer, "web", line);
    assert_int_equal(double_answer(&writer), answer);
    await_all(uploads);
    assert_int_equal(double_images(), 0);
    assert_string_equal(state_of(uploads, 1), "failed");
    const char *row[] = {"failed", "fails\n", NULL};
    check_table(uploads, "web", row);
    close_uploads(uploads);
}

static void leaves_nothing_when_a_step_fails(void **state)
{
    (void)state;
    check_failing(STEP_LOGIN, "now", -EDQUOT);
    check_failing(STEP_CREATE, "now", -EDQUOT);
    check_failing(STEP_OPEN, "now", -EDQUOT);
    check_failing(STEP_SEND, "now", 0); /* it was answered before */
    check_failing(STEP_VERIFY, "now", 0);
    check_failing(STEP_SEND, "now --poll", -EDQUOT);
    check_failing(STEP_VERIFY, "now --poll", -EDQUOT);
}

static void keeps_the_speed_of_what_failed(void **state)
{
    (void)state;
    struct uploads *uploads = open_uploads(2);
    struct double_writer writer;
    double_fail(STEP_SEND, -EIO);
    double_write(uploads, &writer, "web", "now --poll");
    assert_int_equal(double_answer(&writer), -EIO);
    auto_free char *first = uploads_table(uploads, "web");
    pause_us(20000);
    auto_free char *second = uploads_table(uploads, "web");
    assert_string_equal(first, second);
    close_uploads(uploads);
}

static void names_an_image_that_it_cannot_delete(void **state)
{
    (void)state;
    struct uploads *uploads = open_uploads(2);
    struct double_writer writer;
    double_fail(STEP_OPEN, -EBUSY);
    double_fail(STEP_DELETE, -EIO);
    double_write(uploads, &writer, "web", "now");
    assert_int_equal(double_answer(&writer), -EBUSY);
    assert_non_null(strstr(double_reason(), "image image-1 may be left"));
    close_uploads(uploads);
}

/* The writer gives up while a step is under way. */
static void check_giving_up(enum double_step step, const char *line)
{
    struct uploads *uploads = open_uploads(1);
    struct double_writer writer;
    double_hold(step);
    double_write(uploads, &writer, "web", line);
    double_await(step, 1);
    double_give_up(&writer);
    assert_int_equal(double_answer(&writer), -EINTR);
    await_all(uploads);
    assert_int_equal(double_images(), 0);
    assert_string_equal(double_reason(), "cancelled: the writer was interrupted");
    close_uploads(uploads);
}

static void cancels_for_a_writer_that_gave_up(void **state)
{
    (void)state;
    check_giving_up(STEP_LOGIN, "now");
    check_giving_up(STEP_CREATE, "now");
    check_giving_up(STEP_OPEN, "now");
    check_giving_up(STEP_SEND, "now --poll");
    check_giving_up(STEP_VERIFY, "now --poll");
}

static void cancels_in_the_queue(void **state)
{
    (void)state;
    struct uploads *uploads = open_uploads(1);
    struct double_writer first, second;
    double_hold(STEP_SEND);
    double_write(uploads, &first, "web", "now");
    double_await(STEP_SEND, 1);
    double_write(uploads, &second, "web", "now --poll");
    double_await(STEP_CREATE, 2);
    double_give_up(&second);
    assert_int_equal(double_answer(&second), -EINTR);
    while (uploads_count(uploads) > 1)
        pause_us(1000);
    assert_int_equal(double_images(), 1);
    assert_string_equal(state_of(uploads, 1), "sending");
    double_let_go(STEP_SEND);
    await_all(uploads);
    assert_int_equal(double_images(), 1);
    close_uploads(uploads);
}

/* Who gave up does not wait for an image to be deleted. */
static void answers_before_it_deletes(void **state)
{
    (void)state;
    struct uploads *uploads = open_uploads(1);
    struct double_writer writer;
    double_hold(STEP_SEND);
    double_hold(STEP_DELETE);
    double_write(uploads, &writer, "web", "now --poll");
    double_await(STEP_SEND, 1);
    double_give_up(&writer);
    assert_int_equal(double_answer(&writer), -EINTR);
    assert_int_equal(double_images(), 1);
    double_let_go(STEP_DELETE);
    await_all(uploads);
    assert_int_equal(double_images(), 0);
    close_uploads(uploads);
}

static void goes_on_when_the_writer_ends_afterwards(void **state)
{
    (void)state;
    struct uploads *uploads = open_uploads(1);
    struct double_writer writer;
    double_hold(STEP_SEND);
    double_write(uploads, &writer, "web", "now");
    assert_int_equal(double_answer(&writer), 0);
    double_give_up(&writer);
    double_let_go(STEP_SEND);
    await_all(uploads);
    assert_int_equal(double_images(), 1);
    close_uploads(uploads);
}

static void ends_all_at_the_unmount(void **state)
{
    (void)state;
    struct uploads *uploads = open_uploads(1);
    struct double_writer first, second, third;
    double_hold(STEP_SEND);
    double_write(uploads, &first, "web", "now --poll");
    double_await(STEP_SEND, 1);
    double_write(uploads, &second, "web", "now --poll");
    double_write(uploads, &third, "web", "now");
    assert_int_equal(double_answer(&third), 0);
    assert_int_equal(uploads_count(uploads), 3);
    uploads_shutdown(uploads);
    assert_int_equal(double_answer(&first), -ESHUTDOWN);
    assert_int_equal(double_answer(&second), -ESHUTDOWN);
    assert_int_equal(double_images(), 0);
    double_write(uploads, &first, "web", "now");
    assert_int_equal(double_answer(&first), -ESHUTDOWN);
    const char *row[] = {"failed", "cancelled: the file system is being unmounted", NULL};
    check_table(uploads, "web", row);
    close_uploads(uploads);
}

static void forgets_the_oldest(void **state)
{
    (void)state;
    struct uploads *uploads = open_uploads(1);
    struct double_writer writer, other;
    double_hold(STEP_SEND);
    double_write(uploads, &writer, "web", "now"); /* runs all the time, so it stays */
    double_await(STEP_SEND, 1);
    for (int i = 0; i < 60; i++)
        double_write(uploads, &other, "web", "nope");
    struct upload_info *infos;
    size_t n;
    assert_int_equal(uploads_list(uploads, "web", &infos, &n), 0);
    assert_int_equal(n, 51);
    assert_int_equal(infos[0].id, 61);
    assert_int_equal(infos[49].id, 12);
    assert_int_equal(infos[50].id, 1);
    uploads_list_free(infos, n);
    double_let_go(STEP_SEND);
    close_uploads(uploads);
}

static void bounds_the_queue(void **state)
{
    (void)state;
    struct uploads *uploads = open_uploads(1);
    struct double_writer writers[65];
    double_hold(STEP_SEND);
    for (int i = 0; i < 64; i++)
        double_write(uploads, &writers[i], "web", "now");
    for (int i = 0; i < 64; i++)
        assert_int_equal(double_answer(&writers[i]), 0);
    double_write(uploads, &writers[64], "web", "now");
    assert_int_equal(double_answer(&writers[64]), -EBUSY);
    close_uploads(uploads);
    assert_int_equal(double_images(), 0);
}

static void shows_odd_names_as_one_word(void **state)
{
    (void)state;
    struct uploads *uploads = open_uploads(1);
    struct double_writer writer;
    double_write(uploads, &writer, "web", "'no\033pe' \"it's me\"");
    assert_int_equal(double_answer(&writer), -EINVAL);
    const char *row[] = {"no?pe", "'it'\\''s me'", "a control character (0x1b)", NULL};
    check_table(uploads, "web", row);
    close_uploads(uploads);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_when_the_bytes_are_fixed),
        cmocka_unit_test(answers_a_poll_when_the_image_is_active),
        cmocka_unit_test(holds_the_bytes_only_while_they_are_sent),
        cmocka_unit_test(queues_what_is_too_much_at_once),
        cmocka_unit_test(refuses_what_can_be_told_at_once),
        cmocka_unit_test(shows_no_control_characters),
        cmocka_unit_test(refuses_without_credentials),
        cmocka_unit_test(leaves_nothing_when_a_step_fails),
        cmocka_unit_test(keeps_the_speed_of_what_failed),
        cmocka_unit_test(names_an_image_that_it_cannot_delete),
        cmocka_unit_test(cancels_for_a_writer_that_gave_up),
        cmocka_unit_test(cancels_in_the_queue),
        cmocka_unit_test(answers_before_it_deletes),
        cmocka_unit_test(goes_on_when_the_writer_ends_afterwards),
        cmocka_unit_test(ends_all_at_the_unmount),
        cmocka_unit_test(forgets_the_oldest),
        cmocka_unit_test(bounds_the_queue),
        cmocka_unit_test(shows_odd_names_as_one_word),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
