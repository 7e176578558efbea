/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/session/stamps.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/json.h"
#include "fs/log.h"
#include "fs/session/catalog.h"
#include "fs/state.h"
#include "qcow/base/cleanup.h"
#include "qcow/base/thread.h"

enum {
    FILE_VERSION = 1,
    STAMPS_MAX = 65536, /* a few for each domain; the least recently used go first */
    FILE_MAX = 64 << 20,
    SAVE_INTERVAL_S = 30,
};

struct stamps {
    /* Immutable. */
    char *dir;  /* NULL: in memory only */
    char *path; /* NULL likewise */
    char *source;

    struct mutex lock;
    /* Guarded by lock. Key to [hash, seconds, nanoseconds]; jansson keeps the order of insertion,
     * and a key that is used goes to the end. */
    json_t *entries GUARDED_BY(lock);
    bool is_dirty GUARDED_BY(lock);
    bool is_saving GUARDED_BY(lock);
    bool is_warned GUARDED_BY(lock);
    int64_t saved_ns GUARDED_BY(lock); /* monotonic */
};

static bool parse_hash(const json_t *value, uint64_t *ret_hash)
{
    const char *text = json_string_value(value);
    if (!text || strlen(text) != 16 || strspn(text, "0123456789abcdef") != 16)
        return false;
    *ret_hash = strtoull(text, NULL, 16);
    return true;
}

static bool parse_entry(const json_t *entry, uint64_t *ret_hash, struct timespec *ret_time)
{
    if (!json_is_array(entry) || json_array_size(entry) != 3 ||
        !parse_hash(json_array_get(entry, 0), ret_hash))
        return false;
    const json_t *sec = json_array_get(entry, 1);
    const json_t *nsec = json_array_get(entry, 2);
    if (!json_is_integer(sec) || !json_is_integer(nsec) || json_integer_value(sec) < 0 ||
        json_integer_value(nsec) < 0 || json_integer_value(nsec) > 999999999)
        return false;
    *ret_time =
        (struct timespec){.tv_sec = json_integer_value(sec), .tv_nsec = json_integer_value(nsec)};
    return true;
}

static json_t *make_entry(uint64_t hash, struct timespec time)
{
    char text[17];
    snprintf(text, sizeof(text), "%016" PRIx64, hash);
    return json_pack("[sII]", text, (json_int_t)time.tv_sec, (json_int_t)time.tv_nsec);
}

static json_t *read_json(const char *path)
{
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
        if (errno != ENOENT)
            log_warn("cannot read '%s' (%s): directory times start anew", path,
                     strerrordesc_np(errno));
        return NULL;
    }
    struct stat st;
    json_error_t why = {.text = "not a plain file of sensible size"};
    json_t *root = NULL;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= FILE_MAX)
        root = json_read(fd, &why);
    if (!root)
        log_warn("'%s' is damaged (%s): directory times start anew", path, why.text);
    return root;
}

/* True if @root is ours in every part. */
static bool is_sound(const json_t *root, const char *source)
{
    const char *owner = json_string_value(json_object_get(root, "source"));
    json_t *entries = json_object_get(root, "stamps");
    if (json_integer_value(json_object_get(root, "version")) != FILE_VERSION || !owner ||
        strcmp(owner, source) != 0 || !json_is_object(entries))
        return false;
    const char *key;
    json_t *entry;
    json_object_foreach(entries, key, entry)
    {
        uint64_t hash;
        struct timespec time;
        if (!parse_entry(entry, &hash, &time))
            return false;
    }
    return true;
}

/* What an earlier mount of the same source left; NULL if there is nothing to go on from. */
static json_t *load(const char *path, const char *source)
{
    json_t *root = read_json(path);
    if (!root)
        return NULL;
    json_t *entries = NULL;
    if (is_sound(root, source))
        entries = json_incref(json_object_get(root, "stamps"));
    else
        log_warn("'%s' was not written by this version for this source: directory times start "
                 "anew",
                 path);
    json_decref(root);
    return entries;
}

int stamps_open(const char *state_dir, const char *source, struct stamps **ret_stamps,
                struct error *err)
{
    struct stamps *stamps = calloc(1, sizeof(*stamps));
    if (!stamps)
        return error_set(err, -ENOMEM, "out of memory");
    mutex_init(&stamps->lock);
    stamps->source = state_escape(source);
    bool is_enough = stamps->source != NULL;
    if (state_dir && is_enough) {
        stamps->dir = strdup(state_dir);
        uint64_t id = catalog_ino(source, "stamps");
        if (!stamps->dir ||
            asprintf(&stamps->path, "%s/stamps-%016" PRIx64 ".json", state_dir, id) < 0) {
            stamps->path = NULL;
            is_enough = false;
        }
    }
    json_t *entries = NULL;
    if (is_enough && stamps->path)
        entries = load(stamps->path, stamps->source);
    if (is_enough && !entries)
        entries = json_object();
    mutex_lock(&stamps->lock);
    stamps->entries = entries;
    stamps->saved_ns = monotonic_ns();
    mutex_unlock(&stamps->lock);
    if (!entries) {
        stamps_close(stamps);
        return error_set(err, -ENOMEM, "out of memory");
    }
    *ret_stamps = stamps;
    return 0;
}

