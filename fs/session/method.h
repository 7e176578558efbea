/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How an instant is fixed: the seam between sessions and the ways to make a disk hold still. One
 * file a method. All verbs may block on libvirt or disk and are called on the session's own
 * thread, one at a time for each domain.
 */
#pragma once

#include <time.h>

#include "fs/host/host.h"
#include "fs/session/image.h"

/* An instant of all disks of a domain, as its method sees it. Owned by the session. */
struct instant {
    struct host *host;        /* borrowed */
    struct domain *domain;    /* the record before the instant was taken; reference */
    struct qcow_cache *cache; /* borrowed */

    /* Filled by take: */
    struct disk_image **images; /* one a disk; NULL for disks left out of the instant */
    struct error *failures;     /* one a disk: why it was left out; code 0 for the others */
    struct timespec taken;      /* wall clock, no later than the first byte that can be read */
    const char *consistency;    /* "shutdown", "crash", "filesystem" */
    const char *growing;        /* file that grows until release, for status; or NULL */
    void *private_data;         /* what release has to undo; NULL once nothing is left to undo */
};

struct method {
    const char *name;
    /* 0, or -EOPNOTSUPP/-EBUSY with the reason why it cannot do this domain. Changes nothing. */
    int (*can)(struct host *host, const struct domain *domain, struct error *err);
    /*
     * Fixes the instant and opens its images. On failure nothing is left behind, unless
     * private_data is set: then undoing failed too and release is to be tried again later.
     */
    int (*take)(struct instant *instant, struct error *err);
    /*
     * Puts the domain back. The images' readers are gone or answered already, but images still
     * hold locks until now. 0, or negative errno: something is left for a person; may be called
     * again.
     */
    int (*release)(struct instant *instant, struct error *err);
    /* Frees private_data and leaves the domain as it is; NULL if take never sets it. */
    void (*forget)(struct instant *instant);
};

extern const struct method method_lock;    /* cold=lock */
extern const struct method method_overlay; /* live=overlay */

/*
 * Opens the image of each disk of @instant->domain into @instant->images. A disk that cannot be
 * opened is left out, with the reason in @instant->failures, so that a damaged disk does not
 * spoil the others; but a writer (-EBUSY) on any of them fails the whole, as it would make the
 * disks of different instants, and so does having none to serve. For use by methods.
 */
int instant_open_images(struct instant *instant, enum qemulock_hold top_hold, struct error *err);

/* Lets go of the images and of QEMU's locks on them, also while a read is under way. */
void instant_close_images(struct instant *instant);

/* Frees what the functions above allocated, and the reference to the record. */
void instant_fini(struct instant *instant);
