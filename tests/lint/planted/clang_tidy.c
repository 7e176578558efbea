/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A descriptor that a child would inherit. */
#include <fcntl.h>

int open_table(const char *path);

int open_table(const char *path)
{
    return open(path, O_RDONLY); /* plant: clang-tidy/android-cloexec-open */
}
