/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Those that go on or wait, the failures of late, and how many others there were. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/report/screen.h"

enum {
    FAILED_SHOWN = 5,      /* the newest of them, */
    FAILED_SHOWN_S = 3600, /* as long as nobody may have seen them */
    STALLED_S = 10,        /* a network may be busy for so long */
};

enum rank { RUNNING, WAITING, FAILED, ACTIVE };

static enum rank rank_of(const json_t *upload)
{
    const char *state = text_of(upload, "state", "");
    if (strcmp(state, "queued") == 0)
        return WAITING;
    if (strcmp(state, "failed") == 0)
        return FAILED;
    return strcmp(state, "active") == 0 ? ACTIVE : RUNNING;
}

static int compare_numbers(json_int_t a, json_int_t b)
{
    return (a > b) - (a < b);
}

/* What runs before what waits, in the order of their turns; then what has ended, newest first. */
static int compare_uploads(const void *a, const void *b)
{
    const json_t *x = ((const struct upload_row *)a)->upload;
    const json_t *y = ((const struct upload_row *)b)->upload;
    int by_rank = compare_numbers(rank_of(x), rank_of(y));
    if (by_rank != 0)
        return by_rank;
    bool has_ended = rank_of(x) >= FAILED;
    int by_end = has_ended ? compare_numbers(number_of(x, "ended_s"), number_of(y, "ended_s")) : 0;
    if (by_end != 0)
        return by_end;
    int by_id = compare_numbers(number_of(x, "id"), number_of(y, "id"));
    return has_ended ? -by_id : by_id;
}

static int collect(const json_t *domains, struct upload_list *list)
{
    const json_t *domain, *upload;
    for (size_t i = 0; (domain = json_array_get(domains, i)); i++) {
        for (size_t k = 0; (upload = nth_of(domain, "uploads", k)); k++) {
            struct upload_row *grown = reallocarray(list->rows, list->n + 1, sizeof(*list->rows));
            if (!grown)
                return -ENOMEM;
            list->rows = grown;
            list->rows[list->n++] = (struct upload_row){domain, upload};
        }
    }
    return 0;
}

static void count_ranks(struct upload_list *list)
{
    size_t *const counts[] = {[RUNNING] = &list->n_running,
                              [WAITING] = &list->n_waiting,
                              [FAILED] = &list->n_failed,
                              [ACTIVE] = &list->n_active};
    for (size_t i = 0; i < list->n; i++)
        (*counts[rank_of(list->rows[i].upload)])++;
}

/* To the front, what is shown: of the failed ones the first few, of the active ones the first. */
static void choose_shown(struct upload_list *list)
{
    size_t first_failed = list->n_running + list->n_waiting;
    size_t first_active = first_failed + list->n_failed;
    size_t n = first_failed;
    while (n < first_active && n < first_failed + FAILED_SHOWN &&
           number_of(list->rows[n].upload, "ended_s") < FAILED_SHOWN_S)
        n++;
    if (list->n_active > 0) {
        struct upload_row newest = list->rows[first_active];
        list->rows[first_active] = list->rows[n];
        list->rows[n++] = newest;
    }
    list->n_shown = n;
}

int upload_list_make(const json_t *domains, struct upload_list *ret_list)
{
    struct upload_list list = {0};
    if (collect(domains, &list) < 0) {
        upload_list_fini(&list);
        return -ENOMEM;
    }
    if (list.n > 0)
        qsort(list.rows, list.n, sizeof(*list.rows), compare_uploads);
    count_ranks(&list);
    choose_shown(&list);
    *ret_list = list;
    return 0;
}

void upload_list_fini(struct upload_list *list)
{
    free(list->rows);
    list->rows = NULL;
}

const json_t *upload_list_find(const struct upload_list *list, json_int_t id)
{
    for (size_t i = 0; i < list->n; i++)
        if (number_of(list->rows[i].upload, "id") == id)
            return list->rows[i].upload;
    return NULL;
}

bool upload_list_explains(const struct upload_list *list, json_int_t id)
{
    for (size_t i = 0; i < list->n_shown; i++)
        if (number_of(list->rows[i].upload, "id") == id)
            return rank_of(list->rows[i].upload) == FAILED;
    return false;
}

static void print_count(size_t n, const char *what, const char **separator, FILE *to)
{
    if (n == 0)
        return;
    fprintf(to, "%s%zu %s", *separator, n, what);
    *separator = ", ";
}

