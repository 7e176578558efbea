/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is in an answer of Keystone or Glance: JSON that nobody vouches for, and error messages made
 * fit to be shown. Pure; any thread.
 */
#pragma once

#include <stdbool.h>

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/glance/config.h"
#include "fs/glance/http.h"

static inline void json_cleanup(json_t **where)
{
    json_decref(*where);
}
#define auto_json __attribute__((cleanup(json_cleanup)))

/* The body as an object; NULL if it is none. Returns owned. */
json_t *answer_json(const struct http_answer *answer);

/* The string called @key, NULL if there is none; borrowed. */
const char *json_text(const json_t *object, const char *key);

enum { ANSWER_TEXT_MAX = 400 };

/*
 * The message in an answer that says no: of Glance's or Keystone's JSON, or the words of HTML, in
 * one line of printable UTF-8, with "***" in place of the secrets of @config and of @token (may be
 * NULL). "" if there is none.
 */
void answer_message(const struct http_answer *answer, const struct glance_config *config,
                    const char *token, char ret_text[ANSWER_TEXT_MAX]);

/* Whether the message was JSON, as the services themselves say it, and no proxy on the way. */
bool answer_is_from_service(const struct http_answer *answer);

/* "2026-11-21T21:50:22.000000Z" as seconds since the epoch; -1 if it is none. */
int64_t answer_time(const char *text);
