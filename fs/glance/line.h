/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is written to a domain's `upload`: SNAPSHOT [IMAGE-NAME] [KEY=VALUE...] [--poll]. Pure; any
 * thread.
 *
 * Words are separated by blanks and quoted as in a shell: '..' takes all as it is, in ".." a
 * backslash stands before ", \, $ and `, elsewhere before anything; nothing is expanded. The first
 * word is the snapshot, the second one the image's name. Keys and options may stand anywhere, and
 * may be quoted as a whole, as a shell's arguments may be. A word with another key is refused,
 * unless its '=' is quoted: then it is a name; likewise with '--'.
 *
 *   disk=TARGET  format=raw|qcow2  visibility=private|shared|community|public
 *   min_disk=GIB  min_ram=MIB  protected=true|false  property:NAME=VALUE
 *   --poll  --metadata NAME=VALUE (as property:NAME=VALUE)
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/glance/image.h"
#include "qcow/base/error.h"

enum {
    LINE_LEN_MAX = 4096,      /* bytes, with its newline */
    LINE_PROPERTIES_MAX = 64, /* leaves Glance's quota of 128 room for those that we set */
};

/* Strings are NULL where the line says nothing. */
struct upload_line {
    char *snapshot;
    char *image_name; /* as glance_record wants it */
    char *disk;       /* target */
    char *format;     /* "raw" or "qcow2" */
    char *visibility; /* "private" unless another one is asked for */
    uint32_t min_disk_gib, min_ram_mib;
    bool has_min_disk;
    bool is_protected;
    bool is_poll;
    /* In the order of the line, no name twice; one with an empty value is not wanted. */
    struct glance_property *properties;
    size_t n_properties;
};

/*
 * @bytes  one line, with or without its newline; need not be terminated
 *
 * 0, -EINVAL with the reason, -ENOMEM. line_fini() releases @ret_line.
 */
int line_parse(const char *bytes, size_t len, struct upload_line *ret_line, struct error *err);
void line_fini(struct upload_line *line);

/*
 * For the table: what a line that line_parse() refused names, as far as that can be told; each cut
 * to 64 bytes, with whatever bytes it has. If it names no snapshot, the line itself stands for
 * that. Caller frees; NULL: nothing, or no memory.
 */
void line_peek(const char *bytes, size_t len, char **ret_snapshot, char **ret_image_name);

/*
 * True for what Glance takes as the name of an image or of a property: 1 to 255 characters of
 * UTF-8, none of them a control character or longer than 3 bytes.
 */
bool line_is_name(const char *text);
