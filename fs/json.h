/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What jansson 2.14 does not do as it is wanted here. No objects; any thread.
 */
#pragma once

#include <jansson.h>

/*
 * JSON as text, in a buffer of the right size: json_dumps() lets its buffer grow, and leaves out an
 * object's key when there is no memory for it, and says nothing.
 *
 * @flags as for json_dumps(). Caller frees; NULL: no memory.
 */
char *json_print(const json_t *root, size_t flags);

/*
 * What is to be read from @fd, piece by piece: json_loadfd() makes a system call of each byte.
 * Objects that have a key twice are refused. Caller owns the result; NULL: see @ret_why.
 */
json_t *json_read(int fd, json_error_t *ret_why);

/*
 * A text that may not be UTF-8: then its odd bytes are shown as '?'. null for NULL. Caller owns the
 * result; NULL: no memory.
 */
json_t *json_any_text(const char *text);
