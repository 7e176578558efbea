/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Configuration: the environment (lines NAME=VALUE), clouds.yaml and secure.yaml, one behind the
 * other with a byte 0xff between them.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/glance/config.h"
#include "tests/fuzz/fuzz.h"

enum { ENV_MAX = 24, OURS = 2 };

struct env {
    char *list[ENV_MAX + 1];
    size_t n;
};

static void add_file(struct env *env, const char *name, int fd)
{
    char *text = NULL;
    fuzz_check(asprintf(&text, "%s=/proc/self/fd/%d", name, fd) > 0);
    env->list[env->n++] = text;
}

static void add_lines(struct env *env, const char *text)
{
    struct fuzz_input lines = {.at = (const uint8_t *)text, .left = strlen(text)};
    while (lines.left > 0 && env->n < ENV_MAX - OURS) {
        char *line = fuzz_text(&lines, '\n');
        /* No files but ours. */
        if (strstr(line, "OS_CLIENT") || strstr(line, "HOME") || strstr(line, "XDG"))
            free(line);
        else
            env->list[env->n++] = line;
    }
}

static void check_config(const struct glance_config *config)
{
    fuzz_check(config->interface);
    if (config->auth_type == GLANCE_AUTH_NONE)
        fuzz_check(config->endpoint_override);
    else
        fuzz_check(config->auth_url);
    if (config->auth_type == GLANCE_AUTH_PASSWORD)
        fuzz_check(config->password && (config->username || config->user_id));
    if (config->auth_type == GLANCE_AUTH_TOKEN)
        fuzz_check(config->token);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct fuzz_input in = {.at = data, .left = len};
    char *lines = fuzz_text(&in, (char)0xff);
    const uint8_t *end = in.left ? memchr(in.at, 0xff, in.left) : NULL;
    size_t clouds_len = end ? (size_t)(end - in.at) : in.left;
    size_t secure_len = end ? in.left - clouds_len - 1 : 0;
    int clouds_fd = fuzz_file("clouds.yaml", in.at, clouds_len);
    int secure_fd = fuzz_file("secure.yaml", end ? end + 1 : NULL, secure_len);
    struct env env = {.n = 0};
    add_lines(&env, lines);
    add_file(&env, "OS_CLIENT_CONFIG_FILE", clouds_fd);
    add_file(&env, "OS_CLIENT_SECURE_FILE", secure_fd);
    struct glance_config *config = NULL;
    struct error err = {0};
    int r = glance_config_load(len % 3 ? NULL : "mine", env.list, &config, &err);
    fuzz_check(r == -ENOENT ? !config : r == err.code && (r == 0 || err.text[0]));
    if (r == 0)
        check_config(config);
    glance_config_free(config);
    glance_config_wipe_env(env.list);
    for (size_t i = 0; i < env.n; i++)
        free(env.list[i]);
    close(clouds_fd);
    close(secure_fd);
    free(lines);
    return 0;
}
