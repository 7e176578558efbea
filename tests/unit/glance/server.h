/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An HTTP server on loopback that does what a test says, request by request: for answers that no
 * real Keystone or Glance would give on demand. One connection a request. It stands for both.
 */
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/pause.h"

enum { REQUEST_MAX = 1 << 20, SEEN_MAX = 4096 };

/* What a step may do other than to answer. */
#define RESET "!reset"     /* takes the request, and resets the connection */
#define EARLY "!early "    /* answers before the body was read, and resets */
#define SILENCE "!silence" /* does nothing until the client is gone */
#define DRIP "!drip"       /* answers a byte at a time, for as long as the client listens */

#define PROCEED "!proceed" /* takes no data, and asks for it again and again as long as that */

struct step {
    const char *want;   /* begin of the request line: "PUT /v2/images/" */
    const char *answer; /* "STATUS REASON|Header: value|...||BODY", or one of the above */
};

struct server {
    int fd;
    unsigned port;
    pthread_t thread;
    const struct step *steps;
    size_t n_steps;
    atomic_size_t n_done;
    char last_id[64];    /* of the record that was POSTed last */
    char seen[SEEN_MAX]; /* what came that no step wanted */
};

static inline void server_send(int fd, const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, text, len, MSG_NOSIGNAL);
        if (n <= 0)
            return;
        text += n;
        len -= (size_t)n;
    }
}

static inline void server_reset(int fd)
{
    struct linger linger = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

/* The head as far as to the empty line; how many bytes came, with what may follow. */
static inline size_t server_read_head(int fd, char *request)
{
    size_t len = 0;
    request[0] = '\0';
    while (len < REQUEST_MAX - 1 && !strstr(request, "\r\n\r\n")) {
        ssize_t n = recv(fd, request + len, REQUEST_MAX - 1 - len, 0);
        if (n <= 0)
            return 0;
        len += (size_t)n;
        request[len] = '\0';
    }
    return len;
}

static inline void server_read_body(int fd, char *request, size_t len)
{
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    const char *field = strcasestr(request, "\r\nContent-Length: ");
    if (strcasestr(request, "\r\nExpect: 100-continue"))
        server_send(fd, go_on, sizeof(go_on) - 1);
    size_t want = (size_t)(strstr(request, "\r\n\r\n") + 4 - request);
    if (field)
        want += strtoul(field + 18, NULL, 10);
    while (len < want && len < REQUEST_MAX - 1) {
        ssize_t n = recv(fd, request + len, REQUEST_MAX - 1 - len, 0);
        if (n <= 0)
            return;
        len += (size_t)n;
        request[len] = '\0';
    }
}

/* '|' stands for the ends of lines in the head. */
static inline void server_answer(int fd, const char *answer)
{
    const char *body = strstr(answer, "||");
    char head[4096];
    size_t n = (size_t)snprintf(head, sizeof(head), "HTTP/1.1 ");
    for (const char *at = answer; *at && at != body; at++) {
        if (*at == '|') {
            head[n++] = '\r';
            head[n++] = '\n';
        } else {
            head[n++] = *at;
        }
    }
    n += (size_t)snprintf(head + n, sizeof(head) - n, "\r\nConnection: close\r\n\r\n");
    server_send(fd, head, n);
    if (body)
        server_send(fd, body + 2, strlen(body + 2));
}

static inline void server_drip(int fd)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";
    server_send(fd, head, sizeof(head) - 1);
    while (send(fd, " ", 1, MSG_NOSIGNAL) == 1)
        pause_us(100000);
}

static inline void server_proceed(int fd)
{
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    while (send(fd, go_on, sizeof(go_on) - 1, MSG_NOSIGNAL) > 0)
        pause_us(100000);
}

static inline void server_note_id(struct server *server, const char *request)
{
    const char *id = strstr(request, "\"id\":\"");
    if (strncmp(request, "POST /v2/images", 15) == 0 && id)
        snprintf(server->last_id, sizeof(server->last_id), "%.36s", id + 6);
}

static inline void server_handle(struct server *server, int fd, char *request)
{
    size_t len = server_read_head(fd, request);
    if (len == 0)
        return;
    const struct step *step =
        server->n_done < server->n_steps ? &server->steps[server->n_done] : NULL;
    if (!step || strncmp(request, step->want, strlen(step->want)) != 0) {
        size_t used = strlen(server->seen);
        snprintf(server->seen + used, SEEN_MAX - used, "%.*s instead of step %zu (%s)\n",
                 (int)strcspn(request, "\r"), request, (size_t)server->n_done,
                 step ? step->want : "none");
        server_answer(fd, "418 Not wanted");
        return;
    }
    server->n_done++;
    if (strncmp(step->answer, EARLY, strlen(EARLY)) == 0) {
        server_reset(fd);
        server_answer(fd, step->answer + strlen(EARLY));
        pause_us(100000); /* so that it comes before the reset */
        return;
    }
    if (strcmp(step->answer, PROCEED) == 0) {
        server_proceed(fd);
        return;
    }
    server_read_body(fd, request, len);
    server_note_id(server, request);
    if (strcmp(step->answer, RESET) == 0)
        server_reset(fd);
    else if (strcmp(step->answer, SILENCE) == 0)
        (void)!recv(fd, request, REQUEST_MAX, 0);
    else if (strcmp(step->answer, DRIP) == 0)
        server_drip(fd);
    else
        server_answer(fd, step->answer);
}

static inline void *server_run(void *arg)
{
    struct server *s = arg;
    char *request = malloc(REQUEST_MAX);
    for (int fd; (fd = accept(s->fd, NULL, NULL)) >= 0; close(fd))
        server_handle(s, fd, request);
    free(request);
    return NULL;
}

static inline void server_start(struct server *server, const struct step *steps, size_t n_steps)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    *server = (struct server){.steps = steps, .n_steps = n_steps};
    server->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(server->fd, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(server->fd, 16), 0);
    assert_int_equal(getsockname(server->fd, (struct sockaddr *)&address, &len), 0);
    server->port = ntohs(address.sin_port);
    assert_int_equal(pthread_create(&server->thread, NULL, server_run, server), 0);
}

/* All steps were taken, and nothing else was asked for. */
static inline void server_finish(struct server *server)
{
    shutdown(server->fd, SHUT_RDWR);
    pthread_join(server->thread, NULL);
    close(server->fd);
    if (server->seen[0] || server->n_done != server->n_steps)
        fail_msg("%zu of %zu steps; %s", (size_t)server->n_done, server->n_steps, server->seen);
}