/* Replaces the file in one step: a reader sees the old or the new content. */
static int replace_file(const struct stamps *stamps, const char *text)
{
    int r = state_make_dirs(stamps->dir);
    if (r < 0)
        return r;
    auto_free char *temp = NULL;
    if (asprintf(&temp, "%s.XXXXXX", stamps->path) < 0) {
        temp = NULL;
        return -ENOMEM;
    }
    auto_close int fd = mkostemp(temp, O_CLOEXEC); /* O_EXCL and 0600 */
    if (fd < 0)
        return -errno;
    r = state_write_all(fd, text, strlen(text));
    if (r == 0 && rename(temp, stamps->path) < 0)
        r = -errno;
    if (r < 0)
        unlink(temp);
    return r;
}

/* The file's text, or NULL if there is nothing to write now; marks the writing as begun. */
static char *begin_save_locked(struct stamps *stamps, bool is_last) REQUIRES(stamps->lock)
{
    int64_t now = monotonic_ns();
    bool is_due = is_last || now - stamps->saved_ns >= (int64_t)SAVE_INTERVAL_S * 1000000000;
    if (!stamps->path || !stamps->is_dirty || stamps->is_saving || !is_due)
        return NULL;
    stamps->saved_ns = now;
    json_t *root = json_pack("{sisssO}", "version", FILE_VERSION, "source", stamps->source,
                             "stamps", stamps->entries);
    char *text = root ? json_print(root, JSON_COMPACT) : NULL;
    json_decref(root);
    if (text) {
        stamps->is_saving = true;
        stamps->is_dirty = false;
    }
    return text;
}

static void save(struct stamps *stamps, bool is_last)
{
    mutex_lock(&stamps->lock);
    auto_free char *text = begin_save_locked(stamps, is_last);
    mutex_unlock(&stamps->lock);
    if (!text)
        return;
    int r = replace_file(stamps, text);
    mutex_lock(&stamps->lock);
    stamps->is_saving = false;
    bool must_warn = r < 0 && !stamps->is_warned;
    stamps->is_warned = stamps->is_warned || r < 0;
    stamps->is_dirty = stamps->is_dirty || r < 0;
    mutex_unlock(&stamps->lock);
    if (must_warn)
        log_warn("cannot write '%s' (%s): directory times are kept in memory only", stamps->path,
                 strerrordesc_np(-r));
}

void stamps_close(struct stamps *stamps)
{
    if (!stamps)
        return;
    save(stamps, true);
    mutex_lock(&stamps->lock);
    json_decref(stamps->entries);
    mutex_unlock(&stamps->lock);
    mutex_fini(&stamps->lock);
    free(stamps->dir);
    free(stamps->path);
    free(stamps->source);
    free(stamps);
}

static bool is_later(struct timespec a, struct timespec b)
{
    return a.tv_sec != b.tv_sec ? a.tv_sec > b.tv_sec : a.tv_nsec > b.tv_nsec;
}

/* The time for content never seen under that key; it differs from that of the content before. */
static struct timespec time_after(const struct timespec *before)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (!before || is_later(now, *before))
        return now;
    now = *before; /* the clock was set back */
    now.tv_nsec++;
    if (now.tv_nsec > 999999999)
        now = (struct timespec){.tv_sec = before->tv_sec + 1};
    return now;
}

static void store_locked(struct stamps *stamps, const char *key, json_t *entry)
    REQUIRES(stamps->lock)
{
    json_object_del(stamps->entries, key);
    if (json_object_size(stamps->entries) >= STAMPS_MAX)
        json_object_del(stamps->entries, json_object_iter_key(json_object_iter(stamps->entries)));
    json_object_set_new(stamps->entries, key, entry); /* takes NULL: then it is not remembered */
}

static struct timespec get_locked(struct stamps *stamps, const char *key, uint64_t hash,
                                  const struct timespec *first) REQUIRES(stamps->lock)
{
    json_t *entry = json_object_get(stamps->entries, key);
    uint64_t old_hash = 0;
    struct timespec time = {0};
    bool is_known = entry && parse_entry(entry, &old_hash, &time);
    if (is_known && old_hash == hash) {
        store_locked(stamps, key, json_incref(entry));
        return time;
    }
    if (is_known)
        time = time_after(&time);
    else
        time = first ? *first : time_after(NULL);
    store_locked(stamps, key, make_entry(hash, time));
    stamps->is_dirty = true;
    return time;
}

struct timespec stamps_get(struct stamps *stamps, const char *key, uint64_t hash,
                           const struct timespec *first)
{
    auto_free char *escaped = state_escape(key);
    if (!escaped)
        return first ? *first : time_after(NULL);
    mutex_lock(&stamps->lock);
    struct timespec time = get_locked(stamps, escaped, hash, first);
    mutex_unlock(&stamps->lock);
    save(stamps, false);
    return time;
}
