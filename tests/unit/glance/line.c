/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What may be written to `upload`. */
#include "fs/glance/line.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* All that a line says, as one text: absent ones are left out. */
static void print_line(const struct upload_line *line, char *to, size_t room)
{
    size_t n =
        (size_t)snprintf(to, room, "%s|%s|%s|%s|%s|%s%u|%u|%s%s", line->snapshot,
                         line->image_name ? line->image_name : "", line->disk ? line->disk : "",
                         line->format ? line->format : "", line->visibility,
                         line->has_min_disk ? "=" : "", line->min_disk_gib, line->min_ram_mib,
                         line->is_protected ? "protected" : "", line->is_poll ? "poll" : "");
    for (size_t i = 0; i < line->n_properties; i++)
        n += (size_t)snprintf(to + n, room - n, "|%s=%s", line->properties[i].name,
                              line->properties[i].value);
}

static void takes_lines(void **state)
{
    (void)state;
    static const struct {
        const char *line, *wanted;
    } rows[] = {
        {"now", "now||||private|0|0|"},
        {"now\n", "now||||private|0|0|"},
        {" \tnow \t\n", "now||||private|0|0|"},
        {"now snap1-of-fed18 --poll\n", "now|snap1-of-fed18|||private|0|0|poll"},
        {"--poll now snap1-of-fed18", "now|snap1-of-fed18|||private|0|0|poll"},
        {"now format=qcow2 my-image disk=vdb", "now|my-image|vdb|qcow2|private|0|0|"},
        {"now format=raw visibility=public", "now|||raw|public|0|0|"},
        {"now visibility=shared", "now||||shared|0|0|"},
        {"now visibility=community", "now||||community|0|0|"},
        {"now min_disk=0 min_ram=2147483647", "now||||private|=0|2147483647|"},
        {"now protected=true", "now||||private|0|0|protected"},
        {"now protected=no", "now||||private|0|0|"},
        {"now property:os_distro=fedora property:x=", "now||||private|0|0||os_distro=fedora|x="},
        {"now property:a=b=c", "now||||private|0|0||a=b=c"},
        {"now property:\"my key\"='my value'", "now||||private|0|0||my key=my value"},
        {"now --metadata a=b --metadata=c=d", "now||||private|0|0||a=b|c=d"},
        {"now 'my  image'", "now|my  image|||private|0|0|"},
        {"now \"a 'b' \\\"c\\\" \\\\ \\$ \\` \\n\"", "now|a 'b' \"c\" \\ $ ` \\n|||private|0|0|"},
        {"now 'it'\\''s'", "now|it's|||private|0|0|"},
        {"now my\\ image", "now|my image|||private|0|0|"},
        {"now a\"b\"'c'\\d", "now|abcd|||private|0|0|"},
        {"now \"format=raw\"", "now|||raw|private|0|0|"},
        {"now 'property:os_distro=a b'", "now||||private|0|0||os_distro=a b"},
        {"now 'x=y'", "now|x=y|||private|0|0|"},
        {"now a\\=b", "now|a=b|||private|0|0|"},
        {"now '--poll'", "now||||private|0|0|poll"},
        {"now '--pol'", "now|--pol|||private|0|0|"},
        {"now $HOME*?#", "now|$HOME*?#|||private|0|0|"},
        {"'before upgrade' caf\xc3\xa9\xe2\x82\xac",
         "before upgrade|caf\xc3\xa9\xe2\x82\xac|||private|0|0|"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct upload_line line;
        struct error err = {0};
        if (line_parse(rows[i].line, strlen(rows[i].line), &line, &err) < 0)
            fail_msg("%s: %s", rows[i].line, err.text);
        char found[1024];
        print_line(&line, found, sizeof(found));
        if (strcmp(found, rows[i].wanted) != 0)
            fail_msg("%s: %s, wanted %s", rows[i].line, found, rows[i].wanted);
        line_fini(&line);
    }
}

static void refuses_lines(void **state)
{
    (void)state;
    static const struct {
        const char *line, *reason;
    } rows[] = {
        {"", "no snapshot is named"},
        {"\n", "no snapshot is named"},
        {" --poll", "no snapshot is named"},
        {"''", "'' is no name of a snapshot"},
        {"../x", "'../x' is no name of a snapshot"},
        {"now a b", "one word too many: 'b'"},
        {"now ''", "an image's name has 1 to 255"},
        {"now a\001b", "a control character (0x01)"},
        {"now --poll\r\n", "a control character (0x0d)"},
        {"now a\x7f", "a control character (0x7f)"},
        {"now 'a\tb'", "an image's name has 1 to 255"},
        {"now a\xc2\x85", "an image's name has 1 to 255"},
        {"now \xff", "an image's name has 1 to 255"},
        {"now \xf0\x9f\x98\x80", "an image's name has 1 to 255"},
        {"now \xed\xa0\x80", "an image's name has 1 to 255"},
        {"now \xe0\x80\xaf", "an image's name has 1 to 255"},
        {"now 'a", "a single quote that does not end"},
        {"now \"a", "a double quote that does not end"},
        {"now a\\", "a backslash with nothing behind it"},
        {"now\nnow\n", "more than one line in one write"},
        {"now 'a\nb'", "more than one line in one write"},
        {"now foo=1", "unknown key 'foo'"},
        {"now =1", "unknown key ''"},
        {"now --show", "unknown option '--show'"},
        {"now --metadata", "--metadata needs NAME=VALUE"},
        {"now --metadata a", "'a' is not NAME=VALUE"},
        {"now property:a", "'a' is not NAME=VALUE"},
        {"now property:=a", "'' is no name of a property"},
        {"now property:size=1", "'size' is not a property"},
        {"now property:os_glance_x=1", "'os_glance_x' is not a property"},
        {"now property:a=1 property:a=2", "property 'a' is given twice"},
        {"now 'property:a=\t'", "property 'a': a value that is not"},
        {"now disk=", "disk: '' is not a target"},
        {"now disk=vda disk=vdb", "disk is given twice"},
        {"now format=vmdk", "format: 'vmdk' is not raw or qcow2"},
        {"now visibility=all", "visibility: 'all' is not private"},
        {"now protected=maybe", "protected: 'maybe' is not true or false"},
        {"now min_disk=-1", "min_disk: '-1' is not a number"},
        {"now min_disk=", "min_disk: '' is not a number"},
        {"now min_disk=8G", "min_disk: '8G' is not a number"},
        {"now min_ram=2147483648", "min_ram: '2147483648' is not a number"},
        {"now min_ram=99999999999999999999", "min_ram: '99999999999999999999' is not"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct upload_line line;
        struct error err = {0};
        int r = line_parse(rows[i].line, strlen(rows[i].line), &line, &err);
        if (r != -EINVAL || strncmp(err.text, rows[i].reason, strlen(rows[i].reason)) != 0)
            fail_msg("%s: %d, %s", rows[i].line, r, err.text);
    }
}

/* The line is bytes, not a text that ends somewhere. */
static void reads_no_byte_past_the_line(void **state)
{
    (void)state;
    char *bytes = malloc(3);
    memcpy(bytes, "now", 3);
    struct upload_line line;
    struct error err = {0};
    assert_int_equal(line_parse(bytes, 3, &line, &err), 0);
    assert_string_equal(line.snapshot, "now");
    line_fini(&line);
    bytes[1] = '\0';
    assert_int_equal(line_parse(bytes, 3, &line, &err), -EINVAL);
    bytes[1] = '\\';
    assert_int_equal(line_parse(bytes, 2, &line, &err), -EINVAL);
    free(bytes);
}

static void refuses_what_is_too_long(void **state)
{
    (void)state;
    char bytes[LINE_LEN_MAX + 1];
    struct upload_line line;
    struct error err = {0};
    memset(bytes, ' ', sizeof(bytes));
    /* lint: clang-tidy/bugprone-not-null-terminated-result: amid other bytes */
    memcpy(bytes, "now", 3);
    assert_int_equal(line_parse(bytes, LINE_LEN_MAX, &line, &err), 0);
    line_fini(&line);
    assert_int_equal(line_parse(bytes, sizeof(bytes), &line, &err), -EINVAL);
    /* No file has a longer name, and each row of the table would be as wide as that. */
    memset(bytes, 'x', 256);
    assert_int_equal(line_parse(bytes, 255, &line, &err), 0);
    line_fini(&line);
    assert_int_equal(line_parse(bytes, 256, &line, &err), -EINVAL);
    assert_non_null(strstr(err.text, "is no name of a snapshot"));
}

static void tells_what_a_refused_line_names(void **state)
{
    (void)state;
#define LONG "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd"
    static const struct {
        const char *line, *snapshot, *image_name;
    } rows[] = {
        {"now name what=1", "now", "name"},
        {"now what=1 name", "now", NULL},
        {" \t'my disk' name --nope", "my disk", "name"},
        {"now\rx name", "now\rx", "name"},
        {"now a\rb", "now", NULL},
        {"now name\ndb other\n", "now", "name"},
        {"../x name", "../x name", NULL},
        {"what=1 now", "what=1 now", NULL},
        {"'now", "'now", NULL},
        {"", NULL, NULL},
        {"\n", NULL, NULL},
        {LONG "efgh 'x", LONG "ef", NULL},
        {LONG "\xe2\x82\xac\xe2\x82\xac 'x", LONG, NULL},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        char *snapshot, *image_name;
        line_peek(rows[i].line, strlen(rows[i].line), &snapshot, &image_name);
        if (!rows[i].snapshot || !snapshot ? snapshot != rows[i].snapshot
                                           : strcmp(snapshot, rows[i].snapshot) != 0)
            fail_msg("%s: snapshot '%s'", rows[i].line, snapshot);
        if (!rows[i].image_name || !image_name ? image_name != rows[i].image_name
                                               : strcmp(image_name, rows[i].image_name) != 0)
            fail_msg("%s: name '%s'", rows[i].line, image_name);
        free(snapshot);
        free(image_name);
    }
}

static void counts_characters_of_names(void **state)
{
    (void)state;
    char name[3 * 256 + 1] = "";
    for (unsigned i = 0; i < 255; i++)
        strcat(name, "\xe2\x82\xac");
    assert_true(line_is_name(name));
    strcat(name, "x");
    assert_false(line_is_name(name));
    assert_false(line_is_name(""));
}

static void bounds_the_number_of_properties(void **state)
{
    (void)state;
    char text[LINE_LEN_MAX] = "now";
    for (int i = 0; i < LINE_PROPERTIES_MAX; i++)
        sprintf(text + strlen(text), " property:a%d=b", i);
    struct upload_line line;
    struct error err = {0};
    assert_int_equal(line_parse(text, strlen(text), &line, &err), 0);
    assert_int_equal(line.n_properties, LINE_PROPERTIES_MAX);
    line_fini(&line);
    strcat(text, " property:more=b");
    assert_int_equal(line_parse(text, strlen(text), &line, &err), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_lines),
        cmocka_unit_test(refuses_lines),
        cmocka_unit_test(reads_no_byte_past_the_line),
        cmocka_unit_test(refuses_what_is_too_long),
        cmocka_unit_test(tells_what_a_refused_line_names),
        cmocka_unit_test(counts_characters_of_names),
        cmocka_unit_test(bounds_the_number_of_properties),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
