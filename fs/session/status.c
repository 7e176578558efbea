/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a person can ask about a domain: /DOMAIN/status and the extended attributes.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "fs/json.h"
#include "fs/session/catalog.h"
#include "fs/session/registry_internal.h"
#include "fs/session/space.h"
#include "fs/session/unclaimed.h"
#include "qcow/base/cleanup.h"

/* RFC 3339 in UTC with nanoseconds. */
enum { TIME_TEXT_MAX = 64 };
static void format_time(struct timespec time, char *ret_text)
{
    struct tm tm;
    char day[TIME_TEXT_MAX - 16];
    if (!gmtime_r(&time.tv_sec, &tm) || strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm) == 0)
        snprintf(day, sizeof(day), "@%lld", (long long)time.tv_sec);
    snprintf(ret_text, TIME_TEXT_MAX, "%s.%09dZ", day, (int)(time.tv_nsec % 1000000000));
}

static json_t *json_time(struct timespec time)
{
    char text[TIME_TEXT_MAX];
    format_time(time, text);
    return json_string(text);
}

/* Why none of the files of the disk can be read, or NULL. */
static const char *find_reason(const struct catalog *catalog, size_t disk_idx)
{
    for (size_t i = 0; catalog && i < catalog->n_entries; i++)
        if (catalog->entries[i].disk_idx == disk_idx && catalog->entries[i].reason)
            return catalog->entries[i].reason;
    return NULL;
}

static json_t *describe_disk(const struct disk *disk, const char *reason)
{
    json_t *layers = json_array();
    for (size_t i = 0; i < disk->n_layers; i++)
        json_array_append_new(layers,
                              json_pack("{soss}", "path", json_any_text(disk->layers[i].path),
                                        "format", qcow_format_name(disk->layers[i].format)));
    json_t *root = json_pack("{sosbso}", "target", json_any_text(disk->target), "supported",
                             !disk->unsupported, "layers", layers);
    if (root && (disk->unsupported || reason))
        json_object_set_new(root, "reason",
                            json_any_text(disk->unsupported ? disk->unsupported : reason));
    return root;
}

static json_t *describe_disks(struct host *host, struct domain *domain)
{
    struct catalog *catalog = NULL;
    if (catalog_get(host, domain, &catalog, NULL) < 0)
        catalog = NULL; /* no memory: the reasons are left out */
    json_t *disks = json_array();
    for (size_t i = 0; i < domain->n_disks; i++)
        json_array_append_new(disks, describe_disk(&domain->disks[i], find_reason(catalog, i)));
    catalog_unref(catalog);
    return disks;
}

/* What is read so far: the kernel asks ahead of the program, by a few MiB at most. */
static json_t *describe_reader_locked(const struct reader *reader) REQUIRES(registry_role)
{
    json_t *root = json_pack("{sIsisosIsIsIsI}", "id", (json_int_t)reader->id, "pid",
                             (int)reader->pid, "target", json_any_text(reader->target), "position",
                             (json_int_t)atomic_load(&reader->position), "size",
                             (json_int_t)atomic_load(&reader->size), "bytes",
                             (json_int_t)atomic_load(&reader->n_read), "open_ms",
                             (json_int_t)((monotonic_ns() - reader->opened_ns) / 1000000));
    if (root && reader->snapshot)
        json_object_set_new(root, "snapshot", json_any_text(reader->snapshot));
    if (root && reader->upload)
        json_object_set_new(root, "upload", json_integer((json_int_t)reader->upload));
    return root;
}

static json_t *describe_readers_locked(const struct reader_list *list) REQUIRES(registry_role)
{
    json_t *readers = json_array();
    const struct reader *reader;
    LIST_FOREACH(reader, list, link)
    json_array_append_new(readers, describe_reader_locked(reader));
    return readers;
}

static bool is_taken(const struct session *session)
{
    return session->state != SESSION_TAKING && session->disks;
}

