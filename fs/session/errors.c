/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The last faults of each domain, for `status` and the xattr `error`.
 */
#include <string.h>

#include "fs/log.h"
#include "fs/session/registry_internal.h"
#include "qcow/base/cleanup.h"

void slot_errors_fini(struct slot *slot)
{
    for (size_t i = 0; i < ERRORS_KEPT; i++)
        free(slot->errors[i].what);
}

/* The same text about the same file, logged a moment ago; or NULL. */
static struct noted_error *find_recent_locked(struct slot *slot, const char *what,
                                              const struct error *err) REQUIRES(registry_role)
{
    int64_t since = monotonic_ns() - (int64_t)ERROR_QUIET_S * 1000000000;
    for (size_t i = 0; i < ERRORS_KEPT; i++) {
        struct noted_error *noted = &slot->errors[i];
        if (noted->what && noted->logged_ns > since && strcmp(noted->what, what) == 0 &&
            strcmp(noted->err.text, err->text) == 0)
            return noted;
    }
    return NULL;
}

/* True if the line is to be logged. */
static bool note_locked(struct registry *registry, const char *domain_id, const char *what,
                        const struct error *err) REQUIRES(registry_role)
{
    struct slot *slot = slot_find_locked(registry, domain_id);
    if (!slot && registry->n_slots < ERROR_SLOTS_MAX)
        slot = slot_get_locked(registry, domain_id);
    if (!slot)
        return true;
    struct noted_error *recent = find_recent_locked(slot, what, err);
    if (recent) {
        clock_gettime(CLOCK_REALTIME, &recent->time);
        return false;
    }
    struct noted_error *noted = &slot->errors[slot->n_errors++ % ERRORS_KEPT];
    free(noted->what);
    noted->what = strdup(what);
    /* lint: gcc-analyzer/malloc-leak: kept at an index that gcc loses sight of */
    noted->err = *err;
    noted->logged_ns = monotonic_ns();
    clock_gettime(CLOCK_REALTIME, &noted->time);
    return true;
}

void registry_note_error(struct registry *registry, const char *domain_id, const char *what,
                         const struct error *err)
{
    registry_lock(registry);
    bool must_log = note_locked(registry, domain_id, what, err);
    registry_unlock(registry);
    if (!must_log)
        return;
    struct host *host = registry->config.host;
    struct domain *domain = host->ops->find(host, domain_id);
    log_error("domain '%s': %s: %s", domain ? domain->name : domain_id, what, err->text);
    domain_unref(domain);
}
