/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The URLs of OpenStack services: what is accepted, and how the path of an API is put behind one.
 * Pure; any thread.
 */
#pragma once

#include <stdbool.h>

#include "qcow/base/error.h"

/*
 * 0, or -EINVAL unless @url is http or https with a host, and without a user, a password (which
 * would get into logs), a query or a fragment.
 *
 * @what  its name for the message, as in "auth_url"
 */
int url_check(const char *url, const char *what, struct error *err);

/* The base of the image API: no '/' at the end, no /v1, /v2 or /v2.N. Returns owned, or NULL. */
char *url_image_base(const char *url);

/* The address of Keystone without '/' at the end and without /v2.0. Returns owned, or NULL. */
char *url_identity_base(const char *url);

/* Whether the last part of the path is /v3. */
bool url_is_v3(const char *base);

/*
 * Scheme, host and port of @base with the path of @href (an URL, or a path), as the service at
 * @base advertises: a token or password never goes to another host than the one that was
 * configured. Without '/' at the end. Returns owned, or NULL without memory or for what is no URL.
 */
char *url_with_path_of(const char *base, const char *href);
