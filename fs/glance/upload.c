/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who is let in, whose turn it is, and the end of all. */
#include "fs/glance/upload.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/glance/upload_internal.h"
#include "qcow/base/cleanup.h"

int uploads_create(const struct uploads_config *config, struct uploads **ret_uploads)
{
    struct uploads *uploads = calloc(1, sizeof(*uploads));
    if (!uploads)
        return -ENOMEM;
    uploads->config = *config;
    mutex_init(&uploads->lock);
    cond_init(&uploads->changed);
    TAILQ_INIT(&uploads->jobs);
    *ret_uploads = uploads;
    return 0;
}

static void free_job(struct job *job)
{
    free(job->domain_id);
    free(job->domain_name);
    free(job->image_name);
    line_fini(&job->line);
    record_machine_fini(&job->disk.machine);
    free(job->disk.target);
    free(job->image_id);
    free(job);
}

void uploads_cancel(struct uploads *uploads)
{
    uploads_lock(uploads);
    uploads->is_shut = true;
    cond_wake_all(&uploads->changed);
    uploads_unlock(uploads);
}

void uploads_shutdown(struct uploads *uploads)
{
    uploads_cancel(uploads);
    uploads_lock(uploads);
    while (uploads->n_unfinished > 0)
        uploads_wait(uploads);
    uploads_unlock(uploads);
}

void uploads_destroy(struct uploads *uploads)
{
    if (!uploads)
        return;
    struct job *job;
    while ((job = TAILQ_FIRST(&uploads->jobs))) {
        TAILQ_REMOVE(&uploads->jobs, job, link);
        free_job(job);
    }
    cond_fini(&uploads->changed);
    mutex_fini(&uploads->lock);
    free(uploads);
}

size_t uploads_count(struct uploads *uploads)
{
    uploads_lock(uploads);
    size_t n = uploads->n_unfinished;
    uploads_unlock(uploads);
    return n;
}

/* ---- Turns ---- */

void uploads_give_turns_locked(struct uploads *uploads)
{
    struct job *job;
    TAILQ_FOREACH_REVERSE(job, &uploads->jobs, job_list, link)
    {
        if (uploads->n_running >= uploads->config.max_running)
            return;
        if (job->has_turn || upload_state_is_final(job->state))
            continue;
        job->has_turn = true;
        uploads->n_running++;
        cond_wake_all(&uploads->changed);
    }
}

/* Forgets the job that ended longest ago, if there are too many of them. */
static void trim_locked(struct uploads *uploads) REQUIRES(uploads_role)
{
    struct job *job, *before;
    for (job = TAILQ_LAST(&uploads->jobs, job_list);
         job && uploads->n_finished > JOBS_FINISHED_KEPT; job = before) {
        before = TAILQ_PREV(job, job_list, link);
        if (!job->is_over)
            continue;
        TAILQ_REMOVE(&uploads->jobs, job, link);
        uploads->n_finished--;
        free_job(job);
    }
}

static void settle_locked(struct job *job, const struct error *err) REQUIRES(uploads_role)
{
    struct uploads *uploads = job->uploads;
    if (err->code < 0)
        job->err = *err;
    job->settled_ns = monotonic_ns();
    clock_gettime(CLOCK_REALTIME, &job->settled);
    job_enter_locked(job, err->code < 0 ? UPLOAD_FAILED : UPLOAD_ACTIVE);
    uploads->n_running -= job->has_turn;
    uploads_give_turns_locked(uploads);
}

/* The job may be gone afterwards. */
static void let_go_locked(struct job *job) REQUIRES(uploads_role)
{
    struct uploads *uploads = job->uploads;
    job->is_over = true;
    uploads->n_unfinished--;
    uploads->n_finished++;
    trim_locked(uploads);
    cond_wake_all(&uploads->changed);
}

