/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/qemulock.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>

#include "qcow/base/cleanup.h"

/* QEMU: block/file-posix.c and include/block/block-common.h (BLK_PERM_*). */
enum {
    PERM_BASE = 100,   /* + permission: "I use it" */
    SHARED_BASE = 200, /* + permission: "I do not share it" */
    PERM_CONSISTENT_READ = 0,
    PERM_WRITE = 1,
    PERM_RESIZE = 3,
};

static int lock_byte(int fd, short type, off_t at)
{
    struct flock fl = {.l_type = type, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
    return fcntl(fd, F_OFD_SETLK, &fl) < 0 ? -errno : 0;
}

void qemulock_drop(int fd)
{
    struct flock fl = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 0};
    fcntl(fd, F_OFD_SETLK, &fl);
}

/* True if somebody else holds any lock on that byte. False where locks do not work. */
static bool is_held(int fd, off_t at)
{
    struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
    return fcntl(fd, F_OFD_GETLK, &fl) == 0 && fl.l_type != F_UNLCK;
}

int qemulock_check(int fd, const char *path, struct error *err)
{
    if (is_held(fd, PERM_BASE + PERM_WRITE))
        return error_set(err, -EBUSY, "'%s' is open for writing in another process", path);
    if (is_held(fd, PERM_BASE + PERM_RESIZE))
        return error_set(err, -EBUSY, "'%s' is being resized by another process", path);
    return 0;
}

int qemulock_take(int fd, const char *path, enum qemulock_hold hold, bool *ret_is_locked,
                  struct error *err)
{
    static const off_t bytes[] = {
        PERM_BASE + PERM_CONSISTENT_READ, /* VISIBLE takes this one only */
        SHARED_BASE + PERM_WRITE,
        SHARED_BASE + PERM_RESIZE,
    };
    size_t n = hold == QEMULOCK_VISIBLE ? 1 : sizeof(bytes) / sizeof(bytes[0]);
    int r = 0;
    for (size_t i = 0; i < n && r == 0; i++)
        r = lock_byte(fd, F_RDLCK, bytes[i]);
    if (r < 0)
        qemulock_drop(fd);
    bool is_foreign = r == -EAGAIN || r == -EACCES; /* an exclusive lock, not set by any QEMU */
    if (is_foreign && hold == QEMULOCK_NO_WRITERS)
        return error_set(err, -EBUSY, "'%s' is locked by another process", path);
    if (r == -EBADF || r == -EFAULT || r == -EIO)
        return error_set(err, -EIO, "cannot lock '%s': %s", path, strerrordesc_np(-r));
    /* Set first, then look: of two that come at once, at least one sees the other. */
    if (hold == QEMULOCK_NO_WRITERS) {
        int busy = qemulock_check(fd, path, err);
        if (busy < 0) {
            qemulock_drop(fd);
            return busy;
        }
    }
    *ret_is_locked = r == 0;
    return 0;
}

int qemulock_check_unused(int fd, const char *path, struct error *err)
{
    for (off_t perm = PERM_CONSISTENT_READ; perm <= PERM_RESIZE; perm++)
        if (is_held(fd, PERM_BASE + perm) || is_held(fd, SHARED_BASE + perm))
            return error_set(err, -EBUSY, "'%s' is open in another process", path);
    return 0;
}

bool qemulock_is_used(const char *path)
{
    struct error ignored = {0};
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    return fd >= 0 && qemulock_check_unused(fd, path, &ignored) < 0;
}
