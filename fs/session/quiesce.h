/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * quiesce=try|require|never: the guest's file systems are frozen for the moment of an instant, by
 * its agent, and thawed whatever happens then. Freeze and thaw run on a thread of their own (the
 * guard), so that an agent that hangs holds up nobody for longer than is said here, and so that
 * the guest is thawed in time if the call that fixes the moment hangs. Freezing is announced by
 * change->is_frozen, which is noted before the agent is asked and cleared when it said "thawed".
 *
 * All functions but the last two may block and are called on one thread at a time.
 */
#pragma once

#include <stdbool.h>

#include "fs/host/change.h"
#include "fs/host/host.h"

enum quiesce_policy { QUIESCE_TRY, QUIESCE_REQUIRE, QUIESCE_NEVER };

/* Where the change is written down; note() as in struct change_steps. */
struct quiesce_journal {
    int (*note)(void *ctx, const struct change *change, struct error *err);
    void *ctx;
};

/* How long things may take. */
struct quiesce_limits {
    unsigned freeze_ms; /* the freeze, for who waits for it */
    unsigned frozen_ms; /* from the freeze to the end of the moment */
    unsigned thaw_ms;   /* the thaw, for who waits for it */
    unsigned retry_ms;  /* between two questions to an agent that does not answer */
};
extern const struct quiesce_limits quiesce_limits_default;

struct quiesce;

/* For one instant. @host is borrowed until quiesce_free(). NULL: no memory. */
struct quiesce *quiesce_create(struct host *host, const char *domain_id, enum quiesce_policy policy,
                               const struct quiesce_limits *limits);

/*
 * Right before the moment. 0: go on, frozen or not (a guest that is off needs it not). Only with
 * QUIESCE_REQUIRE: -EOPNOTSUPP, -ETIMEDOUT (after freeze_ms), -EIO, -ESTALE; whatever the policy:
 * what note() said, and -ENOMEM. Then there is to be no moment; quiesce_end() may follow, and does
 * nothing.
 */
int quiesce_begin(struct quiesce *quiesce, struct change *change,
                  const struct quiesce_journal *journal, struct error *err);

/*
 * Right after the moment, or in its stead: thaws, and waits for that, thaw_ms at most; the guard
 * goes on in the background. If it had to thaw before this call, the instant is not what was asked
 * for: 0, and crash-consistent, or -ETIMEDOUT with QUIESCE_REQUIRE.
 */
int quiesce_end(struct quiesce *quiesce, struct change *change,
                const struct quiesce_journal *journal, struct error *err);

/*
 * Waits up to @timeout_ms until nothing is frozen by this object any more: the agent said so, or
 * the guest is off. 0, and change->is_frozen is cleared and noted; else the change has to stay
 * in the journal: -ETIMEDOUT, or what note() said.
 */
int quiesce_settle(struct quiesce *quiesce, struct change *change,
                   const struct quiesce_journal *journal, unsigned timeout_ms, struct error *err);

/* Ends the guard, whatever it has reached; waits for the question to the agent under way. */
void quiesce_free(struct quiesce *quiesce); /* NULL is fine */

/*
 * The same for a change that an earlier process left. 0, also if it is not frozen; -EAGAIN: the
 * guest was saved while frozen, and can be thawed when it runs again; -ETIMEDOUT and others: not
 * yet.
 */
int quiesce_undo(struct host *host, struct change *change, const struct quiesce_journal *journal,
                 struct error *err);

/* "filesystem" or "crash": what the instant is; constant after quiesce_end(). */
const char *quiesce_consistency(const struct quiesce *quiesce);
/* Why it is "crash", for log and status; NULL if it is not, or was not asked for. */
const char *quiesce_reason(const struct quiesce *quiesce);
