/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* By system calls: glibc has no wrapper, and libcap would be a library for two of them. */
#include <errno.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fs/sandbox/sandbox_internal.h"

#define BIT(capability) (UINT64_C(1) << (capability))

enum { NUMBERS = 64 }; /* of capabilities, more than there are */

const char *sandbox_capability_name(unsigned number)
{
    switch (number) {
    case CAP_DAC_OVERRIDE:
        return "dac_override";
    case CAP_DAC_READ_SEARCH:
        return "dac_read_search";
    case CAP_FOWNER:
        return "fowner";
    default:
        return NULL;
    }
}

/* Root can write what it owns; a state directory of somebody else's needs more than that. */
static bool is_ours(const char *dir)
{
    struct stat st;
    return stat(dir, &st) == 0 && st.st_uid == geteuid();
}

/*
 * Images belong to QEMU's user, to libvirt's, to anybody: DAC_READ_SEARCH. Overlays are deleted in
 * folders of anybody's, also sticky ones (FOWNER), and QEMU's sockets are connected to
 * (DAC_OVERRIDE).
 */
uint64_t capabilities_needed(const struct sandbox_config *config)
{
    uint64_t needed = BIT(CAP_DAC_READ_SEARCH);
    if (config->is_libvirt)
        needed |= BIT(CAP_DAC_OVERRIDE) | BIT(CAP_FOWNER);
    else if (!is_ours(config->state_dir))
        needed |= BIT(CAP_DAC_OVERRIDE);
    return needed;
}

uint64_t capabilities_of_broker(void)
{
    return BIT(CAP_SYS_ADMIN) | BIT(CAP_DAC_READ_SEARCH) | BIT(CAP_DAC_OVERRIDE) | BIT(CAP_FOWNER);
}

static int get(struct __user_cap_data_struct data[2])
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    return syscall(SYS_capget, &header, data) < 0 ? -errno : 0;
}

int capabilities_keep(uint64_t wanted, uint64_t bounding)
{
    struct __user_cap_data_struct now[2] = {0}, kept[2];
    int r = get(now);
    if (r < 0)
        return r;
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); /* as old as Linux 4.3 */
    for (int number = 0; number < NUMBERS; number++)
        if (!(bounding >> number & 1) && prctl(PR_CAPBSET_READ, number, 0, 0, 0) == 1 &&
            prctl(PR_CAPBSET_DROP, number, 0, 0, 0) < 0 && errno != EPERM)
            return -errno;
    for (int i = 0; i < 2; i++) {
        uint32_t both = (uint32_t)(wanted >> 32 * i) & now[i].permitted;
        kept[i] = (struct __user_cap_data_struct){.effective = both, .permitted = both};
    }
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    return syscall(SYS_capset, &header, kept) < 0 ? -errno : 0;
}

uint64_t capabilities_effective(void)
{
    struct __user_cap_data_struct data[2] = {0}; /* valgrind knows of the first half only */
    return get(data) < 0 ? UINT64_MAX : data[0].effective | (uint64_t)data[1].effective << 32;
}
