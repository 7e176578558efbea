/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/qemu_img.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fs/host/file.h"
#include "qcow/base/cleanup.h"

enum {
    OUTPUT_MAX = 400, /* of what it says, for the error's text */
    WAIT_MS = 1000,
};

static const char *find_program(void)
{
    static const char *const paths[] = {"/usr/bin/qemu-img", "/usr/local/bin/qemu-img",
                                        "/bin/qemu-img"};
    for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++)
        if (access(paths[i], X_OK) == 0)
            return paths[i];
    return NULL;
}

/* Signals as they are by default, and no Ctrl-C that is meant for us. */
static int set_attributes(posix_spawnattr_t *attr)
{
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    int r = posix_spawnattr_setsigmask(attr, &none);
    if (r == 0)
        r = posix_spawnattr_setsigdefault(attr, &all);
    return r ? r
             : posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                                  POSIX_SPAWN_SETPGROUP);
}

static int set_files(posix_spawn_file_actions_t *files, int output_fd)
{
    int r = posix_spawn_file_actions_addopen(files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (r == 0)
        r = posix_spawn_file_actions_adddup2(files, output_fd, STDOUT_FILENO);
    return r ? r : posix_spawn_file_actions_adddup2(files, output_fd, STDERR_FILENO);
}

/* 0 or a positive errno. */
static int spawn(const char *program, const char *const *args, int output_fd, pid_t *ret_pid)
{
    static char locale[] = "LC_ALL=C";
    char *const environment[] = {locale, NULL};
    posix_spawnattr_t attr;
    posix_spawn_file_actions_t files;
    int r = posix_spawnattr_init(&attr);
    if (r)
        return r;
    r = posix_spawn_file_actions_init(&files);
    if (r) {
        posix_spawnattr_destroy(&attr);
        return r;
    }
    r = set_attributes(&attr);
    if (r == 0)
        r = set_files(&files, output_fd);
    if (r == 0) /* args are not written to: the type is that of exec() */
        r = posix_spawn(ret_pid, program, &files, &attr, (char *const *)args, environment);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attr);
    return r;
}

static void wait_output(int fd, const struct qemu_img_watch *watch)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    while (watch && poll(&poll_fd, 1, WAIT_MS) <= 0)
        watch->on_wait(watch->ctx);
}

/* All is read, so that it is never held up; what fits is kept, without the last newline. */
static void read_output(int fd, const struct qemu_img_watch *watch, char *output)
{
    char piece[256];
    size_t len = 0;
    for (;;) {
        wait_output(fd, watch);
        ssize_t n = read(fd, piece, sizeof(piece));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        size_t fits = (size_t)n < OUTPUT_MAX - 1 - len ? (size_t)n : OUTPUT_MAX - 1 - len;
        memcpy(output + len, piece, fits);
        len += fits;
    }
    while (len > 0 && output[len - 1] == '\n')
        len--;
    output[len] = '\0';
}

/* The exit status, or a negative errno if it could not be run to its end. */
static int run(const char *const *args, const struct qemu_img_watch *watch, char *output,
               struct error *err)
{
    const char *program = find_program();
    int fds[2];
    if (!program)
        return error_set(err, -EOPNOTSUPP, "there is no qemu-img (package qemu-utils)");
    if (pipe2(fds, O_CLOEXEC) < 0)
        return error_set(err, -errno, "cannot run %s: %s", program, strerrordesc_np(errno));
    auto_close int read_fd = fds[0];
    pid_t pid;
    int r = spawn(program, args, fds[1], &pid);
    close(fds[1]);
    if (r)
        return error_set(err, -r, "cannot run %s: %s", program, strerrordesc_np(r));
    read_output(read_fd, watch, output);
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return error_set(err, -EIO, "cannot wait for %s: %s", program, strerrordesc_np(errno));
    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    return error_set(err, -EIO, "%s died of signal %d", program, WTERMSIG(status));
}

static int judge_failure(const char *output)
{
    if (strstr(output, "\" lock") || strstr(output, "Failed to lock"))
        return -EBUSY;
    return strstr(output, strerrordesc_np(ENOSPC)) ? -ENOSPC : -EIO;
}

static int commit(const char *overlay, const char *base, const struct qemu_img_watch *watch,
                  struct error *err)
{
    const char *const args[] = {"qemu-img", "commit", "-q", "-f", "qcow2", overlay, NULL};
    char output[OUTPUT_MAX] = "";
    int r = run(args, watch, output, err);
    if (r <= 0)
        return r;
    return error_set(err, judge_failure(output), "qemu-img cannot commit '%s' into '%s': %s",
                     overlay, base, output);
}

static int compare(const char *overlay, const char *base, const char *format,
                   const struct qemu_img_watch *watch, struct error *err)
{
    const char *const args[] = {"qemu-img", "compare", "-q",    "-f", "qcow2",
                                "-F",       format,    overlay, base, NULL};
    char output[OUTPUT_MAX] = "";
    int r = run(args, watch, output, err);
    if (r <= 1)
        return r;
    return error_set(err, judge_failure(output), "qemu-img cannot compare '%s' with '%s': %s",
                     overlay, base, output);
}

