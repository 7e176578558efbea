/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qcow/base/text.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* Bytes of the character of UTF-8 that begins at @at; 1 where none of several bytes does. */
static size_t char_len(const unsigned char *at)
{
    size_t len = *at >= 0xf0 ? 4 : *at >= 0xe0 ? 3 : *at >= 0xc2 ? 2 : 1;
    for (size_t i = 1; i < len; i++)
        if ((at[i] & 0xc0) != 0x80)
            return 1; /* also at the text's end */
    return len;
}

static bool is_control(const unsigned char *at, size_t len)
{
    if (len == 1)
        return *at < 0x20 || (*at >= 0x7f && *at < 0xa0);
    return len == 2 && at[0] == 0xc2 && at[1] < 0xa0;
}

void text_hide_controls(char *text)
{
    size_t len;
    for (unsigned char *at = (unsigned char *)text; *at; at += len) {
        len = char_len(at);
        if (is_control(at, len))
            memset(at, '?', len);
    }
}
