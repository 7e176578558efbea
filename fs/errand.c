/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/errand.h"

#include <errno.h>
#include <string.h>

#include "fs/alive.h"
#include "fs/fuse/mountpoint.h"
#include "fs/log.h"
#include "fs/report/report.h"
#include "qcow/base/cleanup.h"

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
    size_t n_servers;
    if (alive_wait(options->state_dir, path, &n_servers, &err) < 0) {
        log_error("%s", err.text);
        return -1;
    }
    dev_t dev;
    if (n_servers > 0 || !mountpoint_find_device(path, &dev) || mountpoint_is_dead(path))
        return 0;
    log_error("'%s' is served by a program with another state=; name that one", path);
    return -1;
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
