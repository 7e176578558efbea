/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/fuse/buffer.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

enum { ALIGNMENT = 4096 };

struct buffer {
    void *bytes;
    size_t len;
};

static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static bool has_key; /* written once, before any reader gets past key_once */

static void free_buffer(void *where)
{
    struct buffer *buffer = where;
    if (buffer)
        free(buffer->bytes);
    free(buffer);
}

static void make_key(void)
{
    has_key = pthread_key_create(&key, free_buffer) == 0;
}

static struct buffer *get_own(void)
{
    pthread_once(&key_once, make_key);
    if (!has_key)
        return NULL;
    struct buffer *buffer = pthread_getspecific(key);
    if (buffer)
        return buffer;
    buffer = calloc(1, sizeof(*buffer));
    if (buffer && pthread_setspecific(key, buffer) != 0) {
        free(buffer);
        return NULL;
    }
    return buffer;
}

void *buffer_get(size_t len)
{
    struct buffer *buffer = get_own();
    if (!buffer)
        return NULL;
    if (buffer->len < len || !buffer->bytes) {
        free(buffer->bytes);
        buffer->len = (len / ALIGNMENT + 1) * ALIGNMENT;
        buffer->bytes = aligned_alloc(ALIGNMENT, buffer->len);
        if (!buffer->bytes)
            buffer->len = 0;
    }
    return buffer->bytes;
}

void buffer_release(void)
{
    pthread_once(&key_once, make_key);
    if (!has_key)
        return;
    free_buffer(pthread_getspecific(key));
    pthread_setspecific(key, NULL);
}
