/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A domain as snapshot_take and snapshot_merge work on it: a connection of the moment, and what
 * the XML of the moment says. Blocks on libvirt.
 */
#pragma once

#include "fs/host/libvirt_internal.h"
#include "fs/host/method.h"

/* Initialised by the caller with the first group; live_detach() releases the rest. */
struct live {
    struct libvirt_host *lh;
    const char *id;
    const char *name;
    int64_t deadline_ns;              /* of monotonic_ns(): how long to wait for a connection */
    const struct change_steps *steps; /* told that there is progress; NULL: nobody is */

    virConnectPtr conn; /* reference, or NULL */
    virDomainPtr dom;   /* NULL if there is no connection */
};

/* For work on the domain of @change, whose strings it borrows; the time begins now. */
struct live live_of(struct host *host, const struct change *change);
/* Connects to the domain if need be. 0, -EIO (no connection), -ESTALE. */
int live_attach(struct live *live, struct error *err);
void live_detach(struct live *live);
/* True if the connection died: what the last call did is unknown. */
bool live_is_cut(const struct live *live);
/* Brings the record up to date, since the caller asks for it next; if that fails, events do. */
void live_refresh_record(struct live *live);
/* There is progress: deadline_ns = now + the time for calls that answer at once. */
void live_renew_deadline(struct live *live);

/* 0, -EBUSY if a block job runs on that disk, -EIO and the like. */
int live_check_block_job(const struct live *live, const char *target, struct error *err);

/* What XML of the domain says. Zero-initialised; view_fini() releases it. */
struct view {
    char *xml;
    struct disk *disks;
    size_t n_disks;
};

/* @flags for virDomainGetXMLDesc(). 0 or negative errno. */
int view_read(const struct live *live, unsigned flags, struct view *ret_view, struct error *err);
void view_fini(struct view *view);
/* The disk with that target, or NULL. */
const struct disk *view_find_disk(const struct view *view, const char *target);
/* True if any layer of any disk is @path. */
bool view_names_file(const struct view *view, const char *path);

#define auto_view __attribute__((cleanup(view_fini)))
#define auto_live __attribute__((cleanup(live_detach)))
