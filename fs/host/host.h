/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The hypervisor as the rest of the program sees it: domain records from memory, and the few
 * verbs that change a domain. Two hosts exist, libvirt (host/libvirt.h) and a plain directory
 * (host/directory.h); tests bring a third.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "fs/host/change.h"
#include "fs/host/domain.h"
#include "fs/host/method.h"
#include "qcow/base/error.h"

struct host;

/*
 * Called on a thread of the host with no lock held, after the new record can be found. The
 * callee only notes what it needs and never calls back into libvirt.
 */
struct host_events {
    void (*domain_changed)(void *ctx, const struct domain *domain);
    void (*domain_gone)(void *ctx, const char *id);
    void *ctx;
};

struct host_ops {
    /*
     * All domains as an array of references (caller unrefs each and frees the array), sorted by
     * name. From memory or a local directory; never waits for libvirt. 0 or negative errno.
     */
    int (*list)(struct host *host, struct domain ***ret_domains, size_t *ret_n, struct error *err);
    /*
     * The record by id or by name: a reference, or NULL. Then errno is ENOENT if there is none;
     * anything else (EMFILE, ENOMEM) says that it could not be found out. Never waits.
     */
    struct domain *(*find)(struct host *host, const char *id);
    struct domain *(*find_name)(struct host *host, const char *name);
    /*
     * Brings the record up to date by asking, for who is about to act on it: events come a moment
     * after the fact. Blocks on libvirt: never call it on a FUSE thread. NULL where records are
     * always true. 0; -ESTALE the domain is gone; -EIO, -ETIMEDOUT: the record stays as it was.
     */
    int (*refresh)(struct host *host, const char *id, struct error *err);
    /*
     * Judges and opens a reference that an image of a disk makes, as qcow_opener says; @ctx is
     * a struct host_image_ctx. Never NULL.
     */
    int (*open_ref)(void *ctx, const struct qcow_ref *ref, struct qcow_file *ret_file,
                    struct error *err);
    /* How this host fixes an instant that way, or NULL if it cannot. Never NULL itself. */
    const struct host_method *(*method)(struct host *host, enum change_method method);
    /*
     * Freezes the file systems of a running guest by its agent, which is given 5 s. Blocks on the
     * guest: never call it on a FUSE thread. NULL where the host cannot. 0; -EOPNOTSUPP: no agent,
     * or the guest is paused; -ETIMEDOUT: the agent hangs, and was not asked; -ESTALE: the guest
     * does not run; -EIO: libvirt is lost, or the agent said that it could not. -EINPROGRESS: it
     * was asked and did not answer, so the guest may be frozen, or be so later.
     */
    int (*freeze)(struct host *host, const char *id, struct error *err);
    /*
     * Asks for up to 5 s until the agent says that nothing is frozen, no matter by what; blocks
     * likewise. NULL if freeze is. 0; -ESTALE: the guest does not run; -ETIMEDOUT: ask again.
     */
    int (*thaw)(struct host *host, const char *id, struct error *err);
    /* Ends threads and connection. */
    void (*close)(struct host *host);
};

/* Embedded as first member by each host. */
struct host {
    const struct host_ops *ops;
};

/* For open_ref: which host and which disk the image belongs to. */
struct host_image_ctx {
    struct host *host;
    const struct disk *disk;
};

/* Releases what ops->list gave. */
void host_list_free(struct domain **domains, size_t n);
