/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Memory that is lost, beside memory that is freed as its variable goes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "qcow/base/cleanup.h"

int add_kept(char **ret_text, const char *text);
int add_seen(char **ret_text, const char *text);
int add_owned(char **ret_text, const char *text);
int add_lost(char **ret_text, const char *text);
int add_taken(char **ret_text, const char *text);
int add_overwritten(char **ret_text, const char *text);

static int make(char **ret_text, const char *text)
{
    auto_free char *made = strdup(text);
    if (!made)
        return -ENOMEM;
    *ret_text = take_ptr(made);
    return 0;
}

int add_kept(char **ret_text, const char *text)
{
    auto_free char *copy = strdup(text);
    if (!copy || copy[0] == '/')
        return -EINVAL;
    auto_free char *other = NULL;
    if (make(&other, copy) < 0 || other[0] == '.')
        return -EINVAL;
    *ret_text = take_ptr(other);
    return 0;
}

int add_seen(char **ret_text, const char *text)
{
    auto_free char *copy = strdup(text);
    if (!copy)
        return -ENOMEM;
    const char *at = copy;
    while (*at == '.')
        at++;
    if (*at == '/')
        return -EINVAL;
    *ret_text = take_ptr(copy);
    return 0;
}

struct owner {
    char *text;
};

static void cleanup_owner(const struct owner *owner)
{
    free(owner->text);
}

int add_owned(char **ret_text, const char *text)
{
    char *copy = strdup(text);
    __attribute__((cleanup(cleanup_owner))) struct owner owner = {.text = copy};
    if (!copy || copy[0] == '/')
        return -EINVAL;
    *ret_text = take_ptr(owner.text);
    return 0;
}

int add_lost(char **ret_text, const char *text)
{
    char *copy = NULL;
    if (make(&copy, text) < 0)
        return -ENOMEM;
    if (copy[0] == '/')
        return -EINVAL; /* plant: clang-analyzer/unix.Malloc */
    *ret_text = copy;
    return 0;
}

int add_taken(char **ret_text, const char *text)
{
    auto_free char *copy = strdup(text);
    if (!copy)
        return -ENOMEM;
    char *other = take_ptr(copy);
    if (other[0] == '/') /* plant: gcc-analyzer/malloc-leak */
        return -EINVAL;  /* plant: clang-analyzer/unix.Malloc */
    *ret_text = other;
    return 0;
}

int add_overwritten(char **ret_text, const char *text)
{
    auto_free char *copy = strdup(text);
    if (!copy)
        return -ENOMEM;
    if (copy[0] == '/')
        copy = strdup(text + 1); /* plant: gcc-analyzer/malloc-leak */
    *ret_text = take_ptr(copy);  /* plant: clang-analyzer/unix.Malloc */
    return *ret_text ? 0 : -ENOMEM;
}
