/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * JSON as text, in a buffer of the right size: json_dumps() of jansson 2.14 lets its buffer grow,
 * and leaves out an object's key when there is no memory for it, and says nothing. No objects; any
 * thread.
 */
#pragma once

#include <jansson.h>
#include <stdlib.h>

/* @flags as for json_dumps(). Caller frees; NULL: no memory. */
static inline char *json_print(const json_t *root, size_t flags)
{
    size_t len = json_dumpb(root, NULL, 0, flags);
    char *text = len > 0 ? malloc(len + 1) : NULL;
    if (!text)
        return NULL;
    if (json_dumpb(root, text, len, flags) != len) {
        free(text);
        return NULL;
    }
    text[len] = '\0';
    return text;
}
