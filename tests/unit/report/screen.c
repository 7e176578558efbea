/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What --status shows of what a mount says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fs/columns.h"
#include "fs/report/sample.h"
#include "qcow/base/cleanup.h"

/* A sample whose domains are that JSON (with ' for "), so many seconds after the first. */
static struct sample make_sample(const char *domains, int seconds)
{
    auto_free char *text = strdup(domains);
    for (char *at = text; (at = strchr(at, '\''));)
        *at = '"';
    json_error_t why;
    json_t *array = json_loads(text, 0, &why);
    if (!array)
        fail_msg("%s: %s", why.text, text);
    return (struct sample){
        .root = json_pack("{ss ss ss so}", "time", "2026-11-22T20:00:00Z", "mountpoint", "/m",
                          "source", "dir:/i", "domains", array),
        .when_ns = (1000 + (int64_t)seconds) * 1000000000,
    };
}

static char *draw(const struct sample *now, const struct sample *before, size_t max_width)
{
    static const struct sample none;
    char *text = NULL;
    size_t len;
    FILE *to = open_memstream(&text, &len);
    assert_non_null(to);
    assert_int_equal(sample_draw(now, before ? before : &none, max_width, to), 0);
    assert_int_equal(fclose(to), 0);
    return text;
}

static char *draw_domains(const char *domains, size_t max_width)
{
    struct sample sample = make_sample(domains, 0);
    char *text = draw(&sample, NULL, max_width);
    sample_fini(&sample);
    return text;
}

/* From a title to the next one. */
static void check_part(const char *text, const char *title, const char *want)
{
    auto_free char *begin = NULL;
    assert_true(asprintf(&begin, "\n\n%s\n", title) > 0);
    const char *at = strstr(text, begin);
    if (!at)
        fail_msg("no %s in:\n%s", title, text);
    at += strlen(begin);
    const char *end = strstr(at, "\n\n");
    auto_free char *part = strndup(at, end ? (size_t)(end + 1 - at) : strlen(at));
    assert_string_equal(part, want);
}

#define QUEUED                                                                                     \
    "{'id': 9, 'snapshot': 'now', 'image_name': 'later', 'state': 'queued', 'percent': 0, "        \
    "'disk': 'vda', 'bytes': 0}"
#define SENDING                                                                                    \
    "{'id': 8, 'snapshot': 'now', 'image_name': 'big', 'state': 'sending', 'percent': 50, "        \
    "'disk': 'vdb', 'bytes': 5, 'size': 21474836480, 'speed': 112400000, 'eta_s': 95, "            \
    "'idle_s': 0, 'attempt': 1}"
#define STALLED                                                                                    \
    "{'id': 7, 'snapshot': 'now', 'image_name': 'stuck', 'state': 'sending', 'percent': 3, "       \
    "'disk': 'vda', 'bytes': 5, 'size': 1024, 'speed': 0, 'idle_s': 90, 'attempt': 2, "            \
    "'retry': 'the line was cut'}"
#define FAILED(id, ago)                                                                            \
    "{'id': " id ", 'snapshot': 'now', 'image_name': 'f" id "', 'state': 'failed', "               \
    "'percent': 1, 'disk': 'vda', 'bytes': 1, 'attempt': 3, 'ended_s': " ago ", "                  \
    "'error': 'why " id " did not work'}"
#define ACTIVE(id, ago)                                                                            \
    "{'id': " id ", 'snapshot': 'now', 'image_name': 'a" id "', 'state': 'active', "               \
    "'percent': 100, 'disk': 'vda', 'bytes': 1, 'size': 1, 'speed': 999, 'ended_s': " ago "}"

