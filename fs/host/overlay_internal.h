/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the parts of the overlay methods share: overlay.c (live=overlay) and overlay_off.c
 * (cold=overlay) put overlays there; overlay_undo.c takes them away, one disk after the other. In
 * each round it looks (overlay_state.c) at what libvirt and the files say, and takes one step:
 * overlay_live.c for a guest that is on the overlay, overlay_rest.c for an overlay that no guest is
 * on. So it makes no difference where a step, or a former attempt, was cut off.
 */
#pragma once

#include "fs/host/live.h"
#include "fs/host/method.h"
#include "fs/host/overlay_xml.h"

enum {
    OVERLAY_POLL_MS = 500,  /* events wake earlier */
    OVERLAY_RETRY_MS = 100, /* for what is over in a moment */
};

/* ---- Putting overlays there: overlay.c ---- */

/*
 * Adds the overlay for one disk to @change, with a name that no file has. @disk is of the XML of
 * the moment. 0, -EOPNOTSUPP, -EBUSY, -EIO, -ENOMEM.
 */
int overlay_plan_disk(const struct live *live, const struct disk *disk, struct change *change,
                      struct error *err);
/* As host_method.make. */
int overlay_make(struct host *host, struct change *change, const struct change_steps *steps,
                 struct error *err);

/*
 * Right after that: 0 if each overlay lies over what it was planned for, and libvirt put no other
 * there; -EBUSY; -EIO and the like. overlay_stray.c
 */
int overlay_check_placed(const struct live *live, const struct change *change, struct error *err);

/* ---- Taking them away ---- */

/*
 * Of a change whose making did not come to its end: adds the overlays that libvirt made beyond the
 * planned ones, and takes from each overlay what it lies over. On disk before it returns.
 * 0 or negative errno. overlay_stray.c
 */
int overlay_find_strays(const struct live *live, struct change *change,
                        const struct change_steps *steps, struct error *err);

enum overlay_place {
    OVERLAY_NOWHERE, /* no disk has it in its chain */
    OVERLAY_TOP,     /* a disk's source, the base below it */
    OVERLAY_MIDDLE,  /* something is over it, the base below it */
    OVERLAY_STRANGE, /* not over its base */
};

/* What libvirt says at one moment. */
struct overlay_found {
    bool is_known; /* else libvirt has no such domain (any more) */
    bool is_active, is_persistent, has_managed_save;
    int state, reason;           /* virDomainState and its reason */
    enum overlay_place live;     /* in the XML of the running domain */
    enum overlay_place defined;  /* in that of the next start */
    bool is_base_live;           /* some disk of the running domain has the base as its source */
    bool is_base_defined;        /* one of the definition has */
    bool is_below_defined;       /* a source of the definition leads to the overlay */
    char *target;                /* of the disk it is in; NULL: nowhere in the live XML */
    enum overlay_xml_job mirror; /* of that disk, as the XML shows it */
    int job_type;                /* virDomainBlockJobType, 0: none runs on that disk */
    unsigned long long job_done; /* bytes */
};

/* One overlay being undone. */
struct overlay_undo {
    struct live live;
    struct change *change;
    struct change_disk *disk; /* of @change */
    const struct change_steps *steps;

    struct overlay_found found; /* in this round */
    uint64_t jobs_seen;         /* of the mailbox, before that */
    bool was_committing;        /* a commit was seen in an earlier round */
    unsigned n_orphans;         /* rounds in a row with a job that the XML does not show */
    int64_t lost_ns;            /* since when a pivot has no job; 0: it has */
    unsigned long long done;    /* bytes that the job had copied */
    unsigned n_cuts;            /* connections lost */
};

/* Fills undo->found; live_attach() has been called, -ESTALE of it in @is_known. */
int overlay_look(struct overlay_undo *undo, bool is_known, struct error *err);
void overlay_found_fini(struct overlay_found *found);

/*
 * One step: 1 to go on, 0 when nothing of this overlay is left, -EAGAIN, or what failed.
 * overlay_live.c, overlay_rest.c
 */
int overlay_live_step(struct overlay_undo *undo, struct error *err);
int overlay_rest_step(struct overlay_undo *undo, struct error *err);

/*
 * When the steps take too long: ends a commit that can still be ended, so that the guest is on the
 * overlay as before. Negative errno.
 */
int overlay_live_give_up(struct overlay_undo *undo, struct error *err);

/* ---- For both: overlay_undo.c, overlay_state.c ---- */

/* Waits for news of block jobs, at most @ms. False: the host is being closed. */
bool overlay_wait(const struct overlay_undo *undo, unsigned ms);
/* Moves the disk's mark of progress, on disk before it returns. 0 or negative errno. */
int overlay_note(struct overlay_undo *undo, enum change_merge merge, struct error *err);
/* -EBUSY, and the text says what is wrong and names domain, disk and files. */
int overlay_leave(const struct overlay_undo *undo, struct error *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* -EAGAIN, likewise. */
int overlay_defer(const struct overlay_undo *undo, struct error *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/*
 * 0 if nobody made a snapshot since, inside of the overlay or one that libvirt knows, which would
 * be lost or damaged with it; else overlay_leave().
 */
int overlay_check_snapshots(const struct overlay_undo *undo, struct error *err);
/* True if the XML of any other domain names a file of this change. */
int overlay_is_named_elsewhere(const struct overlay_undo *undo, bool *ret_is_named,
                               struct error *err);
/* Makes the persistent definition, if there is one, name the base. 0 or negative errno. */
int overlay_define_back(const struct overlay_undo *undo, struct error *err);

/* host_method.undo of both methods. */
int overlay_undo_all(struct host *host, struct change *change, const struct change_steps *steps,
                     struct error *err);
