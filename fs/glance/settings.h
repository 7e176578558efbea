/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the environment or a clouds.yaml says about one cloud, by name and still as text. The names
 * are those of the OpenStack clients: OS_PROJECT_NAME and project_name are one setting. Main
 * thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum setting {
    SETTING_AUTH_TYPE,
    SETTING_AUTH_URL,
    SETTING_USERNAME,
    SETTING_USER_ID,
    SETTING_USER_DOMAIN_NAME,
    SETTING_USER_DOMAIN_ID,
    SETTING_PASSWORD,
    SETTING_PROJECT_NAME,
    SETTING_PROJECT_ID,
    SETTING_PROJECT_DOMAIN_NAME,
    SETTING_PROJECT_DOMAIN_ID,
    SETTING_DEFAULT_DOMAIN_NAME,
    SETTING_DEFAULT_DOMAIN_ID,
    SETTING_APPLICATION_CREDENTIAL_ID,
    SETTING_APPLICATION_CREDENTIAL_NAME,
    SETTING_APPLICATION_CREDENTIAL_SECRET,
    SETTING_TOKEN,
    SETTING_REGION_NAME,
    SETTING_INTERFACE,
    SETTING_ENDPOINT,
    SETTING_IMAGE_ENDPOINT_OVERRIDE,
    SETTING_CACERT,
    SETTING_CERT,
    SETTING_KEY,
    SETTING_VERIFY,
    SETTING_INSECURE,
    SETTING_COUNT,
};

struct settings {
    char *values[SETTING_COUNT]; /* NULL: not said. Each is freed as a secret. */
};

void settings_fini(struct settings *settings);

/*
 * Takes a copy of @value for the setting called @name, in place of what was said before; an empty
 * value unsays it. Names that are no setting are passed over. An old name for a setting
 * (tenant_name) counts for less than the present one.
 *
 * 0 or -ENOMEM
 */
int settings_put(struct settings *settings, const char *name, const char *value, size_t len);

/* The present name of a setting, as in a clouds.yaml. */
const char *setting_name(enum setting setting);

/* True for the names of passwords, secrets and tokens, old ones too. */
bool setting_is_secret(const char *name);
