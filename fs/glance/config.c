/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/glance/config.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "fs/glance/clouds.h"
#include "fs/glance/secret.h"
#include "fs/glance/settings.h"
#include "fs/glance/url.h"
#include "qcow/base/cleanup.h"

enum { VARIABLE_NAME_MAX = 64 }; /* the longest one that counts has 36 bytes */

static const char from_env[] = "the environment";

void glance_config_free(struct glance_config *config)
{
    if (!config)
        return;
    char *const plain[] = {
        config->cloud,
        config->auth_url,
        config->username,
        config->user_id,
        config->user_domain_name,
        config->user_domain_id,
        config->project_name,
        config->project_id,
        config->project_domain_name,
        config->project_domain_id,
        config->application_credential_id,
        config->application_credential_name,
        config->region_name,
        config->interface,
        config->endpoint_override,
        config->ca_file,
        config->cert_file,
        config->key_file,
    };
    for (size_t i = 0; i < sizeof(plain) / sizeof(*plain); i++)
        free(plain[i]);
    secret_free(config->password);
    secret_free(config->application_credential_secret);
    secret_free(config->token);
    free(config);
}

static const char *env_get(char *const *env, const char *name)
{
    size_t len = strlen(name);
    for (; *env; env++)
        if (strncmp(*env, name, len) == 0 && (*env)[len] == '=' && (*env)[len + 1])
            return *env + len + 1;
    return NULL;
}

/* The name of a setting that an "OS_NAME=value" has: "name"; NULL if it is none of OS_. */
static const char *setting_of(const char *variable, char *ret_name)
{
    const char *end = strchr(variable, '=');
    if (!end || strncmp(variable, "OS_", 3) != 0 || end - variable - 3 >= VARIABLE_NAME_MAX)
        return NULL;
    size_t len = (size_t)(end - variable - 3);
    for (size_t i = 0; i < len; i++)
        ret_name[i] = (char)tolower((unsigned char)variable[3 + i]);
    ret_name[len] = '\0';
    return end + 1;
}

void glance_config_wipe_env(char **env)
{
    char name[VARIABLE_NAME_MAX];
    for (; *env; env++)
        if (setting_of(*env, name) && setting_is_secret(name))
            secret_wipe(strchr(*env, '=') + 1);
}

static int take_env(char *const *env, struct settings *settings, struct error *err)
{
    char name[VARIABLE_NAME_MAX];
    for (; *env; env++) {
        const char *value = setting_of(*env, name);
        if (value && *value && settings_put(settings, name, value, strlen(value)) < 0)
            return error_set(err, -ENOMEM, "out of memory");
    }
    return 0;
}

/* Whether the environment speaks of a cloud at all, and not only of regions and certificates. */
static bool names_a_cloud(const struct settings *settings)
{
    static const enum setting telling[] = {
        SETTING_AUTH_URL, SETTING_USERNAME,
        SETTING_USER_ID,  SETTING_PASSWORD,
        SETTING_TOKEN,    SETTING_APPLICATION_CREDENTIAL_SECRET,
        SETTING_ENDPOINT, SETTING_IMAGE_ENDPOINT_OVERRIDE,
    };
    for (size_t i = 0; i < sizeof(telling) / sizeof(*telling); i++)
        if (settings->values[telling[i]])
            return true;
    return false;
}

static bool is_word_of(const char *text, const char *const *words)
{
    for (; text && *words; words++)
        if (strcasecmp(text, *words) == 0)
            return true;
    return false;
}

static bool is_true(const char *text)
{
    static const char *const words[] = {"true", "yes", "on", "1", "y", NULL};
    return is_word_of(text, words);
}

static bool is_false(const char *text)
{
    static const char *const words[] = {"false", "no", "off", "0", "n", NULL};
    return is_word_of(text, words);
}

