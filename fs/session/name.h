/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * File names for domains and snapshots whose own names may hold any byte. Pure; any thread.
 *
 * Written as %XX: '/', '%', '@', bytes below 0x20 and 0x7f, a leading '.', and a '.' that is
 * followed by one of the domain's targets at the end of the name ("foo.vda" -> "foo%2Evda").
 */
#pragma once

#include <stddef.h>

/* Longest file name without its suffix (".TARGET.raw" or ".qcow2" must fit into 255 bytes). */
enum { NAME_FILE_MAX = 255 };

/* The name of a domain's directory; caller frees; NULL: no memory. */
char *name_of_domain(const char *raw);

/* A snapshot, before and after it has been given a file name. */
struct name_request {
    const char *raw; /* the snapshot's name */
    const char *id;  /* its id */
    char *shown;     /* result, owned by the caller: NAME, without .TARGET and .raw */
};

/*
 * Gives each of the snapshots of one disk a NAME of its own, in order: "now" becomes "%6Eow", of
 * several with one name the later ones are "NAME@ID", an empty name is "@ID", and what would make
 * a file name longer than 255 bytes (with the longest of @targets and ".qcow2") is cut and given
 * its "@ID". 0 or -ENOMEM.
 */
int name_snapshots(struct name_request *requests, size_t n, const char *const *targets,
                   size_t n_targets);

/* What a disk of a snapshot is shown as. */
enum view {
    VIEW_RAW,   /* ".raw": the guest's bytes */
    VIEW_QCOW2, /* ".qcow2": the same as one file that stands alone (qcow/flatten.h) */
};

/* ".raw" or ".qcow2". */
const char *name_suffix(enum view view);

/* What a file name that name_parse() takes is a view of: by its last suffix. */
enum view name_view(const char *file);

/*
 * Takes a file name apart: "NAME.raw" or "NAME.TARGET.raw", or the same with ".qcow2". Only the
 * last suffix counts: "x.qcow2.raw" is the raw view of a snapshot called "x.qcow2".
 *
 * @ret_name    NAME; caller frees
 * @ret_target  index into @targets, or -1 if the file name has no target
 *
 * 0, or -ENOENT if it ends in no such suffix.
 */
int name_parse(const char *file, const char *const *targets, size_t n_targets, char **ret_name,
               int *ret_target);
