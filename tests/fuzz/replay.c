/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Runs a target without libFuzzer: on each file that is named or lies in a folder that is named,
 * and on inputs that are made from them by rule, the same ones in each run.
 *
 *     fuzz-replay-TARGET [-n MUTATIONS] [-m LEN] FILE|FOLDER...
 *
 * Each file gives MUTATIONS (20) further inputs of at most LEN (4096) bytes; without any file, they
 * are made from nothing. What was being run when the program dies is told on standard error, and
 * left in a file if it stands nowhere yet.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"

enum { FILES_MAX = 4096, INPUT_MAX = 1 << 20 };

struct file {
    char *path;
    uint8_t *data;
    size_t len;
};

static struct file files[FILES_MAX];
static size_t n_files, n_runs;
static size_t len_max = 4096;

/* Of what is run now; for on_death(). */
static const char *now_path;
static unsigned now_mutation; /* 0: the file as it is */
static const uint8_t *now_data;
static size_t now_len;

static void put(const char *text)
{
    (void)!write(STDERR_FILENO, text, strlen(text));
}

/* Only what a signal handler may call. */
static void on_death(int signal_number)
{
    put("\nfuzz: died of ");
    put(now_path);
    if (now_mutation > 0) {
        int fd = open("fuzz-crash", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        if (fd >= 0 && write(fd, now_data, now_len) == (ssize_t)now_len)
            put(", changed: the input is in ./fuzz-crash");
    }
    put("\n");
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

static void run(const char *path, unsigned mutation, const uint8_t *data, size_t len)
{
    uint8_t *copy = fuzz_copy(data, len); /* at the end of its memory, so that overreads are seen */
    now_path = path;
    now_mutation = mutation;
    now_data = copy;
    now_len = len;
    LLVMFuzzerTestOneInput(copy, len);
    n_runs++;
    free(copy);
}

static int compare_paths(const void *a, const void *b)
{
    return strcmp(((const struct file *)a)->path, ((const struct file *)b)->path);
}

static void read_file(const char *path)
{
    if (n_files == FILES_MAX)
        fuzz_fail("more than %d files", FILES_MAX);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct file *file = &files[n_files++];
    *file = (struct file){.path = strdup(path), .data = malloc(INPUT_MAX)};
    if (fd < 0 || !file->path || !file->data)
        fuzz_fail("cannot read '%s'", path);
    ssize_t n;
    while ((n = read(fd, file->data + file->len, INPUT_MAX - file->len)) > 0)
        file->len += (size_t)n;
    if (n < 0 || file->len == INPUT_MAX)
        fuzz_fail("cannot read '%s', or it is too long", path);
    close(fd);
}

static void read_place(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir && errno == ENOTDIR)
        read_file(path);
    if (!dir)
        return; /* a target need not have crashes yet */
    /* lint: cppcheck/readdirCalled: glibc calls readdir_r, which is wanted, deprecated */
    for (struct dirent *entry; (entry = readdir(dir));) {
        char *name = NULL;
        if (entry->d_name[0] == '.')
            continue;
        if (asprintf(&name, "%s/%s", path, entry->d_name) < 0)
            fuzz_fail("out of memory");
        read_file(name);
        free(name);
    }
    closedir(dir);
}

static size_t below(uint64_t *state, size_t n)
{
    return n ? (size_t)(fuzz_random(state) % n) : 0;
}

/* Puts a piece of some file in place of, or between, what is there. */
static size_t graft(uint8_t *buf, size_t len, uint64_t *state)
{
    const struct file *from = &files[below(state, n_files)];
    size_t start = below(state, from->len), at = below(state, len + 1);
    size_t n = below(state, from->len - start + 1);
    n = n < len_max - at ? n : len_max - at;
    memcpy(buf + at, from->data + start, n);
    return at + n > len || fuzz_random(state) % 2 ? at + n : len;
}

static size_t insert(uint8_t *buf, size_t len, uint64_t *state)
{
    size_t at = below(state, len + 1), n = 1 + below(state, 8);
    if (len + n > len_max)
        return len;
    memmove(buf + at + n, buf + at, len - at);
    for (size_t i = 0; i < n; i++)
        buf[at + i] = (uint8_t)fuzz_random(state);
    return len + n;
}

static size_t cut(uint8_t *buf, size_t len, uint64_t *state)
{
    size_t at = below(state, len), n = below(state, len - at + 1);
    memmove(buf + at, buf + at + n, len - at - n);
    return len - n;
}

static size_t mutate(uint8_t *buf, size_t len, uint64_t *state)
{
    static const uint8_t odd[] = {0x00, 0xff, 0x7f, 0x80, 0x01, '"',
                                  '\'', '\\', '<',  '&',  '%',  ' '};
    for (size_t n = 1 + below(state, 6); n > 0; n--) {
        uint64_t way = fuzz_random(state) % 8;
        if (way == 0 && n_files > 0)
            len = graft(buf, len, state);
        else if (way == 1 || len == 0)
            len = insert(buf, len, state);
        else if (way == 2)
            len = cut(buf, len, state);
        else if (way < 5)
            buf[below(state, len)] ^= (uint8_t)(1U << below(state, 8));
        else if (way < 7)
            buf[below(state, len)] = odd[below(state, sizeof(odd))];
        else
            buf[below(state, len)] = (uint8_t)fuzz_random(state);
    }
    return len;
}

/* FNV-1a of the content: a file that comes or goes does not change what others are made into. */
static uint64_t seed_of(const struct file *file)
{
    uint64_t hash = 0xcbf29ce484222325ULL;
    for (size_t i = 0; i < file->len; i++)
        hash = (hash ^ file->data[i]) * 0x100000001b3ULL;
    return hash ? hash : 1;
}

static void run_mutations(const struct file *file, unsigned n_mutations)
{
    uint8_t *buf = malloc(len_max + 1);
    fuzz_check(buf);
    uint64_t state = seed_of(file);
    for (unsigned i = 1; i <= n_mutations; i++) {
        size_t len = file->len < len_max ? file->len : len_max;
        if (file->data)
            memcpy(buf, file->data, len);
        if (n_files == 0) { /* from nothing */
            len = below(&state, len_max);
            for (size_t at = 0; at < len; at++)
                buf[at] = (uint8_t)fuzz_random(&state);
        }
        run(file->path, i, buf, mutate(buf, len, &state));
    }
    free(buf);
}

int main(int argc, char **argv)
{
    unsigned n_mutations = 20;
    for (int c; (c = getopt(argc, argv, "n:m:")) != -1;) {
        if (c == 'n')
            n_mutations = (unsigned)strtoul(optarg, NULL, 10);
        else if (c == 'm')
            len_max = strtoul(optarg, NULL, 10);
        else
            return 1;
    }
    for (int i = optind; i < argc; i++)
        read_place(argv[i]);
    qsort(files, n_files, sizeof(*files), compare_paths);
    signal(SIGABRT, on_death);
    signal(SIGTERM, on_death);
    for (size_t i = 0; i < n_files; i++)
        run(files[i].path, 0, files[i].data, files[i].len);
    const struct file nothing = {.path = (char *)"nothing"};
    if (n_files == 0)
        run_mutations(&nothing, n_mutations);
    for (size_t i = 0; i < n_files; i++)
        run_mutations(&files[i], n_mutations);
    printf("%zu files, %zu inputs\n", n_files, n_runs);
    for (size_t i = 0; i < n_files; i++) {
        free(files[i].path);
        free(files[i].data);
    }
    return 0;
}
