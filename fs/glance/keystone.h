/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The dialogue with Keystone (API v3): one login, as a token and the catalog's image service. No
 * state; any thread.
 * https://docs.openstack.org/api-ref/identity/v3/#authentication-and-token-management
 */
#pragma once

#include <jansson.h>
#include <stdint.h>

#include "fs/glance/http.h"

struct login {
    char *token;    /* a secret */
    char *endpoint; /* of the image service, ready for "/v2/..." */
    char *project_id, *user_id;
    int64_t lifetime_s; /* from now on, by the server's clock */
};

/* 0 or as glance_login(); login_fini() releases @ret_login. */
int keystone_login(struct http *http, const struct glance_config *config,
                   const struct glance_cancel *cancel, struct login *ret_login, struct error *err);
void login_fini(struct login *login);

/* What is in the request's body; a secret. NULL without memory, or if a name is no UTF-8. */
char *keystone_request(const struct glance_config *config);

/*
 * The image service of a catalog, by interface and region.
 *
 * 0; -EINVAL there is none, and the text tells which regions and interfaces have one; -ENOMEM
 */
int keystone_find_endpoint(const json_t *catalog, const struct glance_config *config,
                           char **ret_endpoint, struct error *err);
