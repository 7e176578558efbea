/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who we are at a cloud: token and address of the image service, got when first needed and renewed
 * in time. Any thread; while one of them logs in, the others wait for what comes of it.
 */
#pragma once

#include <stdint.h>

#include "fs/glance/http.h"

struct auth;

/* Borrows @config. */
int auth_create(const struct glance_config *config, struct auth **ret_auth, struct error *err);
void auth_destroy(struct auth *auth); /* NULL is fine */

/* A copy of what was known at one moment; access_fini() releases it. */
struct access {
    char *token;                /* a secret; NULL: none is needed */
    char *endpoint;             /* of the image service, ready for "/v2/..." to be put behind */
    char *project_id, *user_id; /* NULL without Keystone */
    uint64_t login;             /* which login it comes from */
};
void access_fini(struct access *access);

/*
 * A token that is good for a minute at least, if Keystone gives such; logs in unless there is one.
 *
 * 0 or as glance_login()
 */
int auth_get(struct auth *auth, struct http *http, const struct glance_cancel *cancel,
             struct access *ret_access, struct error *err);

/* The token of that login was refused: the next auth_get() logs in again. */
void auth_refused(struct auth *auth, uint64_t login);
