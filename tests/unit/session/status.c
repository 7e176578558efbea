/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a person can ask about a domain: status, extended attributes, the last errors. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <unistd.h>

#include "tests/unit/session/registry_fixture.h"

/* The status of a domain, parsed; to be released with json_decref(). */
static json_t *get_status(struct fixture *f, const char *name)
{
    struct domain *domain = fake_host_find(f->fake, name);
    char *text = registry_status(f->registry, domain, NULL, 0);
    assert_non_null(text);
    assert_int_equal(text[strlen(text) - 1], '\n');
    json_error_t why;
    json_t *root = json_loads(text, 0, &why);
    if (!root)
        fail_msg("%s: %s", why.text, text);
    free(text);
    domain_unref(domain);
    return root;
}

static const char *get_text(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    assert_non_null(text);
    return text;
}

static json_t *get_first(const json_t *root, const char *key, size_t want_n)
{
    json_t *array = json_object_get(root, key);
    assert_true(json_is_array(array));
    assert_int_equal(json_array_size(array), want_n);
    return json_array_get(array, 0);
}

static char *get_xattr(struct fixture *f, const char *name, const char *target, uint64_t serial,
                       const char *attr)
{
    struct domain *domain = fake_host_find(f->fake, name);
    char *value =
        registry_xattr(f->registry, domain, domain_find_disk(domain, target), NULL, serial, attr);
    domain_unref(domain);
    return value;
}

static void check_xattr(struct fixture *f, const char *name, uint64_t serial, const char *attr,
                        const char *want)
{
    char *value = get_xattr(f, name, "vda", serial, attr);
    if (want)
        assert_string_equal(value, want);
    else
        assert_null(value);
    free(value);
}

static void shows_disks_and_state_of_an_idle_domain(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    fake_host_set_unsupported(f.fake, "off", 1, "shareable");
    json_t *root = get_status(&f, "off");
    assert_string_equal(get_text(root, "name"), "off");
    assert_string_equal(get_text(root, "id"), "id-off");
    assert_string_equal(get_text(root, "state"), "shut off");
    assert_true(json_is_true(json_object_get(root, "persistent")));
    assert_true(json_is_false(json_object_get(root, "managed_save")));
    json_t *disk = get_first(root, "disks", 2);
    assert_true(json_is_true(json_object_get(disk, "supported")));
    assert_string_equal(get_text(get_first(disk, "layers", 1), "format"), "raw");
    disk = json_array_get(json_object_get(root, "disks"), 1);
    assert_true(json_is_false(json_object_get(disk, "supported")));
    assert_string_equal(get_text(disk, "reason"), "shareable");
    get_first(root, "instants", 0);
    get_first(root, "snapshot_readers", 0);
    get_first(root, "errors", 0);
    get_first(root, "leftovers", 0);
    json_decref(root);
    fixture_close(&f);
}

static void shows_who_reads_an_instant(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    struct reader *reader = open_disk(&f, "live", "vda");
    json_t *root = get_status(&f, "live");
    json_t *instant = get_first(root, "instants", 1);
    assert_string_equal(get_text(instant, "method"), "overlay");
    assert_string_equal(get_text(instant, "state"), "open");
    assert_string_equal(get_text(instant, "consistency"), "crash");
    const char *taken = get_text(instant, "taken");
    assert_int_equal(strlen(taken), strlen("2023-11-21T10:02:00.123456789Z"));
    assert_int_equal(json_integer_value(json_object_get(instant, "serial")), 1);
    assert_true(json_is_integer(json_object_get(instant, "age_s")));
    assert_true(json_is_integer(json_object_get(instant, "overlay_bytes")));
    assert_true(json_is_true(json_object_get(instant, "locked")));
    json_t *who = get_first(instant, "readers", 1);
    assert_int_equal(json_integer_value(json_object_get(who, "pid")), 4711);
    assert_string_equal(get_text(who, "target"), "vda");
    json_decref(root);
    reader_close(reader);
    fixture_close(&f);
}

static void shows_an_instant_that_is_being_taken(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    fake_host_hold(f.fake, FAKE_TAKE);
    struct asked asked;
    ask(&f, "live", "vda", &asked);
    fake_host_await_begun(f.fake, FAKE_TAKE, 1);
    json_t *root = get_status(&f, "live");
    assert_string_equal(get_text(get_first(root, "instants", 1), "state"), "taking");
    json_decref(root);
    check_xattr(&f, "live", 1, "taken", NULL);
    fake_host_let_go(f.fake, FAKE_TAKE);
    assert_int_equal(asked_await(&asked), 0);
    reader_close(asked.reader);
    fixture_close(&f);
}

static void keeps_the_last_errors(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    for (int i = 0; i < 11; i++) {
        struct error err;
        error_set(&err, -EIO, "fault %d", i);
        registry_note_error(f.registry, "id-off", "now.raw", &err);
        registry_note_error(f.registry, "id-off", "now.raw", &err); /* counted once */
    }
    json_t *root = get_status(&f, "off");
    json_t *oldest = get_first(root, "errors", 8);
    assert_string_equal(get_text(oldest, "text"), "fault 3");
    assert_string_equal(get_text(oldest, "what"), "now.raw");
    assert_non_null(get_text(oldest, "time"));
    json_decref(root);
    fixture_close(&f);
}

