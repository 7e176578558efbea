/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is known of one domain: an immutable, counted record. A host makes a new record when
 * something changes and drops its reference to the old one, so readers never need a lock.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "qcow/qcow.h"

enum domain_state {
    DOMAIN_SHUTOFF, /* no QEMU process (also: crashed, saved) */
    DOMAIN_RUNNING,
    DOMAIN_PAUSED, /* any state with a QEMU process that does not run the guest */
};

/* One file of a disk's chain as the domain XML (or the file's name, for dir:) declares it. */
struct disk_layer {
    char *path; /* absolute */
    enum qcow_format format;
};

struct disk {
    char *target;              /* "vda": unique within the domain */
    char *unsupported;         /* why it cannot be served (network disk, lun, ...), or NULL */
    bool is_remote;            /* unsupported, but a running hypervisor can read it for us */
    uint64_t capacity;         /* bytes, of a remote disk of a running domain; 0: not known */
    struct disk_layer *layers; /* [0] is the top; at least one unless unsupported */
    size_t n_layers;
    bool is_chain_complete;  /* the XML names the whole chain: what images say is not used */
    bool is_format_disputed; /* dir: declared raw by its name, but begins like a qcow2 file */
};

/* What an external snapshot did to one disk: @path rests since, the guest writes to @overlay. */
struct frozen_disk {
    char *target;
    char *path;
    char *overlay;
};

/*
 * An external snapshot that the host keeps a record of. Nothing is said of what became of its
 * files since: they may be merged or gone.
 */
struct host_snapshot {
    char *name; /* unique within the domain */
    struct timespec created;
    struct frozen_disk *disks; /* those that lie in local files */
    size_t n_disks;
};

struct domain {
    char *id;   /* the UUID; for dir: "dir:" and the file's name */
    char *name; /* as the host spells it */
    enum domain_state state;
    bool is_persistent;
    bool has_managed_save;
    bool has_manager;   /* its XML carries metadata of a manager such as nova or oVirt */
    char *xml;          /* persistent definition without secrets; NULL for dir: */
    struct disk *disks; /* in the order of the XML; the first is the boot disk */
    size_t n_disks;
    struct host_snapshot *snapshots; /* sorted by name */
    size_t n_snapshots;

    unsigned refs; /* atomic */
};

/* An empty record with one reference, to be filled by the host that makes it; NULL: no memory. */
struct domain *domain_create(const char *id, const char *name);
struct domain *domain_ref(struct domain *domain);
void domain_unref(struct domain *domain); /* NULL is fine */

/* The disk with that target, or NULL. Borrowed from the record. */
const struct disk *domain_find_disk(const struct domain *domain, const char *target);

/* True if nothing that a reader of the records could see differs. */
bool domain_is_same(const struct domain *a, const struct domain *b);

/* Releases an array of disks that no record owns (yet). */
void domain_free_disks(struct disk *disks, size_t n);

/* Copies @n snapshots from @from into the record, which has none yet; 0 or -ENOMEM. */
int domain_copy_snapshots(struct domain *domain, const struct host_snapshot *from, size_t n);
/* Adds a disk to a snapshot, copying the strings; 0 or -ENOMEM. */
int host_snapshot_add(struct host_snapshot *snapshot, const char *target, const char *path,
                      const char *overlay);
void host_snapshot_fini(struct host_snapshot *snapshot);
/* True if all of their snapshots are the same. */
bool domain_has_same_snapshots(const struct domain *a, const struct domain *b);

/* "shut off", "running", "paused". */
const char *domain_state_name(enum domain_state state);
