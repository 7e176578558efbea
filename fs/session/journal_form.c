/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/json.h"
#include "fs/session/journal_internal.h"
#include "fs/state.h"
#include "qcow/base/cleanup.h"

enum {
    FILE_VERSION = 1,
    ID_LEN_MAX = 255,
    TARGET_MAX = 64,
    DISKS_MAX = 4096,
};

static const char first_line_start[] = "{\"sha256\": \"";
static const char first_line_end[] = "\",\n";
enum { FIRST_LINE_LEN = sizeof(first_line_start) + STATE_HASH_LEN + sizeof(first_line_end) - 3 };

bool journal_is_mark(const char *text)
{
    size_t prefix_len = strlen(CHANGE_MARK_PREFIX);
    return strlen(text) == CHANGE_MARK_LEN && strncmp(text, CHANGE_MARK_PREFIX, prefix_len) == 0 &&
           strspn(text + prefix_len, "0123456789abcdef") == CHANGE_MARK_LEN - prefix_len;
}

/* A UUID for libvirt's domains; others' ids need no more than this. */
static bool is_id(const char *text)
{
    size_t len = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-");
    return len > 0 && len <= ID_LEN_MAX && text[len] == '\0';
}

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* What is deleted one day: it must be of this change by its name. */
static int check_own_path(const struct change *change, const char *path, struct error *err)
{
    if (*path != '/')
        return error_set(err, -EINVAL, "path '%s' is not absolute", path);
    if (!strstr(last_part(path), change->mark))
        return error_set(err, -EINVAL, "the name of '%s' does not carry the mark '%s'", path,
                         change->mark);
    return 0;
}

/* @idx says which disk it is; those before it are checked. */
static int check_disk(const struct change *change, size_t idx, struct error *err)
{
    const struct change_disk *disk = &change->disks[idx];
    if (!*disk->target || strlen(disk->target) > TARGET_MAX || strchr(disk->target, '/'))
        return error_set(err, -EINVAL, "'%s' is not the target of a disk", disk->target);
    if (change_find_disk(change, disk->target) != disk)
        return error_set(err, -EINVAL, "disk '%s' is there twice", disk->target);
    if (*disk->base && *disk->base != '/')
        return error_set(err, -EINVAL, "path '%s' is not absolute", disk->base);
    return disk->file ? check_own_path(change, disk->file, err) : 0;
}

int journal_check(const struct change *change, struct error *err)
{
    if (!journal_is_mark(change->mark))
        return error_set(err, -EINVAL, "'%s' is not a mark of this program", change->mark);
    if (!is_id(change->domain_id))
        return error_set(err, -EINVAL, "'%s' is not a domain's id", change->domain_id);
    if (!*change->domain_name)
        return error_set(err, -EINVAL, "the domain has no name");
    if (change->n_disks > DISKS_MAX)
        return error_set(err, -EINVAL, "%zu disks, %d are possible", change->n_disks, DISKS_MAX);
    for (size_t i = 0; i < change->n_disks; i++) {
        int r = check_disk(change, i, err);
        if (r < 0)
            return r;
    }
    return change->socket ? check_own_path(change, change->socket, err) : 0;
}

/* JSON's null for NULL; NULL if there is no memory. */
static json_t *make_text(const char *text)
{
    if (!text)
        return json_null();
    auto_free char *escaped = state_escape(text);
    return escaped ? json_string(escaped) : NULL;
}

static json_t *make_disks(const struct change *change)
{
    json_t *disks = json_array();
    for (size_t i = 0; disks && i < change->n_disks; i++) {
        const struct change_disk *disk = &change->disks[i];
        json_t *value =
            json_pack("{so so ss so ss}", "target", make_text(disk->target), "base",
                      make_text(disk->base), "base_format", qcow_format_name(disk->base_format),
                      "file", make_text(disk->file), "merge", change_merge_name(disk->merge));
        if (json_array_append_new(disks, value) < 0) {
            json_decref(disks);
            return NULL;
        }
    }
    return disks;
}

