/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qcow/inflate.h"

#include <errno.h>
#include <stdbool.h>
#include <zlib.h>
#include <zstd.h>

#include "qcow/format.h"

/* Raw deflate with the window that QEMU writes with. */
enum { DEFLATE_WINDOW_BITS = -12 };

static int inflate_zlib(const uint8_t *in, size_t in_len, uint8_t *out, size_t out_len,
                        struct error *err)
{
    z_stream strm = {
        .next_in = (Bytef *)in,
        .avail_in = (uInt)in_len,
        .next_out = out,
        .avail_out = (uInt)out_len,
    };
    if (inflateInit2(&strm, DEFLATE_WINDOW_BITS) != Z_OK)
        return error_set(err, -ENOMEM, "out of memory");
    int r = inflate(&strm, Z_FINISH);
    uInt missing = strm.avail_out;
    inflateEnd(&strm);
    /* Z_BUF_ERROR: the output is full though the stream does not end there; QEMU accepts it */
    if ((r == Z_STREAM_END || r == Z_BUF_ERROR) && missing == 0)
        return 0;
    if (r == Z_MEM_ERROR)
        return error_set(err, -ENOMEM, "out of memory");
    return error_set(err, -EBADMSG, "damaged zlib data (zlib says %d, %u bytes are missing)", r,
                     missing);
}

static int inflate_zstd(const uint8_t *in, size_t in_len, uint8_t *out, size_t out_len,
                        struct error *err)
{
    ZSTD_DCtx *dctx = ZSTD_createDCtx();
    if (!dctx)
        return error_set(err, -ENOMEM, "out of memory");
    ZSTD_inBuffer input = {.src = in, .size = in_len};
    ZSTD_outBuffer output = {.dst = out, .size = out_len};
    size_t r = 0;
    bool is_stuck = false;
    /* several frames may follow one another in one cluster */
    while (output.pos < output.size && !is_stuck) {
        size_t in_before = input.pos, out_before = output.pos;
        r = ZSTD_decompressStream(dctx, &output, &input);
        is_stuck = ZSTD_isError(r) || (input.pos == in_before && output.pos == out_before);
    }
    ZSTD_freeDCtx(dctx);
    if (ZSTD_isError(r))
        return error_set(err, -EBADMSG, "damaged zstd data (%s)", ZSTD_getErrorName(r));
    if (is_stuck)
        return error_set(err, -EBADMSG, "damaged zstd data (%zu bytes are missing)",
                         output.size - output.pos);
    if (r != 0)
        return error_set(err, -EBADMSG, "damaged zstd data (more than a cluster)");
    return 0;
}

int inflate_cluster(unsigned compression, const uint8_t *in, size_t in_len, uint8_t *out,
                    size_t out_len, struct error *err)
{
    if (compression == COMPRESSION_ZSTD)
        return inflate_zstd(in, in_len, out, out_len, err);
    return inflate_zlib(in, in_len, out, out_len, err);
}
