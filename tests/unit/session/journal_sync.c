/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which folders are synced: fsync() here stands in front of libc's, and takes notes. */
#include "tests/unit/session/journal_fixture.h"

#include "fs/state.h"

enum { SYNCED_MAX = 32 };

static char synced[SYNCED_MAX][256];
static size_t n_synced;

int fsync(int fd)
{
    char link[64];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    if (n_synced < SYNCED_MAX) {
        ssize_t len = readlink(link, synced[n_synced], sizeof(synced[0]) - 1);
        synced[n_synced++][len > 0 ? len : 0] = '\0';
    }
    return 0;
}

static bool is_synced(const char *dir, const char *name)
{
    char path[256];
    snprintf(path, sizeof(path), "%s%s", dir, name);
    for (size_t i = 0; i < n_synced; i++)
        if (strcmp(synced[i], path) == 0)
            return true;
    return false;
}

static void to_make_folders_waits_for_no_disk(void **state)
{
    char path[256];
    n_synced = 0;
    snprintf(path, sizeof(path), "%s/state/mounts", (char *)*state);
    assert_int_equal(state_make_dirs(path), 0);
    assert_int_equal(n_synced, 0);
}

/* Its folder may have been made by somebody who did not sync it. */
static void the_first_entry_syncs_the_way_to_it(void **state)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/state", (char *)*state);
    assert_int_equal(state_make_dirs(path), 0);
    n_synced = 0;
    struct change *change = make_change();
    struct journal *journal = open_journal(path);
    struct journal_entry *entry = add_entry(journal, change);
    assert_true(is_synced("/tmp", ""));
    assert_true(is_synced(*state, ""));
    assert_true(is_synced(*state, "/state"));
    assert_true(is_synced(*state, "/state/journal"));
    journal_remove(entry);
    journal_close(journal);
    change_free(change);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(to_make_folders_waits_for_no_disk, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_first_entry_syncs_the_way_to_it, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