/* json_pack() gives up what it was handed, and NULL, if any of the values is NULL. */
static json_t *make_body(const struct change *change, const char *source)
{
    return json_pack("{si so so ss so so ss sb sb sb sb sb so so}", "version", FILE_VERSION,
                     "explanation", journal_explain(change, source), "source", make_text(source),
                     "method", change_method_name(change->method), "domain",
                     make_text(change->domain_name), "uuid", make_text(change->domain_id), "mark",
                     change->mark, "is_persistent", change->is_persistent, "was_paused",
                     change->was_paused, "is_frozen", change->is_frozen, "is_halted",
                     change->is_halted, "is_made", change->is_made, "socket",
                     make_text(change->socket), "disks", make_disks(change));
}

int journal_encode(const struct change *change, const char *source, char **ret_text,
                   struct error *err)
{
    int r = journal_check(change, err);
    if (r < 0) {
        error_prefix(err, "not fit for the journal");
        return r;
    }
    json_t *body = make_body(change, source);
    auto_free char *dump = body ? json_print(body, JSON_INDENT(1)) : NULL;
    json_decref(body);
    if (!dump)
        return error_set(err, -ENOMEM, "out of memory");
    if (strlen(dump) + FIRST_LINE_LEN + 1 > JOURNAL_FILE_MAX)
        return error_set(err, -EINVAL, "not fit for the journal: longer than %d bytes",
                         JOURNAL_FILE_MAX);
    /* Behind "{\n" of the dump: our first line takes its place. */
    char hash[STATE_HASH_LEN];
    char *rest = NULL, *text = NULL;
    if (asprintf(&rest, "%s\n", dump + 2) < 0)
        return error_set(err, -ENOMEM, "out of memory");
    state_hash(rest, strlen(rest), hash);
    if (asprintf(&text, "%s%s%s%s", first_line_start, hash, first_line_end, rest) < 0)
        r = -ENOMEM;
    free(rest);
    if (r < 0)
        return error_set(err, r, "out of memory");
    *ret_text = text;
    return 0;
}

/* Before anything in it is believed. 0 or -EBADMSG. */
static int check_hash(const char *text, size_t len, struct error *err)
{
    size_t start_len = strlen(first_line_start), end_len = strlen(first_line_end);
    char hash[STATE_HASH_LEN];
    if (len < FIRST_LINE_LEN || memcmp(text, first_line_start, start_len) != 0 ||
        memcmp(text + FIRST_LINE_LEN - end_len, first_line_end, end_len) != 0)
        return error_set(err, -EBADMSG, "it does not begin with a checksum");
    state_hash(text + FIRST_LINE_LEN, len - FIRST_LINE_LEN, hash);
    if (memcmp(text + start_len, hash, STATE_HASH_LEN - 1) != 0)
        return error_set(err, -EBADMSG, "the checksum is wrong: cut off or changed");
    return 0;
}

/* Where a string of the entry goes; @value is a string, or null where that may be. */
static int take_text(const json_t *value, char **where, struct error *err)
{
    if (json_is_null(value))
        return 0;
    const char *text = json_string_value(value);
    *where = text ? state_unescape(text) : NULL;
    if (*where)
        return 0;
    if (text && errno == ENOMEM)
        return error_set(err, -ENOMEM, "out of memory");
    return error_set(err, -EBADMSG, "a string that was not written by this program");
}

static int decode_disk(json_t *value, struct change *change, struct error *err)
{
    const char *format_word, *merge_word;
    json_t *target_text, *base_text, *file_text;
    json_error_t why;
    enum qcow_format format;
    enum change_merge merge;
    if (json_unpack_ex(value, &why, JSON_STRICT, "{so so ss so ss}", "target", &target_text, "base",
                       &base_text, "base_format", &format_word, "file", &file_text, "merge",
                       &merge_word) < 0)
        return error_set(err, -EBADMSG, "a disk in it: %s", why.text);
    if (!json_is_string(target_text) || !json_is_string(base_text) ||
        qcow_format_parse(format_word, &format) < 0 || change_merge_parse(merge_word, &merge) < 0)
        return error_set(err, -EBADMSG, "a disk in it that no version writes");
    auto_free char *target = NULL;
    auto_free char *base = NULL;
    auto_free char *file = NULL;
    int r = take_text(target_text, &target, err);
    if (r == 0)
        r = take_text(base_text, &base, err);
    if (r == 0)
        r = take_text(file_text, &file, err);
    if (r == 0)
        r = change_add_disk(change, target, base, format, file, err);
    if (r == 0)
        change->disks[change->n_disks - 1].merge = merge;
    return r;
}

