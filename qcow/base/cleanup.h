/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Ownership by scope: auto_free, auto_close and auto_stream (of a file that is read only, so that
 * closing it loses nothing) release what a local variable holds when its scope ends; take_ptr and
 * take_fd hand it over instead. errno is kept, so that they may run between a failing call and the
 * report of it. Any thread.
 */
#pragma once

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_free(void *where)
{
    int saved = errno;
    free(*(void **)where);
    errno = saved;
}

static inline void cleanup_close(const int *fd)
{
    int saved = errno;
    if (*fd >= 0)
        close(*fd);
    errno = saved;
}

static inline void cleanup_stream(FILE **file)
{
    int saved = errno;
    if (*file)
        (void)fclose(*file);
    errno = saved;
}

/* A checker that cannot read these brings its own. */
#ifndef auto_free
#define auto_free __attribute__((cleanup(cleanup_free)))
#define auto_close __attribute__((cleanup(cleanup_close)))
#define auto_stream __attribute__((cleanup(cleanup_stream)))

/* Empties the variable and gives what it held: a macro, since the pointer's type must survive. */
#define take_ptr(var)                                                                              \
    __extension__({                                                                                \
        __typeof__(var) taken_ = (var);                                                            \
        (var) = NULL;                                                                              \
        taken_;                                                                                    \
    })
#endif

static inline int take_fd_from(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}
#define take_fd(var) take_fd_from(&(var))
