/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the fuzz targets share: numbers out of the input, files in memory, and how to say that
 * something is wrong. One thread.
 *
 * A target is one file with LLVMFuzzerTestOneInput(), which libFuzzer or replay.c calls. What it
 * checks beyond memory errors ends the program by fuzz_fail().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* 0. The input is as the fuzzer made it: of any length, and gone after the call. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Ends the program as a sanitizer would. */
void fuzz_fail(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* fuzz_fail() with what was expected, unless it is so. */
#define fuzz_check(condition)                                                                      \
    ((condition) ? (void)0 : fuzz_fail("%s:%d: not so: %s", __FILE__, __LINE__, #condition))

/* What is left of an input; numbers are taken from its front and are 0 past its end. */
struct fuzz_input {
    const uint8_t *at;
    size_t left;
};

uint8_t fuzz_u8(struct fuzz_input *in);
uint16_t fuzz_u16(struct fuzz_input *in);
uint32_t fuzz_u32(struct fuzz_input *in);
uint64_t fuzz_u64(struct fuzz_input *in);
/* Below @n, which is at least 1 and at most 65536. */
unsigned fuzz_below(struct fuzz_input *in, unsigned n);
/* A number of any size, often one near a power of two. */
uint64_t fuzz_edge(struct fuzz_input *in);

/*
 * The bytes up to the next @separator (which is taken, too) or the end, as a string: it ends at a
 * NUL. Caller frees.
 */
char *fuzz_text(struct fuzz_input *in, char separator);
/* All that is left, as a string. Caller frees. */
char *fuzz_rest(struct fuzz_input *in);
/* A copy of @len bytes in memory of just that size, so that a read past it is seen. */
uint8_t *fuzz_copy(const void *data, size_t len);

/* A file in memory with these bytes; caller closes. */
int fuzz_file(const char *name, const void *data, size_t len);

/* The next of a row of numbers that look random. @state is not 0. */
uint64_t fuzz_random(uint64_t *state);
