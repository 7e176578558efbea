/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/report/screen.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "qcow/base/cleanup.h"
#include "qcow/base/text.h"

const char *text_of(const json_t *object, const char *key, const char *none)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : none;
}

const json_t *nth_of(const json_t *object, const char *key, size_t i)
{
    return json_array_get(json_object_get(object, key), i);
}

json_int_t number_of(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static size_t count(const json_t *object, const char *key)
{
    return json_array_size(json_object_get(object, key));
}

/* Paths are anybody's to choose, who may mount. */
void print_shown(const char *text, FILE *to)
{
    auto_free char *copy = strdup(text);
    if (!copy)
        return;
    text_hide_controls(copy);
    fputs(copy, to);
}

int draw_table(const char *title, struct columns *table, const struct canvas *canvas)
{
    if (!table->n_cells && !table->is_failed)
        return 0;
    table->max_width = canvas->max_width;
    fprintf(canvas->to, "\n%s\n", title);
    return columns_print(table, canvas->to);
}

void add_pace(struct columns *table, double speed, json_int_t rest_s)
{
    char speed_text[COLUMNS_SPAN_LEN] = "-", rest_text[COLUMNS_SPAN_LEN] = "-";
    if (speed >= 0)
        columns_format_speed(speed, speed_text);
    if (rest_s >= 0)
        columns_format_span(rest_s, rest_text);
    columns_add(table, "%s", speed_text);
    columns_add(table, "%s", rest_text);
}

/* ---- Domains with something going on ---- */

static void add_targets(struct columns *table, const json_t *domain)
{
    char text[64] = "";
    const json_t *disk;
    for (size_t i = 0; (disk = nth_of(domain, "disks", i)); i++) {
        size_t used = strlen(text);
        const char *target = text_of(disk, "target", "?");
        if (used + strlen(target) + 5 > sizeof(text)) {
            snprintf(text + used, sizeof(text) - used, " ...");
            break;
        }
        snprintf(text + used, sizeof(text) - used, "%s%s", i ? " " : "", target);
    }
    columns_add(table, "%s", *text ? text : "-");
}

static void add_instant(struct columns *table, const json_t *domain, const json_t *instant)
{
    char age[COLUMNS_SPAN_LEN] = "-";
    char overlay[COLUMNS_SIZE_LEN] = "-";
    if (json_object_get(instant, "age_s"))
        columns_format_span(number_of(instant, "age_s"), age);
    if (json_object_get(instant, "overlay_bytes"))
        columns_format_size((unsigned long long)number_of(instant, "overlay_bytes"), overlay);
    columns_add(table, "%s", text_of(domain, "directory", "?"));
    columns_add(table, "%s", text_of(domain, "state", "?"));
    add_targets(table, domain);
    columns_add(table, "%s", text_of(instant, "state", "?"));
    columns_add(table, "%s", text_of(instant, "method", "-"));
    columns_add(table, "%s", age);
    columns_add(table, "%s", overlay);
    columns_add(table, "%s", text_of(instant, "consistency", "-"));
}

/* Who reads each is told below. */
static int draw_instants(const json_t *domains, const struct canvas *canvas)
{
    static const char *const headings[] = {"DOMAIN", "STATE", "DISKS",    "INSTANT",
                                           "METHOD", ">AGE",  ">OVERLAY", "CONSISTENCY"};
    __attribute__((cleanup(columns_fini))) struct columns table = COLUMNS_INIT(headings);
    const json_t *domain, *instant;
    for (size_t i = 0; (domain = json_array_get(domains, i)); i++)
        for (size_t k = 0; (instant = nth_of(domain, "instants", k)); k++)
            add_instant(&table, domain, instant);
    return draw_table("Instants", &table, canvas);
}

/* ---- What needs a person's eye ---- */

static int draw_leftovers(const json_t *domains, const struct canvas *canvas)
{
    static const char *const headings[] = {"DOMAIN", "METHOD", "STATE", "FILE", "REASON"};
    __attribute__((cleanup(columns_fini))) struct columns table = COLUMNS_INIT(headings);
    const json_t *domain, *left;
    for (size_t i = 0; (domain = json_array_get(domains, i)); i++)
        for (size_t k = 0; (left = nth_of(domain, "leftovers", k)); k++) {
            const json_t *file = json_array_get(json_object_get(left, "files"), 0);
            columns_add(&table, "%s", text_of(domain, "directory", "?"));
            columns_add(&table, "%s", text_of(left, "method", "-"));
            columns_add(&table, "%s", text_of(left, "state", "-"));
            columns_add(&table, "%s", file ? json_string_value(file) : "-");
            columns_add(&table, "%s", text_of(left, "reason", ""));
        }
    return draw_table("Left over: to be put back as they were", &table, canvas);
}

/* Nothing is wrong with these, and nothing is to be done about them here. */
static int draw_elsewhere(const json_t *domains, const struct canvas *canvas)
{
    static const char *const headings[] = {"DOMAIN", "METHOD", "FILE", ">PID"};
    __attribute__((cleanup(columns_fini))) struct columns table = COLUMNS_INIT(headings);
    const json_t *domain, *used;
    for (size_t i = 0; (domain = json_array_get(domains, i)); i++)
        for (size_t k = 0; (used = nth_of(domain, "elsewhere", k)); k++) {
            const json_t *file = json_array_get(json_object_get(used, "files"), 0);
            columns_add(&table, "%s", text_of(domain, "directory", "?"));
            columns_add(&table, "%s", text_of(used, "method", "-"));
            columns_add(&table, "%s", file ? json_string_value(file) : "-");
            columns_add(&table, "%lld", (long long)number_of(used, "pid"));
        }
    return draw_table("In use by another mount, with another state=", &table, canvas);
}

/* Of one moment, or of a file that cannot be read now. All borrowed. */
struct error_row {
    const char *time; /* NULL: now */
    const char *directory, *what, *text;
};

struct error_list {
    struct error_row *rows;
    size_t n;
    bool is_failed; /* no memory */
};

static void add_error(struct error_list *list, const struct error_row *row)
{
    struct error_row *grown =
        row->text ? reallocarray(list->rows, list->n + 1, sizeof(*list->rows)) : NULL;
    list->is_failed |= row->text && !grown;
    if (!grown)
        return;
    list->rows = grown;
    list->rows[list->n++] = *row;
}

/* That of an upload stands with it, if it is shown at all. */
static bool is_shown_elsewhere(const json_t *error, const struct upload_list *uploads)
{
    static const char prefix[] = "upload ";
    const char *what = text_of(error, "what", "");
    if (strncmp(what, prefix, strlen(prefix)) != 0)
        return false;
    char *end;
    long long id = strtoll(what + strlen(prefix), &end, 10);
    return (*end == ':' || !*end) && upload_list_explains(uploads, id);
}

static void collect_errors(const json_t *domain, const struct upload_list *uploads,
                           struct error_list *list)
{
    const json_t *disk, *error;
    const char *directory = text_of(domain, "directory", "?");
    struct error_row whole = {NULL, directory, "status", text_of(domain, "error", NULL)};
    add_error(list, &whole);
    for (size_t i = 0; (disk = nth_of(domain, "disks", i)); i++) {
        struct error_row row = {NULL, directory, text_of(disk, "target", "?"),
                                text_of(disk, "reason", NULL)};
        add_error(list, &row);
    }
    for (size_t i = count(domain, "errors"); i > 0 && (error = nth_of(domain, "errors", i - 1));
         i--) {
        struct error_row row = {text_of(error, "time", "?"), directory, text_of(error, "what", "-"),
                                text_of(error, "text", "?")};
        if (!is_shown_elsewhere(error, uploads))
            add_error(list, &row);
    }
}

/* What lasts, then the newest first: RFC 3339 in UTC sorts as text does. */
static int compare_errors(const void *a, const void *b)
{
    const struct error_row *x = a, *y = b;
    if (x->time && y->time)
        return strcmp(y->time, x->time);
    if (x->time || y->time)
        return x->time ? 1 : -1;
    int r = strcmp(x->directory, y->directory);
    return r ? r : strcmp(x->what, y->what);
}

static int draw_errors(const json_t *domains, const struct upload_list *uploads,
                       const struct canvas *canvas)
{
    static const char *const headings[] = {"TIME", "DOMAIN", "FILE", "ERROR"};
    __attribute__((cleanup(columns_fini))) struct columns table = COLUMNS_INIT(headings);
    struct error_list list = {0};
    const json_t *domain;
    for (size_t i = 0; (domain = json_array_get(domains, i)); i++)
        collect_errors(domain, uploads, &list);
    if (list.n > 0)
        qsort(list.rows, list.n, sizeof(*list.rows), compare_errors);
    for (size_t i = 0; i < list.n; i++) {
        const char *time = list.rows[i].time;
        columns_add(&table, "%.19s%s", time ? time : "now", time ? "Z" : "");
        columns_add(&table, "%s", list.rows[i].directory);
        columns_add(&table, "%s", list.rows[i].what);
        columns_add(&table, "%s", list.rows[i].text);
    }
    free(list.rows);
    return list.is_failed ? -ENOMEM : draw_table("Errors", &table, canvas);
}

static size_t sum(const json_t *domains, const char *key)
{
    size_t n = 0;
    const json_t *domain;
    for (size_t i = 0; (domain = json_array_get(domains, i)); i++)
        n += count(domain, key);
    return n;
}

static void draw_head(const struct sample *now, const struct upload_list *uploads, FILE *to)
{
    const json_t *domains = json_object_get(now->root, "domains");
    size_t n = json_array_size(domains), n_instants = sum(domains, "instants");
    print_shown(text_of(now->root, "source", "?"), to);
    fputs(" on ", to);
    print_shown(text_of(now->root, "mountpoint", "?"), to);
    fprintf(to, ", %s\n", text_of(now->root, "time", "?"));
    fprintf(to, "%zu domain%s, %zu instant%s, %s%zu left over\n", n, n == 1 ? "" : "s", n_instants,
            n_instants == 1 ? "" : "s", uploads->n ? "" : "0 uploads, ", sum(domains, "leftovers"));
    upload_list_sum_up(uploads, to);
}

int sample_draw(const struct sample *sample, const struct sample *before, size_t max_width,
                FILE *to)
{
    const struct canvas canvas = {.to = to, .max_width = max_width};
    const json_t *domains = json_object_get(sample->root, "domains");
    __attribute__((cleanup(upload_list_fini))) struct upload_list uploads = {0};
    int r = upload_list_make(domains, &uploads);
    if (r < 0)
        return r;
    draw_head(sample, &uploads, to);
    r = draw_instants(domains, &canvas);
    if (r == 0)
        r = draw_readers(sample, before, &uploads, &canvas);
    if (r == 0)
        r = draw_uploads(&uploads, &canvas);
    if (r == 0)
        r = draw_elsewhere(domains, &canvas);
    if (r == 0)
        r = draw_leftovers(domains, &canvas);
    return r < 0 ? r : draw_errors(domains, &uploads, &canvas);
}
