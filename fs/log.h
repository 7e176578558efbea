/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Log: one line an event, to stderr in the foreground and to syslog when detached. Any thread.
 * A line reads `virtsnapfs: LEVEL: TEXT`. No secrets go in.
 */
#pragma once

#include <stdbool.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Lines above @max are dropped (default: INFO). Call before threads start. */
void log_init(enum log_level max);

/* From now on to syslog (facility daemon). Called by the daemon once it is detached. */
void log_to_syslog(void);

void log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_LEVEL_WARN, __VA_ARGS__) /* ends in what was done instead */
#define log_info(...) log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)
