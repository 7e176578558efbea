/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/session/unclaimed.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/session/claim.h"
#include "fs/session/journal_internal.h"
#include "qcow/base/cleanup.h"

static const char overlay_suffix[] = ".overlay";

static void cleanup_change(struct change **change)
{
    change_free(*change);
}

#define auto_change __attribute__((cleanup(cleanup_change)))

/* True if @path ends in .MARK.overlay; the mark is copied. */
static bool find_mark(const char *path, char ret_mark[CHANGE_MARK_LEN + 1])
{
    size_t suffix_len = strlen(overlay_suffix), len = strlen(path);
    if (len < suffix_len + CHANGE_MARK_LEN + 2 ||
        strcmp(path + len - suffix_len, overlay_suffix) != 0)
        return false;
    const char *mark = path + len - suffix_len - CHANGE_MARK_LEN;
    memcpy(ret_mark, mark, CHANGE_MARK_LEN);
    ret_mark[CHANGE_MARK_LEN] = '\0';
    return mark[-1] == '.' && journal_is_mark(ret_mark);
}

/* The overlay's own word on what is below it, where the XML does not say: the domain is off. */
static int read_base(const char *overlay, char **ret_base, enum qcow_format *ret_format,
                     struct error *err)
{
    auto_close int fd = open(overlay, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return error_set(err, -EBUSY, "cannot open overlay '%s': %s", overlay,
                         strerrordesc_np(errno));
    if (!S_ISREG(st.st_mode))
        return error_set(err, -EBUSY, "overlay '%s' is not a regular file", overlay);
    struct qcow_file file = {.fd = fd, .name = (char *)overlay, .format = QCOW_FORMAT_QCOW2};
    struct qcow_info info = {0};
    int r = qcow_inspect(&file, &info, err);
    if (r < 0) {
        error_prefix(err, "overlay '%s'", overlay);
        return r == -ENOMEM ? r : -EBUSY;
    }
    if (!info.backing_name || *info.backing_name != '/' || !info.backing_format ||
        qcow_format_parse(info.backing_format, ret_format) < 0)
        r = error_set(err, -EBUSY, "overlay '%s' does not say what it is over", overlay);
    else
        *ret_base = take_ptr(info.backing_name);
    qcow_info_fini(&info);
    return r;
}

/* Is @overlay what this program would have called it? */
static int check_name(const struct change *change, const char *base, const char *overlay,
                      struct error *err)
{
    auto_free char *folder = strndup(overlay, (size_t)(strrchr(overlay, '/') - overlay));
    auto_free char *name = folder ? change_file_path(change, base, folder, "overlay") : NULL;
    if (!name)
        return error_set(err, -ENOMEM, "out of memory");
    return strcmp(name, overlay) == 0
               ? 0
               : error_set(err, -EBUSY, "'%s' is over '%s', which is not what its name says",
                           overlay, base);
}

static int add_disk(struct change *change, const struct disk *disk, struct error *err)
{
    const char *overlay = disk->layers[0].path;
    auto_free char *base = NULL;
    enum qcow_format format = QCOW_FORMAT_RAW;
    int r = 0;
    if (disk->n_layers > 1) {
        base = strdup(disk->layers[1].path);
        format = disk->layers[1].format;
        if (!base)
            return error_set(err, -ENOMEM, "out of memory");
    } else {
        r = read_base(overlay, &base, &format, err);
    }
    if (r == 0)
        r = check_name(change, base, overlay, err);
    return r < 0 ? r : change_add_disk(change, disk->target, base, format, overlay, err);
}

/* Its mark on the first disk that has one counts: a domain has one instant at a time. */
static const struct disk *find_overlay(const struct domain *domain,
                                       char ret_mark[CHANGE_MARK_LEN + 1])
{
    for (size_t i = 0; i < domain->n_disks; i++)
        if (domain->disks[i].n_layers > 0 && find_mark(domain->disks[i].layers[0].path, ret_mark))
            return &domain->disks[i];
    return NULL;
}

static int build_change(const struct domain *domain, const char *mark, struct change **ret_change,
                        struct error *err)
{
    auto_change struct change *change = NULL;
    int r = change_create(CHANGE_OVERLAY, domain->id, domain->name, &change, err);
    if (r < 0)
        return r;
    memcpy(change->mark, mark, CHANGE_MARK_LEN);
    change->is_persistent = domain->is_persistent;
    /* Unknown; if it was not, undoing goes on with a guest that an I/O error stopped, no other. */
    change->was_paused = false;
    change->is_made = true;
    for (size_t i = 0; r == 0 && i < domain->n_disks; i++) {
        const struct disk *disk = &domain->disks[i];
        char its_mark[CHANGE_MARK_LEN + 1];
        if (disk->n_layers > 0 && find_mark(disk->layers[0].path, its_mark) &&
            strcmp(its_mark, mark) == 0)
            r = add_disk(change, disk, err);
    }
    if (r == 0)
        *ret_change = take_ptr(change);
    return r;
}

int unclaimed_find(const struct journal *journal, const struct domain *domain,
                   struct change **ret_change, struct error *err)
{
    char mark[CHANGE_MARK_LEN + 1];
    *ret_change = NULL;
    if (!find_overlay(domain, mark) || journal_names(journal, mark))
        return 0;
    return build_change(domain, mark, ret_change, err);
}

/* The process that lives and works with the overlays of the domain; 0: none is to be seen. */
static pid_t find_holder(const struct domain *domain)
{
    char mark[CHANGE_MARK_LEN + 1];
    const struct disk *disk = find_overlay(domain, mark);
    return disk ? claim_find_holder(disk->layers[0].path) : 0;
}

static json_t *list_files(const struct change *change)
{
    json_t *files = json_array();
    for (size_t i = 0; change && i < change->n_disks; i++) {
        json_t *file = json_string(change->disks[i].file);
        json_array_append_new(files, file ? file : json_string("?"));
    }
    return files;
}

/* Nothing to type: nobody but that process is to touch them. */
static json_t *describe_elsewhere(const struct change *change, pid_t holder)
{
    return json_pack("{sssisoss}", "reason", "in use by another mount, with another state=", "pid",
                     (int)holder, "files", list_files(change), "method",
                     change_method_name(CHANGE_OVERLAY));
}

json_t *unclaimed_describe(const struct journal *journal, const struct domain *domain,
                           bool *ret_is_elsewhere)
{
    auto_change struct change *change = NULL;
    struct error why = {0};
    int r = unclaimed_find(journal, domain, &change, &why);
    if (r == 0 && !change)
        return NULL;
    pid_t holder = find_holder(domain);
    *ret_is_elsewhere = holder != 0;
    if (holder)
        return describe_elsewhere(change, holder);
    json_t *commands = change ? journal_commands(change, journal_source(journal)) : NULL;
    return json_pack("{sssosososssb}", "state", "unclaimed", "reason",
                     json_string(r < 0 ? why.text
                                       : "the domain is on overlays of another mount, with another "
                                         "state=, or of one that is gone: no journal in the state "
                                         "folder names them"),
                     "files", list_files(change), "commands", commands ? commands : json_array(),
                     "method", change_method_name(CHANGE_OVERLAY), "from_earlier_mount", true);
}

/* One more in the array, which has room for it. */
static int adopt(struct journal *journal, const struct domain *domain,
                 struct journal_leftover *leftovers, size_t *n, struct error *err)
{
    auto_change struct change *change = NULL;
    struct journal_entry *entry;
    int r = unclaimed_find(journal, domain, &change, err);
    if (r < 0 || !change)
        return r;
    pid_t holder = find_holder(domain);
    if (holder)
        return error_set(err, -EBUSY,
                         "its overlays are in use by another mount, with another state= (process "
                         "%d)",
                         (int)holder);
    r = journal_add(journal, change, &entry, err);
    if (r == 0)
        leftovers[(*n)++] = (struct journal_leftover){.entry = entry, .change = take_ptr(change)};
    return r;
}

int unclaimed_adopt(struct journal *journal, struct host *host,
                    void (*note_refused)(void *ctx, const char *name, const struct error *why),
                    void *ctx, struct journal_leftover **ret_leftovers, size_t *ret_n,
                    struct error *err)
{
    struct domain **domains = NULL;
    size_t n_domains = 0;
    *ret_leftovers = NULL;
    *ret_n = 0;
    if (!host->ops->method(host, CHANGE_OVERLAY))
        return 0;
    int r = host->ops->list(host, &domains, &n_domains, err);
    if (r < 0)
        return r;
    struct journal_leftover *leftovers = calloc(n_domains + 1, sizeof(*leftovers));
    if (!leftovers)
        r = error_set(err, -ENOMEM, "out of memory");
    for (size_t i = 0; r == 0 && i < n_domains; i++) {
        struct error why = {0};
        if (adopt(journal, domains[i], leftovers, ret_n, &why) < 0)
            note_refused(ctx, domains[i]->name, &why);
    }
    host_list_free(domains, n_domains);
    *ret_leftovers = leftovers;
    return r;
}
