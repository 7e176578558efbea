/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/option.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "qcow/base/bytes.h"
#include "qcow/base/cleanup.h"

/* Ten years: longer is a slip of the keyboard, and sums of such times cannot overflow. */
enum { DURATION_MAX_S = 315360000 };
/* A month, so that it fits into an unsigned number of milliseconds. */
enum { TIMEOUT_MAX_S = 2592000 };
/* More instants than any host has domains. */
enum { MAX_OPEN_MAX = 1000000 };
/* Each holds an instant and a connection, and reads a disk as fast as it can. */
enum { MAX_UPLOADS_MAX = 1000 };
/* A read of a megabyte has no more clusters of 4 KiB to share out. */
enum { THREADS_MAX = 256 };
/* No file system is larger, and sums cannot overflow. */
static const uint64_t min_free_max = 1ULL << 62;

static int parse_u64(const char *text, int base, uint64_t max, const char **ret_end, uint64_t *ret)
{
    if (!isdigit((unsigned char)*text))
        return -EINVAL;
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, base);
    if (errno || value > max)
        return -EINVAL;
    *ret_end = end;
    *ret = value;
    return 0;
}

/* A whole number with nothing behind it. */
static int parse_number(const struct option_value *v, int base, uint64_t min, uint64_t max,
                        uint64_t *ret, struct error *err)
{
    const char *end;
    if (parse_u64(v->text, base, max, &end, ret) < 0 || *end || *ret < min)
        return error_set(err, -EINVAL, "option %s: '%s' is not %s from %llu to %llu", v->name,
                         v->text, base == 8 ? "an octal number" : "a number",
                         (unsigned long long)min, (unsigned long long)max);
    return 0;
}

struct unit {
    char letter;
    uint64_t factor;
};

/* A number and perhaps one letter behind it that says what it counts. */
static int parse_scaled(const char *text, const struct unit *units, uint64_t max, uint64_t *ret)
{
    const char *end;
    uint64_t number = 0;
    if (parse_u64(text, 10, max, &end, &number) < 0)
        return -EINVAL;
    uint64_t factor = 1;
    if (*end) {
        for (; units->letter && units->letter != tolower((unsigned char)*end); units++)
            ;
        if (!units->letter || end[1])
            return -EINVAL;
        factor = units->factor;
    }
    if (!mul_u64(number, factor, ret) || *ret > max)
        return -EINVAL;
    return 0;
}

static int parse_duration(const struct option_value *v, unsigned min_s, unsigned max_s,
                          unsigned *ret_s, struct error *err)
{
    static const struct unit units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}, {0, 0}};
    uint64_t seconds;
    if (parse_scaled(v->text, units, max_s, &seconds) < 0 || seconds < min_s)
        return error_set(err, -EINVAL,
                         "option %s: '%s' is not a time from %u to %u seconds, such as 90, 5m, "
                         "24h or 2d",
                         v->name, v->text, min_s, max_s);
    *ret_s = (unsigned)seconds;
    return 0;
}

/* What a word stands for; the last one of a list has no word. */
struct choice {
    const char *word;
    int value;
};

static int choose(const struct option_value *v, const struct choice *choices, int *ret_value,
                  struct error *err)
{
    char words[100] = "";
    size_t len = 0;
    for (const struct choice *c = choices; c->word; c++) {
        if (strcmp(v->text, c->word) == 0) {
            *ret_value = c->value;
            return 0;
        }
        const char *glue = c == choices ? "" : c[1].word ? ", " : " or ";
        len += (size_t)snprintf(words + len, sizeof(words) - len, "%s%s", glue, c->word);
    }
    return error_set(err, -EINVAL, "option %s: '%s' is not %s", v->name, v->text, words);
}

static int set_live(const struct option_value *v, struct error *err)
{
    static const struct choice choices[] = {{"auto", OPTIONS_LIVE_AUTO},
                                            {"overlay", OPTIONS_LIVE_OVERLAY},
                                            {"backup", OPTIONS_LIVE_BACKUP},
                                            {"copy", OPTIONS_LIVE_COPY},
                                            {"managedsave", OPTIONS_LIVE_MANAGEDSAVE},
                                            {NULL, 0}};
    int value = 0;
    int r = choose(v, choices, &value, err);
    if (r == 0)
        v->options->live = (enum options_live)value;
    return r;
}

