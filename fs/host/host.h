/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The hypervisor as the rest of the program sees it: domain records from memory, and the few
 * verbs that change a domain. Two hosts exist, libvirt (host/libvirt.h) and a plain directory
 * (host/directory.h); tests bring a third.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "fs/host/domain.h"
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

/* An overlay that snapshot_take made, for snapshot_merge to undo. Owned by the caller. */
struct host_overlay {
    char *target;  /* disk, "vda" */
    char *overlay; /* path of the overlay file */
    char *base;    /* path of the layer it froze */
};
void host_overlay_fini(struct host_overlay *overlay);

struct host_ops {
    /*
     * All domains as an array of references (caller unrefs each and frees the array), sorted by
     * name. From memory or a local directory; never waits for libvirt. 0 or negative errno.
     */
    int (*list)(struct host *host, struct domain ***ret_domains, size_t *ret_n, struct error *err);
    /* The record by id or by name: a reference, or NULL if there is none. Never waits. */
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
    /*
     * Freezes the top layer of @disk of a running domain under an overlay: one external,
     * disk-only, atomic snapshot without metadata. Blocks on libvirt: never call it on a FUSE
     * thread. On success the record that find() gives afterwards shows the overlay. NULL where
     * the host cannot. 0; -EBUSY, -EOPNOTSUPP, -ETIMEDOUT, -ESTALE, -EIO.
     */
    int (*snapshot_take)(struct host *host, const struct domain *domain, const struct disk *disk,
                         struct host_overlay *ret_overlay, struct error *err);
    /*
     * Undoes it: active commit of exactly that overlay into exactly that base, pivot, delete.
     * Blocks. 0, or negative errno with the domain still on the overlay.
     */
    int (*snapshot_merge)(struct host *host, const struct domain *domain,
                          const struct host_overlay *overlay, struct error *err);
    /*
     * Freezes the guest's file systems, so that what is on its disks is complete; asks nothing of
     * a guest without an agent. NULL where the host has no guests. Blocks; the agent is given 5 s.
     * 0; -EOPNOTSUPP: no agent is there, or the guest is paused; -ESTALE: it does not run; -EIO:
     * libvirt is lost, or the agent said that it could not. After -ETIMEDOUT the guest may be
     * frozen, at once or later: only a thaw makes sure.
     */
    int (*freeze)(struct host *host, const char *id, struct error *err);
    /*
     * Asks for up to 5 s until the agent says that nothing is frozen, no matter by what. NULL
     * if freeze is. 0; -ESTALE: the guest does not run; -ETIMEDOUT: not yet, ask again.
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
