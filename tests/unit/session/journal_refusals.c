/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Entries that are not believed, and disks that take none. As root: mounts and owners. */
#include "tests/unit/session/journal_fixture.h"

#include "fs/state.h"

enum { FIRST_LINE_LEN = 12 + 64 + 3 };

/* Nothing is adopted; one complaint, about @path, that says @what. The file stays. */
static void check_refused(const char *dir, const char *path, const char *what)
{
    struct journal *journal = open_journal(dir);
    struct haul haul = adopt(journal);
    if (haul.n != 0 || haul.n_damaged != 1 || !strstr(haul.why.text, what))
        fail_msg("%zu adopted, %u damaged: '%s', wanted '%s'", haul.n, haul.n_damaged,
                 haul.why.text, what);
    assert_string_equal(haul.path, path);
    free_haul(&haul, false);
    journal_close(journal);
    struct stat st;
    assert_int_equal(lstat(path, &st), 0);
}

/* A copy of @text with @old replaced by @new once, and the checksum that fits. Caller frees. */
static char *forge(const char *text, const char *old, const char *new)
{
    const char *at = strstr(text + FIRST_LINE_LEN, old);
    char hash[STATE_HASH_LEN];
    char *rest, *forged;
    if (!at)
        fail_msg("no '%s' in the entry", old);
    assert_true(asprintf(&rest, "%.*s%s%s", (int)(at - text) - FIRST_LINE_LEN,
                         text + FIRST_LINE_LEN, new, at + strlen(old)) > 0);
    state_hash(rest, strlen(rest), hash);
    assert_true(asprintf(&forged, "{\"sha256\": \"%s\",\n%s", hash, rest) > 0);
    free(rest);
    return forged;
}

static void damaged_files_are_refused(void **state)
{
    char path[512];
    size_t len;
    struct change *change = make_change();
    leave_entry(*state, change, path);
    char *text = read_text(path, &len);
    const size_t lengths[] = {0, 1, FIRST_LINE_LEN - 1, FIRST_LINE_LEN, len / 2, len - 1};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
        write_text(path, text, lengths[i]);
        check_refused(*state, path, "checksum");
    }
    for (size_t at = 0; at < len; at += len / 50) {
        text[at] ^= 1;
        write_text(path, text, len);
        check_refused(*state, path, "checksum");
        text[at] ^= 1;
    }
    write_text(path, text, len); /* and whole again it is believed */
    struct journal *journal = open_journal(*state);
    struct haul haul = adopt(journal);
    assert_int_equal(haul.n, 1);
    free_haul(&haul, true);
    journal_close(journal);
    free(text);
    change_free(change);
}

static void files_that_are_too_long_are_refused(void **state)
{
    char path[512];
    struct change *change = make_change();
    leave_entry(*state, change, path);
    assert_int_equal(truncate(path, (4 << 20) + 1), 0);
    check_refused(*state, path, "more than 4194304 bytes");
    change_free(change);
}

/* Each row has the checksum that fits: what is refused is what it says. */
static void forged_entries_are_refused(void **state)
{
    static const char *const rows[][3] = {
        {"\"version\": 1", "\"version\": 2", "version 2, this program knows version 1"},
        {"\"version\": 1", "\"version\": \"1\"", "no version"},
        {"\"version\": 1,", "", "no version"},
        {"\"method\": \"overlay\"", "\"method\": \"delete\"", "unknown method 'delete'"},
        {"\"method\": \"overlay\"", "\"method\": 1", "Expected string"},
        {"\"source\": \"qemu:///system\"", "\"source\": \"qemu:///x\"", "source 'qemu:///x'"},
        {"\"uuid\": \"4", "\"uuid\": \"$(x)", "not a domain's id"},
        {"\"uuid\": \"" UUID "\"", "\"uuid\": \"\"", "not a domain's id"},
        {"\"domain\": \"web\"", "\"domain\": null", "of a kind that no version writes"},
        {"\"domain\": \"web\"", "\"domain\": \"\"", "no name"},
        {"\"domain\": \"web\"", "\"domain\": \"%4\"", "not written by this program"},
        {"\"domain\": \"web\"", "\"domain\": \"%00\"", "not written by this program"},
        {"\"domain\": \"web\"", "\"domain\": \"%zz\"", "not written by this program"},
        {"\"domain\": \"web\"", "\"domain\": \"\xc3\xa4\"", "not written by this program"},
        {"\"domain\": \"web\"", "\"domain\": \"\\u0000\"", "no JSON"},
        {"\"domain\": \"web\"", "\"domain\": \"web\", \"domain\": \"b\"", "duplicate object key"},
        {"\"domain\": \"web\"", "\"domain\": \"web\", \"more\": 1", "left unpacked"},
        {"\"is_made\": false,", "", "not found: is_made"},
        {"\"is_made\": false,", "\"is_made\": 0,", "Expected true or false"},
        {"\"mark\": \"virtsnapfs-", "\"mark\": \"virtsnapfs-0", "not its name"},
        {"\"socket\": null", "\"socket\": \"/etc/passwd\"", "does not carry the mark"},
        {"\"socket\": null", "\"socket\": 3", "not written by this program"},
        {"\"target\": \"vda\"", "\"target\": \"\"", "not the target of a disk"},
        {"\"target\": \"vda\"", "\"target\": \"v/a\"", "not the target of a disk"},
        {"\"target\": \"vda\"", "\"target\": null", "a disk in it"},
        {"\"base\": \"/images/", "\"base\": \"images/", "not absolute"},
        {"\"base_format\": \"qcow2\"", "\"base_format\": \"vmdk\"", "a disk in it"},
        {"\"file\": \"/images/", "\"file\": \"images/", "not absolute"},
        {"\"file\": \"/images/web.qcow2.virtsnapfs-", "\"file\": \"/etc/passwd", "the mark"},
        {".overlay\",\n", ".overlay/../passwd\",\n", "does not carry the mark"},
        {"\"merge\": \"unmerged\"", "\"merge\": \"gone\"", "a disk in it"},
        {"\"merge\": \"unmerged\"", "\"merge\": 0", "a disk in it"},
        {"\"disks\": [", "\"disks\": [1, ", "a disk in it"},
        {"\n}\n", "\n} 1\n", "no JSON"},
    };
    char path[512];
    size_t len;
    struct change *change = make_change();
    leave_entry(*state, change, path);
    char *text = read_text(path, &len);
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        char *forged = forge(text, rows[i][0], rows[i][1]);
        write_text(path, forged, strlen(forged));
        check_refused(*state, path, rows[i][2]);
        free(forged);
    }
    free(text);
    change_free(change);
}

