/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qcow/inflate.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>
#ifdef HAVE_LIBDEFLATE
#include <libdeflate.h>
#endif

#include "qcow/format.h"

/* ---- What a thread keeps ---- */

struct tools {
    uint8_t *input;
    size_t input_len;
    ZSTD_DCtx *zstd; /* NULL until needed, as the next one */
#ifdef HAVE_LIBDEFLATE
    struct libdeflate_decompressor *deflate;
#endif
};

static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static bool has_key; /* written once, before any reader gets past key_once */

static void free_tools(void *where)
{
    struct tools *tools = where;
    if (!tools)
        return;
    free(tools->input);
    ZSTD_freeDCtx(tools->zstd);
#ifdef HAVE_LIBDEFLATE
    if (tools->deflate)
        libdeflate_free_decompressor(tools->deflate);
#endif
    free(tools);
}

static void make_key(void)
{
    has_key = pthread_key_create(&key, free_tools) == 0;
}

/* NULL: no memory. */
static struct tools *get_tools(void)
{
    pthread_once(&key_once, make_key);
    if (!has_key)
        return NULL;
    struct tools *tools = pthread_getspecific(key);
    if (tools)
        return tools;
    tools = calloc(1, sizeof(*tools));
    if (tools && pthread_setspecific(key, tools) != 0) {
        free(tools);
        return NULL;
    }
    return tools;
}

uint8_t *inflate_input(size_t len)
{
    struct tools *tools = get_tools();
    if (!tools)
        return NULL;
    if (tools->input_len < len) {
        free(tools->input);
        tools->input = malloc(len);
        /* lint: gcc-analyzer/malloc-leak: kept in what the thread's key has */
        tools->input_len = tools->input ? len : 0;
    }
    return tools->input;
}

void inflate_input_done(void)
{
    struct tools *tools = get_tools();
    if (!tools || tools->input_len <= INFLATE_KEPT_MAX)
        return;
    free(tools->input);
    tools->input = NULL;
    tools->input_len = 0;
}

void inflate_release(void)
{
    pthread_once(&key_once, make_key);
    if (!has_key)
        return;
    free_tools(pthread_getspecific(key));
    pthread_setspecific(key, NULL);
}

/* ---- zlib ---- */

/* Raw deflate with the window that QEMU writes with. */
enum { DEFLATE_WINDOW_BITS = -12 };

/*
 * libdeflate is twice as fast as zlib (752 to 362 MB/s on clusters of 64 KiB), but only says yes or
 * no: what it does not take to its very end is zlib's to judge.
 */
#ifdef HAVE_LIBDEFLATE
static bool is_inflated_at_once(const uint8_t *in, size_t in_len, uint8_t *out, size_t out_len)
{
    struct tools *tools = get_tools();
    if (tools && !tools->deflate)
        tools->deflate = libdeflate_alloc_decompressor();
    if (!tools || !tools->deflate)
        return false;
    size_t n = 0;
    return libdeflate_deflate_decompress(tools->deflate, in, in_len, out, out_len, &n) ==
               LIBDEFLATE_SUCCESS &&
           n == out_len;
}
#else
static bool is_inflated_at_once(const uint8_t *in, size_t in_len, uint8_t *out, size_t out_len)
{
    (void)in, (void)in_len, (void)out, (void)out_len;
    return false;
}
#endif

static int inflate_zlib(const uint8_t *in, size_t in_len, uint8_t *out, size_t out_len,
                        struct error *err)
{
    if (is_inflated_at_once(in, in_len, out, out_len))
        return 0;
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

/* ---- zstd ---- */

/* The calling thread's, ready for a new frame; NULL: no memory. */
static ZSTD_DCtx *get_zstd(void)
{
    struct tools *tools = get_tools();
    if (tools && !tools->zstd)
        tools->zstd = ZSTD_createDCtx();
    return tools ? tools->zstd : NULL;
}

/*
 * Frame by frame, since several may follow one another in one cluster, and each at once: a stream
 * would want memory of its own for the window that the frame asks for.
 */
static int inflate_zstd(const uint8_t *in, size_t in_len, uint8_t *out, size_t out_len,
                        struct error *err)
{
    ZSTD_DCtx *dctx = get_zstd();
    if (!dctx)
        return error_set(err, -ENOMEM, "out of memory");
    size_t in_pos = 0, out_pos = 0;
    while (out_pos < out_len) {
        if (in_pos == in_len)
            return error_set(err, -EBADMSG, "damaged zstd data (%zu bytes are missing)",
                             out_len - out_pos);
        size_t frame_len = ZSTD_findFrameCompressedSize(in + in_pos, in_len - in_pos);
        size_t n = frame_len;
        if (!ZSTD_isError(frame_len))
            n = ZSTD_decompressDCtx(dctx, out + out_pos, out_len - out_pos, in + in_pos, frame_len);
        if (ZSTD_isError(n))
            return error_set(err, -EBADMSG, "damaged zstd data (%s)", ZSTD_getErrorName(n));
        in_pos += frame_len;
        out_pos += n;
    }
    return 0;
}

int inflate_cluster(unsigned compression, const uint8_t *in, size_t in_len, uint8_t *out,
                    size_t out_len, struct error *err)
{
    if (compression == COMPRESSION_ZSTD)
        return inflate_zstd(in, in_len, out, out_len, err);
    return inflate_zlib(in, in_len, out, out_len, err);
}