static int decode_disks(json_t *disks, struct change *change, struct error *err)
{
    if (!json_is_array(disks))
        return error_set(err, -EBADMSG, "no list of disks");
    size_t i;
    json_t *disk;
    json_array_foreach(disks, i, disk)
    {
        int r = decode_disk(disk, change, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* What of the entry is not about the domain, and its strings. */
struct head {
    const char *method;
    json_t *explanation, *source, *name, *id, *mark, *socket, *disks;
};

static int unpack_head(json_t *root, struct head *head, struct change *change, struct error *err)
{
    /* Alone and first: another version may have any other fields. */
    json_t *version = json_object_get(root, "version");
    if (!json_is_integer(version))
        return error_set(err, -EBADMSG, "it has no version");
    if (json_integer_value(version) != FILE_VERSION)
        return error_set(err, -EBADMSG, "it is of version %lld, this program knows version %d",
                         (long long)json_integer_value(version), FILE_VERSION);
    int number, is_persistent, was_paused, is_frozen, is_halted, is_made;
    const char *hash;
    json_error_t why;
    if (json_unpack_ex(root, &why, JSON_STRICT, "{ss si so so ss so so so sb sb sb sb sb so so}",
                       "sha256", &hash, "version", &number, "explanation", &head->explanation,
                       "source", &head->source, "method", &head->method, "domain", &head->name,
                       "uuid", &head->id, "mark", &head->mark, "is_persistent", &is_persistent,
                       "was_paused", &was_paused, "is_frozen", &is_frozen, "is_halted", &is_halted,
                       "is_made", &is_made, "socket", &head->socket, "disks", &head->disks) < 0)
        return error_set(err, -EBADMSG, "%s", why.text);
    if (!json_is_array(head->explanation) || !json_is_string(head->source) ||
        !json_is_string(head->name) || !json_is_string(head->id) || !json_is_string(head->mark))
        return error_set(err, -EBADMSG, "a field of a kind that no version writes");
    change->is_persistent = is_persistent;
    change->was_paused = was_paused;
    change->is_frozen = is_frozen;
    change->is_halted = is_halted;
    change->is_made = is_made;
    return 0;
}

static int decode_root(json_t *root, const char *source, const char *mark, struct change *change,
                       struct error *err)
{
    struct head head = {0};
    auto_free char *its_source = NULL;
    int r = unpack_head(root, &head, change, err);
    if (r == 0 && change_method_parse(head.method, &change->method) < 0)
        r = error_set(err, -EBADMSG, "unknown method '%s'", head.method);
    if (r == 0)
        r = take_text(head.source, &its_source, err);
    if (r == 0)
        r = take_text(head.name, &change->domain_name, err);
    if (r == 0)
        r = take_text(head.id, &change->domain_id, err);
    if (r == 0)
        r = take_text(head.mark, &change->mark, err);
    if (r == 0)
        r = take_text(head.socket, &change->socket, err);
    if (r == 0)
        r = decode_disks(head.disks, change, err);
    if (r < 0)
        return r;
    if (strcmp(its_source, source) != 0)
        return error_set(err, -EBADMSG, "it is about source '%s'", its_source);
    if (strcmp(change->mark, mark) != 0)
        return error_set(err, -EBADMSG, "it has the mark '%s', which is not its name",
                         change->mark);
    struct error why = {0};
    return journal_check(change, &why) < 0 ? error_set(err, -EBADMSG, "%s", why.text) : 0;
}

int journal_decode(const char *text, size_t len, const char *source, const char *mark,
                   struct change **ret_change, struct error *err)
{
    int r = check_hash(text, len, err);
    if (r < 0)
        return r;
    json_error_t why;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
    if (!root)
        return error_set(err, -EBADMSG, "no JSON: %s", why.text);
    struct change *change = calloc(1, sizeof(*change));
    r = change ? decode_root(root, source, mark, change, err)
               : error_set(err, -ENOMEM, "out of memory");
    json_decref(root);
    if (r < 0)
        change_free(change);
    else
        *ret_change = change;
    return r;
}
