/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <sys/mman.h>

#include "tests/unit/session/journal_fixture.h"

static void check_same(const struct change *a, const struct change *b)
{
    assert_int_equal(a->method, b->method);
    assert_string_equal(a->domain_id, b->domain_id);
    assert_string_equal(a->domain_name, b->domain_name);
    assert_string_equal(a->mark, b->mark);
    assert_int_equal(a->is_persistent, b->is_persistent);
    assert_int_equal(a->was_paused, b->was_paused);
    assert_int_equal(a->is_frozen, b->is_frozen);
    assert_int_equal(a->is_halted, b->is_halted);
    assert_int_equal(a->is_made, b->is_made);
    assert_int_equal(!a->socket, !b->socket);
    if (a->socket)
        assert_string_equal(a->socket, b->socket);
    assert_int_equal(a->n_disks, b->n_disks);
    for (size_t i = 0; i < a->n_disks; i++) {
        assert_string_equal(a->disks[i].target, b->disks[i].target);
        assert_string_equal(a->disks[i].base, b->disks[i].base);
        assert_int_equal(a->disks[i].base_format, b->disks[i].base_format);
        assert_int_equal(!a->disks[i].file, !b->disks[i].file);
        if (a->disks[i].file)
            assert_string_equal(a->disks[i].file, b->disks[i].file);
    }
}

/* Written, adopted by another daemon, compared, removed. */
static void check_round_trip(const char *dir, const struct change *change)
{
    char path[512];
    leave_entry(dir, change, path);
    struct journal *journal = open_journal(dir);
    struct haul haul = adopt(journal);
    if (haul.n_damaged)
        fail_msg("%s", haul.why.text);
    assert_int_equal(haul.n, 1);
    check_same(haul.leftovers[0].change, change);
    assert_string_equal(journal_entry_path(haul.leftovers[0].entry), path);
    free_haul(&haul, true);
    assert_int_equal(count_folders(dir), 0);
    journal_close(journal);
}

static void what_is_left_is_read_back(void **state)
{
    struct change *change = make_change();
    check_round_trip(*state, change);
    change_free(change);
}

static void every_field_is_kept(void **state)
{
    struct change *change = NULL;
    struct error err = {0};
    for (int method = 0; method < N_CHANGE_METHODS; method++) {
        assert_int_equal(
            change_create((enum change_method)method, UUID, "a \"b\" \xc3\xa4", &change, &err), 0);
        change->is_persistent = method & 1;
        change->was_paused = method & 2;
        change->is_frozen = method & 4;
        change->is_halted = !(method & 1);
        change->is_made = !(method & 2);
        assert_int_equal(change_add_disk(change, "sda", "", QCOW_FORMAT_RAW, NULL, &err), 0);
        char *file = change_file_path(change, "/x/y", "/scratch", "delta");
        assert_int_equal(change_add_disk(change, "vdb", "/x/y", QCOW_FORMAT_QCOW2, file, &err), 0);
        free(file);
        if (method == CHANGE_BACKUP)
            assert_true(asprintf(&change->socket, "/run/virtsnapfs/%s.sock", change->mark) > 0);
        check_round_trip(*state, change);
        change_free(change);
    }
}

static void strings_may_be_any_bytes(void **state)
{
    struct change *change = NULL;
    struct error err = {0};
    char all[256];
    for (int i = 0; i < 255; i++)
        all[i] = (char)(i + 1);
    all[255] = '\0';
    assert_int_equal(change_create(CHANGE_OVERLAY, UUID, all, &change, &err), 0);
    char *file = change_file_path(change, "/dir\xff%41/\n", NULL, "overlay");
    assert_int_equal(change_add_disk(change, "vda", "/dir\xff%41/\n", QCOW_FORMAT_RAW, file, &err),
                     0);
    free(file);
    check_round_trip(*state, change);
    change_free(change);
}

static void nothing_is_written_before_the_first_entry(void **state)
{
    struct journal *journal = open_journal(*state);
    struct haul haul = adopt(journal);
    assert_int_equal(haul.n, 0);
    free_haul(&haul, true);
    journal_close(journal);
    assert_int_equal(count_folders(*state), -1);
    journal_close(NULL);
}

static void modes_are_for_the_owner_only(void **state)
{
    char path[512], dir[600];
    struct change *change = make_change();
    snprintf(dir, sizeof(dir), "%s/a/b", (char *)*state);
    mode_t old = umask(0);
    leave_entry(dir, change, path);
    umask(old);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    for (char *slash; (slash = strrchr(path, '/')) && strlen(path) > strlen(*state) + 1;) {
        *slash = '\0';
        if (strcmp(path, *state) == 0)
            break;
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 07777, 0700);
    }
    change_free(change);
}

static void an_update_replaces_the_entry(void **state)
{
    struct journal *journal = open_journal(*state);
    struct change *change = make_change();
    struct journal_entry *entry = add_entry(journal, change);
    struct error err = {0};
    change->is_frozen = true;
    assert_int_equal(journal_update(entry, change, &err), 0);
    change->is_made = true;
    change->is_frozen = false;
    assert_int_equal(journal_update(entry, change, &err), 0);
    journal_forget(entry);
    journal_close(journal);
    journal = open_journal(*state);
    struct haul haul = adopt(journal);
    assert_int_equal(haul.n, 1);
    check_same(haul.leftovers[0].change, change);
    free_haul(&haul, false);
    journal_close(journal);
    change_free(change);
}