void upload_list_sum_up(const struct upload_list *list, FILE *to)
{
    const char *separator = ": ";
    if (list->n == 0)
        return;
    fprintf(to, "%zu upload%s", list->n, list->n == 1 ? "" : "s");
    print_count(list->n_running, "under way", &separator, to);
    print_count(list->n_waiting, list->n_waiting == 1 ? "waits" : "wait", &separator, to);
    print_count(list->n_failed, "failed", &separator, to);
    print_count(list->n_active, "active", &separator, to);
    fputc('\n', to);
}

static void add_failure(struct columns *table, const json_t *upload)
{
    char ago[COLUMNS_SPAN_LEN];
    char attempt[48] = "";
    json_int_t n = number_of(upload, "attempt");
    columns_format_span(number_of(upload, "ended_s"), ago);
    if (n > 1)
        snprintf(attempt, sizeof(attempt), ", at attempt %lld", (long long)n);
    columns_add_note(table, "%s ago%s: %s", ago, attempt, text_of(upload, "error", "?"));
}

static void add_notes(struct columns *table, const json_t *upload)
{
    if (rank_of(upload) == FAILED) {
        add_failure(table, upload);
        return;
    }
    json_int_t attempt = number_of(upload, "attempt"), idle_s = number_of(upload, "idle_s");
    const char *retry = text_of(upload, "retry", NULL);
    if (attempt > 1 && rank_of(upload) == RUNNING)
        columns_add_note(table, "attempt %lld%s%s", (long long)attempt, retry ? ", after: " : "",
                         retry ? retry : "");
    if (idle_s < STALLED_S)
        return;
    char idle[COLUMNS_SPAN_LEN];
    columns_format_span(idle_s, idle);
    columns_add_note(table, "nothing moved for %s", idle);
}

void add_upload_progress(struct columns *table, const json_t *upload)
{
    const json_t *speed = json_object_get(upload, "speed");
    const json_t *rest_s = json_object_get(upload, "eta_s");
    char size[COLUMNS_SIZE_LEN] = "-";
    if (json_object_get(upload, "size"))
        columns_format_size((unsigned long long)number_of(upload, "size"), size);
    columns_add(table, "%lld", (long long)number_of(upload, "percent"));
    columns_add(table, "%s", size);
    add_pace(table, speed ? (double)json_integer_value(speed) : -1,
             rest_s ? json_integer_value(rest_s) : -1);
}

static void add_upload(struct columns *table, const struct upload_row *row)
{
    const json_t *upload = row->upload;
    columns_add(table, "%lld", (long long)number_of(upload, "id"));
    columns_add(table, "%s", text_of(row->domain, "directory", "?"));
    columns_add(table, "%s", text_of(upload, "disk", "-"));
    columns_add(table, "%s", text_of(upload, "image_name", "-"));
    columns_add(table, "%s", text_of(upload, "state", "?"));
    add_upload_progress(table, upload);
    add_notes(table, upload);
}

/* Where the others are told, if they are of one domain. */
static const char *find_directory(const struct upload_list *list)
{
    const char *found = NULL;
    for (size_t i = list->n_shown; i < list->n; i++) {
        const char *directory = text_of(list->rows[i].domain, "directory", "?");
        if (found && strcmp(found, directory) != 0)
            return "DOMAIN";
        found = directory;
    }
    return found;
}

static void print_others(const struct upload_list *list, FILE *to)
{
    size_t n = list->n - list->n_shown, n_failed = 0;
    for (size_t i = list->n_shown; i < list->n; i++)
        n_failed += rank_of(list->rows[i].upload) == FAILED;
    if (n == 0)
        return;
    if (list->n_shown > 0)
        fprintf(to, "%zu more %s ended", n, n == 1 ? "has" : "have");
    else
        fprintf(to, "\n%zu upload%s ended", n, n == 1 ? " has" : "s have");
    if (n_failed > 0)
        fprintf(to, ", %zu of them failed", n_failed);
    fputs(": see ", to);
    print_shown(find_directory(list), to);
    fputs("/upload\n", to);
}

int draw_uploads(const struct upload_list *list, const struct canvas *canvas)
{
    static const char *const headings[] = {">ID", "DOMAIN", "DISK",   "IMAGE-NAME", "STATE",
                                           ">%",  ">SIZE",  ">SPEED", ">LEFT"};
    __attribute__((cleanup(columns_fini))) struct columns table = COLUMNS_INIT(headings);
    for (size_t i = 0; i < list->n_shown; i++)
        add_upload(&table, &list->rows[i]);
    int r = draw_table("Uploads", &table, canvas);
    if (r == 0)
        print_others(list, canvas->to);
    return r;
}
