/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * File names for domains and snapshots: a line of targets, then lines of id, tab, name. Whatever
 * they are, the names can be names of files, are all different, and lead back to their snapshot.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/session/name.h"
#include "tests/fuzz/fuzz.h"

enum { TARGETS_MAX = 4, SNAPSHOTS_MAX = 40 };

static void check_name(const char *name)
{
    fuzz_check(name[0] && name[0] != '.' && strlen(name) <= NAME_FILE_MAX);
    for (const char *at = name; *at; at++)
        fuzz_check((unsigned char)*at >= ' ' && *at != '/' && *at != 0x7f);
}

static void check_file(const char *shown, const char *const *targets, size_t n, int target,
                       enum view view)
{
    char *file = NULL, *name = NULL;
    int found = -2;
    fuzz_check(asprintf(&file, "%s%s%s%s", shown, target < 0 ? "" : ".",
                        target < 0 ? "" : targets[target], name_suffix(view)) > 0);
    fuzz_check(strlen(file) <= NAME_FILE_MAX && name_view(file) == view);
    fuzz_check(name_parse(file, targets, n, &name, &found) == 0);
    fuzz_check(found == target && strcmp(name, shown) == 0);
    free(name);
    free(file);
}

static void check_names(const struct name_request *requests, size_t n, const char *const *targets,
                        size_t n_targets)
{
    for (size_t i = 0; i < n; i++) {
        check_name(requests[i].shown);
        fuzz_check(strcmp(requests[i].shown, "now") != 0);
        for (size_t j = 0; j < i; j++)
            fuzz_check(strcmp(requests[i].shown, requests[j].shown) != 0);
        for (int target = -1; target < (int)n_targets; target++) {
            check_file(requests[i].shown, targets, n_targets, target, VIEW_RAW);
            check_file(requests[i].shown, targets, n_targets, target, VIEW_QCOW2);
        }
    }
}

/* As libvirt's: not empty, unique, without '/'; of the usual length. */
static size_t take_targets(struct fuzz_input *in, const char **ret_targets)
{
    size_t n = 0;
    char *line = fuzz_text(in, '\n');
    struct fuzz_input words = {.at = (const uint8_t *)line, .left = strlen(line)};
    while (words.left > 0 && n < TARGETS_MAX) {
        char *word = fuzz_text(&words, ' ');
        bool is_fit = word[0] && strlen(word) <= 60 && strspn(word, "abcdefxyz0123456789") > 0 &&
                      !word[strspn(word, "abcdefxyz0123456789")];
        for (size_t i = 0; i < n; i++)
            is_fit = is_fit && strcmp(ret_targets[i], word) != 0;
        if (is_fit)
            ret_targets[n++] = word;
        else
            free(word);
    }
    free(line);
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct fuzz_input in = {.at = data, .left = len};
    const char *targets[TARGETS_MAX];
    struct name_request requests[SNAPSHOTS_MAX];
    size_t n_targets = take_targets(&in, targets), n = 0;
    for (; in.left > 0 && n < SNAPSHOTS_MAX; n++) {
        char *id = fuzz_text(&in, '\t'), *name = fuzz_text(&in, '\n');
        requests[n] = (struct name_request){.raw = name, .id = id};
        char *domain = name_of_domain(name);
        fuzz_check(domain);
        check_name(domain);
        free(domain);
    }
    fuzz_check(name_snapshots(requests, n, targets, n_targets) == 0);
    check_names(requests, n, targets, n_targets);
    for (size_t i = 0; i < n; i++) {
        free(requests[i].shown);
        free((char *)requests[i].raw);
        free((char *)requests[i].id);
    }
    for (size_t i = 0; i < n_targets; i++)
        free((char *)targets[i]);
    return 0;
}
