/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which record of a domain counts: the host's of this moment, or the one that an instant noted. */
#include <errno.h>
#include <string.h>

#include "fs/session/registry_internal.h"

int record_find(struct host *host, const char *id, struct domain **ret_domain, struct error *err)
{
    struct domain *domain = host->ops->find(host, id);
    if (domain && domain->state != DOMAIN_SHUTOFF && host->ops->refresh) {
        domain_unref(domain);
        int r = host->ops->refresh(host, id, err);
        if (r < 0)
            return r;
        domain = host->ops->find(host, id);
    }
    if (!domain)
        return errno == ENOENT ? error_set(err, -ESTALE, "the domain is gone")
                               : error_set(err, -errno, "cannot look for the domain: %s",
                                           strerrordesc_np(errno));
    *ret_domain = domain;
    return 0;
}

void registry_note_record(struct session *session)
{
    registry_lock(session->registry);
    session->record = domain_ref(session->instant.domain);
    registry_unlock(session->registry);
}

static struct domain *find_noted(struct registry *registry, const char *domain_id)
{
    registry_lock(registry);
    const struct slot *slot = slot_find_locked(registry, domain_id);
    const struct session *session = slot ? slot->session : NULL;
    struct domain *record = session && session->record ? domain_ref(session->record) : NULL;
    registry_unlock(registry);
    return record;
}

struct domain *registry_record(struct registry *registry, struct domain *current)
{
    struct host *host = registry->config.host;
    if (!host->ops->method(host, CHANGE_OVERLAY))
        return domain_ref(current);
    /*
     * An instant that ends between the host's answer and the look for it would leave the caller
     * with a record of its overlay. So only what the host says before and after is believed, but
     * a domain that changes all the time keeps nobody here.
     */
    enum { TRIES = 4 };
    struct domain *domain = domain_ref(current);
    for (int i = 0; i < TRIES; i++) {
        struct domain *noted = find_noted(registry, domain->id);
        struct domain *now = noted ? noted : host->ops->find(host, domain->id);
        bool is_settled = noted || !now || now == domain;
        if (now) {
            domain_unref(domain);
            domain = now;
        }
        if (is_settled)
            break;
    }
    return domain;
}
