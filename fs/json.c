/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/json.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "qcow/base/cleanup.h"

char *json_print(const json_t *root, size_t flags)
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

static size_t read_some(void *buffer, size_t len, void *ctx)
{
    ssize_t n = read(*(const int *)ctx, buffer, len);
    return n < 0 ? (size_t)-1 : (size_t)n;
}

json_t *json_read(int fd, json_error_t *ret_why)
{
    return json_load_callback(read_some, &fd, JSON_REJECT_DUPLICATES, ret_why);
}

json_t *json_any_text(const char *text)
{
    if (!text)
        return json_null();
    json_t *value = json_string(text);
    if (value)
        return value;
    auto_free char *plain = strdup(text);
    for (char *at = plain; at && *at; at++)
        if ((unsigned char)*at >= 0x80)
            *at = '?';
    return plain ? json_string(plain) : NULL;
}