static void tell_end(struct job *job, const struct error *err)
{
    const struct upload_source *source = &job->uploads->config.source;
    if (!source->ended)
        return;
    /* image_id changes on this thread only. */
    struct upload_end end = {
        .domain_id = job->domain_id,
        .domain_name = job->domain_name,
        .id = job->id,
        .image_name = job->image_name,
        .image_id = job->image_id,
        .err = err->code < 0 ? err : NULL,
    };
    source->ended(source->ctx, &end);
}

/* In this order: who is answered finds the job's end in the table, and no unmount ends before. */
static void finish(struct job *job, const struct error *err) EXCLUDES(uploads_role)
{
    struct uploads *uploads = job->uploads;
    tell_end(job, err);
    uploads_lock(uploads);
    settle_locked(job, err);
    uploads_unlock(uploads);
    job_answer(job, err->code, err);
    uploads_lock(uploads);
    let_go_locked(job);
    uploads_unlock(uploads);
}

/* ---- Beginning ---- */

static void *job_main(void *arg)
{
    struct job *job = arg;
    struct error err = {0};
    int r = job_run(job, &err);
    err.code = r;
    finish(job, &err);
    return NULL;
}

static int start_thread(struct job *job, struct error *err)
{
    int r = thread_start_detached(job_main, job);
    return r == 0 ? 0 : error_set(err, -ENOMEM, "cannot start a thread: %s", strerrordesc_np(-r));
}

/* All that can be told without the network. */
static int check(struct job *job, const struct upload_request *request, struct error *err)
{
    const struct uploads_config *config = &job->uploads->config;
    int r = line_parse(request->line, request->len, &job->line, err);
    if (r < 0) {
        line_peek(request->line, request->len, &job->line.snapshot, &job->image_name);
        return r;
    }
    struct upload_line *line = &job->line;
    job->image_name = line->image_name ? strdup(line->image_name)
                                       : record_default_name(line->snapshot, job->domain_name);
    if (!job->image_name)
        return error_set(err, -ENOMEM, "out of memory");
    if (!config->glance)
        return error_set(err, -EACCES, "%s",
                         config->refusal
                             ? config->refusal
                             : "no cloud is configured: mount with OS_CLOUD or the OS_* "
                               "variables set, or with cloud=");
    struct upload_what what = {.domain_id = job->domain_id,
                               .snapshot = line->snapshot,
                               .target = line->disk,
                               .pid = job->pid};
    r = config->source.describe(config->source.ctx, &what, &job->disk, err);
    if (r == 0)
        job->format = line->format ? line->format : job->disk.format;
    return r;
}

static struct job *create_job(struct uploads *uploads, const struct upload_request *request)
{
    struct job *job = calloc(1, sizeof(*job));
    if (!job)
        return NULL;
    job->uploads = uploads;
    job->domain_id = strdup(request->domain_id);
    job->domain_name = strdup(request->domain_name);
    job->pid = request->pid;
    job->writer = *request;
    if (job->domain_id && job->domain_name)
        return job;
    free_job(job);
    return NULL;
}

/* Puts the job into the list, as one that is going to run. */
static int admit_locked(struct job *job, struct error *err) REQUIRES(uploads_role)
{
    struct uploads *uploads = job->uploads;
    if (uploads->is_shut)
        return error_set(err, -ESHUTDOWN, "the file system is being unmounted");
    if (uploads->n_unfinished >= JOBS_UNFINISHED_MAX)
        return error_set(err, -EBUSY, "%u uploads have not ended yet", uploads->n_unfinished);
    return 0;
}

static void enlist_locked(struct job *job) REQUIRES(uploads_role)
{
    struct uploads *uploads = job->uploads;
    job->id = ++uploads->last_id;
    uploads->n_unfinished++;
    TAILQ_INSERT_HEAD(&uploads->jobs, job, link);
}

void uploads_begin(struct uploads *uploads, const struct upload_request *request)
{
    struct error err = {0};
    struct job *job = create_job(uploads, request);
    if (!job) {
        error_set(&err, -ENOMEM, "out of memory");
        request->done(request->ctx, -ENOMEM, &err);
        return;
    }
    int r = check(job, request, &err);
    uploads_lock(uploads);
    if (r == 0)
        r = admit_locked(job, &err);
    enlist_locked(job);
    if (r == 0)
        uploads_give_turns_locked(uploads);
    uploads_unlock(uploads);
    if (r == 0)
        r = start_thread(job, &err);
    if (r < 0) {
        err.code = r;
        finish(job, &err);
    }
}

