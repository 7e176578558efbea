/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/fuse/attach.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/fuse/mountpoint.h"
#include "fs/fuse/ops.h"
#include "fs/log.h"
#include "qcow/base/cleanup.h"

enum { LOG_LINE_MAX = 1024 };

/* libfuse's own messages are lines of our log. */
static void log_fuse(enum fuse_log_level level, const char *fmt, va_list ap)
    __attribute__((format(printf, 2, 0)));
static void log_fuse(enum fuse_log_level level, const char *fmt, va_list ap)
{
    char text[LOG_LINE_MAX];
    vsnprintf(text, sizeof(text), fmt, ap);
    text[strcspn(text, "\n")] = '\0';
    if (level <= FUSE_LOG_ERR)
        log_error("%s", text);
    else if (level <= FUSE_LOG_WARNING)
        log_warn("%s", text);
    else
        log_debug("%s", text);
}

/* A value in an -o list of libfuse; caller frees; NULL: no memory. */
static char *escape_value(const char *value)
{
    char *out = malloc(2 * strlen(value) + 1);
    if (!out)
        return NULL;
    char *to = out;
    for (; *value; value++) {
        if (*value == ',' || *value == '\\')
            *to++ = '\\';
        *to++ = *value;
    }
    *to = '\0';
    return out;
}

char *attach_make_options(const struct attach_config *config)
{
    auto_free char *source = escape_value(config->source);
    char *options;
    if (!source ||
        asprintf(
            &options, "default_permissions,nosuid,nodev,max_read=%d,subtype=%s,fsname=%s%s%s%s",
            OPS_READ_MAX, MOUNTPOINT_SUBTYPE, source, config->allow_other ? ",allow_other" : "",
            config->is_ro ? ",ro" : "", config->is_debug ? ",debug" : "") < 0)
        return NULL;
    return options;
}

/*
 * libfuse forgets a mountpoint by unmounting it, unless the connection's descriptor tells that it
 * is gone (POLLERR), which the end of a pipe that nobody reads always does: poll(2).
 */
static void forget_mountpoint(struct fuse_session *session)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0)
        return;
    close(fds[0]);
    if (dup3(fds[1], fuse_session_fd(session), O_CLOEXEC) >= 0)
        fuse_session_unmount(session);
    close(fds[1]);
}

/* By a session that serves nothing: libfuse mounts for sessions only. */
static int connect_kernel(const struct attach_config *config, const char *real, int *ret_fd,
                          struct error *err)
{
    struct attach_config quiet = *config;
    quiet.is_debug = false; /* the session that serves logs */
    auto_free char *options = attach_make_options(&quiet);
    if (!options)
        return error_set(err, -ENOMEM, "out of memory");
    fuse_set_log_func(log_fuse);
    char *argv[] = {"virtsnapfs", "-o", options, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(3, argv);
    struct fuse_lowlevel_ops none = {0};
    struct fuse_session *session = fuse_session_new(&args, &none, sizeof(none), NULL);
    fuse_opt_free_args(&args);
    if (!session)
        return error_set(err, -EINVAL, "libfuse refused to make a session");
    int r = 0;
    if (fuse_session_mount(session, real) != 0)
        r = error_set(err, -EIO, "cannot mount on '%s'", config->mountpoint);
    else
        *ret_fd = fcntl(fuse_session_fd(session), F_DUPFD_CLOEXEC, 0);
    if (r == 0 && *ret_fd < 0) {
        r = error_set(err, -errno, "cannot mount on '%s': %s", config->mountpoint,
                      strerrordesc_np(errno));
        fuse_session_unmount(session);
    }
    if (r == 0)
        forget_mountpoint(session);
    fuse_session_destroy(session);
    return r;
}

static int mount_here(const struct attach_config *config, char **ret_real, int *ret_fd,
                      struct error *err)
{
    auto_free char *real = NULL;
    int r = mountpoint_prepare(config->mountpoint, &real, err);
    if (r == 0)
        r = connect_kernel(config, real, ret_fd, err);
    if (r < 0)
        return r;
    mountpoint_raise_readahead(real, OPS_READAHEAD / 1024);
    *ret_real = take_ptr(real);
    return 0;
}

/* What the broker keeps. */
struct attached {
    dev_t dev; /* 0 if it could not be found out */
    char real[PATH_MAX];
};
static_assert(sizeof(struct attached) <= BROKER_KEPT_MAX, "more than the broker keeps");

int attach_work_mount(struct broker_call *call, struct error *err)
{
    int r = mount_here(call->ctx, &call->ret_text, &call->ret_fd, err);
    if (r < 0)
        return r;
    struct attached *attached = call->kept;
    snprintf(attached->real, sizeof(attached->real), "%s", call->ret_text);
    if (!mountpoint_find_device(call->ret_text, &attached->dev))
        attached->dev = 0;
    return 0;
}

int attach_mount(const struct attach_config *config, char **ret_real, int *ret_fd,
                 struct error *err)
{
    fuse_set_log_func(log_fuse);
    if (!broker_is_running())
        return mount_here(config, ret_real, ret_fd, err);
    struct broker_call call = {.ret_fd = -1};
    int r = broker_do(BROKER_MOUNT, &call, err);
    if (r < 0)
        return r;
    if (call.ret_fd < 0) {
        free(call.ret_text);
        return error_set(err, -EIO, "the broker process mounted nothing");
    }
    *ret_real = call.ret_text;
    *ret_fd = call.ret_fd;
    return 0;
}

static void unmount_here(const char *real, dev_t dev)
{
    dev_t found;
    if (dev != 0 && !mountpoint_is_attached(dev))
        mountpoint_abort(dev);
    else if (mountpoint_find_device(real, &found) && (dev == 0 || found == dev))
        mountpoint_detach(real);
}

int attach_work_unmount(struct broker_call *call, struct error *err)
{
    const struct attached *attached = call->kept;
    if (call->n_args != 0 || !attached->real[0])
        return error_set(err, -EINVAL, "the broker process has mounted nothing of that kind");
    unmount_here(attached->real, attached->dev);
    return 0;
}

void attach_unmount(const char *real_path, dev_t dev)
{
    if (!broker_is_running()) {
        unmount_here(real_path, dev);
        return;
    }
    struct broker_call call = {0};
    struct error err = {0};
    if (broker_do(BROKER_UNMOUNT, &call, &err) < 0)
        log_error("cannot unmount '%s': %s", real_path, err.text);
    else
        free(call.ret_text);
}
