/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What an entry of the journal looks like as bytes: a first line with the SHA-256 of all lines
 * after it, then the rest of one JSON object. No files here; any thread.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "fs/host/change.h"
#include "qcow/base/error.h"

/* More than any change needs: a thousand disks with paths of the usual length. */
enum { JOURNAL_FILE_MAX = 4 << 20 };

/* True for "virtsnapfs-" and 16 lower-case hex digits, and nothing else. */
bool journal_is_mark(const char *text);

/*
 * What a change must be like to be written, and to be believed when it is read: a mark, an id,
 * absolute paths, and in the last part of each path that is deleted one day, the mark.
 * 0 or -EINVAL.
 */
int journal_check(const struct change *change, struct error *err);

/* The bytes of the entry (caller frees; a string). 0, -EINVAL (journal_check), -ENOMEM. */
int journal_encode(const struct change *change, const char *source, char **ret_text,
                   struct error *err);

/*
 * The change that those bytes hold (caller frees), whose mark must be @mark.
 * 0; -EBADMSG: damaged, of another version or of another source; -ENOMEM.
 */
int journal_decode(const char *text, size_t len, const char *source, const char *mark,
                   struct change **ret_change, struct error *err);

/* For people: what is being done, and what to type to undo it. An array, or NULL: no memory. */
json_t *journal_explain(const struct change *change, const char *source);

/* Only what to type, for a change that no journal names. An array, or NULL: no memory. */
json_t *journal_commands(const struct change *change, const char *source);
