/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The last faults of each domain, for `status` and the xattr `error`; who is in the way.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fs/log.h"
#include "fs/session/catalog.h"
#include "fs/session/registry_internal.h"
#include "qcow/base/cleanup.h"

void slot_errors_fini(struct slot *slot)
{
    for (size_t i = 0; i < ERRORS_KEPT; i++)
        free(slot->errors[i].what);
}

/* The same text about the same file, noted a moment ago; or NULL. */
static struct noted_error *find_recent_locked(struct slot *slot, const char *what,
                                              const struct error *err) REQUIRES(registry_role)
{
    int64_t since = monotonic_ns() - (int64_t)ERROR_QUIET_S * 1000000000;
    for (size_t i = 0; i < ERRORS_KEPT; i++) {
        struct noted_error *noted = &slot->errors[i];
        if (noted->what && noted->first_ns > since && strcmp(noted->what, what) == 0 &&
            strcmp(noted->err.text, err->text) == 0)
            return noted;
    }
    return NULL;
}

/* One fault, one line: it may show at several files, and as the end of the instant. */
static bool was_said_locked(const struct slot *slot, const struct error *err)
    REQUIRES(registry_role)
{
    int64_t since = monotonic_ns() - (int64_t)ERROR_QUIET_S * 1000000000;
    for (size_t i = 0; i < ERRORS_KEPT; i++) {
        const struct noted_error *noted = &slot->errors[i];
        if (noted->what && noted->first_ns > since && strcmp(noted->err.text, err->text) == 0)
            return true;
    }
    return false;
}

/* Each was asked for by itself, and its failure is told by itself. */
static bool is_upload(const char *what)
{
    static const char word[] = "upload ";
    return strncmp(what, word, sizeof(word) - 1) == 0;
}

/* One more line; true if that is not too many within ERROR_QUIET_S. */
static bool count_line(struct error_lines *lines, unsigned max)
{
    int64_t now = monotonic_ns();
    if (lines->n == 0 || now - lines->begin_ns > (int64_t)ERROR_QUIET_S * 1000000000)
        *lines = (struct error_lines){.what_hash = lines->what_hash, .begin_ns = now};
    if (lines->n >= max)
        return false;
    lines->n++;
    return true;
}

/* Of that file, in the place of the one that was counted anew longest ago. */
static struct error_lines *find_lines_locked(struct slot *slot, const char *what)
    REQUIRES(registry_role)
{
    uint64_t hash = catalog_ino(what, "lines");
    struct error_lines *oldest = &slot->lines_of_files[0];
    for (size_t i = 0; i < ERRORS_KEPT; i++) {
        struct error_lines *lines = &slot->lines_of_files[i];
        if (lines->what_hash == hash)
            return lines;
        if (lines->begin_ns < oldest->begin_ns)
            oldest = lines;
    }
    *oldest = (struct error_lines){.what_hash = hash};
    return oldest;
}

enum verdict { QUIET, LINE, LAST_LINE };

/*
 * A disk that fails has another text for each offset that somebody reads: after some lines the
 * file, and the domain, is quiet for a while.
 */
static enum verdict judge_locked(struct slot *slot, const char *what) REQUIRES(registry_role)
{
    struct error_lines *lines = find_lines_locked(slot, what);
    if (!count_line(lines, ERROR_LINES_MAX) || !count_line(&slot->lines, ERRORS_KEPT))
        return QUIET;
    return lines->n == ERROR_LINES_MAX ? LAST_LINE : LINE;
}

static enum verdict note_locked(struct registry *registry, const char *domain_id, const char *what,
                                const struct error *err) REQUIRES(registry_role)
{
    struct slot *slot = slot_find_locked(registry, domain_id);
    if (!slot && registry->n_slots < ERROR_SLOTS_MAX)
        slot = slot_get_locked(registry, domain_id);
    if (!slot)
        return LINE;
    struct noted_error *noted = find_recent_locked(slot, what, err);
    bool is_known = noted || (!is_upload(what) && was_said_locked(slot, err));
    if (!noted) {
        noted = &slot->errors[slot->n_errors++ % ERRORS_KEPT];
        free(noted->what);
        noted->what = strdup(what);
        /* lint: gcc-analyzer/malloc-leak: kept at an index that gcc loses sight of */
        noted->err = *err;
        noted->first_ns = monotonic_ns();
    }
    clock_gettime(CLOCK_REALTIME, &noted->time);
    return is_known ? QUIET : judge_locked(slot, what);
}

/* A line about the domain was logged a moment ago. */
static bool is_told(struct registry *registry, const char *domain_id)
{
    registry_lock(registry);
    const struct slot *slot = slot_find_locked(registry, domain_id);
    bool is_told = slot && slot->lines.n > 0 &&
                   monotonic_ns() - slot->lines.begin_ns < (int64_t)ERROR_QUIET_S * 1000000000;
    registry_unlock(registry);
    return is_told;
}

void registry_note_end(struct session *session, const struct error *err)
{
    struct registry *registry = session->registry;
    const char *domain_id = session->slot->id;
    if (!session->ends_with_guest || !is_told(registry, domain_id)) {
        registry_note_error(registry, domain_id, "now", err);
        return;
    }
    registry_lock(registry);
    note_locked(registry, domain_id, "now", err);
    registry_unlock(registry);
    log_info("domain %s: the instant has ended: %s", domain_id, err->text);
}

void registry_note_error(struct registry *registry, const char *domain_id, const char *what,
                         const struct error *err)
{
    registry_lock(registry);
    enum verdict verdict = note_locked(registry, domain_id, what, err);
    registry_unlock(registry);
    if (verdict == QUIET)
        return;
    struct host *host = registry->config.host;
    struct domain *domain = *domain_id ? host->ops->find(host, domain_id) : NULL;
    const char *rest = verdict == LAST_LINE ? "; `status` has what else happens to this file" : "";
    if (*domain_id)
        log_error("domain '%s': %s: %s%s", domain ? domain->name : domain_id, what, err->text,
                  rest);
    else
        log_error("%s: %s%s", what, err->text, rest);
    domain_unref(domain);
}

/* "upload 2 (snap1)", of pid 12 if that waits for it; a program by its pid. The whole length. */
static size_t print_who_locked(const struct reader *reader, char *ret_text, size_t room)
    REQUIRES(registry_role)
{
    char upload[320] = "", pid[32] = "";
    if (reader->upload)
        snprintf(upload, sizeof(upload), "upload %u (%s)", reader->upload, reader->image_name);
    if (!reader->upload || reader->pid != getpid())
        snprintf(pid, sizeof(pid), "%spid %d", reader->upload ? " of " : "", (int)reader->pid);
    return (size_t)snprintf(ret_text, room, "%s%s", upload, pid);
}

/* "an instant taken 65 s ago is still read by pid 10, pid 11, upload 2 (snap1)" */
int registry_refuse_busy_locked(const struct session *session, struct error *err)
{
    char who[256] = "";
    size_t used = 0;
    const struct reader *reader;
    LIST_FOREACH(reader, &session->readers, link)
    {
        if (used)
            used += (size_t)snprintf(who + used, sizeof(who) - used, ", ");
        if (used < sizeof(who))
            used += print_who_locked(reader, who + used, sizeof(who) - used);
        if (used + sizeof(", ") > sizeof(who)) {
            snprintf(who + sizeof(who) - 4, 4, "...");
            break;
        }
    }
    long long age_s = (monotonic_ns() - session->taken_ns) / 1000000000;
    return error_set(err, -EBUSY, "an instant taken %lld s ago is still read by %s", age_s, who);
}
