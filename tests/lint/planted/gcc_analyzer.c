/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Memory that there may be none of. */
#include <stdlib.h>

int *make_one(void);

int *make_one(void)
{
    int *one = malloc(sizeof(*one));
    *one = 1; /* plant: gcc-analyzer/possible-null-dereference */
    return one;
}
