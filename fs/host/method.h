/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How a host fixes an instant of a domain: one file a method. All verbs but can() block on the
 * hypervisor and are called on a session's own thread, one at a time for each domain.
 */
#pragma once

#include "fs/host/change.h"
#include "fs/host/domain.h"

struct host;

/* What a method asks of its caller while it works. All are called on the caller's thread. */
struct change_steps {
    /*
     * Puts @change as it is now to disk. To be called before anything is done that its flags
     * announce. 0, or negative errno: then that must not be done.
     */
    int (*note)(void *ctx, const struct change *change, struct error *err);
    /*
     * Right before the moment that the instant stands for: freezes the guest's file systems if
     * that is wanted, and takes the time. 0, or negative errno: the instant is not wanted any
     * more. leave() comes right after the moment, in any case, and thaws.
     */
    int (*enter)(void *ctx, struct change *change, struct error *err);
    void (*leave)(void *ctx, struct change *change);
    /*
     * True once nobody waits for the instant any more; asked during long waits. In undo the answer
     * does not matter, but to ask says that there is progress.
     */
    bool (*is_cancelled)(void *ctx);
    void *ctx;
};

struct host_method {
    enum change_method method;
    bool ends_with_guest; /* what it serves is gone when the domain's QEMU process is */
    /*
     * From the record alone: 0, or -EOPNOTSUPP or -EBUSY with the reason why this method cannot
     * do this domain. Pure.
     */
    int (*can)(const struct host *host, const struct domain *domain, struct error *err);
    /*
     * Looks at the domain as it is at this moment, refuses what would fail or do harm (a foreign
     * job, a managed-save image, another's overlay ...), and says what is to be done: fills
     * disks, files and socket of @change. Changes nothing.
     * 0; -EBUSY, -EOPNOTSUPP, -ESTALE, -EIO, -ETIMEDOUT.
     */
    int (*plan)(struct host *host, const struct domain *domain, struct change *change,
                struct error *err);
    /*
     * Does it. The caller has written @change to disk. On failure the caller calls undo, whatever
     * was done.
     */
    int (*make)(struct host *host, struct change *change, const struct change_steps *steps,
                struct error *err);
    /*
     * Brings the domain back to what it was, from whatever state it is found in: make ended
     * anywhere, or well; a former undo did; others did something meanwhile. Can be repeated.
     * Touches nothing that is not this change's.
     *
     * 0: nothing of the change is left. -EAGAIN: it cannot be undone now, but when the domain's
     * state is another (it was saved, or moved away, on its overlay). Any other: it failed, and
     * @err tells a person what to do.
     */
    int (*undo)(struct host *host, struct change *change, const struct change_steps *steps,
                struct error *err);
};