static json_t *describe_instant_locked(const struct session *session) REQUIRES(registry_role)
{
    json_t *root = json_pack("{sIss}", "serial", (json_int_t)session->serial, "state",
                             session_state_name(session->state));
    if (session->method)
        json_object_set_new(root, "method", json_string(session->method));
    if (is_taken(session)) {
        int64_t age_ns = monotonic_ns() - session->taken_ns;
        json_object_set_new(root, "taken", json_time(session->instant.taken));
        json_object_set_new(root, "age_s", json_integer(age_ns / 1000000000));
        json_object_set_new(root, "consistency", json_string(session->instant.consistency));
        const char *reason =
            session->instant.quiesce ? quiesce_reason(session->instant.quiesce) : NULL;
        if (reason)
            json_object_set_new(root, "not_quiesced", json_any_text(reason));
        json_object_set_new(root, "locked", json_boolean(session->is_locked));
    }
    if (session->end.code < 0)
        json_object_set_new(root, "ended", json_any_text(session->end.text));
    json_object_set_new(root, "readers", describe_readers_locked(&session->readers));
    return root;
}

static json_t *describe_errors_locked(const struct slot *slot) REQUIRES(registry_role)
{
    json_t *errors = json_array();
    size_t first = slot->n_errors > ERRORS_KEPT ? slot->n_errors - ERRORS_KEPT : 0;
    for (size_t i = first; i < slot->n_errors; i++) {
        const struct noted_error *noted = &slot->errors[i % ERRORS_KEPT];
        json_array_append_new(errors, json_pack("{sososo}", "time", json_time(noted->time), "what",
                                                json_any_text(noted->what), "text",
                                                json_any_text(noted->err.text)));
    }
    return errors;
}

static json_t *describe_files_locked(const struct session *session) REQUIRES(registry_role)
{
    json_t *files = json_array();
    for (size_t i = 0; i < session->n_growing; i++)
        json_array_append_new(files, json_any_text(session->growing[i]));
    return files;
}

/* What a release has not undone yet. */
static json_t *describe_leftover_locked(const struct session *session) REQUIRES(registry_role)
{
    json_t *root =
        json_pack("{sososssb}", "reason", json_any_text(session->broken.text), "files",
                  describe_files_locked(session), "state", session_state_name(session->state),
                  "from_earlier_mount", session->is_left);
    if (root && session->method)
        json_object_set_new(root, "method", json_string(session->method));
    return root;
}

/* What waits for the one before it to be undone. */
static json_t *describe_queued_locked(const struct left_change *left) REQUIRES(registry_role)
{
    json_t *files = json_array();
    for (size_t i = 0; i < left->change->n_disks; i++)
        if (left->change->disks[i].file)
            json_array_append_new(files, json_any_text(left->change->disks[i].file));
    return json_pack("{sssosssbss}", "reason", "not tried yet", "files", files, "state",
                     "releasing", "from_earlier_mount", true, "method",
                     change_method_name(left->change->method));
}

/* Files that grow meanwhile, to be looked at without the lock. */
struct files {
    char **paths;
    size_t n;
};

static void files_fini(struct files *files)
{
    for (size_t i = 0; i < files->n; i++)
        free(files->paths[i]);
    free(files->paths);
}

static void copy_files_locked(const struct session *session, struct files *ret_files)
    REQUIRES(registry_role)
{
    ret_files->paths = calloc(session->n_growing, sizeof(*ret_files->paths));
    for (size_t i = 0; ret_files->paths && i < session->n_growing; i++) {
        char *path = strdup(session->growing[i]);
        if (path)
            ret_files->paths[ret_files->n++] = path;
    }
}

static void describe_slot_locked(const struct slot *slot, json_t *root, struct files *ret_files)
    REQUIRES(registry_role)
{
    const struct session *session = slot ? slot->session : NULL;
    json_t *instants = json_array();
    json_t *leftovers = json_array();
    bool is_leftover = session && (session->is_left || session->n_tries > 0);
    if (session && !is_leftover)
        json_array_append_new(instants, describe_instant_locked(session));
    if (is_leftover)
        json_array_append_new(leftovers, describe_leftover_locked(session));
    const struct left_change *left = slot ? STAILQ_FIRST(&slot->left) : NULL;
    for (; left; left = STAILQ_NEXT(left, link))
        json_array_append_new(leftovers, describe_queued_locked(left));
    if (session && session->n_growing)
        copy_files_locked(session, ret_files);
    json_object_set_new(root, "instants", instants);
    json_object_set_new(root, "snapshot_readers",
                        slot ? describe_readers_locked(&slot->named) : json_array());
    json_object_set_new(root, "errors", slot ? describe_errors_locked(slot) : json_array());
    json_object_set_new(root, "leftovers", leftovers);
    json_object_set_new(root, "elsewhere", json_array());
}

