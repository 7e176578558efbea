/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/glance/settings.h"

#include <errno.h>
#include <string.h>

#include "fs/glance/secret.h"

/* https://docs.openstack.org/openstacksdk/latest/user/config/configuration.html */
static const char *const names[SETTING_COUNT] = {
    [SETTING_AUTH_TYPE] = "auth_type",
    [SETTING_AUTH_URL] = "auth_url",
    [SETTING_USERNAME] = "username",
    [SETTING_USER_ID] = "user_id",
    [SETTING_USER_DOMAIN_NAME] = "user_domain_name",
    [SETTING_USER_DOMAIN_ID] = "user_domain_id",
    [SETTING_PASSWORD] = "password",
    [SETTING_PROJECT_NAME] = "project_name",
    [SETTING_PROJECT_ID] = "project_id",
    [SETTING_PROJECT_DOMAIN_NAME] = "project_domain_name",
    [SETTING_PROJECT_DOMAIN_ID] = "project_domain_id",
    [SETTING_DEFAULT_DOMAIN_NAME] = "default_domain_name",
    [SETTING_DEFAULT_DOMAIN_ID] = "default_domain_id",
    [SETTING_APPLICATION_CREDENTIAL_ID] = "application_credential_id",
    [SETTING_APPLICATION_CREDENTIAL_NAME] = "application_credential_name",
    [SETTING_APPLICATION_CREDENTIAL_SECRET] = "application_credential_secret",
    [SETTING_TOKEN] = "token",
    [SETTING_REGION_NAME] = "region_name",
    [SETTING_INTERFACE] = "interface",
    [SETTING_ENDPOINT] = "endpoint",
    [SETTING_IMAGE_ENDPOINT_OVERRIDE] = "image_endpoint_override",
    [SETTING_CACERT] = "cacert",
    [SETTING_CERT] = "cert",
    [SETTING_KEY] = "key",
    [SETTING_VERIFY] = "verify",
    [SETTING_INSECURE] = "insecure",
};

/* Names of older clients, and the domain that the SDK takes for user and project. */
static const struct alias {
    const char *name;
    enum setting setting;
} aliases[] = {
    {"user_name", SETTING_USERNAME},
    {"auth_token", SETTING_TOKEN},
    {"tenant_name", SETTING_PROJECT_NAME},
    {"tenant_id", SETTING_PROJECT_ID},
    {"default_domain", SETTING_DEFAULT_DOMAIN_ID},
    {"domain_name", SETTING_DEFAULT_DOMAIN_NAME},
    {"domain_id", SETTING_DEFAULT_DOMAIN_ID},
    {"endpoint_type", SETTING_INTERFACE},
    {"image_url", SETTING_IMAGE_ENDPOINT_OVERRIDE},
    {"image_endpoint", SETTING_IMAGE_ENDPOINT_OVERRIDE},
};

void settings_fini(struct settings *settings)
{
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        secret_free(settings->values[i]);
        settings->values[i] = NULL;
    }
}

const char *setting_name(enum setting setting)
{
    return names[setting];
}

/* SETTING_COUNT if there is none of that name. */
static enum setting find(const char *name, bool *ret_is_alias)
{
    *ret_is_alias = false;
    for (size_t i = 0; i < SETTING_COUNT; i++)
        if (strcmp(names[i], name) == 0)
            return (enum setting)i;
    *ret_is_alias = true;
    for (size_t i = 0; i < sizeof(aliases) / sizeof(*aliases); i++)
        if (strcmp(aliases[i].name, name) == 0)
            return aliases[i].setting;
    return SETTING_COUNT;
}

bool setting_is_secret(const char *name)
{
    bool is_alias;
    enum setting setting = find(name, &is_alias);
    return setting == SETTING_PASSWORD || setting == SETTING_TOKEN ||
           setting == SETTING_APPLICATION_CREDENTIAL_SECRET;
}

int settings_put(struct settings *settings, const char *name, const char *value, size_t len)
{
    bool is_alias;
    enum setting setting = find(name, &is_alias);
    if (setting == SETTING_COUNT || (is_alias && settings->values[setting]))
        return 0;
    char *copy = len ? secret_copy(value, len) : NULL;
    if (len && !copy)
        return -ENOMEM;
    secret_free(settings->values[setting]);
    settings->values[setting] = copy;
    return 0;
}