static void an_entry_under_another_name_is_refused(void **state)
{
    char path[512], other[512];
    struct change *change = make_change();
    leave_entry(*state, change, path);
    strcpy(other, path);
    /* lint: clang-tidy/bugprone-not-null-terminated-result: amid a text */
    memcpy(strrchr(other, '/') + 12, "0000000000000000", 16);
    assert_int_equal(rename(path, other), 0);
    check_refused(*state, other, "not its name");
    snprintf(path, sizeof(path), "%.*s/notes.json", (int)(strrchr(other, '/') - other), other);
    assert_int_equal(rename(other, path), 0);
    check_refused(*state, path, "not its name");
    change_free(change);
}

static void what_others_may_write_is_refused(void **state)
{
    char path[512], folder[512], root[512];
    struct change *change = make_change();
    leave_entry(*state, change, path);
    snprintf(folder, sizeof(folder), "%.*s", (int)(strrchr(path, '/') - path), path);
    assert_int_equal(chmod(path, 0620), 0);
    check_refused(*state, path, "may be written by others (mode 0620)");
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(chown(path, 1, 1), 0);
    check_refused(*state, path, "belongs to user 1, not 0");
    assert_int_equal(chown(path, 0, 0), 0);
    assert_int_equal(chmod(folder, 0702), 0);
    check_refused(*state, folder, "may be written by others");
    assert_int_equal(chmod(folder, 0700), 0);
    assert_int_equal(chown(folder, 1, 1), 0);
    check_refused(*state, folder, "belongs to user 1");
    assert_int_equal(chown(folder, 0, 0), 0);

    snprintf(root, sizeof(root), "%s/journal", (char *)*state);
    assert_int_equal(chown(root, 1, 1), 0);
    struct journal *journal = open_journal(*state);
    struct journal_leftover *leftovers;
    struct journal_entry *entry;
    struct error err = {0};
    size_t n;
    assert_int_equal(journal_adopt(journal, note_damaged, NULL, &leftovers, &n, &err), -EPERM);
    assert_int_equal(journal_add(journal, change, &entry, &err), -EPERM);
    assert_int_equal(count_folders(*state), 1);
    journal_close(journal);
    change_free(change);
}

static void what_is_no_plain_file_is_refused(void **state)
{
    char path[512], other[512], folder[512];
    struct change *change = make_change();
    leave_entry(*state, change, path);
    snprintf(other, sizeof(other), "%s/elsewhere", (char *)*state);
    assert_int_equal(rename(path, other), 0);
    assert_int_equal(symlink(other, path), 0);
    check_refused(*state, path, "Too many levels of symbolic links");
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    check_refused(*state, path, "not a plain file"); /* and nobody waits for a writer */
    unlink(path);
    assert_int_equal(rename(other, path), 0);
    snprintf(folder, sizeof(folder), "%.*s", (int)(strrchr(path, '/') - path), path);
    assert_int_equal(rename(folder, other), 0);
    assert_int_equal(symlink(other, folder), 0);
    check_refused(*state, folder, "cannot open");
    change_free(change);
}

