/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The directory that is mounted on, seen from outside: everything here asks /proc and /sys, and
 * nothing that a mount of ours would have to answer. Main thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "qcow/base/error.h"

/* What /proc/self/mountinfo calls our mounts: "fuse." and the subtype. */
#define MOUNTPOINT_SUBTYPE "virtsnapfs"

/* One line of /proc/self/mountinfo, as far as it matters here. */
struct mountinfo {
    unsigned major, minor; /* of its st_dev, which also names its backing device information */
    char *path;            /* where it is mounted */
    char *type;            /* "fuse.virtsnapfs" */
    char *source;          /* what is mounted: the SOURCE of the command line */
};

/* 0, -EINVAL for what is no such line, or -ENOMEM; mountinfo_fini() releases @ret_info. */
int mountinfo_parse(const char *line, struct mountinfo *ret_info);
void mountinfo_fini(struct mountinfo *info);

/*
 * Makes @path (absolute) ready to be mounted on: mounts of ours there whose servers have died are
 * detached first.
 *
 * 0 and the real path (caller frees); -EBUSY: a mount of ours is there, which would be hidden; or
 * another negative errno if it is no directory that can be reached.
 */
int mountpoint_prepare(const char *path, char **ret_real, struct error *err);

/*
 * The real path of what is or was mounted on, without asking a mount that is dead or about to go:
 * of its last part only whether it is a symlink is looked at. Caller frees. NULL: no such path, or
 * no memory (errno).
 */
char *mountpoint_resolve(const char *path);

/* Is the mount of ours at @real_path dead: its server gone without unmounting it? */
bool mountpoint_is_dead(const char *real_path);
/* Is there one that is not? Asks it. */
bool mountpoint_is_served(const char *real_path);

/* Takes away what is mounted on @real_path, lazily. True if that was possible. */
bool mountpoint_detach(const char *real_path);

/* The device number of the mount of ours at @real_path; false if there is none. */
bool mountpoint_find_device(const char *real_path, dev_t *ret_dev);
/* The same, and its SOURCE, which the caller frees. */
bool mountpoint_find(const char *real_path, dev_t *ret_dev, char **ret_source);
/*
 * Is the mount with that device number attached anywhere in our mount namespace? True as well if
 * that cannot be told.
 */
bool mountpoint_is_attached(dev_t dev);

/*
 * Does the file at @path lie on a mount of ours, of this program or another? True as well if that
 * cannot be told. Asks that mount.
 */
bool mountpoint_covers(const char *path);

/*
 * Ends the connection of a mount that is detached here but that others hold copies of, so that
 * they see an error and not a hang, and libfuse finds nothing left to unmount. Best effort.
 */
void mountpoint_abort(dev_t dev);

/*
 * Lets the kernel read ahead by @kib on the mount at @real_path. Its default is 128, of which a
 * single request is made at a time. Only root may; for others the mount is just slower.
 */
void mountpoint_raise_readahead(const char *real_path, unsigned kib);
