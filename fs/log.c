/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <syslog.h>
#include <unistd.h>

#include "qcow/base/text.h"

/* Longest line: an error's text with a domain's and a file's name in front. */
enum { LINE_MAX_LEN = 2048 };

static _Atomic enum log_level max_level = LOG_LEVEL_INFO;
static atomic_bool is_syslog;

static const char *const level_names[] = {
    [LOG_LEVEL_ERROR] = "error",
    [LOG_LEVEL_WARN] = "warning",
    [LOG_LEVEL_INFO] = "info",
    [LOG_LEVEL_DEBUG] = "debug",
};

static const int level_priorities[] = {
    [LOG_LEVEL_ERROR] = LOG_ERR,
    [LOG_LEVEL_WARN] = LOG_WARNING,
    [LOG_LEVEL_INFO] = LOG_INFO,
    [LOG_LEVEL_DEBUG] = LOG_DEBUG,
};

void log_init(enum log_level max)
{
    atomic_store(&max_level, max);
}

void log_to_syslog(void)
{
    openlog("virtsnapfs", LOG_PID, LOG_DAEMON);
    atomic_store(&is_syslog, true);
}

void log_line(enum log_level level, const char *fmt, ...)
{
    if (level > atomic_load(&max_level))
        return;
    char text[LINE_MAX_LEN];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    /* Names come from images and from other people: none of them may begin a line of its own. */
    text_hide_controls(text);
    if (atomic_load(&is_syslog))
        syslog(level_priorities[level], "%s: %s", level_names[level], text);
    else
        fprintf(stderr, "virtsnapfs: %s: %s\n", level_names[level], text);
}
