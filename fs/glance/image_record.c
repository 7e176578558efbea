/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The JSON of an image's record, and what Glance would take although nobody should ask for it, or
 * refuse with a page of schema.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/glance/image_internal.h"

enum {
    NAME_MAX_CHARS = 255,
    VALUE_MAX = 65535, /* bytes of a value that each of Glance's databases keeps */
    SHOWN_MAX = 64,    /* of a name, in a message */
};

static bool is_one_of(const char *text, const char *const *words)
{
    for (; *words; words++)
        if (strcmp(text, *words) == 0)
            return true;
    return false;
}

/* Attributes of the record itself: as a property, one of these would change the request. */
static bool is_reserved(const char *name)
{
    static const char *const words[] = {
        "id",
        "name",
        "status",
        "visibility",
        "protected",
        "checksum",
        "size",
        "owner",
        "tags",
        "created_at",
        "updated_at",
        "deleted_at",
        "direct_url",
        "min_ram",
        "min_disk",
        "self",
        "file",
        "schema",
        "stores",
        "location",
        "locations",
        "os_hidden",
        "os_hash_algo",
        "os_hash_value",
        "virtual_size",
        "deleted",
        "disk_format",
        "is_public",
        "container_format",
        NULL,
    };
    return is_one_of(name, words) || strncmp(name, "os_glance_", 10) == 0;
}

/* Why a text cannot be a name, or NULL. Glance's database has no room for 4-byte characters. */
static const char *find_fault(const char *text)
{
    size_t n_chars = 0;
    if (!*text)
        return "is empty";
    for (const unsigned char *at = (const unsigned char *)text; *at; at++) {
        if (*at < 0x20 || *at == 0x7f)
            return "has a control character";
        if (*at == 0xc2 && at[1] >= 0x80 && at[1] <= 0x9f)
            return "has a control character";
        if (*at >= 0xf0)
            return "has a character beyond U+FFFF, or is no UTF-8";
        n_chars += (*at & 0xc0) != 0x80;
    }
    return n_chars > NAME_MAX_CHARS ? "has more than 255 characters" : NULL;
}

static int check_name(const char *text, const char *what, struct error *err)
{
    const char *fault = find_fault(text);
    if (fault)
        return error_set(err, -EINVAL, "%s '%.*s' %s", what, SHOWN_MAX, text, fault);
    return 0;
}

static int put_string(json_t *json, const char *key, const char *value, const char *what,
                      struct error *err)
{
    json_t *string = json_string(value);
    if (!string)
        return error_set(err, -EINVAL, "%s '%.*s' is no UTF-8", what, SHOWN_MAX, key);
    if (json_object_set_new(json, key, string) < 0)
        return error_set(err, -EINVAL, "%s '%.*s' is no UTF-8", what, SHOWN_MAX, key);
    return 0;
}

static int put_property(json_t *json, const struct glance_property *property, struct error *err)
{
    int r = check_name(property->name, "the property's name", err);
    if (r < 0)
        return r;
    if (is_reserved(property->name))
        return error_set(err, -EINVAL, "'%s' is no property, but part of the image record",
                         property->name);
    if (strlen(property->value) > VALUE_MAX)
        return error_set(err, -EINVAL, "property '%.*s' is longer than %d bytes", SHOWN_MAX,
                         property->name, VALUE_MAX);
    for (const char *at = property->value; *at; at++)
        if ((unsigned char)*at >= 0xf0)
            return error_set(err, -EINVAL, "property '%.*s' has a character beyond U+FFFF",
                             SHOWN_MAX, property->name);
    return put_string(json, property->name, property->value, "property", err);
}

static int check_words(const struct glance_record *record, struct error *err)
{
    static const char *const formats[] = {"raw", "qcow2", NULL};
    static const char *const visibilities[] = {"private", "shared", "community", "public", NULL};
    if (!is_one_of(record->disk_format, formats))
        return error_set(err, -EINVAL, "format '%.*s' is neither raw nor qcow2", SHOWN_MAX,
                         record->disk_format);
    if (!is_one_of(record->visibility, visibilities))
        return error_set(err, -EINVAL,
                         "visibility '%.*s' is none of private, shared, community and public",
                         SHOWN_MAX, record->visibility);
    if (record->min_disk_gib > INT32_MAX || record->min_ram_mib > INT32_MAX)
        return error_set(err, -EINVAL, "min_disk or min_ram is larger than %d", INT32_MAX);
    return 0;
}

int image_record_make(const struct glance_record *record, json_t **ret_json, struct error *err)
{
    int r = check_name(record->name, "the image's name", err);
    if (r == 0)
        r = check_words(record, err);
    if (r < 0)
        return r;
    auto_json json_t *json =
        json_pack("{sssssssisi}", "disk_format", record->disk_format, "container_format", "bare",
                  "visibility", record->visibility, "min_disk", (int)record->min_disk_gib,
                  "min_ram", (int)record->min_ram_mib);
    if (!json)
        return error_set(err, -ENOMEM, "out of memory");
    r = put_string(json, "name", record->name, "the image's", err);
    for (size_t i = 0; i < record->n_properties && r == 0; i++)
        r = put_property(json, &record->properties[i], err);
    if (r < 0)
        return r;
    *ret_json = json_incref(json);
    return 0;
}
