/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * clouds.yaml and secure.yaml: one cloud of theirs as settings. Main thread.
 * https://docs.openstack.org/openstacksdk/latest/user/config/configuration.html
 */
#pragma once

#include "fs/glance/settings.h"
#include "qcow/base/error.h"

struct clouds;

/*
 * Reads the file @explicit_path if that is given, and else the first clouds.yaml, .yml or .json in
 * the order of folders that glance_config_load() tells, if there is any. The same for secure.yaml.
 *
 * @explicit_path, @explicit_secure  of OS_CLIENT_CONFIG_FILE and OS_CLIENT_SECURE_FILE, or NULL
 * @home, @xdg_config                HOME and XDG_CONFIG_HOME, or NULL
 *
 * 0; -EINVAL malformed; -EACCES and others: cannot be read; -ENOMEM. clouds_free() releases
 * @ret_clouds, in which there may be no file at all.
 */
struct clouds_places {
    const char *explicit_path, *explicit_secure, *home, *xdg_config;
};
int clouds_read(const struct clouds_places *places, struct clouds **ret_clouds, struct error *err);
void clouds_free(struct clouds *clouds); /* overwrites what it held; NULL is fine */

/* Path of the clouds.yaml that was read, or NULL; borrowed. */
const char *clouds_path(const struct clouds *clouds);
/* The folders that were searched, for a message; borrowed. */
const char *clouds_searched(const struct clouds *clouds);

/* How many clouds there are, and the name of the first one (borrowed, or NULL). */
size_t clouds_count(const struct clouds *clouds, const char **ret_first);

/*
 * What the files say about the cloud @name, secure.yaml over clouds.yaml.
 *
 * @region  the region wanted, or NULL: the first one of the cloud's `regions`
 *
 * 0; -EINVAL no such cloud or region, or one that needs what is not handled; -ENOMEM
 */
int clouds_get(struct clouds *clouds, const char *name, const char *region,
               struct settings *settings, struct error *err);
