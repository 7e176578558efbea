/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/fuzz/check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    EXTENTS_MAX = 600, /* of one walk; a damaged table may have very many */
    WINDOWS = 6,
    WINDOW_MAX = 64 << 10,
    EDGE_MAX = 4096,
    SECTOR = 512,
};

static uint8_t whole[WINDOW_MAX], pieces[WINDOW_MAX], wanted[WINDOW_MAX];

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static void compare(const struct check_oracle *oracle, uint64_t guest_off, const uint8_t *buf,
                    size_t len)
{
    uint64_t begin = guest_off / SECTOR * SECTOR;
    uint64_t end = (guest_off + len + SECTOR - 1) / SECTOR * SECTOR;
    oracle->expect(oracle->ctx, begin, wanted, (size_t)(end - begin));
    for (size_t i = 0; i < len; i++)
        if (buf[i] != wanted[guest_off - begin + i])
            fuzz_fail("byte %#" PRIx64 " reads as %#x, not as %#x", guest_off + i, buf[i],
                      wanted[guest_off - begin + i]);
}

/* ---- Reads ---- */

/* The bytes of the window in pieces; false if one of them cannot be read. */
static bool read_pieces(struct qcow_image *image, uint64_t guest_off, size_t len, uint64_t *state)
{
    for (size_t done = 0; done < len;) {
        size_t n = 1 + (size_t)(fuzz_random(state) % (fuzz_random(state) % 2 ? 700 : len));
        n = n < len - done ? n : len - done;
        struct error err = {0};
        ssize_t r = qcow_read(image, guest_off + done, pieces + done, n, &err);
        if (r < 0)
            return false;
        fuzz_check((size_t)r == n);
        done += n;
    }
    return true;
}

static void check_window(struct qcow_image *image, const struct check_oracle *oracle,
                         uint64_t guest_off, size_t len, uint64_t *state)
{
    uint64_t guest_size = qcow_size(image);
    struct error err = {0};
    size_t there = guest_off < guest_size ? (size_t)least(len, guest_size - guest_off) : 0;
    ssize_t n = qcow_read(image, guest_off, whole, len, &err);
    if (n < 0) {
        fuzz_check(n == err.code && err.text[0]);
        if (oracle)
            fuzz_fail("cannot read %zu bytes at %#" PRIx64 ": %s", len, guest_off, err.text);
        fuzz_check(!read_pieces(image, guest_off, there, state));
        return;
    }
    fuzz_check((size_t)n == there);
    fuzz_check(read_pieces(image, guest_off, there, state));
    fuzz_check(memcmp(whole, pieces, there) == 0);
    if (oracle)
        compare(oracle, guest_off, whole, there);
}

static void check_windows(struct qcow_image *image, const struct check_oracle *oracle,
                          struct fuzz_input *in, uint64_t *state)
{
    uint64_t guest_size = qcow_size(image);
    check_window(image, oracle, 0, 16384, state);
    check_window(image, oracle, guest_size - least(guest_size, 3000), 8192, state);
    for (unsigned i = 0; i < WINDOWS; i++) {
        uint64_t guest_off = fuzz_random(state) % 3 ? fuzz_edge(in) : fuzz_random(state);
        if (guest_size > 0 && guest_off > guest_size + SECTOR)
            guest_off %= guest_size;
        size_t len = 1 + (size_t)(fuzz_random(state) % (i == 0 ? WINDOW_MAX - 2 * SECTOR : 9000));
        check_window(image, oracle, guest_off, len, state);
    }
}

/* ---- The map ---- */

static bool is_zero(const uint8_t *buf, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (buf[i])
            return false;
    return true;
}

/* One end of an extent. */
static void check_end(struct qcow_image *image, const struct check_oracle *oracle,
                      const struct qcow_extent *extent, uint64_t guest_off, size_t len)
{
    struct error err = {0};
    ssize_t n = qcow_read(image, guest_off, whole, len, &err);
    if (n < 0 && (oracle || extent->kind != QCOW_DATA))
        fuzz_fail("cannot read %zu bytes at %#" PRIx64 ", which the map knows: %s", len, guest_off,
                  err.text);
    if (n < 0)
        return;
    fuzz_check((size_t)n == len);
    fuzz_check(extent->kind == QCOW_DATA || is_zero(whole, len));
    if (oracle)
        compare(oracle, guest_off, whole, len);
}

static void check_extent(struct qcow_image *image, const struct check_oracle *oracle,
                         const struct qcow_extent *extent)
{
    size_t len = (size_t)least(extent->len, EDGE_MAX);
    check_end(image, oracle, extent, extent->guest_off, len);
    check_end(image, oracle, extent, extent->guest_off + extent->len - len, len);
}

/* The map says that it cannot tell: nor then can a read. */
static void check_damage(struct qcow_image *image, const struct check_oracle *oracle,
                         uint64_t guest_off, int code, const struct error *why)
{
    struct error err = {0};
    if (oracle)
        fuzz_fail("cannot map %#" PRIx64 ": %s", guest_off, why->text);
    fuzz_check(code == why->code && why->text[0]);
    fuzz_check(qcow_read(image, guest_off, whole, 1, &err) < 0);
}

static void check_map(struct qcow_image *image, const struct check_oracle *oracle, uint64_t *state)
{
    uint64_t guest_size = qcow_size(image), at = 0;
    for (unsigned i = 0; i < EXTENTS_MAX && at < guest_size; i++) {
        uint64_t max_len = guest_size - at;
        if (fuzz_random(state) % 4 == 0)
            max_len = 1 + fuzz_random(state) % 100000;
        struct qcow_extent extent;
        struct error err = {0};
        int r = qcow_map(image, at, max_len, &extent, &err);
        if (r < 0) {
            check_damage(image, oracle, at, r, &err);
            at += SECTOR - at % SECTOR;
            continue;
        }
        fuzz_check(extent.guest_off == at && extent.len > 0);
        fuzz_check(extent.len <= least(max_len, guest_size - at));
        check_extent(image, oracle, &extent);
        at += extent.len;
    }
    struct qcow_extent extent;
    struct error err = {0};
    fuzz_check(qcow_map(image, guest_size, 1, &extent, &err) == -ENXIO);
}

void check_image(struct qcow_image *image, const struct check_oracle *oracle,
                 struct qcow_cache *cache, struct fuzz_input *in)
{
    uint64_t state = (fuzz_u16(in) + 1) * 0x9e3779b97f4a7c15ULL;
    fuzz_check(qcow_size(image) % SECTOR == 0);
    if (oracle)
        fuzz_check(qcow_size(image) == oracle->guest_size);
    check_map(image, oracle, &state);
    check_windows(image, oracle, in, &state);
    check_flat(image, cache, state);
}
