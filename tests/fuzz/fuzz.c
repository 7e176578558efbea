/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/fuzz/fuzz.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void fuzz_fail(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("fuzz: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    abort();
}

uint8_t fuzz_u8(struct fuzz_input *in)
{
    if (in->left == 0)
        return 0;
    in->left--;
    return *in->at++;
}

uint16_t fuzz_u16(struct fuzz_input *in)
{
    unsigned high = fuzz_u8(in);
    return (uint16_t)(high << 8 | fuzz_u8(in));
}

uint32_t fuzz_u32(struct fuzz_input *in)
{
    uint32_t high = fuzz_u16(in);
    return high << 16 | fuzz_u16(in);
}

uint64_t fuzz_u64(struct fuzz_input *in)
{
    uint64_t high = fuzz_u32(in);
    return high << 32 | fuzz_u32(in);
}

unsigned fuzz_below(struct fuzz_input *in, unsigned n)
{
    return n <= 256 ? fuzz_u8(in) % n : fuzz_u16(in) % n;
}

uint64_t fuzz_edge(struct fuzz_input *in)
{
    unsigned kind = fuzz_u8(in);
    if (kind < 64)
        return (1ULL << kind) + (uint64_t)(int8_t)fuzz_u8(in);
    if (kind < 96)
        return (uint64_t)(int8_t)fuzz_u8(in);
    return kind < 160 ? fuzz_u16(in) : fuzz_u64(in);
}

static char *take_text(struct fuzz_input *in, size_t len)
{
    char *text = malloc(len + 1);
    fuzz_check(text);
    if (len)
        memcpy(text, in->at, len);
    text[len] = '\0';
    in->at += len;
    in->left -= len;
    return text;
}

char *fuzz_text(struct fuzz_input *in, char separator)
{
    const uint8_t *end = in->left ? memchr(in->at, separator, in->left) : NULL;
    char *text = take_text(in, end ? (size_t)(end - in->at) : in->left);
    if (end)
        fuzz_u8(in);
    return text;
}

char *fuzz_rest(struct fuzz_input *in)
{
    return take_text(in, in->left);
}

uint8_t *fuzz_copy(const void *data, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);
    fuzz_check(copy);
    if (len)
        memcpy(copy, data, len);
    return copy;
}

int fuzz_file(const char *name, const void *data, size_t len)
{
    int fd = memfd_create(name, MFD_CLOEXEC);
    fuzz_check(fd >= 0);
    fuzz_check(len == 0 || write(fd, data, len) == (ssize_t)len);
    fuzz_check(lseek(fd, 0, SEEK_SET) == 0);
    return fd;
}

uint64_t fuzz_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state * 0x2545f4914f6cdd1dULL;
}
