/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a mark calls wrong, and a mark that nothing calls for. */
#include <stdlib.h>

int *make_marked(void);

int *make_marked(void)
{
    int *one = malloc(sizeof(*one));
    /* lint: gcc-analyzer/possible-null-dereference: planted */
    *one = 1;
    return one;
}

int *make_sound(void);

/* lint: clang-tidy/misc-no-recursion: planted */
int *make_sound(void) /* plant: clang-tidy/unneeded-mark */
{
    return calloc(1, sizeof(int));
}
