/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What taking an instant does to a domain, as plain data: written to the journal before it is
 * done, and all that is needed to undo it, by this process or by a later one.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "qcow/base/error.h"
#include "qcow/qcow.h"

enum change_method {
    CHANGE_OVERLAY,     /* live=overlay: the guest writes into overlays, the layers below rest */
    CHANGE_BACKUP,      /* live=backup: the hypervisor exports the moment over NBD */
    CHANGE_COPY,        /* live=copy: a copy of the top layers */
    CHANGE_MANAGEDSAVE, /* live=managedsave: an internal snapshot, made while the guest was saved */
    CHANGE_INTERNAL,    /* cold=internal: an internal snapshot of a domain that is off */
    CHANGE_COLD_OVERLAY, /* cold=overlay: overlays put over the disks of a domain that is off */
};
enum { N_CHANGE_METHODS = CHANGE_COLD_OVERLAY + 1 };

/* How far an overlay is merged into its base: which of them counts if only one can be kept. */
enum change_merge {
    CHANGE_UNMERGED,   /* the base is as it was at the instant; the overlay holds what came after */
    CHANGE_COMMITTING, /* the base may hold some of that too; only both together are whole */
    CHANGE_PIVOTING,   /* the base may be whole, and the guest may write to it */
    CHANGE_MERGED,     /* the base is whole; the overlay is of no use any more */
};
enum { N_CHANGE_MERGES = CHANGE_MERGED + 1 };

/* One disk that is part of the instant. */
struct change_disk {
    char *target;                 /* "vda" */
    char *base;                   /* path of the top layer before the change; "" if it has none */
    enum qcow_format base_format; /* of that layer */
    char *file; /* what the method makes for it: overlay, delta, scratch file; NULL if nothing */
    enum change_merge merge; /* of an overlay; moves on before each step */
};

/*
 * The flags say what may be the case, so that they are set before the thing is done and cleared
 * after it was undone.
 */
struct change {
    enum change_method method;
    char *domain_id, *domain_name;
    char *mark; /* "virtsnapfs-" and 16 hex digits: in each name that the change makes */
    bool is_persistent;
    bool was_paused;           /* the guest was paused before, and is to be again */
    bool is_frozen;            /* its file systems may be frozen */
    bool is_halted;            /* by us: it may be suspended, or off with its memory saved */
    bool is_made;              /* the instant stands; else the making may have ended anywhere */
    char *socket;              /* CHANGE_BACKUP: path of the NBD server's socket; else NULL */
    struct change_disk *disks; /* in the order of the domain's disks */
    size_t n_disks;
};

/* The parts of `mark`, and how overlays, deltas and scratch files end: BASE.MARK.overlay. */
#define CHANGE_MARK_PREFIX "virtsnapfs-"
enum { CHANGE_MARK_LEN = 11 + 16 };

/* "overlay", "backup", "copy", "managedsave", "internal", "cold-overlay": as in `status`. */
const char *change_method_name(enum change_method method);
/* 0, or -EINVAL for another word. */
int change_method_parse(const char *word, enum change_method *ret_method);

/* "unmerged", "committing", "pivoting", "merged". */
const char *change_merge_name(enum change_merge merge);
/* 0, or -EINVAL for another word. */
int change_merge_parse(const char *word, enum change_merge *ret_merge);

/* A change with a mark of its own and no disks. 0, -EIO (no random number), -ENOMEM. */
int change_create(enum change_method method, const char *domain_id, const char *domain_name,
                  struct change **ret_change, struct error *err);
/* Copies its strings; @file may be NULL. 0 or -ENOMEM. */
int change_add_disk(struct change *change, const char *target, const char *base,
                    enum qcow_format base_format, const char *file, struct error *err);
void change_free(struct change *change); /* NULL is fine */

const struct change_disk *change_find_disk(const struct change *change, const char *target);

/*
 * DIR/BASE.MARK.KIND: where a file for a disk goes, beside its image or in @scratch_dir; BASE is
 * cut so that the name fits. Nothing is looked at. The path (caller frees), or NULL: no memory.
 *
 * @kind  "overlay", "delta", "scratch"
 */
char *change_file_path(const struct change *change, const char *base, const char *scratch_dir,
                       const char *kind);

/* True if @name (a snapshot's name, or a path) carries a mark of this program. */
bool change_is_marked(const char *name);
/*
 * True if @path is an overlay of this program by its name, .MARK.overlay at its end. libvirt calls
 * somebody's snapshot of a disk that is on one after it: IMAGE.MARK.NAME, and that is theirs.
 */
bool change_is_overlay(const char *path);
/*
 * The same, or a copy of live=copy, which a guest is on only if somebody pivoted to it. No further
 * change is made over either: what is noted of it has to be settled first.
 */
bool change_is_layer(const char *path);
