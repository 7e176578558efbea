/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What upload.c (who is let in, whose turn it is), upload_job.c (what a job's thread does),
 * upload_state.c, upload_progress.c and upload_table.c share. One lock, the uploads', guards all;
 * it is never held across the network, the source or an answer.
 */
#pragma once

#include <sys/queue.h>
#include <time.h>

#include "fs/glance/line.h"
#include "fs/glance/upload.h"
#include "qcow/base/thread.h"

enum {
    JOBS_UNFINISHED_MAX = 64, /* each has a thread */
    JOBS_FINISHED_KEPT = 50,  /* for the tables */
    ASK_INTERVAL_MS = 100,    /* how often a writer that waits is asked whether it still does */
};

/* docs/states.md */
enum upload_state {
    UPLOAD_QUEUED, /* is checked, waits for its turn, opens its bytes */
    UPLOAD_SENDING,
    UPLOAD_VERIFYING,
    UPLOAD_ACTIVE,
    UPLOAD_FAILED, /* also: cancelled */
};

/* How far it was at some time; monotonic. */
struct upload_mark {
    int64_t when_ns;
    uint64_t n_sent;
};

struct job {
    /* Immutable once it is in the list: */
    struct uploads *uploads;
    unsigned id;
    char *domain_id, *domain_name;
    char *image_name;
    struct upload_line line; /* if it was malformed, what line_peek() says */
    struct upload_disk disk;
    const char *format; /* "raw" or "qcow2"; static, or the line's */
    pid_t pid;

    /* Of the job's thread only: the writer, until it is answered (done is NULL then). */
    struct upload_request writer;
    struct glance_body body;
    bool has_body;
    bool is_given_up; /* nobody wants the image any more; cause says why */
    struct error cause;

    /* Guarded by the uploads' lock: */
    enum upload_state state;
    bool has_turn; /* counts in n_running */
    char *image_id;
    uint64_t n_sent, len; /* bytes of this attempt, of the whole; len is 0 until it is known */
    unsigned attempt;     /* from 1; 0 before the first */
    struct error retry;   /* why the one before it was not the last; no text: not known */
    int64_t begun_ns;     /* of this attempt */
    int64_t ended_ns;     /* of the last one's sending; 0 while it goes on */
    int64_t moved_ns;     /* when n_sent grew last, or the first attempt began */
    struct upload_mark marks[2]; /* of this attempt, the older one first: for its speed */
    int64_t settled_ns;          /* when it became ACTIVE or FAILED: monotonic, and by the clock */
    struct timespec settled;
    struct error err; /* FAILED */
    bool is_over;     /* its thread has done with it: only the list keeps it */
    TAILQ_ENTRY(job) link;
};
TAILQ_HEAD(job_list, job);

struct uploads {
    struct uploads_config config; /* immutable */

    struct mutex lock;
    /* Guarded by lock: */
    struct cond changed;  /* a turn was given, a job has ended, or all are to end */
    struct job_list jobs; /* newest first */
    unsigned last_id;
    unsigned n_running, n_unfinished, n_finished;
    bool is_shut;
};

/* As in registry_internal.h: stands for "the lock of the uploads in question". Never defined. */
extern struct mutex uploads_role;

static inline void uploads_lock(struct uploads *uploads) ACQUIRE(uploads_role) NO_THREAD_SAFETY
{
    mutex_lock(&uploads->lock);
}

static inline void uploads_unlock(struct uploads *uploads) RELEASE(uploads_role) NO_THREAD_SAFETY
{
    mutex_unlock(&uploads->lock);
}

static inline void uploads_wait(struct uploads *uploads) REQUIRES(uploads_role) NO_THREAD_SAFETY
{
    cond_wait(&uploads->changed, &uploads->lock);
}

static inline void uploads_wait_until(struct uploads *uploads, int64_t deadline_ns)
    REQUIRES(uploads_role) NO_THREAD_SAFETY
{
    cond_wait_until(&uploads->changed, &uploads->lock, deadline_ns);
}

/* upload_state.c: the only one to assign the state. */
void job_enter_locked(struct job *job, enum upload_state next) REQUIRES(uploads_role);
/* "queued", ... */
const char *upload_state_name(enum upload_state state);
static inline bool upload_state_is_final(enum upload_state state)
{
    return state == UPLOAD_ACTIVE || state == UPLOAD_FAILED;
}

/* upload_progress.c: all from byte 0. @attempt from 1; @why the one before failed, or NULL. */
void job_begin_attempt_locked(struct job *job, unsigned attempt, const struct error *why)
    REQUIRES(uploads_role);
/* So many bytes of this attempt are handed over; to be told often, also if nothing moves. */
void job_note_sent_locked(struct job *job, uint64_t n_sent) REQUIRES(uploads_role);
/* Of the whole, 0 to 100; 100 only once it is sent. */
unsigned job_percent_locked(const struct job *job) REQUIRES(uploads_role);
/* Bytes a second: of late while it is sent, else of the whole attempt; negative: not known. */
double job_speed_locked(const struct job *job) REQUIRES(uploads_role);
/* Seconds to go at that speed; -1: not known, or nothing. */
int64_t job_rest_s_locked(const struct job *job) REQUIRES(uploads_role);
/* Seconds since anything moved; -1: it is not being sent. */
int64_t job_idle_s_locked(const struct job *job) REQUIRES(uploads_role);

/* upload_job.c: goes through the job, from its checks to the end. 0 or why it failed. */
int job_run(struct job *job, struct error *err) EXCLUDES(uploads_role);
/* Answers the writer, unless that was done. On the job's thread, or before it is started. */
void job_answer(struct job *job, int result, const struct error *err) EXCLUDES(uploads_role);

/* upload.c: makes what waits for its turn go on. */
void uploads_give_turns_locked(struct uploads *uploads) REQUIRES(uploads_role);
