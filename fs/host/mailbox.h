/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What libvirt's callbacks leave for the worker thread: they may only queue. Counted, since a
 * callback can still be on its way when the connection it belongs to is gone. Any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { MAIL_ID_SIZE = 37 }; /* a UUID as text */

struct mailbox;

struct mailbox *mailbox_create(void); /* with one reference, or NULL: no memory */
struct mailbox *mailbox_ref(struct mailbox *box);
void mailbox_unref(struct mailbox *box); /* NULL is fine */

/* Something about the domain changed: read it again. */
void mailbox_post_changed(struct mailbox *box, const char *id);
/* The domain's new record is in the table already: tell the others. */
void mailbox_post_announce(struct mailbox *box, const char *id);
/* The connection may be dead. */
void mailbox_post_lost(struct mailbox *box);
/* A block job of some domain got further; wakes mailbox_wait_job(). */
void mailbox_post_job(struct mailbox *box);
/* For good: every wait ends, and nothing but MAIL_STOP is taken from now on. */
void mailbox_stop(struct mailbox *box);
bool mailbox_is_stopped(struct mailbox *box);

enum mail { MAIL_STOP, MAIL_LOST, MAIL_RESYNC, MAIL_CHANGED, MAIL_ANNOUNCE, MAIL_NONE };

/*
 * Waits for mail until monotonic_ns() reaches @deadline_ns (MAIL_NONE). MAIL_RESYNC means that
 * too much came at once to be kept apart.
 *
 * @ret_id  the domain, for MAIL_CHANGED and MAIL_ANNOUNCE
 */
enum mail mailbox_take(struct mailbox *box, int64_t deadline_ns, char ret_id[static MAIL_ID_SIZE]);

/* Sleeps until @deadline_ns; false if the box was stopped. */
bool mailbox_sleep(struct mailbox *box, int64_t deadline_ns);

/* Counts mailbox_post_job(). */
uint64_t mailbox_job_count(struct mailbox *box);
/* Waits until the count differs from @seen; false if the box was stopped. */
bool mailbox_wait_job(struct mailbox *box, uint64_t seen, int64_t deadline_ns);