static int set_cold(const struct option_value *v, struct error *err)
{
    static const struct choice choices[] = {{"lock", OPTIONS_COLD_LOCK},
                                            {"internal", OPTIONS_COLD_INTERNAL},
                                            {"overlay", OPTIONS_COLD_OVERLAY},
                                            {NULL, 0}};
    int value = 0;
    int r = choose(v, choices, &value, err);
    if (r == 0)
        v->options->cold = (enum options_cold)value;
    return r;
}

static int set_quiesce(const struct option_value *v, struct error *err)
{
    static const struct choice choices[] = {{"try", OPTIONS_QUIESCE_TRY},
                                            {"require", OPTIONS_QUIESCE_REQUIRE},
                                            {"never", OPTIONS_QUIESCE_NEVER},
                                            {NULL, 0}};
    int value = 0;
    int r = choose(v, choices, &value, err);
    if (r == 0)
        v->options->quiesce = (enum options_quiesce)value;
    return r;
}

static int set_list(const struct option_value *v, struct error *err)
{
    static const struct choice choices[] = {{"raw", OPTIONS_LIST_RAW},
                                            {"qcow2", OPTIONS_LIST_QCOW2},
                                            {"all", OPTIONS_LIST_ALL},
                                            {NULL, 0}};
    int value = 0;
    int r = choose(v, choices, &value, err);
    if (r == 0)
        v->options->list = (enum options_list)value;
    return r;
}

static int set_format(const struct option_value *v, struct error *err)
{
    static const struct choice choices[] = {
        {"raw", OPTIONS_FORMAT_RAW}, {"qcow2", OPTIONS_FORMAT_QCOW2}, {NULL, 0}};
    int value = 0;
    int r = choose(v, choices, &value, err);
    if (r == 0)
        v->options->format = (enum options_format)value;
    return r;
}

static int set_join(const struct option_value *v, struct error *err)
{
    return parse_duration(v, 0, DURATION_MAX_S, &v->options->join_s, err);
}

static int set_linger(const struct option_value *v, struct error *err)
{
    return parse_duration(v, 0, DURATION_MAX_S, &v->options->linger_s, err);
}

static int set_max_hold(const struct option_value *v, struct error *err)
{
    return parse_duration(v, 1, DURATION_MAX_S, &v->options->max_hold_s, err);
}

static int set_timeout(const struct option_value *v, struct error *err)
{
    return parse_duration(v, 1, TIMEOUT_MAX_S, &v->options->timeout_s, err);
}

static int set_count(const struct option_value *v, unsigned max, unsigned *ret_count,
                     struct error *err)
{
    uint64_t number = 0;
    int r = parse_number(v, 10, 1, max, &number, err);
    if (r == 0)
        *ret_count = (unsigned)number;
    return r;
}

static int set_max_open(const struct option_value *v, struct error *err)
{
    return set_count(v, MAX_OPEN_MAX, &v->options->max_open, err);
}

static int set_threads(const struct option_value *v, struct error *err)
{
    return set_count(v, THREADS_MAX, &v->options->n_threads, err);
}

static int set_max_uploads(const struct option_value *v, struct error *err)
{
    return set_count(v, MAX_UPLOADS_MAX, &v->options->max_uploads, err);
}

static int set_cloud(const struct option_value *v, struct error *err)
{
    if (!*v->text)
        return error_set(err, -EINVAL, "option %s: the name of a cloud is missing", v->name);
    char *cloud = strdup(v->text);
    if (!cloud)
        return error_set(err, -ENOMEM, "out of memory");
    free(v->options->cloud);
    v->options->cloud = cloud;
    return 0;
}

static int parse_bytes(const struct option_value *v, uint64_t max, uint64_t *ret_len,
                       struct error *err)
{
    static const struct unit units[] = {
        {'k', 1 << 10}, {'m', 1 << 20}, {'g', 1 << 30}, {'t', 1ULL << 40}, {0, 0}};
    if (parse_scaled(v->text, units, max, ret_len) < 0)
        return error_set(err, -EINVAL,
                         "option %s: '%s' is not a number of bytes, such as 1048576, 512K, 64M "
                         "or 1G",
                         v->name, v->text);
    return 0;
}

