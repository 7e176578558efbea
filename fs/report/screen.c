/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <string.h>

#include "fs/columns.h"
#include "fs/report/sample.h"
#include "qcow/base/cleanup.h"
#include "qcow/base/text.h"

/* Text of a member, or @none. */
static const char *text_of(const json_t *object, const char *key, const char *none)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : none;
}

/* NULL past the end. */
static const json_t *nth_of(const json_t *object, const char *key, size_t i)
{
    return json_array_get(json_object_get(object, key), i);
}

static json_int_t number_of(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static size_t count(const json_t *object, const char *key)
{
    return json_array_size(json_object_get(object, key));
}

/* Seconds as people say them: 42s, 3m05s, 2h10m, 4d03h. */
enum { SPAN_LEN = 32 };
static void format_span(json_int_t seconds, char *ret_text)
{
    long long s = seconds < 0 ? 0 : (long long)seconds;
    if (s < 60)
        snprintf(ret_text, SPAN_LEN, "%llds", s);
    else if (s < 3600)
        snprintf(ret_text, SPAN_LEN, "%lldm%02llds", s / 60, s % 60);
    else if (s < 86400)
        snprintf(ret_text, SPAN_LEN, "%lldh%02lldm", s / 3600, s / 60 % 60);
    else
        snprintf(ret_text, SPAN_LEN, "%lldd%02lldh", s / 86400, s / 3600 % 24);
}

/* What the kernel calls a process, if it is to be seen from here. */
enum { PROGRAM_LEN = 32 };
static void find_program(json_int_t pid, char *ret_text)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%lld/comm", (long long)pid);
    FILE *file = fopen(path, "re");
    if (!file || !fgets(ret_text, PROGRAM_LEN, file))
        snprintf(ret_text, PROGRAM_LEN, "?");
    ret_text[strcspn(ret_text, "\n")] = '\0';
    if (file)
        (void)fclose(file); /* it was read only */
}

/* Where it is drawn. */
struct canvas {
    FILE *to;
    size_t max_width;
};

/* Nothing at all if it has no row. */
static int draw_table(const char *title, struct columns *table, const struct canvas *canvas)
{
    if (!table->n_cells && !table->is_failed)
        return 0;
    table->max_width = canvas->max_width;
    fprintf(canvas->to, "\n%s\n", title);
    return columns_print(table, canvas->to);
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
    char age[SPAN_LEN] = "-";
    char overlay[COLUMNS_SIZE_LEN] = "-";
    if (json_object_get(instant, "age_s"))
        format_span(number_of(instant, "age_s"), age);
    if (json_object_get(instant, "overlay_bytes"))
        columns_format_size((unsigned long long)number_of(instant, "overlay_bytes"), overlay);
    columns_add(table, "%s", text_of(domain, "directory", "?"));
    columns_add(table, "%s", text_of(domain, "state", "?"));
    add_targets(table, domain);
    columns_add(table, "%s", text_of(instant, "state", "?"));
    columns_add(table, "%s", text_of(instant, "method", "-"));
    columns_add(table, "%s", age);
    columns_add(table, "%s", overlay);
    columns_add(table, "%zu", count(instant, "readers"));
    columns_add(table, "%s", text_of(instant, "consistency", "-"));
}

static int draw_instants(const json_t *domains, const struct canvas *canvas)
{
    static const char *const headings[] = {"DOMAIN", "STATE",    "DISKS",    "INSTANT",    "METHOD",
                                           ">AGE",   ">OVERLAY", ">READERS", "CONSISTENCY"};
    __attribute__((cleanup(columns_fini))) struct columns table = COLUMNS_INIT(headings);
    const json_t *domain, *instant;
    for (size_t i = 0; (domain = json_array_get(domains, i)); i++)
        for (size_t k = 0; (instant = nth_of(domain, "instants", k)); k++)
            add_instant(&table, domain, instant);
    return draw_table("Instants", &table, canvas);
}

/* ---- Readers ---- */

/* Calls @visit for each open file: of the instant, and of named snapshots. */
struct reader_walk {
    void (*visit)(void *ctx, const json_t *domain, const json_t *reader);
    void *ctx;
};

static void walk_readers(const json_t *domains, const struct reader_walk *walk)
{
    const json_t *domain, *instant, *reader;
    for (size_t i = 0; (domain = json_array_get(domains, i)); i++) {
        for (size_t k = 0; (instant = nth_of(domain, "instants", k)); k++)
            for (size_t m = 0; (reader = nth_of(instant, "readers", m)); m++)
                walk->visit(walk->ctx, domain, reader);
        for (size_t k = 0; (reader = nth_of(domain, "snapshot_readers", k)); k++)
            walk->visit(walk->ctx, domain, reader);
    }
}

