/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Each promise of the sandbox, and an attempt to break it from inside. The images are those of
 * other people: files next to the state directory.
 */
#include "fs/sandbox/sandbox_internal.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <pwd.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#include "qcow/base/cleanup.h"
#include "tests/unit/sandbox/inside.h"

static unsigned landlock_abi(void)
{
    long abi = syscall(444, NULL, 0, 1);
    return abi < 0 ? 0 : (unsigned)abi;
}

/* ---- programs ---- */

static void start_programs(const void *arg)
{
    (void)arg;
    char *argv[] = {"true", NULL};
    pid_t pid;
    MUST_FAIL(EPERM, execve("/bin/true", argv, NULL));
    auto_close int fd = open("/bin/true", O_RDONLY | O_CLOEXEC);
    MUST_FAIL(EPERM, syscall(SYS_execveat, fd, "", argv, NULL, 0x1000 /* AT_EMPTY_PATH */));
    MUST(posix_spawn(&pid, "/bin/true", NULL, NULL, argv, NULL) != 0);
#if !SANDBOX_HAS_SANITIZER
    MUST_FAIL(EPERM, fork());
    MUST_FAIL(EPERM, syscall(SYS_clone, SIGCHLD | CLONE_NEWUSER, NULL, NULL, NULL, NULL));
    MUST_FAIL(EPERM, syscall(SYS_clone, CLONE_THREAD | CLONE_SIGHAND | CLONE_VM | CLONE_NEWNS, NULL,
                             NULL, NULL, NULL));
#endif
    MUST_FAIL(ENOSYS, syscall(SYS_clone3, NULL, 0));
}

static void no_program_is_started(void **state)
{
    inside_check(*state, start_programs);
}

static void *start_programs_on_thread(void *arg)
{
    start_programs(arg);
    return NULL;
}

static void start_programs_on_a_thread(const void *arg)
{
    pthread_t thread;
    MUST(pthread_create(&thread, NULL, start_programs_on_thread, (void *)arg) == 0);
    MUST(pthread_join(thread, NULL) == 0);
}

static void none_by_another_thread_either(void **state)
{
    inside_check(*state, start_programs_on_a_thread);
}

/* ---- files ---- */

