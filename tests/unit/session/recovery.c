/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What daemons before us left: by their journals, and by the names of overlays. */
#include "fs/session/unclaimed.h"

#include <fcntl.h>
#include <unistd.h>

#include "tests/unit/session/registry_fixture.h"

static const char mark[] = "virtsnapfs-0123456789abcdef";

/* An overlay of the fake host's domain "live" that nobody undid. Its path; caller frees. */
static char *leave_overlay(struct fixture *fixture, const char *its_mark)
{
    char *base = fake_host_path(fixture->fake, "live", 0);
    char *path = NULL;
    assert_true(asprintf(&path, "%s.%s.overlay", base, its_mark) > 0);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
    free(base);
    return path;
}

/* The leftover that a journal gives for it. */
static struct journal_leftover leave_entry(struct fixture *fixture, const char *its_mark)
{
    struct journal_leftover leftover;
    struct error err = {0};
    char *file = leave_overlay(fixture, its_mark);
    char *base = fake_host_path(fixture->fake, "live", 0);
    assert_int_equal(change_create(CHANGE_OVERLAY, "id-live", "live", &leftover.change, &err), 0);
    memcpy(leftover.change->mark, its_mark, CHANGE_MARK_LEN);
    assert_int_equal(change_add_disk(leftover.change, "vda", base, QCOW_FORMAT_RAW, file, &err), 0);
    assert_int_equal(journal_add(fixture->journal, leftover.change, &leftover.entry, &err), 0);
    free(base);
    free(file);
    return leftover;
}

static char *status_of_live(struct fixture *fixture)
{
    struct domain *domain = fake_host_find(fixture->fake, "live");
    char *text = registry_status(fixture->registry, domain, NULL, 0);
    domain_unref(domain);
    assert_non_null(text);
    return text;
}

static void a_leftover_is_undone_and_refuses_opens_until_then(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    struct journal_leftover leftover = leave_entry(&f, mark);
    fake_host_hold(f.fake, FAKE_MERGE);
    registry_recover(f.registry, &leftover, 1);
    struct error err;
    assert_int_equal(open_fails(&f, "live", "vda", &err), -EBUSY); /* begun or not */
    fake_host_await_begun(f.fake, FAKE_MERGE, 1);
    assert_int_equal(open_fails(&f, "live", "vda", &err), -EBUSY);
    assert_non_null(strstr(err.text, "is being undone"));
    fake_host_let_go(f.fake, FAKE_MERGE);
    assert_int_equal(registry_await_recovery(f.registry), 0);
    assert_false(journal_names(f.journal, mark));
    reader_close(open_disk(&f, "live", "vda"));
    fixture_close(&f);
}

/* The second waits for the first, which may take days; who waits for a first try does not. */
static void two_leftovers_of_a_domain_are_both_counted(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &patient);
    struct journal_leftover leftovers[2] = {leave_entry(&f, mark),
                                            leave_entry(&f, "virtsnapfs-fedcba9876543210")};
    fake_host_fail(f.fake, FAKE_MERGE, -EIO);
    registry_recover(f.registry, leftovers, 2);
    assert_int_equal(registry_await_recovery(f.registry), 2);
    char *text = status_of_live(&f);
    assert_non_null(strstr(text, mark));
    assert_non_null(strstr(text, "virtsnapfs-fedcba9876543210"));
    free(text);
    fake_host_fail(f.fake, FAKE_MERGE, 0); /* shutdown tries all of them once more */
    registry_shutdown(f.registry);
    assert_int_equal(registry_await_recovery(f.registry), 0);
    assert_false(journal_names(f.journal, mark));
    assert_false(journal_names(f.journal, "virtsnapfs-fedcba9876543210"));
    fixture_close(&f);
}

