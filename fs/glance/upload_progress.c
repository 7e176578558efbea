/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How far an upload is, how fast it goes, and whether it goes at all. */
#include "fs/glance/upload_internal.h"

enum {
    MARK_S = 6,      /* the speed is that of the last 6 to 12 s: steady, and yet of now */
    SPEED_MIN_S = 1, /* before, it says more of buffers than of the network */
    REST_MIN_S = 3,  /* likewise, of what is to come */
};

static double seconds_between(int64_t begin_ns, int64_t end_ns)
{
    return (double)(end_ns - begin_ns) / 1e9;
}

void job_begin_attempt_locked(struct job *job, unsigned attempt, const struct error *why)
{
    int64_t now_ns = monotonic_ns();
    job->attempt = attempt;
    job->retry = why ? *why : (struct error){0};
    job->n_sent = 0;
    job->begun_ns = now_ns;
    if (job->moved_ns == 0)
        job->moved_ns = now_ns; /* to begin again is no movement: nothing of it has arrived */
    job->marks[0] = job->marks[1] = (struct upload_mark){.when_ns = now_ns};
}

void job_note_sent_locked(struct job *job, uint64_t n_sent)
{
    int64_t now_ns = monotonic_ns();
    if (n_sent > job->n_sent)
        job->moved_ns = now_ns;
    job->n_sent = n_sent;
    if (seconds_between(job->marks[1].when_ns, now_ns) < MARK_S)
        return;
    job->marks[0] = job->marks[1];
    job->marks[1] = (struct upload_mark){.when_ns = now_ns, .n_sent = n_sent};
}

unsigned job_percent_locked(const struct job *job)
{
    if (job->state == UPLOAD_ACTIVE)
        return 100;
    if (job->len == 0)
        return 0;
    /* In units that cannot overflow for any file there is. */
    uint64_t unit = job->len / 100 + 1;
    uint64_t percent = job->n_sent / unit;
    bool is_sent = job->n_sent >= job->len && job->state != UPLOAD_SENDING;
    return is_sent ? 100 : (unsigned)(percent < 100 ? percent : 99);
}

static bool is_sending_locked(const struct job *job) REQUIRES(uploads_role)
{
    return job->state == UPLOAD_SENDING && job->ended_ns == 0;
}

double job_speed_locked(const struct job *job)
{
    if (job->begun_ns == 0)
        return -1;
    if (!is_sending_locked(job)) {
        double whole_s = seconds_between(job->begun_ns, job->ended_ns);
        return whole_s > 0 ? (double)job->n_sent / whole_s : -1;
    }
    double recent_s = seconds_between(job->marks[0].when_ns, monotonic_ns());
    if (recent_s < SPEED_MIN_S)
        return -1;
    return (double)(job->n_sent - job->marks[0].n_sent) / recent_s;
}

int64_t job_rest_s_locked(const struct job *job)
{
    if (!is_sending_locked(job) || seconds_between(job->begun_ns, monotonic_ns()) < REST_MIN_S)
        return -1;
    double speed = job_speed_locked(job);
    double rest_s = speed > 0 ? (double)(job->len - job->n_sent) / speed : -1;
    return rest_s < 360000 * 100.0 ? (int64_t)rest_s : -1;
}

int64_t job_idle_s_locked(const struct job *job)
{
    if (!is_sending_locked(job) || job->moved_ns == 0)
        return -1;
    return (int64_t)seconds_between(job->moved_ns, monotonic_ns());
}
