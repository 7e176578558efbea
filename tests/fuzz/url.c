/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Addresses of services: a line with one that is configured, and one that a service advertises.
 * Whatever the latter is, what is made of both leads to the host of the former.
 */
#include <stdlib.h>
#include <string.h>

#include "fs/glance/url.h"
#include "tests/fuzz/fuzz.h"

/* "https://host:5000" as libcurl spells it, or NULL. */
static char *origin_of(const char *base)
{
    char *url = url_with_path_of(base, "/x");
    if (!url)
        return NULL;
    char *host = strstr(url, "://");
    fuzz_check(host);
    char *slash = strchr(host + 3, '/');
    fuzz_check(slash && strcmp(slash, "/x") == 0);
    *slash = '\0';
    return url;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct fuzz_input in = {.at = data, .left = len};
    char *base = fuzz_text(&in, '\n'), *href = fuzz_rest(&in);
    struct error err = {0};
    int r = url_check(base, "auth_url", &err);
    fuzz_check(r == err.code && (r == 0 || err.text[0]));
    char *image = url_image_base(base), *identity = url_identity_base(base);
    fuzz_check(image && identity && !strncmp(base, image, strlen(image)));
    fuzz_check(!strncmp(base, identity, strlen(identity)));
    url_is_v3(base);
    if (r == 0) {
        char *origin = origin_of(base), *joined = url_with_path_of(base, href);
        fuzz_check(origin);
        size_t n = strlen(origin);
        if (joined)
            fuzz_check(!strncmp(joined, origin, n) && (joined[n] == '/' || !joined[n]));
        free(joined);
        free(origin);
    }
    free(image);
    free(identity);
    free(href);
    free(base);
    return 0;
}
