/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the test guest does all the time, as fast as it can:
 *
 *   writer blocks SLOTS DISK...  numbered, checksummed blocks, each synced before the next one, to
 *                                the disks in turn, SLOTS of them on each disk, then over again.
 *                                It goes on from the highest number that it finds, and ends with
 *                                an error where a block that it goes over is not the one it wrote.
 *                                $WRITER_PAUSE_US: it sleeps for so long after each.
 *   writer files DIR             files, each written, synced and renamed over an older one
 *   writer ask                   prints "started N synced N gap_us N" of the running writer; gap is
 *                                the longest time between two synced writes since then or "reset"
 *   writer reset                 begins a new gap
 *
 * check_blocks.py knows the layout of a block. Runs inside the guest only.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK_SIZE = 4096, N_WORDS = BLOCK_SIZE / 8, N_FILES = 64, REPORT_EVERY_US = 2000000 };
static const uint64_t block_magic = 0x6b636f6c42747367; /* "gstBlock" */

/* Words of a block, little-endian; between FILL and CRC each word is the number and its place. */
enum { W_MAGIC, W_SEQ, W_DISK, W_N_DISKS, W_N_SLOTS, W_FILL, W_CRC = N_WORDS - 1 };

struct progress {
    _Atomic uint64_t started, synced, gap_us;
};

