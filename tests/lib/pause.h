/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Lets others go on for a while: between two looks at something that no event tells of. */
#pragma once

#include <stddef.h>
#include <time.h>

/* Any thread; a signal ends it. */
static inline void pause_us(long us)
{
    nanosleep(&(struct timespec){.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000}, NULL);
}
