/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/session/journal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/log.h"
#include "fs/session/journal_folder.h"
#include "fs/session/journal_internal.h"
#include "fs/session/journal_parts.h"
#include "fs/state.h"
#include "qcow/base/cleanup.h"
#include "qcow/base/thread.h"

const char journal_entry_suffix[] = ".json";
const char journal_aside_suffix[] = ".json.new";

enum { HASH_LEN = 16 }; /* of the source's, in a folder's name */

int journal_open(const char *state_dir, const char *source, struct journal **ret_journal,
                 struct error *err)
{
    char hash[STATE_HASH_LEN];
    struct journal *journal = calloc(1, sizeof(*journal));
    if (!journal)
        return error_set(err, -ENOMEM, "out of memory");
    state_hash(source, strlen(source), hash);
    mutex_init(&journal->lock);
    journal->state_fd = open(state_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    journal->state_dir = strdup(state_dir);
    if (asprintf(&journal->root, "%s/journal", state_dir) < 0)
        journal->root = NULL;
    if (asprintf(&journal->prefix, "%.*s-", HASH_LEN, hash) < 0)
        journal->prefix = NULL;
    journal->source = strdup(source);
    if (!journal->state_dir || !journal->root || !journal->prefix || !journal->source) {
        journal_close(journal);
        return error_set(err, -ENOMEM, "out of memory");
    }
    *ret_journal = journal;
    return 0;
}

void journal_close(struct journal *journal)
{
    if (!journal)
        return;
    mutex_lock(&journal->lock);
    struct journal_folder *own = journal->own;
    struct journal_folder **adopted = journal->adopted;
    size_t n_adopted = journal->n_adopted;
    mutex_unlock(&journal->lock);
    if (own && own->n_entries == 0)
        journal_folder_remove(own);
    journal_folder_close(own);
    for (size_t i = 0; i < n_adopted; i++)
        journal_folder_close(adopted[i]);
    free(adopted);
    mutex_fini(&journal->lock);
    if (journal->state_fd >= 0)
        close(journal->state_fd);
    free(journal->state_dir);
    free(journal->root);
    free(journal->source);
    free(journal->prefix);
    free(journal);
}

static int keep_adopted_locked(struct journal *journal, struct journal_folder *folder)
    REQUIRES(journal->lock)
{
    struct journal_folder **grown =
        reallocarray(journal->adopted, journal->n_adopted + 1, sizeof(struct journal_folder *));
    if (!grown)
        return -ENOMEM;
    journal->adopted = grown;
    grown[journal->n_adopted++] = folder;
    return 0;
}

int journal_keep_adopted(struct journal *journal, struct journal_folder *folder)
{
    mutex_lock(&journal->lock);
    int r = keep_adopted_locked(journal, folder);
    mutex_unlock(&journal->lock);
    return r;
}

/*
 * Somebody may delete the state directory under us: what is written to a folder that is gone is
 * lost, so it is left to the entries that it has.
 */
static int check_own_locked(struct journal *journal) REQUIRES(journal->lock)
{
    if (!journal->own || !journal_folder_is_gone(journal->own))
        return 0;
    if (journal->own->n_entries > 0 && keep_adopted_locked(journal, journal->own) < 0)
        return -ENOMEM;
    struct journal_folder *own = take_ptr(journal->own);
    if (own->n_entries == 0)
        journal_folder_close(own);
    return 0;
}

/* The sandbox lets nobody write but below the very folder of the start: landlock.c. */
static bool is_state_another(const struct journal *journal)
{
    struct stat first, now;
    if (journal->state_fd < 0 || fstat(journal->state_fd, &first) < 0)
        return false;
    return stat(journal->state_dir, &now) < 0 || now.st_dev != first.st_dev ||
           now.st_ino != first.st_ino;
}

static int make_own(const struct journal *journal, struct journal_folder **ret_folder,
                    struct error *err)
{
    int r = journal_folder_make(journal->root, journal->prefix, ret_folder, err);
    if (r == -EACCES && is_state_another(journal))
        error_prefix(err, "the state directory was deleted or replaced, and is made anew only by a "
                          "new mount");
    return r;
}

/* Our folder, with one more entry counted in it; NULL: the reason is in @err. */
static struct journal_folder *hold_own(struct journal *journal, struct error *err)
{
    struct journal_folder *made = NULL;
    mutex_lock(&journal->lock);
    int r = check_own_locked(journal);
    if (r == 0 && !journal->own) {
        mutex_unlock(&journal->lock);
        if (make_own(journal, &made, err) < 0)
            return NULL;
        mutex_lock(&journal->lock);
        if (!journal->own)
            journal->own = take_ptr(made);
    }
    struct journal_folder *own = r == 0 ? journal->own : NULL;
    if (own)
        own->n_entries++;
    else
        error_set(err, -ENOMEM, "out of memory");
    mutex_unlock(&journal->lock);
    if (made) { /* another thread was faster */
        journal_folder_remove(made);
        journal_folder_close(made);
    }
    return own;
}

static void drop_adopted_locked(struct journal *journal, const struct journal_folder *folder)
    REQUIRES(journal->lock)
{
    for (size_t i = 0; i < journal->n_adopted; i++)
        if (journal->adopted[i] == folder)
            journal->adopted[i--] = journal->adopted[--journal->n_adopted];
}

/* One entry less. The folder of a daemon that is gone goes with its last one. */
static void let_go(struct journal *journal, struct journal_folder *folder)
{
    mutex_lock(&journal->lock);
    bool is_last = --folder->n_entries == 0 && folder != journal->own;
    if (is_last)
        drop_adopted_locked(journal, folder);
    mutex_unlock(&journal->lock);
    if (!is_last)
        return;
    journal_folder_remove(folder);
    journal_folder_close(folder);
}

struct journal_entry *journal_entry_new(struct journal *journal, struct journal_folder *folder,
                                        const char *mark)
{
    struct journal_entry *entry = calloc(1, sizeof(*entry));
    if (!entry)
        return NULL;
    *entry = (struct journal_entry){.journal = journal, .folder = folder, .mark = strdup(mark)};
    if (asprintf(&entry->path, "%s/%s%s", folder->path, mark, journal_entry_suffix) < 0)
        entry->path = NULL;
    if (entry->mark && entry->path)
        return entry;
    free(entry->mark);
    free(entry->path);
    free(entry);
    return NULL;
}

void journal_forget(struct journal_entry *entry)
{
    if (!entry)
        return;
    free(entry->mark);
    free(entry->path);
    free(entry);
}

const char *journal_entry_path(const struct journal_entry *entry)
{
    return entry->path;
}

/* A file of that name with that text, on disk. */
static int write_file(int dir_fd, const char *name, const char *text)
{
    if (unlinkat(dir_fd, name, 0) < 0 && errno != ENOENT)
        return -errno;
    auto_close int fd =
        openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    int r = state_write_all(fd, text, strlen(text));
    if (r == 0 && fsync(fd) < 0)
        r = -errno;
    return r;
}

/* Replaces the file in one step, all of it on disk. */
static int replace_file(const struct journal_entry *entry, const char *text)
{
    char name[CHANGE_MARK_LEN + sizeof(journal_entry_suffix)];
    char aside[CHANGE_MARK_LEN + sizeof(journal_aside_suffix)];
    snprintf(name, sizeof(name), "%s%s", entry->mark, journal_entry_suffix);
    snprintf(aside, sizeof(aside), "%s%s", entry->mark, journal_aside_suffix);
    int dir_fd = entry->folder->fd;
    int r = write_file(dir_fd, aside, text);
    if (r == 0 && renameat(dir_fd, aside, dir_fd, name) < 0)
        r = -errno;
    if (r < 0)
        unlinkat(dir_fd, aside, 0);
    else if (fsync(dir_fd) < 0)
        r = -errno;
    return r;
}

/* From a folder that is gone to one that is there. */
static int move_to_own(struct journal_entry *entry, struct error *err)
{
    struct journal_folder *folder = hold_own(entry->journal, err);
    if (!folder)
        return err->code;
    char *path;
    if (asprintf(&path, "%s/%s%s", folder->path, entry->mark, journal_entry_suffix) < 0) {
        let_go(entry->journal, folder);
        return error_set(err, -ENOMEM, "out of memory");
    }
    let_go(entry->journal, entry->folder);
    free(entry->path);
    entry->path = path;
    entry->folder = folder;
    return 0;
}

int journal_update(struct journal_entry *entry, const struct change *change, struct error *err)
{
    if (strcmp(change->mark, entry->mark) != 0)
        return error_set(err, -EINVAL, "change '%s' is not that of '%s'", change->mark,
                         entry->path);
    auto_free char *text = NULL;
    int r = journal_encode(change, entry->journal->source, &text, err);
    if (r == 0 && journal_folder_is_gone(entry->folder))
        r = move_to_own(entry, err);
    if (r < 0)
        return r;
    r = replace_file(entry, text);
    return r < 0 ? error_set(err, r, "cannot write '%s': %s", entry->path, strerrordesc_np(-r)) : 0;
}

bool journal_entry_is_lost(const struct journal_entry *entry)
{
    char name[CHANGE_MARK_LEN + sizeof(journal_entry_suffix)];
    struct stat st;
    snprintf(name, sizeof(name), "%s%s", entry->mark, journal_entry_suffix);
    return journal_folder_is_gone(entry->folder) &&
           fstatat(entry->folder->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT;
}

int journal_add(struct journal *journal, const struct change *change,
                struct journal_entry **ret_entry, struct error *err)
{
    int r = journal_check(change, err);
    if (r < 0)
        return r;
    struct journal_folder *folder = hold_own(journal, err);
    if (!folder)
        return err->code;
    struct journal_entry *entry = journal_entry_new(journal, folder, change->mark);
    if (!entry) {
        let_go(journal, folder);
        return error_set(err, -ENOMEM, "out of memory");
    }
    r = journal_update(entry, change, err);
    if (r < 0)
        journal_remove(entry);
    else
        *ret_entry = entry;
    return r;
}

void journal_remove(struct journal_entry *entry)
{
    char name[CHANGE_MARK_LEN + sizeof(journal_entry_suffix)];
    snprintf(name, sizeof(name), "%s%s", entry->mark, journal_entry_suffix);
    int dir_fd = entry->folder->fd;
    /* The next daemon would find nothing to undo in it; so going on does no harm. */
    if (unlinkat(dir_fd, name, 0) < 0 ? errno != ENOENT : fsync(dir_fd) < 0)
        log_warn("cannot delete '%s' (%s): the next mount looks at that domain again", entry->path,
                 strerrordesc_np(errno));
    let_go(entry->journal, entry->folder);
    journal_forget(entry);
}

const char *journal_source(const struct journal *journal)
{
    return journal->source;
}
