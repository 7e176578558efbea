/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/confine.h"

#include "fs/daemon.h"
#include "fs/fuse/mountpoint.h"
#include "fs/host/libvirt.h"
#include "fs/host/qemu_img.h"
#include "fs/sandbox/broker.h"
#include "qcow/base/cleanup.h"

struct attach_config confine_describe_mount(const struct options *options)
{
    return (struct attach_config){
        .mountpoint = options->mountpoint,
        .source = options->source,
        .allow_other = options->allow_other,
        .is_ro = options->is_ro,
        .is_debug = options->is_debug,
    };
}

static void forget_cloud(void *cloud)
{
    cloud_end(cloud);
}

/* The broker's memory is a copy: what it is told here does not change any more. */
static int start_broker(const struct options *options, struct cloud *cloud,
                        const struct attach_config *mount, struct error *err)
{
    auto_free char *real = options->mountpoint ? mountpoint_resolve(options->mountpoint) : NULL;
    const struct qemu_img_fence fence = {
        .state_dir = options->state_dir, .mountpoint = real, .is_own_mount = mountpoint_covers};
    struct broker_config config = {
        .forget = forget_cloud, .forget_ctx = cloud, .leave_terminal = daemon_leave_terminal};
    if (mount->mountpoint) {
        config.workers[BROKER_MOUNT] = (struct broker_worker){attach_work_mount, mount};
        config.workers[BROKER_UNMOUNT] = (struct broker_worker){attach_work_unmount, mount};
    }
    if (!options->dir) {
        config.workers[BROKER_COMMIT] = (struct broker_worker){qemu_img_work_commit, &fence};
        config.workers[BROKER_COMPARE] = (struct broker_worker){qemu_img_work_compare, &fence};
        config.workers[BROKER_DELETE_SNAPSHOT] =
            (struct broker_worker){qemu_img_work_delete_snapshot, &fence};
        config.workers[BROKER_WAKE] = (struct broker_worker){libvirt_work_wake, options->source};
    }
    return broker_start(&config, err);
}

int confine_enter(const struct options *options, struct cloud *cloud,
                  struct sandbox_report *ret_report, struct error *err)
{
    *ret_report = (struct sandbox_report){0};
    if (!options->is_sandboxed)
        return 0;
    const struct attach_config mount = confine_describe_mount(options);
    int r = start_broker(options, cloud, &mount, err);
    if (r < 0)
        return r;
    const struct sandbox_config config = {
        .state_dir = options->state_dir,
        .is_libvirt = !options->dir,
        .has_cloud = cloud->config != NULL,
    };
    return sandbox_enter(&config, ret_report, err);
}
