/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/errand.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "fs/alive.h"
#include "fs/fuse/mountpoint.h"
#include "fs/log.h"
#include "fs/report/report.h"
#include "fs/session/journal.h"
#include "qcow/base/cleanup.h"

int errand_check_free(const struct options *options, struct error *err)
{
    auto_free char *path = mountpoint_resolve(options->mountpoint);
    if (!path || !mountpoint_is_served(path))
        return 0;
    pid_t pid = alive_find(options->state_dir, path);
    if (pid)
        return error_set(err, -EBUSY,
                         "'%s' is already served by virtsnapfs (process %d); umount it first", path,
                         (int)pid);
    return error_set(err, -EBUSY, "'%s' is already served by virtsnapfs; umount it first", path);
}

/* What servers of one mountpoint have left, of those that have ended. */
struct rest {
    const struct options *options;
    bool is_some; /* and it was said */
};

/* Another server that lives may have taken over what this one left: then nothing is counted. */
static void look_for_rest(void *ctx, const struct alive_ended *server)
{
    struct rest *rest = ctx;
    struct error err = {0};
    struct journal *journal = NULL;
    size_t n = 0;
    int r = journal_open(rest->options->state_dir, server->source, &journal, &err);
    if (r == 0)
        r = journal_count_left(journal, &n, &err);
    journal_close(journal);
    rest->is_some = rest->is_some || r < 0 || n > 0;
    if (r < 0)
        log_error("%s", err.text);
    else if (n > 0)
        log_error(
            "process %d, which served '%s', is gone, and domains are not put back: %zu; mount "
            "again, or virtsnapfs --recover %s",
            (int)server->pid, rest->options->mountpoint, n, server->source);
}

/* No server of @path has left a trace in state=. */
static int judge_unknown(const char *path)
{
    dev_t dev;
    if (mountpoint_find_device(path, &dev)) {
        if (mountpoint_is_dead(path))
            log_error("the server of '%s' has died, and had another state=; name that one", path);
        else
            log_error("'%s' is served by a program with another state=; name that one", path);
        return -1;
    }
    if (access(path, F_OK) < 0 && errno == ENOENT)
        log_warn("there is no '%s', and nothing to wait for", path);
    return 0;
}

/*
 * `--wait`. A mount of ours whose server is not to be found with this state= is no reason to say
 * that all is done.
 */
int errand_wait(const struct options *options)
{
    struct error err = {0};
    auto_free char *path = mountpoint_resolve(options->mountpoint);
    if (!path) {
        log_error("no such mountpoint: '%s': %s", options->mountpoint, strerrordesc_np(errno));
        return -1;
    }
    struct rest rest = {.options = options};
    const struct alive_visitor visitor = {.ended = look_for_rest, .ctx = &rest};
    size_t n_servers;
    if (alive_wait(options->state_dir, path, &visitor, &n_servers, &err) < 0) {
        log_error("%s", err.text);
        return -1;
    }
    if (n_servers == 0)
        return judge_unknown(path);
    return rest.is_some ? -1 : 0;
}

/* `--status`. */
int errand_status(const struct options *options)
{
    struct error err = {0};
    auto_free char *path = mountpoint_resolve(options->mountpoint);
    auto_free char *source = NULL;
    struct report_config config = {
        .mountpoint = path, .is_json = options->is_json, .is_watch = options->is_watch};
    if (!path) {
        log_error("no such mountpoint: '%s': %s", options->mountpoint, strerrordesc_np(errno));
        return -1;
    }
    if (!mountpoint_find(path, &config.device, &source)) {
        if (access(path, F_OK) < 0)
            log_error("no such mountpoint: '%s': %s", path, strerrordesc_np(errno));
        else
            log_error("'%s' is not a mount of virtsnapfs", path);
        return -1;
    }
    config.source = source;
    if (mountpoint_is_dead(path)) {
        log_error("the server of '%s' has died; mount again, or umount it", path);
        return -1;
    }
    if (report_run(&config, stdout, &err) == 0)
        return 0;
    log_error("%s", err.text);
    return -1;
}
