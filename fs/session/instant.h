/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An instant of all disks of a domain: how it is fixed, its images, and how the domain is put back.
 * Owned by a session. All functions but instant_method_name() block on the hypervisor or the disk
 * and are called on the session's own thread, one at a time.
 *
 * With cold=lock nothing is changed: the images are read as they are, and QEMU's own locks make a
 * start fail meanwhile (a refused start keeps a managed-save image, so those domains are fine
 * too). Any other method changes the domain, and keeps a record of it in the journal until it is
 * undone.
 */
#pragma once

#include <time.h>

#include "fs/host/host.h"
#include "fs/session/claim.h"
#include "fs/session/image.h"
#include "fs/session/registry.h"
#include "fs/session/space.h"

struct journal_entry;

struct instant {
    const struct registry_config *config; /* borrowed */
    /* The record before the instant was taken; reference. NULL: a daemon before us left it. */
    struct domain *domain;
    /* Asked during long waits, which says that there is progress. */
    bool (*is_cancelled)(void *ctx);
    void *ctx;

    /* Set by instant_choose(); NULL: cold=lock. */
    const struct host_method *method;

    /* Set by instant_take(): */
    struct disk_image **images; /* one a disk; NULL for disks left out of the instant */
    struct error *failures;     /* one a disk: why it was left out; code 0 for the others */
    struct timespec taken;      /* wall clock, no later than the first byte that can be read */
    const char *consistency;    /* "shutdown", "crash", "filesystem" */

    /* What there is to undo; NULL once nothing is. */
    struct change *change;
    struct journal_entry *entry; /* of @change */
    struct claim claim;          /* on its overlays */

    bool is_undoing;      /* the change; or it was tried */
    bool is_without_note; /* that was logged */

    /* While the change is being made: */
    bool is_making;
    struct space_watch watch;
    int64_t look_ns;      /* monotonic: when to look for room again */
    struct error no_room; /* what ended it; code 0: nothing did */

    struct quiesce *quiesce; /* from the moment on; constant then but for its guard's work */
    unsigned settle_ms; /* for a guest still frozen after the undo; once; 0: it is tried again */
    struct error missed_freeze; /* the moment is not what quiesce=require wants; code 0: it is */
};

/* As in `status` and the xattr: "lock", "overlay", ... */
const char *instant_method_name(const struct instant *instant);

/* The method for the domain as it is, by the options. 0, -EOPNOTSUPP, -EBUSY. */
int instant_choose(struct instant *instant, struct error *err);

/*
 * Fixes the instant and opens its images. A disk that cannot be opened is left out, with the
 * reason in `failures`, so that a damaged disk does not spoil the others; but a writer (-EBUSY) on
 * any of them fails the whole, as it would make the disks of different instants, and so does
 * having none to serve. On failure nothing is left behind, unless `change` is set: then undoing
 * failed too, and release is to be tried again later.
 */
int instant_take(struct instant *instant, struct error *err);

/*
 * Puts the domain back and drops the images; reads under way keep theirs. Can be called again
 * unless it returned 0. -EAGAIN: not possible until the domain's state is another; any other
 * negative errno: it failed, and @err tells a person what to do.
 */
int instant_release(struct instant *instant, struct error *err);

/* Frees what the functions above allocated; what is still to be undone stays in the journal. */
void instant_fini(struct instant *instant);

/*
 * For instant.c: opens the images as the instant's method left them, or closes them and drops
 * QEMU's locks, also while a read is under way. instant_images.c
 */
int instant_open_images(struct instant *instant, struct error *err);
void instant_close_images(struct instant *instant);
