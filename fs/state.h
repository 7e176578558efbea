/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What all have in common that keep something in the state directory: folders, whole writes, text
 * for JSON, names made of hashes. No objects; any thread.
 */
#pragma once

#include <stddef.h>

/* Hex digits and the end. */
enum { STATE_HASH_LEN = 64 + 1 };

/* Makes @dir and what is missing above it, mode 0700. 0 if it is there then, or negative errno. */
int state_make_dirs(const char *dir);

/*
 * Syncs the names of @dir and of all above it, whoever made them, so that they are still there
 * after a loss of power. Apart from making them, since only the journal needs it and the first
 * start with a new state directory would wait for it: 0.3 ms a folder, 50 where others write to
 * that disk. 0 or negative errno.
 */
int state_sync_dirs(const char *dir);

/* Writes all of it. 0 or negative errno. */
int state_write_all(int fd, const char *data, size_t len);

/*
 * Any string as printable ASCII, since JSON wants UTF-8, and ids and paths may hold any byte: '%'
 * and what is not printable become %XX. Caller frees; NULL: no memory.
 */
char *state_escape(const char *text);
/* The string that state_escape() made @text of; caller frees. NULL: it made no such text (EINVAL),
 * or no memory (ENOMEM). */
char *state_unescape(const char *text);

/* SHA-256 in lower case. */
void state_hash(const void *data, size_t len, char ret_hex[STATE_HASH_LEN]);
