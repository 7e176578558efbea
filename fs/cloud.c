/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/cloud.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "fs/log.h"
#include "qcow/base/cleanup.h"

static bool is_set(const char *variable)
{
    /* lint: clang-tidy/concurrency-mt-unsafe: there is one thread yet */
    const char *value = getenv(variable);
    return value && *value;
}

int cloud_load(const char *name, struct cloud *ret_cloud, struct error *err)
{
    struct error why = {0};
    struct cloud cloud = {0};
    bool is_named = name || is_set("OS_CLOUD") || is_set("OS_AUTH_URL");
    int r = glance_config_load(name, environ, &cloud.config, &why);
    glance_config_wipe_env(environ);
    if (r < 0 && is_named) {
        if (err)
            *err = why;
        return r;
    }
    if (r < 0 && r != -ENOENT) {
        log_warn("%s: uploads are refused", why.text);
        cloud.refusal = why;
    }
    if (r == 0)
        prctl(PR_SET_DUMPABLE, 0);
    *ret_cloud = cloud;
    return 0;
}

int cloud_start(struct cloud *cloud, unsigned stall_s, struct error *err)
{
    if (!cloud->config)
        return 0;
    return glance_create(take_ptr(cloud->config), stall_s, &cloud->glance, err);
}

void cloud_end(struct cloud *cloud)
{
    glance_destroy(cloud->glance);
    glance_config_free(cloud->config);
    *cloud = (struct cloud){0};
}
