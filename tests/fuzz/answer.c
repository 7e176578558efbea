/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a server says when it says no, as people get to see it: one line of printable text, and none
 * of our secrets in it. And the catalog of Keystone.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/glance/answer.h"
#include "fs/glance/keystone.h"
#include "fs/glance/url.h"
#include "tests/fuzz/fuzz.h"

static void check_text(const char *text)
{
    size_t len = strlen(text);
    fuzz_check(len < ANSWER_TEXT_MAX);
    for (size_t i = 0; i < len; i++)
        fuzz_check((unsigned char)text[i] >= ' ' && text[i] != 0x7f);
    json_t *string = json_string(text); /* UTF-8, or NULL */
    fuzz_check(string);
    json_decref(string);
}

static void check_endpoint(const json_t *root, const struct glance_config *config)
{
    char *endpoint = NULL;
    struct error err = {0};
    int r = keystone_find_endpoint(json_object_get(root, "catalog"), config, &endpoint, &err);
    fuzz_check(r == err.code && (r == 0 || (r == -EINVAL && err.text[0])));
    if (r == 0)
        fuzz_check(url_check(endpoint, "endpoint", &err) == 0 || endpoint[0]);
    free(endpoint);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static char password[] = "p&ss<1>", secret[] = "hunter22", interface[] = "public";
    static const char token[] = "gAAAAABf\"";
    const struct glance_config config = {
        .password = password, .application_credential_secret = secret, .interface = interface};
    struct fuzz_input in = {.at = data, .left = len};
    char *body = fuzz_rest(&in), text[ANSWER_TEXT_MAX];
    struct http_answer answer = {.status = 400, .body = body, .body_len = len};
    answer_message(&answer, &config, token, text);
    check_text(text);
    fuzz_check(!strstr(text, password) && !strstr(text, secret) && !strstr(text, token));
    answer_is_from_service(&answer);
    fuzz_check(answer_time(body) >= -1 || body[0]);
    json_t *root = answer_json(&answer);
    if (root)
        check_endpoint(root, &config);
    json_decref(root);
    free(body);
    return 0;
}