static void good_entries_beside_a_damaged_one_are_adopted(void **state)
{
    struct change *changes[2] = {make_change(), make_change()};
    char path[512];
    struct journal *journal = open_journal(*state);
    struct journal_entry *bad = add_entry(journal, changes[0]);
    snprintf(path, sizeof(path), "%s", journal_entry_path(bad));
    journal_forget(bad);
    journal_forget(add_entry(journal, changes[1]));
    journal_close(journal);
    assert_int_equal(truncate(path, 100), 0);
    journal = open_journal(*state);
    struct haul haul = adopt(journal);
    assert_int_equal(haul.n, 1);
    assert_int_equal(haul.n_damaged, 1);
    assert_string_equal(haul.leftovers[0].change->mark, changes[1]->mark);
    free_haul(&haul, true);
    journal_close(journal);
    check_refused(*state, path, "checksum"); /* it is still there, for a person */
    change_free(changes[0]);
    change_free(changes[1]);
}

static void what_could_not_be_read_is_not_written(void **state)
{
    struct journal *journal = open_journal(*state);
    struct journal_entry *entry = NULL;
    struct error err = {0};
    struct change *change = make_change();
    change->domain_id[0] = '/';
    assert_int_equal(journal_add(journal, change, &entry, &err), -EINVAL);
    change->domain_id[0] = '4';
    strcpy(change->disks[0].file, "/etc/passwd");
    assert_int_equal(journal_add(journal, change, &entry, &err), -EINVAL);
    change_free(change);
    assert_null(entry);
    assert_int_equal(count_folders(*state), -1);
    journal_close(journal);
}

static void an_update_with_another_change_is_refused(void **state)
{
    struct journal *journal = open_journal(*state);
    struct error err = {0};
    struct change *change = make_change(), *other = make_change();
    struct journal_entry *entry = add_entry(journal, change);
    assert_int_equal(journal_update(entry, other, &err), -EINVAL);
    journal_remove(entry);
    journal_close(journal);
    change_free(change);
    change_free(other);
}

static void mount_tmpfs(const char *dir, const char *options)
{
    assert_int_equal(mount("tmpfs", dir, "tmpfs", 0, options), 0);
}

static void a_full_disk_leaves_the_entry_as_it_was(void **state)
{
    char filler[512];
    mount_tmpfs(*state, "size=64k");
    struct journal *journal = open_journal(*state);
    struct error err = {0};
    struct change *change = make_change();
    struct journal_entry *entry = add_entry(journal, change), *second = NULL;
    snprintf(filler, sizeof(filler), "%s/filler", (char *)*state);
    int fd = open(filler, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    char block[4096] = {1};
    while (write(fd, block, sizeof(block)) > 0)
        ;
    close(fd);
    change->is_frozen = true;
    assert_int_equal(journal_update(entry, change, &err), -ENOSPC);
    assert_non_null(strstr(err.text, "No space left on device"));
    struct change *more = make_change();
    assert_int_equal(journal_add(journal, more, &second, &err), -ENOSPC);
    journal_forget(entry);
    journal_close(journal);
    journal = open_journal(*state);
    struct haul haul = adopt(journal);
    assert_int_equal(haul.n, 1);
    assert_int_equal(haul.n_damaged, 0);
    assert_false(haul.leftovers[0].change->is_frozen);
    free_haul(&haul, true); /* also on a full disk */
    assert_int_equal(count_folders(*state), 0);
    journal_close(journal);
    change_free(change);
    change_free(more);
}

static void a_disk_without_room_for_a_folder_gets_none(void **state)
{
    /* For the root, "journal" and the folder in it, but not for the lock. */
    mount_tmpfs(*state, "size=64k,nr_inodes=3");
    struct journal *journal = open_journal(*state);
    struct journal_entry *entry = NULL;
    struct error err = {0};
    struct change *change = make_change();
    assert_int_equal(journal_add(journal, change, &entry, &err), -ENOSPC);
    assert_int_equal(count_folders(*state), 0);
    journal_close(journal);
    change_free(change);
}

static void a_read_only_disk_is_told(void **state)
{
    char path[512];
    struct change *change = make_change();
    mount_tmpfs(*state, NULL);
    leave_entry(*state, change, path);
    assert_int_equal(mount("tmpfs", *state, "tmpfs", MS_REMOUNT | MS_RDONLY, NULL), 0);
    struct journal *journal = open_journal(*state);
    struct journal_entry *entry = NULL;
    struct error err = {0};
    assert_int_equal(journal_add(journal, change, &entry, &err), -EROFS);
    journal_close(journal);
    *strrchr(path, '/') = '\0';
    check_refused(*state, path, "Read-only file system");
    change_free(change);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(damaged_files_are_refused),
        TEST(files_that_are_too_long_are_refused),
        TEST(forged_entries_are_refused),
        TEST(an_entry_under_another_name_is_refused),
        TEST(what_others_may_write_is_refused),
        TEST(what_is_no_plain_file_is_refused),
        TEST(good_entries_beside_a_damaged_one_are_adopted),
        TEST(what_could_not_be_read_is_not_written),
        TEST(an_update_with_another_change_is_refused),
        TEST(a_full_disk_leaves_the_entry_as_it_was),
        TEST(a_disk_without_room_for_a_folder_gets_none),
        TEST(a_read_only_disk_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
