/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/glance/line.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "qcow/base/cleanup.h"

enum { NAME_CHARS_MAX = 255, NUMBER_DIGITS_MAX = 10, PEEK_LEN_MAX = 64 };

static const char property[] = "property:";
static const char metadata[] = "--metadata";

/* One word, with its quotes taken off. */
struct word {
    char *text;
    size_t n_plain; /* bytes at its begin before the first quoted one */
};

static int no_memory(struct error *err)
{
    return error_set(err, -ENOMEM, "out of memory");
}

/* ---- Characters ---- */

/*
 * The length in bytes of the character at @text, or 0 if it is none that may stand in a name:
 * damaged UTF-8, a control character, or one of 4 bytes, which databases of Glance may refuse.
 */
static size_t char_len(const char *text)
{
    const unsigned char *c = (const unsigned char *)text;
    if (c[0] < 0x80)
        return c[0] >= 0x20 && c[0] != 0x7f;
    if (c[0] >= 0xc2 && c[0] < 0xe0)
        /* U+0080 to U+009F are control characters. */
        return (c[1] & 0xc0) == 0x80 && (c[0] != 0xc2 || c[1] >= 0xa0) ? 2 : 0;
    if (c[0] < 0xe0 || c[0] >= 0xf0 || (c[1] & 0xc0) != 0x80 || (c[2] & 0xc0) != 0x80)
        return 0;
    bool is_overlong = c[0] == 0xe0 && c[1] < 0xa0;
    bool is_surrogate = c[0] == 0xed && c[1] >= 0xa0;
    return is_overlong || is_surrogate ? 0 : 3;
}

bool line_is_name(const char *text)
{
    size_t n = 0;
    for (; *text; n++) {
        size_t len = char_len(text);
        if (len == 0)
            return false;
        text += len;
    }
    return n >= 1 && n <= NAME_CHARS_MAX;
}

static bool is_value(const char *text)
{
    while (*text) {
        size_t len = char_len(text);
        if (len == 0)
            return false;
        text += len;
    }
    return true;
}

/* ---- Words ---- */

/* A line while it is taken apart. */
struct scanner {
    const char *at, *end;
    char *out; /* room for what is left of the line, and a NUL */
};

static int unterminated(char quote, struct error *err)
{
    return error_set(err, -EINVAL, "a %s quote that does not end",
                     quote == '"' ? "double" : "single");
}

/* From behind the quote to behind the one that ends it. */
static int scan_quoted(struct scanner *s, char quote, struct error *err)
{
    for (; s->at < s->end; s->at++) {
        if (*s->at == quote) {
            s->at++;
            return 0;
        }
        if (quote == '"' && *s->at == '\\' && s->at + 1 < s->end && strchr("\"\\$`", s->at[1]))
            s->at++;
        *s->out++ = *s->at;
    }
    return unterminated(quote, err);
}