/* The same open file in an earlier sample. */
struct reader_search {
    const json_t *domain, *reader; /* which is looked for */
    const json_t *found;
};

static bool is_same(const json_t *a, const json_t *b, const char *key)
{
    const json_t *x = json_object_get(a, key);
    const json_t *y = json_object_get(b, key);
    return x == y || json_equal(x, y);
}

static void match_reader(void *ctx, const json_t *domain, const json_t *reader)
{
    struct reader_search *search = ctx;
    if (is_same(domain, search->domain, "directory") && is_same(reader, search->reader, "id"))
        search->found = reader;
}

struct reader_table {
    struct columns columns;
    const struct sample *now, *before;
};

/* Bytes a second since the earlier sample; negative if that is not known. */
static double find_speed(const struct reader_table *table, const json_t *domain,
                         const json_t *reader)
{
    if (!table->before->root)
        return -1;
    struct reader_search search = {.domain = domain, .reader = reader};
    struct reader_walk walk = {match_reader, &search};
    walk_readers(json_object_get(table->before->root, "domains"), &walk);
    double seconds = (double)(table->now->when_ns - table->before->when_ns) / 1e9;
    if (!search.found || seconds <= 0)
        return -1;
    double progress = (double)(number_of(reader, "position") - number_of(search.found, "position"));
    return progress > 0 ? progress / seconds : 0;
}

static void add_progress(struct reader_table *table, const json_t *domain, const json_t *reader)
{
    char size[COLUMNS_SIZE_LEN];
    char speed_text[COLUMNS_SIZE_LEN + 2] = "-";
    char rest[SPAN_LEN] = "-";
    json_int_t position = number_of(reader, "position");
    json_int_t total = number_of(reader, "size");
    columns_format_size((unsigned long long)total, size);
    double speed = find_speed(table, domain, reader);
    if (speed > 0) {
        char each_second[COLUMNS_SIZE_LEN];
        columns_format_size((unsigned long long)speed, each_second);
        snprintf(speed_text, sizeof(speed_text), "%s/s", each_second);
        format_span((json_int_t)((double)(total - position) / speed), rest);
    }
    columns_add(&table->columns, "%d",
                total > 0 ? (int)(100.0 * (double)position / (double)total) : 100);
    columns_add(&table->columns, "%s", size);
    columns_add(&table->columns, "%s", speed_text);
    columns_add(&table->columns, "%s", rest);
}

static void add_reader(void *ctx, const json_t *domain, const json_t *reader)
{
    struct reader_table *table = ctx;
    char program[PROGRAM_LEN];
    json_int_t pid = number_of(reader, "pid");
    find_program(pid, program);
    columns_add(&table->columns, "%s", text_of(domain, "directory", "?"));
    columns_add(&table->columns, "%s", text_of(reader, "snapshot", "now"));
    columns_add(&table->columns, "%s", text_of(reader, "target", "?"));
    columns_add(&table->columns, "%s", program);
    columns_add(&table->columns, "%lld", (long long)pid);
    add_progress(table, domain, reader);
}

static int draw_readers(const struct sample *now, const struct sample *before,
                        const struct canvas *canvas)
{
    static const char *const headings[] = {"DOMAIN", "SNAPSHOT", "DISK",   "PROGRAM", ">PID",
                                           ">%",     ">SIZE",    ">SPEED", ">LEFT"};
    struct reader_table table = {.columns = COLUMNS_INIT(headings), .now = now, .before = before};
    struct reader_walk walk = {add_reader, &table};
    walk_readers(json_object_get(now->root, "domains"), &walk);
    int r = draw_table("Readers", &table.columns, canvas);
    columns_fini(&table.columns);
    return r;
}

/* ---- Uploads ---- */

static void add_upload(struct columns *table, const json_t *domain, const json_t *upload)
{
    char rest[SPAN_LEN] = "-";
    if (json_object_get(upload, "eta_s"))
        format_span(number_of(upload, "eta_s"), rest);
    columns_add(table, "%s", text_of(domain, "directory", "?"));
    columns_add(table, "%lld", (long long)number_of(upload, "id"));
    columns_add(table, "%s", text_of(upload, "snapshot", "-"));
    columns_add(table, "%s", text_of(upload, "image_name", "-"));
    columns_add(table, "%s", text_of(upload, "state", "?"));
    columns_add(table, "%lld", (long long)number_of(upload, "percent"));
    columns_add(table, "%s", rest);
    columns_add(table, "%s", text_of(upload, "error", ""));
}

