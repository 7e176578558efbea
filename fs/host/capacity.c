/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/capacity.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "fs/host/fault.h"
#include "qcow/base/cleanup.h"
#include "qcow/base/thread.h"

enum { WAIT_MS = 2000 };

/* Counted: who asks may leave before there is an answer. */
struct question {
    /* Immutable. */
    virDomainPtr dom; /* reference */
    char *target;
    char id[VIR_UUID_STRING_BUFLEN];

    /* Guarded by questions_lock. */
    bool is_answered;
    int result;
    uint64_t bytes;
    struct error err;
    unsigned refs;
    LIST_ENTRY(question) link; /* in `open_questions` until it is answered */
};

static struct mutex questions_lock = MUTEX_INITIALIZER;
static struct cond answered;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static LIST_HEAD(, question) open_questions = LIST_HEAD_INITIALIZER(open_questions);

static void init_once(void)
{
    cond_init(&answered);
}

static void question_free(struct question *question)
{
    if (question->dom)
        virDomainFree(question->dom);
    free(question->target);
    free(question);
}

static void question_unref(struct question *question)
{
    mutex_lock(&questions_lock);
    bool is_last = --question->refs == 0;
    mutex_unlock(&questions_lock);
    if (is_last)
        question_free(question);
}

static void *ask(void *arg)
{
    struct question *question = arg;
    virDomainBlockInfo info = {0};
    struct error err = {0};
    int r = virDomainGetBlockInfo(question->dom, question->target, &info, 0);
    if (r < 0)
        r = fault_set(&err, "cannot ask for the size of disk '%s'", question->target);
    mutex_lock(&questions_lock);
    question->is_answered = true;
    question->result = r;
    question->bytes = info.capacity;
    question->err = err;
    LIST_REMOVE(question, link);
    cond_wake_all(&answered);
    mutex_unlock(&questions_lock);
    question_unref(question);
    return NULL;
}

/* With two references, for the asker and the thread; NULL: no memory, or no such domain. */
static struct question *question_create(virDomainPtr dom, const char *target)
{
    struct question *question = calloc(1, sizeof(*question));
    if (!question)
        return NULL;
    question->refs = 2;
    question->target = strdup(target);
    if (virDomainRef(dom) == 0)
        question->dom = dom;
    if (question->target && question->dom && virDomainGetUUIDString(dom, question->id) == 0)
        return question;
    question_free(question);
    return NULL;
}

static bool is_asked_locked(const char *id) REQUIRES(questions_lock)
{
    const struct question *question;
    LIST_FOREACH(question, &open_questions, link)
    if (strcmp(question->id, id) == 0)
        return true;
    return false;
}

/* Takes its place in the list, unless the domain has not answered an earlier one. */
static bool enlist(struct question *question)
{
    mutex_lock(&questions_lock);
    bool is_asked = is_asked_locked(question->id);
    if (!is_asked)
        LIST_INSERT_HEAD(&open_questions, question, link);
    mutex_unlock(&questions_lock);
    return !is_asked;
}

static int await(struct question *question, uint64_t *ret_bytes, struct error *err)
{
    int64_t deadline_ns = monotonic_ns() + (int64_t)WAIT_MS * 1000000;
    mutex_lock(&questions_lock);
    while (!question->is_answered && cond_wait_until(&answered, &questions_lock, deadline_ns))
        ;
    int r = question->is_answered ? question->result : -ETIMEDOUT;
    if (r == -ETIMEDOUT)
        error_set(err, r, "the hypervisor does not tell the size of disk '%s'", question->target);
    else if (r < 0 && err)
        *err = question->err;
    else
        *ret_bytes = question->bytes;
    mutex_unlock(&questions_lock);
    return r;
}

int capacity_read(virDomainPtr dom, const char *target, uint64_t *ret_bytes, struct error *err)
{
    pthread_once(&once, init_once);
    struct question *question = question_create(dom, target);
    if (!question)
        return error_set(err, -ENOMEM, "out of memory");
    if (!enlist(question)) {
        question_free(question);
        return error_set(err, -ETIMEDOUT, "the hypervisor has not answered yet");
    }
    int r = thread_start_detached(ask, question);
    if (r < 0) {
        mutex_lock(&questions_lock);
        LIST_REMOVE(question, link);
        mutex_unlock(&questions_lock);
        question_free(question);
        return error_set(err, -ENOMEM, "cannot start a thread: %s", strerrordesc_np(-r));
    }
    r = await(question, ret_bytes, err);
    question_unref(question);
    return r;
}
