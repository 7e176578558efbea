/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/helper.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/host/libvirt.h"
#include "qcow/base/cleanup.h"

/* mount(8), EXIT STATUS: "mount failure". Below it are usage and "system error", as ours. */
enum { STATUS_MOUNT_FAILED = 32, STATUS_SAME_MAX = 2 };

static bool is_helpers_name(const char *argv0)
{
    const char *slash = argv0 ? strrchr(argv0, '/') : NULL;
    const char *name = slash ? slash + 1 : argv0;
    return name && strncmp(name, "mount.", strlen("mount.")) == 0;
}

/* @list is grown by a comma and @more. */
static int add_list(char **list, const char *more, struct error *err)
{
    char *grown;
    if (asprintf(&grown, "%s%s%s", *list ? *list : "", *list ? "," : "", more) < 0)
        return error_set(err, -ENOMEM, "out of memory");
    free(*list);
    *list = grown;
    return 0;
}

/* As mount(8) takes it: the number of a process, or the path of a namespace. */
static int set_namespace(struct helper *helper, const char *text, struct error *err)
{
    bool is_number = *text && text[strspn(text, "0123456789")] == '\0';
    char *path;
    if (asprintf(&path, is_number ? "/proc/%s/ns/mnt" : "%s", text) < 0)
        return error_set(err, -ENOMEM, "out of memory");
    free(helper->namespace_path);
    helper->namespace_path = path;
    return 0;
}

/* What the letters said besides what @struct helper keeps. */
struct letters {
    char *list; /* of all -o; owned; NULL: there was none */
    bool is_sloppy;
    enum options_action action;
    /* What is no option: SPEC, DIR, and one that is too many. */
    char *operands[3];
    int n_operands;
};

static void add_operand(struct letters *letters, char *text)
{
    if (letters->n_operands < 3)
        letters->operands[letters->n_operands++] = text;
}

static int read_letter(int letter, struct helper *helper, struct letters *letters,
                       struct error *err)
{
    switch (letter) {
    case 's':
        letters->is_sloppy = true;
        return 0;
    case 'f':
        helper->is_fake = true;
        return 0;
    case 'v':
        helper->is_verbose = true;
        return 0;
    case 'n': /* a mount of ours is in no mtab */
    case 't': /* the name says it */
        return 0;
    case 'N':
        return set_namespace(helper, optarg, err);
    case 'o':
        return add_list(&letters->list, optarg, err);
    case 'h':
        letters->action = OPTIONS_HELP;
        return 0;
    case 'V':
        letters->action = OPTIONS_VERSION;
        return 0;
    case 1:
        add_operand(letters, optarg);
        return 0;
    case ':':
        return error_set(err, -EINVAL, "option -%c needs a value", optopt);
    default:
        return error_set(err, -EINVAL, "unknown option '-%c' (see mount.virtsnapfs -h)", optopt);
    }
}

static int drop_unknown(struct letters *letters, struct error *err)
{
    if (!letters->is_sloppy || !letters->list)
        return 0;
    char *kept = options_keep_known(letters->list);
    if (!kept)
        return error_set(err, -ENOMEM, "out of memory");
    free(letters->list);
    letters->list = kept;
    return 0;
}

/* By the program's own reader, so that there is one list of options. */
static int read_operands(const struct letters *letters, struct options *ret_options,
                         struct error *err)
{
    char *const *operands = letters->operands;
    if (letters->n_operands < 2)
        return error_set(err, -EINVAL, "%s is missing (see mount.virtsnapfs -h)",
                         letters->n_operands ? "DIR" : "SPEC");
    if (letters->n_operands > 2)
        return error_set(err, -EINVAL, "one argument too many: '%s'", operands[2]);
    char *own[] = {"virtsnapfs", "-o", letters->list ? letters->list : "", "--", operands[0],
                   operands[1],  NULL};
    int r = options_parse(sizeof(own) / sizeof(*own) - 1, own, ret_options, err);
    if (r == 0 && ret_options->action != OPTIONS_SERVE)
        return error_set(err, -EINVAL, "an option of '%s' is none of a mount", own[2]);
    return r;
}

