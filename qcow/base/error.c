/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qcow/base/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "qcow/base/text.h"

int error_fill(struct error *err, int code, const char *fmt, ...)
{
    if (code >= 0)
        code = -EIO;
    if (!err)
        return code;
    err->code = code;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->text, sizeof(err->text), fmt, ap);
    va_end(ap);
    text_hide_controls(err->text);
    return code;
}

void error_prefix(struct error *err, const char *fmt, ...)
{
    if (!err)
        return;
    char context[ERROR_TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    int len = vsnprintf(context, sizeof(context) - 2, fmt, ap);
    va_end(ap);
    if (len < 0)
        return;
    text_hide_controls(context);
    char text[ERROR_TEXT_MAX];
    size_t room = sizeof(text);
    size_t used = strnlen(context, room - 3);
    memcpy(text, context, used);
    memcpy(text + used, ": ", 2);
    used += 2;
    size_t rest = strnlen(err->text, room - used - 1);
    memcpy(text + used, err->text, rest);
    text[used + rest] = '\0';
    memcpy(err->text, text, used + rest + 1);
}
