/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The lean program's way to the full one.
 */
#include "fs/full.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "fs/glance/config.h"

/*
 * An absolute path that was fixed when this was built: with one from the environment, or from where
 * this file lies, whoever can set the one or link to the other would choose what root runs. Before
 * it is installed, the full program is in the build folder: taken from there only by the very file
 * of that folder, and never with more rights than the caller's, which a hard link would bring
 * there.
 */
static const char *find_full(void)
{
    char self[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (len < 0 || getauxval(AT_SECURE))
        return FULL_INSTALLED;
    self[len] = '\0';
    return strcmp(self, LEAN_BUILT) == 0 ? FULL_BUILT : FULL_INSTALLED;
}

/* What is wrong with a cloud is told by either program. */
static bool has_cloud(const char *name)
{
    struct glance_config *config;
    int r = glance_config_load(name, environ, &config, NULL);
    if (r == 0)
        glance_config_free(config);
    return r == 0;
}

static bool is_enough(const struct options *options)
{
    switch (options->action) {
    case OPTIONS_HELP:
    case OPTIONS_VERSION:
    case OPTIONS_WAIT:
    case OPTIONS_STATUS:
        return true;
    case OPTIONS_RECOVER:
        return options->dir;
    case OPTIONS_SERVE:
        break;
    }
    return options->dir && !has_cloud(options->cloud);
}

int full_become(const struct options *options, char *const *argv, struct error *err)
{
    if (is_enough(options))
        return 0;
    const char *path = find_full();
    execv(path, argv);
    return error_set(err, -errno, "cannot run '%s', which %s needs: %s", path,
                     options->dir ? "a cloud to upload to" : "libvirt", strerrordesc_np(errno));
}
