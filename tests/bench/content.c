/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is in the benchmark's images. The same arguments give the same bytes on any machine.
 *
 *   content extents FILE SIZE DATA SEED MIN MAX    a new sparse file of SIZE bytes: DATA bytes in
 *                                                  extents of MIN to MAX, holes between them
 *   content pieces FILE SIZE PERCENT PIECE SEED [LEN]
 *                                                  writes PERCENT of the PIECE-sized pieces of a
 * file of SIZE bytes, each once, in random order; LEN: only the first bytes of each
 *
 * All in bytes. Exit status 1 if the file cannot be written.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "qcow/base/cleanup.h"

enum {
    PAGE = 4096,
    UNIT = 65536, /* extents begin and end at multiples: a cluster */
    BUFFER = 1 << 20,
    RECORD = 32,
};

/* splitmix64, by Sebastiano Vigna: https://prng.di.unimi.it/splitmix64.c */
static uint64_t next_random(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15U;
    uint64_t z = *state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}

/* Compressed or encrypted user data. */
static void fill_noise(uint8_t *page, uint64_t *state)
{
    for (size_t i = 0; i < PAGE; i += sizeof(uint64_t)) {
        uint64_t value = next_random(state);
        memcpy(page + i, &value, sizeof(value));
    }
}

static const char *const words[] = {
    "the ",     "of ",     "and ",    "to ",     "a",        "e",         "kernel: ", "error: ",
    "systemd",  "[1]: ",   "Started", "Failed ", "service ", "/usr/lib/", "/var/",    "x86_64",
    "-linux",   "-gnu/",   ".so.",    "return ", "static ",  "struct ",   "int ",     "void ",
    ");\n    ", "if (",    " == ",    " != 0",   " {\n",     "}\n",       "NULL",     "0x00",
    "<td>",     "</td>\n", "<a href", "=\"",     "\">",      "http://",   "www.",     ".org/",
    "2024-0",   "-1",      "T0",      ":0",      "+00:00 ",  "INFO ",     "WARN ",    "request ",
    "user=",    "id=",     "1",       "2",       "3",        "5",         "8",        "13",
    "value",    "name",    "size",    "true",    ", ",       "\n",        " ",        ".",
};

/* Logs and sources. */
static void fill_text(uint8_t *page, uint64_t *state)
{
    size_t at = 0;
    while (at < PAGE) {
        uint64_t bits = next_random(state);
        for (int i = 0; i < 10 && at < PAGE; i++, bits >>= 6) {
            const char *word = words[bits % (sizeof(words) / sizeof(words[0]))];
            size_t len = strnlen(word, PAGE - at);
            memcpy(page + at, word, len);
            at += len;
        }
    }
}

/* A database: counters, flags, and small fields that differ. */
static void fill_records(uint8_t *page, uint64_t *state)
{
    uint32_t id = (uint32_t)next_random(state) & 0xffffff;
    for (size_t at = 0; at < PAGE; at += RECORD, id++) {
        uint64_t bits = next_random(state);
        uint32_t record[RECORD / 4] = {
            id, id << 4, (uint32_t)bits, 0, (uint32_t)(bits >> 48), 7, id & 0xff, 1,
        };
        memcpy(page + at, record, RECORD);
    }
}

/*
 * A page by its number: noise, text and records, together about 2:1 for zlib. A tenth of the
 * clusters is noise as a whole, so that compressed images have plain clusters, too.
 */
static void fill_page(uint8_t *page, uint64_t seed, uint64_t number)
{
    uint64_t cluster = (seed << 40) + number / (UNIT / PAGE);
    uint64_t state = (seed << 40) + number * 0x2545f4914f6cdd1dU;
    uint64_t kind = next_random(&cluster) % 10 == 0 ? 0 : next_random(&state) % 100;
    if (kind < 9)
        fill_noise(page, &state);
    else if (kind < 62)
        fill_text(page, &state);
    else
        fill_records(page, &state);
    page[0] |= 1; /* no page is zeros */
}

static int write_content(int fd, uint8_t *buf, size_t len, uint64_t off, uint64_t seed)
{
    for (size_t i = 0; i < len; i += PAGE)
        fill_page(buf + i, seed, (off + i) / PAGE);
    while (len > 0) {
        ssize_t n = pwrite(fd, buf, len, (off_t)off);
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        buf += n;
        off += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static int write_extents(int fd, uint8_t *buf, const uint64_t *arg)
{
    uint64_t size = arg[0], data = arg[1], seed = arg[2], min = arg[3], max = arg[4];
    uint64_t state = seed, at = 0;
    if (ftruncate(fd, (off_t)size) < 0)
        return -errno;
    while (data > 0 && at < size) {
        uint64_t len = min + next_random(&state) % ((max - min) / UNIT + 1) * UNIT;
        len = min_u64(min_u64(len, data), size - at);
        /* Holes share out what is left of them, each by half to one and a half. */
        double holes = (double)(size - at - min_u64(data, size - at)) / (double)data;
        double hole = holes * (double)len * (0.5 + (double)(next_random(&state) % 1024) / 1024);
        for (uint64_t done = 0; done < len; done += BUFFER) {
            int r = write_content(fd, buf, min_u64(BUFFER, len - done), at + done, seed);
            if (r < 0)
                return r;
        }
        data -= len;
        at += len + (uint64_t)hole / UNIT * UNIT;
    }
    return 0;
}

static int write_pieces(int fd, uint8_t *buf, const uint64_t *arg, bool has_len)
{
    uint64_t size = arg[0], percent = arg[1], piece = arg[2], seed = arg[3];
    uint64_t len = has_len ? arg[4] : piece, state = seed, n = size / piece;
    auto_free uint64_t *order = calloc(n, sizeof(*order));
    if (!order || len > BUFFER)
        return order ? -EINVAL : -ENOMEM;
    for (uint64_t i = 0; i < n; i++)
        order[i] = i;
    for (uint64_t i = 0; i < n * percent / 100; i++) {
        uint64_t other = i + next_random(&state) % (n - i);
        uint64_t chosen = order[other];
        order[other] = order[i];
        int r = write_content(fd, buf, len, chosen * piece, seed);
        if (r < 0)
            return r;
    }
    return fsync(fd) < 0 ? -errno : 0;
}

int main(int argc, char **argv)
{
    bool is_extents = argc == 8 && strcmp(argv[1], "extents") == 0;
    bool is_pieces = (argc == 7 || argc == 8) && strcmp(argv[1], "pieces") == 0;
    if (!is_extents && !is_pieces) {
        fprintf(stderr, "content: see the head of content.c\n");
        return 2;
    }
    uint64_t arg[5] = {0};
    for (int i = 3; i < argc; i++)
        arg[i - 3] = strtoull(argv[i], NULL, 10);
    auto_free uint8_t *buf = malloc(BUFFER);
    auto_close int fd =
        open(argv[2], O_RDWR | O_CLOEXEC | (is_extents ? O_CREAT | O_TRUNC : 0), 0644);
    int r = !buf || fd < 0 ? -errno
            : is_extents   ? write_extents(fd, buf, arg)
                           : write_pieces(fd, buf, arg, argc == 8);
    if (r < 0)
        fprintf(stderr, "content: '%s': %s\n", argv[2], strerror(-r));
    return r < 0 ? 1 : 0;
}
