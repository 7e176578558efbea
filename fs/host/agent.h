/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The guest agent: freezes and thaws the guest's file systems. Blocks on libvirt and the guest;
 * any thread, one at a time for each domain.
 */
#pragma once

#include "fs/host/host.h"

/*
 * 0: the file systems are frozen until agent_thaw().
 * -EOPNOTSUPP: no agent is configured or connected, or the guest is paused; it was not asked.
 * -ESTALE: the guest does not run, or is gone.
 * -EIO: it was not asked since libvirt is lost, or the agent answered that it could not.
 * -ETIMEDOUT: the agent answers nothing at all; it was not asked.
 * -EINPROGRESS: it was asked, and did not answer. The guest may be frozen, or be so later on, when
 * its agent gets to it: agent_thaw() is needed.
 *
 * @timeout_ms  for the agent's answer; at least 1000
 */
int agent_freeze(struct host *host, const char *domain_id, unsigned timeout_ms, struct error *err);

/*
 * Asks again and again until the agent says that nothing is frozen, or @timeout_ms are over. It
 * answers in the order of the questions, so a freeze that was asked for before is over as well.
 *
 * 0: thawed. -ESTALE: the guest does not run, or is gone. -ETIMEDOUT: no such answer yet, with
 * the last reason.
 */
int agent_thaw(struct host *host, const char *domain_id, unsigned timeout_ms, struct error *err);
