/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A state directory of its own for each test, and journals in it. */
#pragma once

#include "fs/session/journal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fs/log.h"

#define SOURCE "qemu:///system"
#define UUID "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"

static inline int set_up(void **state)
{
    char *dir = strdup("/tmp/virtsnapfs-journal.XXXXXX");
    *state = dir;
    log_init(LOG_LEVEL_ERROR);
    return dir && mkdtemp(dir) ? 0 : -1;
}

static inline int tear_down(void **state)
{
    char command[100];
    umount2(*state, MNT_DETACH); /* some tests put a file system there */
    snprintf(command, sizeof(command), "rm -rf '%s'", (char *)*state);
    free(*state);
    return system(command);
}

/* An overlay change with one disk. */
static inline struct change *make_change(void)
{
    struct change *change;
    struct error err = {0};
    assert_int_equal(change_create(CHANGE_OVERLAY, UUID, "web", &change, &err), 0);
    char *file = change_file_path(change, "/images/web.qcow2", NULL, "overlay");
    assert_int_equal(
        change_add_disk(change, "vda", "/images/web.qcow2", QCOW_FORMAT_QCOW2, file, &err), 0);
    free(file);
    return change;
}

static inline struct journal *open_journal(const char *dir)
{
    struct journal *journal = NULL;
    struct error err = {0};
    assert_int_equal(journal_open(dir, SOURCE, &journal, &err), 0);
    return journal;
}

static inline struct journal_entry *add_entry(struct journal *journal, const struct change *change)
{
    struct journal_entry *entry = NULL;
    struct error err = {0};
    if (journal_add(journal, change, &entry, &err) < 0)
        fail_msg("%s", err.text);
    return entry;
}

/* What journal_adopt() said. */
struct haul {
    struct journal_leftover *leftovers;
    size_t n;
    unsigned n_damaged;
    char path[512];
    struct error why; /* the last one */
};

static inline void note_damaged(void *ctx, const char *path, const struct error *why)
{
    struct haul *haul = ctx;
    haul->n_damaged++;
    snprintf(haul->path, sizeof(haul->path), "%s", path);
    haul->why = *why;
}

static inline struct haul adopt(struct journal *journal)
{
    struct haul haul = {0};
    struct error err = {0};
    if (journal_adopt(journal, note_damaged, &haul, &haul.leftovers, &haul.n, &err) < 0)
        fail_msg("%s", err.text);
    return haul;
}

/* The entries are @is_done (nothing is left to undo) or stay on disk. */
static inline void free_haul(struct haul *haul, bool is_done)
{
    for (size_t i = 0; i < haul->n; i++) {
        change_free(haul->leftovers[i].change);
        (is_done ? journal_remove : journal_forget)(haul->leftovers[i].entry);
    }
    free(haul->leftovers);
}

/* Leaves one entry as a daemon does that is killed; its path in @ret_path. */
static inline void leave_entry(const char *dir, const struct change *change, char ret_path[512])
{
    struct journal *journal = open_journal(dir);
    struct journal_entry *entry = add_entry(journal, change);
    snprintf(ret_path, 512, "%s", journal_entry_path(entry));
    journal_forget(entry);
    journal_close(journal);
}

/* How many folders are in the journal; -1: there is no journal. */
static inline int count_folders(const char *dir)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/journal", dir);
    DIR *d = opendir(path);
    int n = 0;
    if (!d)
        return -1;
    const struct dirent *item;
    /* lint: cppcheck/readdirCalled: glibc calls readdir_r, which is wanted, deprecated */
    while ((item = readdir(d)))
        n += item->d_name[0] != '.';
    closedir(d);
    return n;
}

static inline char *read_text(const char *path, size_t *ret_len)
{
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    char *text = calloc(1, 65536);
    assert_non_null(text);
    *ret_len = fread(text, 1, 65535, file);
    fclose(file);
    return text;
}

static inline void write_text(const char *path, const char *text, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, len), (int)len);
    close(fd);
}