/* A record of a domain that is on @overlay over @base (NULL: the XML does not say). */
static struct domain *record_on(const char *overlay, const char *base)
{
    struct domain *domain = domain_create("id-live", "live");
    assert_non_null(domain);
    domain->state = DOMAIN_RUNNING;
    domain->n_disks = 1;
    domain->disks = calloc(1, sizeof(*domain->disks));
    struct disk *disk = domain->disks;
    disk->target = strdup("vda");
    disk->n_layers = base ? 2 : 1;
    disk->layers = calloc(2, sizeof(*disk->layers));
    disk->layers[0] = (struct disk_layer){strdup(overlay), QCOW_FORMAT_QCOW2};
    if (base)
        disk->layers[1] = (struct disk_layer){strdup(base), QCOW_FORMAT_RAW};
    return domain;
}

/* What is found for such a domain; the change, if there is one, is dropped. */
static int find(struct fixture *fixture, const char *overlay, const char *base, bool *ret_is_found)
{
    struct change *change;
    struct error err = {0};
    struct domain *domain = record_on(overlay, base);
    int r = unclaimed_find(fixture->journal, domain, &change, &err);
    *ret_is_found = r == 0 && change;
    if (*ret_is_found) {
        assert_string_equal(change->disks[0].file, overlay);
        assert_string_equal(change->disks[0].base, base);
        assert_true(strstr(overlay, change->mark));
    }
    if (r == 0)
        change_free(change);
    domain_unref(domain);
    return r;
}

static void an_overlay_is_known_by_its_name(void **state)
{
    (void)state;
    struct fixture f;
    bool is_found;
    fixture_open(&f, &patient);
    assert_int_equal(
        find(&f, "/d/a.img.virtsnapfs-0123456789abcdef.overlay", "/d/a.img", &is_found), 0);
    assert_true(is_found);
    /* in a folder of its own, scratch= */
    assert_int_equal(
        find(&f, "/s/a.img.virtsnapfs-0123456789abcdef.overlay", "/d/a.img", &is_found), 0);
    assert_true(is_found);
    static const char *const others[] = {
        "/d/a.img",
        "/d/a.img.virtsnapfs-0123456789abcdef.delta",
        "/d/a.img.virtsnapfs-0123456789abcdef.overlay.bak",
        "/d/a.img.virtsnapfs-0123456789abcdeg.overlay",
        "/d/a.img.virtsnapfs-.overlay",
        ".overlay",
    };
    for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++) {
        assert_int_equal(find(&f, others[i], "/d/a.img", &is_found), 0);
        if (is_found)
            fail_msg("'%s' was taken for ours", others[i]);
    }
    fixture_close(&f);
}

static void an_overlay_over_another_base_than_its_name_says_is_left(void **state)
{
    (void)state;
    struct fixture f;
    bool is_found;
    fixture_open(&f, &patient);
    assert_int_equal(
        find(&f, "/d/a.img.virtsnapfs-0123456789abcdef.overlay", "/d/b.img", &is_found), -EBUSY);
    /* off, and not to be read */
    assert_int_equal(find(&f, "/none/a.img.virtsnapfs-0123456789abcdef.overlay", NULL, &is_found),
                     -EBUSY);
    fixture_close(&f);
}

static void an_overlay_that_a_journal_names_is_claimed(void **state)
{
    (void)state;
    struct fixture f;
    bool is_found;
    fixture_open(&f, &patient);
    struct journal_leftover leftover = leave_entry(&f, mark);
    assert_true(journal_names(f.journal, mark));
    assert_int_equal(
        find(&f, leftover.change->disks[0].file, leftover.change->disks[0].base, &is_found), 0);
    assert_false(is_found);
    registry_recover(f.registry, &leftover, 1);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_leftover_is_undone_and_refuses_opens_until_then),
        cmocka_unit_test(two_leftovers_of_a_domain_are_both_counted),
        cmocka_unit_test(an_overlay_is_known_by_its_name),
        cmocka_unit_test(an_overlay_over_another_base_than_its_name_says_is_left),
        cmocka_unit_test(an_overlay_that_a_journal_names_is_claimed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