static int scan_escaped(struct scanner *s, struct error *err)
{
    if (++s->at == s->end)
        return error_set(err, -EINVAL, "a backslash with nothing behind it");
    *s->out++ = *s->at++;
    return 0;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* 1 and the next word (in @s->out's room), 0 at the end, -EINVAL. */
static int scan_word(struct scanner *s, struct word *ret_word, struct error *err)
{
    while (s->at < s->end && is_blank(*s->at))
        s->at++;
    if (s->at == s->end)
        return 0;
    ret_word->text = s->out;
    ret_word->n_plain = SIZE_MAX;
    int r = 0;
    while (r == 0 && s->at < s->end && !is_blank(*s->at)) {
        char c = *s->at;
        if ((c == '\'' || c == '"' || c == '\\') && ret_word->n_plain == SIZE_MAX)
            ret_word->n_plain = (size_t)(s->out - ret_word->text);
        if (c == '\'' || c == '"') {
            s->at++;
            r = scan_quoted(s, c, err);
        } else if (c == '\\') {
            r = scan_escaped(s, err);
        } else {
            *s->out++ = *s->at++;
        }
    }
    if (r < 0)
        return r;
    *s->out++ = '\0';
    return 1;
}

/* ---- What keys take ---- */

static int refuse_value(const char *key, const char *value, const char *wanted, struct error *err)
{
    return error_set(err, -EINVAL, "%s: '%s' is not %s", key, value, wanted);
}

static int set_once(char **where, const char *key, const char *value, struct error *err)
{
    if (*where)
        return error_set(err, -EINVAL, "%s is given twice", key);
    *where = strdup(value);
    return *where ? 0 : no_memory(err);
}

static int set_disk(struct upload_line *line, const char *value, struct error *err)
{
    if (!*value || strchr(value, '/'))
        return refuse_value("disk", value, "a target such as vda", err);
    return set_once(&line->disk, "disk", value, err);
}

static int set_format(struct upload_line *line, const char *value, struct error *err)
{
    if (strcmp(value, "raw") != 0 && strcmp(value, "qcow2") != 0)
        return refuse_value("format", value, "raw or qcow2", err);
    return set_once(&line->format, "format", value, err);
}

static int set_visibility(struct upload_line *line, const char *value, struct error *err)
{
    static const char *const known[] = {"private", "shared", "community", "public"};
    for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
        if (strcmp(value, known[i]) == 0)
            return set_once(&line->visibility, "visibility", value, err);
    return refuse_value("visibility", value, "private, shared, community or public", err);
}

/* Glance's own bounds: 0 to 2^31 - 1. */
static int parse_number(const char *key, const char *value, uint32_t *ret, struct error *err)
{
    size_t len = strlen(value);
    bool is_number = len > 0 && len <= NUMBER_DIGITS_MAX;
    for (size_t i = 0; i < len && is_number; i++)
        is_number = isdigit((unsigned char)value[i]);
    unsigned long long number = is_number ? strtoull(value, NULL, 10) : 0;
    if (!is_number || number > INT32_MAX)
        return refuse_value(key, value, "a number from 0 to 2147483647", err);
    *ret = (uint32_t)number;
    return 0;
}

static int set_min_disk(struct upload_line *line, const char *value, struct error *err)
{
    line->has_min_disk = true;
    return parse_number("min_disk", value, &line->min_disk_gib, err);
}

static int set_min_ram(struct upload_line *line, const char *value, struct error *err)
{
    return parse_number("min_ram", value, &line->min_ram_mib, err);
}

static int set_protected(struct upload_line *line, const char *value, struct error *err)
{
    static const char *const yes[] = {"true", "True", "yes", "1"};
    static const char *const no[] = {"false", "False", "no", "0"};
    for (size_t i = 0; i < sizeof(yes) / sizeof(*yes); i++) {
        if (strcmp(value, yes[i]) == 0 || strcmp(value, no[i]) == 0) {
            line->is_protected = strcmp(value, yes[i]) == 0;
            return 0;
        }
    }
    return refuse_value("protected", value, "true or false", err);
}

/* What Glance keeps of each image itself: not properties, whatever a client would like. */
static bool is_reserved(const char *name)
{
    static const char *const names[] = {
        "id",
        "name",
        "status",
        "visibility",
        "owner",
        "protected",
        "tags",
        "min_disk",
        "min_ram",
        "disk_format",
        "size",
        "checksum",
        "virtual_size",
        "container_format",
        "created_at",
        "updated_at",
        "deleted_at",
        "deleted",
        "file",
        "self",
        "schema",
        "direct_url",
        "locations",
        "os_hidden",
        "members",
        "image_id",
        "location",
        "os_hash_algo",
        "os_hash_value",
        "stores",
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return strncmp(name, "os_glance_", strlen("os_glance_")) == 0;
}

static int check_property(const struct upload_line *line, const char *name, const char *value,
                          struct error *err)
{
    if (!line_is_name(name))
        return error_set(err, -EINVAL, "'%s' is no name of a property", name);
    if (is_reserved(name))
        return error_set(err, -EINVAL, "'%s' is not a property but a part of each image", name);
    if (!is_value(value))
        return error_set(err, -EINVAL, "property '%s': a value that is not printable UTF-8", name);
    for (size_t i = 0; i < line->n_properties; i++)
        if (strcmp(line->properties[i].name, name) == 0)
            return error_set(err, -EINVAL, "property '%s' is given twice", name);
    if (line->n_properties == LINE_PROPERTIES_MAX)
        return error_set(err, -EINVAL, "more than %d properties", LINE_PROPERTIES_MAX);
    return 0;
}

static int add_property(struct upload_line *line, const char *name, const char *value,
                        struct error *err)
{
    int r = check_property(line, name, value, err);
    if (r < 0)
        return r;
    struct glance_property *grown =
        reallocarray(line->properties, line->n_properties + 1, sizeof(*grown));
    if (!grown)
        return no_memory(err);
    line->properties = grown;
    auto_free char *own_name = strdup(name);
    auto_free char *own_value = strdup(value);
    if (!own_name || !own_value)
        return no_memory(err);
    grown[line->n_properties++] =
        (struct glance_property){.name = take_ptr(own_name), .value = take_ptr(own_value)};
    return 0;
}

/* "NAME=VALUE" */
static int add_assignment(struct upload_line *line, char *text, struct error *err)
{
    char *equals = strchr(text, '=');
    if (!equals)
        return error_set(err, -EINVAL, "'%s' is not NAME=VALUE", text);
    *equals = '\0';
    return add_property(line, text, equals + 1, err);
}

/* ---- The line ---- */

static const struct key {
    const char *name;
    int (*set)(struct upload_line *line, const char *value, struct error *err);
} keys[] = {
    {"disk", set_disk},         {"format", set_format},   {"visibility", set_visibility},
    {"min_disk", set_min_disk}, {"min_ram", set_min_ram}, {"protected", set_protected},
};

/* The key that the word begins with, or NULL. */
static const struct key *find_key(const char *text)
{
    for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
        size_t len = strlen(keys[i].name);
        if (strncmp(text, keys[i].name, len) == 0 && text[len] == '=')
            return &keys[i];
    }
    return NULL;
}

/* 1 if the word is a key, 0 if it is none, -EINVAL. */
static int take_key(struct upload_line *line, const struct word *word, struct error *err)
{
    const char *equals = strchr(word->text, '=');
    const struct key *key = find_key(word->text);
    int r = 0;
    if (strncmp(word->text, property, strlen(property)) == 0)
        r = add_assignment(line, word->text + strlen(property), err);
    else if (key)
        r = key->set(line, equals + 1, err);
    else if (equals && (size_t)(equals - word->text) < word->n_plain)
        return error_set(err, -EINVAL,
                         "unknown key '%.*s' (quote a name that has a '='; properties are "
                         "property:NAME=VALUE)",
                         (int)(equals - word->text), word->text);
    else
        return 0;
    return r < 0 ? r : 1;
}

static int take_metadata(struct upload_line *line, struct scanner *rest, struct error *err)
{
    struct word value;
    int r = scan_word(rest, &value, err);
    if (r < 0)
        return r;
    return r ? add_assignment(line, value.text, err)
             : error_set(err, -EINVAL, "%s needs NAME=VALUE", metadata);
}

/* As take_key(); @rest is what stands behind it. */
static int take_option(struct upload_line *line, const struct word *word, struct scanner *rest,
                       struct error *err)
{
    size_t len = strlen(metadata);
    int r = 0;
    if (strcmp(word->text, "--poll") == 0)
        line->is_poll = true;
    else if (strcmp(word->text, metadata) == 0)
        r = take_metadata(line, rest, err);
    else if (strncmp(word->text, metadata, len) == 0 && word->text[len] == '=')
        r = add_assignment(line, word->text + len + 1, err);
    else if (word->n_plain >= 2 && strncmp(word->text, "--", 2) == 0)
        return error_set(err, -EINVAL, "unknown option '%s'", word->text);
    else
        return 0;
    return r < 0 ? r : 1;
}

static int take_name(struct upload_line *line, const char *text, struct error *err)
{
    if (!line->snapshot) {
        if (!*text || strchr(text, '/') || strlen(text) > NAME_CHARS_MAX)
            return error_set(err, -EINVAL, "'%s' is no name of a snapshot", text);
        line->snapshot = strdup(text);
        return line->snapshot ? 0 : no_memory(err);
    }
    if (line->image_name)
        return error_set(err, -EINVAL, "one word too many: '%s' (quote a name that has blanks)",
                         text);
    if (!line_is_name(text))
        return error_set(err, -EINVAL,
                         "an image's name has 1 to 255 characters of UTF-8 of up to 3 bytes, and "
                         "no control characters");
    line->image_name = strdup(text);
    return line->image_name ? 0 : no_memory(err);
}

static int take_words(struct upload_line *line, struct scanner *s, struct error *err)
{
    for (;;) {
        struct word word;
        int r = scan_word(s, &word, err);
        if (r <= 0)
            return r;
        r = take_option(line, &word, s, err);
        if (r == 0)
            r = take_key(line, &word, err);
        if (r == 0)
            r = take_name(line, word.text, err);
        if (r < 0)
            return r;
    }
}

/* The length without the newline. */
static int check_form(const char *bytes, size_t len, size_t *ret_len, struct error *err)
{
    if (len > LINE_LEN_MAX)
        return error_set(err, -EINVAL, "a line of more than %d bytes", LINE_LEN_MAX);
    if (len > 0 && bytes[len - 1] == '\n')
        len--;
    if (memchr(bytes, '\n', len))
        return error_set(err, -EINVAL, "more than one line in one write");
    if (memchr(bytes, '\0', len))
        return error_set(err, -EINVAL, "a zero byte in the line");
    for (size_t i = 0; i < len; i++)
        if (((unsigned char)bytes[i] < 0x20 && bytes[i] != '\t') || bytes[i] == 0x7f)
            return error_set(err, -EINVAL, "a control character (0x%02x)", (unsigned)bytes[i]);
    *ret_len = len;
    return 0;
}

static int parse(const char *bytes, size_t len, struct upload_line *line, struct error *err)
{
    /* A word ends with a NUL in place of a blank or of the line's end. */
    auto_free char *room = calloc(1, len + 1);
    if (!room)
        return no_memory(err);
    struct scanner s = {.at = bytes, .end = bytes + len, .out = room};
    int r = take_words(line, &s, err);
    if (r < 0)
        return r;
    if (!line->snapshot)
        return error_set(err, -EINVAL,
                         "no snapshot is named: SNAPSHOT [IMAGE-NAME] [KEY=VALUE...] [--poll]");
    return line->visibility ? 0 : set_visibility(line, "private", err);
}

int line_parse(const char *bytes, size_t len, struct upload_line *ret_line, struct error *err)
{
    struct upload_line line = {0};
    int r = check_form(bytes, len, &len, err);
    if (r == 0)
        r = parse(bytes, len, &line, err);
    if (r < 0) {
        line_fini(&line);
        return r;
    }
    *ret_line = line;
    return 0;
}

/* Of whole characters. */
static void shorten(char *text)
{
    size_t len = text ? strnlen(text, PEEK_LEN_MAX) : 0;
    while (len > 0 && ((unsigned char)text[len] & 0xc0) == 0x80)
        len--;
    if (text)
        text[len] = '\0';
}

void line_peek(const char *bytes, size_t len, char **ret_snapshot, char **ret_image_name)
{
    struct upload_line line = {0};
    len = len < LINE_LEN_MAX ? len : LINE_LEN_MAX;
    const char *newline = memchr(bytes, '\n', len);
    len = newline ? (size_t)(newline - bytes) : len;
    parse(bytes, len, &line, NULL);
    if (!line.snapshot && len > 0)
        line.snapshot = strndup(bytes, len);
    *ret_snapshot = take_ptr(line.snapshot);
    *ret_image_name = take_ptr(line.image_name);
    shorten(*ret_snapshot);
    shorten(*ret_image_name);
    line_fini(&line);
}

void line_fini(struct upload_line *line)
{
    free(line->snapshot);
    free(line->image_name);
    free(line->disk);
    free(line->format);
    free(line->visibility);
    for (size_t i = 0; i < line->n_properties; i++) {
        free((char *)line->properties[i].name);
        free((char *)line->properties[i].value);
    }
    free(line->properties);
    *line = (struct upload_line){0};
}
