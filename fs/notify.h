/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Telling the service manager how we are: sd_notify(3)'s protocol, a datagram to the socket that
 * NOTIFY_SOCKET names. Without one all of this does nothing; what goes wrong is nobody's loss.
 */
#pragma once

struct notify {
    int fd; /* -1: nobody wants to know */
};

/* What a notify is that was not begun. */
#define NOTIFY_NONE ((struct notify){.fd = -1})

/* What the program says of itself. */
#define NOTIFY_READY "READY=1\nSTATUS=Mounted"
#define NOTIFY_STOPPING "STOPPING=1\nSTATUS=Putting domains back as they were"

/*
 * Takes the socket out of the environment, so that no program that we start speaks for us. Main
 * thread, before there is another.
 */
void notify_begin(struct notify *ret_notify);
void notify_end(struct notify *notify);

/*
 * Sends @lines, NAME=VALUE with newlines between them. Names of other people's have no place there:
 * one with a newline in it would be a line of its own. Any thread; waits if the manager is slow.
 */
void notify_send(const struct notify *notify, const char *lines);
