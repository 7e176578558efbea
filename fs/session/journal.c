/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/session/journal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/log.h"
#include "fs/session/journal_folder.h"
#include "fs/session/journal_internal.h"
#include "fs/state.h"
#include "qcow/base/cleanup.h"
#include "qcow/base/thread.h"

enum { HASH_LEN = 16 }; /* of the source's, in a folder's name */

static const char entry_suffix[] = ".json";
static const char aside_suffix[] = ".json.new";

struct journal {
    /* Immutable. */
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

int journal_open(const char *state_dir, const char *source, struct journal **ret_journal,
                 struct error *err)
{
    char hash[STATE_HASH_LEN];
    struct journal *journal = calloc(1, sizeof(*journal));
    if (!journal)
        return error_set(err, -ENOMEM, "out of memory");
    state_hash(source, strlen(source), hash);
    mutex_init(&journal->lock);
    if (asprintf(&journal->root, "%s/journal", state_dir) < 0)
        journal->root = NULL;
    if (asprintf(&journal->prefix, "%.*s-", HASH_LEN, hash) < 0)
        journal->prefix = NULL;
    journal->source = strdup(source);
    if (!journal->root || !journal->prefix || !journal->source) {
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
    free(journal->root);
    free(journal->source);
    free(journal->prefix);
    free(journal);
}

/* Our folder, with one more entry counted in it. */
static int hold_own(struct journal *journal, struct journal_folder **ret_folder, struct error *err)
{
    mutex_lock(&journal->lock);
    bool is_there = journal->own;
    mutex_unlock(&journal->lock);
    struct journal_folder *made = NULL;
    if (!is_there) {
        int r = journal_folder_make(journal->root, journal->prefix, &made, err);
        if (r < 0)
            return r;
    }
    mutex_lock(&journal->lock);
    if (!journal->own)
        journal->own = take_ptr(made);
    *ret_folder = journal->own;
    journal->own->n_entries++;
    mutex_unlock(&journal->lock);
    if (made) { /* another thread was faster */
        journal_folder_remove(made);
        journal_folder_close(made);
    }
    return 0;
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

/* Counts as an entry of @folder, which holds it already. */
static struct journal_entry *entry_new(struct journal *journal, struct journal_folder *folder,
                                       const char *mark)
{
    struct journal_entry *entry = calloc(1, sizeof(*entry));
    if (!entry)
        return NULL;
    *entry = (struct journal_entry){.journal = journal, .folder = folder, .mark = strdup(mark)};
    if (asprintf(&entry->path, "%s/%s%s", folder->path, mark, entry_suffix) < 0)
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
    char name[CHANGE_MARK_LEN + sizeof(entry_suffix)];
    char aside[CHANGE_MARK_LEN + sizeof(aside_suffix)];
    snprintf(name, sizeof(name), "%s%s", entry->mark, entry_suffix);
    snprintf(aside, sizeof(aside), "%s%s", entry->mark, aside_suffix);
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

int journal_update(struct journal_entry *entry, const struct change *change, struct error *err)
{
    if (strcmp(change->mark, entry->mark) != 0)
        return error_set(err, -EINVAL, "change '%s' is not that of '%s'", change->mark,
                         entry->path);
    auto_free char *text = NULL;
    int r = journal_encode(change, entry->journal->source, &text, err);
    if (r < 0)
        return r;
    r = replace_file(entry, text);
    return r < 0 ? error_set(err, r, "cannot write '%s': %s", entry->path, strerrordesc_np(-r)) : 0;
}

int journal_add(struct journal *journal, const struct change *change,
                struct journal_entry **ret_entry, struct error *err)
{
    int r = journal_check(change, err);
    if (r < 0)
        return r;
    struct journal_folder *folder;
    r = hold_own(journal, &folder, err);
    if (r < 0)
        return r;
    struct journal_entry *entry = entry_new(journal, folder, change->mark);
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
    char name[CHANGE_MARK_LEN + sizeof(entry_suffix)];
    snprintf(name, sizeof(name), "%s%s", entry->mark, entry_suffix);
    int dir_fd = entry->folder->fd;
    /* The next daemon would find nothing to undo in it; so going on does no harm. */
    if (unlinkat(dir_fd, name, 0) < 0 ? errno != ENOENT : fsync(dir_fd) < 0)
        log_warn("cannot delete '%s' (%s): the next mount looks at that domain again", entry->path,
                 strerrordesc_np(errno));
    let_go(entry->journal, entry->folder);
    journal_forget(entry);
}

/* Of journal_adopt(): what it was given, and what it has found so far. */
struct adoption {
    struct journal *journal;
    void (*note_damaged)(void *ctx, const char *path, const struct error *why);
    void *ctx;
    struct journal_leftover *leftovers;
    size_t n;
};

/* The whole file as text; caller frees. 0, -EPERM, -EBADMSG (too long), negative errno. */
static int read_file(const struct journal_entry *entry, char **ret_text, size_t *ret_len,
                     struct error *err)
{
    auto_close int fd = open(entry->path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return error_set(err, -errno, "cannot open it: %s", strerrordesc_np(errno));
    int r = journal_folder_check(fd, S_IFREG, entry->path, err);
    if (r < 0)
        return r;
    auto_free char *text = malloc(JOURNAL_FILE_MAX + 1);
    if (!text)
        return error_set(err, -ENOMEM, "out of memory");
    size_t len = 0;
    for (ssize_t n = 1; n > 0 && len <= JOURNAL_FILE_MAX; len += (size_t)n) {
        n = read(fd, text + len, JOURNAL_FILE_MAX + 1 - len);
        if (n < 0)
            return error_set(err, -errno, "cannot read it: %s", strerrordesc_np(errno));
    }
    if (len > JOURNAL_FILE_MAX)
        return error_set(err, -EBADMSG, "it has more than %d bytes", JOURNAL_FILE_MAX);
    *ret_text = take_ptr(text);
    *ret_len = len;
    return 0;
}

static int read_change(const struct journal_entry *entry, struct change **ret_change,
                       struct error *err)
{
    auto_free char *text = NULL;
    size_t len = 0;
    int r = read_file(entry, &text, &len, err);
    if (r < 0)
        return r;
    return journal_decode(text, len, entry->journal->source, entry->mark, ret_change, err);
}

/* Room for one more, so that nothing can fail once an entry was read. */
static int grow(struct adoption *adoption)
{
    struct journal_leftover *grown =
        reallocarray(adoption->leftovers, adoption->n + 1, sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    /* lint: gcc-analyzer/malloc-leak: kept by the adoption */
    adoption->leftovers = grown;
    return 0;
}

/* One file of @folder that is to be an entry. */
static void adopt_entry(struct adoption *adoption, struct journal_folder *folder, const char *mark)
{
    struct journal_entry *entry = entry_new(adoption->journal, folder, mark);
    struct error why = {0};
    struct change *change = NULL;
    if (!entry || grow(adoption) < 0)
        error_set(&why, -ENOMEM, "out of memory");
    else
        read_change(entry, &change, &why);
    if (!change) {
        adoption->note_damaged(adoption->ctx, entry ? entry->path : folder->path, &why);
        journal_forget(entry);
        return;
    }
    /* lint: gcc-analyzer/malloc-leak: kept at an index that gcc loses sight of */
    adoption->leftovers[adoption->n++] =
        (struct journal_leftover){.entry = entry, .change = change};
    folder->n_entries++; /* nobody else knows the folder yet */
}

/* Does @name end in @suffix? Then it is cut off. */
static bool cut_suffix(char *name, const char *suffix)
{
    size_t len = strlen(name), suffix_len = strlen(suffix);
    if (len < suffix_len || strcmp(name + len - suffix_len, suffix) != 0)
        return false;
    name[len - suffix_len] = '\0';
    return true;
}

static void adopt_name(struct adoption *adoption, struct journal_folder *folder, const char *name)
{
    auto_free char *mark = strdup(name);
    if (!mark)
        return;
    if (cut_suffix(mark, aside_suffix)) {
        if (journal_is_mark(mark))
            unlinkat(folder->fd, name, 0); /* written aside by one that did not get to the rename */
    } else if (cut_suffix(mark, entry_suffix)) {
        adopt_entry(adoption, folder, mark);
    }
}

/* Calls @visit for each name in the folder. 0 or negative errno. */
static int walk_folder(const char *path, void (*visit)(void *ctx, const char *name), void *ctx)
{
    DIR *dir = opendir(path);
    if (!dir)
        return -errno;
    const struct dirent *item;
    /* lint: clang-tidy/concurrency-mt-unsafe: nobody else reads this stream */
    /* lint: cppcheck/readdirCalled: glibc calls readdir_r, which is wanted, deprecated */
    for (errno = 0; (item = readdir(dir)); errno = 0)
        visit(ctx, item->d_name);
    int r = -errno;
    closedir(dir);
    return r;
}

struct folder_walk {
    struct adoption *adoption;
    struct journal_folder *folder;
};

static void visit_file(void *ctx, const char *name)
{
    const struct folder_walk *walk = ctx;
    adopt_name(walk->adoption, walk->folder, name);
}

/* The folder is the journal's now, if there is an entry in it. 0 or -ENOMEM. */
static int keep_adopted(struct journal *journal, struct journal_folder *folder)
{
    mutex_lock(&journal->lock);
    struct journal_folder **grown =
        reallocarray(journal->adopted, journal->n_adopted + 1, sizeof(struct journal_folder *));
    if (grown) {
        journal->adopted = grown;
        grown[journal->n_adopted++] = folder;
    }
    mutex_unlock(&journal->lock);
    /* lint: gcc-analyzer/malloc-leak: kept by the journal */
    return grown ? 0 : -ENOMEM;
}

static void drop_leftovers(struct adoption *adoption, size_t n_kept)
{
    while (adoption->n > n_kept) {
        const struct journal_leftover *last = &adoption->leftovers[--adoption->n];
        journal_forget(last->entry);
        change_free(last->change);
    }
}

/* What cannot be done with this folder is told, and no reason to leave out others. */
static void adopt_folder(struct adoption *adoption, const char *path)
{
    struct error why = {0};
    struct journal_folder *folder;
    auto_free char *taken = strdup(path);
    int r = taken ? journal_folder_take(take_ptr(taken), &folder, &why)
                  : error_set(&why, -ENOMEM, "out of memory");
    if (r == -EAGAIN)
        return;
    if (r < 0) {
        adoption->note_damaged(adoption->ctx, path, &why);
        return;
    }
    size_t n_before = adoption->n;
    struct folder_walk walk = {.adoption = adoption, .folder = folder};
    r = walk_folder(path, visit_file, &walk);
    if (r == 0 && folder->n_entries > 0)
        r = keep_adopted(adoption->journal, folder);
    if (r == 0 && folder->n_entries > 0)
        return;
    if (r < 0) {
        drop_leftovers(adoption, n_before);
        error_set(&why, r, "cannot read it: %s", strerrordesc_np(-r));
        adoption->note_damaged(adoption->ctx, path, &why);
    } else {
        journal_folder_remove(folder);
    }
    journal_folder_close(folder);
}

static void visit_folder(void *ctx, const char *name)
{
    struct adoption *adoption = ctx;
    const struct journal *journal = adoption->journal;
    if (strncmp(name, journal->prefix, strlen(journal->prefix)) != 0)
        return;
    auto_free char *path = NULL;
    if (asprintf(&path, "%s/%s", journal->root, name) < 0) {
        path = NULL;
        struct error why;
        error_set(&why, -ENOMEM, "out of memory");
        adoption->note_damaged(adoption->ctx, name, &why);
        return;
    }
    adopt_folder(adoption, path);
}

int journal_adopt(struct journal *journal,
                  void (*note_damaged)(void *ctx, const char *path, const struct error *why),
                  void *ctx, struct journal_leftover **ret_leftovers, size_t *ret_n,
                  struct error *err)
{
    struct adoption adoption = {.journal = journal, .note_damaged = note_damaged, .ctx = ctx};
    auto_close int fd = -1;
    int r = journal_folder_open_root(journal->root, &fd, err);
    if (r == 0) {
        r = walk_folder(journal->root, visit_folder, &adoption);
        if (r < 0)
            error_set(err, r, "cannot read '%s': %s", journal->root, strerrordesc_np(-r));
    }
    if (r < 0 && r != -ENOENT) {
        drop_leftovers(&adoption, 0);
        free(adoption.leftovers);
        return r;
    }
    *ret_leftovers = adoption.leftovers;
    *ret_n = adoption.n;
    return 0;
}

const char *journal_source(const struct journal *journal)
{
    return journal->source;
}

struct search {
    const struct journal *journal;
    const char *mark;
    bool is_found;
};

static void visit_search(void *ctx, const char *name)
{
    struct search *search = ctx;
    auto_free char *path = NULL;
    if (asprintf(&path, "%s/%s/%s%s", search->journal->root, name, search->mark, entry_suffix) < 0)
        path = NULL;
    search->is_found |= !path || access(path, F_OK) == 0;
}

bool journal_names(const struct journal *journal, const char *mark)
{
    struct search search = {.journal = journal, .mark = mark};
    int r = walk_folder(journal->root, visit_search, &search);
    return search.is_found || (r < 0 && r != -ENOENT);
}
