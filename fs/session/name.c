/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/session/name.h"

#include <errno.h>
#include <search.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "qcow/base/cleanup.h"

enum {
    /* A snapshot's id is a small number in practice; a longer one is cut, like the name. */
    ID_SHOWN_MAX = 64,
    /* Whatever the targets are, a name keeps room to tell it from others. */
    NAME_ROOM_MIN = 100,
};

static bool must_escape(unsigned char c)
{
    return c == '/' || c == '%' || c == '@' || c < 0x20 || c == 0x7f;
}

/* Index in @raw of the '.' before one of @targets at its end, or SIZE_MAX. */
static size_t find_target_dot(const char *raw, const char *const *targets, size_t n_targets)
{
    size_t len = strlen(raw);
    for (size_t i = 0; i < n_targets; i++) {
        size_t target_len = strlen(targets[i]);
        if (len > target_len && raw[len - target_len - 1] == '.' &&
            strcmp(raw + len - target_len, targets[i]) == 0)
            return len - target_len - 1;
    }
    return SIZE_MAX;
}

/* @raw with %XX where needed; caller frees; NULL: no memory. */
static char *escape(const char *raw, const char *const *targets, size_t n_targets)
{
    size_t dot = find_target_dot(raw, targets, n_targets);
    size_t len = strlen(raw);
    if (len > (SIZE_MAX - 1) / 3)
        return NULL;
    char *out = malloc(3 * len + 1);
    if (!out)
        return NULL;
    char *at = out;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)raw[i];
        if (must_escape(c) || i == dot || (i == 0 && c == '.'))
            at += sprintf(at, "%%%02X", c);
        else
            *at++ = (char)c;
    }
    *at = '\0';
    return out;
}

/* Cuts an escaped name to @room bytes, between characters: %XX and UTF-8 stay whole. */
static void cut(char *name, size_t room)
{
    if (strlen(name) <= room)
        return;
    size_t end = room;
    /* lint: clang-analyzer/core.UndefinedBinaryOperatorResult: end is below the length */
    for (unsigned back = 0; back < 3 && end > 0 && (name[end] & 0xc0) == 0x80; back++)
        end--;
    if (end >= 1 && name[end - 1] == '%')
        end--;
    else if (end >= 2 && name[end - 2] == '%')
        end -= 2;
    name[end] = '\0';
}

/* FNV-1a: tells apart what was cut to the same beginning. */
static uint64_t hash_text(const char *text)
{
    uint64_t hash = 0xcbf29ce484222325U;
    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * 0x100000001b3U;
    return hash;
}

/* NAME@SUFFIX in at most @room bytes; @suffix is short. Caller frees. */
static char *join_at(const char *name, const char *suffix, size_t room)
{
    auto_free char *head = strdup(name);
    if (!head)
        return NULL;
    cut(head, room - strlen(suffix) - 1);
    char *out = NULL;
    return asprintf(&out, "%s@%s", head, suffix) < 0 ? NULL : out;
}

char *name_of_domain(const char *raw)
{
    auto_free char *name = escape(raw, NULL, 0);
    if (!name)
        return NULL;
    if (*name && strlen(name) <= NAME_FILE_MAX)
        return take_ptr(name);
    char suffix[17];
    snprintf(suffix, sizeof(suffix), "%016llx", (unsigned long long)hash_text(raw));
    return join_at(name, suffix, NAME_FILE_MAX);
}

