/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the analyzers cannot know of functions in libraries. analyze.py puts it in front of each
 * file that they read; no build contains it.
 */
#pragma once

#include <pthread.h>

/* glibc's attribute access_none says that it does not look at the value; but it keeps that. */
int model_setspecific(pthread_key_t key, void *value);
#define pthread_setspecific model_setspecific

#ifdef MODEL_CMOCKA
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static inline int model_is_same(const void *a, const void *b, size_t len)
{
    return a && b && memcmp(a, b, len) == 0;
}

static inline int model_is_same_text(const char *a, const char *b)
{
    return a && b && strcmp(a, b) == 0;
}

/* An assertion that fails does not return. */
#define _assert_true(result, ...) ((result) ? (void)0 : abort())
#define _assert_int_equal(a, b, ...) _assert_true((a) == (b))
#define _assert_int_not_equal(a, b, ...) _assert_true((a) != (b))
#define _assert_string_equal(a, b, ...) _assert_true(model_is_same_text(a, b))
#define _assert_string_not_equal(a, b, ...) _assert_true(!model_is_same_text(a, b))
#define _assert_memory_equal(a, b, len, ...) _assert_true(model_is_same(a, b, len))
#define _assert_in_range(n, min, max, ...) _assert_true((n) - (min) <= (max) - (min))
#define _fail(...) abort()
#define _skip(...) abort()
#endif