static void write_elsewhere(const void *arg)
{
    const struct scratch *s = arg;
    const char *image = scratch_path(s, "image");
    const char *fresh = scratch_path(s, "fresh");
    MUST_FAIL(EACCES, open(image, O_WRONLY | O_CLOEXEC));
    MUST_FAIL(EACCES, open(image, O_RDWR | O_CLOEXEC));
    MUST_FAIL(EACCES, open(fresh, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    MUST_FAIL(EACCES, open(s->dir, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600));
    MUST_FAIL(EACCES, open(scratch_path(s, "state/leads-out"), O_WRONLY | O_CLOEXEC));
    MUST_FAIL(EACCES, open("/proc/self/mem", O_RDWR | O_CLOEXEC));
    MUST_FAIL(EACCES, mkdir(fresh, 0700));
    MUST_FAIL(EACCES, unlink(image));
    MUST_FAIL(EACCES, rename(image, scratch_path(s, "state/image")));
    MUST_FAIL(EACCES, rename(scratch_path(s, "state/file"), fresh));
    MUST_FAIL(EPERM, truncate(image, 0));
    MUST_FAIL(EPERM, link(scratch_path(s, "state/file"), fresh));
    MUST_FAIL(EPERM, link(image, scratch_path(s, "state/linked")));
    MUST_FAIL(EPERM, symlink("x", fresh));
    MUST_FAIL(EPERM, mknod(fresh, S_IFREG | 0600, 0));
    MUST_FAIL(EPERM, chmod(image, 0777));
    MUST_FAIL(EPERM, chown(image, 1, 1));
    MUST_FAIL(EPERM, utimensat(AT_FDCWD, image, NULL, 0));
    MUST_FAIL(EPERM, setxattr(image, "user.x", "y", 1, 0));
}

static void write_to_files(const void *arg)
{
    MUST_FAIL(EACCES, open(scratch_path(arg, "image"), O_WRONLY | O_CLOEXEC));
    MUST_FAIL(EACCES, open(scratch_path(arg, "state"), O_WRONLY | O_CLOEXEC));
    MUST_FAIL(EACCES, open(scratch_path(arg, "fresh"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
}

static void write_state(const void *arg)
{
    const struct scratch *s = arg;
    const char *name = scratch_path(s, "state/new"), *to = scratch_path(s, "state/renamed");
    auto_close int fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    MUST(fd >= 0 && write(fd, "x", 1) == 1 && fsync(fd) == 0 && ftruncate(fd, 0) == 0);
    MUST(rename(name, to) == 0 && unlink(to) == 0);
    MUST(mkdir(to, 0700) == 0 && rmdir(to) == 0);
    auto_close int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    MUST(null >= 0);
}

static void fill(struct scratch *s)
{
    scratch_mkdir(s, "state");
    scratch_write(s, "state/file", "x");
    scratch_write(s, "image", "the guest's");
    scratch_link(s, scratch_path(s, "image"), "state/leads-out");
}

static void nothing_is_written_but_state(void **state)
{
    fill(*state);
    if (landlock_abi() == 0)
        fail_msg("this kernel has no Landlock: there is nothing to promise");
    inside_check(*state, write_elsewhere);
    inside_check(*state, write_state);
}

/* Somebody's file where the state directory should be is no reason to go without. */
static void a_file_in_place_of_state_is_not_written(void **state)
{
    struct scratch *s = *state;
    scratch_write(s, "state", "a file");
    scratch_write(s, "image", "the guest's");
    inside_check(s, write_to_files);
}

static void delete_image(const void *arg)
{
    MUST(unlink(scratch_path(arg, "image")) == 0);
    MUST_FAIL(EACCES, open(scratch_path(arg, "fresh"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
}

/* Overlays are deleted wherever disks lie; that is all that is done there. */
static void with_libvirt_files_elsewhere_are_deleted_but_not_written(void **state)
{
    fill(*state);
    struct sandbox_config config = inside_config(*state);
    config.is_libvirt = true;
    assert_int_equal(inside_run(&config, delete_image, *state), 0);
}

static void a_state_directory_is_made(void **state)
{
    inside_check(*state, write_state);
}

/* ---- the kernel, and other processes ---- */

static void reach_for_the_kernel(const void *arg)
{
    (void)arg;
    char bytes[256] = {0};
    MUST_FAIL(EPERM, syscall(SYS_bpf, 0, bytes, sizeof(bytes)));
    MUST_FAIL(EPERM, syscall(SYS_perf_event_open, bytes, 0, -1, -1, 0));
    MUST_FAIL(EPERM, syscall(SYS_userfaultfd, 0));
    MUST_FAIL(EPERM, syscall(SYS_keyctl, 0, -3, 1));
    MUST_FAIL(EPERM, syscall(SYS_add_key, "user", "x", "y", 1, -3));
    MUST_FAIL(EPERM, syscall(SYS_init_module, bytes, 0, ""));
    MUST_FAIL(EPERM, syscall(SYS_finit_module, 0, "", 0));
    MUST_FAIL(EPERM, syscall(SYS_kexec_load, 0, 0, NULL, 0));
    MUST_FAIL(EPERM, syscall(SYS_io_uring_setup, 1, bytes));
    MUST_FAIL(EPERM, syscall(SYS_open_by_handle_at, AT_FDCWD, bytes, 0));
    MUST_FAIL(EPERM, mount("none", "/mnt", "tmpfs", 0, NULL));
    MUST_FAIL(EPERM, umount2("/proc", MNT_DETACH));
    MUST_FAIL(EPERM, syscall(SYS_pivot_root, "/", "/"));
    MUST_FAIL(EPERM, chroot("/"));
    MUST_FAIL(EPERM, unshare(CLONE_NEWUSER));
    MUST_FAIL(EPERM, setns(0, 0));
    MUST_FAIL(EPERM, setuid(0));
#if !SANDBOX_HAS_SANITIZER
    MUST_FAIL(EPERM, prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
    MUST_FAIL(EPERM, prctl(PR_SET_MM, 1, 0, 0, 0));
#endif
    MUST_FAIL(ENOSYS, syscall(511)); /* one that is new some day */
}

static void the_kernel_is_out_of_reach(void **state)
{
    inside_check(*state, reach_for_the_kernel);
}

static void reach_for_processes(const void *arg)
{
    (void)arg;
    pid_t parent = getppid();
    struct iovec none = {0};
    MUST_FAIL(EPERM, syscall(SYS_process_vm_writev, parent, &none, 1, &none, 1, 0));
    MUST_FAIL(EPERM, syscall(SYS_pidfd_open, parent, 0));
    MUST_FAIL(EPERM, kill(parent, 0)); /* with a sanitizer by Landlock, from version 6 on */
    MUST_FAIL(EPERM, ptrace(PTRACE_ATTACH, parent, NULL, NULL));
    MUST_FAIL(EPERM, syscall(SYS_rt_sigqueueinfo, parent, 0, NULL));
    cpu_set_t first;
    CPU_ZERO(&first);
    CPU_SET(0, &first);
    MUST_FAIL(EPERM, sched_setaffinity(parent, sizeof(first), &first));
    /* The kernel would send it what it is told whenever there is something to read. */
    struct f_owner_ex owner = {.type = F_OWNER_PID, .pid = parent};
    MUST_FAIL(EPERM, fcntl(STDIN_FILENO, F_SETOWN, parent));
    MUST_FAIL(EPERM, fcntl(STDIN_FILENO, F_SETOWN_EX, &owner));
    MUST_FAIL(EPERM, fcntl(STDIN_FILENO, F_SETSIG, SIGKILL));
    MUST(kill(getpid(), 0) == 0 && pthread_kill(pthread_self(), 0) == 0);
}

static void other_processes_are_out_of_reach(void **state)
{
    inside_check(*state, reach_for_processes);
}

/* Of what the programs around us could be made to do or believe. */
static void type_into_the_terminal(const void *arg)
{
    (void)arg;
    MUST_FAIL(EPERM, ioctl(STDIN_FILENO, TIOCSTI, "x"));
    MUST_FAIL(EPERM, ioctl(STDIN_FILENO, TIOCSCTTY, 1));
}

static void the_terminal_is_not_typed_into(void **state)
{
    inside_check(*state, type_into_the_terminal);
}

static void make_code(const void *arg)
{
    (void)arg;
    size_t len = 4096;
    int both = PROT_READ | PROT_WRITE | PROT_EXEC;
    /* lint: cppcheck/invalidFunctionArg: it is what memory of no file has in place of one */
    MUST_FAIL(EPERM, (long)mmap(NULL, len, both, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    /* lint: cppcheck/invalidFunctionArg: as above */
    void *data = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(data != MAP_FAILED);
    MUST_FAIL(EPERM, mprotect(data, len, PROT_READ | PROT_EXEC));
    munmap(data, len);
}

static void data_never_becomes_code(void **state)
{
    inside_check(*state, make_code);
}

/* ---- sockets ---- */

static void open_strange_sockets(const void *arg)
{
    (void)arg;
    MUST_FAIL(EPERM, socket(AF_PACKET, SOCK_RAW, 0));
    MUST_FAIL(EPERM, socket(AF_VSOCK, SOCK_STREAM, 0));
    MUST_FAIL(EPERM, socket(AF_NETLINK, SOCK_RAW, 0));
    MUST_FAIL(EPERM, socket(AF_ALG, SOCK_SEQPACKET, 0));
    MUST_FAIL(EPERM, socket(AF_BLUETOOTH, SOCK_RAW, 0));
    MUST_FAIL(EPERM, socket(AF_INET, SOCK_RAW, IPPROTO_RAW));
    MUST_FAIL(EPERM, socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP));
    MUST_FAIL(EPERM, socket(AF_INET6, SOCK_STREAM, 132 /* SCTP */));
    MUST_FAIL(EPERM, socket(AF_INET6, SOCK_PACKET, 0));
    auto_close int local = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    MUST(local >= 0);
    MUST_FAIL(EPERM, listen(local, 1));
    MUST_FAIL(EPERM, accept(local, NULL, NULL));
}

static void open_ip_sockets(const void *arg)
{
    (void)arg;
    auto_close int tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);
    auto_close int udp = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in any = {.sin_family = AF_INET};
    MUST(tcp >= 0);
    MUST(udp >= 0 || errno == EAFNOSUPPORT);
    if (landlock_abi() >= 4)
        MUST_FAIL(EACCES, bind(tcp, (const struct sockaddr *)&any, sizeof(any)));
    open_strange_sockets(arg);
}

static void open_no_ip_sockets(const void *arg)
{
    MUST_FAIL(EPERM, socket(AF_INET, SOCK_STREAM, 0));
    MUST_FAIL(EPERM, socket(AF_INET6, SOCK_DGRAM, 0));
    open_strange_sockets(arg);
}

static void without_a_cloud_there_are_only_local_sockets(void **state)
{
    inside_check(*state, open_no_ip_sockets);
}

static void with_a_cloud_there_are_tcp_and_udp(void **state)
{
    struct sandbox_config config = inside_config(*state);
    config.has_cloud = true;
    assert_int_equal(inside_run(&config, open_ip_sockets, NULL), 0);
}

/* ---- what must go on working ---- */

static void *take_a_lock(void *arg)
{
    (void)arg;
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock);
    pthread_mutex_unlock(&lock);
    return NULL;
}

static void do_the_usual(const void *arg)
{
    (void)arg;
    pthread_t thread;
    MUST(pthread_create(&thread, NULL, take_a_lock, NULL) == 0 && pthread_join(thread, NULL) == 0);
    void *library = dlopen("libresolv.so.2", RTLD_NOW); /* none of those linked here */
    MUST(library != NULL);
    struct addrinfo *found = NULL;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    MUST(getaddrinfo("localhost", "80", &hints, &found) == 0);
    if (found)
        freeaddrinfo(found);
    /* lint: cppcheck/getpwuidCalled: there is one thread */
    MUST(getpwuid(0) != NULL);
    char *copy = realpath("/proc/self/fd", NULL);
    MUST(copy != NULL);
    free(copy);
    if (library)
        dlclose(library);
    auto_close int fd = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
    MUST(fd >= 0);
}

static void threads_libraries_names_and_reading_go_on(void **state)
{
    struct sandbox_config config = inside_config(*state);
    config.has_cloud = true;
    assert_int_equal(inside_run(&config, do_the_usual, NULL), 0);
}

/* ---- capabilities ---- */

static void look_at_capabilities(const void *wanted)
{
    MUST(capabilities_effective() == *(const uint64_t *)wanted);
    for (int number = 0; number < 64; number++)
        MUST(prctl(PR_CAPBSET_READ, number, 0, 0, 0) != 1);
    MUST(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
}

static uint64_t bit(int capability)
{
    return geteuid() == 0 ? UINT64_C(1) << capability : 0;
}

static void a_folder_is_read_with_one_capability(void **state)
{
    fill(*state);
    struct sandbox_config config = inside_config(*state);
    uint64_t wanted = bit(CAP_DAC_READ_SEARCH);
    assert_int_equal(inside_run(&config, look_at_capabilities, &wanted), 0);
}

static void libvirt_takes_three(void **state)
{
    struct sandbox_config config = inside_config(*state);
    config.is_libvirt = true;
    uint64_t wanted = bit(CAP_DAC_READ_SEARCH) | bit(CAP_DAC_OVERRIDE) | bit(CAP_FOWNER);
    assert_int_equal(inside_run(&config, look_at_capabilities, &wanted), 0);
}

/* ---- foreign system calls ---- */

#ifdef __x86_64__
static void call_as_32_bit_program(const void *arg)
{
    (void)arg;
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20L /* getpid */) : "memory");
    (void)result;
}

static void call_as_x32_program(const void *arg)
{
    (void)arg;
    syscall(0x40000000 | SYS_getpid);
}

static void calls_of_another_architecture_kill(void **state)
{
    struct sandbox_config config = inside_config(*state);
    int how = inside_run(&config, call_as_x32_program, NULL);
    assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGSYS);
    how = inside_run(&config, call_as_32_bit_program, NULL);
    /* A kernel without 32-bit programs answers such a call with SIGSEGV by itself. */
    assert_true(WIFSIGNALED(how) && (WTERMSIG(how) == SIGSYS || WTERMSIG(how) == SIGSEGV));
}
#endif

#define IN_SCRATCH(test) cmocka_unit_test_setup_teardown(test, scratch_setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_SCRATCH(no_program_is_started),
        IN_SCRATCH(none_by_another_thread_either),
        IN_SCRATCH(nothing_is_written_but_state),
        IN_SCRATCH(a_file_in_place_of_state_is_not_written),
        IN_SCRATCH(with_libvirt_files_elsewhere_are_deleted_but_not_written),
        IN_SCRATCH(a_state_directory_is_made),
        IN_SCRATCH(the_kernel_is_out_of_reach),
        IN_SCRATCH(other_processes_are_out_of_reach),
        IN_SCRATCH(the_terminal_is_not_typed_into),
        IN_SCRATCH(data_never_becomes_code),
        IN_SCRATCH(without_a_cloud_there_are_only_local_sockets),
        IN_SCRATCH(with_a_cloud_there_are_tcp_and_udp),
        IN_SCRATCH(threads_libraries_names_and_reading_go_on),
        IN_SCRATCH(a_folder_is_read_with_one_capability),
        IN_SCRATCH(libvirt_takes_three),
#ifdef __x86_64__
        IN_SCRATCH(calls_of_another_architecture_kill),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
