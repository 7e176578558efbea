/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The program is built twice from the same sources. The full one does everything. The lean one,
 * which users start, serves folders without uploads: it lacks what needs libvirt, libxml2, libnbd
 * and libcurl (absent.c), since to load these and the fifty libraries that they bring along takes
 * longer than all the rest of a start. For everything else it becomes the full one by exec.
 */
#pragma once

#include "fs/options.h"
#include "qcow/base/error.h"

/*
 * Becomes the full program, with the same arguments and environment, if this is the lean one and
 * @options want what it lacks. For the begin of main(): what the process has made is gone
 * afterwards, and the environment must still have its secrets.
 *
 * 0: this program will do. Or the negative errno of execve(), with the program that is missing.
 */
int full_become(const struct options *options, char *const *argv, struct error *err);
