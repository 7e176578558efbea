/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/options.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/option.h"
#include "qcow/base/cleanup.h"

static const char dir_prefix[] = "dir:";

/* Not silently dropped as other words of mount(8) are: nothing would have happened. */
static bool is_remount(const char *word)
{
    return strcmp(word, "remount") == 0;
}

static int apply_word(struct options *options, const char *word, struct error *err)
{
    if (strcmp(word, "rw") == 0)
        options->is_ro = false; /* behind an `ro` it is the later word that counts */
    if (!*word || option_is_mount_word(word))
        return 0;
    if (is_remount(word))
        return error_set(err, -EINVAL,
                         "options of a mount cannot be changed: unmount it, then mount it again");
    size_t len = strcspn(word, "=");
    const struct option *option = option_find(word, len);
    if (!option)
        return error_set(err, -EINVAL, "unknown option '%s'", word);
    return option_apply(options, option, word[len] ? word + len + 1 : NULL, err);
}

/* One word of an -o list, with `\,` and `\\` taken back; the rest of the list in @list. */
static void cut_word(const char **list, char *ret_word)
{
    const char *p = *list;
    for (; *p && *p != ','; p++) {
        if (*p == '\\' && p[1])
            p++;
        *ret_word++ = *p;
    }
    *ret_word = '\0';
    *list = *p ? p + 1 : p;
}

