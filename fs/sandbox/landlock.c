/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Landlock: files are written below the state directory alone. Reading is left free, since images
 * come to lie in places that nobody knows of at the start, and so do libraries, name services and
 * certificates.
 *
 * The definitions are ours, since headers of the day of the build know less than the kernel may:
 * Documentation/userspace-api/landlock.rst.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fs/log.h"
#include "fs/sandbox/sandbox_internal.h"
#include "fs/state.h"
#include "qcow/base/cleanup.h"

/* The same on all machines. */
enum { SYS_CREATE_RULESET = 444, SYS_ADD_RULE = 445, SYS_RESTRICT_SELF = 446 };
enum { CREATE_RULESET_VERSION = 1, RULE_PATH_BENEATH = 1 };

enum {
    FS_EXECUTE = 1 << 0,
    FS_WRITE_FILE = 1 << 1,
    FS_REMOVE_DIR = 1 << 4,
    FS_REMOVE_FILE = 1 << 5,
    FS_MAKE_CHAR = 1 << 6,
    FS_MAKE_DIR = 1 << 7,
    FS_MAKE_REG = 1 << 8,
    FS_MAKE_SOCK = 1 << 9,
    FS_MAKE_FIFO = 1 << 10,
    FS_MAKE_BLOCK = 1 << 11,
    FS_MAKE_SYM = 1 << 12,
    FS_REFER = 1 << 13,     /* version 2; before, moving between folders is always forbidden */
    FS_TRUNCATE = 1 << 14,  /* version 3 */
    FS_IOCTL_DEV = 1 << 15, /* version 5 */
    NET_BIND_TCP = 1 << 0,  /* version 4 */
    NET_CONNECT_TCP = 1 << 1,
    SCOPE_ABSTRACT_UNIX_SOCKET = 1 << 0, /* version 6 */
    SCOPE_SIGNAL = 1 << 1,
};

/* All that changes a file system. */
enum {
    FS_CHANGES = FS_WRITE_FILE | FS_REMOVE_DIR | FS_REMOVE_FILE | FS_MAKE_CHAR | FS_MAKE_DIR |
                 FS_MAKE_REG | FS_MAKE_SOCK | FS_MAKE_FIFO | FS_MAKE_BLOCK | FS_MAKE_SYM,
    /* What journal, stamps and the mounts' locks do. */
    FS_STATE = FS_WRITE_FILE | FS_REMOVE_DIR | FS_REMOVE_FILE | FS_MAKE_DIR | FS_MAKE_REG,
};

struct ruleset_attr {
    uint64_t handled_fs, handled_net, scoped;
};

struct path_beneath_attr {
    uint64_t allowed;
    int32_t parent_fd;
} __attribute__((packed));

/* What the kernel of that version knows of what we forbid, and how much of the struct it reads. */
static size_t choose_rights(int abi, const struct sandbox_config *config, struct ruleset_attr *ret)
{
    *ret = (struct ruleset_attr){.handled_fs = FS_EXECUTE | FS_CHANGES};
    if (abi >= 2)
        ret->handled_fs |= FS_REFER;
    if (abi >= 3)
        ret->handled_fs |= FS_TRUNCATE;
    if (abi >= 5)
        ret->handled_fs |= FS_IOCTL_DEV;
    if (abi >= 4)
        ret->handled_net = NET_BIND_TCP | (config->has_cloud ? 0 : NET_CONNECT_TCP);
    if (abi >= 6) {
        ret->scoped = SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL;
        return sizeof(*ret);
    }
    return abi >= 4 ? offsetof(struct ruleset_attr, scoped)
                    : offsetof(struct ruleset_attr, handled_net);
}

/*
 * A place that is not there allows nothing: the attempt itself will tell why. Nor does a file in
 * place of a folder (O_DIRECTORY in @flags), whose rights the kernel would refuse as a whole.
 */
static int allow(int ruleset_fd, const char *path, int flags, uint64_t rights, uint64_t handled)
{
    auto_close int fd = open(path, O_PATH | O_CLOEXEC | flags);
    if (fd < 0) {
        log_debug("the sandbox has no '%s'", path);
        return 0;
    }
    struct path_beneath_attr rule = {.allowed = rights & handled, .parent_fd = fd};
    return syscall(SYS_ADD_RULE, ruleset_fd, RULE_PATH_BENEATH, &rule, 0) < 0 ? -errno : 0;
}

/*
 * Overlays and copies are made by libvirtd and QEMU. All that is ever done to them here is to
 * delete them when they are merged, in folders that are known only then.
 */
static int allow_all(int ruleset_fd, const struct sandbox_config *config, uint64_t handled)
{
    int r = allow(ruleset_fd, config->state_dir, O_DIRECTORY, FS_STATE | FS_TRUNCATE, handled);
    if (r == 0)
        r = allow(ruleset_fd, "/dev/null", 0, FS_WRITE_FILE, handled);
    if (r == 0) /* libfuse opens it once more for each thread */
        r = allow(ruleset_fd, "/dev/fuse", 0, FS_WRITE_FILE | FS_IOCTL_DEV, handled);
    if (r == 0 && config->is_libvirt)
        r = allow(ruleset_fd, "/", O_DIRECTORY, FS_REMOVE_FILE, handled);
    return r;
}

int landlock_enter(const struct sandbox_config *config)
{
    int abi = (int)syscall(SYS_CREATE_RULESET, NULL, (size_t)0, CREATE_RULESET_VERSION);
    if (abi < 0)
        return -errno;
    int made = state_make_dirs(config->state_dir);
    if (made < 0)
        log_debug("cannot make '%s': %s", config->state_dir, strerrordesc_np(-made));
    struct ruleset_attr attr;
    size_t len = choose_rights(abi, config, &attr);
    auto_close int fd = (int)syscall(SYS_CREATE_RULESET, &attr, len, 0);
    if (fd < 0)
        return -errno;
    int r = allow_all(fd, config, attr.handled_fs);
    if (r < 0)
        return r;
    return syscall(SYS_RESTRICT_SELF, fd, 0) < 0 ? -errno : abi;
}
