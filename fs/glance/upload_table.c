/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What reading `upload` shows. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/columns.h"
#include "fs/glance/upload_internal.h"
#include "qcow/base/cleanup.h"

static const char *const headings[] = {"ID", "SNAPSHOT", "IMAGE-NAME", "IMAGE-ID", "STATE",
                                       "%",  "MB/s",     "ETA",        "ERROR"};

/* A word as a shell would take it back, so that each column is one; "-" for nothing. */
static void add_quoted(struct columns *table, const char *text)
{
    if (!text || !*text)
        text = "-";
    if (!strpbrk(text, " '\"\\")) {
        columns_add(table, "%s", text);
        return;
    }
    auto_free char *quoted = malloc(4 * strlen(text) + 3);
    if (!quoted) {
        table->is_failed = 1;
        return;
    }
    char *at = quoted;
    *at++ = '\'';
    for (; *text; text++) {
        if (*text == '\'')
            at = stpcpy(at, "'\\'");
        *at++ = *text;
    }
    memcpy(at, "'", 2);
    columns_add(table, "%s", quoted);
}

/* Megabytes of 10^6 bytes. */
static void add_speed_locked(struct columns *table, const struct job *job) REQUIRES(uploads_role)
{
    double speed = job_speed_locked(job);
    if (speed < 0)
        columns_add(table, "-");
    else
        columns_add(table, "%.1f", speed / 1e6);
}

static void add_eta_locked(struct columns *table, const struct job *job) REQUIRES(uploads_role)
{
    char text[COLUMNS_SPAN_LEN] = "-";
    int64_t seconds = job_rest_s_locked(job);
    if (seconds >= 0)
        columns_format_span(seconds, text);
    columns_add(table, "%s", text);
}

static void add_job_locked(struct columns *table, const struct job *job) REQUIRES(uploads_role)
{
    columns_add(table, "%u", job->id);
    add_quoted(table, job->line.snapshot);
    add_quoted(table, job->line.snapshot ? job->image_name : NULL);
    add_quoted(table, job->image_id);
    columns_add(table, "%s", upload_state_name(job->state));
    columns_add(table, "%u", job_percent_locked(job));
    add_speed_locked(table, job);
    add_eta_locked(table, job);
    columns_add(table, "%s", job->state == UPLOAD_FAILED ? job->err.text : "-");
}

char *uploads_table(struct uploads *uploads, const char *domain_id)
{
    __attribute__((cleanup(columns_fini))) struct columns table = COLUMNS_INIT(headings);
    const struct job *job;
    uploads_lock(uploads);
    TAILQ_FOREACH(job, &uploads->jobs, link)
    {
        if (strcmp(job->domain_id, domain_id) == 0)
            add_job_locked(&table, job);
    }
    uploads_unlock(uploads);
    char *text = NULL;
    size_t len;
    FILE *to = open_memstream(&text, &len);
    if (!to)
        return NULL;
    int r = columns_print(&table, to);
    bool is_written = !ferror(to);
    if (fclose(to) == 0 && r == 0 && is_written)
        return text;
    free(text);
    return NULL;
}
