/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An error that travels up the call chain: a negative errno and one sentence for a person.
 * Objects belong to the caller (usually on its stack); any thread may use its own.
 */
#pragma once

#include <stdarg.h>

enum { ERROR_TEXT_MAX = 640 };

/* Zero-initialised means "no error". */
struct error {
    int code; /* negative errno, 0 while nothing went wrong */
    char text[ERROR_TEXT_MAX];
};

/*
 * Fills @err (which may be NULL) and returns @code, so that a function can say
 * `return error_set(err, -EINVAL, ...)`. The text is cut at ERROR_TEXT_MAX - 1 bytes, and
 * control characters in it are shown as '?' (text.h), so that no name from an image can forge a log
 * line, or command the terminal that it is shown on.
 *
 * @code  negative errno; 0, which a library that fails without a reason leaves in errno, becomes
 *        -EIO, so that no failure reads as success
 */
#define error_set(err, code, ...) error_negative(error_fill((err), (code), __VA_ARGS__))

int error_fill(struct error *err, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Says where the compiler sees it that what error_set() gives is an error. */
static inline int error_negative(int code)
{
    if (code >= 0)
        __builtin_unreachable();
    return code;
}

/* Puts "CONTEXT: " in front of the text of @err (which may be NULL). */
void error_prefix(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
