/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/glance/config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/host/scratch.h"

enum { ENV_MAX = 16, VARIABLE_MAX = 512 };

/* An environment of copies, so that it can be overwritten. */
struct env {
    char texts[ENV_MAX][VARIABLE_MAX];
    char *list[ENV_MAX + 1];
    size_t n;
};

static void add(struct env *env, const char *text)
{
    assert_true(env->n < ENV_MAX && strlen(text) < VARIABLE_MAX);
    strcpy(env->texts[env->n], text);
    env->list[env->n] = env->texts[env->n];
    env->n++;
}

/* Of the words in @words, separated by '|'; HOME is the scratch folder. */
static void make_env(struct env *env, const struct scratch *s, const char *words)
{
    char copy[2048], *rest = copy, home[VARIABLE_MAX];
    *env = (struct env){0};
    snprintf(home, sizeof(home), "HOME=%s", s->dir);
    add(env, home);
    snprintf(copy, sizeof(copy), "%s", words);
    for (char *word; *words && (word = strsep(&rest, "|"));)
        add(env, word);
}

static struct glance_config *load(const struct scratch *s, const char *cloud, const char *words)
{
    struct env env;
    struct glance_config *config;
    struct error err = {0};
    make_env(&env, s, words);
    int r = glance_config_load(cloud, env.list, &config, &err);
    if (r < 0)
        fail_msg("%s: %s", words, err.text);
    return config;
}

/* Refused with @code, and with @text in the reason. */
static void refuse(const struct scratch *s, const char *cloud, const char *words, int code,
                   const char *text)
{
    struct env env;
    struct glance_config *config;
    struct error err = {0};
    make_env(&env, s, words);
    int r = glance_config_load(cloud, env.list, &config, &err);
    if (r != code || !strstr(err.text, text) || config)
        fail_msg("%s: %d '%s', wanted %d '%s'", words, r, err.text, code, text);
    assert_null(strstr(err.text, "secret"));
}

static void write_clouds(const struct scratch *s, const char *name, const char *text)
{
    mkdir(scratch_path(s, ".config"), 0700);
    mkdir(scratch_path(s, ".config/openstack"), 0700);
    char path[128];
    snprintf(path, sizeof(path), ".config/openstack/%s", name);
    scratch_write(s, path, text);
}

#define PASSWORD "OS_AUTH_URL=http://k/v3|OS_USERNAME=u|OS_PASSWORD=secret|OS_PROJECT_NAME=p"

static void takes_a_password_from_the_environment(void **state)
{
    struct glance_config *c = load(*state, NULL,
                                   PASSWORD "|OS_USER_DOMAIN_NAME=Corp|OS_REGION_NAME=R"
                                            "|OS_INTERFACE=internalURL|OS_CACERT=~/ca.pem");
    char ca[128];
    snprintf(ca, sizeof(ca), "%s/ca.pem", ((struct scratch *)*state)->dir);
    assert_int_equal(c->auth_type, GLANCE_AUTH_PASSWORD);
    assert_null(c->cloud);
    assert_string_equal(c->auth_url, "http://k/v3");
    assert_string_equal(c->username, "u");
    assert_string_equal(c->password, "secret");
    assert_string_equal(c->user_domain_name, "Corp");
    assert_null(c->user_domain_id);
    assert_string_equal(c->project_domain_id, "default");
    assert_string_equal(c->region_name, "R");
    assert_string_equal(c->interface, "internal");
    assert_string_equal(c->ca_file, ca);
    assert_false(c->is_insecure);
    glance_config_free(c);
}

static void takes_old_names(void **state)
{
    struct glance_config *c =
        load(*state, NULL,
             "OS_AUTH_URL=http://k/v3|OS_USERNAME=u|OS_PASSWORD=secret|OS_TENANT_NAME=old"
             "|OS_PROJECT_NAME=new|OS_ENDPOINT_TYPE=admin|OS_DEFAULT_DOMAIN_NAME=D|OS_INSECURE=1"
             "|OS_IMAGE_URL=http://i/");
    assert_string_equal(c->project_name, "new");
    assert_string_equal(c->interface, "admin");
    assert_string_equal(c->user_domain_name, "D");
    assert_string_equal(c->project_domain_name, "D");
    assert_string_equal(c->endpoint_override, "http://i/");
    assert_true(c->is_insecure);
    glance_config_free(c);
    c = load(*state, NULL,
             "OS_AUTH_URL=http://k/v3|OS_USERNAME=u|OS_PASSWORD=secret|OS_TENANT_ID=i");
    assert_string_equal(c->project_id, "i");
    assert_string_equal(c->interface, "public");
    glance_config_free(c);
}

