/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The filter for system calls, by libseccomp. What is not allowed fails with EPERM; it does not
 * kill, since with the process the mount would die and guests would stay on their overlays, and a
 * library that tries what it can do without is no attack. Calls by the number of another
 * architecture (32-bit ones, x32) do kill: nobody makes them by chance, and the filter cannot
 * judge them.
 */
#include <asm/ioctls.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fs/sandbox/sandbox_internal.h"
#include "qcow/base/cleanup.h"

enum {
    SOCK_TYPE_MASK = 0xf, /* the kernel's; the rest of a socket's type are flags */
    /*
     * Where calls may be that are newer than libseccomp: from 424 on, a number is the same call on
     * all machines, and at 512 those of x32 begin. Each further number would cost 5 us of the
     * start.
     */
    NUMBERS_MIN = 424,
    NUMBERS_MAX = 512,
};

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif
#ifndef FUSE_DEV_IOC_CLONE
#define FUSE_DEV_IOC_CLONE _IOR(229, 0, uint32_t)
#endif

/* (libseccomp's macros for these leave a member out, which clang minds.) */
static struct scmp_arg_cmp is_equal(unsigned arg, uint32_t value)
{
    return (struct scmp_arg_cmp){.arg = arg, .op = SCMP_CMP_EQ, .datum_a = value};
}

static struct scmp_arg_cmp has_bits(unsigned arg, uint32_t mask, uint32_t bits)
{
    return (struct scmp_arg_cmp){
        .arg = arg, .op = SCMP_CMP_MASKED_EQ, .datum_a = mask, .datum_b = bits};
}

static void cleanup_filter(scmp_filter_ctx *filter)
{
    if (*filter)
        seccomp_release(*filter);
}

/* 0 also for what this machine, or this libseccomp, does not know. */
static int allow(scmp_filter_ctx filter, const char *name, unsigned n_args,
                 const struct scmp_arg_cmp *args)
{
    int number = seccomp_syscall_resolve_name(name);
    if (number == __NR_SCMP_ERROR)
        return 0;
    return seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, number, n_args, args);
}

/* Each of @values as the argument number @arg. */
static int allow_values(scmp_filter_ctx filter, const char *name, unsigned arg,
                        const uint32_t *values, size_t n)
{
    int r = 0;
    for (size_t i = 0; i < n && r == 0; i++) {
        const struct scmp_arg_cmp cmp = is_equal(arg, values[i]);
        r = allow(filter, name, 1, &cmp);
    }
    return r;
}
#define N_OF(array) (sizeof(array) / sizeof(*(array)))

/*
 * Local sockets, for libvirt, QEMU's exports, syslog, name services; and IP's, if there is a cloud.
 * None of netlink: getaddrinfo() asks there which addresses the machine has, and does without.
 */
static int add_sockets(scmp_filter_ctx filter, const struct sandbox_config *config)
{
    static const uint32_t types[] = {SOCK_STREAM, SOCK_DGRAM};
    static const uint32_t protocols[] = {0, IPPROTO_TCP, IPPROTO_UDP};
    int r = 0;
    for (size_t i = 0; i < N_OF(types) && r == 0; i++) {
        const struct scmp_arg_cmp local[] = {is_equal(0, AF_UNIX),
                                             has_bits(1, SOCK_TYPE_MASK, types[i])};
        r = allow(filter, "socket", N_OF(local), local);
        for (size_t j = 0; j < N_OF(protocols) && r == 0 && config->has_cloud; j++) {
            struct scmp_arg_cmp ip[] = {is_equal(0, AF_INET), has_bits(1, SOCK_TYPE_MASK, types[i]),
                                        is_equal(2, protocols[j])};
            r = allow(filter, "socket", N_OF(ip), ip);
            ip[0] = is_equal(0, AF_INET6);
            if (r == 0)
                r = allow(filter, "socket", N_OF(ip), ip);
        }
    }
    static const uint32_t local = AF_UNIX;
    return r < 0 ? r : allow_values(filter, "socketpair", 0, &local, 1);
}

