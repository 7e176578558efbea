/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The half of the journal that reads: what daemons before us, or beside us, have left. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/session/journal_internal.h"
#include "fs/session/journal_parts.h"
#include "qcow/base/cleanup.h"

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
    struct journal_entry *entry = journal_entry_new(adoption->journal, folder, mark);
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
    if (cut_suffix(mark, journal_aside_suffix)) {
        if (journal_is_mark(mark))
            unlinkat(folder->fd, name, 0); /* written aside by one that did not get to the rename */
    } else if (cut_suffix(mark, journal_entry_suffix)) {
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
        r = journal_keep_adopted(adoption->journal, folder);
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

struct search {
    const struct journal *journal;
    const char *mark;
    bool is_found;
};

static void visit_search(void *ctx, const char *name)
{
    struct search *search = ctx;
    auto_free char *path = NULL;
    if (asprintf(&path, "%s/%s/%s%s", search->journal->root, name, search->mark,
                 journal_entry_suffix) < 0)
        path = NULL;
    search->is_found |= !path || access(path, F_OK) == 0;
}

bool journal_names(const struct journal *journal, const char *mark)
{
    struct search search = {.journal = journal, .mark = mark};
    int r = walk_folder(journal->root, visit_search, &search);
    return search.is_found || (r < 0 && r != -ENOENT);
}

/* Of journal_count_left(). */
struct count {
    const struct journal *journal;
    size_t n;
    int r; /* negative errno of what could not be read */
};

static void count_entry(void *ctx, const char *name)
{
    struct count *count = ctx;
    auto_free char *mark = strdup(name);
    if (!mark)
        count->r = -ENOMEM;
    else if (cut_suffix(mark, journal_entry_suffix) && journal_is_mark(mark))
        count->n++;
}

static void count_folder(void *ctx, const char *name)
{
    struct count *count = ctx;
    const struct journal *journal = count->journal;
    if (strncmp(name, journal->prefix, strlen(journal->prefix)) != 0)
        return;
    auto_free char *path = NULL;
    if (asprintf(&path, "%s/%s", journal->root, name) < 0) {
        path = NULL;
        count->r = -ENOMEM;
    } else if (!journal_folder_is_owned(path)) {
        int r = walk_folder(path, count_entry, count);
        count->r = r < 0 && r != -ENOENT ? r : count->r;
    }
}

int journal_count_left(const struct journal *journal, size_t *ret_n, struct error *err)
{
    struct count count = {.journal = journal};
    int r = walk_folder(journal->root, count_folder, &count);
    if (r == 0)
        r = count.r;
    if (r < 0 && r != -ENOENT)
        return error_set(err, r, "cannot read '%s': %s", journal->root, strerrordesc_np(-r));
    *ret_n = count.n;
    return 0;
}