static void infers_how_to_log_in(void **state)
{
    struct glance_config *c = load(*state, NULL,
                                   "OS_AUTH_URL=http://k|OS_APPLICATION_CREDENTIAL_ID=i"
                                   "|OS_APPLICATION_CREDENTIAL_SECRET=secret");
    assert_int_equal(c->auth_type, GLANCE_AUTH_APPLICATION_CREDENTIAL);
    glance_config_free(c);
    c = load(*state, NULL, "OS_AUTH_URL=http://k|OS_TOKEN=secret");
    assert_int_equal(c->auth_type, GLANCE_AUTH_TOKEN);
    assert_string_equal(c->token, "secret");
    glance_config_free(c);
    c = load(*state, NULL, PASSWORD "|OS_TOKEN=secret2|OS_AUTH_TYPE=v3password");
    assert_int_equal(c->auth_type, GLANCE_AUTH_PASSWORD);
    glance_config_free(c);
    c = load(*state, NULL, "OS_AUTH_TYPE=none|OS_ENDPOINT=http://g");
    assert_int_equal(c->auth_type, GLANCE_AUTH_NONE);
    assert_string_equal(c->endpoint_override, "http://g");
    glance_config_free(c);
}

static void names_what_is_missing(void **state)
{
    static const struct {
        const char *words, *text;
    } rows[] = {
        {"OS_USERNAME=u", "the environment does not say OS_AUTH_URL"},
        {"OS_AUTH_URL=http://k", "neither OS_USERNAME nor OS_USER_ID"},
        {"OS_AUTH_URL=http://k|OS_USERNAME=u", "does not say OS_PASSWORD"},
        {"OS_AUTH_URL=http://k|OS_USERNAME=u|OS_PASSWORD=", "does not say OS_PASSWORD"},
        {"OS_AUTH_URL=http://k|OS_USER_ID=u|OS_PASSWORD=secret",
         "neither OS_PROJECT_NAME nor OS_PROJECT_ID"},
        {"OS_AUTH_URL=http://k|OS_APPLICATION_CREDENTIAL_SECRET=secret",
         "neither OS_APPLICATION_CREDENTIAL_ID nor OS_APPLICATION_CREDENTIAL_NAME"},
        {"OS_AUTH_URL=http://k|OS_APPLICATION_CREDENTIAL_SECRET=secret"
         "|OS_APPLICATION_CREDENTIAL_NAME=n",
         "neither OS_USERNAME nor OS_USER_ID"},
        {"OS_AUTH_URL=http://k|OS_AUTH_TYPE=v3applicationcredential"
         "|OS_APPLICATION_CREDENTIAL_ID=i",
         "does not say OS_APPLICATION_CREDENTIAL_SECRET"},
        {"OS_AUTH_URL=http://k|OS_AUTH_TYPE=token", "does not say OS_TOKEN"},
        {"OS_AUTH_TYPE=none|OS_AUTH_URL=http://k",
         "neither OS_IMAGE_ENDPOINT_OVERRIDE nor OS_ENDPOINT"},
        {PASSWORD "|OS_AUTH_TYPE=v3oidcpassword", "auth_type 'v3oidcpassword' is not handled"},
        {PASSWORD "|OS_INTERFACE=URL", "interface 'URL' is none of"},
        {"OS_AUTH_URL=ftp://k|OS_USERNAME=u|OS_PASSWORD=secret|OS_PROJECT_NAME=p",
         "auth_url is no http:// or https:// URL"},
        {"OS_AUTH_URL=http://u:secret@k|OS_USERNAME=u|OS_PASSWORD=secret|OS_PROJECT_NAME=p",
         "auth_url has a user's name in it"},
        {PASSWORD "|OS_IMAGE_ENDPOINT_OVERRIDE=http://i/?a=b", "has a query"},
        {PASSWORD "|OS_IMAGE_ENDPOINT_OVERRIDE=http://i\r\nX: y", "has a character that no URL"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
        refuse(*state, NULL, rows[i].words, -EINVAL, rows[i].text);
}

static void says_that_nobody_said_anything(void **state)
{
    char text[128];
    snprintf(text, sizeof(text), "%s/.config/openstack", ((struct scratch *)*state)->dir);
    refuse(*state, NULL, "OS_REGION_NAME=R|OS_CACERT=/x", -ENOENT, text);
    refuse(*state, NULL, "", -ENOENT, "/etc/openstack");
    refuse(*state, "a", "", -EINVAL, "no clouds.yaml for cloud 'a'");
    refuse(*state, NULL, "OS_CLOUD=a", -EINVAL, "no clouds.yaml for cloud 'a'");
    refuse(*state, NULL, "OS_CLOUD=a|OS_CLIENT_CONFIG_FILE=/nowhere.yaml", -EINVAL,
           "OS_CLIENT_CONFIG_FILE: cannot open '/nowhere.yaml'");
}

static const char two_clouds[] =
    "# made by hand\n"
    "defaults: &defaults\n"
    "  region_name: R0\n"
    "  verify: false\n"
    "  interface: internal\n"
    "clouds:\n"
    "  a:\n"
    "    <<: *defaults\n"
    "    interface: public\n"
    "    auth: {auth_url: 'http://k/v3', username: u, password: wrong, project_name: p}\n"
    "  b:\n"
    "    regions: [R1, {name: R2, values: {image_endpoint_override: 'http://r2'}}]\n"
    "    auth:\n"
    "      auth_url: http://k/v3\n"
    "      user_id: 0042\n"
    "      project_id: ~\n"
    "      project_name: \"\\u00e9\"\n"
    "      domain_name: Corp\n"
    "      password: 'a: #b'\n";

static void reads_a_cloud_and_its_secrets(void **state)
{
    write_clouds(*state, "clouds.yaml", two_clouds);
    write_clouds(*state, "secure.yml", "clouds: {a: {auth: {password: secret}}, x: {y: 1}}");
    struct glance_config *c = load(*state, "a", PASSWORD "|OS_REGION_NAME=R9|OS_CLOUD=b");
    assert_string_equal(c->cloud, "a");
    assert_string_equal(c->password, "secret");
    assert_string_equal(c->region_name, "R9");
    assert_string_equal(c->interface, "public");
    assert_true(c->is_insecure);
    glance_config_free(c);
    c = load(*state, NULL, PASSWORD "|OS_CLOUD=b");
    assert_string_equal(c->cloud, "b");
    assert_string_equal(c->user_id, "0042");
    assert_null(c->username);
    assert_null(c->project_id);
    assert_string_equal(c->project_name, "é");
    assert_string_equal(c->project_domain_name, "Corp");
    assert_string_equal(c->password, "a: #b");
    assert_string_equal(c->region_name, "R1");
    assert_null(c->endpoint_override);
    glance_config_free(c);
    c = load(*state, "b", "OS_REGION_NAME=R2");
    assert_string_equal(c->region_name, "R2");
    assert_string_equal(c->endpoint_override, "http://r2");
    glance_config_free(c);
    refuse(*state, "b", "OS_REGION_NAME=R3", -EINVAL, "cloud 'b' has no region 'R3'");
    refuse(*state, "c", "", -EINVAL, "has no cloud 'c', but: a, b");
    refuse(*state, NULL, "", -ENOENT, "has 2 clouds");
}

static void takes_the_only_cloud(void **state)
{
    write_clouds(*state, "clouds.json",
                 "{\"clouds\": {\"one\": {\"auth_type\": \"none\", \"auth\": "
                 "{\"endpoint\": \"https://g\"}, \"verify\": true}}}");
    struct glance_config *c = load(*state, NULL, "OS_REGION_NAME=R");
    assert_string_equal(c->cloud, "one");
    assert_string_equal(c->endpoint_override, "https://g");
    assert_false(c->is_insecure);
    glance_config_free(c);
    /* An environment that speaks of a cloud comes first; a .yaml file before a .json one. */
    c = load(*state, NULL, PASSWORD);
    assert_null(c->cloud);
    glance_config_free(c);
    write_clouds(*state, "clouds.yaml", "clouds: {}");
    refuse(*state, NULL, "", -ENOENT, "no clouds.yaml with a cloud");
}

static void looks_for_no_file_in_the_working_directory(void **state)
{
    const struct scratch *s = *state;
    char before[PATH_MAX];
    assert_non_null(getcwd(before, sizeof(before)));
    scratch_write(s, "clouds.yaml", "clouds: {here: {auth_type: none, endpoint: 'http://g'}}");
    assert_int_equal(chdir(s->dir), 0);
    refuse(s, "here", "", -EINVAL, "no clouds.yaml for cloud");
    assert_int_equal(chdir(before), 0);
    char words[256];
    snprintf(words, sizeof(words), "OS_CLIENT_CONFIG_FILE=%s", scratch_path(s, "clouds.yaml"));
    struct glance_config *c = load(s, "here", words);
    assert_string_equal(c->endpoint_override, "http://g");
    glance_config_free(c);
}

static void refuses_files_that_make_no_sense(void **state)
{
    static const struct {
        const char *yaml, *text;
    } rows[] = {
        {"clouds: {a: {auth: {password: secret", "clouds.yaml', line 2: did not find expected"},
        {"clouds:\n  a: *nowhere\n", "line 2: found undefined alias"},
        {"clouds: [a]", "has no cloud 'a', but: none"},
        {"clouds: {a: secret}", "has no cloud 'a'"},
        {"a", "has no cloud 'a'"},
        {"", "has no cloud 'a'"},
        {"--- {}\n--- {}\n", "more than one document"},
        {"clouds: {a: {profile: vendor, auth: {password: secret}}}", "vendor's profile"},
        {"clouds: {a: {auth: {auth_url: 'http://k', username: [u]}}}",
         "says neither username nor user_id"},
        {"clouds: {a: {auth: {auth_url: 'http://k', username: u, project_name: p}}}",
         "cloud 'a' in '"},
        {"x: &x {<<: *x, a: 1}\nclouds: {a: *x}", "does not say auth_url"},
        {"clouds: {a: &x {b: {<<: *x}, <<: [{<<: [{}, 3]}]}}", "does not say auth_url"},
        {"clouds: {a: {auth: \"x\\0y\"}}", "does not say auth_url"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        write_clouds(*state, "clouds.yaml", rows[i].yaml);
        refuse(*state, "a", "", -EINVAL, rows[i].text);
    }
}

static void refuses_files_that_are_none(void **state)
{
    const struct scratch *s = *state;
    char words[256];
    snprintf(words, sizeof(words), "OS_CLIENT_CONFIG_FILE=%s", s->dir);
    refuse(s, "a", words, -EINVAL, "is not a regular file");
    assert_int_equal(mkfifo(scratch_path(s, "fifo"), 0600), 0);
    snprintf(words, sizeof(words), "OS_CLIENT_CONFIG_FILE=%s", scratch_path(s, "fifo"));
    refuse(s, "a", words, -EINVAL, "is not a regular file");
    scratch_write(s, "large", "clouds: {}");
    assert_int_equal(truncate(scratch_path(s, "large"), 2 << 20), 0);
    snprintf(words, sizeof(words), "OS_CLIENT_CONFIG_FILE=%s", scratch_path(s, "large"));
    refuse(s, "a", words, -EINVAL, "is larger than");
}

static void overwrites_the_secrets_of_the_environment(void **state)
{
    struct env env;
    make_env(&env, *state,
             PASSWORD "|OS_TOKEN=secret|OS_AUTH_TOKEN=secret|MY_PASSWORD=mine|OS_PASSWORD"
                      "|OS_APPLICATION_CREDENTIAL_SECRET=secret");
    glance_config_wipe_env(env.list);
    for (size_t i = 0; i < env.n; i++)
        assert_null(memmem(env.texts[i], VARIABLE_MAX, "secret", 6));
    assert_string_equal(env.texts[2], "OS_USERNAME=u");
    assert_string_equal(env.texts[7], "MY_PASSWORD=mine");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)
    const struct CMUnitTest tests[] = {
        TEST(takes_a_password_from_the_environment),
        TEST(takes_old_names),
        TEST(infers_how_to_log_in),
        TEST(names_what_is_missing),
        TEST(says_that_nobody_said_anything),
        TEST(reads_a_cloud_and_its_secrets),
        TEST(takes_the_only_cloud),
        TEST(looks_for_no_file_in_the_working_directory),
        TEST(refuses_files_that_make_no_sense),
        TEST(refuses_files_that_are_none),
        TEST(overwrites_the_secrets_of_the_environment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