/* Threads, but no processes and no namespaces. */
static int add_threads(scmp_filter_ctx filter, pid_t pid)
{
    const uint32_t namespaces = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC |
                                CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;
    const struct scmp_arg_cmp is_thread = has_bits(0, CLONE_THREAD | namespaces, CLONE_THREAD);
    const struct scmp_arg_cmp is_limit_of_ours = is_equal(0, 0);
    static const uint32_t names[] = {PR_SET_NAME,    PR_GET_NAME,         PR_GET_DUMPABLE,
                                     PR_SET_VMA,     PR_GET_NO_NEW_PRIVS, PR_GET_SECCOMP,
                                     PR_CAPBSET_READ};
    int r = allow(filter, "clone", 1, &is_thread);
    if (r == 0)
        r = allow_values(filter, "kill", 0, (const uint32_t[]){(uint32_t)pid}, 1);
    if (r == 0)
        r = allow_values(filter, "tgkill", 0, (const uint32_t[]){(uint32_t)pid}, 1);
    if (r == 0)
        r = allow(filter, "prlimit64", 1, &is_limit_of_ours);
    return r < 0 ? r : allow_values(filter, "prctl", 0, names, N_OF(names));
}

/* Memory that is written to never becomes code; libraries are mapped as code from their files. */
static int add_memory(scmp_filter_ctx filter)
{
    const struct scmp_arg_cmp is_data = has_bits(2, PROT_EXEC, 0);
    const struct scmp_arg_cmp is_code = has_bits(2, PROT_EXEC | PROT_WRITE, PROT_EXEC);
    int r = allow(filter, "mmap", 1, &is_data);
    if (r == 0)
        r = allow(filter, "mmap", 1, &is_code);
    return r < 0 ? r : allow(filter, "mprotect", 1, &is_data);
}

/* Never those that put words into a terminal's mouth (TIOCSTI), or that drive a device. */
static int add_ioctls(scmp_filter_ctx filter)
{
    static const uint32_t requests[] = {TCGETS,  TIOCGWINSZ, FIONREAD,          FIONBIO,
                                        FIOCLEX, FIONCLEX,   FUSE_DEV_IOC_CLONE};
    return allow_values(filter, "ioctl", 1, requests, N_OF(requests));
}

/* Never those that have the kernel send signals to whom one likes (F_SETOWN, F_SETSIG). */
static int add_fcntls(scmp_filter_ctx filter)
{
    static const uint32_t commands[] = {
        F_DUPFD,     F_DUPFD_CLOEXEC, F_GETFD,      F_SETFD,      F_GETFL,
        F_SETFL,     F_GETLK,         F_SETLK,      F_SETLKW,     F_OFD_GETLK,
        F_OFD_SETLK, F_OFD_SETLKW,    F_GETPIPE_SZ, F_SETPIPE_SZ, F_GET_SEALS,
    };
    return allow_values(filter, "fcntl", 1, commands, N_OF(commands));
}

int seccomp_add_rules(scmp_filter_ctx filter, const struct sandbox_config *config, pid_t pid)
{
    int r = 0;
    for (const char *const *name = seccomp_allowed; *name && r == 0; name++)
        r = allow(filter, *name, 0, NULL);
    if (r == 0)
        r = add_sockets(filter, config);
    if (r == 0)
        r = add_threads(filter, pid);
    if (r == 0)
        r = add_memory(filter);
    if (r == 0)
        r = add_ioctls(filter);
    return r < 0 ? r : add_fcntls(filter);
}

/*
 * Calls that this libseccomp has no name for do not exist, as on an older kernel, so that a newer
 * C library takes what there was before them. So does clone3(): its flags lie in memory, where no
 * filter can look, and clone() does the same.
 */
static int hide_unknown(scmp_filter_ctx filter)
{
    int r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    for (int number = NUMBERS_MIN; number < NUMBERS_MAX && r == 0; number++) {
        auto_free char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, number);
        if (!name)
            r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), number, 0);
    }
    return r;
}

/* Options that an older libseccomp does not know are no loss. */
static int set_attributes(scmp_filter_ctx filter)
{
    seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a tree: each read goes through it */
    int r = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    return r < 0 ? r : seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
}

bool seccomp_has_list(uint32_t arch)
{
    return arch == SCMP_ARCH_X86_64 || arch == SCMP_ARCH_AARCH64;
}

int seccomp_enter(const struct sandbox_config *config)
{
    if (!seccomp_has_list(seccomp_arch_native()))
        return -EOPNOTSUPP;
    __attribute__((cleanup(cleanup_filter))) scmp_filter_ctx filter =
        seccomp_init(SCMP_ACT_ERRNO(EPERM));
    if (!filter)
        return -ENOMEM;
    int r = set_attributes(filter);
    if (r == 0)
        r = seccomp_add_rules(filter, config, getpid());
    if (r == 0)
        r = hide_unknown(filter);
    return r < 0 ? r : seccomp_load(filter);
}