static int choose_type(const struct settings *settings, const char *from,
                       enum glance_auth_type *ret_type, struct error *err)
{
    static const struct {
        const char *name;
        enum glance_auth_type type;
    } types[] = {
        {"password", GLANCE_AUTH_PASSWORD},
        {"v3password", GLANCE_AUTH_PASSWORD},
        {"v3applicationcredential", GLANCE_AUTH_APPLICATION_CREDENTIAL},
        {"token", GLANCE_AUTH_TOKEN},
        {"v3token", GLANCE_AUTH_TOKEN},
        {"none", GLANCE_AUTH_NONE},
        {"noauth", GLANCE_AUTH_NONE},
    };
    const char *said = settings->values[SETTING_AUTH_TYPE];
    *ret_type = GLANCE_AUTH_PASSWORD;
    if (settings->values[SETTING_APPLICATION_CREDENTIAL_SECRET])
        *ret_type = GLANCE_AUTH_APPLICATION_CREDENTIAL;
    else if (settings->values[SETTING_TOKEN])
        *ret_type = GLANCE_AUTH_TOKEN;
    if (!said)
        return 0;
    for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
        if (strcmp(types[i].name, said) == 0) {
            *ret_type = types[i].type;
            return 0;
        }
    }
    return error_set(err, -EINVAL,
                     "%s: auth_type '%s' is not handled; password, v3applicationcredential, token "
                     "and none are",
                     from, said);
}

/* "project_name" as the user writes it where it was looked for. */
static void write_name(enum setting setting, bool is_env, char *ret_name)
{
    snprintf(ret_name, VARIABLE_NAME_MAX, "%s%s", is_env ? "OS_" : "", setting_name(setting));
    for (char *at = ret_name; is_env && *at; at++)
        *at = (char)toupper((unsigned char)*at);
}

/* One of the two has to be there; @b may be SETTING_COUNT. */
static int require(const struct settings *settings, enum setting a, enum setting b,
                   const char *from, struct error *err)
{
    if (settings->values[a] || (b != SETTING_COUNT && settings->values[b]))
        return 0;
    bool is_env = strcmp(from, from_env) == 0;
    char name_a[VARIABLE_NAME_MAX], name_b[VARIABLE_NAME_MAX];
    write_name(a, is_env, name_a);
    if (b == SETTING_COUNT)
        return error_set(err, -EINVAL, "%s does not say %s", from, name_a);
    write_name(b, is_env, name_b);
    return error_set(err, -EINVAL, "%s says neither %s nor %s", from, name_a, name_b);
}

static int require_user(const struct settings *s, enum setting secret, const char *from,
                        struct error *err)
{
    int r = require(s, SETTING_USERNAME, SETTING_USER_ID, from, err);
    return r < 0 ? r : require(s, secret, SETTING_COUNT, from, err);
}

static int check_complete(const struct settings *s, enum glance_auth_type type, const char *from,
                          struct error *err)
{
    int r = 0;
    if (type != GLANCE_AUTH_NONE)
        r = require(s, SETTING_AUTH_URL, SETTING_COUNT, from, err);
    if (r < 0)
        return r;
    switch (type) {
    case GLANCE_AUTH_PASSWORD:
        r = require_user(s, SETTING_PASSWORD, from, err);
        return r < 0 ? r : require(s, SETTING_PROJECT_NAME, SETTING_PROJECT_ID, from, err);
    case GLANCE_AUTH_APPLICATION_CREDENTIAL:
        r = require(s, SETTING_APPLICATION_CREDENTIAL_ID, SETTING_APPLICATION_CREDENTIAL_NAME, from,
                    err);
        if (r < 0)
            return r;
        if (s->values[SETTING_APPLICATION_CREDENTIAL_ID])
            return require(s, SETTING_APPLICATION_CREDENTIAL_SECRET, SETTING_COUNT, from, err);
        return require_user(s, SETTING_APPLICATION_CREDENTIAL_SECRET, from, err);
    case GLANCE_AUTH_TOKEN:
        return require(s, SETTING_TOKEN, SETTING_COUNT, from, err);
    case GLANCE_AUTH_NONE:
        return require(s, SETTING_IMAGE_ENDPOINT_OVERRIDE, SETTING_ENDPOINT, from, err);
    }
    return 0;
}

/* "public" of "publicURL". */
static int choose_interface(const struct settings *settings, const char *from,
                            const char **ret_interface, struct error *err)
{
    static const char *const known[] = {"public", "internal", "admin"};
    const char *said = settings->values[SETTING_INTERFACE];
    *ret_interface = known[0];
    if (!said)
        return 0;
    size_t len = strlen(said);
    if (len > 3 && strcmp(said + len - 3, "URL") == 0)
        len -= 3;
    for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
        if (strlen(known[i]) == len && strncmp(known[i], said, len) == 0) {
            *ret_interface = known[i];
            return 0;
        }
    }
    return error_set(err, -EINVAL, "%s: interface '%s' is none of public, internal and admin", from,
                     said);
}

