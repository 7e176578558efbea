/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/glance/yaml.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <yaml.h>

#include "qcow/base/cleanup.h"

enum {
    FILE_MAX = 1024 * 1024, /* a hundred clouds take some 50 KiB */
    /* An anchor may be merged into itself, and many times over. */
    MERGE_DEPTH_MAX = 5,
    MERGE_ITEMS_MAX = 16,
};

struct yaml {
    char *path;
    char *text;
    size_t len;
    yaml_document_t document;
    bool has_document;
};

static void wipe_document(yaml_document_t *document)
{
    for (yaml_node_t *node = document->nodes.start; node < document->nodes.top; node++)
        if (node->type == YAML_SCALAR_NODE)
            explicit_bzero(node->data.scalar.value, node->data.scalar.length);
    yaml_document_delete(document);
}

void yaml_close(struct yaml *yaml)
{
    if (!yaml)
        return;
    if (yaml->has_document)
        wipe_document(&yaml->document);
    if (yaml->text)
        explicit_bzero(yaml->text, yaml->len);
    free(yaml->text);
    free(yaml->path);
    free(yaml);
}

const char *yaml_path(const struct yaml *yaml)
{
    return yaml->path;
}

static int read_all(int fd, struct yaml *yaml, struct error *err)
{
    while (yaml->len < FILE_MAX) {
        ssize_t n = read(fd, yaml->text + yaml->len, FILE_MAX - yaml->len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set(err, -errno, "cannot read '%s': %s", yaml->path,
                             strerrordesc_np(errno));
        if (n == 0)
            return 0;
        yaml->len += (size_t)n;
    }
    return error_set(err, -EINVAL, "'%s' is larger than the %d bytes that are read", yaml->path,
                     FILE_MAX - 1);
}

static int read_file(struct yaml *yaml, struct error *err)
{
    /* Nonblocking: a FIFO must not hold up the mount. */
    auto_close int fd = open(yaml->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return error_set(err, -errno, "cannot open '%s': %s", yaml->path, strerrordesc_np(errno));
    if (!S_ISREG(st.st_mode))
        return error_set(err, -EINVAL, "'%s' is not a regular file", yaml->path);
    yaml->text = malloc(FILE_MAX);
    if (!yaml->text)
        return error_set(err, -ENOMEM, "out of memory");
    return read_all(fd, yaml, err);
}

/* libyaml's own copy of the text. */
static void wipe_parser(yaml_parser_t *parser)
{
    if (parser->raw_buffer.start)
        explicit_bzero(parser->raw_buffer.start,
                       (size_t)(parser->raw_buffer.end - parser->raw_buffer.start));
    if (parser->buffer.start)
        explicit_bzero(parser->buffer.start, (size_t)(parser->buffer.end - parser->buffer.start));
    yaml_parser_delete(parser);
}

/* The words of libyaml's problem hold nothing of the file; its text is not shown. */
static int explain(const yaml_parser_t *parser, const struct yaml *yaml, struct error *err)
{
    if (parser->error == YAML_MEMORY_ERROR)
        return error_set(err, -ENOMEM, "out of memory");
    return error_set(err, -EINVAL, "'%s', line %zu: %s", yaml->path, parser->problem_mark.line + 1,
                     parser->problem ? parser->problem : "is no YAML");
}

static int parse(struct yaml *yaml, struct error *err)
{
    yaml_parser_t parser;
    yaml_document_t next;
    if (!yaml_parser_initialize(&parser))
        return error_set(err, -ENOMEM, "out of memory");
    yaml_parser_set_input_string(&parser, (const unsigned char *)yaml->text, yaml->len);
    int r = 0;
    if (!yaml_parser_load(&parser, &yaml->document)) {
        r = explain(&parser, yaml, err);
    } else {
        yaml->has_document = true;
        if (!yaml_parser_load(&parser, &next)) {
            r = explain(&parser, yaml, err);
        } else {
            if (yaml_document_get_root_node(&next))
                r = error_set(err, -EINVAL, "'%s' holds more than one document", yaml->path);
            wipe_document(&next);
        }
    }
    wipe_parser(&parser);
    return r;
}

int yaml_open(const char *path, struct yaml **ret_yaml, struct error *err)
{
    struct yaml *yaml = calloc(1, sizeof(*yaml));
    if (!yaml || !(yaml->path = strdup(path))) {
        free(yaml);
        return error_set(err, -ENOMEM, "out of memory");
    }
    int r = read_file(yaml, err);
    if (r == 0)
        r = parse(yaml, err);
    if (r < 0) {
        yaml_close(yaml);
        return r;
    }
    *ret_yaml = yaml;
    return 0;
}

const struct yaml_node_s *yaml_root(struct yaml *yaml)
{
    return yaml_document_get_root_node(&yaml->document);
}

bool yaml_is_mapping(const struct yaml_node_s *node)
{
    return node && node->type == YAML_MAPPING_NODE;
}

static bool is_null(const yaml_node_t *node)
{
    static const char *const words[] = {"", "~", "null", "Null", "NULL"};
    if (node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return false;
    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
        if (strcmp((const char *)node->data.scalar.value, words[i]) == 0)
            return true;
    return false;
}

const char *yaml_text(const struct yaml_node_s *node)
{
    if (!node || node->type != YAML_SCALAR_NODE || is_null(node))
        return NULL;
    return (const char *)node->data.scalar.value;
}

const struct yaml_node_s *yaml_item(struct yaml *yaml, const struct yaml_node_s *node, size_t idx)
{
    if (!node || node->type != YAML_SEQUENCE_NODE)
        return NULL;
    const yaml_node_item_t *start = node->data.sequence.items.start;
    if (idx >= (size_t)(node->data.sequence.items.top - start))
        return NULL;
    return yaml_document_get_node(&yaml->document, start[idx]);
}

static size_t pairs_of(const yaml_node_t *mapping)
{
    return (size_t)(mapping->data.mapping.pairs.top - mapping->data.mapping.pairs.start);
}

const char *yaml_key(struct yaml *yaml, const struct yaml_node_s *node, size_t idx)
{
    if (!yaml_is_mapping(node) || idx >= pairs_of(node))
        return NULL;
    int key = node->data.mapping.pairs.start[idx].key;
    return yaml_text(yaml_document_get_node(&yaml->document, key));
}

static bool is_merge_key(const char *key)
{
    return key && strcmp(key, "<<") == 0;
}

static const yaml_node_t *get_at(struct yaml *yaml, const yaml_node_t *node, const char *key,
                                 unsigned depth);

/* "<<" has a mapping or a sequence of them, of which the first counts most. */
/* lint: clang-tidy/misc-no-recursion: MERGE_DEPTH_MAX ends it */
static const yaml_node_t *get_merged(struct yaml *yaml, const yaml_node_t *merged, const char *key,
                                     unsigned depth)
{
    if (yaml_is_mapping(merged))
        return get_at(yaml, merged, key, depth + 1);
    const yaml_node_t *item;
    for (size_t i = 0; i < MERGE_ITEMS_MAX && (item = yaml_item(yaml, merged, i)); i++) {
        const yaml_node_t *value = get_at(yaml, item, key, depth + 1);
        if (value)
            return value;
    }
    return NULL;
}

/* lint: clang-tidy/misc-no-recursion: MERGE_DEPTH_MAX ends it */
static const yaml_node_t *get_at(struct yaml *yaml, const yaml_node_t *node, const char *key,
                                 unsigned depth)
{
    const yaml_node_t *merged = NULL;
    if (!yaml_is_mapping(node) || depth > MERGE_DEPTH_MAX)
        return NULL;
    /* From the end: of a key that is there twice, the last one counts. */
    for (size_t i = pairs_of(node); i-- > 0;) {
        const char *found = yaml_key(yaml, node, i);
        const yaml_node_t *value =
            yaml_document_get_node(&yaml->document, node->data.mapping.pairs.start[i].value);
        if (found && strcmp(found, key) == 0)
            return value;
        if (is_merge_key(found))
            merged = value;
    }
    return get_merged(yaml, merged, key, depth);
}

const struct yaml_node_s *yaml_get(struct yaml *yaml, const struct yaml_node_s *node,
                                   const char *key)
{
    return get_at(yaml, node, key, 0);
}

/* lint: clang-tidy/misc-no-recursion: MERGE_DEPTH_MAX ends it */
static int each_at(struct yaml *yaml, const yaml_node_t *node, yaml_take *take, void *ctx,
                   unsigned depth)
{
    if (!yaml_is_mapping(node) || depth > MERGE_DEPTH_MAX)
        return 0;
    int r = 0;
    const yaml_node_t *merged = get_at(yaml, node, "<<", MERGE_DEPTH_MAX);
    size_t n_items = 0;
    while (n_items < MERGE_ITEMS_MAX && yaml_item(yaml, merged, n_items))
        n_items++;
    for (size_t i = n_items; i-- > 0 && r == 0;)
        r = each_at(yaml, yaml_item(yaml, merged, i), take, ctx, depth + 1);
    if (r == 0)
        r = each_at(yaml, merged, take, ctx, depth + 1);
    for (size_t i = 0; i < pairs_of(node) && r == 0; i++) {
        const char *key = yaml_key(yaml, node, i);
        const char *value = yaml_text(
            yaml_document_get_node(&yaml->document, node->data.mapping.pairs.start[i].value));
        if (key && value && !is_merge_key(key))
            r = take(ctx, key, value);
    }
    return r;
}

int yaml_each(struct yaml *yaml, const struct yaml_node_s *node, yaml_take *take, void *ctx)
{
    return each_at(yaml, node, take, ctx, 0);
}
