/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a job's thread does: login, record, turn, bytes, data, verification. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "fs/glance/upload_internal.h"
#include "qcow/base/cleanup.h"

void job_answer(struct job *job, int result, const struct error *err)
{
    struct upload_request writer = job->writer;
    job->writer.done = NULL;
    if (writer.done)
        writer.done(writer.ctx, result, err);
}

static bool is_shut(struct uploads *uploads)
{
    uploads_lock(uploads);
    bool is_shut = uploads->is_shut;
    uploads_unlock(uploads);
    return is_shut;
}

/*
 * Who gave up is answered at once, before the image is deleted: that may take as long as the
 * network likes, and a program that was killed cannot end before.
 */
static bool is_cancelled(void *ctx)
{
    struct job *job = ctx;
    if (job->is_given_up)
        return true;
    const struct upload_request *writer = &job->writer;
    if (is_shut(job->uploads))
        error_set(&job->cause, -ESHUTDOWN, "cancelled: the file system is being unmounted");
    else if (writer->done && writer->is_cancelled && writer->is_cancelled(writer->ctx))
        error_set(&job->cause, -EINTR, "cancelled: the writer was interrupted");
    else
        return false;
    job->is_given_up = true;
    job_answer(job, job->cause.code, &job->cause);
    return true;
}

static struct glance_cancel make_cancel(struct job *job)
{
    return (struct glance_cancel){.is_cancelled = is_cancelled, .ctx = job};
}

static int show_image(struct job *job, const char *image_id, struct error *err)
{
    char *copy = strdup(image_id);
    if (!copy)
        return error_set(err, -ENOMEM, "out of memory");
    uploads_lock(job->uploads);
    char *old = job->image_id;
    job->image_id = copy;
    uploads_unlock(job->uploads);
    free(old);
    return 0;
}

/* Adds to @err that the image is still there. */
static void note_left(const char *image_id, const struct error *why, struct error *err)
{
    struct error first = *err;
    error_set(err, first.code, "%s; image %s may be left: %s", first.text, image_id, why->text);
}

static void delete_image(struct glance_image *image, struct error *err)
{
    struct error why = {0};
    if (glance_image_delete(image, &why) < 0)
        note_left(glance_image_id(image), &why, err);
}

static int create_image(struct job *job, struct glance_image **ret_image, struct error *err)
{
    struct glance *glance = job->uploads->config.glance;
    struct glance_cancel cancel = make_cancel(job);
    auto_free char *project_id = NULL;
    auto_free char *user_id = NULL;
    int r = glance_login(glance, &cancel, &project_id, &user_id, err);
    if (r < 0)
        return r;
    struct record_request request = {
        .line = &job->line,
        .machine = &job->disk.machine,
        .name = job->image_name,
        .disk_format = job->format,
        .guest_size = job->disk.guest_size,
        .project_id = project_id,
        .user_id = user_id,
    };
    struct glance_record record;
    r = record_make(&request, &record);
    if (r < 0)
        return error_set(err, r, "out of memory");
    r = glance_image_create(glance, &record, &cancel, ret_image, err);
    record_fini(&record);
    return r;
}

static bool await_turn(struct job *job)
{
    struct uploads *uploads = job->uploads;
    uploads_lock(uploads);
    if (!job->has_turn && job->writer.done)
        uploads_wait_until(uploads, monotonic_ns() + (int64_t)ASK_INTERVAL_MS * 1000000);
    else if (!job->has_turn && !uploads->is_shut)
        uploads_wait(uploads);
    bool has_turn = job->has_turn;
    uploads_unlock(uploads);
    return has_turn;
}

/* A job that is queued is all that its writer waits for, without --poll. */
static int wait_turn(struct job *job, struct error *err)
{
    uploads_lock(job->uploads);
    bool has_turn = job->has_turn;
    uploads_unlock(job->uploads);
    if (!has_turn && !job->line.is_poll)
        job_answer(job, 0, NULL);
    while (!has_turn) {
        if (is_cancelled(job))
            return error_set(err, -EINTR, "cancelled");
        has_turn = await_turn(job);
    }
    return 0;
}