static int apply_list(struct options *options, const char *list, struct error *err)
{
    auto_free char *word = malloc(strlen(list) + 1);
    if (!word)
        return error_set(err, -ENOMEM, "out of memory");
    while (*list) {
        cut_word(&list, word);
        int r = apply_word(options, word, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static bool is_known(const char *word)
{
    return option_is_mount_word(word) || is_remount(word) ||
           option_find(word, strcspn(word, "=")) != NULL;
}

char *options_keep_known(const char *list)
{
    auto_free char *word = malloc(strlen(list) + 1);
    char *kept = malloc(strlen(list) + 1);
    if (!word || !kept) {
        free(kept);
        return NULL;
    }
    char *end = kept;
    while (*list) {
        const char *begin = list;
        cut_word(&list, word);
        if (is_known(word))
            end = mempcpy(end, begin, (size_t)(list - begin)); /* with the comma behind it */
    }
    *end = '\0';
    return kept;
}

/* The arguments that are left to read. */
struct arguments {
    char *const *next;
    char *const *end;
};

/* "--name", "--name=VALUE" or "--name VALUE"; '-' may stand for '_' in a name. */
static int apply_long(struct options *options, const char *arg, struct arguments *rest,
                      struct error *err)
{
    auto_free char *name = strdup(arg);
    if (!name)
        return error_set(err, -ENOMEM, "out of memory");
    size_t len = strcspn(name, "=");
    for (size_t i = 0; i < len; i++)
        if (name[i] == '-')
            name[i] = '_';
    const struct option *option = option_find(name, len);
    if (!option)
        return error_set(err, -EINVAL, "unknown option '--%s'", arg);
    const char *value = arg[len] ? arg + len + 1 : NULL;
    if (option->has_value && !value && rest->next < rest->end)
        value = *rest->next++;
    return option_apply(options, option, value, err);
}

/* A cluster of one-letter options; -o takes what follows it, here or as the next argument. */
static int apply_letters(struct options *options, const char *letters, struct arguments *rest,
                         struct error *err)
{
    for (; *letters; letters++) {
        switch (*letters) {
        case 'o':
            if (letters[1])
                return apply_list(options, letters + 1, err);
            if (rest->next == rest->end)
                return error_set(err, -EINVAL, "option -o needs a value");
            return apply_list(options, *rest->next++, err);
        case 'f':
            options->is_foreground = true;
            break;
        case 'd':
            options->is_foreground = options->is_debug = true;
            break;
        case 's':
            options->is_single_thread = true;
            break;
        case 'h':
            options->action = OPTIONS_HELP;
            break;
        case 'V':
            options->action = OPTIONS_VERSION;
            break;
        default:
            return error_set(err, -EINVAL, "unknown option '-%c'", *letters);
        }
    }
    return 0;
}

static int take_positional(struct options *options, const char *arg, struct error *err)
{
    char **where = !options->source ? &options->source : &options->mountpoint;
    if (*where)
        return error_set(err, -EINVAL, "one argument too many: '%s'", arg);
    *where = strdup(arg);
    /* lint: gcc-analyzer/malloc-leak: freed with the options */
    return *where ? 0 : error_set(err, -ENOMEM, "out of memory");
}

static int read_arguments(struct options *options, struct arguments *rest, struct error *err)
{
    bool is_only_positional = false;
    while (rest->next < rest->end) {
        const char *arg = *rest->next++;
        int r = 0;
        if (is_only_positional || arg[0] != '-' || !arg[1])
            r = take_positional(options, arg, err);
        else if (strcmp(arg, "--") == 0)
            is_only_positional = true;
        else if (arg[1] == '-')
            r = apply_long(options, arg + 2, rest, err);
        else
            r = apply_letters(options, arg + 1, rest, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Paths must outlive the change to / of a daemon. */
static int finish_mountpoint(struct options *options, struct error *err)
{
    char *mountpoint;
    int r = option_make_absolute(options->mountpoint, &mountpoint, err);
    if (r < 0) {
        error_prefix(err, "MOUNTPOINT");
        return r;
    }
    free(options->mountpoint);
    options->mountpoint = mountpoint;
    return 0;
}

static int finish_source(struct options *options, struct error *err)
{
    size_t len = strlen(dir_prefix);
    if (strncmp(options->source, dir_prefix, len) != 0)
        return *options->source ? 0 : error_set(err, -EINVAL, "SOURCE is empty");
    auto_free char *path = NULL;
    int r = option_make_absolute(options->source + len, &path, err);
    if (r < 0) {
        error_prefix(err, "SOURCE '%s'", options->source);
        return r;
    }
    char *source;
    if (asprintf(&source, "%s%s", dir_prefix, path) < 0)
        return error_set(err, -ENOMEM, "out of memory");
    free(options->source);
    options->source = source;
    options->dir = source + len;
    return 0;
}

static int refuse_missing(const char *what, struct error *err)
{
    return error_set(err, -EINVAL, "%s is missing (see virtsnapfs --help)", what);
}

static int finish_positionals(struct options *options, struct error *err)
{
    bool is_of_mount = options->action == OPTIONS_WAIT || options->action == OPTIONS_STATUS;
    if ((is_of_mount || options->action == OPTIONS_RECOVER) && options->mountpoint)
        return error_set(err, -EINVAL, "one argument too many: '%s'", options->mountpoint);
    if ((options->is_watch || options->is_json) && options->action != OPTIONS_STATUS)
        return error_set(err, -EINVAL, "--watch and --json go with --status");
    if (is_of_mount)
        options->mountpoint = take_ptr(options->source);
    if (!is_of_mount && !options->source)
        return refuse_missing("SOURCE", err);
    if (options->action != OPTIONS_RECOVER && !options->mountpoint)
        return refuse_missing("MOUNTPOINT", err);
    int r = options->mountpoint ? finish_mountpoint(options, err) : 0;
    return r == 0 && options->source ? finish_source(options, err) : r;
}

/* Contract section 7, row `state=`. */
static int default_state_dir(char **ret_path, struct error *err)
{
    /* lint: clang-tidy/concurrency-mt-unsafe: there is one thread yet */
    const char *xdg = getenv("XDG_STATE_HOME");
    /* lint: clang-tidy/concurrency-mt-unsafe: there is one thread yet */
    const char *home = getenv("HOME");
    int r;
    if (geteuid() == 0)
        r = asprintf(ret_path, "/var/lib/virtsnapfs");
    else if (xdg && *xdg == '/')
        r = asprintf(ret_path, "%s/virtsnapfs", xdg);
    else
        r = asprintf(ret_path, "%s/.local/state/virtsnapfs", home && *home == '/' ? home : "");
    if (r < 0) {
        *ret_path = NULL;
        return error_set(err, -ENOMEM, "out of memory");
    }
    return 0;
}

/* That this process may use. */
static unsigned count_processors(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
}

int options_parse(int argc, char *const *argv, struct options *ret_options, struct error *err)
{
    *ret_options = (struct options){
        .join_s = 60,
        .linger_s = 5,
        .max_hold_s = 86400,
        .timeout_s = 30,
        .max_open = 16,
        .max_uploads = 2,
        .cache_len = 64 << 20,
        .n_threads = count_processors(),
        .min_free_len = OPTIONS_MIN_FREE_DEFAULT,
        .uid = geteuid(),
        .gid = getegid(),
        .umask = 077,
        .is_sandboxed = true,
    };
    struct arguments rest = {.next = argv + (argc > 0), .end = argv + argc};
    int r = read_arguments(ret_options, &rest, err);
    if (r < 0 || ret_options->action == OPTIONS_HELP || ret_options->action == OPTIONS_VERSION)
        return r;
    r = finish_positionals(ret_options, err);
    if (r == 0 && !ret_options->state_dir)
        r = default_state_dir(&ret_options->state_dir, err);
    return r;
}

void options_fini(struct options *options)
{
    free(options->source);
    free(options->mountpoint);
    for (size_t i = 0; i < options->n_backing_dirs; i++)
        free(options->backing_dirs[i]);
    free(options->backing_dirs);
    free(options->cloud);
    free(options->scratch_dir);
    free(options->state_dir);
    *options = (struct options){0};
}

void options_print_help(FILE *to)
{
    fputs("usage: virtsnapfs [-o OPT[,OPT...]] [-f] [-d] [-s] SOURCE MOUNTPOINT\n"
          "       virtsnapfs [-o OPT[,OPT...]] --recover SOURCE\n"
          "       virtsnapfs [-o state=DIR] --wait MOUNTPOINT\n"
          "       virtsnapfs --status [--watch] [--json] MOUNTPOINT\n"
          "\n"
          "Shows each libvirt domain as a directory, its disks as files: DOMAIN/snapshots/\n"
          "now.raw is the first one as it is when it is opened, now.vdb.raw the disk vdb.\n"
          "\n"
          "SOURCE   a local libvirt URI, as in qemu:///system, or\n"
          "         dir:PATH, a directory of disk images without libvirt\n"
          "\n"
          "  -f            stay in the foreground      -h, --help      this text\n"
          "  -d, --debug   the same, and log all       -V, --version   version\n"
          "  -s            a single thread\n"
          "  --recover     brings the domains back that a server left which was killed\n"
          "  --wait        waits until the server of MOUNTPOINT has ended\n"
          "  --status      who reads what, uploads, leftovers; --watch: again and again,\n"
          "                --json: for programs\n"
          "\n"
          "Options, as -o NAME=VALUE or --NAME=VALUE (TIME: 90, 5m, 2d; BYTES: 512k, 64M):\n"
          "  live=auto|overlay|backup|copy|managedsave\n"
          "                      how the disks of a running domain are held (auto)\n"
          "  cold=lock|internal|overlay\n"
          "                      how those of a stopped one are (lock)\n"
          "  quiesce=try|require|never\n"
          "                      the guest freezes its file systems for the instant (try)\n"
          "  join=TIME           an open joins an instant that is younger (60s)\n"
          "  linger=TIME         an instant outlives its last close by this (5s)\n"
          "  max_hold=TIME       an instant ends after this (24h)\n"
          "  max_open=N          instants at once (16)\n"
          "  max_uploads=N       uploads at once, others are queued (2)\n"
          "  cloud=NAME          of clouds.yaml, to upload to (what OS_* variables say)\n"
          "  min_free=BYTES      kept free where files grow (5 %, but 1G to 20G)\n"
          "  timeout=TIME        for calls that answer at once (30s)\n"
          "  cache=BYTES         memory for tables and clusters (64M)\n"
          "  threads=N           that inflate for one reader (as many as processors)\n"
          "  list=raw|qcow2|all  views of a disk that ls shows; all can be opened (raw)\n"
          "  format=raw|qcow2    dir: what qcow2 content under another name is\n"
          "  backing_dir=DIR     references may lead there, too (repeatable)\n"
          "  scratch=DIR         where overlays go (beside the image)\n"
          "  state=DIR           what is kept over a remount (/var/lib/virtsnapfs, or\n"
          "                      virtsnapfs in $XDG_STATE_HOME)\n"
          "  uid=N gid=N         owner of all files (the mounting user)\n"
          "  umask=OCTAL         taken from mode 0444 and 0555 (077)\n"
          "  allow_other         others than the mounting user may look\n"
          "  ro                  mounted read-only\n"
          "  sandbox=yes|no      the program gives up what it does not need (yes)\n",
          to);
}
