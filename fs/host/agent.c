/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/agent.h"

#include <errno.h>
#include <libvirt/virterror.h>
#include <string.h>

#include "fs/host/agent_xml.h"
#include "fs/host/fault.h"
#include "fs/host/live.h"
#include "fs/log.h"
#include "qcow/base/cleanup.h"

enum {
    THAW_ANSWER_S = 2, /* short, since a lost question is to be asked again soon */
    THAW_RETRY_MS = 250,
};

static int64_t after_ms(unsigned ms)
{
    return monotonic_ns() + (int64_t)ms * 1000000;
}

/* The name, for messages: its own copy, or NULL. */
static char *find_name(struct host *host, const char *domain_id)
{
    struct domain *domain = host->ops->find(host, domain_id);
    char *name = strdup(domain ? domain->name : domain_id);
    domain_unref(domain);
    return name;
}

/* ---- is there somebody to ask? ---- */

static int check_running(const struct live *live, struct error *err)
{
    int state = 0;
    if (virDomainGetState(live->dom, &state, NULL, 0) < 0)
        return fault_set(err, "cannot ask for the state of domain '%s'", live->name);
    switch (state) {
    case VIR_DOMAIN_RUNNING:
    case VIR_DOMAIN_BLOCKED:
    case VIR_DOMAIN_SHUTDOWN: /* on its way down, still runs */
        return 0;
    case VIR_DOMAIN_SHUTOFF:
    case VIR_DOMAIN_CRASHED:
        return error_set(err, -ESTALE, "domain '%s' is not running", live->name);
    default:
        return error_set(err, -EOPNOTSUPP, "domain '%s' is paused, its guest cannot answer",
                         live->name);
    }
}

static int read_agent_state(const struct live *live, enum agent_state *ret_state, struct error *err)
{
    auto_free char *xml = virDomainGetXMLDesc(live->dom, 0);
    if (!xml)
        return fault_set(err, "cannot read the XML of domain '%s'", live->name);
    return agent_xml_read(xml, ret_state, err);
}

/* So that a guest without an agent costs no waiting. */
static int find_agent(struct live *live, enum agent_state *ret_state, struct error *err)
{
    int r = live_attach(live, err);
    if (r == 0)
        r = check_running(live, err);
    if (r == 0)
        r = read_agent_state(live, ret_state, err);
    if (r != 0)
        return r;
    switch (*ret_state) {
    case AGENT_CONNECTED:
        return 0;
    case AGENT_DISCONNECTED:
        return error_set(err, -EOPNOTSUPP, "no guest agent is connected in domain '%s'",
                         live->name);
    case AGENT_NONE:
        break;
    }
    return error_set(err, -EOPNOTSUPP, "domain '%s' has no channel for a guest agent", live->name);
}

/* ---- asking ---- */

/* Without it libvirt waits for ever. It has no call that tells what the time was before. */
static int limit_answers(const struct live *live, int timeout_s, struct error *err)
{
    if (virDomainAgentSetResponseTimeout(live->dom, timeout_s, 0) < 0)
        return fault_set(err, "cannot limit the time of the guest agent of domain '%s'",
                         live->name);
    return 0;
}

/* A domain that is gone takes the limit along. */
static void unlimit_answers(const struct live *live)
{
    struct error err = {0};
    if (limit_answers(live, VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK, &err) < 0)
        log_debug("%s", err.text);
}

/*
 * True if the last error is the guest's own answer. libvirt has no code for that; but its text,
 * in whatever language, then names the agent's command.
 */
static bool is_answer(const char *command)
{
    const virError *fault = virGetLastError();
    return fault && fault->code == VIR_ERR_INTERNAL_ERROR && fault->message &&
           strstr(fault->message, command);
}

/*
 * An agent that hangs is found before it can be asked for something that it would do later. Any
 * answer will do, also that it does not know the time.
 */
static int check_alive(const struct live *live, struct error *err)
{
    long long seconds;
    unsigned nanoseconds;
    if (virDomainGetTime(live->dom, &seconds, &nanoseconds, 0) == 0 || is_answer("guest-get-time"))
        return 0;
    return fault_set(err, "the guest agent of domain '%s' does not answer", live->name);
}

/* Of a failed freeze; what is not known to be an answer may have been carried out. */
static int judge_freeze(const struct live *live, struct error *err)
{
    bool is_refusal = is_answer("guest-fsfreeze-freeze");
    bool is_unasked = virGetLastErrorCode() == VIR_ERR_OPERATION_INVALID;
    int r = fault_set(err, "cannot freeze the file systems of domain '%s'", live->name);
    if (is_refusal)
        return -EIO;
    return r == -ESTALE || is_unasked ? -ESTALE : -EINPROGRESS;
}

int agent_freeze(struct host *host, const char *domain_id, unsigned timeout_ms, struct error *err)
{
    auto_free char *name = find_name(host, domain_id);
    auto_live struct live live = {
        .lh = (struct libvirt_host *)host, .id = domain_id, .name = name ? name : domain_id};
    live_renew_deadline(&live);
    enum agent_state state;
    int r = find_agent(&live, &state, err);
    if (r == 0)
        r = limit_answers(&live, (int)(timeout_ms / 1000), err);
    if (r < 0)
        return r == -EOPNOTSUPP || r == -ESTALE ? r : -EIO;
    r = check_alive(&live, err);
    if (r < 0)
        r = r == -ETIMEDOUT || r == -ESTALE ? r : -EIO;
    else if (virDomainFSFreeze(live.dom, NULL, 0, 0) < 0)
        r = judge_freeze(&live, err);
    else
        r = 0;
    unlimit_answers(&live);
    return r;
}

static int thaw_once(struct live *live, struct error *err)
{
    enum agent_state state = AGENT_CONNECTED;
    int r = find_agent(live, &state, err);
    if (r < 0 && state == AGENT_NONE)
        return 0; /* so nothing was ever frozen by one */
    if (r == 0)
        r = limit_answers(live, THAW_ANSWER_S, err);
    if (r < 0)
        return r;
    if (virDomainFSThaw(live->dom, NULL, 0, 0) < 0)
        r = fault_set(err, "cannot thaw the file systems of domain '%s'", live->name);
    unlimit_answers(live);
    return r;
}

int agent_thaw(struct host *host, const char *domain_id, unsigned timeout_ms, struct error *err)
{
    auto_free char *name = find_name(host, domain_id);
    auto_live struct live live = {
        .lh = (struct libvirt_host *)host, .id = domain_id, .name = name ? name : domain_id};
    int64_t deadline_ns = after_ms(timeout_ms);
    live.deadline_ns = deadline_ns;
    for (;;) {
        int r = thaw_once(&live, err);
        if (r == 0 || r == -ESTALE)
            return r;
        if (live_is_cut(&live))
            live_detach(&live);
        if (monotonic_ns() >= deadline_ns)
            return -ETIMEDOUT;
        if (!mailbox_sleep(live.lh->mail, after_ms(THAW_RETRY_MS)))
            return -ETIMEDOUT;
    }
}
