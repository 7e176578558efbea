/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who reads what, how much of it, and how fast. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "fs/report/screen.h"
#include "qcow/base/cleanup.h"

enum {
    SPEED_MIN_MS = 1000, /* one that is shown comes of so much time at least, */
    REST_MIN_MS = 3000,  /* and what it leads to of so much */
    RECENT_MIN_MS = 5000,
};

/* An open file: of the instant, or of a named snapshot. */
struct reader_row {
    const json_t *domain, *reader;
};

struct reader_list {
    struct reader_row *rows;
    size_t n;
};

static void reader_list_fini(struct reader_list *list)
{
    free(list->rows);
}
#define auto_readers __attribute__((cleanup(reader_list_fini)))

static int add_row(struct reader_list *list, const json_t *domain, const json_t *reader)
{
    struct reader_row *grown = reallocarray(list->rows, list->n + 1, sizeof(*list->rows));
    if (!grown)
        return -ENOMEM;
    list->rows = grown;
    list->rows[list->n++] = (struct reader_row){domain, reader};
    return 0;
}

static int add_rows(struct reader_list *list, const json_t *domain)
{
    const json_t *instant, *reader;
    int r = 0;
    for (size_t k = 0; (instant = nth_of(domain, "instants", k)); k++)
        for (size_t m = 0; r == 0 && (reader = nth_of(instant, "readers", m)); m++)
            r = add_row(list, domain, reader);
    for (size_t k = 0; r == 0 && (reader = nth_of(domain, "snapshot_readers", k)); k++)
        r = add_row(list, domain, reader);
    return r;
}

static int collect(const struct sample *sample, struct reader_list *list)
{
    const json_t *domains = json_object_get(sample->root, "domains"), *domain;
    int r = 0;
    for (size_t i = 0; r == 0 && (domain = json_array_get(domains, i)); i++)
        r = add_rows(list, domain);
    return r;
}

/* "vdb" before "vdaa" */
static int compare_targets(const char *a, const char *b)
{
    if (strlen(a) != strlen(b))
        return strlen(a) < strlen(b) ? -1 : 1;
    return strcmp(a, b);
}

/* By domain, snapshot (`now` first), disk; the one that was opened first before others. */
static int compare_rows(const void *a, const void *b)
{
    const struct reader_row *x = a, *y = b;
    int r = strcmp(text_of(x->domain, "directory", ""), text_of(y->domain, "directory", ""));
    if (r == 0)
        r = strcmp(text_of(x->reader, "snapshot", ""), text_of(y->reader, "snapshot", ""));
    if (r == 0)
        r = compare_targets(text_of(x->reader, "target", ""), text_of(y->reader, "target", ""));
    if (r != 0)
        return r;
    json_int_t i = number_of(x->reader, "id"), k = number_of(y->reader, "id");
    return (i > k) - (i < k);
}

/* What the kernel calls a process, if it is to be seen from here. */
enum { PROGRAM_LEN = 32 };
static void find_program(json_int_t pid, char *ret_text)
{
    if (pid == 0 || (kill((pid_t)pid, 0) < 0 && errno == ESRCH)) {
        /* Reads of the kernel's own; or losetup, say, has opened it, ended, and left it to that. */
        snprintf(ret_text, PROGRAM_LEN, pid == 0 ? "kernel" : "(ended)");
        return;
    }
    char path[64];
    snprintf(path, sizeof(path), "/proc/%lld/comm", (long long)pid);
    auto_stream FILE *file = fopen(path, "re");
    if (!file || !fgets(ret_text, PROGRAM_LEN, file))
        snprintf(ret_text, PROGRAM_LEN, "?");
    ret_text[strcspn(ret_text, "\n")] = '\0';
}

struct reader_table {
    struct columns columns;
    struct reader_list before;
    json_int_t since_before_ms;
    const struct upload_list *uploads;
};

