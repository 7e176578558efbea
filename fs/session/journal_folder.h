/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The folders of the journal: STATE/journal/, and one below it for each daemon, which holds the
 * lock on the file `lock` in it for life. What is in them tells us to delete files, so that they
 * must be ours and for nobody else to write. Blocks on the disk; any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "qcow/base/error.h"

/* One daemon's folder that we have the lock of. */
struct journal_folder {
    /* Immutable. */
    char *path;
    int fd;      /* of the folder */
    int lock_fd; /* whoever has the lock owns the folder */
    /* For the journal, and guarded by its lock. */
    size_t n_entries;
};

/*
 * Is what @fd has open of that type (S_IFREG, S_IFDIR), ours, and for nobody else to write?
 * 0, -EPERM or another negative errno.
 */
int journal_folder_check(int fd, mode_t type, const char *path, struct error *err);

/* The folder above all; 0 and a descriptor, -ENOENT, -EPERM or another negative errno. */
int journal_folder_open_root(const char *root, int *ret_fd, struct error *err);

/* Makes a folder in @root whose name is @prefix and 16 hex digits. 0 or negative errno. */
int journal_folder_make(const char *root, const char *prefix, struct journal_folder **ret_folder,
                        struct error *err);

/*
 * Takes over the folder at @path (which it frees). 0; -EAGAIN: its daemon lives, or another one has
 * just removed it; or negative errno.
 */
int journal_folder_take(char *path, struct journal_folder **ret_folder, struct error *err);

/* Does a daemon have the folder at @path? Takes no lock, so that nobody is misled by it. */
bool journal_folder_is_owned(const char *path);

/* Somebody has deleted it, with the lock that we hold in it. */
bool journal_folder_is_gone(const struct journal_folder *folder);

/* Deletes it, unless there is still something in it. The lock is kept until the close. */
void journal_folder_remove(const struct journal_folder *folder);
void journal_folder_close(struct journal_folder *folder); /* NULL is fine */
