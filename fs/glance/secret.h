/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Strings that nobody else may see: kept out of core files, overwritten before they are freed.
 * Plain char pointers; any thread.
 */
#pragma once

#include <stddef.h>

/* A copy of the first @len bytes of @text, terminated; NULL without memory. Returns owned. */
char *secret_copy(const char *text, size_t len);
void secret_free(char *secret); /* also of a string from malloc(); NULL is fine */

/* For library types that hold a copy of a secret: overwrites the bytes of a string. NULL is fine.
 */
void secret_wipe(char *text);

static inline void secret_cleanup(char **where)
{
    secret_free(*where);
}

#define auto_secret __attribute__((cleanup(secret_cleanup)))
