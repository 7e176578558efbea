/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/fuse/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/fuse/attach.h"
#include "fs/fuse/buffer.h"
#include "fs/fuse/mountpoint.h"
#include "fs/fuse/ops.h"
#include "fs/fuse/upload_source.h"
#include "fs/log.h"
#include "qcow/base/cleanup.h"
#include "qcow/qcow.h"

enum {
    /*
     * Threads are made as requests come. The bound leaves room for others when a disk hangs with
     * all reads that the kernel sends for it.
     */
    THREADS_MAX = 128,
    /* Each keeps a buffer of a megabyte while idle. */
    THREADS_IDLE_MAX = 8,
    /* How long to wait for the loop before it is woken once more. */
    WAKE_INTERVAL_NS = 20 * 1000 * 1000,
};
/* Between two lines about being short of memory. */
#define QUIET_NS ((int64_t)10 * 1000000000)

struct mount {
    /* Immutable: */
    struct fuse_session *session;
    struct ops_context context;
    char *path; /* real path that it is mounted on; NULL until it is */
    dev_t dev;  /* 0 if it could not be found out */
    bool is_single_thread;
    pthread_t loop_thread;

    struct mutex lock;
    struct cond changed;
    /* Guarded by lock: */
    bool is_stopping GUARDED_BY(lock);
    bool is_serving GUARDED_BY(lock);
};

