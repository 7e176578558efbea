/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One compressed cluster -> cluster bytes. Pure but for memory; any thread.
 * Spec: "Cluster mapping", Compressed Clusters Descriptor.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "qcow/base/error.h"

/*
 * Inflates exactly @out_len bytes. Input left over is ignored (the descriptor counts whole
 * sectors). @compression is a COMPRESSION_ value of qcow/format.h.
 *
 * 0; -EBADMSG if the data is damaged or gives fewer (zstd: or more) bytes; -ENOMEM.
 */
int inflate_cluster(unsigned compression, const uint8_t *in, size_t in_len, uint8_t *out,
                    size_t out_len, struct error *err);
