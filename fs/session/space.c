/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/session/space.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "fs/host/file.h"
#include "qcow/base/bytes.h"
#include "qcow/base/cleanup.h"
#include "qcow/base/thread.h"

static const uint64_t default_least = 1ULL << 30;
static const uint64_t default_most = 20ULL << 30;

/* For each growing file: what the guest writes until the first look, and tables of the format. */
static const uint64_t reserve_for_one = 64ULL << 20;

/* Bytes in a second that a guest may begin to write at any time; faster ones are seen at a look. */
static const int64_t rate_least = 512LL << 20;

enum {
    LOOKS_AHEAD = 4, /* so many looks before there is no margin left */
    LOOK_LEAST_MS = 50,
    LOOK_MOST_MS = 1000,
};

/* One file system, and what is needed on it. */
struct volume {
    dev_t dev;
    char *path; /* something on it, for messages */
    uint64_t free, total;
    uint64_t reserve; /* before the change is made */
    uint64_t overlay; /* in overlays that are merged into images on it */
};

struct volumes {
    struct volume *items;
    size_t n;
};

static void volumes_fini(struct volumes *volumes)
{
    for (size_t i = 0; i < volumes->n; i++)
        free(volumes->items[i].path);
    free(volumes->items);
}

#define auto_volumes __attribute__((cleanup(volumes_fini)))

static uint64_t add_up(uint64_t a, uint64_t b)
{
    uint64_t sum;
    return add_u64(a, b, &sum) ? sum : UINT64_MAX;
}

uint64_t space_min_free(uint64_t min_free, uint64_t fs_len)
{
    if (min_free != SPACE_MIN_FREE_DEFAULT)
        return min_free;
    uint64_t part = fs_len / 20;
    if (part < default_least)
        return default_least;
    return part > default_most ? default_most : part;
}

static int add_volume(struct volumes *volumes, dev_t dev, const char *path, struct error *err)
{
    struct statvfs fs;
    if (statvfs(path, &fs) < 0)
        return error_set(err, -errno, "cannot tell what is free at '%s': %s", path,
                         strerrordesc_np(errno));
    struct volume *grown = reallocarray(volumes->items, volumes->n + 1, sizeof(*grown));
    if (!grown)
        return error_set(err, -ENOMEM, "out of memory");
    volumes->items = grown;
    struct volume volume = {.dev = dev, .path = strdup(path)};
    if (!volume.path)
        return error_set(err, -ENOMEM, "out of memory");
    if (!mul_u64(fs.f_bavail, fs.f_frsize, &volume.free))
        volume.free = UINT64_MAX;
    if (!mul_u64(fs.f_blocks, fs.f_frsize, &volume.total))
        volume.total = UINT64_MAX;
    /* lint: gcc-analyzer/malloc-leak: kept at an index that gcc loses sight of */
    grown[volumes->n++] = volume;
    return 0;
}

/* The volume of @path, valid until the next one is found. */
static int find_volume(struct volumes *volumes, const char *path, struct volume **ret_volume,
                       struct error *err)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return error_set(err, -errno, "cannot tell what is free at '%s': %s", path,
                         strerrordesc_np(errno));
    size_t i = 0;
    while (i < volumes->n && volumes->items[i].dev != st.st_dev)
        i++;
    if (i == volumes->n) {
        int r = add_volume(volumes, st.st_dev, path, err);
        if (r < 0)
            return r;
    }
    *ret_volume = &volumes->items[i];
    return 0;
}

/* What a plain file takes on disk; 0 for one that is not there. */
static uint64_t allocated_len(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) ? (uint64_t)st.st_blocks * 512 : 0;
}

/* What a copy of the layer may take. */
static uint64_t copy_len(const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0 || !S_ISBLK(st.st_mode))
        return allocated_len(path);
    auto_close int fd = file_open_image(path, NULL, 0, NULL);
    off_t end = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
    return end < 0 ? 0 : (uint64_t)end;
}