static int open_body(struct job *job, struct error *err)
{
    const struct upload_source *source = &job->uploads->config.source;
    struct upload_what what = {
        .domain_id = job->domain_id,
        .snapshot = job->line.snapshot,
        .target = job->line.disk,
        .format = job->format,
        .pid = job->line.is_poll ? job->pid : getpid(), /* the writer may have ended */
        .id = job->id,
        .image_name = job->image_name,
    };
    struct glance_cancel cancel = make_cancel(job);
    int r = wait_turn(job, err);
    if (r == 0)
        r = source->open(source->ctx, &what, &cancel, &job->body, err);
    job->has_body = r == 0;
    return r;
}

/* The bytes are held no longer than they are needed. */
static void close_body(struct job *job)
{
    const struct upload_source *source = &job->uploads->config.source;
    if (job->has_body)
        source->close(source->ctx, &job->body);
    job->has_body = false;
}

static void note_moved_locked(struct job *job, enum glance_phase phase, uint64_t n_sent)
    REQUIRES(uploads_role)
{
    if (phase == GLANCE_VERIFYING && job->state == UPLOAD_SENDING) {
        job->ended_ns = monotonic_ns();
        job_enter_locked(job, UPLOAD_VERIFYING);
    }
    job_note_sent_locked(job, n_sent);
}

/* The speed of what failed is that up to then. */
static void note_broken_off(struct job *job)
{
    uploads_lock(job->uploads);
    if (job->ended_ns == 0)
        job->ended_ns = monotonic_ns();
    uploads_unlock(job->uploads);
}

static void note_moved(void *ctx, enum glance_phase phase, uint64_t n_sent)
{
    struct job *job = ctx;
    if (phase != GLANCE_SENDING)
        close_body(job);
    if (phase == GLANCE_CLEANING) {
        note_broken_off(job);
        return;
    }
    uploads_lock(job->uploads);
    note_moved_locked(job, phase, n_sent);
    uploads_unlock(job->uploads);
}

static void note_attempt(void *ctx, unsigned attempt, const struct error *why)
{
    struct job *job = ctx;
    uploads_lock(job->uploads);
    job_begin_attempt_locked(job, attempt, why);
    uploads_unlock(job->uploads);
}

/* Without memory for it the table shows the old one. */
static void note_replaced(void *ctx, const char *new_id)
{
    struct job *job = ctx;
    const struct upload_source *source = &job->uploads->config.source;
    /* image_id changes on this thread only. */
    struct upload_replaced replaced = {.domain_name = job->domain_name,
                                       .id = job->id,
                                       .old_image_id = job->image_id,
                                       .new_image_id = new_id};
    if (source->replaced)
        source->replaced(source->ctx, &replaced);
    show_image(job, new_id, NULL);
}

static int send_body(struct job *job, struct glance_image *image, struct error *err)
{
    struct uploads *uploads = job->uploads;
    uploads_lock(uploads);
    job->len = job->body.size;
    job_enter_locked(job, UPLOAD_SENDING);
    uploads_unlock(uploads);
    struct glance_cancel cancel = make_cancel(job);
    struct glance_progress progress = {
        .began = note_attempt, .moved = note_moved, .replaced = note_replaced, .ctx = job};
    int r = glance_image_send(image, &job->body, &progress, &cancel, err);
    note_moved(job, r == 0 ? GLANCE_VERIFYING : GLANCE_CLEANING, job->len);
    return r;
}

/* From the record to the end. */
static int fill_image(struct job *job, struct glance_image *image, struct error *err)
{
    int r = show_image(job, glance_image_id(image), err);
    if (r == 0)
        r = open_body(job, err);
    if (r < 0) {
        delete_image(image, err);
        return r;
    }
    if (!job->line.is_poll)
        job_answer(job, 0, NULL);
    return send_body(job, image, err);
}

int job_run(struct job *job, struct error *err)
{
    struct glance_image *image = NULL;
    int r = create_image(job, &image, err);
    if (r == 0)
        r = fill_image(job, image, err);
    glance_image_free(image);
    if (r == -EINTR && job->is_given_up) {
        /* What could not be deleted stands behind a ';'. */
        struct error first = *err;
        const char *rest = strchr(first.text, ';');
        r = error_set(err, job->cause.code, "%s%s", job->cause.text, rest ? rest : "");
    }
    return r;
}
