/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Bitmaps for flat_map.c: bit n is bit n % 64 of word n / 64, in host byte order. They are whole
 * words, at any address. Pure; any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "qcow/base/bytes.h"

enum { WORD_BITS = 64, WORD_LEN = 8 };

static inline uint64_t bits_get_word(const uint8_t *bits, uint64_t idx)
{
    uint64_t word;
    memcpy(&word, bits + idx * WORD_LEN, WORD_LEN);
    return word;
}

static inline void bits_or_word(uint8_t *bits, uint64_t idx, uint64_t more)
{
    uint64_t word = bits_get_word(bits, idx) | more;
    memcpy(bits + idx * WORD_LEN, &word, WORD_LEN);
}

/* The lowest @n bits, @n below 64. */
static inline uint64_t bits_low_mask(uint64_t n)
{
    return (1ULL << n) - 1;
}

static inline void bits_set(uint8_t *bits, uint64_t first, uint64_t end)
{
    while (first < end) {
        uint64_t from = first % WORD_BITS;
        uint64_t n = min_u64(end - first, WORD_BITS - from);
        bits_or_word(bits, first / WORD_BITS, (n == WORD_BITS ? ~0ULL : bits_low_mask(n)) << from);
        first += n;
    }
}

static inline bool bits_test(const uint8_t *bits, uint64_t n)
{
    return bits_get_word(bits, n / WORD_BITS) >> (n % WORD_BITS) & 1;
}

/* How many of the first @end bits are set. */
static inline uint64_t bits_count(const uint8_t *bits, uint64_t end)
{
    uint64_t n = 0;
    for (uint64_t i = 0; i < end / WORD_BITS; i++)
        n += (uint64_t)__builtin_popcountll(bits_get_word(bits, i));
    if (end % WORD_BITS)
        n += (uint64_t)__builtin_popcountll(bits_get_word(bits, end / WORD_BITS) &
                                            bits_low_mask(end % WORD_BITS));
    return n;
}

/* The place of the set bit number @n, which exists. */
static inline uint64_t bits_find_nth(const uint8_t *bits, uint64_t n)
{
    uint64_t idx = 0;
    uint64_t word = bits_get_word(bits, 0);
    for (uint64_t here; (here = (uint64_t)__builtin_popcountll(word)) <= n; n -= here)
        word = bits_get_word(bits, ++idx);
    for (; n > 0; n--)
        word &= word - 1;
    return idx * WORD_BITS + (uint64_t)__builtin_ctzll(word);
}