static void uploads_that_go_on_come_first(void **state)
{
    (void)state;
    auto_free char *text = draw_domains("[{'directory': 'web', 'uploads': [" QUEUED "," SENDING
                                        "," ACTIVE("6", "9") "," ACTIVE("5", "10") "," FAILED(
                                            "4", "65") "," FAILED("3", "7200") ","
                                                                               "" STALLED "]}]",
                                        0);
    assert_non_null(strstr(text, "1 domain, 0 instants, 0 left over\n"
                                 "7 uploads: 2 under way, 1 waits, 2 failed, 2 active\n"));
    check_part(text, "Uploads",
               "ID  DOMAIN  DISK  IMAGE-NAME  STATE      %      SIZE       SPEED   LEFT\n"
               " 7  web     vda   stuck       sending    3   1.0 KiB       0 B/s      -\n"
               "    attempt 2, after: the line was cut\n"
               "    nothing moved for 1m30s\n"
               " 8  web     vdb   big         sending   50  20.0 GiB  112.4 MB/s  1m35s\n"
               " 9  web     vda   later       queued     0         -           -      -\n"
               " 4  web     vda   f4          failed     1         -           -      -\n"
               "    1m05s ago, at attempt 3: why 4 did not work\n"
               " 6  web     vda   a6          active   100       1 B     999 B/s      -\n"
               "2 more have ended, 1 of them failed: see web/upload\n");
}

static void reasons_are_wrapped_and_not_repeated(void **state)
{
    (void)state;
    auto_free char *text = draw_domains(
        "[{'directory': 'web', 'uploads': [" FAILED(
            "4",
            "65") "], 'errors': ["
                  "{'time': '2026-11-22T19:00:00.100Z', 'what': 'upload 4: image', 'text': "
                  "'again'},"
                  "{'time': '2026-11-22T19:00:00.200Z', 'what': 'upload 3: image', 'text': 'too "
                  "old'},"
                  "{'time': '2026-11-22T19:00:00.300Z', 'what': 'now.raw', 'text': 'a text that is "
                  "wider "
                  "than what is left of the line'}]},"
                  "{'directory': 'db', 'errors': [{'time': '2026-11-22T19:00:00.250Z', 'what': "
                  "'now.raw', "
                  "'text': 'x'}], 'disks': [{'target': 'vda', 'reason': 'it is locked'}]}]",
        72);
    check_part(text, "Errors",
               "TIME                  DOMAIN  FILE             ERROR\n"
               "now                   db      vda              it is locked\n"
               "2026-11-22T19:00:00Z  web     now.raw          a text that is wider than\n"
               "                                               what is left of the line\n"
               "2026-11-22T19:00:00Z  db      now.raw          x\n"
               "2026-11-22T19:00:00Z  web     upload 3: image  too old\n");
    auto_free char *narrow =
        draw_domains("[{'directory': 'web', 'uploads': [" FAILED("4", "65") "]}]", 34);
    assert_non_null(strstr(narrow, "\n    1m05s ago, at attempt 3: why 4\n    did not work\n"));
}

static void many_failures_are_folded(void **state)
{
    (void)state;
    auto_free char *text = draw_domains(
        "[{'directory': 'web', 'uploads': [" FAILED("1", "6") "," FAILED("2", "5") "," FAILED(
            "3", "4") "," FAILED("4", "3") "]},{'directory': 'db', 'uploads': "
                                           "[" FAILED("5", "2") ","
                                                                "" FAILED("6", "1") "," FAILED(
                                                                    "7", "4000") "]}]",
        0);
    assert_non_null(strstr(text, "why 2 did"));
    assert_null(strstr(text, "why 1 did"));
    assert_non_null(strstr(text, "2 more have ended, 2 of them failed: see DOMAIN/upload\n"));
    auto_free char *old =
        draw_domains("[{'directory': 'db', 'uploads': [" FAILED("7", "4000") "]}]", 0);
    assert_non_null(strstr(old, "\n\n1 upload has ended, 1 of them failed: see db/upload\n"));
}

#define READER(id, target, rest)                                                                   \
    "{'id': " id ", 'pid': 0, 'target': '" target "', 'size': 1000000, " rest "}"