static void a_removed_entry_leaves_nothing(void **state)
{
    struct journal *journal = open_journal(*state);
    struct change *change = make_change();
    struct journal_entry *entry = add_entry(journal, change);
    assert_int_equal(count_folders(*state), 1);
    journal_remove(entry);
    journal_close(journal);
    assert_int_equal(count_folders(*state), 0);
    change_free(change);
}

static void an_adopted_entry_can_be_updated_and_stays(void **state)
{
    char path[512];
    struct change *change = make_change();
    leave_entry(*state, change, path);
    struct journal *journal = open_journal(*state);
    struct haul haul = adopt(journal);
    struct error err = {0};
    haul.leftovers[0].change->is_halted = true;
    assert_int_equal(journal_update(haul.leftovers[0].entry, haul.leftovers[0].change, &err), 0);
    free_haul(&haul, false);
    journal_close(journal);
    journal = open_journal(*state);
    haul = adopt(journal);
    assert_int_equal(haul.n, 1);
    assert_true(haul.leftovers[0].change->is_halted);
    free_haul(&haul, true);
    journal_close(journal);
    change_free(change);
}

static void a_folder_goes_with_its_last_entry_only(void **state)
{
    struct journal *journal = open_journal(*state);
    struct change *changes[2] = {make_change(), make_change()};
    for (int i = 0; i < 2; i++)
        journal_forget(add_entry(journal, changes[i]));
    journal_close(journal);
    journal = open_journal(*state);
    struct haul haul = adopt(journal);
    assert_int_equal(haul.n, 2);
    journal_remove(haul.leftovers[0].entry);
    assert_int_equal(count_folders(*state), 1);
    struct journal *other = open_journal(*state);
    struct haul none = adopt(other); /* still locked by the first */
    assert_int_equal(none.n, 0);
    free_haul(&none, true);
    journal_close(other);
    journal_remove(haul.leftovers[1].entry);
    assert_int_equal(count_folders(*state), 0);
    for (int i = 0; i < 2; i++) {
        change_free(haul.leftovers[i].change);
        change_free(changes[i]);
    }
    free(haul.leftovers);
    journal_close(journal);
}

static void a_living_daemons_entries_are_left_alone(void **state)
{
    struct change *change = make_change();
    struct journal *living = open_journal(*state);
    struct journal_entry *entry = add_entry(living, change);
    struct journal *journal = open_journal(*state);
    for (int i = 0; i < 2; i++) { /* itself included */
        struct haul haul = adopt(i ? living : journal);
        assert_int_equal(haul.n, 0);
        assert_int_equal(haul.n_damaged, 0);
        free_haul(&haul, true);
    }
    assert_int_equal(access(journal_entry_path(entry), F_OK), 0);
    journal_remove(entry);
    journal_close(living);
    journal_close(journal);
    change_free(change);
}

static void a_killed_daemons_entries_are_adopted(void **state)
{
    struct change *change = make_change();
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    pid_t child = fork();
    if (child == 0) {
        add_entry(open_journal(*state), change);
        if (write(fds[1], "x", 1) == 1)
            pause();
        _exit(1);
    }
    char c;
    assert_int_equal(read(fds[0], &c, 1), 1);
    struct journal *journal = open_journal(*state);
    struct haul haul = adopt(journal);
    assert_int_equal(haul.n, 0);
    free_haul(&haul, true);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, NULL, 0), child);
    haul = adopt(journal);
    assert_int_equal(haul.n, 1);
    check_same(haul.leftovers[0].change, change);
    free_haul(&haul, true);
    journal_close(journal);
    change_free(change);
    close(fds[0]);
    close(fds[1]);
}

static void other_sources_are_left_alone(void **state)
{
    char path[512];
    struct change *change = make_change();
    leave_entry(*state, change, path);
    struct journal *journal;
    struct error err = {0};
    assert_int_equal(journal_open(*state, "qemu:///session", &journal, &err), 0);
    struct haul haul = adopt(journal);
    assert_int_equal(haul.n + haul.n_damaged, 0);
    free_haul(&haul, true);
    journal_close(journal);
    assert_int_equal(access(path, F_OK), 0);
    change_free(change);
}

/*
 * A process that adopts what it can, as soon as the pipe is closed, and adds their number to @n, in
 * shared memory: valgrind has a use of its own for exit statuses.
 */
static pid_t start_adopter(const char *dir, const int fds[2], unsigned *n)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child > 0)
        return child;
    char c;
    close(fds[1]);
    struct journal *journal = open_journal(dir);
    if (read(fds[0], &c, 1) != 0)
        __atomic_add_fetch(n, 99, __ATOMIC_RELAXED);
    struct haul haul = adopt(journal);
    for (size_t i = 0; i < haul.n; i++)
        journal_remove(haul.leftovers[i].entry);
    __atomic_add_fetch(n, haul.n_damaged ? 98 : (unsigned)haul.n, __ATOMIC_RELAXED);
    _exit(0);
}

