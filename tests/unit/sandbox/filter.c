/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the filter says to calls on each of the machines that it is made for, whatever machine this
 * is: the program that the kernel would run is run here.
 */
#include "fs/sandbox/sandbox_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { PROGRAM_MAX = 4096, OUR_PID = 4711, ALLOW = 0, KILL = -1 };

struct machine {
    uint32_t scmp_arch, audit_arch, foreign_arch;
    struct sock_filter program[PROGRAM_MAX];
    size_t len;
};

static void read_program(scmp_filter_ctx filter, struct machine *m)
{
    FILE *file = tmpfile();
    assert_non_null(file);
    assert_int_equal(seccomp_export_bpf(filter, fileno(file)), 0);
    rewind(file);
    m->len = fread(m->program, sizeof(m->program[0]), PROGRAM_MAX, file);
    assert_true(m->len > 0 && m->len < PROGRAM_MAX);
    fclose(file);
}

static void build(struct machine *m, bool has_cloud)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    assert_non_null(filter);
    if (m->scmp_arch != seccomp_arch_native()) {
        assert_int_equal(seccomp_arch_add(filter, m->scmp_arch), 0);
        assert_int_equal(seccomp_arch_remove(filter, seccomp_arch_native()), 0);
    }
    assert_int_equal(seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS), 0);
    struct sandbox_config config = {.has_cloud = has_cloud};
    assert_int_equal(seccomp_add_rules(filter, &config, OUR_PID), 0);
    read_program(filter, m);
    seccomp_release(filter);
}

/* One instruction of those that libseccomp makes; the next one's index. */
static size_t step(const struct sock_filter *at, size_t i, uint32_t *a, const void *data)
{
    bool is_true = false;
    switch (at->code) {
    case BPF_LD | BPF_W | BPF_ABS:
        memcpy(a, (const char *)data + at->k, sizeof(*a));
        return i + 1;
    case BPF_ALU | BPF_AND | BPF_K:
        *a &= at->k;
        return i + 1;
    case BPF_JMP | BPF_JA:
        return i + 1 + at->k;
    case BPF_JMP | BPF_JEQ | BPF_K:
        is_true = *a == at->k;
        break;
    case BPF_JMP | BPF_JGT | BPF_K:
        is_true = *a > at->k;
        break;
    case BPF_JMP | BPF_JGE | BPF_K:
        is_true = *a >= at->k;
        break;
    default:
        fail_msg("instruction %#x is not known here", at->code);
    }
    return i + 1 + (is_true ? at->jt : at->jf);
}

/* ALLOW, KILL, or the errno. */
static int judge_data(const struct machine *m, const struct seccomp_data *data)
{
    uint32_t a = 0;
    for (size_t i = 0; i < m->len; i = step(&m->program[i], i, &a, data)) {
        if (m->program[i].code != (BPF_RET | BPF_K))
            continue;
        uint32_t verdict = m->program[i].k;
        if (verdict == SECCOMP_RET_ALLOW)
            return ALLOW;
        if (verdict == SECCOMP_RET_KILL_PROCESS)
            return KILL;
        assert_int_equal(verdict & SECCOMP_RET_ACTION_FULL, SECCOMP_RET_ERRNO);
        return (int)(verdict & SECCOMP_RET_DATA);
    }
    fail_msg("the filter has no end");
    return KILL;
}

struct call {
    const char *name;
    uint64_t args[3];
    int verdict;
};

/* A call that the machine does not have can be made by nobody. */
static void check_calls(const struct machine *m, const struct call *calls, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int number = seccomp_syscall_resolve_name_arch(m->scmp_arch, calls[i].name);
        struct seccomp_data data = {.nr = number, .arch = m->audit_arch};
        memcpy(data.args, calls[i].args, sizeof(calls[i].args));
        print_message("%s(%#llx, %#llx, %#llx) = %d\n", calls[i].name,
                      (unsigned long long)calls[i].args[0], (unsigned long long)calls[i].args[1],
                      (unsigned long long)calls[i].args[2], number);
        assert_true(number != __NR_SCMP_ERROR);
        if (number >= 0)
            assert_int_equal(judge_data(m, &data), calls[i].verdict);
    }
}

#define THREAD_FLAGS                                                                               \
    (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |            \
     CLONE_SETTLS)

