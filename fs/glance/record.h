/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The record of an image: fields and properties as nova's snapshot of an instance sets them, from
 * what is known of the domain, and what the line asks for in place of that. Pure; any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "fs/glance/line.h"

/* The machine that the disk was installed on. As libvirt spells it; NULL: not known. */
struct record_machine {
    char *uuid; /* of the domain */
    char *arch, *machine_type;
    char *disk_bus, *scsi_model, *vif_model;
    bool is_uefi, has_agent;
};

void record_machine_fini(struct record_machine *machine);

struct record_request {
    const struct upload_line *line;
    const struct record_machine *machine;
    const char *name;        /* of the image */
    const char *disk_format; /* "raw" or "qcow2" */
    uint64_t guest_size;     /* bytes */
    const char *project_id;  /* may be NULL, as may the next one */
    const char *user_id;
};

/*
 * What @request is made of must outlive @ret_record; record_fini() releases it. 0 or -ENOMEM.
 */
int record_make(const struct record_request *request, struct glance_record *ret_record);
void record_fini(struct glance_record *record);

/* SNAPSHOT-of-DOMAIN, as far as Glance takes that for a name; caller frees; NULL: no memory. */
char *record_default_name(const char *snapshot, const char *domain_name);