static void of_two_that_adopt_at_once_one_gets_an_entry(void **state)
{
    enum { ADOPTERS = 4, ROUNDS = 30 };
    struct change *change = make_change();
    /* lint: cppcheck/invalidFunctionArg: no file */
    unsigned *n = mmap(NULL, sizeof(*n), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(n, MAP_FAILED);
    for (int round = 0; round < ROUNDS; round++) {
        char path[512];
        int fds[2];
        *n = 0;
        pid_t children[ADOPTERS];
        leave_entry(*state, change, path);
        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        for (int i = 0; i < ADOPTERS; i++)
            children[i] = start_adopter(*state, fds, n);
        close(fds[0]);
        close(fds[1]);
        for (int i = 0; i < ADOPTERS; i++) {
            int how = 0;
            assert_int_equal(waitpid(children[i], &how, 0), children[i]);
            assert_true(WIFEXITED(how));
        }
        assert_int_equal(*n, 1);
        assert_int_equal(count_folders(*state), 0);
    }
    munmap(n, sizeof(*n));
    change_free(change);
}

static void unfinished_writes_and_empty_folders_are_deleted(void **state)
{
    char path[512], aside[600];
    struct change *change = make_change();
    leave_entry(*state, change, path);
    snprintf(aside, sizeof(aside), "%s.new", path);
    assert_int_equal(rename(path, aside), 0);
    struct journal *journal = open_journal(*state);
    struct haul haul = adopt(journal);
    assert_int_equal(haul.n + haul.n_damaged, 0);
    free_haul(&haul, true);
    assert_int_equal(count_folders(*state), 0);
    journal_close(journal);
    change_free(change);
}

static void a_person_can_read_what_to_do(void **state)
{
    char path[512];
    size_t len;
    struct change *change = make_change();
    change->is_frozen = true;
    leave_entry(*state, change, path);
    char *text = read_text(path, &len);
    assert_non_null(strstr(text, "domain 'web', uuid " UUID));
    assert_non_null(strstr(text, "blockcommit " UUID " vda --base '/images/web.qcow2' --top "));
    assert_non_null(strstr(text, "domfsthaw " UUID));
    assert_non_null(strstr(text, "virsh -c 'qemu:///system'"));
    free(text);
    change_free(change);
}

static void delete_folders(const char *dir)
{
    char command[100];
    snprintf(command, sizeof(command), "rm -rf '%s'/*", dir);
    assert_int_equal(system(command), 0);
}

static void a_journal_that_was_deleted_is_made_anew(void **state)
{
    struct journal *journal = open_journal(*state);
    struct change *first = make_change(), *second = make_change(), *third = make_change();
    struct journal_entry *removed = add_entry(journal, first);
    struct journal_entry *updated = add_entry(journal, second);
    delete_folders(*state);
    struct error err = {0};
    second->is_made = true;
    assert_int_equal(journal_update(updated, second, &err), 0);
    assert_int_equal(access(journal_entry_path(updated), F_OK), 0);
    journal_remove(removed); /* it was in the folder that is gone */
    struct journal_entry *added = add_entry(journal, third);
    journal_forget(updated);
    journal_forget(added);
    journal_close(journal);
    journal = open_journal(*state);
    struct haul haul = adopt(journal);
    assert_int_equal(haul.n, 2);
    free_haul(&haul, true);
    journal_close(journal);
    assert_int_equal(count_folders(*state), 0);
    change_free(first);
    change_free(second);
    change_free(third);
}

static void a_journal_deleted_between_two_instants_is_made_anew(void **state)
{
    struct journal *journal = open_journal(*state);
    struct change *change = make_change();
    journal_remove(add_entry(journal, change));
    delete_folders(*state);
    struct journal_entry *entry = add_entry(journal, change);
    assert_int_equal(access(journal_entry_path(entry), F_OK), 0);
    journal_remove(entry);
    journal_close(journal);
    assert_int_equal(count_folders(*state), 0);
    change_free(change);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(what_is_left_is_read_back),
        TEST(every_field_is_kept),
        TEST(strings_may_be_any_bytes),
        TEST(nothing_is_written_before_the_first_entry),
        TEST(modes_are_for_the_owner_only),
        TEST(an_update_replaces_the_entry),
        TEST(a_removed_entry_leaves_nothing),
        TEST(an_adopted_entry_can_be_updated_and_stays),
        TEST(a_folder_goes_with_its_last_entry_only),
        TEST(a_living_daemons_entries_are_left_alone),
        TEST(a_killed_daemons_entries_are_adopted),
        TEST(other_sources_are_left_alone),
        TEST(of_two_that_adopt_at_once_one_gets_an_entry),
        TEST(unfinished_writes_and_empty_folders_are_deleted),
        TEST(a_person_can_read_what_to_do),
        TEST(a_journal_that_was_deleted_is_made_anew),
        TEST(a_journal_deleted_between_two_instants_is_made_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
