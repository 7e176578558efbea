/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcowcat [-f raw|qcow2] [-s SNAPSHOT] [--map] IMAGE [OUT]
 *
 * Writes the disk in IMAGE to OUT (sparse) or to standard output, or lists its extents. A tool
 * for tests and for people who look into images they trust: its opener follows every reference
 * that has a recorded format, wherever it leads.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "qcow/base/cleanup.h"
#include "qcow/qcow.h"

enum { CACHE_BYTES = 64 << 20, CHUNK = 1 << 20 };

struct arguments {
    enum qcow_format format;
    const char *snapshot; /* by name, else by id; NULL: the active disk */
    bool wants_map;
    const char *image;
    const char *out; /* NULL: standard output */
};

static int open_file(const char *name, enum qcow_format format, struct qcow_file *ret_file,
                     struct error *err)
{
    auto_close int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_set(err, -errno, "cannot open '%s': %s", name, strerrordesc_np(errno));
    char *copy = strdup(name);
    if (!copy)
        return error_set(err, -ENOMEM, "out of memory");
    *ret_file = (struct qcow_file){.fd = take_fd(fd), .format = format, .name = copy};
    return 0;
}

/* A name as recorded, seen from the directory of the file that records it; NULL: no memory. */
static char *resolve(const char *from, const char *name)
{
    const char *slash = strrchr(from, '/');
    if (name[0] == '/' || !slash)
        return strdup(name);
    char *path = NULL;
    if (asprintf(&path, "%.*s/%s", (int)(slash - from), from, name) < 0)
        return NULL;
    return path;
}

/* "nbd://host" or "json:{}": QEMU's words, no file names. */
static bool has_protocol(const char *name)
{
    size_t len = strcspn(name, ":/");
    return name[len] == ':';
}

static int open_ref(void *ctx, const struct qcow_ref *ref, struct qcow_file *ret_file,
                    struct error *err)
{
    (void)ctx;
    if (!ref->name)
        return 1;
    if (has_protocol(ref->name))
        return error_set(err, -ENOTSUP, "'%s': reference '%s' is no file name", ref->from,
                         ref->name);
    if (!ref->format)
        return error_set(err, -ENOTSUP, "'%s': the format of backing file '%s' is not recorded",
                         ref->from, ref->name);
    enum qcow_format format;
    if (qcow_format_parse(ref->format, &format) < 0)
        return error_set(err, -ENOTSUP, "'%s': backing file '%s' has format '%s'", ref->from,
                         ref->name, ref->format);
    auto_free char *path = resolve(ref->from, ref->name);
    if (!path)
        return error_set(err, -ENOMEM, "out of memory");
    return open_file(path, format, ret_file, err);
}

static const struct qcow_snapshot *find_snapshot(const struct qcow_info *info, const char *wanted)
{
    for (size_t i = 0; i < info->n_snapshots; i++)
        if (!strcmp(info->snapshots[i].name, wanted))
            return &info->snapshots[i];
    for (size_t i = 0; i < info->n_snapshots; i++)
        if (!strcmp(info->snapshots[i].id, wanted))
            return &info->snapshots[i];
    return NULL;
}

static int open_image(const struct arguments *args, struct qcow_cache *cache,
                      struct qcow_image **ret_image, struct error *err)
{
    const struct qcow_opener opener = {.open_ref = open_ref};
    struct qcow_file file;
    int r = open_file(args->image, args->format, &file, err);
    if (r < 0)
        return r;
    if (!args->snapshot)
        return qcow_open(&file, &opener, cache, NULL, ret_image, err);
    struct qcow_info info = {0};
    r = qcow_inspect(&file, &info, err);
    const struct qcow_snapshot *snapshot = r < 0 ? NULL : find_snapshot(&info, args->snapshot);
    if (r == 0 && !snapshot)
        r = error_set(err, -ENOENT, "'%s': no snapshot '%s'", args->image, args->snapshot);
    if (r < 0) {
        close(file.fd);
        free(file.name);
    } else {
        r = qcow_open(&file, &opener, cache, snapshot, ret_image, err);
    }
    qcow_info_fini(&info);
    return r;
}

