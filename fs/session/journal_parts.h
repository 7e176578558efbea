/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What journal.c (writing entries) and journal_adopt.c (reading those of daemons before us) share.
 */
#pragma once

#include "fs/session/journal.h"
#include "fs/session/journal_folder.h"
#include "qcow/base/thread.h"

extern const char journal_entry_suffix[6];  /* of an entry's file, after its mark */
extern const char journal_aside_suffix[10]; /* of one that is being written */

struct journal {
    /* Immutable. */
    char *state_dir;
    int state_fd; /* what it was at the start; -1: it was not there */
    char *root;   /* STATE/journal */
    char *source; /* as given */
    char *prefix; /* how folders of this source begin */

    struct mutex lock;
    struct journal_folder *own GUARDED_BY(lock); /* NULL until the first entry */
    struct journal_folder **adopted GUARDED_BY(lock);
    size_t n_adopted GUARDED_BY(lock);
};

struct journal_entry {
    struct journal *journal;       /* borrowed */
    struct journal_folder *folder; /* counted by its n_entries */
    char *mark;
    char *path; /* for messages */
};

/* Counts as an entry of @folder, which holds it already; NULL: no memory. */
struct journal_entry *journal_entry_new(struct journal *journal, struct journal_folder *folder,
                                        const char *mark);

/* The folder is the journal's now, if there is an entry in it. 0 or -ENOMEM. */
int journal_keep_adopted(struct journal *journal, struct journal_folder *folder);
