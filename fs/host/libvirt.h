/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A host over libvirt. Domain records are kept true by domain events; every libvirt call is made
 * on threads of this module, so that a hung libvirtd holds up nobody who only lists.
 * Reconnects by itself; while the connection is lost the last records stay in force.
 */
#pragma once

#include "fs/host/host.h"
#include "fs/sandbox/broker.h"

struct libvirt_config {
    const char *uri;                 /* a local libvirt URI; copied */
    const char *const *backing_dirs; /* where external data files may lie; copied */
    size_t n_backing_dirs;
    const char *scratch_dir; /* where overlays go, or NULL for beside the image; copied */
    unsigned timeout_ms;     /* for calls that answer at once */
    struct host_events events;
};

/*
 * Connects, reads all domains, then returns. 0; -ENOTCONN if libvirt cannot be reached within
 * the time-out, or at once if it refuses; -EINVAL for a URI with a host part; -ENOENT, -ENOTDIR and
 * the like for a directory of @config; -ENOMEM. Before the return no event is sent.
 */
int libvirt_open(const struct libvirt_config *config, struct host **ret_host, struct error *err);

/* True if @uri names another machine (`qemu+ssh://host/system`, `qemu://host/system`). */
bool libvirt_uri_is_remote(const char *uri);

/*
 * For the broker, with the URI as its context: connects once, so that libvirt starts a user's own
 * libvirtd, which the program in its sandbox may not do. 0, or -ENOTCONN.
 */
int libvirt_work_wake(struct broker_call *call, struct error *err);
