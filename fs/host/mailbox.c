/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/mailbox.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qcow/base/thread.h"

enum {
    CHANGED_MAX = 1024, /* beyond, reading all domains costs less */
    /* Reading all domains does not replace an announcement; those are at most one an instant. */
    LETTERS_MAX = CHANGED_MAX + 64,
};

struct letter {
    enum mail kind; /* MAIL_CHANGED or MAIL_ANNOUNCE */
    char id[MAIL_ID_SIZE];
};

struct mailbox {
    struct mutex lock;
    struct cond changed;
    struct letter letters[LETTERS_MAX] GUARDED_BY(lock); /* oldest first */
    size_t n_letters GUARDED_BY(lock);
    uint64_t job_count GUARDED_BY(lock);
    bool is_lost GUARDED_BY(lock);
    bool is_full GUARDED_BY(lock);
    bool is_stopped GUARDED_BY(lock);

    unsigned refs; /* atomic */
};

struct mailbox *mailbox_create(void)
{
    struct mailbox *box = calloc(1, sizeof(*box));
    if (!box)
        return NULL;
    mutex_init(&box->lock);
    cond_init(&box->changed);
    box->refs = 1;
    return box;
}

struct mailbox *mailbox_ref(struct mailbox *box)
{
    __atomic_add_fetch(&box->refs, 1, __ATOMIC_RELAXED);
    return box;
}

void mailbox_unref(struct mailbox *box)
{
    if (!box || __atomic_sub_fetch(&box->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    cond_fini(&box->changed);
    mutex_fini(&box->lock);
    free(box);
}

static void post_letter_locked(struct mailbox *box, enum mail kind, const char *id)
    REQUIRES(box->lock)
{
    for (size_t i = 0; i < box->n_letters; i++)
        if (box->letters[i].kind == kind && strcmp(box->letters[i].id, id) == 0)
            return;
    size_t room = kind == MAIL_CHANGED ? CHANGED_MAX : LETTERS_MAX;
    if (box->n_letters >= room) {
        box->is_full = true;
        return;
    }
    struct letter *letter = &box->letters[box->n_letters++];
    letter->kind = kind;
    snprintf(letter->id, sizeof(letter->id), "%s", id);
}

static void post_letter(struct mailbox *box, enum mail kind, const char *id)
{
    mutex_lock(&box->lock);
    post_letter_locked(box, kind, id);
    cond_wake_all(&box->changed);
    mutex_unlock(&box->lock);
}

void mailbox_post_changed(struct mailbox *box, const char *id)
{
    post_letter(box, MAIL_CHANGED, id);
}

void mailbox_post_announce(struct mailbox *box, const char *id)
{
    post_letter(box, MAIL_ANNOUNCE, id);
}

void mailbox_post_lost(struct mailbox *box)
{
    mutex_lock(&box->lock);
    box->is_lost = true;
    cond_wake_all(&box->changed);
    mutex_unlock(&box->lock);
}

void mailbox_post_job(struct mailbox *box)
{
    mutex_lock(&box->lock);
    box->job_count++;
    cond_wake_all(&box->changed);
    mutex_unlock(&box->lock);
}

void mailbox_stop(struct mailbox *box)
{
    mutex_lock(&box->lock);
    box->is_stopped = true;
    cond_wake_all(&box->changed);
    mutex_unlock(&box->lock);
}

bool mailbox_is_stopped(struct mailbox *box)
{
    mutex_lock(&box->lock);
    bool is_stopped = box->is_stopped;
    mutex_unlock(&box->lock);
    return is_stopped;
}

static enum mail take_locked(struct mailbox *box, char ret_id[static MAIL_ID_SIZE])
    REQUIRES(box->lock)
{
    if (box->is_stopped)
        return MAIL_STOP;
    if (box->is_lost) {
        box->is_lost = false;
        return MAIL_LOST;
    }
    if (box->is_full) {
        box->is_full = false;
        return MAIL_RESYNC;
    }
    if (!box->n_letters)
        return MAIL_NONE;
    enum mail kind = box->letters[0].kind;
    memcpy(ret_id, box->letters[0].id, MAIL_ID_SIZE);
    box->n_letters--;
    memmove(box->letters, box->letters + 1, box->n_letters * sizeof(*box->letters));
    return kind;
}

enum mail mailbox_take(struct mailbox *box, int64_t deadline_ns, char ret_id[static MAIL_ID_SIZE])
{
    mutex_lock(&box->lock);
    enum mail mail = take_locked(box, ret_id);
    while (mail == MAIL_NONE && cond_wait_until(&box->changed, &box->lock, deadline_ns))
        mail = take_locked(box, ret_id);
    mutex_unlock(&box->lock);
    return mail;
}

bool mailbox_sleep(struct mailbox *box, int64_t deadline_ns)
{
    mutex_lock(&box->lock);
    while (!box->is_stopped && cond_wait_until(&box->changed, &box->lock, deadline_ns))
        ;
    bool is_stopped = box->is_stopped;
    mutex_unlock(&box->lock);
    return !is_stopped;
}

uint64_t mailbox_job_count(struct mailbox *box)
{
    mutex_lock(&box->lock);
    uint64_t count = box->job_count;
    mutex_unlock(&box->lock);
    return count;
}

bool mailbox_wait_job(struct mailbox *box, uint64_t seen, int64_t deadline_ns)
{
    mutex_lock(&box->lock);
    while (!box->is_stopped && box->job_count == seen &&
           cond_wait_until(&box->changed, &box->lock, deadline_ns))
        ;
    bool is_stopped = box->is_stopped;
    mutex_unlock(&box->lock);
    return !is_stopped;
}