static int draw_uploads(const json_t *domains, const struct canvas *canvas)
{
    static const char *const headings[] = {"DOMAIN", ">ID", "SNAPSHOT", "IMAGE-NAME",
                                           "STATE",  ">%",  ">LEFT",    "ERROR"};
    __attribute__((cleanup(columns_fini))) struct columns table = COLUMNS_INIT(headings);
    const json_t *domain, *upload;
    for (size_t i = 0; (domain = json_array_get(domains, i)); i++)
        for (size_t k = 0; (upload = nth_of(domain, "uploads", k)); k++)
            add_upload(&table, domain, upload);
    return draw_table("Uploads", &table, canvas);
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

static void add_error(struct columns *table, const json_t *domain, const json_t *error)
{
    columns_add(table, "%.19sZ", text_of(error, "time", "?"));
    columns_add(table, "%s", text_of(domain, "directory", "?"));
    columns_add(table, "%s", text_of(error, "what", "-"));
    columns_add(table, "%s", text_of(error, "text", "?"));
}

/* Now, and not only once: of a disk, or of the status itself. */
static void add_lasting_error(struct columns *table, const json_t *domain, const char *what,
                              const char *reason)
{
    if (!reason)
        return;
    columns_add(table, "now");
    columns_add(table, "%s", text_of(domain, "directory", "?"));
    columns_add(table, "%s", what);
    columns_add(table, "%s", reason);
}

static int draw_errors(const json_t *domains, const struct canvas *canvas)
{
    static const char *const headings[] = {"TIME", "DOMAIN", "FILE", "ERROR"};
    __attribute__((cleanup(columns_fini))) struct columns table = COLUMNS_INIT(headings);
    const json_t *domain, *disk, *error;
    for (size_t i = 0; (domain = json_array_get(domains, i)); i++) {
        add_lasting_error(&table, domain, "status", text_of(domain, "error", NULL));
        for (size_t k = 0; (disk = nth_of(domain, "disks", k)); k++)
            add_lasting_error(&table, domain, text_of(disk, "target", "?"),
                              text_of(disk, "reason", NULL));
        for (size_t k = 0; (error = nth_of(domain, "errors", k)); k++)
            add_error(&table, domain, error);
    }
    return draw_table("Errors", &table, canvas);
}

static size_t sum(const json_t *domains, const char *key)
{
    size_t n = 0;
    const json_t *domain;
    for (size_t i = 0; (domain = json_array_get(domains, i)); i++)
        n += count(domain, key);
    return n;
}

/* Paths are anybody's to choose, who may mount. */
static void print_shown(const char *text, FILE *to)
{
    auto_free char *copy = strdup(text);
    if (!copy)
        return;
    text_hide_controls(copy);
    fputs(copy, to);
}

static void draw_head(const struct sample *now, FILE *to)
{
    const json_t *domains = json_object_get(now->root, "domains");
    size_t n = json_array_size(domains);
    size_t n_instants = sum(domains, "instants");
    size_t n_uploads = sum(domains, "uploads");
    size_t n_left = sum(domains, "leftovers");
    print_shown(text_of(now->root, "source", "?"), to);
    fputs(" on ", to);
    print_shown(text_of(now->root, "mountpoint", "?"), to);
    fprintf(to, ", %s\n", text_of(now->root, "time", "?"));
    fprintf(to, "%zu domain%s, %zu instant%s, %zu upload%s, %zu left over\n", n, n == 1 ? "" : "s",
            n_instants, n_instants == 1 ? "" : "s", n_uploads, n_uploads == 1 ? "" : "s", n_left);
}

int sample_draw(const struct sample *sample, const struct sample *before, size_t max_width,
                FILE *to)
{
    const struct canvas canvas = {.to = to, .max_width = max_width};
    const json_t *domains = json_object_get(sample->root, "domains");
    draw_head(sample, to);
    int r = draw_instants(domains, &canvas);
    if (r == 0)
        r = draw_readers(sample, before, &canvas);
    if (r == 0)
        r = draw_uploads(domains, &canvas);
    if (r == 0)
        r = draw_leftovers(domains, &canvas);
    return r < 0 ? r : draw_errors(domains, &canvas);
}
