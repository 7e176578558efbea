/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "fs/json.h"
#include "fs/report/sample.h"
#include "qcow/base/cleanup.h"
#include "qcow/base/thread.h"

static void close_dir(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

static void unref_json(json_t **json)
{
    json_decref(*json);
}
#define auto_json __attribute__((cleanup(unref_json)))

static json_t *load(int root_fd, const char *name, struct error *err)
{
    auto_free char *path = NULL;
    if (asprintf(&path, "%s/status", name) < 0) {
        path = NULL;
        error_set(err, -ENOMEM, "out of memory");
        return NULL;
    }
    auto_close int fd = openat(root_fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        error_set(err, -errno, "%s: %s", path, strerrordesc_np(errno));
        return NULL;
    }
    json_error_t why;
    json_t *status = json_read(fd, &why);
    if (!status)
        error_set(err, -EIO, "%s: %s", path, why.text);
    return status;
}

/* One that is gone since the directory was listed is left out. */
static int add_domain(json_t *domains, int root_fd, const char *name)
{
    struct error err = {0};
    auto_json json_t *status = load(root_fd, name, &err);
    if (!status && (err.code == -ENOENT || err.code == -ESTALE || err.code == -ENOTDIR))
        return 0;
    if (!status)
        status = json_pack("{so}", "error", json_any_text(err.text));
    /* Names in the tree are escaped, but may be other than UTF-8. */
    if (!status || json_object_set_new(status, "directory", json_any_text(name)) < 0)
        return -ENOMEM;
    return json_array_append(domains, status) < 0 ? -ENOMEM : 0;
}

static int compare_names(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_shown(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

/* 0 if the directory is still the mount, and not what lies below it. */
static int check_mounted(const struct report_config *config, DIR *dir, struct error *err)
{
    struct stat st;
    if (fstat(dirfd(dir), &st) < 0)
        return error_set(err, -errno, "'%s' cannot be read: %s", config->mountpoint,
                         strerrordesc_np(errno));
    if (st.st_dev == config->device)
        return 0;
    return error_set(err, -ENOTCONN, "'%s' is no longer mounted", config->mountpoint);
}

static int list_domains(const struct report_config *config, json_t *domains, struct error *err)
{
    const char *mountpoint = config->mountpoint;
    __attribute__((cleanup(close_dir))) DIR *dir = opendir(mountpoint);
    if (!dir)
        return error_set(err, -errno, "'%s' cannot be read: %s", mountpoint,
                         strerrordesc_np(errno));
    int r = check_mounted(config, dir, err);
    if (r < 0)
        return r;
    struct dirent **entries = NULL;
    int n = scandirat(dirfd(dir), ".", &entries, is_shown, compare_names);
    if (n < 0)
        return error_set(err, -errno, "'%s' cannot be listed: %s", mountpoint,
                         strerrordesc_np(errno));
    for (int i = 0; i < n; i++) {
        if (r == 0)
            r = add_domain(domains, dirfd(dir), entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
    return r < 0 ? error_set(err, r, "out of memory") : 0;
}

static void format_now(char *ret_text, size_t room)
{
    time_t now = time(NULL);
    struct tm tm;
    if (!gmtime_r(&now, &tm) || strftime(ret_text, room, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        *ret_text = '\0';
}

int sample_take(const struct report_config *config, struct sample *ret_sample, struct error *err)
{
    char now[32];
    format_now(now, sizeof(now));
    auto_json json_t *root =
        json_pack("{sssosos[]}", "time", now, "mountpoint", json_any_text(config->mountpoint),
                  "source", json_any_text(config->source), "domains");
    if (!root)
        return error_set(err, -ENOMEM, "out of memory");
    int r = list_domains(config, json_object_get(root, "domains"), err);
    if (r < 0)
        return r;
    *ret_sample = (struct sample){.root = take_ptr(root), .when_ns = monotonic_ns()};
    return 0;
}

void sample_fini(struct sample *sample)
{
    json_decref(sample->root);
    sample->root = NULL;
}