static int copy_text(const char *text, char **ret_copy)
{
    if (text && !(*ret_copy = strdup(text)))
        return -ENOMEM;
    return 0;
}

/*
 * A path, in which "~/" stands for the home folder. Relative ones are put behind the working folder
 * of now: a server in the background has another one.
 */
static int copy_path(const char *path, const char *home, char **ret_copy)
{
    auto_free char *folder = path && *path && !strchr("/~", *path) ? getcwd(NULL, 0) : NULL;
    if (folder)
        return asprintf(ret_copy, "%s/%s", folder, path) < 0 ? -ENOMEM : 0;
    if (!path || strncmp(path, "~/", 2) != 0 || !home)
        return copy_text(path, ret_copy);
    return asprintf(ret_copy, "%s%s", home, path + 1) < 0 ? -ENOMEM : 0;
}

static int copy_secret(const char *text, char **ret_copy)
{
    if (text && !(*ret_copy = secret_copy(text, strlen(text))))
        return -ENOMEM;
    return 0;
}

/* The domain of a name that comes without: the default one, and by the clients' own default. */
static int fill_domain(const struct settings *s, char **domain_name, char **domain_id)
{
    if (*domain_name || *domain_id)
        return 0;
    if (s->values[SETTING_DEFAULT_DOMAIN_ID])
        return copy_text(s->values[SETTING_DEFAULT_DOMAIN_ID], domain_id);
    if (s->values[SETTING_DEFAULT_DOMAIN_NAME])
        return copy_text(s->values[SETTING_DEFAULT_DOMAIN_NAME], domain_name);
    return copy_text("default", domain_id);
}

static int copy_settings(const struct settings *s, const char *home, struct glance_config *config)
{
    const struct {
        enum setting setting;
        char **to;
    } plain[] = {
        {SETTING_AUTH_URL, &config->auth_url},
        {SETTING_USERNAME, &config->username},
        {SETTING_USER_ID, &config->user_id},
        {SETTING_USER_DOMAIN_NAME, &config->user_domain_name},
        {SETTING_USER_DOMAIN_ID, &config->user_domain_id},
        {SETTING_PROJECT_NAME, &config->project_name},
        {SETTING_PROJECT_ID, &config->project_id},
        {SETTING_PROJECT_DOMAIN_NAME, &config->project_domain_name},
        {SETTING_PROJECT_DOMAIN_ID, &config->project_domain_id},
        {SETTING_APPLICATION_CREDENTIAL_ID, &config->application_credential_id},
        {SETTING_APPLICATION_CREDENTIAL_NAME, &config->application_credential_name},
        {SETTING_REGION_NAME, &config->region_name},
        {SETTING_IMAGE_ENDPOINT_OVERRIDE, &config->endpoint_override},
    };
    int r = 0;
    for (size_t i = 0; i < sizeof(plain) / sizeof(*plain) && r == 0; i++)
        r = copy_text(s->values[plain[i].setting], plain[i].to);
    r = r < 0 ? r : copy_path(s->values[SETTING_CACERT], home, &config->ca_file);
    r = r < 0 ? r : copy_path(s->values[SETTING_CERT], home, &config->cert_file);
    r = r < 0 ? r : copy_path(s->values[SETTING_KEY], home, &config->key_file);
    r = r < 0 ? r : copy_secret(s->values[SETTING_PASSWORD], &config->password);
    r = r < 0 ? r : copy_secret(s->values[SETTING_TOKEN], &config->token);
    r = r < 0 ? r
              : copy_secret(s->values[SETTING_APPLICATION_CREDENTIAL_SECRET],
                            &config->application_credential_secret);
    r = r < 0 ? r : fill_domain(s, &config->user_domain_name, &config->user_domain_id);
    r = r < 0 ? r : fill_domain(s, &config->project_domain_name, &config->project_domain_id);
    if (r == 0 && config->auth_type == GLANCE_AUTH_NONE && !config->endpoint_override)
        r = copy_text(s->values[SETTING_ENDPOINT], &config->endpoint_override);
    config->is_insecure =
        is_false(s->values[SETTING_VERIFY]) || is_true(s->values[SETTING_INSECURE]);
    return r;
}

