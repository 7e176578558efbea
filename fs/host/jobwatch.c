/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/jobwatch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/host/fault.h"

struct job_end {
    char *target;
    bool is_good;
    struct job_end *next;
};

/* Counted, since libvirt may still call back after the watch was stopped. */
struct jobwatch {
    virConnectPtr conn; /* reference of the watching thread */
    int callback;

    struct mutex lock;
    struct cond changed;
    struct job_end *ends GUARDED_BY(lock); /* newest first, not told yet */
    unsigned refs GUARDED_BY(lock);
};

static void free_end(struct job_end *end)
{
    free(end->target);
    free(end);
}

static void unref(void *ctx)
{
    struct jobwatch *watch = ctx;
    mutex_lock(&watch->lock);
    bool is_last = --watch->refs == 0;
    mutex_unlock(&watch->lock);
    if (!is_last)
        return;
    while (watch->ends) {
        struct job_end *end = watch->ends;
        watch->ends = end->next;
        free_end(end);
    }
    cond_fini(&watch->changed);
    mutex_fini(&watch->lock);
    free(watch);
}

/* Without memory for it the end is not told, which is taken for a failure. */
static void on_block_job(virConnectPtr conn, virDomainPtr dom, const char *disk, int type,
                         int status, void *ctx)
{
    (void)conn;
    (void)dom;
    (void)type;
    struct jobwatch *watch = ctx;
    if (status == VIR_DOMAIN_BLOCK_JOB_READY)
        return;
    struct job_end *end = calloc(1, sizeof(*end));
    char *target = strdup(disk);
    if (!end || !target) {
        free(end);
        free(target);
        return;
    }
    *end = (struct job_end){.target = target, .is_good = status != VIR_DOMAIN_BLOCK_JOB_FAILED};
    mutex_lock(&watch->lock);
    end->next = watch->ends;
    watch->ends = end;
    cond_wake_all(&watch->changed);
    mutex_unlock(&watch->lock);
}

int jobwatch_start(const struct live *live, struct jobwatch **ret_watch, struct error *err)
{
    struct jobwatch *watch = calloc(1, sizeof(*watch));
    if (!watch)
        return error_set(err, -ENOMEM, "out of memory");
    mutex_init(&watch->lock);
    cond_init(&watch->changed);
    watch->refs = 2;
    /* By way of void (*)(void), which compilers take for "no type yet". */
    watch->callback = virConnectDomainEventRegisterAny(
        live->conn, live->dom, VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2,
        (virConnectDomainEventGenericCallback)(void (*)(void))on_block_job, watch, unref);
    if (watch->callback < 0) {
        int r = fault_set(err, "cannot watch the jobs of domain '%s'", live->name);
        watch->refs = 1;
        unref(watch);
        return r;
    }
    virConnectRef(live->conn);
    watch->conn = live->conn;
    *ret_watch = watch;
    return 0;
}

void jobwatch_stop(struct jobwatch *watch)
{
    if (!watch)
        return;
    virConnectDomainEventDeregisterAny(watch->conn, watch->callback);
    virConnectClose(watch->conn);
    unref(watch);
}

/* The end of that job, taken out of the list; or NULL. */
static struct job_end *take_locked(struct jobwatch *watch, const char *target) REQUIRES(watch->lock)
{
    for (struct job_end **at = &watch->ends; *at; at = &(*at)->next) {
        if (strcmp((*at)->target, target) == 0) {
            struct job_end *end = *at;
            *at = end->next;
            return end;
        }
    }
    return NULL;
}

int jobwatch_wait_end(struct jobwatch *watch, const char *target, int64_t deadline_ns)
{
    mutex_lock(&watch->lock);
    struct job_end *end = take_locked(watch, target);
    while (!end && cond_wait_until(&watch->changed, &watch->lock, deadline_ns))
        end = take_locked(watch, target);
    mutex_unlock(&watch->lock);
    int outcome = end ? end->is_good : -1;
    if (end)
        free_end(end);
    return outcome;
}