/* ---- For status ---- */

/* A copy of a text that may not be there; false if there is no memory for it. */
static bool copy_text(const char *text, char **ret_text)
{
    *ret_text = text ? strdup(text) : NULL;
    /* lint: gcc-analyzer/malloc-leak: kept at an index that gcc loses sight of */
    return !text || *ret_text;
}

/* Of what is sent; before it is opened that is known of a raw disk only. */
static uint64_t size_of_locked(const struct job *job) REQUIRES(uploads_role)
{
    if (job->len > 0)
        return job->len;
    return job->format && strcmp(job->format, "raw") == 0 ? job->disk.guest_size : 0;
}

static void fill_progress_locked(const struct job *job, struct upload_info *ret_info)
    REQUIRES(uploads_role)
{
    double speed = job_speed_locked(job);
    ret_info->percent = job_percent_locked(job);
    ret_info->attempt = job->attempt;
    ret_info->n_sent = job->n_sent;
    ret_info->size = size_of_locked(job);
    ret_info->speed = speed < 0 ? -1 : (int64_t)speed;
    ret_info->rest_s = job_rest_s_locked(job);
    ret_info->idle_s = job_idle_s_locked(job);
    ret_info->ended = job->settled;
    ret_info->ended_s =
        job->settled_ns ? (monotonic_ns() - job->settled_ns) / 1000000000 : (int64_t)-1;
}

static bool fill_info_locked(const struct job *job, struct upload_info *ret_info)
    REQUIRES(uploads_role)
{
    *ret_info = (struct upload_info){.id = job->id, .state = upload_state_name(job->state)};
    fill_progress_locked(job, ret_info);
    const char *disk = job->disk.target ? job->disk.target : job->line.disk;
    const char *retry = job->state == UPLOAD_SENDING && *job->retry.text ? job->retry.text : NULL;
    return copy_text(job->line.snapshot, &ret_info->snapshot) && copy_text(disk, &ret_info->disk) &&
           copy_text(job->format, &ret_info->format) &&
           copy_text(job->line.snapshot ? job->image_name : NULL, &ret_info->image_name) &&
           copy_text(job->image_id, &ret_info->image_id) && copy_text(retry, &ret_info->retry) &&
           copy_text(job->state == UPLOAD_FAILED ? job->err.text : NULL, &ret_info->error);
}

static int copy_infos_locked(struct uploads *uploads, const char *domain_id,
                             struct upload_info *infos, size_t *ret_n) REQUIRES(uploads_role)
{
    const struct job *job;
    TAILQ_FOREACH(job, &uploads->jobs, link)
    {
        if (strcmp(job->domain_id, domain_id) != 0)
            continue;
        if (!fill_info_locked(job, &infos[(*ret_n)++]))
            return -ENOMEM;
    }
    return 0;
}

int uploads_list(struct uploads *uploads, const char *domain_id, struct upload_info **ret_infos,
                 size_t *ret_n)
{
    uploads_lock(uploads);
    size_t n = 0;
    struct upload_info *infos =
        calloc((size_t)uploads->n_unfinished + uploads->n_finished + 1, sizeof(*infos));
    int r = infos ? copy_infos_locked(uploads, domain_id, infos, &n) : -ENOMEM;
    uploads_unlock(uploads);
    if (r < 0) {
        uploads_list_free(infos, n);
        return r;
    }
    *ret_infos = infos;
    *ret_n = n;
    return 0;
}

void uploads_list_free(struct upload_info *infos, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(infos[i].snapshot);
        free(infos[i].image_name);
        free(infos[i].image_id);
        free(infos[i].disk);
        free(infos[i].format);
        free(infos[i].retry);
        free(infos[i].error);
    }
    free(infos);
}