int helper_parse(int argc, char *const *argv, struct helper *ret_helper,
                 struct options *ret_options, struct error *err)
{
    *ret_helper = (struct helper){.is_called = is_helpers_name(argv[0])};
    if (!ret_helper->is_called)
        return options_parse(argc, argv, ret_options, err);
    *ret_options = (struct options){0};
    struct letters letters = {.action = OPTIONS_SERVE};
    opterr = 0;
    optind = 0; /* from the beginning, and no matter what was read before: getopt(3), NOTES */
    int letter, r = 0;
    /* '-': mount(8) puts options behind the operands, also where POSIXLY_CORRECT is set. */
    /* lint: clang-tidy/concurrency-mt-unsafe: there is one thread yet */
    while (r == 0 && (letter = getopt(argc, argv, "-:sfnvN:o:t:hV")) != -1)
        r = read_letter(letter, ret_helper, &letters, err);
    for (int i = optind; r == 0 && i < argc; i++)
        add_operand(&letters, argv[i]);
    if (r == 0 && letters.action != OPTIONS_SERVE)
        ret_options->action = letters.action;
    else if (r == 0 && (r = drop_unknown(&letters, err)) == 0)
        r = read_operands(&letters, ret_options, err);
    free(letters.list);
    return r;
}

void helper_fini(struct helper *helper)
{
    free(helper->namespace_path);
    *helper = (struct helper){0};
}

static int enter_namespace(const char *path, struct error *err)
{
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNS) < 0)
        return error_set(err, -ENXIO, "cannot enter the mount namespace '%s': %s", path,
                         strerrordesc_np(errno));
    return 0;
}

static int check_folder(const char *path, struct error *err)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return error_set(err, -errno, "'%s': %s", path, strerrordesc_np(errno));
    return S_ISDIR(st.st_mode) ? 0 : error_set(err, -ENOTDIR, "'%s' is not a directory", path);
}

static int check(const struct options *options, struct error *err)
{
    if (!options->dir && libvirt_uri_is_remote(options->source))
        return error_set(err, -EINVAL, "'%s' names another machine", options->source);
    int r = options->dir ? check_folder(options->dir, err) : 0;
    return r == 0 ? check_folder(options->mountpoint, err) : r;
}

int helper_begin(const struct helper *helper, const struct options *options, struct error *err)
{
    int r = helper->namespace_path ? enter_namespace(helper->namespace_path, err) : 0;
    return r == 0 && helper->is_fake ? check(options, err) : r;
}

void helper_say_mounted(const struct helper *helper, const struct options *options)
{
    if (!helper->is_verbose)
        return;
    printf("mount.virtsnapfs: '%s' mounted on '%s'\n", options->source, options->mountpoint);
    fflush(stdout); /* which is about to become /dev/null */
}

int helper_status(const struct helper *helper, int status)
{
    if (!helper->is_called || status <= STATUS_SAME_MAX)
        return status;
    return STATUS_MOUNT_FAILED;
}

void helper_print_help(FILE *to)
{
    fputs("usage: mount.virtsnapfs SPEC DIR [-sfnv] [-N NAMESPACE] [-o OPT[,OPT...]] [-t TYPE]\n"
          "\n"
          "Called by mount(8), as in: mount -t virtsnapfs qemu:///system /mnt/vms\n"
          "\n"
          "  -f   check, and mount nothing     -N NAMESPACE   in this mount namespace: a\n"
          "  -s   drop unknown options                        process's number or a path\n"
          "  -v   say what was mounted         -h             this text\n"
          "  -n, -t   taken, and do nothing    -V             version\n"
          "\n"
          "SPEC and the options are those of virtsnapfs: see virtsnapfs --help\n",
          to);
}
