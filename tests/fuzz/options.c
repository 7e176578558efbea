/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The command line: each line of the input is an argument. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/option.h"
#include "fs/options.h"
#include "tests/fuzz/fuzz.h"

enum { ARGUMENTS_MAX = 32 };

static void check_options(const struct options *o)
{
    if (o->action == OPTIONS_HELP || o->action == OPTIONS_VERSION)
        return;
    fuzz_check(o->action == OPTIONS_RECOVER || (o->mountpoint && o->mountpoint[0] == '/'));
    fuzz_check(o->action == OPTIONS_WAIT || (o->source && o->source[0]));
    fuzz_check(!o->dir || o->dir[0] == '/');
    fuzz_check(o->state_dir && o->state_dir[0] == '/');
    fuzz_check(!o->scratch_dir || o->scratch_dir[0] == '/');
    for (size_t i = 0; i < o->n_backing_dirs; i++)
        fuzz_check(o->backing_dirs[i][0] == '/');
    fuzz_check((o->umask & ~0777U) == 0);
    fuzz_check(o->max_open > 0 && o->max_uploads > 0 && o->timeout_s > 0 && o->max_hold_s > 0);
    /* Products of these are made all over. */
    fuzz_check(o->timeout_s <= UINT32_MAX / 1000 && o->max_hold_s <= 315360000);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct fuzz_input in = {.at = data, .left = len};
    char *argv[ARGUMENTS_MAX + 1];
    int argc = 0;
    argv[argc++] = strdup("virtsnapfs");
    while (in.left > 0 && argc < ARGUMENTS_MAX)
        argv[argc++] = fuzz_text(&in, '\n');
    argv[argc] = NULL;
    struct options options;
    struct error err = {0};
    int r = options_parse(argc, argv, &options, &err);
    fuzz_check(r == err.code && (r == 0 || err.text[0]));
    if (r == 0)
        check_options(&options);
    options_fini(&options);
    for (int i = 0; i < argc; i++) {
        option_is_mount_word(argv[i]);
        free(argv[i]);
    }
    return 0;
}