static int check_urls(const struct glance_config *config, const char *from, struct error *err)
{
    int r = 0;
    if (config->auth_type != GLANCE_AUTH_NONE)
        r = url_check(config->auth_url, "auth_url", err);
    if (r == 0 && config->endpoint_override)
        r = url_check(config->endpoint_override, "image_endpoint_override", err);
    if (r < 0)
        error_prefix(err, "%s", from);
    return r;
}

/* @from: where the settings were found, for messages. */
static int make_config(const struct settings *settings, const char *cloud, const char *from,
                       const char *home, struct glance_config **ret_config, struct error *err)
{
    enum glance_auth_type type;
    const char *interface;
    int r = choose_type(settings, from, &type, err);
    if (r == 0)
        r = check_complete(settings, type, from, err);
    if (r == 0)
        r = choose_interface(settings, from, &interface, err);
    if (r != 0)
        return r;
    struct glance_config *config = calloc(1, sizeof(*config));
    if (!config)
        return error_set(err, -ENOMEM, "out of memory");
    config->auth_type = type;
    if (copy_text(cloud, &config->cloud) < 0 || copy_text(interface, &config->interface) < 0 ||
        copy_settings(settings, home, config) < 0)
        r = error_set(err, -ENOMEM, "out of memory");
    else
        r = check_urls(config, from, err);
    if (r < 0) {
        glance_config_free(config);
        return r;
    }
    *ret_config = config;
    return 0;
}

static int refuse_to_guess(const struct clouds *clouds, size_t n, struct error *err)
{
    if (n == 0)
        return error_set(err, -ENOENT, "no OS_* variables, and no clouds.yaml with a cloud in %s",
                         clouds_searched(clouds));
    return error_set(err, -ENOENT, "no OS_* variables, and '%s' has %zu clouds: name one of them",
                     clouds_path(clouds), n);
}

/* A cloud of the files; its name, or NULL for the only one there is. */
static int load_cloud(const char *cloud, char *const *env, struct glance_config **ret_config,
                      struct error *err)
{
    const char *home = env_get(env, "HOME"), *region = env_get(env, "OS_REGION_NAME");
    const struct clouds_places places = {
        .explicit_path = env_get(env, "OS_CLIENT_CONFIG_FILE"),
        .explicit_secure = env_get(env, "OS_CLIENT_SECURE_FILE"),
        .home = home,
        .xdg_config = env_get(env, "XDG_CONFIG_HOME"),
    };
    struct settings settings = {0};
    struct clouds *clouds;
    int r = clouds_read(&places, &clouds, err);
    if (r < 0)
        return r;
    const char *first;
    size_t n = clouds_count(clouds, &first);
    if (!cloud && n != 1) {
        r = refuse_to_guess(clouds, n, err);
    } else {
        cloud = cloud ? cloud : first;
        r = clouds_get(clouds, cloud, region, &settings, err);
    }
    if (r == 0 && region && settings_put(&settings, "region_name", region, strlen(region)) < 0)
        r = error_set(err, -ENOMEM, "out of memory");
    if (r == 0) {
        char from[512];
        snprintf(from, sizeof(from), "cloud '%.64s' in '%.400s'", cloud, clouds_path(clouds));
        r = make_config(&settings, cloud, from, home, ret_config, err);
    }
    settings_fini(&settings);
    clouds_free(clouds);
    return r;
}

int glance_config_load(const char *cloud, char *const *env, struct glance_config **ret_config,
                       struct error *err)
{
    *ret_config = NULL;
    if (!cloud || !*cloud)
        cloud = env_get(env, "OS_CLOUD");
    if (cloud)
        return load_cloud(cloud, env, ret_config, err);
    struct settings settings = {0};
    int r = take_env(env, &settings, err);
    if (r == 0 && names_a_cloud(&settings))
        r = make_config(&settings, NULL, from_env, env_get(env, "HOME"), ret_config, err);
    else if (r == 0)
        r = load_cloud(NULL, env, ret_config, err);
    settings_fini(&settings);
    return r;
}
