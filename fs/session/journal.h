/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What this daemon has begun to do to domains and not yet undone, on disk before it is done.
 *
 * STATE/journal/SOURCE-HASH-RANDOM/ belongs to one daemon, which holds a lock on the file `lock` in
 * it for life; each change has one file in it, replaced as a whole (written aside, synced, renamed,
 * folder synced), mode 0600: JSON with a version, a text for people and a checksum. So a crash
 * leaves the old entry or the new one, and a folder whose lock is free belongs to a daemon that is
 * gone. All functions block on the disk; any thread, but one thread at a time for each entry.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "fs/host/change.h"
#include "qcow/base/error.h"

struct journal;
struct journal_entry;

/*
 * Nothing is written before the first entry, so that a mount that changes nothing needs no place
 * for a journal. Only journals of the same @source (as on the command line) are looked at.
 * 0 or -ENOMEM.
 */
int journal_open(const char *state_dir, const char *source, struct journal **ret_journal,
                 struct error *err);
/*
 * Lets go of the locks; entries that are left stay on disk, for the next daemon. Each entry was
 * removed or forgotten before. NULL is fine.
 */
void journal_close(struct journal *journal);

/*
 * A new entry with that change; on disk and synced. 0; -EINVAL: not fit to be undone later (an
 * odd id, a path without the mark); -EROFS, -ENOSPC, -EIO, -EACCES, -EPERM (the folder of the
 * journal is not ours alone), -ENOMEM, or what else the file system says.
 */
int journal_add(struct journal *journal, const struct change *change,
                struct journal_entry **ret_entry, struct error *err);
/*
 * The change as it is now; on disk and synced. On failure the entry is as it was before (or is as
 * it was to be, if only the last sync failed).
 */
int journal_update(struct journal_entry *entry, const struct change *change, struct error *err);
/* Nothing is left to undo. Frees the entry; if its file cannot be deleted, that is logged. */
void journal_remove(struct journal_entry *entry);
/* Frees the entry; its file stays, locked until journal_close(). NULL is fine. */
void journal_forget(struct journal_entry *entry);

/*
 * Somebody has deleted it with the folder that it was in, and it has not been written anew since:
 * there is nothing on disk that could tell the next daemon something else than what is the case.
 */
bool journal_entry_is_lost(const struct journal_entry *entry);

/* Where it is, for messages to people; borrowed. */
const char *journal_entry_path(const struct journal_entry *entry);

/* As it was opened; borrowed. */
const char *journal_source(const struct journal *journal);
/*
 * Does any journal of this state folder, also one of another source or of a daemon that lives, have
 * an entry with that mark? In doubt, yes.
 */
bool journal_names(const struct journal *journal, const char *mark);

/*
 * How many changes daemons of this source have left that are gone, and that no other daemon has
 * taken over. Changes nothing. 0 and the number, or negative errno.
 */
int journal_count_left(const struct journal *journal, size_t *ret_n, struct error *err);

struct journal_leftover {
    struct journal_entry *entry; /* now of this journal */
    struct change *change;
};

/*
 * Takes over what daemons that are gone have left; of two that do so at once, one gets each folder.
 * What is damaged, of another version, or not ours alone to write, is left where it is, and
 * @note_damaged is told its path (a file or a folder) and what is wrong with it. Leftovers of a
 * write that was cut off, and folders without entries, are deleted.
 * 0 and an array (both it and what it holds become the caller's); negative errno if a journal
 * could not be read at all.
 */
int journal_adopt(struct journal *journal,
                  void (*note_damaged)(void *ctx, const char *path, const struct error *why),
                  void *ctx, struct journal_leftover **ret_leftovers, size_t *ret_n,
                  struct error *err);
