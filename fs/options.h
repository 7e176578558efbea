/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The command line: `virtsnapfs [-o OPT[,OPT...]] [-f] [-d] [-s] [-h] [-V] SOURCE MOUNTPOINT`,
 * `--recover SOURCE`, `--wait MOUNTPOINT` or `--status MOUNTPOINT`, in any order, each long option
 * also as an -o name. Owned by main(); read-only once parsed.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "qcow/base/error.h"

enum options_action {
    OPTIONS_SERVE,
    OPTIONS_RECOVER, /* bring the domains of a source back to what they were, then end */
    OPTIONS_WAIT,    /* until the server of a mountpoint has ended */
    OPTIONS_STATUS,  /* what a mount is doing */
    OPTIONS_HELP,
    OPTIONS_VERSION,
};
enum options_live {
    OPTIONS_LIVE_AUTO,
    OPTIONS_LIVE_OVERLAY,
    OPTIONS_LIVE_BACKUP,
    OPTIONS_LIVE_COPY,
    OPTIONS_LIVE_MANAGEDSAVE,
};
enum options_cold { OPTIONS_COLD_LOCK, OPTIONS_COLD_INTERNAL, OPTIONS_COLD_OVERLAY };
enum options_quiesce { OPTIONS_QUIESCE_TRY, OPTIONS_QUIESCE_REQUIRE, OPTIONS_QUIESCE_NEVER };
/* min_free_len if the option is not given: a part of each file system. */
#define OPTIONS_MIN_FREE_DEFAULT UINT64_MAX

enum options_list { OPTIONS_LIST_RAW, OPTIONS_LIST_QCOW2, OPTIONS_LIST_ALL };
enum options_format { OPTIONS_FORMAT_NONE, OPTIONS_FORMAT_RAW, OPTIONS_FORMAT_QCOW2 };

struct options {
    enum options_action action; /* with HELP and VERSION the rest may be unset */
    char *source;     /* libvirt URI, or "dir:" and an absolute path; NULL: WAIT, STATUS */
    const char *dir;  /* the path in @source, or NULL for libvirt */
    char *mountpoint; /* absolute; NULL: RECOVER */
    bool is_foreground, is_debug, is_single_thread;
    bool is_watch, is_json; /* STATUS */

    enum options_live live;
    enum options_cold cold;
    enum options_quiesce quiesce;
    enum options_list list;
    enum options_format format;
    unsigned join_s, linger_s, max_hold_s, timeout_s;
    unsigned max_open, max_uploads;
    char *cloud;           /* in clouds.yaml, or NULL: what the environment says */
    uint64_t cache_len;    /* bytes */
    unsigned n_threads;    /* that inflate for one reader, its own among them */
    uint64_t min_free_len; /* bytes, or OPTIONS_MIN_FREE_DEFAULT */
    char **backing_dirs;   /* absolute */
    size_t n_backing_dirs;
    char *scratch_dir; /* absolute, or NULL */
    char *state_dir;   /* absolute */
    uid_t uid;
    gid_t gid;
    mode_t umask; /* taken from 0444 for files and 0555 for directories */
    bool allow_other, is_ro;
    bool is_sandboxed;
};

/*
 * Reads the command line and the environment (HOME, XDG_STATE_HOME). 0; -EINVAL with the reason
 * for what is wrong with it; -ENOMEM. Release with options_fini() in any case.
 */
int options_parse(int argc, char *const *argv, struct options *ret_options, struct error *err);
void options_fini(struct options *options);

/*
 * The words of the -o list @list that options_parse() knows, as they are written; caller frees.
 * NULL: no memory.
 */
char *options_keep_known(const char *list);

/* One screen. */
void options_print_help(FILE *to);
