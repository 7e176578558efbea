/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The program as mount(8)'s helper, under the names mount.virtsnapfs and mount.fuse.virtsnapfs:
 * `mount.virtsnapfs SPEC DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]`. The letters are not
 * those of the program's own command line. Main thread, before there is another.
 */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#include "fs/options.h"
#include "qcow/base/error.h"

struct helper {
    bool is_called; /* nothing below says anything unless it is */
    bool is_fake;   /* check, and mount nothing */
    bool is_verbose;
    char *namespace_path; /* of the mount namespace to work in, or NULL: where we are */
};

/*
 * Reads the command line of either kind; argv[0] tells which. With OPTIONS_HELP and
 * OPTIONS_VERSION the rest may be unset. Results and errors as those of options_parse(); release
 * both with their fini, in any case.
 */
int helper_parse(int argc, char *const *argv, struct helper *ret_helper,
                 struct options *ret_options, struct error *err);
void helper_fini(struct helper *helper);

/*
 * Before anything else is done: goes over to the namespace that -N names, if any, and to its root
 * folder, which mount(8) leaves to its helpers (util-linux, libmount/src/context_mount.c); with -f
 * looks at what can be told without a word to libvirt. 0; -EINVAL: the source cannot be right;
 * other negative errno.
 */
int helper_begin(const struct helper *helper, const struct options *options, struct error *err);

/* With -v, on standard output. */
void helper_say_mounted(const struct helper *helper, const struct options *options);

/* What mount(8) expects in place of the program's @status: 0, 1, 2, or 32 for all others. */
int helper_status(const struct helper *helper, int status);

void helper_print_help(FILE *to);
