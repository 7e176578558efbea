/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A host without libvirt: each regular file of a directory is a stopped domain with one disk
 * (target "vda"). The directory is read anew at each question, so there is no state to go stale.
 */
#pragma once

#include "fs/host/host.h"

/* format=: what files that begin like qcow2 but are not named .qcow2 are. */
enum directory_format { DIRECTORY_FORMAT_NONE, DIRECTORY_FORMAT_RAW, DIRECTORY_FORMAT_QCOW2 };

struct directory_config {
    const char *path;
    const char *const *backing_dirs; /* further directories that references may lead to */
    size_t n_backing_dirs;
    enum directory_format format;
};

/* 0, or negative errno if @path or a backing directory is no directory that can be read. */
int directory_open(const struct directory_config *config, struct host **ret_host,
                   struct error *err);

/*
 * From now on this program opens no image outside of the directories of @config, whoever names it.
 * Before other threads open images. 0 or negative errno.
 */
int directory_confine_images(const struct directory_config *config, struct error *err);
