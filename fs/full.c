/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The full program's; lean.c has the other one. Both stand in files of their own: which one is
 * linked is what makes the two programs.
 */
#include "fs/full.h"

int full_become(const struct options *options, char *const *argv, struct error *err)
{
    (void)options;
    (void)argv;
    (void)err;
    return 0;
}
