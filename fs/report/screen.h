/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The parts of a screen: what screen.c, readers.c and uploads.c share. Main thread. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "fs/columns.h"
#include "fs/report/sample.h"

/* Where it is drawn. */
struct canvas {
    FILE *to;
    size_t max_width; /* 0: no limit */
};

/* Text of a member, or @none. */
const char *text_of(const json_t *object, const char *key, const char *none);
/* The i-th of an array that is a member; NULL past the end. */
const json_t *nth_of(const json_t *object, const char *key, size_t i);
json_int_t number_of(const json_t *object, const char *key); /* 0 if it is not there */

/* Text with nothing in it that a terminal would obey. */
void print_shown(const char *text, FILE *to);

/* Title and table, but nothing at all if it has no row. 0 or -ENOMEM. */
int draw_table(const char *title, struct columns *table, const struct canvas *canvas);

/* The speed and what is left, where they are known: both may be negative. */
void add_pace(struct columns *table, double speed, json_int_t rest_s);

/* ---- uploads.c ---- */

struct upload_row {
    const json_t *domain, *upload;
};

/* Which are shown comes first, in the order in which it is. The rows are owned. */
struct upload_list {
    struct upload_row *rows;
    size_t n, n_shown;
    size_t n_running, n_waiting, n_failed, n_active;
};

/* Of all domains; borrows from them. 0 or -ENOMEM; upload_list_fini() releases it. */
int upload_list_make(const json_t *domains, struct upload_list *ret_list);
void upload_list_fini(struct upload_list *list);
/* The upload of that number; NULL: it is not in the list. */
const json_t *upload_list_find(const struct upload_list *list, json_int_t id);
/* True if that one's failure is shown with it. */
bool upload_list_explains(const struct upload_list *list, json_int_t id);
/* "13 uploads: 2 under way, ...", if there are any. */
void upload_list_sum_up(const struct upload_list *list, FILE *to);
/* Four cells: per cent, size, speed, time left. */
void add_upload_progress(struct columns *table, const json_t *upload);
int draw_uploads(const struct upload_list *list, const struct canvas *canvas);

/* ---- readers.c ---- */

/* @before: see sample_draw() */
int draw_readers(const struct sample *now, const struct sample *before,
                 const struct upload_list *uploads, const struct canvas *canvas);
