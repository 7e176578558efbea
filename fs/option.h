/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The named options, which are the same as long options and as -o words: what each is called, what
 * values it takes, where they go. Part of options.c's work; main thread only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "fs/options.h"
#include "qcow/base/error.h"

/* What the setter of one option is given. */
struct option_value {
    struct options *options;
    const char *name;
    const char *text; /* the value; NULL for options without one */
};

struct option {
    const char *name;
    bool has_value;
    int (*set)(const struct option_value *value, struct error *err);
};

/* The option whose name is the first @len bytes of @name, or NULL. */
const struct option *option_find(const char *name, size_t len);

/* Checks and stores @value (NULL: none was given). 0, -EINVAL or -ENOMEM. */
int option_apply(struct options *options, const struct option *option, const char *value,
                 struct error *err);

/*
 * True for words that mount(8), fstab and systemd say among themselves, and for those that say
 * what a mount of ours is in any case.
 */
bool option_is_mount_word(const char *word);

/*
 * @path (not empty), put behind the working directory if it is relative; caller frees. Symlinks
 * stay: they may be meant to lead elsewhere later on. 0 or negative errno.
 */
int option_make_absolute(const char *path, char **ret_path, struct error *err);
