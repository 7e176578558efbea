/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One compressed cluster -> cluster bytes. Any thread; each keeps the memory that it inflates with
 * for the next time, at most INFLATE_KEPT_MAX bytes of input buffer and about 170 KiB besides.
 * Spec: "Cluster mapping", Compressed Clusters Descriptor.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "qcow/base/error.h"

enum { INFLATE_KEPT_MAX = 768 << 10 };

/*
 * A buffer for @len bytes of compressed data. The calling thread's own, until it calls
 * inflate_cluster() with it. NULL: no memory.
 */
uint8_t *inflate_input(size_t len);

/*
 * Inflates exactly @out_len bytes. Input left over is ignored (the descriptor counts whole
 * sectors). @compression is a COMPRESSION_ value of qcow/format.h.
 *
 * 0; -EBADMSG if the data is damaged or gives fewer (zstd: or more) bytes; -ENOMEM.
 */
int inflate_cluster(unsigned compression, const uint8_t *in, size_t in_len, uint8_t *out,
                    size_t out_len, struct error *err);

/* Gives back an inflate_input() that is not used any more: what is large is freed. */
void inflate_input_done(void);

/* Frees what the calling thread keeps; done by itself when a thread ends that is not main. */
void inflate_release(void);
