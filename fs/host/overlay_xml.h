/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The XML around an external snapshot: what is asked for, and what the live XML says of the job
 * that undoes it. Pure; any thread.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "fs/host/change.h"
#include "qcow/base/error.h"

/*
 * A <domainsnapshot> called MARK.overlay, by @change->mark, that puts the files of @change over its
 * disks and leaves every other disk alone.
 *
 * @domain_xml  the domain's XML of the moment: libvirt takes a disk that is not listed for one to
 *              be snapshotted too, so all have to be named
 *
 * 0 and the text (caller frees), -EBADMSG (a disk of @change is not there), -ENOMEM.
 */
int overlay_xml_build(const char *domain_xml, const struct change *change, char **ret_xml,
                      struct error *err);

enum overlay_xml_job {
    OVERLAY_XML_NO_JOB,
    OVERLAY_XML_COMMIT,        /* active commit, still copying */
    OVERLAY_XML_COMMIT_READY,  /* active commit that can be pivoted */
    OVERLAY_XML_COMMIT_ENDING, /* active commit, being aborted or pivoted */
    OVERLAY_XML_OTHER_JOB,     /* a block copy, or a commit of somebody else's */
};

/*
 * The mirroring job of a disk; an active commit into another layer than @base is somebody else's.
 * 0, -EBADMSG if there is no such disk, -ENOMEM.
 */
int overlay_xml_find_job(const char *domain_xml, const char *target, const char *base,
                         enum overlay_xml_job *ret_job, struct error *err);

/* True if the guest may only read that disk. 0, -EBADMSG if there is no such disk, -ENOMEM. */
int overlay_xml_is_readonly(const char *domain_xml, const char *target, bool *ret_is_readonly,
                            struct error *err);

/*
 * Disks that are on an overlay of ours, put back to what they are in @before_xml, an earlier
 * definition of the same domain. All else is as in @domain_xml; if that is no other than in
 * @before_xml, the text is @before_xml's.
 *
 * 1 and the text (caller frees); 0 if there is nothing to put back; -EBADMSG (no domain's XML),
 * -ENOMEM.
 */
int overlay_xml_hide_ours(const char *domain_xml, const char *before_xml, char **ret_xml,
                          struct error *err);

/* The user that QEMU runs as, from the live XML; false if it does not say. */
bool overlay_xml_find_user(const char *domain_xml, uid_t *ret_uid, gid_t *ret_gid);
