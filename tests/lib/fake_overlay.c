/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The fake host's live=overlay: files and records as the real one leaves them, no guest. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "qcow/base/cleanup.h"
#include "tests/lib/fake_host_internal.h"

static int fake_can(const struct host *host, const struct domain *domain, struct error *err)
{
    (void)host;
    return domain->state != DOMAIN_SHUTOFF ? 0 : error_set(err, -EBUSY, "the domain is off");
}

static int fake_plan(struct host *host, const struct domain *domain, struct change *change,
                     struct error *err)
{
    (void)host;
    for (size_t i = 0; i < domain->n_disks; i++) {
        const struct disk *disk = &domain->disks[i];
        if (disk->unsupported)
            continue;
        const struct disk_layer *top = &disk->layers[0];
        auto_free char *file = fake_need(change_file_path(change, top->path, NULL, "overlay"));
        fake_need_that(
            change_add_disk(change, disk->target, top->path, top->format, file, err) == 0, "disk");
    }
    return 0;
}

static void put_overlay(struct disk *disk, const char *overlay)
{
    auto_close int fd = open(overlay, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    fake_need_that(fd >= 0, overlay);
    disk->layers = fake_need(reallocarray(disk->layers, disk->n_layers + 1, sizeof(*disk->layers)));
    memmove(disk->layers + 1, disk->layers, disk->n_layers * sizeof(*disk->layers));
    disk->n_layers++;
    disk->layers[0] =
        (struct disk_layer){.path = fake_need(strdup(overlay)), .format = QCOW_FORMAT_QCOW2};
}

static void take(struct fake_host *fake, const struct change *change)
{
    struct domain *now = fake_need(fake_get(fake, change->domain_id, true));
    struct domain *copy = fake_copy_domain(now);
    for (size_t i = 0; i < copy->n_disks; i++) {
        const struct change_disk *disk = change_find_disk(change, copy->disks[i].target);
        if (disk)
            put_overlay(&copy->disks[i], disk->file);
    }
    domain_unref(now);
    fake_publish(fake, copy);
}

static int fake_make(struct host *host, struct change *change, const struct change_steps *steps,
                     struct error *err)
{
    struct fake_host *fake = (struct fake_host *)host;
    int r = steps->enter(steps->ctx, change, err);
    if (r < 0)
        return r;
    r = fake_begin_verb(fake, FAKE_TAKE);
    if (r < 0)
        error_set(err, r, "the fake host refuses the overlay");
    else
        take(fake, change);
    fake_end_verb(fake, FAKE_TAKE);
    steps->leave(steps->ctx, change);
    return r;
}

/* QEMU refuses a commit into an image whose writing somebody forbids. */
static bool is_write_forbidden(const char *path)
{
    auto_close int fd = open(path, O_RDWR | O_CLOEXEC);
    fake_need_that(fd >= 0, path);
    struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 201, .l_len = 1};
    return fcntl(fd, F_OFD_GETLK, &fl) == 0 && fl.l_type != F_UNLCK;
}

static void drop_overlay(struct domain *domain, const struct change_disk *change_disk)
{
    for (size_t i = 0; i < domain->n_disks; i++) {
        struct disk *disk = &domain->disks[i];
        if (strcmp(disk->target, change_disk->target) != 0 || disk->n_layers == 0 ||
            strcmp(disk->layers[0].path, change_disk->file) != 0)
            continue;
        free(disk->layers[0].path);
        disk->n_layers--;
        memmove(disk->layers, disk->layers + 1, disk->n_layers * sizeof(*disk->layers));
    }
}

static int merge(struct fake_host *fake, const struct change *change, struct error *err)
{
    for (size_t i = 0; i < change->n_disks; i++)
        if (is_write_forbidden(change->disks[i].base))
            return error_set(err, -EBUSY, "Failed to get \"write\" lock");
    struct domain *now = fake_get(fake, change->domain_id, true); /* or undefined meanwhile */
    struct domain *copy = now ? fake_copy_domain(now) : NULL;
    for (size_t i = 0; i < change->n_disks; i++)
        if (unlink(change->disks[i].file) == 0 && copy)
            drop_overlay(copy, &change->disks[i]);
    domain_unref(now);
    if (copy)
        fake_publish(fake, copy);
    return 0;
}

static int fake_undo(struct host *host, struct change *change, const struct change_steps *steps,
                     struct error *err)
{
    struct fake_host *fake = (struct fake_host *)host;
    if (access(change->disks[0].file, F_OK) < 0)
        return 0; /* it was never made */
    for (size_t i = 0; i < change->n_disks; i++)
        change->disks[i].merge = CHANGE_COMMITTING;
    int r = steps->note(steps->ctx, change, err);
    if (r < 0)
        return r;
    r = fake_begin_alive(fake, FAKE_MERGE, steps);
    if (r < 0)
        error_set(err, r, "the fake host refuses the merge");
    else
        r = merge(fake, change, err);
    fake_end_verb(fake, FAKE_MERGE);
    return r;
}

const struct host_method *fake_method(struct host *host, enum change_method method)
{
    (void)host;
    static const struct host_method overlay = {.method = CHANGE_OVERLAY,
                                               .can = fake_can,
                                               .plan = fake_plan,
                                               .make = fake_make,
                                               .undo = fake_undo};
    return method == CHANGE_OVERLAY ? &overlay : NULL;
}