static void add_overlay_bytes(json_t *root, const struct files *files)
{
    json_t *instant = json_array_get(json_object_get(root, "instants"), 0);
    if (instant && files->n)
        json_object_set_new(instant, "overlay_bytes",
                            json_integer((json_int_t)space_used(files->paths, files->n)));
}

/* Nothing of ours is going on: an overlay that is there is nobody's whom we know. */
static void add_unclaimed(struct registry *registry, const struct domain *domain, json_t *root)
{
    struct host *host = registry->config.host;
    json_t *found = NULL;
    bool is_elsewhere = false;
    if (registry->config.journal && host->ops->method(host, CHANGE_OVERLAY))
        found = unclaimed_describe(registry->config.journal, domain, &is_elsewhere);
    if (found)
        json_array_append_new(json_object_get(root, is_elsewhere ? "elsewhere" : "leftovers"),
                              found);
}

/* What is not known, or not so, is left out. */
static void add_text(json_t *root, const char *key, const char *text)
{
    if (root && text)
        json_object_set_new(root, key, json_any_text(text));
}

static void add_number(json_t *root, const char *key, int64_t number)
{
    if (root && number >= 0)
        json_object_set_new(root, key, json_integer(number));
}

static json_t *describe_upload(const struct status_upload *upload)
{
    json_t *root = json_pack(
        "{sisosososssi}", "id", (int)upload->id, "snapshot", json_any_text(upload->snapshot),
        "image_name", json_any_text(upload->image_name), "image_id",
        json_any_text(upload->image_id), "state", upload->state, "percent", (int)upload->percent);
    add_text(root, "disk", upload->disk);
    add_text(root, "format", upload->format);
    add_number(root, "attempt", upload->attempt ? (int64_t)upload->attempt : -1);
    add_text(root, "retry", upload->retry);
    add_number(root, "bytes", (int64_t)upload->n_sent);
    add_number(root, "size", upload->size ? (int64_t)upload->size : -1);
    add_number(root, "speed", upload->speed);
    add_number(root, "eta_s", upload->rest_s);
    add_number(root, "idle_s", upload->idle_s);
    add_number(root, "ended_s", upload->ended_s);
    if (root && upload->ended_s >= 0)
        json_object_set_new(root, "ended", json_time(upload->ended));
    add_text(root, "error", upload->error);
    return root;
}

static json_t *describe_uploads(const struct status_upload *uploads, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, describe_upload(&uploads[i]));
    return list;
}

/* The same for all domains: what of the sandbox is in force. */
static json_t *describe_sandbox(const struct sandbox_report *report)
{
    if (!report->is_on)
        return json_pack("{sb}", "on", false);
    json_t *kept = json_array();
    for (unsigned i = 0; i < 64; i++) {
        const char *name = sandbox_capability_name(i);
        if (report->capabilities >> i & 1)
            json_array_append_new(kept, name ? json_string(name) : json_integer(i));
    }
    return json_pack("{sbsbsbsiso}", "on", true, "no_new_privs", report->has_no_new_privs,
                     "seccomp", report->has_seccomp, "landlock_abi", (int)report->landlock_abi,
                     "capabilities", kept);
}

char *registry_status(struct registry *registry, struct domain *domain,
                      const struct status_upload *uploads, size_t n)
{
    json_t *root =
        json_pack("{sososssbsb}", "name", json_any_text(domain->name), "id",
                  json_any_text(domain->id), "state", domain_state_name(domain->state),
                  "persistent", domain->is_persistent, "managed_save", domain->has_managed_save);
    if (!root)
        return NULL;
    json_object_set_new(root, "disks", describe_disks(registry->config.host, domain));
    __attribute__((cleanup(files_fini))) struct files files = {0};
    registry_lock(registry);
    const struct slot *slot = slot_find_locked(registry, domain->id);
    describe_slot_locked(slot, root, &files);
    bool is_at_rest = !slot || !slot->has_thread;
    registry_unlock(registry);
    if (is_at_rest)
        add_unclaimed(registry, domain, root);
    add_overlay_bytes(root, &files);
    json_object_set_new(root, "sandbox", describe_sandbox(&registry->config.sandbox));
    json_object_set_new(root, "uploads", describe_uploads(uploads, n));
    auto_free char *text = json_print(root, JSON_INDENT(2));
    json_decref(root);
    char *line = NULL;
    return text && asprintf(&line, "%s\n", text) >= 0 ? line : NULL;
}

