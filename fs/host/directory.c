/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/directory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fs/host/file.h"
#include "fs/host/ref.h"
#include "qcow/base/cleanup.h"

static const char id_prefix[] = "dir:";
static const char qcow2_suffix[] = ".qcow2";
static const char only_target[] = "vda";

struct directory_host {
    struct host host;
    /* Immutable: */
    int fd;      /* the directory; O_PATH is not enough for reading it */
    char **dirs; /* real paths: [0] is the directory, then the backing directories */
    size_t n_dirs;
    enum directory_format format;
};

static struct directory_host *from_host(struct host *host)
{
    return (struct directory_host *)host;
}

static void cleanup_dir(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

/*
 * 0; -ENOENT if nothing of that name is served; or why that could not be found out.
 *
 * A regular file, or a symlink to one that lies where references may lead to. Nothing on another
 * file system is looked at: the mount that this directory is served by may lie in here, or be
 * where a symlink leads, and each look at it would have to be answered by looking in here again.
 * Without openat2 (some sandboxes, valgrind) no symlink is followed at all.
 */
static int check_served(const struct directory_host *dh, const char *name)
{
    struct open_how how = {.flags = O_PATH | O_CLOEXEC,
                           .resolve = RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS};
    auto_close int fd = (int)syscall(SYS_openat2, dh->fd, name, &how, sizeof(how));
    if (fd < 0 && errno == ENOSYS)
        fd = openat(dh->fd, name, O_PATH | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return file_is_shortage(-errno) ? -errno : -ENOENT;
    struct stat st, link;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
        fstatat(dh->fd, name, &link, AT_SYMLINK_NOFOLLOW) < 0)
        return -ENOENT;
    if (!S_ISLNK(link.st_mode))
        return 0;
    char proc[32], real[PATH_MAX];
    snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
    ssize_t len = readlink(proc, real, sizeof(real) - 1);
    if (len < 0)
        return -ENOENT;
    real[len] = '\0';
    return file_is_beneath(real, (const char *const *)dh->dirs, dh->n_dirs) ? 0 : -ENOENT;
}

static bool is_named_qcow2(const char *name)
{
    size_t len = strlen(name), suffix_len = strlen(qcow2_suffix);
    return len > suffix_len && strcmp(name + len - suffix_len, qcow2_suffix) == 0;
}

/*
 * A file that cannot be opened counts as not beginning like qcow2: its open will tell. Not so one
 * that could be opened the next moment.
 */
static int look_for_qcow2(const struct directory_host *dh, const char *path, bool *ret_is_qcow2)
{
    struct error why = {0};
    auto_close int fd = file_open_image(path, (const char *const *)dh->dirs, dh->n_dirs, &why);
    if (fd < 0 && file_is_shortage(fd))
        return fd;
    *ret_is_qcow2 = fd >= 0 && qcow_has_magic(fd);
    return 0;
}

static int declare_format(const struct directory_host *dh, const char *name, struct disk *disk)
{
    struct disk_layer *layer = &disk->layers[0];
    bool is_named = is_named_qcow2(name), is_qcow2 = false;
    int r = is_named ? 0 : look_for_qcow2(dh, layer->path, &is_qcow2);
    if (r < 0)
        return r;
    layer->format = QCOW_FORMAT_RAW;
    if (is_named) {
        layer->format = QCOW_FORMAT_QCOW2;
    } else if (is_qcow2) {
        if (dh->format == DIRECTORY_FORMAT_QCOW2)
            layer->format = QCOW_FORMAT_QCOW2;
        disk->is_format_disputed = dh->format == DIRECTORY_FORMAT_NONE;
    }
    return 0;
}

/* Takes @path. */
static int fill_record(const struct directory_host *dh, struct domain *domain, char *path)
{
    auto_free char *owned = path;
    domain->state = DOMAIN_SHUTOFF;
    domain->is_persistent = true;
    domain->disks = calloc(1, sizeof(*domain->disks));
    if (!domain->disks)
        return -ENOMEM;
    domain->n_disks = 1;
    struct disk *disk = domain->disks;
    disk->target = strdup(only_target);
    disk->layers = calloc(1, sizeof(*disk->layers));
    if (!disk->target || !disk->layers)
        return -ENOMEM;
    disk->n_layers = 1;
    disk->layers[0].path = take_ptr(owned);
    return declare_format(dh, domain->name, disk);
}

/* 0 and the record, -ENOENT if the name is not one of a file that is served, -ENOMEM, -EMFILE. */
static int read_record(const struct directory_host *dh, const char *name,
                       struct domain **ret_domain)
{
    auto_free char *path = NULL;
    auto_free char *id = NULL;
    if (asprintf(&path, "%s/%s", strcmp(dh->dirs[0], "/") ? dh->dirs[0] : "", name) < 0) {
        path = NULL;
        return -ENOMEM;
    }
    int r = check_served(dh, name);
    if (r < 0)
        return r;
    if (asprintf(&id, "%s%s", id_prefix, name) < 0) {
        id = NULL;
        return -ENOMEM;
    }
    struct domain *domain = domain_create(id, name);
    if (!domain)
        return -ENOMEM;
    r = fill_record(dh, domain, take_ptr(path));
    if (r < 0) {
        domain_unref(domain);
        return r;
    }
    *ret_domain = domain;
    return 0;
}

struct list {
    struct domain **domains;
    size_t n, room;
};

static void cleanup_list(struct list *list)
{
    host_list_free(list->domains, list->n);
}

/* Takes @domain. */
static int append_record(struct list *list, struct domain *domain)
{
    if (list->n == list->room) {
        size_t room = list->room ? 2 * list->room : 64;
        struct domain **grown = reallocarray(list->domains, room, sizeof(struct domain *));
        if (!grown) {
            domain_unref(domain);
            return -ENOMEM;
        }
        list->domains = grown;
        list->room = room;
    }
    list->domains[list->n++] = domain;
    return 0;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp((*(struct domain *const *)a)->name, (*(struct domain *const *)b)->name);
}

/* Opened anew, since concurrent readers must not share one directory position. */
static int open_listing(const struct directory_host *dh, DIR **ret_dir, struct error *err)
{
    auto_close int fd = openat(dh->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir)
        return error_set(err, file_is_shortage(-errno) ? -errno : -EIO,
                         "cannot read directory '%s': %s", dh->dirs[0], strerrordesc_np(errno));
    (void)take_fd(fd);
    *ret_dir = dir;
    return 0;
}

static int directory_list(struct host *host, struct domain ***ret_domains, size_t *ret_n,
                          struct error *err)
{
    struct directory_host *dh = from_host(host);
    __attribute__((cleanup(cleanup_dir))) DIR *dir = NULL;
    int r = open_listing(dh, &dir, err);
    if (r < 0)
        return r;
    __attribute__((cleanup(cleanup_list))) struct list list = {0};
    for (;;) {
        errno = 0;
        /* lint: clang-tidy/concurrency-mt-unsafe: nobody else reads this stream */
        /* lint: cppcheck/readdirCalled: glibc calls readdir_r, which is wanted, deprecated */
        struct dirent *entry = readdir(dir);
        if (!entry && errno)
            return error_set(err, -EIO, "cannot read directory '%s': %s", dh->dirs[0],
                             strerrordesc_np(errno));
        if (!entry)
            break;
        if (entry->d_type == DT_DIR)
            continue;
        struct domain *domain;
        r = read_record(dh, entry->d_name, &domain);
        if (r == 0)
            r = append_record(&list, domain);
        if (r < 0 && r != -ENOENT) /* a list that lacks one would say that it is gone */
            return error_set(err, r, "cannot look at '%s/%s': %s", dh->dirs[0], entry->d_name,
                             strerrordesc_np(-r));
    }
    if (list.n)
        qsort(list.domains, list.n, sizeof(*list.domains), compare_names);
    *ret_domains = take_ptr(list.domains);
    *ret_n = list.n;
    list.n = 0;
    return 0;
}

static struct domain *directory_find_name(struct host *host, const char *name)
{
    struct domain *domain = NULL;
    int r = *name && !strchr(name, '/') ? read_record(from_host(host), name, &domain) : -ENOENT;
    errno = -r;
    return domain;
}

static struct domain *directory_find(struct host *host, const char *id)
{
    size_t len = strlen(id_prefix);
    return directory_find_name(host, strncmp(id, id_prefix, len) ? "" : id + len);
}

/*
 * Here nobody but the image itself says what it refers to, so a reference is followed only within
 * the directories that the user named.
 */
static int directory_open_ref(void *ctx, const struct qcow_ref *ref, struct qcow_file *ret_file,
                              struct error *err)
{
    struct directory_host *dh = from_host(((struct host_image_ctx *)ctx)->host);
    return ref_open_recorded(ref, (const char *const *)dh->dirs, dh->n_dirs, ret_file, err);
}

static void directory_close(struct host *host)
{
    struct directory_host *dh = from_host(host);
    if (dh->fd >= 0)
        close(dh->fd);
    file_free_dirs(dh->dirs, dh->n_dirs);
    free(dh);
}

static const struct host_method *directory_method(struct host *host, enum change_method method)
{
    (void)host;
    (void)method;
    return NULL; /* there is nobody who could be asked to hold still */
}

static const struct host_ops directory_ops = {
    .list = directory_list,
    .find = directory_find,
    .find_name = directory_find_name,
    .open_ref = directory_open_ref,
    .method = directory_method,
    .close = directory_close,
};

/* The directory itself and the backing directories, as one list; caller frees; NULL: no memory. */
static const char **list_dirs(const struct directory_config *config)
{
    const char **dirs = calloc(config->n_backing_dirs + 1, sizeof(*dirs));
    if (!dirs)
        return NULL;
    dirs[0] = config->path;
    for (size_t i = 0; i < config->n_backing_dirs; i++)
        dirs[i + 1] = config->backing_dirs[i];
    return dirs;
}

/* As real paths. */
static int resolve_config(const struct directory_config *config, struct directory_host *dh,
                          struct error *err)
{
    auto_free const char **dirs = list_dirs(config);
    if (!dirs)
        return error_set(err, -ENOMEM, "out of memory");
    size_t n = config->n_backing_dirs + 1;
    int r = file_resolve_dirs(dirs, n, &dh->dirs, err);
    if (r == 0)
        dh->n_dirs = n;
    return r;
}

int directory_confine_images(const struct directory_config *config, struct error *err)
{
    auto_free const char **dirs = list_dirs(config);
    if (!dirs)
        return error_set(err, -ENOMEM, "out of memory");
    return file_allow_only(dirs, config->n_backing_dirs + 1, err);
}

static int open_directory(const struct directory_config *config, struct directory_host *dh,
                          struct error *err)
{
    int r = resolve_config(config, dh, err);
    if (r < 0)
        return r;
    dh->fd = open(dh->dirs[0], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dh->fd < 0)
        return error_set(err, -errno, "cannot read directory '%s': %s", config->path,
                         strerrordesc_np(errno));
    return 0;
}

int directory_open(const struct directory_config *config, struct host **ret_host, struct error *err)
{
    struct directory_host *dh = calloc(1, sizeof(*dh));
    if (!dh)
        return error_set(err, -ENOMEM, "out of memory");
    dh->host.ops = &directory_ops;
    dh->fd = -1;
    dh->format = config->format;
    int r = open_directory(config, dh, err);
    if (r < 0) {
        directory_close(&dh->host);
        return r;
    }
    *ret_host = &dh->host;
    return 0;
}