static void die(const char *what)
{
    fprintf(stderr, "writer: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static struct progress *map_progress(void)
{
    int fd = open("/run/progress", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, sizeof(struct progress)) < 0)
        die("/run/progress");
    void *at = mmap(NULL, sizeof(struct progress), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        die("mmap");
    return at;
}

/* CRC-32 as in zlib. */
static uint32_t crc32(const unsigned char *bytes, size_t len)
{
    static uint32_t table[256];
    for (uint32_t i = 0; table[255] == 0 && i < 256; i++) {
        uint32_t value = i;
        for (int bit = 0; bit < 8; bit++)
            value = value & 1 ? value >> 1 ^ 0xedb88320 : value >> 1;
        table[i] = value;
    }
    uint32_t crc = ~UINT32_C(0);
    for (size_t i = 0; i < len; i++)
        crc = crc >> 8 ^ table[(crc ^ bytes[i]) & 0xff];
    return ~crc;
}

/* Counts a synced write, and says every two seconds how it goes. */
static void note_synced(struct progress *progress, uint64_t seq)
{
    static uint64_t last_us, report_us, worst_us;
    uint64_t now = now_us();
    uint64_t gap = last_us ? now - last_us : 0;
    last_us = now;
    atomic_store(&progress->synced, seq);
    if (gap > atomic_load(&progress->gap_us))
        atomic_store(&progress->gap_us, gap);
    if (gap > worst_us)
        worst_us = gap;
    if (now - report_us < REPORT_EVERY_US)
        return;
    printf("writer: synced %" PRIu64 ", longest gap %" PRIu64 " us\n", seq, worst_us);
    fflush(stdout);
    report_us = now;
    worst_us = 0;
}

/* ---- blocks ---- */

struct disks {
    int fds[26];
    uint64_t n, n_slots;
};

static uint64_t find_last(const struct disks *disks, uint64_t *block)
{
    uint64_t last = 0;
    for (uint64_t i = 0; i < disks->n; i++)
        for (uint64_t slot = 0; slot < disks->n_slots; slot++) {
            if (pread(disks->fds[i], block, BLOCK_SIZE, (off_t)(slot * BLOCK_SIZE)) != BLOCK_SIZE)
                die("read");
            if (block[W_MAGIC] != block_magic)
                break; /* slots are filled in order */
            if (block[W_SEQ] > last)
                last = block[W_SEQ];
        }
    return last;
}

static void fill_block(const struct disks *disks, uint64_t seq, uint64_t *block)
{
    block[W_MAGIC] = block_magic;
    block[W_SEQ] = seq;
    block[W_DISK] = (seq - 1) % disks->n;
    block[W_N_DISKS] = disks->n;
    block[W_N_SLOTS] = disks->n_slots;
    for (uint64_t i = W_FILL; i < W_CRC; i++)
        block[i] = seq << 9 | i;
    block[W_CRC] = crc32((const unsigned char *)block, W_CRC * sizeof(*block));
}

/* What the block of number @seq goes over is the one of a round before, or was never written. */
static void check_old_block(const struct disks *disks, int fd, off_t off, uint64_t seq)
{
    static _Alignas(BLOCK_SIZE) uint64_t found[N_WORDS], wanted[N_WORDS];
    uint64_t lap = disks->n * disks->n_slots;
    memset(wanted, 0, sizeof(wanted));
    if (seq > lap)
        fill_block(disks, seq - lap, wanted);
    if (pread(fd, found, BLOCK_SIZE, off) != BLOCK_SIZE)
        die("read");
    if (memcmp(found, wanted, BLOCK_SIZE) == 0)
        return;
    fprintf(stderr,
            "writer: lost: block %" PRIu64 " is gone, its place has %" PRIu64 " (%#" PRIx64 ")\n",
            seq > lap ? seq - lap : 0, found[W_SEQ], found[W_MAGIC]);
    exit(1);
}

static void write_blocks(char **argv, int argc)
{
    const char *pause = getenv("WRITER_PAUSE_US");
    useconds_t pause_us = pause ? (useconds_t)strtoul(pause, NULL, 10) : 0;
    struct progress *progress = map_progress();
    struct disks disks = {.n_slots = strtoull(argv[0], NULL, 10)};
    for (int i = 1; i < argc; i++) {
        disks.fds[disks.n] = open(argv[i], O_RDWR | O_DIRECT | O_CLOEXEC);
        if (disks.fds[disks.n++] < 0)
            die(argv[i]);
    }
    uint64_t *block = aligned_alloc(BLOCK_SIZE, BLOCK_SIZE);
    if (!block)
        die("memory");
    uint64_t seq = find_last(&disks, block);
    printf("writer: %" PRIu64 " disks, going on after %" PRIu64 "\n", disks.n, seq);
    for (;;) {
        seq++;
        fill_block(&disks, seq, block);
        int fd = disks.fds[(seq - 1) % disks.n];
        off_t off = (off_t)((seq - 1) / disks.n % disks.n_slots * BLOCK_SIZE);
        check_old_block(&disks, fd, off, seq);
        atomic_store(&progress->started, seq);
        if (pwrite(fd, block, BLOCK_SIZE, off) != BLOCK_SIZE || fdatasync(fd) < 0)
            die("write");
        note_synced(progress, seq);
        if (pause_us)
            nanosleep(&(struct timespec){.tv_sec = pause_us / 1000000,
                                         .tv_nsec = pause_us % 1000000 * 1000},
                      NULL);
    }
}

/* ---- files ---- */

static void write_file(const char *name, uint64_t seq)
{
    char line[64], buffer[BLOCK_SIZE];
    int len = snprintf(line, sizeof(line), "file %" PRIu64 "\n", seq);
    for (size_t i = 0; i < sizeof(buffer); i++)
        buffer[i] = line[i % (size_t)len];
    int fd = open("new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        die("new");
    for (uint64_t i = 0; i < 1 + seq % 8; i++)
        if (write(fd, buffer, sizeof(buffer)) != sizeof(buffer))
            die("write");
    if (fsync(fd) < 0 || close(fd) < 0 || rename("new", name) < 0)
        die(name);
}

static void write_files(const char *dir)
{
    struct progress *progress = map_progress();
    if (chdir(dir) < 0)
        die(dir);
    for (uint64_t seq = 1;; seq++) {
        char name[32];
        snprintf(name, sizeof(name), "f%02" PRIu64, seq % N_FILES);
        atomic_store(&progress->started, seq);
        write_file(name, seq);
        note_synced(progress, seq);
    }
}

int main(int argc, char **argv)
{
    if (argc > 3 && strcmp(argv[1], "blocks") == 0)
        write_blocks(argv + 2, argc - 2);
    if (argc == 3 && strcmp(argv[1], "files") == 0)
        write_files(argv[2]);
    if (argc == 2 && strcmp(argv[1], "ask") == 0) {
        struct progress *progress = map_progress();
        uint64_t gap_us = atomic_load(&progress->gap_us);
        uint64_t synced = atomic_load(&progress->synced);
        printf("started %" PRIu64 " synced %" PRIu64 " gap_us %" PRIu64 "\n",
               atomic_load(&progress->started), synced, gap_us);
        return 0;
    }
    if (argc == 2 && strcmp(argv[1], "reset") == 0) {
        atomic_store(&map_progress()->gap_us, 0);
        return 0;
    }
    fprintf(stderr, "usage: writer blocks SLOTS DISK... | files DIR | ask | reset\n");
    return 1;
}
