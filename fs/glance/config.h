/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which cloud, and as whom: the OS_* environment or one cloud of clouds.yaml and secure.yaml, as
 * the OpenStack clients take them. Read once, at mount, on the main thread; read-only afterwards.
 * Holds secrets: what a server says gets into a message by way of answer_message() only.
 */
#pragma once

#include <stdbool.h>

#include "qcow/base/error.h"

enum glance_auth_type {
    GLANCE_AUTH_PASSWORD,
    GLANCE_AUTH_APPLICATION_CREDENTIAL,
    GLANCE_AUTH_TOKEN,
    GLANCE_AUTH_NONE, /* an image service without Keystone: endpoint is set */
};

/* Strings are NULL where nothing was said. */
struct glance_config {
    enum glance_auth_type auth_type;
    char *cloud;    /* name in clouds.yaml, or NULL: the environment */
    char *auth_url; /* of Keystone, as given */
    char *username, *user_id, *user_domain_name, *user_domain_id;
    char *project_name, *project_id, *project_domain_name, *project_domain_id;
    char *application_credential_id, *application_credential_name;
    char *region_name;
    char *interface;         /* "public", "internal" or "admin" */
    char *endpoint_override; /* of the image service */
    char *ca_file, *cert_file, *key_file;
    bool is_insecure; /* certificates are not checked */
    /* Secrets; wiped when they are freed. */
    char *password, *application_credential_secret, *token;
};

/*
 * Takes the configuration from @env (as environ has it) and the files that it or the search order
 * names: OS_CLIENT_CONFIG_FILE, ~/.config/openstack, /etc/xdg/openstack, /etc/openstack; never the
 * working directory.
 *
 * @cloud  the option cloud=, or NULL: OS_CLOUD, then the OS_* variables, then the only cloud in
 *         the file
 *
 * 0; -ENOENT: nothing says where to upload to (@ret_config is NULL); -EINVAL: incomplete or
 * malformed, with the name of what is missing and the file; -EACCES and others: the file cannot be
 * read; -ENOMEM. glance_config_free() releases @ret_config.
 */
int glance_config_load(const char *cloud, char *const *env, struct glance_config **ret_config,
                       struct error *err);
void glance_config_free(struct glance_config *config); /* NULL is fine */

/*
 * Overwrites the values of the secret OS_* variables in @env, where every program of the same user,
 * and a core file, would find them.
 */
void glance_config_wipe_env(char **env);