static const struct call calls[] = {
    {"read", {3}, ALLOW},
    {"openat", {0}, ALLOW},
    {"open", {0}, ALLOW},
    {"futex", {0}, ALLOW},
    {"socket", {AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0}, ALLOW},
    {"socket", {AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 6}, ALLOW},
    {"socket", {AF_INET6, SOCK_DGRAM, 17}, ALLOW},
    {"socket", {AF_INET, SOCK_RAW, 255}, EPERM},
    {"socket", {AF_INET, SOCK_DGRAM, 1}, EPERM},
    {"socket", {AF_NETLINK, SOCK_RAW, 0}, EPERM},
    {"socket", {AF_PACKET, SOCK_RAW, 0}, EPERM},
    {"socket", {AF_VSOCK, SOCK_STREAM, 0}, EPERM},
    /* The kernel looks at the lower half of an int, and so does the filter. */
    {"socket", {UINT64_C(1) << 32 | AF_PACKET, SOCK_RAW, 0}, EPERM},
    {"mmap", {0, 4096, PROT_READ | PROT_WRITE}, ALLOW},
    {"mmap", {0, 4096, PROT_READ | PROT_EXEC}, ALLOW},
    {"mmap", {0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC}, EPERM},
    {"mprotect", {0, 4096, PROT_READ}, ALLOW},
    {"mprotect", {0, 4096, PROT_READ | PROT_EXEC}, EPERM},
    {"prlimit64", {0}, ALLOW},
    {"prlimit64", {1}, EPERM},
    {"execve", {0}, EPERM},
    {"execveat", {0}, EPERM},
    {"fork", {0}, EPERM},
    {"vfork", {0}, EPERM},
    {"unshare", {0}, EPERM},
    {"setns", {0}, EPERM},
    {"mount", {0}, EPERM},
    {"umount2", {0}, EPERM},
    {"move_mount", {0}, EPERM},
    {"bpf", {0}, EPERM},
    {"perf_event_open", {0}, EPERM},
    {"userfaultfd", {0}, EPERM},
    {"keyctl", {0}, EPERM},
    {"kexec_load", {0}, EPERM},
    {"kexec_file_load", {0}, EPERM},
    {"init_module", {0}, EPERM},
    {"finit_module", {0}, EPERM},
    {"delete_module", {0}, EPERM},
    {"io_uring_setup", {0}, EPERM},
    {"open_by_handle_at", {0}, EPERM},
    {"process_vm_writev", {0}, EPERM},
    {"pidfd_getfd", {0}, EPERM},
    {"chmod", {0}, EPERM},
    {"fchmodat", {0}, EPERM},
    {"fchownat", {0}, EPERM},
    {"setxattr", {0}, EPERM},
    {"listen", {0}, EPERM},
    {"accept4", {0}, EPERM},
    {"setuid", {0}, EPERM},
    {"capset", {0}, EPERM},
    {"reboot", {0}, EPERM},
    {"memfd_create", {0}, EPERM},
#if !SANDBOX_HAS_SANITIZER
    {"clone", {THREAD_FLAGS}, ALLOW},
    {"clone", {SIGCHLD}, EPERM},
    {"clone", {CLONE_VM | CLONE_VFORK | SIGCHLD}, EPERM},
    {"clone", {THREAD_FLAGS | CLONE_NEWUSER}, EPERM},
    {"kill", {OUR_PID}, ALLOW},
    {"kill", {1}, EPERM},
    {"kill", {UINT64_MAX}, EPERM},
    {"tgkill", {1}, EPERM},
    {"ptrace", {0}, EPERM},
    {"prctl", {15 /* PR_SET_NAME */}, ALLOW},
    {"prctl", {22 /* PR_SET_SECCOMP */}, EPERM},
    {"prctl", {35 /* PR_SET_MM */}, EPERM},
#endif
    {"ioctl", {0, 0x5401 /* TCGETS */}, ALLOW},
    {"ioctl", {0, 0x5412 /* TIOCSTI */}, EPERM},
    {"ioctl", {0, UINT64_C(1) << 32 | 0x5412}, EPERM},
};

static const struct call calls_without_cloud[] = {
    {"socket", {AF_UNIX, SOCK_DGRAM, 0}, ALLOW},
    {"socket", {AF_INET, SOCK_STREAM, 0}, EPERM},
    {"socket", {AF_INET6, SOCK_DGRAM, 17}, EPERM},
};

static struct machine x86_64 = {.scmp_arch = SCMP_ARCH_X86_64,
                                .audit_arch = AUDIT_ARCH_X86_64,
                                .foreign_arch = AUDIT_ARCH_I386};
static struct machine aarch64 = {.scmp_arch = SCMP_ARCH_AARCH64,
                                 .audit_arch = AUDIT_ARCH_AARCH64,
                                 .foreign_arch = AUDIT_ARCH_ARM};

static void check_machine(struct machine *m)
{
    build(m, false);
    check_calls(m, calls_without_cloud, sizeof(calls_without_cloud) / sizeof(struct call));
    build(m, true);
    check_calls(m, calls, sizeof(calls) / sizeof(struct call));
    for (int number = 0; number < 600; number++) {
        struct seccomp_data data = {.nr = number, .arch = m->foreign_arch};
        assert_int_equal(judge_data(m, &data), KILL);
    }
}

static void judges_calls_on_x86_64(void **state)
{
    (void)state;
    check_machine(&x86_64);
    struct seccomp_data x32 = {.nr = 0x40000000 | 39, .arch = AUDIT_ARCH_X86_64};
    assert_int_equal(judge_data(&x86_64, &x32), KILL);
}

static void judges_calls_on_aarch64(void **state)
{
    (void)state;
    check_machine(&aarch64);
}

static void other_machines_go_without(void **state)
{
    (void)state;
    assert_true(seccomp_has_list(SCMP_ARCH_X86_64) && seccomp_has_list(SCMP_ARCH_AARCH64));
    static const uint32_t others[] = {SCMP_ARCH_X86,   SCMP_ARCH_X32,     SCMP_ARCH_ARM,
                                      SCMP_ARCH_S390X, SCMP_ARCH_PPC64LE, SCMP_ARCH_RISCV64};
    for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++)
        assert_false(seccomp_has_list(others[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(judges_calls_on_x86_64),
        cmocka_unit_test(judges_calls_on_aarch64),
        cmocka_unit_test(other_machines_go_without),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
