/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The states of a job, and the moves that are allowed between them. */
#include <assert.h>

#include "fs/glance/upload_internal.h"
#include "fs/log.h"

enum { N_STATES = UPLOAD_FAILED + 1 };

static const bool allowed_moves[N_STATES][N_STATES] = {
    [UPLOAD_QUEUED] = {[UPLOAD_SENDING] = true, [UPLOAD_FAILED] = true},
    [UPLOAD_SENDING] = {[UPLOAD_VERIFYING] = true, [UPLOAD_FAILED] = true},
    [UPLOAD_VERIFYING] = {[UPLOAD_ACTIVE] = true, [UPLOAD_FAILED] = true},
};

const char *upload_state_name(enum upload_state state)
{
    static const char *const names[N_STATES] = {
        [UPLOAD_QUEUED] = "queued", [UPLOAD_SENDING] = "sending", [UPLOAD_VERIFYING] = "verifying",
        [UPLOAD_ACTIVE] = "active", [UPLOAD_FAILED] = "failed",
    };
    return names[state];
}

static void check_locked(const struct job *job) REQUIRES(uploads_role)
{
    bool is_moving = job->state == UPLOAD_SENDING || job->state == UPLOAD_VERIFYING;
    assert(!is_moving || (job->has_turn && job->image_id));
    assert((job->state == UPLOAD_FAILED) == (job->err.code < 0));
    assert(job->state != UPLOAD_ACTIVE || job->n_sent == job->len);
    (void)is_moving;
}

void job_enter_locked(struct job *job, enum upload_state next)
{
    assert(allowed_moves[job->state][next]);
    log_debug("upload %u: %s -> %s", job->id, upload_state_name(job->state),
              upload_state_name(next));
    job->state = next;
    check_locked(job);
    cond_wake_all(&job->uploads->changed);
}
