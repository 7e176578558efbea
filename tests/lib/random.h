/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Numbers that look random and are the same in each run. Each thread has a seed of its own. */
#pragma once

#include <stdint.h>

/* The next one after @seed, which may be any. (MurmurHash3's last step, over a counter.) */
static inline uint32_t random_next(unsigned *seed)
{
    *seed += 0x9e3779b9U;
    uint32_t n = *seed;
    n = (n ^ n >> 16) * 0x85ebca6bU;
    n = (n ^ n >> 13) * 0xc2b2ae35U;
    return n ^ n >> 16;
}