/* ---- Extended attributes ---- */

static char *copy_time(struct timespec time)
{
    char text[TIME_TEXT_MAX];
    format_time(time, text);
    return strdup(text);
}

/* True if the fault of @what (a file name, or "now" for the whole instant) is this file's. */
static bool is_about(const struct catalog *catalog, const char *what, const struct disk *disk,
                     const struct named_snapshot *snapshot)
{
    if (strcmp(what, "now") == 0)
        return !snapshot;
    const struct catalog_entry *entry = catalog_find(catalog, what);
    if (!entry || strcmp(catalog->domain->disks[entry->disk_idx].target, disk->target) != 0 ||
        entry->is_now != !snapshot)
        return false;
    return !snapshot || snapshot_is_same(&entry->snapshot, snapshot);
}

static char *find_error_locked(const struct slot *slot, const struct catalog *catalog,
                               const struct disk *disk, const struct named_snapshot *snapshot)
    REQUIRES(registry_role)
{
    size_t first = slot->n_errors > ERRORS_KEPT ? slot->n_errors - ERRORS_KEPT : 0;
    for (size_t i = slot->n_errors; i > first; i--) {
        const struct noted_error *noted = &slot->errors[(i - 1) % ERRORS_KEPT];
        if (noted->what && is_about(catalog, noted->what, disk, snapshot))
            return strdup(noted->err.text);
    }
    return NULL;
}

static char *copy_error(struct registry *registry, const struct domain *domain,
                        const struct disk *disk, const struct named_snapshot *snapshot)
{
    struct catalog *catalog;
    struct error err;
    /* The cast is only to count a reference. */
    if (catalog_get(registry->config.host, (struct domain *)domain, &catalog, &err) < 0)
        return NULL;
    registry_lock(registry);
    const struct slot *slot = slot_find_locked(registry, domain->id);
    char *text = slot ? find_error_locked(slot, catalog, disk, snapshot) : NULL;
    registry_unlock(registry);
    catalog_unref(catalog);
    return text;
}

static char *copy_source(const struct domain *domain, const char *target)
{
    const struct disk *disk = domain_find_disk(domain, target);
    return disk && disk->n_layers > 0 ? strdup(disk->layers[0].path) : NULL;
}

static char *instant_xattr_locked(const struct session *session, const struct disk *disk,
                                  const char *name) REQUIRES(registry_role)
{
    if (strcmp(name, "taken") == 0)
        return copy_time(session->instant.taken);
    if (strcmp(name, "method") == 0)
        return strdup(session->method);
    if (strcmp(name, "consistency") == 0)
        return strdup(session->instant.consistency);
    if (strcmp(name, "source") == 0)
        return copy_source(session->instant.domain, disk->target);
    return NULL;
}

static char *now_xattr(struct registry *registry, const struct domain *domain,
                       const struct disk *disk, uint64_t serial, const char *name)
{
    registry_lock(registry);
    const struct slot *slot = slot_find_locked(registry, domain->id);
    const struct session *session = slot ? slot->session : NULL;
    bool is_there = session && session->serial == serial && is_taken(session);
    char *value = is_there ? instant_xattr_locked(session, disk, name) : NULL;
    registry_unlock(registry);
    if (!is_there && strcmp(name, "source") == 0)
        return copy_source(domain, disk->target);
    return value;
}

static char *snapshot_xattr(const struct domain *domain, const struct disk *disk,
                            const struct named_snapshot *snapshot, const char *name)
{
    if (strcmp(name, "taken") == 0)
        return copy_time(snapshot_created(snapshot));
    if (strcmp(name, "method") == 0)
        return strdup(snapshot_method(snapshot));
    if (strcmp(name, "source") != 0)
        return NULL;
    if (snapshot->kind == SNAPSHOT_EXTERNAL)
        return strdup(snapshot->external.path);
    return copy_source(domain, disk->target);
}

char *registry_xattr(struct registry *registry, const struct domain *domain,
                     const struct disk *disk, const struct named_snapshot *snapshot,
                     uint64_t serial, const char *name)
{
    if (strcmp(name, "error") == 0)
        return copy_error(registry, domain, disk, snapshot);
    if (snapshot)
        return snapshot_xattr(domain, disk, snapshot, name);
    return now_xattr(registry, domain, disk, serial, name);
}
