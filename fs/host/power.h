/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A domain's run state, as methods look at it and change it: hold a guest for a moment, save it
 * and start it again. Blocks on libvirt; one thread at a time for each struct live.
 */
#pragma once

#include "fs/host/live.h"
#include "fs/host/method.h"

struct power {
    bool is_active; /* there is a QEMU process */
    bool is_paused; /* and it does not run the guest */
    int reason;     /* of virDomainGetState(), for the state that it gave */
};

/* 0 or negative errno. */
int power_read(const struct live *live, struct power *ret_power, struct error *err);

/* 0; -EBUSY: the domain is off, or @live's guest stopped on a fault, or has a job running. */
int power_check_steady(const struct live *live, struct error *err);

/*
 * Waits until no job of the domain is under way: libvirtd ends a call whose caller was killed. For
 * a while, longer if the job makes progress. 0, or -EBUSY: it goes on.
 */
int power_settle(struct live *live, struct error *err);

/*
 * Waits for what power_settle() does not see, such as a start: libvirt answers some questions only
 * between calls that change the domain, off or not.
 */
void power_wait_call(const struct live *live, const struct change *change);

/* Stops and goes on with the guest's processors; no harm if they are so already. */
int power_suspend(const struct live *live, struct error *err);
int power_resume(const struct live *live, struct error *err);

/*
 * Saves the guest's memory beside libvirt's own state; the domain is off then. Takes as long as
 * that memory needs; given up on lack of progress, and when steps->is_cancelled() says so.
 * 0; -ETIMEDOUT; -EINTR; else what libvirt says.
 */
int power_save(struct live *live, const struct change_steps *steps, struct error *err);

/*
 * After power_save(), however it ended: starts the domain from its saved memory, or goes on with
 * the guest if it was not saved after all. A domain that is off without saved memory is left so.
 * Can be repeated.
 *
 * 0, or negative errno and what a person is to do.
 */
int power_restore(struct live *live, const struct change *change, struct error *err);
