/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What reading `upload` shows. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fs/glance/upload_internal.h"
#include "qcow/base/cleanup.h"

enum {
    COLUMNS = 9,
    ERROR_COLUMN = COLUMNS - 1, /* the last one is not padded */
    GAP = 2,
    NUMBER_TEXT_MAX = 32,
};

static const char *const heading[COLUMNS] = {"ID", "SNAPSHOT", "IMAGE-NAME", "IMAGE-ID", "STATE",
                                             "%",  "MB/s",     "ETA",        "ERROR"};

/* One line of the table; strings are owned, NULL for "no memory". */
struct row {
    char *cells[COLUMNS];
};

static void fini_row(struct row *row)
{
    for (size_t i = 0; i < COLUMNS; i++)
        free(row->cells[i]);
}

static void hide_controls(char *text)
{
    for (; text && *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = '?';
}

/* A word as a shell would take it back, so that each column is one; "-" for nothing. */
static char *quote(const char *raw)
{
    if (!raw || !*raw)
        return strdup("-");
    auto_free char *plain = strdup(raw);
    hide_controls(plain);
    if (!plain || !strpbrk(plain, " '\"\\"))
        return take_ptr(plain);
    const char *text = plain;
    char *quoted = malloc(4 * strlen(text) + 3);
    if (!quoted)
        return NULL;
    char *at = quoted;
    *at++ = '\'';
    for (; *text; text++) {
        if (*text == '\'')
            at = stpcpy(at, "'\\'");
        *at++ = *text;
    }
    memcpy(at, "'", 2);
    return quoted;
}

static char *print_text(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static char *print_text(const char *fmt, ...)
{
    char *text;
    va_list ap;
    va_start(ap, fmt);
    int r = vasprintf(&text, fmt, ap);
    va_end(ap);
    return r < 0 ? NULL : text;
}

/* Seconds since the attempt's begin; 0 before it. */
static double sending_s_locked(const struct job *job) REQUIRES(uploads_role)
{
    if (job->begun_ns == 0)
        return 0;
    int64_t end_ns = job->ended_ns ? job->ended_ns : monotonic_ns();
    return (double)(end_ns - job->begun_ns) / 1e9;
}

/* Megabytes of 10^6 bytes, over the whole attempt. */
static char *print_speed_locked(const struct job *job) REQUIRES(uploads_role)
{
    double seconds = sending_s_locked(job);
    if (seconds <= 0 || job->n_sent == 0)
        return strdup("-");
    return print_text("%.1f", (double)job->n_sent / seconds / 1e6);
}

int64_t job_rest_s_locked(const struct job *job)
{
    if (job->state != UPLOAD_SENDING || job->n_sent == 0)
        return -1;
    double rest = (double)(job->len - job->n_sent) / (double)job->n_sent * sending_s_locked(job);
    return rest < 360000 * 100.0 ? (int64_t)rest : -1;
}

/* h:mm:ss */
static char *print_eta_locked(const struct job *job) REQUIRES(uploads_role)
{
    int64_t seconds = job_rest_s_locked(job);
    if (seconds < 0)
        return strdup("-");
    return print_text("%" PRId64 ":%02" PRId64 ":%02" PRId64, seconds / 3600, seconds / 60 % 60,
                      seconds % 60);
}

static void fill_row_locked(const struct job *job, struct row *ret_row) REQUIRES(uploads_role)
{
    *ret_row = (struct row){{
        print_text("%u", job->id),
        quote(job->line.snapshot),
        quote(job->line.snapshot ? job->image_name : NULL),
        quote(job->image_id),
        strdup(upload_state_name(job->state)),
        print_text("%u", job_percent_locked(job)),
        print_speed_locked(job),
        print_eta_locked(job),
        strdup(job->state == UPLOAD_FAILED ? job->err.text : "-"),
    }};
}

/* Characters, as far as a terminal has one cell for each. */
static size_t width_of(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static void print_row(FILE *to, const char *const *cells, const size_t *widths)
{
    for (size_t i = 0; i < ERROR_COLUMN; i++)
        fprintf(to, "%s%*s", cells[i], (int)(widths[i] - width_of(cells[i]) + GAP), "");
    fprintf(to, "%s\n", cells[ERROR_COLUMN]);
}

static void print_rows(FILE *to, const struct row *rows, size_t n)
{
    size_t widths[COLUMNS];
    for (size_t i = 0; i < COLUMNS; i++) {
        widths[i] = width_of(heading[i]);
        for (size_t k = 0; k < n; k++)
            if (width_of(rows[k].cells[i]) > widths[i])
                widths[i] = width_of(rows[k].cells[i]);
    }
    print_row(to, heading, widths);
    for (size_t k = 0; k < n; k++)
        print_row(to, (const char *const *)rows[k].cells, widths);
}

static bool is_complete(const struct row *rows, size_t n)
{
    for (size_t k = 0; k < n; k++)
        for (size_t i = 0; i < COLUMNS; i++)
            if (!rows[k].cells[i])
                return false;
    return true;
}

static char *print_table(const struct row *rows, size_t n)
{
    char *text = NULL;
    size_t len;
    FILE *to = is_complete(rows, n) ? open_memstream(&text, &len) : NULL;
    if (!to)
        return NULL;
    print_rows(to, rows, n);
    bool is_failed = ferror(to);
    if (fclose(to) == 0 && !is_failed)
        return text;
    free(text);
    return NULL;
}

static struct row *fill_rows_locked(struct uploads *uploads, const char *domain_id, size_t *ret_n)
    REQUIRES(uploads_role)
{
    struct row *rows =
        calloc((size_t)uploads->n_unfinished + uploads->n_finished + 1, sizeof(*rows));
    const struct job *job;
    *ret_n = 0;
    TAILQ_FOREACH(job, &uploads->jobs, link)
    {
        if (rows && strcmp(job->domain_id, domain_id) == 0)
            fill_row_locked(job, &rows[(*ret_n)++]);
    }
    return rows;
}

char *uploads_table(struct uploads *uploads, const char *domain_id)
{
    uploads_lock(uploads);
    size_t n;
    struct row *rows = fill_rows_locked(uploads, domain_id, &n);
    uploads_unlock(uploads);
    char *text = rows ? print_table(rows, n) : NULL;
    for (size_t k = 0; k < n; k++)
        fini_row(&rows[k]);
    free(rows);
    return text;
}