static int delete_snapshot(const char *path, const char *name, struct error *err)
{
    const char *const args[] = {"qemu-img", "snapshot", "-q", "-d", name, path, NULL};
    char output[OUTPUT_MAX] = "";
    int r = run(args, NULL, output, err);
    if (r <= 0)
        return r;
    return error_set(err, judge_failure(output), "qemu-img cannot delete snapshot '%s' of '%s': %s",
                     name, path, output);
}

/* ---- The broker's side: what asks may have been taken over. ---- */

static int check_outside(const char *real, const struct qemu_img_fence *fence, struct error *err)
{
    char real_state[PATH_MAX];
    const char *const state[] = {realpath(fence->state_dir, real_state)};
    const char *const mount[] = {fence->mountpoint};
    if (state[0] && file_is_beneath(real, state, 1))
        return error_set(err, -EPERM, "'%s' lies in the state directory", real);
    if ((mount[0] && file_is_beneath(real, mount, 1)) || fence->is_own_mount(real))
        return error_set(err, -EPERM, "'%s' lies in a mount of virtsnapfs", real);
    return 0;
}

/*
 * An overlay is called as ours are. Absolute, so that it is no option. What is run is given the
 * path that was checked, since links in another may lead elsewhere by then.
 */
static int check_overlay(const struct broker_call *call, size_t n_args,
                         char ret_real[static PATH_MAX], struct error *err)
{
    const char *overlay = call->n_args == n_args ? call->args[0] : "";
    const char *slash = strrchr(overlay, '/');
    if (overlay[0] != '/' || call->args[1][0] != '/' || !change_is_overlay(overlay) ||
        !realpath(overlay, ret_real) || strcmp(strrchr(ret_real, '/'), slash) != 0)
        return error_set(err, -EPERM, "'%s' is no overlay of virtsnapfs", overlay);
    return check_outside(ret_real, call->ctx, err);
}

/* An internal snapshot has the mark alone for its name. */
static int check_snapshot(const struct broker_call *call, char ret_real[static PATH_MAX],
                          struct error *err)
{
    const char *path = call->n_args == 2 ? call->args[0] : "";
    if (path[0] != '/' ||
        strncmp(call->args[1], CHANGE_MARK_PREFIX, strlen(CHANGE_MARK_PREFIX)) != 0 ||
        !change_is_marked(call->args[1]) || strlen(call->args[1]) != CHANGE_MARK_LEN)
        return error_set(err, -EPERM, "'%s' has no snapshot of virtsnapfs", path);
    if (!realpath(path, ret_real))
        return error_set(err, -errno, "cannot find '%s': %s", path, strerrordesc_np(errno));
    return check_outside(ret_real, call->ctx, err);
}

int qemu_img_work_commit(struct broker_call *call, struct error *err)
{
    char real[PATH_MAX];
    int r = check_overlay(call, 2, real, err);
    return r < 0 ? r : commit(real, call->args[1], NULL, err);
}

int qemu_img_work_compare(struct broker_call *call, struct error *err)
{
    enum qcow_format format;
    char real[PATH_MAX];
    int r = check_overlay(call, 3, real, err);
    if (r == 0 && qcow_format_parse(call->args[2], &format) < 0)
        r = error_set(err, -EINVAL, "'%s' is no format", call->args[2]);
    return r < 0 ? r : compare(real, call->args[1], call->args[2], NULL, err);
}

int qemu_img_work_delete_snapshot(struct broker_call *call, struct error *err)
{
    char real[PATH_MAX];
    int r = check_snapshot(call, real, err);
    return r < 0 ? r : delete_snapshot(real, call->args[1], err);
}

/* ---- The program's side. ---- */

static int ask_broker(enum broker_task task, struct broker_call *call, struct error *err)
{
    int r = broker_do(task, call, err);
    if (r >= 0)
        free(call->ret_text);
    return r;
}

static void set_watch(struct broker_call *call, const struct qemu_img_watch *watch)
{
    call->on_wait = watch ? watch->on_wait : NULL;
    call->wait_ctx = watch ? watch->ctx : NULL;
}

int qemu_img_commit(const struct change_disk *disk, const struct qemu_img_watch *watch,
                    struct error *err)
{
    if (!broker_is_running())
        return commit(disk->file, disk->base, watch, err);
    struct broker_call call = {.args = {disk->file, disk->base}, .n_args = 2};
    set_watch(&call, watch);
    return ask_broker(BROKER_COMMIT, &call, err);
}

int qemu_img_compare(const struct change_disk *disk, const struct qemu_img_watch *watch,
                     struct error *err)
{
    const char *format = qcow_format_name(disk->base_format);
    if (!broker_is_running())
        return compare(disk->file, disk->base, format, watch, err);
    struct broker_call call = {.args = {disk->file, disk->base, format}, .n_args = 3};
    set_watch(&call, watch);
    return ask_broker(BROKER_COMPARE, &call, err);
}

int qemu_img_delete_snapshot(const char *path, const char *name, struct error *err)
{
    if (!broker_is_running())
        return delete_snapshot(path, name, err);
    struct broker_call call = {.args = {path, name}, .n_args = 2};
    return ask_broker(BROKER_DELETE_SNAPSHOT, &call, err);
}
