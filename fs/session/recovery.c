/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What daemons before us left: handed to the domains' threads, which undo it. */
#include <stdlib.h>

#include "fs/log.h"
#include "fs/session/journal.h"
#include "fs/session/registry_internal.h"

static int queue_locked(struct registry *registry, const struct journal_leftover *leftover,
                        struct error *err) REQUIRES(registry_role)
{
    struct slot *slot = slot_get_locked(registry, leftover->change->domain_id);
    struct left_change *left = calloc(1, sizeof(*left));
    if (!slot || !left) {
        free(left);
        return error_set(err, -ENOMEM, "out of memory");
    }
    left->change = leftover->change;
    left->entry = leftover->entry;
    left->is_untried = true;
    STAILQ_INSERT_TAIL(&slot->left, left, link);
    registry->n_untried++;
    int r = slot->has_thread ? 0 : session_start_locked(slot, err);
    if (r < 0) {
        STAILQ_REMOVE(&slot->left, left, left_change, link);
        registry->n_untried--;
        free(left);
    }
    return r;
}

void registry_recover(struct registry *registry, const struct journal_leftover *leftovers, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct change *change = leftovers[i].change;
        struct error err = {0};
        log_info("domain '%s' (%s) was left with an instant by a daemon that is gone (%s)",
                 change->domain_name, change->domain_id, change_method_name(change->method));
        registry_lock(registry);
        int r = queue_locked(registry, &leftovers[i], &err);
        registry_unlock(registry);
        if (r == 0)
            continue;
        log_error("domain '%s' is left as it is: %s", change->domain_name, err.text);
        change_free(change);
        journal_forget(leftovers[i].entry);
    }
}

static bool is_untried(const struct slot *slot) REQUIRES(registry_role)
{
    return !STAILQ_EMPTY(&slot->left) || (slot->session && slot->session->is_untried);
}

size_t registry_await_recovery(struct registry *registry)
{
    size_t n_left = 0;
    registry_lock(registry);
    while (registry->n_untried > 0 && registry_wait_alive_locked(registry, is_untried))
        ;
    struct slot *slot;
    LIST_FOREACH(slot, &registry->slots, link)
    {
        const struct session *session = slot->session;
        n_left += session && session->is_left && (session->broken.code < 0 || session->is_untried);
        const struct left_change *left;
        STAILQ_FOREACH(left, &slot->left, link)
        n_left++;
    }
    registry_unlock(registry);
    return n_left;
}
