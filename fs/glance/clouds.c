/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/glance/clouds.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fs/glance/yaml.h"
#include "qcow/base/cleanup.h"

enum { PATH_TEXT_MAX = 4096, SEARCHED_MAX = 512, LISTED_MAX = 256 };

struct clouds {
    struct yaml *clouds, *secure; /* NULL: no such file */
    char searched[SEARCHED_MAX];
};

void clouds_free(struct clouds *clouds)
{
    if (!clouds)
        return;
    yaml_close(clouds->clouds);
    yaml_close(clouds->secure);
    free(clouds);
}

const char *clouds_path(const struct clouds *clouds)
{
    return clouds->clouds ? yaml_path(clouds->clouds) : NULL;
}

const char *clouds_searched(const struct clouds *clouds)
{
    return clouds->searched;
}

/* The @idx-th folder that is searched: false past the last one; an empty text for none. */
static bool folder_at(const struct clouds_places *places, size_t idx, char *ret_folder)
{
    static const char *const fixed[] = {"/etc/xdg/openstack", "/etc/openstack"};
    ret_folder[0] = '\0';
    if (idx == 0 && places->xdg_config && places->xdg_config[0] == '/')
        snprintf(ret_folder, PATH_TEXT_MAX, "%s/openstack", places->xdg_config);
    if (idx == 1 && places->home && places->home[0] == '/')
        snprintf(ret_folder, PATH_TEXT_MAX, "%s/.config/openstack", places->home);
    if (idx == 2 || idx == 3)
        snprintf(ret_folder, PATH_TEXT_MAX, "%s", fixed[idx - 2]);
    return idx < 4;
}

/* The first file NAME.yaml, .yml or .json there is; 0 with NULL if there is none. */
static int find_and_open(const struct clouds_places *places, const char *name,
                         struct yaml **ret_yaml, struct error *err)
{
    static const char *const suffixes[] = {"yaml", "yml", "json"};
    char folder[PATH_TEXT_MAX], path[PATH_TEXT_MAX + 32];
    for (size_t i = 0; folder_at(places, i, folder); i++) {
        for (size_t j = 0; folder[0] && j < sizeof(suffixes) / sizeof(*suffixes); j++) {
            snprintf(path, sizeof(path), "%s/%s.%s", folder, name, suffixes[j]);
            int r = yaml_open(path, ret_yaml, err);
            if (r != -ENOENT && r != -ENOTDIR)
                return r;
        }
    }
    *ret_yaml = NULL;
    return 0;
}

static int open_one(const struct clouds_places *places, const char *explicit_path,
                    const char *variable, const char *name, struct yaml **ret_yaml,
                    struct error *err)
{
    if (!explicit_path || !*explicit_path)
        return find_and_open(places, name, ret_yaml, err);
    int r = yaml_open(explicit_path, ret_yaml, err);
    if (r < 0)
        error_prefix(err, "%s", variable);
    /* -ENOENT would say that nobody asked for anything. */
    return r == -ENOENT ? -EINVAL : r;
}

static void note_searched(const struct clouds_places *places, char *searched)
{
    char folder[PATH_TEXT_MAX];
    size_t len = 0;
    for (size_t i = 0; folder_at(places, i, folder); i++) {
        if (!folder[0])
            continue;
        int n = snprintf(searched + len, SEARCHED_MAX - len, "%s%s", len ? ", " : "", folder);
        if (n < 0 || (size_t)n >= SEARCHED_MAX - len)
            return;
        len += (size_t)n;
    }
}

int clouds_read(const struct clouds_places *places, struct clouds **ret_clouds, struct error *err)
{
    struct clouds *clouds = calloc(1, sizeof(*clouds));
    if (!clouds)
        return error_set(err, -ENOMEM, "out of memory");
    note_searched(places, clouds->searched);
    int r = open_one(places, places->explicit_path, "OS_CLIENT_CONFIG_FILE", "clouds",
                     &clouds->clouds, err);
    if (r == 0)
        r = open_one(places, places->explicit_secure, "OS_CLIENT_SECURE_FILE", "secure",
                     &clouds->secure, err);
    if (r < 0) {
        clouds_free(clouds);
        return r;
    }
    *ret_clouds = clouds;
    return 0;
}

static const struct yaml_node_s *find_clouds(struct yaml *yaml)
{
    return yaml ? yaml_get(yaml, yaml_root(yaml), "clouds") : NULL;
}

