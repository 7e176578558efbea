/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the parts of the libvirt host share: libvirt.c (face, open and close), worker.c (the
 * thread that keeps connection and records), snapshot.c (calls on a caller's thread).
 */
#pragma once

#include <libvirt/libvirt.h>
#include <stdbool.h>

#include "fs/host/libvirt.h"
#include "fs/host/mailbox.h"
#include "fs/host/table.h"
#include "qcow/base/thread.h"

struct libvirt_host {
    struct host host;

    /* Immutable after open: */
    char *uri;
    char **backing_dirs; /* real paths */
    size_t n_backing_dirs;
    char *scratch_dir; /* or NULL */
    unsigned timeout_ms;
    struct host_events events;
    struct mailbox *mail; /* reference */
    pthread_t worker;

    struct table table; /* has its own lock */

    struct mutex lock;
    struct cond changed;
    virConnectPtr conn GUARDED_BY(lock);      /* reference, NULL while there is no connection */
    bool is_synced GUARDED_BY(lock);          /* all domains were read once */
    bool has_ended GUARDED_BY(lock);          /* the worker is about to return */
    bool is_abandoned GUARDED_BY(lock);       /* nobody waits for the worker: it frees the host */
    struct error open_error GUARDED_BY(lock); /* why the first connection failed */
};

static inline void libvirt_cleanup_domain(virDomainPtr *dom)
{
    if (*dom)
        virDomainFree(*dom);
}
#define auto_virdomain __attribute__((cleanup(libvirt_cleanup_domain)))

/* Starts lh->worker. 0 or negative errno. */
int worker_start(struct libvirt_host *lh, struct error *err);

/*
 * A reference to the living connection, for virConnectClose(); waits for one until @deadline_ns
 * of monotonic_ns(). 0, or -EIO: libvirt is lost. Any thread but a FUSE one.
 */
int worker_get_connection(struct libvirt_host *lh, int64_t deadline_ns, virConnectPtr *ret_conn,
                          struct error *err);

/*
 * Reads a domain anew into the table; the worker tells the others. For threads that have changed
 * a domain themselves. 0 or negative errno.
 */
int worker_refresh_domain(struct libvirt_host *lh, virDomainPtr dom, struct error *err);

/* Frees a host whose threads have ended or never ran. */
void libvirt_destroy(struct libvirt_host *lh);
