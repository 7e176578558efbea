/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Compressed clusters: any bytes, and what is packed well and then spoiled in places. */
#include <stdlib.h>
#include <string.h>

#include "qcow/format.h"
#include "qcow/inflate.h"
#include "tests/fuzz/fuzz.h"
#include "tests/lib/image.h"

static void inflate_any(unsigned compression, size_t out_len, const uint8_t *in, size_t in_len,
                        const uint8_t *want)
{
    uint8_t *packed = fuzz_copy(in, in_len), *out = malloc(out_len);
    struct error err = {0};
    fuzz_check(out);
    int r = inflate_cluster(compression, packed, in_len, out, out_len, &err);
    fuzz_check(r == err.code && (r == 0 || err.text[0]));
    if (want)
        fuzz_check(r == 0 && memcmp(out, want, out_len) == 0);
    free(packed);
    free(out);
}

static void inflate_packed(unsigned compression, size_t out_len, struct fuzz_input *in)
{
    size_t room = 2 * out_len + 4096;
    uint8_t *raw = malloc(out_len), *packed = malloc(room);
    fuzz_check(raw && packed);
    uint8_t n_spoiled = fuzz_u8(in) % 4;
    uint32_t spoils[4];
    for (unsigned i = 0; i < n_spoiled; i++)
        spoils[i] = fuzz_u32(in);
    for (size_t i = 0; i < out_len; i++)
        raw[i] = in->left ? in->at[i % in->left] : 0;
    size_t len = image_compress(compression, raw, out_len, packed, room);
    for (unsigned i = 0; i < n_spoiled; i++)
        packed[(spoils[i] >> 8) % len] ^= (uint8_t)spoils[i];
    /* The descriptor counts whole sectors: there are bytes of something else behind it. */
    size_t more = n_spoiled == 0 ? 100 : 0;
    memset(packed + len, 0x5a, more);
    inflate_any(compression, out_len, packed, len + more, n_spoiled ? NULL : raw);
    free(raw);
    free(packed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct fuzz_input in = {.at = data, .left = len};
    uint8_t shape = fuzz_u8(&in);
    unsigned compression = shape % 2 ? COMPRESSION_ZSTD : COMPRESSION_ZLIB;
    size_t out_len = (size_t)1 << (9 + fuzz_below(&in, shape / 4 % 8 ? 8 : 13));
    if (shape / 2 % 2)
        inflate_packed(compression, out_len, &in);
    else
        inflate_any(compression, out_len, in.at, in.left, NULL);
    return 0;
}
