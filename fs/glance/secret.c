/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/glance/secret.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "qcow/base/bytes.h"

static size_t pages_of(size_t len)
{
    return (size_t)align_up(len + 1, (uint64_t)sysconf(_SC_PAGESIZE));
}

char *secret_copy(const char *text, size_t len)
{
    size_t room = pages_of(len);
    char *secret = aligned_alloc((size_t)sysconf(_SC_PAGESIZE), room);
    if (!secret)
        return NULL;
    /* (A kernel that cannot do it, or memory that is no mapping of its own, is no reason to fail.)
     */
    (void)madvise(secret, room, MADV_DONTDUMP);
    memcpy(secret, text, len);
    memset(secret + len, 0, room - len);
    return secret;
}

void secret_wipe(char *text)
{
    if (text)
        explicit_bzero(text, strlen(text));
}

void secret_free(char *secret)
{
    if (!secret)
        return;
    size_t room = pages_of(strlen(secret));
    secret_wipe(secret);
    if (is_aligned((uintptr_t)secret, (uint64_t)sysconf(_SC_PAGESIZE)))
        (void)madvise(secret, room, MADV_DODUMP);
    free(secret);
}
