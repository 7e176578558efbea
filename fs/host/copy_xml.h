/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The XML around block copies: what is asked for, and what the live XML says of them. Pure. */
#pragma once

#include <stdbool.h>

#include "qcow/base/error.h"

/* A <disk> that describes the qcow2 file @delta. 0 and the text (caller frees), or -ENOMEM. */
int copy_xml_build(const char *delta, char **ret_xml, struct error *err);

enum copy_xml_state {
    COPY_XML_NONE,    /* no mirroring job, or not into that file */
    COPY_XML_FILLING, /* the file is still behind the disk */
    COPY_XML_READY,   /* it is the same from now on, until the job is ended */
    COPY_XML_ENDING,  /* the job is being ended */
};

/*
 * Whether disk @target is being copied into the file @delta. 0 (also if there is no such disk),
 * -EBADMSG, -ENOMEM.
 */
int copy_xml_find(const char *domain_xml, const char *target, const char *delta,
                  enum copy_xml_state *ret_state, struct error *err);