static const json_t *find_before(const struct reader_table *table, const struct reader_row *row)
{
    for (size_t i = 0; i < table->before.n; i++) {
        const struct reader_row *other = &table->before.rows[i];
        if (number_of(other->reader, "id") == number_of(row->reader, "id") &&
            strcmp(text_of(other->domain, "directory", ""),
                   text_of(row->domain, "directory", "")) == 0)
            return other->reader;
    }
    return NULL;
}

/* Of late if it is watched long enough, else since the open. */
static void add_reader_pace(struct reader_table *table, const struct reader_row *row)
{
    const json_t *reader = row->reader;
    json_int_t bytes = number_of(reader, "bytes"), position = number_of(reader, "position");
    json_int_t left = number_of(reader, "size") - position, ms = number_of(reader, "open_ms");
    const json_t *before = table->since_before_ms >= RECENT_MIN_MS ? find_before(table, row) : NULL;
    if (before) {
        bytes -= number_of(before, "bytes");
        position -= number_of(before, "position");
        ms = table->since_before_ms;
    }
    double speed = ms >= SPEED_MIN_MS ? (double)bytes * 1000 / (double)ms : -1;
    /* By the position: programs leave out holes. */
    bool is_known = ms >= REST_MIN_MS && position > 0 && left > 0;
    double rest_s = is_known ? (double)left * (double)ms / 1000 / (double)position : -1;
    add_pace(&table->columns, speed, (json_int_t)rest_s);
}

static void add_progress(struct reader_table *table, const struct reader_row *row)
{
    char size[COLUMNS_SIZE_LEN];
    json_int_t position = number_of(row->reader, "position");
    json_int_t total = number_of(row->reader, "size");
    columns_format_size((unsigned long long)total, size);
    columns_add(&table->columns, "%d",
                total > 0 ? (int)(100.0 * (double)position / (double)total) : 100);
    columns_add(&table->columns, "%s", size);
    add_reader_pace(table, row);
}

static void add_program(struct reader_table *table, const json_t *reader, json_int_t upload_id)
{
    char program[PROGRAM_LEN];
    json_int_t pid = number_of(reader, "pid");
    if (upload_id > 0) {
        columns_add(&table->columns, "upload %lld", (long long)upload_id);
        columns_add(&table->columns, "-");
        return;
    }
    find_program(pid, program);
    columns_add(&table->columns, "%s", program);
    columns_add(&table->columns, "%lld", (long long)pid);
}

static void add_reader(struct reader_table *table, const struct reader_row *row)
{
    json_int_t upload_id = number_of(row->reader, "upload");
    const json_t *upload = upload_id > 0 ? upload_list_find(table->uploads, upload_id) : NULL;
    columns_add(&table->columns, "%s", text_of(row->domain, "directory", "?"));
    columns_add(&table->columns, "%s", text_of(row->reader, "snapshot", "now"));
    columns_add(&table->columns, "%s", text_of(row->reader, "target", "?"));
    add_program(table, row->reader, upload_id);
    if (upload) /* by its own numbers: it reads ahead of what it has sent */
        add_upload_progress(&table->columns, upload);
    else
        add_progress(table, row);
}

int draw_readers(const struct sample *now, const struct sample *before,
                 const struct upload_list *uploads, const struct canvas *canvas)
{
    static const char *const headings[] = {"DOMAIN", "SNAPSHOT", "DISK",   "PROGRAM", ">PID",
                                           ">%",     ">SIZE",    ">SPEED", ">LEFT"};
    struct reader_table table = {.columns = COLUMNS_INIT(headings),
                                 .since_before_ms = (now->when_ns - before->when_ns) / 1000000,
                                 .uploads = uploads};
    auto_readers struct reader_list list = {0};
    int r = collect(now, &list);
    if (r == 0 && before->root)
        r = collect(before, &table.before);
    if (r == 0 && list.n > 0)
        qsort(list.rows, list.n, sizeof(*list.rows), compare_rows);
    for (size_t i = 0; r == 0 && i < list.n; i++)
        add_reader(&table, &list.rows[i]);
    if (r == 0)
        r = draw_table("Readers", &table.columns, canvas);
    reader_list_fini(&table.before);
    columns_fini(&table.columns);
    return r;
}
