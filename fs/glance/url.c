/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/glance/url.h"

#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <string.h>

#include "qcow/base/cleanup.h"

static bool has_part(CURLU *url, CURLUPart part)
{
    char *text = NULL;
    bool has_it = curl_url_get(url, part, &text, 0) == CURLUE_OK && text;
    curl_free(text);
    return has_it;
}

static bool is_web(CURLU *url)
{
    char *scheme = NULL;
    bool is_it = curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
                 (strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0);
    curl_free(scheme);
    return is_it;
}

static const char *find_fault(CURLU *url, const char *text)
{
    for (const char *at = text; *at; at++)
        if ((unsigned char)*at <= ' ' || (unsigned char)*at >= 0x7f)
            return "has a character that no URL may have";
    if (curl_url_set(url, CURLUPART_URL, text, 0) != CURLUE_OK || !is_web(url))
        return "is no http:// or https:// URL";
    if (has_part(url, CURLUPART_USER) || has_part(url, CURLUPART_PASSWORD))
        return "has a user's name in it, which is not handled";
    if (has_part(url, CURLUPART_QUERY) || has_part(url, CURLUPART_FRAGMENT))
        return "has a query or fragment";
    return NULL;
}

int url_check(const char *url, const char *what, struct error *err)
{
    CURLU *parts = curl_url();
    if (!parts)
        return error_set(err, -ENOMEM, "out of memory");
    const char *fault = find_fault(parts, url);
    curl_url_cleanup(parts);
    /* (The URL itself may hold a password.) */
    return fault ? error_set(err, -EINVAL, "%s %s", what, fault) : 0;
}

static size_t strip_slashes(const char *url, size_t len)
{
    while (len > 0 && url[len - 1] == '/')
        len--;
    return len;
}

/* The length without a last part "/vN" or "/vN.N", N being one of @majors. */
static size_t strip_version(const char *url, size_t len, const char *majors)
{
    size_t start = len;
    while (start > 0 && url[start - 1] != '/')
        start--;
    const char *part = url + start;
    size_t part_len = len - start;
    bool is_host = start >= 2 && url[start - 2] == '/';
    if (start == 0 || is_host || part_len < 2 || part[0] != 'v' || !strchr(majors, part[1]))
        return len;
    for (size_t i = 2; i < part_len; i++)
        if (!isdigit((unsigned char)part[i]) && part[i] != '.')
            return len;
    return strip_slashes(url, start);
}

char *url_image_base(const char *url)
{
    size_t len = strip_slashes(url, strlen(url));
    return strndup(url, strip_version(url, len, "12"));
}

char *url_identity_base(const char *url)
{
    size_t len = strip_slashes(url, strlen(url));
    return strndup(url, strip_version(url, len, "2"));
}

bool url_is_v3(const char *base)
{
    size_t len = strlen(base);
    return len >= 3 && strcmp(base + len - 3, "/v3") == 0;
}

static char *path_of(const char *href)
{
    if (href[0] == '/' && href[1] != '/')
        return strdup(href);
    CURLU *url = curl_url();
    char *path = NULL, *copy = NULL;
    if (url && curl_url_set(url, CURLUPART_URL, href, 0) == CURLUE_OK &&
        curl_url_get(url, CURLUPART_PATH, &path, 0) == CURLUE_OK)
        copy = strdup(path);
    curl_free(path);
    curl_url_cleanup(url);
    return copy;
}

char *url_with_path_of(const char *base, const char *href)
{
    auto_free char *path = path_of(href);
    CURLU *url = curl_url();
    char *joined = NULL, *copy = NULL;
    if (path && url && curl_url_set(url, CURLUPART_URL, base, 0) == CURLUE_OK &&
        curl_url_set(url, CURLUPART_PATH, path, 0) == CURLUE_OK &&
        curl_url_get(url, CURLUPART_URL, &joined, 0) == CURLUE_OK)
        copy = strndup(joined, strip_slashes(joined, strlen(joined)));
    curl_free(joined);
    curl_url_cleanup(url);
    return copy;
}
