/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A folder of its own for each test, with files in it. */
#pragma once

#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct scratch {
    char dir[64]; /* a real path */
};

static inline int scratch_setup(void **state)
{
    struct scratch *s = calloc(1, sizeof(*s));
    if (!s)
        return -1;
    snprintf(s->dir, sizeof(s->dir), "/tmp/virtsnapfs-unit-XXXXXX");
    if (!mkdtemp(s->dir)) {
        free(s);
        return -1;
    }
    *state = s;
    return 0;
}

static inline int scratch_remove(const char *path, const struct stat *st, int type,
                                 struct FTW *where)
{
    (void)st;
    (void)type;
    (void)where;
    return remove(path);
}

static inline int scratch_teardown(void **state)
{
    struct scratch *s = *state;
    int r = nftw(s->dir, scratch_remove, 8, FTW_DEPTH | FTW_PHYS);
    free(s);
    return r;
}

/* The path of @name, in one of four buffers in turn. */
static inline const char *scratch_path(const struct scratch *s, const char *name)
{
    static char paths[4][PATH_MAX];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, PATH_MAX, "%s/%s", s->dir, name);
    return path;
}

static inline void scratch_write(const struct scratch *s, const char *name, const char *text)
{
    int fd = open(scratch_path(s, name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (int)strlen(text));
    close(fd);
}

static inline void scratch_mkdir(const struct scratch *s, const char *name)
{
    assert_int_equal(mkdir(scratch_path(s, name), 0700), 0);
}

static inline void scratch_link(const struct scratch *s, const char *to, const char *name)
{
    assert_int_equal(symlink(to, scratch_path(s, name)), 0);
}
