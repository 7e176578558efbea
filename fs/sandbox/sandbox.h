/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the program takes away from itself before it connects to anything or reads an image, so
 * that an image that finds a fault in it gains little: no new privileges, no program is run, no
 * file is written but below the state directory, few capabilities, few system calls. What must be
 * able to do more is a process of its own, begun before: broker.h.
 *
 * Each part that the kernel does not have is left out; the report says which are in force. Main
 * thread, while it is the only one: what is started later on inherits it, what runs already does
 * not get all of it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "qcow/base/error.h"

struct sandbox_config {
    const char *state_dir; /* may be written; made if it is not there */
    bool is_libvirt;       /* overlays beside images of other people's are deleted */
    bool has_cloud;        /* the network is talked to, and not only libvirt and syslog */
};

/* What is in force. Immutable once sandbox_enter() has returned. */
struct sandbox_report {
    bool is_on; /* false: sandbox=no, and the rest is unset */
    bool has_no_new_privs;
    bool has_seccomp;
    unsigned landlock_abi; /* 0: none */
    uint64_t capabilities; /* effective, a bit for each number of capabilities(7) */
};

/*
 * For good. What could not be done is logged at debug level, or as a warning if the kernel should
 * have been able to. 0, or -ENOMEM.
 */
int sandbox_enter(const struct sandbox_config *config, struct sandbox_report *ret_report,
                  struct error *err);

/* "dac_override", or NULL for one that this program never keeps. */
const char *sandbox_capability_name(unsigned number);
