/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One mount: from the kernel's acceptance to the end of serving. Main thread, except for
 * mount_stop().
 */
#pragma once

#include <stdbool.h>

#include "fs/fuse/attach.h"
#include "fs/fuse/tree.h"
#include "fs/glance/upload.h"
#include "qcow/base/error.h"

struct mount;

struct mount_config {
    struct tree_config tree;
    struct attach_config attach; /* as the broker was told, if there is one */
    struct glance *glance;       /* uploads go there; borrowed until mount_close(); NULL: nowhere */
    const char *no_glance;       /* why there is none, if that is no wish; borrowed likewise */
    unsigned max_uploads;        /* at once, at least 1 */
    bool is_single_thread;
};

/* Mounts; requests wait until mount_serve(). 0 or negative errno. */
int mount_open(const struct mount_config *config, struct mount **ret_mount, struct error *err);

/* The real path that is mounted on; borrowed. */
const char *mount_path(const struct mount *mount);

/* Serves until unmounted, aborted or stopped. 0, or negative errno if serving failed. */
int mount_serve(struct mount *mount, struct error *err);

/*
 * True once the mount is gone from our mount namespace. That need not end mount_serve(): a QEMU
 * that was started meanwhile may hold a copy in a namespace of its own, out of anybody's reach.
 * Any thread.
 */
bool mount_is_detached(const struct mount *mount);

/*
 * Cancels the uploads that have not ended; no new ones from now on. Before registry_shutdown(), so
 * that they end by themselves. Does not wait. May be called again.
 */
void mount_cancel_uploads(struct mount *mount);
/*
 * Waits until they have ended and their images are deleted. After registry_shutdown(), so that no
 * guest waits for Glance. May be called again.
 */
void mount_end_uploads(struct mount *mount);

/* Makes mount_serve() return, also if it is only about to begin; waits for that. Other threads. */
void mount_stop(struct mount *mount);

/*
 * Unmounts (lazily, if still in use), waits for opens that still wait, closes what is open. After
 * mount_end_uploads() and registry_shutdown(). NULL is fine.
 */
void mount_close(struct mount *mount);