static int write_all(int fd, const char *buf, size_t len, struct error *err)
{
    while (len > 0) {
        ssize_t n = write(fd, buf, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set(err, -errno, "cannot write: %s", strerrordesc_np(errno));
        buf += n;
        len -= (size_t)n;
    }
    return 0;
}

/* One extent: data is read and written, anything else skipped or, into a pipe, written as zeros. */
static int copy_extent(struct qcow_image *image, const struct qcow_extent *extent, int fd,
                       bool is_sparse, char *buf, struct error *err)
{
    if (extent->kind != QCOW_DATA && is_sparse)
        return 0;
    if (is_sparse && lseek(fd, (off_t)extent->guest_off, SEEK_SET) < 0)
        return error_set(err, -errno, "cannot seek: %s", strerrordesc_np(errno));
    for (uint64_t done = 0; done < extent->len;) {
        size_t part = extent->len - done < CHUNK ? (size_t)(extent->len - done) : CHUNK;
        ssize_t n = (ssize_t)part;
        if (extent->kind == QCOW_DATA)
            n = qcow_read(image, extent->guest_off + done, buf, part, err);
        else
            memset(buf, 0, part);
        if (n < 0)
            return (int)n;
        int r = write_all(fd, buf, (size_t)n, err);
        if (r < 0)
            return r;
        done += (uint64_t)n;
    }
    return 0;
}

static const char *const kind_words[] = {
    [QCOW_DATA] = "data", [QCOW_ZERO] = "zero", [QCOW_HOLE] = "hole"};

/* Walks all extents: lists them if @fd is -1, else copies them. */
static int walk(struct qcow_image *image, int fd, bool is_sparse, struct error *err)
{
    auto_free char *buf = malloc(CHUNK);
    if (!buf)
        return error_set(err, -ENOMEM, "out of memory");
    uint64_t guest_size = qcow_size(image), at = 0;
    while (at < guest_size) {
        struct qcow_extent extent;
        int r = qcow_map(image, at, guest_size - at, &extent, err);
        if (r == 0 && fd < 0)
            printf("%#" PRIx64 " %#" PRIx64 " %s\n", extent.guest_off, extent.len,
                   kind_words[extent.kind]);
        else if (r == 0)
            r = copy_extent(image, &extent, fd, is_sparse, buf, err);
        if (r < 0)
            return r;
        at += extent.len;
    }
    return 0;
}

static int copy_out(struct qcow_image *image, const char *out, struct error *err)
{
    if (!out)
        return walk(image, STDOUT_FILENO, false, err);
    auto_close int fd = open(out, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)qcow_size(image)) < 0)
        return error_set(err, -errno, "cannot make '%s': %s", out, strerrordesc_np(errno));
    return walk(image, fd, true, err);
}

static int run(const struct arguments *args, struct error *err)
{
    struct qcow_cache *cache;
    int r = qcow_cache_create(CACHE_BYTES, &cache, err);
    if (r < 0)
        return r;
    struct qcow_image *image = NULL;
    r = open_image(args, cache, &image, err);
    if (r == 0)
        r = args->wants_map ? walk(image, -1, false, err) : copy_out(image, args->out, err);
    qcow_close(image);
    qcow_cache_destroy(cache);
    if (r == 0 && fflush(stdout) != 0)
        return error_set(err, -EIO, "cannot write to standard output");
    return r;
}

static int usage(void)
{
    fputs("usage: qcowcat [-f raw|qcow2] [-s SNAPSHOT] [--map] IMAGE [OUT]\n", stderr);
    return 1;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"map", no_argument, NULL, 'm'}, {0}};
    struct arguments args = {.format = QCOW_FORMAT_QCOW2};
    for (int c; (c = getopt_long(argc, argv, "f:s:", options, NULL)) != -1;) {
        if (c == 'f' && qcow_format_parse(optarg, &args.format) == 0)
            continue;
        if (c == 's')
            args.snapshot = optarg;
        else if (c == 'm')
            args.wants_map = true;
        else
            return usage();
    }
    if (optind >= argc || argc > optind + 2)
        return usage();
    args.image = argv[optind];
    args.out = argv[optind + 1];
    struct error err = {0};
    if (run(&args, &err) == 0)
        return 0;
    fprintf(stderr, "qcowcat: %s\n", err.text);
    return 2;
}