static void readers_come_in_order_with_their_mean_speed(void **state)
{
    (void)state;
    auto_free char *text = draw_domains(
        "[{'directory': 'web', 'instants': [{'readers': ["
        "" READER(
            "4", "vdaa",
            "'position': 500000, 'bytes': 250000, 'open_ms': "
            "10000") ","
                     "" READER(
                         "3", "vdb",
                         "'position': 1000, 'bytes': 2000, "
                         "'open_ms': 2000") ","
                                            "" READER(
                                                "2", "vda",
                                                "'position': "
                                                "0, 'bytes': "
                                                "0, "
                                                "'open_ms': "
                                                "500") ","
                                                       "" READER(
                                                           "1",
                                                           "v"
                                                           "d"
                                                           "a",
                                                           "'"
                                                           "p"
                                                           "o"
                                                           "s"
                                                           "i"
                                                           "t"
                                                           "i"
                                                           "o"
                                                           "n"
                                                           "'"
                                                           ":"
                                                           " "
                                                           "0"
                                                           ","
                                                           " "
                                                           "'"
                                                           "b"
                                                           "y"
                                                           "t"
                                                           "e"
                                                           "s"
                                                           "'"
                                                           ":"
                                                           " "
                                                           "0"
                                                           ","
                                                           " "
                                                           "'"
                                                           "o"
                                                           "p"
                                                           "e"
                                                           "n"
                                                           "_"
                                                           "m"
                                                           "s"
                                                           "'"
                                                           ":"
                                                           " "
                                                           "5"
                                                           "0"
                                                           "0"
                                                           "0") "]}],"
                                                                "'snapshot_readers': [" READER(
                                                                    "5", "vda",
                                                                    "'snapshot': 's1', "
                                                                    "'upload': 8") "],"
                                                                                   "'uploads': "
                                                                                   "[" SENDING
                                                                                   "]}]",
        0);
    check_part(text, "Readers",
               "DOMAIN  SNAPSHOT  DISK  PROGRAM   PID   %      SIZE       SPEED   LEFT\n"
               "web     now       vda   kernel      0   0   977 KiB       0 B/s      -\n"
               "web     now       vda   kernel      0   0   977 KiB           -      -\n"
               "web     now       vdb   kernel      0   0   977 KiB    1.0 kB/s      -\n"
               "web     now       vdaa  kernel      0  50   977 KiB   25.0 kB/s    10s\n"
               "web     s1        vda   upload 8    -  50  20.0 GiB  112.4 MB/s  1m35s\n");
}

static void who_is_watched_has_a_speed_of_late(void **state)
{
    (void)state;
    struct sample before = make_sample(
        "[{'directory': 'web', 'snapshot_readers': [" READER("1", "vda",
                                                             "'position': 1000, 'bytes': 1000, "
                                                             "'open_ms': 100000") "]}]",
        0);
    const char *later = "[{'directory': 'web', 'snapshot_readers': [" READER(
        "1", "vda", "'position': 501000, 'bytes': 101000, 'open_ms': 110000") "]}]";
    struct sample soon = make_sample(later, 2), now = make_sample(later, 10);
    auto_free char *text = draw(&now, &before, 0);
    assert_non_null(strstr(text, " 10.0 kB/s    9s\n"));
    auto_free char *too_early = draw(&soon, &before, 0);
    assert_non_null(strstr(too_early, " 918 B/s  1m49s\n"));
    sample_fini(&before);
    sample_fini(&soon);
    sample_fini(&now);
}

static void instants_fit_a_terminal(void **state)
{
    (void)state;
    auto_free char *text =
        draw_domains("[{'directory': 'fed18-server', 'state': 'shut off', 'disks': [{'target': "
                     "'vda'}, {'target': 'vdb'}], 'instants': [{'state': 'open', 'method': "
                     "'overlay', 'age_s': 723, 'overlay_bytes': 1073741824, 'consistency': "
                     "'filesystem'}]}]",
                     80);
    check_part(text, "Instants",
               "DOMAIN        STATE     DISKS    INSTANT  METHOD      AGE  OVERLAY  CONSISTENCY\n"
               "fed18-server  shut off  vda vdb  open     overlay  12m03s  1.0 GiB  filesystem\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(uploads_that_go_on_come_first),
        cmocka_unit_test(reasons_are_wrapped_and_not_repeated),
        cmocka_unit_test(many_failures_are_folded),
        cmocka_unit_test(readers_come_in_order_with_their_mean_speed),
        cmocka_unit_test(who_is_watched_has_a_speed_of_late),
        cmocka_unit_test(instants_fit_a_terminal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
