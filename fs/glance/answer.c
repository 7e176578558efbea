/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/glance/answer.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "fs/glance/secret.h"
#include "qcow/base/cleanup.h"

enum { SCRATCH_MAX = 8192, SECRET_MIN = 4 };

json_t *answer_json(const struct http_answer *answer)
{
    /* Numbers too large for an integer, which nothing here has use for, must not fail the whole. */
    json_t *root = json_loadb(answer->body, answer->body_len, JSON_ALLOW_NUL, NULL);
    if (json_is_object(root))
        return root;
    json_decref(root);
    return NULL;
}

const char *json_text(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    const char *text = json_string_value(value);
    /* A NUL inside would hide the rest of it. */
    return text && strlen(text) == json_string_length(value) ? text : NULL;
}

/* "message" of Glance; "error": {"message"} of Keystone; some proxies say "error": "...". */
static const char *find_message(const json_t *root)
{
    const char *text = json_text(root, "message");
    if (!text)
        text = json_text(json_object_get(root, "error"), "message");
    if (!text)
        text = json_text(root, "error");
    return text ? text : json_text(root, "title");
}

bool answer_is_from_service(const struct http_answer *answer)
{
    auto_json json_t *root = answer_json(answer);
    return find_message(root) != NULL;
}

/* Without tags, and entities as what they stand for; in place. */
static void strip_markup(char *text)
{
    static const struct {
        const char *entity, *text;
    } entities[] = {{"&lt;", "<"}, {"&gt;", ">"}, {"&quot;", "\""}, {"&#39;", "'"}, {"&amp;", "&"}};
    char *to = text;
    for (const char *from = text; *from;) {
        const char *end = *from == '<' ? strchr(from, '>') : NULL;
        if (end) {
            *to++ = ' ';
            from = end + 1;
            continue;
        }
        size_t len = 0;
        for (size_t i = 0; i < sizeof(entities) / sizeof(*entities) && *from == '&' && !len; i++) {
            size_t entity_len = strlen(entities[i].entity);
            if (strncmp(from, entities[i].entity, entity_len) == 0) {
                *to++ = *entities[i].text;
                len = entity_len;
            }
        }
        if (!len) {
            *to++ = *from;
            len = 1;
        }
        from += len;
    }
    *to = '\0';
}

/* Bytes of the character at @at, 0 if it is no UTF-8 or a control character. */
static size_t char_len(const unsigned char *at)
{
    uint32_t code;
    size_t len;
    if (*at < 0x80)
        return *at > 0x20 && *at != 0x7f;
    if (*at >= 0xc2 && *at <= 0xdf)
        len = 2, code = *at & 0x1f;
    else if (*at >= 0xe0 && *at <= 0xef)
        len = 3, code = *at & 0x0f;
    else if (*at >= 0xf0 && *at <= 0xf4)
        len = 4, code = *at & 0x07;
    else
        return 0;
    for (size_t i = 1; i < len; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (at[i] & 0x3f);
    }
    static const uint32_t least[] = {0, 0, 0xa0, 0x800, 0x10000};
    bool is_surrogate = code >= 0xd800 && code <= 0xdfff;
    /* U+2028 to U+202E: line ends, and what turns the direction of the rest of a line. */
    bool is_format = code >= 0x2028 && code <= 0x202e;
    return code < least[len] || code > 0x10ffff || is_surrogate || is_format ? 0 : len;
}

/* Printable text in one line, cut at a character's end. */
static void copy_line(const char *text, char ret_text[ANSWER_TEXT_MAX])
{
    size_t len = 0;
    bool is_gap = false;
    for (const unsigned char *at = (const unsigned char *)text; *at;) {
        size_t n = char_len(at);
        if (n == 0 && (*at <= ' ' || *at == 0x7f)) {
            is_gap = len > 0;
            at++;
            continue;
        }
        if (len + (size_t)is_gap + (n ? n : 1) > ANSWER_TEXT_MAX - 1)
            break;
        if (is_gap)
            ret_text[len++] = ' ';
        is_gap = false;
        if (n)
            memcpy(ret_text + len, at, n);
        else
            ret_text[len] = '?';
        len += n ? n : 1;
        at += n ? n : 1;
    }
    ret_text[len] = '\0';
}

static void hide(char *text, const char *secret)
{
    size_t len = secret ? strlen(secret) : 0;
    /* (Hiding "a" would only tell where it was.) */
    if (len < SECRET_MIN)
        return;
    for (char *at = text; (at = strstr(at, secret));) {
        /* lint: clang-tidy/bugprone-not-null-terminated-result: amid a text */
        memcpy(at, "***", 3);
        memmove(at + 3, at + len, strlen(at + len) + 1);
        at += 3;
    }
}

static void hide_all(char *text, const struct glance_config *config, const char *token)
{
    hide(text, config->password);
    hide(text, config->application_credential_secret);
    hide(text, config->token);
    hide(text, token);
}

void answer_message(const struct http_answer *answer, const struct glance_config *config,
                    const char *token, char ret_text[ANSWER_TEXT_MAX])
{
    auto_json json_t *root = answer_json(answer);
    const char *message = find_message(root);
    if (!message)
        message = root ? "" : answer->body;
    char scratch[SCRATCH_MAX];
    snprintf(scratch, sizeof(scratch), "%s", message);
    /* Each step may bring a secret forth: "p&amp;ss", or one with a line end for its blank. */
    hide_all(scratch, config, token);
    strip_markup(scratch);
    hide_all(scratch, config, token);
    copy_line(scratch, ret_text);
    hide_all(ret_text, config, token);
    secret_wipe(scratch);
}

int64_t answer_time(const char *text)
{
    struct tm tm = {0};
    const char *end = text ? strptime(text, "%Y-%m-%dT%H:%M:%S", &tm) : NULL;
    if (!end || (*end != '.' && *end != 'Z' && *end != '\0' && *end != '+'))
        return -1;
    return timegm(&tm);
}