static int set_cache(const struct option_value *v, struct error *err)
{
    return parse_bytes(v, SIZE_MAX, &v->options->cache_len, err);
}

static int set_min_free(const struct option_value *v, struct error *err)
{
    return parse_bytes(v, min_free_max, &v->options->min_free_len, err);
}

/* 2^32 - 1 stands for "leave as it is" in chown(2) and is nobody's number. */
static int set_uid(const struct option_value *v, struct error *err)
{
    uint64_t number = 0;
    int r = parse_number(v, 10, 0, UINT32_MAX - 1, &number, err);
    if (r == 0)
        v->options->uid = (uid_t)number;
    return r;
}

static int set_gid(const struct option_value *v, struct error *err)
{
    uint64_t number = 0;
    int r = parse_number(v, 10, 0, UINT32_MAX - 1, &number, err);
    if (r == 0)
        v->options->gid = (gid_t)number;
    return r;
}

static int set_umask(const struct option_value *v, struct error *err)
{
    uint64_t number = 0;
    int r = parse_number(v, 8, 0, 0777, &number, err);
    if (r == 0)
        v->options->umask = (mode_t)number;
    return r;
}

int option_make_absolute(const char *path, char **ret_path, struct error *err)
{
    if (!*path)
        return error_set(err, -EINVAL, "an empty path");
    auto_free char *cwd = *path == '/' ? strdup("") : getcwd(NULL, 0);
    if (!cwd)
        return error_set(err, -errno, "cannot tell the working directory: %s",
                         strerrordesc_np(errno));
    char *absolute;
    if (asprintf(&absolute, "%s%s%s", cwd, *path == '/' ? "" : "/", path) < 0)
        return error_set(err, -ENOMEM, "out of memory");
    *ret_path = absolute;
    return 0;
}

static int set_path(const struct option_value *v, char **where, struct error *err)
{
    char *path;
    int r = option_make_absolute(v->text, &path, err);
    if (r < 0) {
        error_prefix(err, "option %s", v->name);
        return r;
    }
    free(*where);
    *where = path;
    return 0;
}

static int add_backing_dir(const struct option_value *v, struct error *err)
{
    struct options *o = v->options;
    char **grown = reallocarray(o->backing_dirs, o->n_backing_dirs + 1, sizeof(*grown));
    if (!grown)
        return error_set(err, -ENOMEM, "out of memory");
    o->backing_dirs = grown;
    grown[o->n_backing_dirs] = NULL;
    int r = set_path(v, &grown[o->n_backing_dirs], err);
    if (r == 0)
        o->n_backing_dirs++;
    return r;
}

static int set_scratch(const struct option_value *v, struct error *err)
{
    return set_path(v, &v->options->scratch_dir, err);
}

static int set_state(const struct option_value *v, struct error *err)
{
    return set_path(v, &v->options->state_dir, err);
}

static int set_allow_other(const struct option_value *v, struct error *err)
{
    (void)err;
    v->options->allow_other = true;
    return 0;
}

static int set_ro(const struct option_value *v, struct error *err)
{
    (void)err;
    v->options->is_ro = true;
    return 0;
}

static int set_sandbox(const struct option_value *v, struct error *err)
{
    if (strcmp(v->text, "yes") != 0 && strcmp(v->text, "no") != 0)
        return error_set(err, -EINVAL, "option %s: '%s' is not yes or no", v->name, v->text);
    v->options->is_sandboxed = strcmp(v->text, "yes") == 0;
    return 0;
}

static int set_help(const struct option_value *v, struct error *err)
{
    (void)err;
    v->options->action = OPTIONS_HELP;
    return 0;
}

static int set_version(const struct option_value *v, struct error *err)
{
    (void)err;
    v->options->action = OPTIONS_VERSION;
    return 0;
}