static size_t room_for_name(const char *const *targets, size_t n_targets)
{
    size_t longest = 0;
    for (size_t i = 0; i < n_targets; i++)
        if (strlen(targets[i]) > longest)
            longest = strlen(targets[i]);
    size_t suffix = strlen(".") + longest + strlen(".qcow2");
    return suffix > NAME_FILE_MAX - NAME_ROOM_MIN ? NAME_ROOM_MIN : NAME_FILE_MAX - suffix;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* 1 if @name is new among @names and was added, 0 if it is taken, -ENOMEM. */
static int claim(void **names, const char *name)
{
    const char *const *node = tsearch(name, names, compare_names);
    if (!node)
        return -ENOMEM;
    return *node == name;
}

struct naming {
    void *names; /* tree of the names given so far */
    const char *const *targets;
    size_t n_targets;
    size_t room;
};

/* Tries @candidate (may be NULL for "no memory"; taken over): 1, 0 or -ENOMEM like claim(). */
static int try_name(struct naming *naming, char *candidate, char **ret_shown)
{
    if (!candidate)
        return -ENOMEM;
    int r = claim(&naming->names, candidate);
    if (r == 1)
        *ret_shown = candidate;
    else
        free(candidate);
    return r;
}

/* The three spellings in turn: NAME; NAME@ID; and, where an image repeats ids, NAME@ID@INDEX. */
static int name_one(struct naming *naming, struct name_request *request, size_t index)
{
    bool is_now = strcmp(request->raw, "now") == 0;
    auto_free char *name =
        is_now ? strdup("%6Eow") : escape(request->raw, naming->targets, naming->n_targets);
    auto_free char *id = escape(request->id, naming->targets, naming->n_targets);
    if (!name || !id)
        return -ENOMEM;
    if (*name && strlen(name) <= naming->room) {
        int r = try_name(naming, strdup(name), &request->shown);
        if (r != 0)
            return r < 0 ? r : 0;
    }
    bool is_id_whole = strlen(id) <= ID_SHOWN_MAX;
    cut(id, ID_SHOWN_MAX);
    /* A cut id may end in ".TARGET" by chance: only a whole one ends a name. */
    if (is_id_whole) {
        int r = try_name(naming, join_at(name, id, naming->room), &request->shown);
        if (r != 0)
            return r < 0 ? r : 0;
    }
    char suffix[ID_SHOWN_MAX + 32];
    snprintf(suffix, sizeof(suffix), "%s@%zu", id, index);
    int r = try_name(naming, join_at(name, suffix, naming->room), &request->shown);
    /* The index is ours alone, so the third spelling cannot be taken. */
    return r < 0 ? r : 0;
}

static void keep_node(void *node)
{
    (void)node; /* the names belong to the requests */
}

int name_snapshots(struct name_request *requests, size_t n, const char *const *targets,
                   size_t n_targets)
{
    struct naming naming = {
        .targets = targets,
        .n_targets = n_targets,
        .room = room_for_name(targets, n_targets),
    };
    int r = 0;
    for (size_t i = 0; i < n; i++)
        requests[i].shown = NULL;
    for (size_t i = 0; i < n && r == 0; i++)
        r = name_one(&naming, &requests[i], i);
    tdestroy(naming.names, keep_node);
    for (size_t i = 0; i < n && r < 0; i++)
        free(take_ptr(requests[i].shown));
    return r;
}

const char *name_suffix(enum view view)
{
    return view == VIEW_RAW ? ".raw" : ".qcow2";
}

static bool has_suffix(const char *file, const char *suffix)
{
    size_t len = strlen(file), suffix_len = strlen(suffix);
    return len > suffix_len && strcmp(file + len - suffix_len, suffix) == 0;
}

enum view name_view(const char *file)
{
    return has_suffix(file, name_suffix(VIEW_QCOW2)) ? VIEW_QCOW2 : VIEW_RAW;
}

int name_parse(const char *file, const char *const *targets, size_t n_targets, char **ret_name,
               int *ret_target)
{
    const char *suffix = name_suffix(name_view(file));
    if (!has_suffix(file, suffix))
        return -ENOENT;
    size_t len = strlen(file), suffix_len = strlen(suffix);
    auto_free char *name = strndup(file, len - suffix_len);
    if (!name)
        return -ENOMEM;
    int target = -1;
    size_t dot = find_target_dot(name, targets, n_targets);
    if (dot != SIZE_MAX) {
        for (size_t i = 0; i < n_targets && target < 0; i++)
            if (strcmp(name + dot + 1, targets[i]) == 0)
                target = (int)i;
        name[dot] = '\0';
    }
    if (!*name)
        return -ENOENT;
    *ret_name = take_ptr(name);
    *ret_target = target;
    return 0;
}
