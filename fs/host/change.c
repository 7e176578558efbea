/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/change.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "qcow/base/cleanup.h"

static const char *const method_names[N_CHANGE_METHODS] = {
    [CHANGE_OVERLAY] = "overlay",   [CHANGE_BACKUP] = "backup",
    [CHANGE_COPY] = "copy",         [CHANGE_MANAGEDSAVE] = "managedsave",
    [CHANGE_INTERNAL] = "internal", [CHANGE_COLD_OVERLAY] = "cold-overlay",
};

const char *change_method_name(enum change_method method)
{
    return method_names[method];
}

int change_method_parse(const char *word, enum change_method *ret_method)
{
    for (int i = 0; i < N_CHANGE_METHODS; i++) {
        if (strcmp(word, method_names[i]) == 0) {
            *ret_method = (enum change_method)i;
            return 0;
        }
    }
    return -EINVAL;
}

static const char *const merge_names[N_CHANGE_MERGES] = {
    [CHANGE_UNMERGED] = "unmerged",
    [CHANGE_COMMITTING] = "committing",
    [CHANGE_PIVOTING] = "pivoting",
    [CHANGE_MERGED] = "merged",
};

const char *change_merge_name(enum change_merge merge)
{
    return merge_names[merge];
}

int change_merge_parse(const char *word, enum change_merge *ret_merge)
{
    for (int i = 0; i < N_CHANGE_MERGES; i++) {
        if (strcmp(word, merge_names[i]) == 0) {
            *ret_merge = (enum change_merge)i;
            return 0;
        }
    }
    return -EINVAL;
}

static void cleanup_change(struct change **change)
{
    change_free(*change);
}

int change_create(enum change_method method, const char *domain_id, const char *domain_name,
                  struct change **ret_change, struct error *err)
{
    uint64_t random;
    if (getrandom(&random, sizeof(random), 0) != sizeof(random))
        return error_set(err, -EIO, "no random number: %s", strerrordesc_np(errno));
    __attribute__((cleanup(cleanup_change))) struct change *change = calloc(1, sizeof(*change));
    if (!change)
        return error_set(err, -ENOMEM, "out of memory");
    change->method = method;
    change->domain_id = strdup(domain_id);
    change->domain_name = strdup(domain_name);
    if (asprintf(&change->mark, CHANGE_MARK_PREFIX "%016" PRIx64, random) < 0)
        change->mark = NULL;
    if (!change->domain_id || !change->domain_name || !change->mark)
        return error_set(err, -ENOMEM, "out of memory");
    *ret_change = take_ptr(change);
    return 0;
}

static void free_disk(struct change_disk *disk)
{
    free(disk->target);
    free(disk->base);
    free(disk->file);
}

int change_add_disk(struct change *change, const char *target, const char *base,
                    enum qcow_format base_format, const char *file, struct error *err)
{
    struct change_disk *grown =
        reallocarray(change->disks, change->n_disks + 1, sizeof(*change->disks));
    if (!grown)
        return error_set(err, -ENOMEM, "out of memory");
    change->disks = grown;
    struct change_disk disk = {.target = strdup(target),
                               .base = strdup(base),
                               .base_format = base_format,
                               .file = file ? strdup(file) : NULL};
    if (!disk.target || !disk.base || (file && !disk.file)) {
        free_disk(&disk);
        return error_set(err, -ENOMEM, "out of memory");
    }
    change->disks[change->n_disks++] = disk;
    return 0;
}

void change_free(struct change *change)
{
    if (!change)
        return;
    for (size_t i = 0; i < change->n_disks; i++)
        free_disk(&change->disks[i]);
    free(change->disks);
    free(change->domain_id);
    free(change->domain_name);
    free(change->mark);
    free(change->socket);
    free(change);
}

const struct change_disk *change_find_disk(const struct change *change, const char *target)
{
    for (size_t i = 0; i < change->n_disks; i++)
        if (strcmp(change->disks[i].target, target) == 0)
            return &change->disks[i];
    return NULL;
}

char *change_file_path(const struct change *change, const char *base, const char *scratch_dir,
                       const char *kind)
{
    const char *slash = strrchr(base, '/');
    const char *name = slash ? slash + 1 : base;
    const char *dir = scratch_dir ? scratch_dir : base;
    int dir_len = scratch_dir ? (int)strlen(scratch_dir) : (int)(slash ? slash - base : 0);
    int suffix_len = snprintf(NULL, 0, ".%s.%s", change->mark, kind);
    char *path = NULL;
    if (asprintf(&path, "%.*s/%.*s.%s.%s", dir_len, dir, NAME_MAX - suffix_len, name, change->mark,
                 kind) < 0)
        return NULL;
    return path;
}

static bool is_mark(const char *at)
{
    for (int i = (int)strlen(CHANGE_MARK_PREFIX); i < CHANGE_MARK_LEN; i++)
        if (!isxdigit((unsigned char)at[i]))
            return false;
    return true;
}

bool change_is_marked(const char *name)
{
    /* The image, or a folder of it, may have the same word in its own name. */
    for (const char *at = strstr(name, CHANGE_MARK_PREFIX); at;
         at = strstr(at + 1, CHANGE_MARK_PREFIX))
        if (is_mark(at))
            return true;
    return false;
}

static bool is_marked_with(const char *path, const char *suffix)
{
    size_t len = strlen(path), end_len = strlen(suffix) + CHANGE_MARK_LEN;
    if (len <= end_len || strcmp(path + len - strlen(suffix), suffix) != 0)
        return false;
    const char *mark = path + len - end_len;
    return mark[-1] == '.' && strncmp(mark, CHANGE_MARK_PREFIX, strlen(CHANGE_MARK_PREFIX)) == 0 &&
           is_mark(mark);
}

bool change_is_overlay(const char *path)
{
    return is_marked_with(path, ".overlay");
}

bool change_is_layer(const char *path)
{
    return change_is_overlay(path) || is_marked_with(path, ".delta");
}
