/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/session/claim.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "fs/log.h"
#include "qcow/base/cleanup.h"

/* A byte for each process number, where no image has any: PID_MAX_LIMIT of Linux is 2^22. */
#define CLAIM_BASE ((off_t)1 << 62)
#define CLAIM_LEN ((off_t)1 << 22)

static int open_overlay(const char *path)
{
    return open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
}

static bool is_overlay(enum change_method method)
{
    return method == CHANGE_OVERLAY || method == CHANGE_COLD_OVERLAY;
}

/* A descriptor with the lock, or -1. */
static int claim_one(const char *path)
{
    struct flock fl = {
        .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = CLAIM_BASE + getpid(), .l_len = 1};
    auto_close int fd = open_overlay(path);
    if (fd >= 0 && fcntl(fd, F_OFD_SETLK, &fl) == 0)
        return take_fd(fd);
    log_debug("cannot lock '%s' for others to see: %s", path, strerrordesc_np(errno));
    return -1;
}

void claim_take(struct claim *claim, const struct change *change)
{
    if (claim->fds || !is_overlay(change->method))
        return;
    claim->fds = calloc(change->n_disks, sizeof(*claim->fds));
    for (size_t i = 0; claim->fds && i < change->n_disks; i++) {
        int fd = change->disks[i].file ? claim_one(change->disks[i].file) : -1;
        if (fd >= 0)
            claim->fds[claim->n++] = fd;
    }
}

void claim_drop(struct claim *claim)
{
    for (size_t i = 0; i < claim->n; i++)
        close(claim->fds[i]);
    free(claim->fds);
    *claim = (struct claim){0};
}

pid_t claim_find_holder(const char *path)
{
    struct flock fl = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = CLAIM_BASE, .l_len = CLAIM_LEN};
    auto_close int fd = open_overlay(path);
    if (fd < 0 || fcntl(fd, F_OFD_GETLK, &fl) < 0 || fl.l_type == F_UNLCK)
        return 0;
    /* One that covers more than a byte is not ours. */
    return fl.l_start > CLAIM_BASE && fl.l_len == 1 ? (pid_t)(fl.l_start - CLAIM_BASE) : 0;
}