/* Standard error goes to a file, until end_log(). */
static void begin_log(int *ret_saved, char *path)
{
    strcpy(path, "/tmp/virtsnapfs-log.XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    *ret_saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);
    dup2(fd, STDERR_FILENO);
    close(fd);
}

/* Lines with that word. */
static size_t end_log(int saved, const char *path, const char *word)
{
    dup2(saved, STDERR_FILENO);
    close(saved);
    FILE *log = fopen(path, "re");
    assert_non_null(log);
    char line[512];
    size_t n = 0;
    while (fgets(line, sizeof(line), log))
        n += strstr(line, word) != NULL;
    fclose(log);
    unlink(path);
    return n;
}

static void a_fault_that_is_another_each_time_is_no_flood(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    int saved;
    char path[40];
    begin_log(&saved, path);
    for (int i = 0; i < 1000; i++) {
        struct error err;
        error_set(&err, -EIO, "cannot read at %d", i);
        registry_note_error(f.registry, "id-off", "now.raw", &err);
    }
    assert_int_equal(end_log(saved, path, "cannot read at"), 3);
    /* Nor is a domain with many files. */
    begin_log(&saved, path);
    for (int i = 0; i < 1000; i++) {
        char what[40];
        snprintf(what, sizeof(what), "s%d.raw", i);
        struct error err;
        error_set(&err, -EIO, "cannot read at %d", i);
        registry_note_error(f.registry, "id-off", what, &err);
    }
    assert_int_equal(end_log(saved, path, "cannot read at"), 5);
    /* And another domain has its own lines. */
    begin_log(&saved, path);
    struct error err;
    error_set(&err, -EIO, "cannot read at 1");
    registry_note_error(f.registry, "id-solo", "now.raw", &err);
    assert_int_equal(end_log(saved, path, "cannot read at 1"), 1);
    fixture_close(&f);
}

static void one_fault_at_several_files_is_one_line(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    int saved;
    char path[40];
    struct error err;
    error_set(&err, -EIO, "the domain was stopped");
    begin_log(&saved, path);
    registry_note_error(f.registry, "id-off", "now", &err);
    registry_note_error(f.registry, "id-off", "now.raw", &err);
    registry_note_error(f.registry, "id-solo", "now.raw", &err);
    assert_int_equal(end_log(saved, path, "the domain was stopped"), 2);
    json_t *root = get_status(&f, "off");
    assert_string_equal(get_text(get_first(root, "errors", 2), "what"), "now");
    json_decref(root);
    fixture_close(&f);
}

static void errors_are_shown_at_their_own_file(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    struct error err;
    error_set(&err, -EIO, "bad block");
    registry_note_error(f.registry, "id-off", "now.vdb.raw", &err);
    check_xattr(&f, "off", 1, "error", NULL);
    char *value = get_xattr(&f, "off", "vdb", 1, "error");
    assert_string_equal(value, "bad block");
    free(value);
    error_set(&err, -EIO, "worse");
    registry_note_error(f.registry, "id-off", "now.vda.raw", &err); /* the other name of it */
    check_xattr(&f, "off", 1, "error", "worse");
    check_xattr(&f, "solo", 1, "error", NULL);
    fixture_close(&f);
}

static void an_instant_has_attributes(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    char *path = fake_host_path(f.fake, "live", 0);
    check_xattr(&f, "live", 1, "method", NULL);
    check_xattr(&f, "live", 1, "source", path);
    struct reader *reader = open_disk(&f, "live", "vda");
    check_xattr(&f, "live", 1, "method", "overlay");
    check_xattr(&f, "live", 1, "consistency", "crash");
    check_xattr(&f, "live", 1, "source", path); /* the frozen layer, not the overlay */
    check_xattr(&f, "live", 1, "no-such", NULL);
    check_xattr(&f, "live", 2, "method", NULL);
    reader_close(reader);
    reader = open_disk(&f, "off", "vda");
    check_xattr(&f, "off", 1, "method", "lock");
    check_xattr(&f, "off", 1, "consistency", "shutdown");
    reader_close(reader);
    free(path);
    fixture_close(&f);
}

static void odd_bytes_do_not_spoil_the_json(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    fake_host_add(f.fake, "odd\xff\"name", 1);
    json_t *root = get_status(&f, "odd\xff\"name");
    assert_string_equal(get_text(root, "name"), "odd?\"name");
    json_decref(root);
    fixture_close(&f);
}

int main(void)
{
    log_init(LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shows_disks_and_state_of_an_idle_domain),
        cmocka_unit_test(shows_who_reads_an_instant),
        cmocka_unit_test(shows_an_instant_that_is_being_taken),
        cmocka_unit_test(keeps_the_last_errors),
        cmocka_unit_test(a_fault_that_is_another_each_time_is_no_flood),
        cmocka_unit_test(one_fault_at_several_files_is_one_line),
        cmocka_unit_test(errors_are_shown_at_their_own_file),
        cmocka_unit_test(an_instant_has_attributes),
        cmocka_unit_test(odd_bytes_do_not_spoil_the_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