static int create_session(struct mount *mount, const struct mount_config *config, struct error *err)
{
    auto_free char *options = attach_make_options(&config->attach);
    if (!options)
        return error_set(err, -ENOMEM, "out of memory");
    char *argv[] = {"virtsnapfs", "-o", options, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(3, argv);
    mount->session = fuse_session_new(&args, &ops_table, sizeof(ops_table), &mount->context);
    fuse_opt_free_args(&args);
    if (!mount->session)
        return error_set(err, -EINVAL, "libfuse refused to make a session");
    return 0;
}

/* libfuse takes a connection that somebody else has made for a mountpoint of that name. */
static int adopt_connection(struct mount *mount, int fd, struct error *err)
{
    char name[32];
    snprintf(name, sizeof(name), "/dev/fd/%d", fd);
    if (fuse_session_mount(mount->session, name) == 0)
        return 0;
    close(fd);
    return error_set(err, -EIO, "libfuse refused the mount on '%s'", mount->path);
}

static int attach(struct mount *mount, const struct mount_config *config, struct error *err)
{
    int fd;
    int r = attach_mount(&config->attach, &mount->path, &fd, err);
    if (r < 0)
        return r;
    if (!mountpoint_find_device(mount->path, &mount->dev))
        mount->dev = 0;
    return adopt_connection(mount, fd, err);
}

static int create_uploads(struct mount *mount, const struct mount_config *config)
{
    struct uploads_config uploads = {
        .glance = config->glance,
        .refusal = config->no_glance,
        .max_running = config->max_uploads,
        .source = upload_source_make(mount->context.tree),
    };
    return uploads_create(&uploads, &mount->context.uploads);
}

static int create_context(struct mount *mount, const struct mount_config *config, struct error *err)
{
    struct ops_context *context = &mount->context;
    int r = tree_create(&config->tree, &context->tree);
    if (r == 0)
        r = file_table_create(context->tree, &context->handles, &context->files);
    if (r == 0)
        r = create_uploads(mount, config);
    return r < 0 ? error_set(err, r, "out of memory") : 0;
}

int mount_open(const struct mount_config *config, struct mount **ret_mount, struct error *err)
{
    struct mount *mount = calloc(1, sizeof(*mount));
    if (!mount)
        return error_set(err, -ENOMEM, "out of memory");
    mutex_init(&mount->lock);
    cond_init(&mount->changed);
    handle_table_init(&mount->context.handles);
    mount->is_single_thread = config->is_single_thread;
    mount->loop_thread = pthread_self();
    int r = create_context(mount, config, err);
    if (r == 0)
        r = create_session(mount, config, err);
    if (r == 0)
        r = attach(mount, config, err);
    if (r < 0) {
        mount_close(mount);
        return r;
    }
    *ret_mount = mount;
    return 0;
}

/* A handler that does nothing makes the loop's system call return, which SIG_IGN would not. */
static void on_wake(int signal)
{
    (void)signal;
}

static void catch_wake_signal(void)
{
    struct sigaction action = {.sa_handler = on_wake};
    sigemptyset(&action.sa_mask);
    sigaction(SIGUSR1, &action, NULL);
}

static int run_loop(struct mount *mount)
{
    if (mount->is_single_thread)
        return fuse_session_loop(mount->session);
    struct fuse_loop_config *config = fuse_loop_cfg_create();
    if (!config)
        return -ENOMEM;
    fuse_loop_cfg_set_clone_fd(config, 1);
    fuse_loop_cfg_set_max_threads(config, THREADS_MAX);
    fuse_loop_cfg_set_idle_threads(config, THREADS_IDLE_MAX);
    int r = fuse_session_loop_mt(mount->session, config);
    fuse_loop_cfg_destroy(config);
    return r;
}

/* -1 is libfuse's own, for a first thread that could not be started. */
static bool is_shortage(int r)
{
    return r == -ENOMEM || r == -1;
}

/*
 * libfuse ends its loop when one of its threads gets no memory for a buffer. What programs ask
 * waits in the kernel meanwhile, so there is no reason to take the mount away from them.
 */
static int serve_locked(struct mount *mount) REQUIRES(&mount->lock)
{
    int r = 0;
    int64_t quiet_until_ns = 0;
    while (!mount->is_stopping) {
        mutex_unlock(&mount->lock);
        r = run_loop(mount);
        mutex_lock(&mount->lock);
        if (mount->is_stopping || !is_shortage(r))
            break;
        if (monotonic_ns() >= quiet_until_ns)
            log_error("no memory or threads to serve '%s' with: tried again at once", mount->path);
        quiet_until_ns = monotonic_ns() + QUIET_NS;
        cond_wait_until(&mount->changed, &mount->lock, monotonic_ns() + WAKE_INTERVAL_NS);
    }
    return mount->is_stopping && is_shortage(r) ? 0 : r;
}

int mount_serve(struct mount *mount, struct error *err)
{
    catch_wake_signal();
    mutex_lock(&mount->lock);
    mount->is_serving = !mount->is_stopping;
    int r = serve_locked(mount);
    mount->is_serving = false;
    cond_wake_all(&mount->changed);
    mutex_unlock(&mount->lock);
    buffer_release();
    qcow_thread_release();
    if (r < 0)
        return error_set(err, r, "serving '%s' failed: %s", mount->path, strerrordesc_np(-r));
    return 0;
}

/*
 * The loop's main thread sleeps in a system call and looks at the flag only before: a signal that
 * comes in between is lost, so it is sent until the loop has ended.
 */
static void stop_locked(struct mount *mount) REQUIRES(&mount->lock)
{
    mount->is_stopping = true;
    fuse_session_exit(mount->session);
    while (mount->is_serving) {
        pthread_kill(mount->loop_thread, SIGUSR1);
        cond_wait_until(&mount->changed, &mount->lock, monotonic_ns() + WAKE_INTERVAL_NS);
    }
}

const char *mount_path(const struct mount *mount)
{
    return mount->path;
}

bool mount_is_detached(const struct mount *mount)
{
    return mount->dev != 0 && !mountpoint_is_attached(mount->dev);
}

void mount_cancel_uploads(struct mount *mount)
{
    struct uploads *uploads = mount->context.uploads;
    size_t n = uploads_count(uploads);
    if (n > 0)
        log_warn("%zu uploads have not ended: they are cancelled, and their images deleted", n);
    uploads_cancel(uploads);
}

void mount_end_uploads(struct mount *mount)
{
    uploads_shutdown(mount->context.uploads);
}

void mount_stop(struct mount *mount)
{
    mutex_lock(&mount->lock);
    stop_locked(mount);
    mutex_unlock(&mount->lock);
}

/*
 * False once the mount is gone everywhere. Its device number may be that of a newer one by then.
 */
static bool is_connected(const struct mount *mount)
{
    struct pollfd fd = {.fd = fuse_session_fd(mount->session)};
    return fd.fd >= 0 && (poll(&fd, 1, 0) <= 0 || !(fd.revents & POLLERR));
}

/*
 * Closes the connection, so that nothing waits for an answer from here. Its number in libfuse is
 * that of a pipe's end from then on.
 */
static void close_connection(struct mount *mount)
{
    int fds[2];
    if (fuse_session_fd(mount->session) < 0 || pipe2(fds, O_CLOEXEC) < 0)
        return;
    close(fds[0]);
    dup3(fds[1], fuse_session_fd(mount->session), O_CLOEXEC);
    close(fds[1]);
}

void mount_close(struct mount *mount)
{
    if (!mount)
        return;
    file_table_destroy(mount->context.files);
    if (mount->path && is_connected(mount)) {
        close_connection(mount);
        attach_unmount(mount->path, mount->dev);
    }
    handle_table_fini(&mount->context.handles);
    if (mount->session)
        fuse_session_destroy(mount->session);
    uploads_destroy(mount->context.uploads);
    tree_destroy(mount->context.tree);
    cond_fini(&mount->changed);
    mutex_fini(&mount->lock);
    free(mount->path);
    free(mount);
}