/* The one that is not to serve; help and version come before it, wherever they stand. */
static int set_errand(const struct option_value *v, enum options_action errand, struct error *err)
{
    enum options_action *action = &v->options->action;
    if (*action == OPTIONS_HELP || *action == OPTIONS_VERSION)
        return 0;
    if (*action != OPTIONS_SERVE && *action != errand)
        return error_set(err, -EINVAL, "--recover, --wait and --status exclude each other");
    *action = errand;
    return 0;
}

static int set_recover(const struct option_value *v, struct error *err)
{
    return set_errand(v, OPTIONS_RECOVER, err);
}

static int set_wait(const struct option_value *v, struct error *err)
{
    return set_errand(v, OPTIONS_WAIT, err);
}

static int set_status(const struct option_value *v, struct error *err)
{
    return set_errand(v, OPTIONS_STATUS, err);
}

static int set_watch(const struct option_value *v, struct error *err)
{
    (void)err;
    v->options->is_watch = true;
    return 0;
}

static int set_json(const struct option_value *v, struct error *err)
{
    (void)err;
    v->options->is_json = true;
    return 0;
}

static int set_debug(const struct option_value *v, struct error *err)
{
    (void)err;
    v->options->is_foreground = v->options->is_debug = true;
    return 0;
}

static const struct option known[] = {
    {"live", true, set_live},
    {"cold", true, set_cold},
    {"quiesce", true, set_quiesce},
    {"list", true, set_list},
    {"format", true, set_format},
    {"join", true, set_join},
    {"linger", true, set_linger},
    {"max_hold", true, set_max_hold},
    {"timeout", true, set_timeout},
    {"max_open", true, set_max_open},
    {"max_uploads", true, set_max_uploads},
    {"threads", true, set_threads},
    {"cloud", true, set_cloud},
    {"min_free", true, set_min_free},
    {"cache", true, set_cache},
    {"backing_dir", true, add_backing_dir},
    {"scratch", true, set_scratch},
    {"state", true, set_state},
    {"uid", true, set_uid},
    {"gid", true, set_gid},
    {"umask", true, set_umask},
    {"allow_other", false, set_allow_other},
    {"ro", false, set_ro},
    {"sandbox", true, set_sandbox},
    {"debug", false, set_debug}, /* libfuse's own name for -d */
    {"recover", false, set_recover},
    {"wait", false, set_wait},
    {"status", false, set_status},
    {"watch", false, set_watch},
    {"json", false, set_json},
    {"help", false, set_help},
    {"version", false, set_version},
    {NULL, false, NULL},
};

const struct option *option_find(const char *name, size_t len)
{
    for (const struct option *o = known; o->name; o++)
        if (strlen(o->name) == len && strncmp(o->name, name, len) == 0)
            return o;
    return NULL;
}

int option_apply(struct options *options, const struct option *option, const char *value,
                 struct error *err)
{
    if (option->has_value && !value)
        return error_set(err, -EINVAL, "option %s needs a value", option->name);
    if (!option->has_value && value)
        return error_set(err, -EINVAL, "option %s takes no value", option->name);
    struct option_value v = {.options = options, .name = option->name, .text = value};
    return option->set(&v, err);
}

bool option_is_mount_word(const char *word)
{
    static const char *const words[] = {
        "nofail",   "_netdev",    "user",        "users",         "nouser",   "nousers",
        "owner",    "noowner",    "group",       "nogroup",       "auto",     "noauto",
        "defaults", "rw",         "suid",        "nosuid",        "dev",      "nodev",
        "exec",     "noexec",     "atime",       "noatime",       "diratime", "nodiratime",
        "relatime", "norelatime", "strictatime", "nostrictatime", "lazytime", "nolazytime",
        "async",    "sync",       "dirsync",     "silent",        "loud",     "mand",
        "nomand",   "iversion",   "noiversion",  "nosymfollow",
    };
    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
        if (strcmp(word, words[i]) == 0)
            return true;
    static const char *const prefixes[] = {
        "x-", "X-", "comment=", "user=", "subtype=", "uhelper=", "helper="};
    for (size_t i = 0; i < sizeof(prefixes) / sizeof(*prefixes); i++)
        if (strncmp(word, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    return false;
}