size_t clouds_count(const struct clouds *clouds, const char **ret_first)
{
    const struct yaml_node_s *all = find_clouds(clouds->clouds);
    const char *key;
    size_t n = 0;
    *ret_first = NULL;
    while ((key = yaml_key(clouds->clouds, all, n))) {
        if (n == 0)
            *ret_first = key;
        n++;
    }
    return n;
}

/* "a, b, c" for a message. */
static void list_names(struct clouds *clouds, char *ret_text)
{
    const struct yaml_node_s *all = find_clouds(clouds->clouds);
    const char *key;
    size_t len = 0;
    ret_text[0] = '\0';
    for (size_t i = 0; (key = yaml_key(clouds->clouds, all, i)); i++) {
        int n = snprintf(ret_text + len, LISTED_MAX - len, "%s%s", i ? ", " : "", key);
        if (n < 0 || (size_t)n >= LISTED_MAX - len)
            return;
        len += (size_t)n;
    }
}

static int put_one(void *ctx, const char *key, const char *value)
{
    return settings_put(ctx, key, value, strlen(value));
}

/* What the cloud says itself, and then what its "auth" says. */
static int put_all(struct yaml *yaml, const struct yaml_node_s *cloud, struct settings *settings,
                   struct error *err)
{
    int r = yaml_each(yaml, cloud, put_one, settings);
    if (r == 0)
        r = yaml_each(yaml, yaml_get(yaml, cloud, "auth"), put_one, settings);
    return r < 0 ? error_set(err, r, "out of memory") : 0;
}

/* An item of `regions` is a name, or a mapping with a name and values of its own. */
static const char *region_name(struct yaml *yaml, const struct yaml_node_s *item)
{
    return yaml_is_mapping(item) ? yaml_text(yaml_get(yaml, item, "name")) : yaml_text(item);
}

static int put_region(struct yaml *yaml, const struct yaml_node_s *cloud, const char *cloud_name,
                      const char *wanted, struct settings *settings, struct error *err)
{
    const struct yaml_node_s *regions = yaml_get(yaml, cloud, "regions"), *item;
    if (!yaml_item(yaml, regions, 0))
        return 0;
    if (!wanted)
        wanted = settings->values[SETTING_REGION_NAME];
    for (size_t i = 0; (item = yaml_item(yaml, regions, i)); i++) {
        const char *name = region_name(yaml, item);
        if (!name || (wanted && strcmp(name, wanted) != 0))
            continue;
        int r = put_all(yaml, yaml_get(yaml, item, "values"), settings, err);
        if (r == 0 && settings_put(settings, "region_name", name, strlen(name)) < 0)
            r = error_set(err, -ENOMEM, "out of memory");
        return r;
    }
    return error_set(err, -EINVAL, "'%s': cloud '%s' has no region '%s'", yaml_path(yaml),
                     cloud_name, wanted ? wanted : "");
}

int clouds_get(struct clouds *clouds, const char *name, const char *region,
               struct settings *settings, struct error *err)
{
    const struct yaml_node_s *cloud = NULL, *secure = NULL;
    if (!clouds->clouds)
        return error_set(err, -EINVAL, "no clouds.yaml for cloud '%s' in %s", name,
                         clouds->searched);
    cloud = yaml_get(clouds->clouds, find_clouds(clouds->clouds), name);
    if (!yaml_is_mapping(cloud)) {
        char listed[LISTED_MAX];
        list_names(clouds, listed);
        return error_set(err, -EINVAL, "'%s' has no cloud '%s', but: %s", clouds_path(clouds), name,
                         listed[0] ? listed : "none");
    }
    if (clouds->secure)
        secure = yaml_get(clouds->secure, find_clouds(clouds->secure), name);
    if (yaml_get(clouds->clouds, cloud, "profile") || yaml_get(clouds->clouds, cloud, "cloud"))
        return error_set(err, -EINVAL,
                         "'%s': cloud '%s' has a vendor's profile, which is not handled: write its "
                         "auth_url and region_name there instead",
                         clouds_path(clouds), name);
    int r = put_all(clouds->clouds, cloud, settings, err);
    if (r == 0)
        r = put_region(clouds->clouds, cloud, name, region, settings, err);
    if (r == 0 && secure)
        r = put_all(clouds->secure, secure, settings, err);
    return r;
}
