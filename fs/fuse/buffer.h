/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A buffer for one reply, kept by each thread for its next one and freed when the thread ends. */
#pragma once

#include <stddef.h>

/* At least @len bytes, aligned to a page, valid until the thread's next call; NULL: no memory. */
void *buffer_get(size_t len);

/* Frees that of the calling thread: for the main thread, whose end is the program's. */
void buffer_release(void);
