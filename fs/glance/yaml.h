/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One YAML (or JSON) file as a tree that can be asked for keys; anchors and merge keys ("<<") are
 * followed. The only user of libyaml. Main thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "qcow/base/error.h"

struct yaml;
struct yaml_node_s; /* libyaml's */

/*
 * Reads the file; the path is kept.
 *
 * 0; -EINVAL malformed, several documents or too large; a negative errno of open or read; -ENOMEM
 */
int yaml_open(const char *path, struct yaml **ret_yaml, struct error *err);
void yaml_close(struct yaml *yaml); /* overwrites all scalars; NULL is fine */
const char *yaml_path(const struct yaml *yaml);

/* A place in the tree, borrowed; NULL where there is nothing, and then nothing below. */
const struct yaml_node_s *yaml_root(struct yaml *yaml);

/* The value of @key in a mapping; NULL if there is none, or if @node is no mapping. */
const struct yaml_node_s *yaml_get(struct yaml *yaml, const struct yaml_node_s *node,
                                   const char *key);
/* The items of a sequence, NULL past its end or if @node is none. */
const struct yaml_node_s *yaml_item(struct yaml *yaml, const struct yaml_node_s *node, size_t idx);

/*
 * Text of a scalar, terminated; NULL for null, and for what is no scalar. A text with a NUL inside
 * ends there.
 */
const char *yaml_text(const struct yaml_node_s *node);
bool yaml_is_mapping(const struct yaml_node_s *node);

/*
 * Calls @take for each key with a scalar value in the mapping, those of merge keys first, so that
 * the later call is the one that counts. Stops at a negative result, and returns it.
 */
typedef int yaml_take(void *ctx, const char *key, const char *value);
int yaml_each(struct yaml *yaml, const struct yaml_node_s *node, yaml_take *take, void *ctx);

/* The @idx-th own key of a mapping with any kind of value, or NULL. */
const char *yaml_key(struct yaml *yaml, const struct yaml_node_s *node, size_t idx);
