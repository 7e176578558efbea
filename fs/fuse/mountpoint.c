/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/fuse/mountpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fs/log.h"
#include "qcow/base/cleanup.h"

/* Takes back in place what the kernel writes as \ooo: space, tab, newline and backslash. */
static void unescape(char *text)
{
    char *to = text;
    for (const char *from = text; *from; to++) {
        const char *o = from + 1;
        if (from[0] == '\\' && o[0] >= '0' && o[0] <= '3' && o[1] >= '0' && o[1] <= '7' &&
            o[2] >= '0' && o[2] <= '7') {
            *to = (char)((o[0] - '0') << 6 | (o[1] - '0') << 3 | (o[2] - '0'));
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
}

/* What stands up to the next blank; NULL: no memory. Of white space the kernel escapes blank, tab
 * and newline alone, so a path may have a carriage return in it, say. */
static char *next_field(const char **at)
{
    size_t len = strcspn(*at, " \n");
    char *field = strndup(*at, len);
    *at += len + ((*at)[len] == ' ');
    return field;
}

/* ID PARENT MAJ:MIN ROOT PATH OPTIONS [TAG...] - TYPE SOURCE SUPER-OPTIONS; see proc(5). */
int mountinfo_parse(const char *line, struct mountinfo *ret_info)
{
    unsigned major, minor;
    auto_free char *path = NULL;
    auto_free char *type = NULL;
    auto_free char *source = NULL;
    const char *dash = strstr(line, " - ");
    /* lint: clang-tidy/cert-err34-c: the kernel writes no number that does not fit */
    if (sscanf(line, "%*u %*u %u:%u", &major, &minor) != 2 || !dash)
        return -EINVAL;
    const char *at = line;
    for (int i = 0; i < 4; i++, at++)
        if (!(at = strchr(at, ' ')))
            return -EINVAL;
    path = next_field(&at);
    at = dash + strlen(" - ");
    type = next_field(&at);
    source = next_field(&at);
    if (!path || !type || !source)
        return -ENOMEM;
    if (!*path || !*type)
        return -EINVAL;
    unescape(path);
    unescape(source);
    *ret_info = (struct mountinfo){.major = major,
                                   .minor = minor,
                                   .path = take_ptr(path),
                                   .type = take_ptr(type),
                                   .source = take_ptr(source)};
    return 0;
}

void mountinfo_fini(struct mountinfo *info)
{
    free(info->path);
    free(info->type);
    free(info->source);
    *info = (struct mountinfo){0};
}

/*
 * Calls @visit for each line; it owns the info. False: the table, or a line of it, cannot be read,
 * so that what was not seen may be there all the same.
 */
static bool walk_mounts(void (*visit)(void *ctx, struct mountinfo *info), void *ctx)
{
    auto_stream FILE *file = fopen("/proc/self/mountinfo", "re");
    if (!file)
        return false;
    auto_free char *line = NULL;
    size_t room = 0;
    bool is_whole = true;
    while (getline(&line, &room, file) > 0) {
        struct mountinfo info;
        int r = mountinfo_parse(line, &info);
        if (r == 0)
            visit(ctx, &info);
        is_whole = is_whole && r != -ENOMEM;
    }
    return is_whole && feof(file);
}

struct path_search {
    const char *path;
    struct mountinfo found;
};

static void keep_last_at_path(void *ctx, struct mountinfo *info)
{
    struct path_search *search = ctx;
    if (strcmp(info->path, search->path) != 0) {
        mountinfo_fini(info);
        return;
    }
    mountinfo_fini(&search->found);
    search->found = *info;
}

/* The mount of ours that covers @path: the last line about it is the topmost. */
static bool find_ours(const char *path, struct mountinfo *ret_info)
{
    struct path_search search = {.path = path};
    walk_mounts(keep_last_at_path, &search);
    if (!search.found.type || strcmp(search.found.type, "fuse." MOUNTPOINT_SUBTYPE) != 0) {
        mountinfo_fini(&search.found);
        return false;
    }
    *ret_info = search.found;
    return true;
}

bool mountpoint_find(const char *real_path, dev_t *ret_dev, char **ret_source)
{
    struct mountinfo info;
    if (!find_ours(real_path, &info))
        return false;
    *ret_dev = makedev(info.major, info.minor);
    *ret_source = take_ptr(info.source);
    mountinfo_fini(&info);
    return true;
}

bool mountpoint_find_device(const char *real_path, dev_t *ret_dev)
{
    auto_free char *source = NULL;
    return mountpoint_find(real_path, ret_dev, &source);
}

struct device_search {
    dev_t dev;
    bool is_there;
};

static void see_device(void *ctx, struct mountinfo *info)
{
    struct device_search *search = ctx;
    search->is_there = search->is_there || makedev(info->major, info->minor) == search->dev;
    mountinfo_fini(info);
}

bool mountpoint_is_attached(dev_t dev)
{
    struct device_search search = {.dev = dev};
    return !walk_mounts(see_device, &search) || search.is_there;
}

static void see_ours(void *ctx, struct mountinfo *info)
{
    if (strcmp(info->type, "fuse." MOUNTPOINT_SUBTYPE) == 0)
        see_device(ctx, info);
    else
        mountinfo_fini(info);
}

bool mountpoint_covers(const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return true;
    struct device_search search = {.dev = st.st_dev};
    return !walk_mounts(see_ours, &search) || search.is_there;
}

/* The real path of @path, its last part left as it is: a dead mount cannot be resolved. */
static char *resolve_parent(const char *path)
{
    auto_free char *copy = strdup(path);
    if (!copy)
        return NULL;
    size_t len = strlen(copy);
    while (len > 1 && copy[len - 1] == '/')
        copy[--len] = '\0';
    char *slash = strrchr(copy, '/');
    *slash = '\0';
    auto_free char *parent = realpath(slash == copy ? "/" : copy, NULL);
    char *joined;
    if (!parent || asprintf(&joined, "%s/%s", strcmp(parent, "/") ? parent : "", slash + 1) < 0)
        return NULL;
    return joined;
}

/* For those who may not unmount themselves. True if the program said it did. */
static bool run_fusermount(const char *path)
{
    char *argv[] = {"fusermount3", "-u", "-z", "--", (char *)path, NULL};
    pid_t pid;
    int how;
    if (posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ) != 0)
        return false;
    while (waitpid(pid, &how, 0) < 0)
        if (errno != EINTR)
            return false;
    return WIFEXITED(how) && WEXITSTATUS(how) == 0;
}

char *mountpoint_resolve(const char *path)
{
    char *real = realpath(path, NULL);
    return real ? real : resolve_parent(path);
}

bool mountpoint_is_dead(const char *real_path)
{
    /* The kernel knows the root's attributes for a while, and would not notice. */
    struct statx stx;
    return statx(AT_FDCWD, real_path, AT_STATX_FORCE_SYNC, STATX_TYPE, &stx) < 0 &&
           errno == ENOTCONN;
}

bool mountpoint_is_served(const char *real_path)
{
    dev_t dev;
    return mountpoint_find_device(real_path, &dev) && !mountpoint_is_dead(real_path);
}

bool mountpoint_detach(const char *real_path)
{
    if (umount2(real_path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
        return true;
    return geteuid() != 0 && run_fusermount(real_path);
}

/* Dead ones may lie over each other, and over one that lives. */
static int detach_dead(const char *path, struct error *err)
{
    auto_free char *at = mountpoint_resolve(path);
    dev_t dev;
    while (at && mountpoint_find_device(at, &dev)) {
        if (!mountpoint_is_dead(at))
            return error_set(err, -EBUSY, "'%s' is already served by virtsnapfs; umount it first",
                             at);
        if (!mountpoint_detach(at))
            break;
        log_warn("the server of an earlier mount at '%s' had died: detached that mount", at);
    }
    return 0;
}

int mountpoint_prepare(const char *path, char **ret_real, struct error *err)
{
    struct stat st;
    int r = detach_dead(path, err);
    if (r < 0)
        return r;
    if (stat(path, &st) < 0)
        return error_set(err, -errno, "cannot mount on '%s': %s", path, strerrordesc_np(errno));
    if (!S_ISDIR(st.st_mode))
        return error_set(err, -ENOTDIR, "cannot mount on '%s': not a directory", path);
    char *real = realpath(path, NULL);
    if (!real)
        return error_set(err, -errno, "cannot mount on '%s': %s", path, strerrordesc_np(errno));
    *ret_real = real;
    return 0;
}

static void write_knob(const char *name, const char *value)
{
    auto_close int fd = open(name, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, value, strlen(value)) < 0)
        log_debug("cannot write '%s': %s", name, strerrordesc_np(errno));
}

void mountpoint_raise_readahead(const char *real_path, unsigned kib)
{
    struct mountinfo info;
    if (!find_ours(real_path, &info))
        return;
    char name[64];
    snprintf(name, sizeof(name), "/sys/class/bdi/%u:%u/read_ahead_kb", info.major, info.minor);
    mountinfo_fini(&info);
    char value[16];
    snprintf(value, sizeof(value), "%u\n", kib);
    write_knob(name, value);
}

void mountpoint_abort(dev_t dev)
{
    char name[64];
    snprintf(name, sizeof(name), "/sys/fs/fuse/connections/%u/abort", minor(dev));
    write_knob(name, "1\n");
}