/* A block device has its size already, and of a network disk nothing is known here. */
static bool is_plain_file(const char *path)
{
    struct stat st;
    return *path && stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

/* Does the method let the image itself grow, at once or when it ends? */
static bool grows_base(enum change_method method)
{
    switch (method) {
    case CHANGE_OVERLAY:
    case CHANGE_COLD_OVERLAY:
    case CHANGE_MANAGEDSAVE:
    case CHANGE_INTERNAL:
        return true;
    case CHANGE_BACKUP:
    case CHANGE_COPY:
        break;
    }
    return false;
}

/* The file itself may not be there yet, or not any more. */
static int count_file(struct volumes *volumes, const struct change *change,
                      const struct change_disk *disk, struct error *err)
{
    const char *slash = strrchr(disk->file, '/');
    auto_free char *folder =
        slash > disk->file ? strndup(disk->file, (size_t)(slash - disk->file)) : strdup("/");
    if (!folder)
        return error_set(err, -ENOMEM, "out of memory");
    struct volume *volume;
    int r = find_volume(volumes, folder, &volume, err);
    if (r < 0)
        return r;
    volume->reserve = add_up(volume->reserve, reserve_for_one);
    if (change->method == CHANGE_COPY)
        volume->reserve = add_up(volume->reserve, copy_len(disk->base));
    return 0;
}

static int count_base(struct volumes *volumes, const struct change_disk *disk, struct error *err)
{
    struct volume *volume;
    int r = find_volume(volumes, disk->base, &volume, err);
    if (r < 0)
        return r;
    volume->reserve = add_up(volume->reserve, reserve_for_one);
    if (disk->file)
        volume->overlay = add_up(volume->overlay, allocated_len(disk->file));
    return 0;
}

/* All file systems where something grows. 0 or negative errno; volumes_fini() in any case. */
static int count(const struct change *change, struct volumes *volumes, struct error *err)
{
    for (size_t i = 0; i < change->n_disks; i++) {
        const struct change_disk *disk = &change->disks[i];
        int r = 0;
        if (disk->file)
            r = count_file(volumes, change, disk, err);
        if (r == 0 && grows_base(change->method) && is_plain_file(disk->base))
            r = count_base(volumes, disk, err);
        if (r < 0)
            return r;
    }
    return 0;
}

int space_check(const struct change *change, uint64_t min_free, struct error *err)
{
    auto_volumes struct volumes volumes = {0};
    int r = count(change, &volumes, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < volumes.n; i++) {
        const struct volume *v = &volumes.items[i];
        uint64_t least = space_min_free(min_free, v->total);
        if (v->free < add_up(least, v->reserve))
            return error_set(err, -ENOSPC,
                             "no room for what is written meanwhile: the file system of '%s' has "
                             "%" PRIu64 " bytes free, but min_free is %" PRIu64 " and the reserve "
                             "for growing files %" PRIu64,
                             v->path, v->free, least, v->reserve);
    }
    return 0;
}

/* Bytes that may still be written before the instant must end; negative: it should have. */
static int64_t margin_of(const struct volume *v, uint64_t min_free)
{
    uint64_t needed = add_up(space_min_free(min_free, v->total), v->overlay);
    if (v->free >= needed)
        return v->free - needed > INT64_MAX ? INT64_MAX : (int64_t)(v->free - needed);
    return needed - v->free > INT64_MAX ? INT64_MIN : -(int64_t)(needed - v->free);
}

/* The margin shrinks by all that happens there, be it ours or not. */
static unsigned choose_next_ms(const struct space_watch *watch, int64_t margin, int64_t now_ns)
{
    double rate = (double)rate_least;
    if (watch->looked_ns && now_ns > watch->looked_ns) {
        double seconds = (double)(now_ns - watch->looked_ns) / 1e9;
        double seen = ((double)watch->margin - (double)margin) / seconds;
        rate = seen > rate ? seen : rate;
    }
    double ms = (double)margin / rate * 1000 / LOOKS_AHEAD;
    if (ms < LOOK_LEAST_MS)
        return LOOK_LEAST_MS;
    return ms > LOOK_MOST_MS ? LOOK_MOST_MS : (unsigned)ms;
}

int space_look(struct space_watch *watch, const struct change *change, uint64_t min_free,
               struct error *err)
{
    auto_volumes struct volumes volumes = {0};
    int r = count(change, &volumes, err);
    if (r < 0) {
        watch->next_ms = LOOK_MOST_MS;
        return r;
    }
    int64_t margin = INT64_MAX;
    const struct volume *narrowest = NULL;
    for (size_t i = 0; i < volumes.n; i++) {
        int64_t here = margin_of(&volumes.items[i], min_free);
        if (here < margin || !narrowest) {
            margin = here;
            narrowest = &volumes.items[i];
        }
    }
    int64_t now_ns = monotonic_ns();
    watch->next_ms = choose_next_ms(watch, margin, now_ns);
    watch->looked_ns = now_ns;
    watch->margin = margin;
    if (margin >= 0)
        return 0;
    return error_set(err, -ENOSPC,
                     "ended early: the file system of '%s' has %" PRIu64
                     " bytes free, but min_free "
                     "is %" PRIu64 " and what is to be merged there %" PRIu64,
                     narrowest->path, narrowest->free, space_min_free(min_free, narrowest->total),
                     narrowest->overlay);
}

uint64_t space_used(char *const *paths, size_t n)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum = add_up(sum, allocated_len(paths[i]));
    return sum;
}
