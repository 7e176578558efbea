/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/session/nbd.h"

#include <errno.h>
#include <inttypes.h>
#include <libnbd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/session/nbd_known.h"
#include "qcow/base/bytes.h"
#include "qcow/base/cleanup.h"
#include "qcow/base/thread.h"

enum {
    /*
     * Connections. On two cores, four readers got a disk from qemu-nbd in 0.5 to 0.95 of the time
     * that they took over four of them (interleaved), and sooner than nbdcopy, by 1.2 to 1.6: the
     * server has one thread, so what more of them bring is changes between threads. Read through
     * the mount, 4 of them were 0.84 and 1 was 0.89 as fast as 2 (medians of 14 and 4 interleaved
     * runs), and requests of 512 KiB 0.97.
     */
    N_LINES_MAX = 2,
    /*
     * A longer read is split into requests of this size, under way together, so that the server
     * reads the next one from its disk while this one crosses the socket.
     */
    REQUEST_LEN = 256 << 10,
    MAP_LEN_MAX = 1 << 30, /* one question; the protocol has 32 bits for it */
    ZEROS_MIN = 64 << 10,  /* a shorter run of zeros is read with the data around it */
    NEAR = 8 << 20,        /* reads no further apart follow one another, in any order */
    N_NEAR_MIN = 4,        /* that many before it asks what comes */
};

/* A connection. Its user has it for itself. */
struct line {
    struct nbd_handle *nbd; /* NULL: not connected (any more) */
    bool is_busy;
};

struct remote {
    struct qcow_remote base;

    /* Immutable once open: */
    char *socket, *export_name;
    unsigned timeout_ms;
    unsigned n_lines; /* one if the server has no multi-conn */

    /* The last answer: who walks over the holes asks for one run after the other. */
    struct nbd_known known;

    struct mutex lock;
    struct cond changed;
    struct line lines[N_LINES_MAX] GUARDED_BY(lock); /* is_busy; the rest is the user's */
    uint64_t last_end GUARDED_BY(lock); /* of the read before, and how many were near the one */
    unsigned n_near GUARDED_BY(lock);   /* before them */
};

static int64_t deadline_of(const struct remote *remote)
{
    return monotonic_ns() + (int64_t)remote->timeout_ms * 1000000;
}

/* ---- one connection ---- */

/* Without a word of farewell (nbd_aio_disconnect()): if the server is gone by then, libnbd 1.14
 * frees that command while the call that sends it is under way, and there is no callback to prevent
 * it. The server sees the end all the same. */
static void hang_up(struct line *line)
{
    nbd_close(take_ptr(line->nbd));
}

/* A server that is gone is one fault, whatever it is noticed by: a log has one line for a text. */
static bool is_gone(const struct remote *remote, int code)
{
    bool was_there = remote->n_lines > 0;
    return code == EINVAL /* "the handle is dead" */ || code == ECONNRESET || code == EPIPE ||
           code == ENOTCONN || (was_there && (code == ECONNREFUSED || code == ENOENT));
}

static int say(const struct remote *remote, const char *why, struct error *err)
{
    return error_set(err, -EIO, "NBD export '%s' at '%s': %s", remote->export_name, remote->socket,
                     why ? why : "the connection was lost");
}

static int say_lost(const struct remote *remote, struct error *err)
{
    return say(remote, is_gone(remote, nbd_get_errno()) ? NULL : nbd_get_error(), err);
}

/* Waits for something to happen: 0, -ETIMEDOUT or -EIO. */
static int wait_line(const struct remote *remote, struct line *line, int64_t deadline_ns,
                     struct error *err)
{
    int64_t left_ns = deadline_ns - monotonic_ns();
    int left_ms = (int)(left_ns / 1000000) + 1;
    if (left_ns <= 0)
        return error_set(err, -ETIMEDOUT, "NBD export '%s' at '%s': no answer within %u ms",
                         remote->export_name, remote->socket, remote->timeout_ms);
    return nbd_poll(line->nbd, left_ms) < 0 ? say_lost(remote, err) : 0;
}

static bool is_set_up(struct nbd_handle *nbd, const struct remote *remote)
{
    /* Requests need not be aligned then, and may have any length up to 32 MiB. */
    return nbd && nbd_set_request_block_size(nbd, false) == 0 &&
           nbd_set_export_name(nbd, remote->export_name) == 0 &&
           nbd_add_meta_context(nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) == 0 &&
           nbd_aio_connect_unix(nbd, remote->socket) == 0;
}

static int connect_once(const struct remote *remote, struct line *line, int64_t deadline_ns,
                        struct error *err)
{
    line->nbd = nbd_create();
    if (!is_set_up(line->nbd, remote))
        return say_lost(remote, err);
    int r = 0;
    while (r == 0 && nbd_aio_is_connecting(line->nbd) == 1)
        r = wait_line(remote, line, deadline_ns, err);
    if (r < 0)
        return r;
    int64_t host_size = nbd_aio_is_ready(line->nbd) == 1 ? nbd_get_size(line->nbd) : -1;
    if (host_size < 0)
        return say_lost(remote, err);
    /* On a connection made later: the same name at the same place, and yet something else? */
    if (remote->n_lines > 0 && (uint64_t)host_size != remote->base.host_size)
        return error_set(err, -EIO,
                         "NBD export '%s' at '%s' had %" PRIu64 " bytes and has %" PRId64 " now",
                         remote->export_name, remote->socket, remote->base.host_size, host_size);
    return 0;
}

static int connect_line(const struct remote *remote, struct line *line, int64_t deadline_ns,
                        struct error *err)
{
    int r = connect_once(remote, line, deadline_ns, err);
    if (r < 0)
        hang_up(line);
    return r;
}

/* ---- requests ---- */

/* Requests under way on one connection; what libnbd calls back runs within nbd_poll(). */
struct batch {
    size_t n_pending;
    int failed;                  /* errno of the first that the server refused, or 0 */
    struct nbd_run_list *answer; /* for block status */
    uint64_t end;                /* of the range asked for */
};

/* lint: cppcheck/constParameter: libnbd's type */
static int on_complete(void *ctx, int *code)
{
    struct batch *batch = ctx;
    batch->n_pending--;
    if (*code && !batch->failed)
        batch->failed = *code;
    return 0; /* a 1 would free it, while the call that sends it may be under way (libnbd 1.14) */
}

/* Frees what was answered. */
static void retire_all(struct line *line)
{
    for (int64_t cookie; (cookie = nbd_aio_peek_command_completed(line->nbd)) > 0;)
        nbd_aio_command_completed(line->nbd, (uint64_t)cookie);
}

/* Until all are answered. A failure ends the connection: buffers under way are the caller's. */
static int await_batch(const struct remote *remote, struct line *line, const struct batch *batch,
                       struct error *err)
{
    int64_t deadline_ns = deadline_of(remote);
    size_t n_pending = batch->n_pending;
    while (batch->n_pending > 0) {
        int r = wait_line(remote, line, deadline_ns, err);
        bool is_dead = nbd_aio_is_dead(line->nbd) == 1 || nbd_aio_is_closed(line->nbd) == 1;
        /* lint: cppcheck/knownConditionTrueFalse: wait_line() lets libnbd call on_complete() */
        if (r == 0 && is_dead && batch->n_pending > 0)
            r = say_lost(remote, err);
        if (r < 0) {
            hang_up(line);
            return r;
        }
        if (batch->n_pending < n_pending)
            deadline_ns = deadline_of(remote);
        n_pending = batch->n_pending;
    }
    retire_all(line);
    if (!batch->failed)
        return 0;
    if (nbd_aio_is_ready(line->nbd) != 1)
        hang_up(line);
    if (batch->failed == ENOTCONN) /* libnbd's word for what was under way; no server says it */
        return say(remote, NULL, err);
    return error_set(err, -EIO, "NBD export '%s' at '%s': the server says: %s", remote->export_name,
                     remote->socket, strerrordesc_np(batch->failed));
}

/* ---- where there are zeros ---- */

/*
 * The piece of [@host_off, @host_off + @len) to be asked for at once, or not at all if it is known
 * to be zeros; its length.
 */
static size_t next_piece(struct remote *remote, uint64_t host_off, size_t len, bool *ret_is_zero)
{
    struct nbd_run run;
    uint64_t end = host_off;
    *ret_is_zero = false;
    len = (size_t)min_u64(len, REQUEST_LEN);
    while (end < host_off + len && nbd_known_find(&remote->known, end, &run)) {
        if (!run.is_data && run.end - end >= min_u64(host_off + len - end, ZEROS_MIN)) {
            *ret_is_zero = end == host_off;
            return (size_t)min_u64(len, (*ret_is_zero ? run.end : end) - host_off);
        }
        end = run.end;
    }
    return len;
}

static int read_over(struct remote *remote, struct line *line, uint64_t host_off, void *buf,
                     size_t len, struct error *err)
{
    struct batch batch = {0};
    nbd_completion_callback done = {.callback = on_complete, .user_data = &batch};
    for (size_t at = 0, part; at < len; at += part) {
        bool is_zero;
        part = next_piece(remote, host_off + at, len - at, &is_zero);
        if (is_zero) {
            memset((char *)buf + at, 0, part);
            continue;
        }
        batch.n_pending++;
        if (nbd_aio_pread(line->nbd, (char *)buf + at, part, host_off + at, done, 0) < 0) {
            int r = say_lost(remote, err);
            hang_up(line);
            return r;
        }
    }
    return await_batch(remote, line, &batch, err);
}

/* Notes runs, neighbours of one kind as one. Zeros count as a hole whether allocated or not. */
/* lint: cppcheck/constParameter: libnbd's type */
static int on_extents(void *ctx, const char *context, uint64_t host_off, uint32_t *entries,
                      size_t n_entries, int *code)
{
    struct batch *batch = ctx;
    struct nbd_run_list *list = batch->answer;
    if (*code || strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0 || list->runs)
        return 0;
    list->begin = host_off;
    list->runs = calloc(n_entries / 2 + 1, sizeof(*list->runs));
    if (!list->runs) {
        *code = ENOMEM;
        return -1;
    }
    uint64_t end = host_off;
    for (size_t i = 0; i + 1 < n_entries && end < batch->end; i += 2) {
        bool is_data = !(entries[i + 1] & LIBNBD_STATE_ZERO);
        end = min_u64(end + entries[i], batch->end);
        if (list->n == 0 || list->runs[list->n - 1].is_data != is_data)
            list->n++;
        list->runs[list->n - 1] = (struct nbd_run){.end = end, .is_data = is_data};
    }
    return 0;
}

static int ask_map(const struct remote *remote, struct line *line, uint64_t host_off, uint64_t len,
                   struct nbd_run_list *ret_list, struct error *err)
{
    struct batch batch = {.n_pending = 1, .answer = ret_list, .end = host_off + len};
    nbd_completion_callback done = {.callback = on_complete, .user_data = &batch};
    nbd_extent_callback extents = {.callback = on_extents, .user_data = &batch};
    if (nbd_aio_block_status(line->nbd, len, host_off, extents, done, 0) < 0) {
        int r = say_lost(remote, err);
        hang_up(line);
        return r;
    }
    int r = await_batch(remote, line, &batch, err);
    if (r == 0 && (ret_list->n == 0 || ret_list->runs[0].end <= host_off))
        r = error_set(err, -EIO, "NBD export '%s' at '%s': no answer about the blocks at %#" PRIx64,
                      remote->export_name, remote->socket, host_off);
    return r;
}

/* ---- who uses which connection ---- */

/* One that is connected, else any. NULL: all are busy. */
static struct line *find_free_locked(struct remote *remote) REQUIRES(remote->lock)
{
    struct line *found = NULL;
    for (unsigned i = 0; i < remote->n_lines; i++) {
        struct line *line = &remote->lines[i];
        if (!line->is_busy && (!found || (line->nbd && !found->nbd)))
            found = line;
    }
    return found;
}

/* NULL when the time was up. */
static struct line *take_line(struct remote *remote, int64_t deadline_ns)
{
    mutex_lock(&remote->lock);
    struct line *line = find_free_locked(remote);
    while (!line && cond_wait_until(&remote->changed, &remote->lock, deadline_ns))
        line = find_free_locked(remote);
    if (line)
        line->is_busy = true;
    mutex_unlock(&remote->lock);
    return line;
}

static void give_line_back(struct remote *remote, struct line *line)
{
    mutex_lock(&remote->lock);
    line->is_busy = false;
    cond_wake_all(&remote->changed);
    mutex_unlock(&remote->lock);
}

static int take_connected(struct remote *remote, struct line **ret_line, struct error *err)
{
    int64_t deadline_ns = deadline_of(remote);
    struct line *line = take_line(remote, deadline_ns);
    if (!line)
        return error_set(err, -ETIMEDOUT, "NBD export '%s' at '%s': busy for %u ms",
                         remote->export_name, remote->socket, remote->timeout_ms);
    int r = line->nbd ? 0 : connect_line(remote, line, deadline_ns, err);
    if (r < 0) {
        give_line_back(remote, line);
        return r;
    }
    *ret_line = line;
    return 0;
}

/* ---- as a remote ---- */

/* A reader is told "failed" whatever it was that failed. */
static int as_read_error(int r, struct error *err)
{
    if (r == -ETIMEDOUT && err)
        err->code = -EIO;
    return r == -ETIMEDOUT ? -EIO : r;
}

/* Asks for the blocks from @host_off on, and remembers the answer; ret_run is the first run. */
static int learn(struct remote *remote, struct line *line, uint64_t host_off,
                 struct nbd_run *ret_run, struct error *err)
{
    /* Not all that the caller may want: QEMU looks at the image for each block. */
    uint64_t len = min_u64(remote->base.host_size - host_off, MAP_LEN_MAX);
    struct nbd_run_list list = {0};
    int r = 0;
    *ret_run =
        (struct nbd_run){.end = host_off + len, .is_data = true}; /* unless the server tells */
    if (nbd_can_meta_context(line->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) == 1)
        r = ask_map(remote, line, host_off, len, &list, err);
    if (r < 0 || list.n == 0) {
        free(list.runs);
        return r;
    }
    *ret_run = list.runs[0];
    nbd_known_replace(&remote->known, &list);
    return 0;
}

/* Is this one of many reads that follow one another? */
static bool is_sequential(struct remote *remote, uint64_t host_off, uint64_t len)
{
    mutex_lock(&remote->lock);
    bool is_near = host_off <= remote->last_end + NEAR && remote->last_end <= host_off + NEAR;
    remote->n_near = is_near ? remote->n_near + 1 : 0;
    remote->last_end = host_off + len;
    bool is_sequential = remote->n_near >= N_NEAR_MIN;
    mutex_unlock(&remote->lock);
    return is_sequential;
}

static int read_connected(struct remote *remote, struct line *line, uint64_t host_off, void *buf,
                          size_t len, struct error *err)
{
    struct nbd_run run;
    int r = 0;
    if (is_sequential(remote, host_off, len) && !nbd_known_find(&remote->known, host_off, &run))
        r = learn(remote, line, host_off, &run, err);
    /* A server that would not tell may still read. */
    return r < 0 && !line->nbd ? r : read_over(remote, line, host_off, buf, len, err);
}

static int remote_read(void *ctx, uint64_t host_off, void *buf, size_t len, struct error *err)
{
    struct remote *remote = ctx;
    struct line *line;
    int r = take_connected(remote, &line, err);
    if (r == 0) {
        r = read_connected(remote, line, host_off, buf, len, err);
        give_line_back(remote, line);
    }
    return as_read_error(r, err);
}

/* Counts as a read: what lies behind a hole follows what lies before it. */
static uint64_t remote_find_zeros(void *ctx, uint64_t host_off, uint64_t max_len)
{
    struct remote *remote = ctx;
    struct nbd_run run;
    if (!nbd_known_find(&remote->known, host_off, &run) || run.is_data)
        return 0;
    uint64_t len = min_u64(run.end - host_off, max_len);
    is_sequential(remote, host_off, len);
    return len;
}

static int remote_map(void *ctx, uint64_t host_off, uint64_t max_len, bool *ret_is_data,
                      uint64_t *ret_len, struct error *err)
{
    struct remote *remote = ctx;
    struct nbd_run run = {0};
    if (!nbd_known_find(&remote->known, host_off, &run)) {
        struct line *line;
        int r = take_connected(remote, &line, err);
        if (r < 0)
            return as_read_error(r, err);
        r = learn(remote, line, host_off, &run, err);
        give_line_back(remote, line);
        if (r < 0)
            return as_read_error(r, err);
    }
    *ret_is_data = run.is_data;
    *ret_len = min_u64(run.end - host_off, max_len);
    return 0;
}

static void remote_close(void *ctx)
{
    struct remote *remote = ctx;
    for (unsigned i = 0; i < N_LINES_MAX; i++)
        hang_up(&remote->lines[i]);
    nbd_known_fini(&remote->known);
    cond_fini(&remote->changed);
    mutex_fini(&remote->lock);
    free(remote->socket);
    free(remote->export_name);
    free(remote);
}

static struct remote *create_remote(const char *socket, const char *export_name,
                                    unsigned timeout_ms)
{
    struct remote *remote = calloc(1, sizeof(*remote));
    if (!remote)
        return NULL;
    remote->base = (struct qcow_remote){.read = remote_read,
                                        .find_zeros = remote_find_zeros,
                                        .map = remote_map,
                                        .close = remote_close,
                                        .ctx = remote};
    nbd_known_init(&remote->known);
    mutex_init(&remote->lock);
    cond_init(&remote->changed);
    remote->timeout_ms = timeout_ms;
    remote->socket = strdup(socket);
    remote->export_name = strdup(export_name);
    if (remote->socket && remote->export_name)
        return remote;
    remote_close(remote);
    return NULL;
}

int nbd_open(const char *socket, const char *export_name, unsigned timeout_ms,
             struct qcow_file *ret_file, struct error *err)
{
    auto_free char *name = NULL;
    if (asprintf(&name, "nbd+unix:///%s?socket=%s", export_name, socket) < 0)
        name = NULL;
    struct remote *remote = name ? create_remote(socket, export_name, timeout_ms) : NULL;
    if (!remote)
        return error_set(err, -ENOMEM, "out of memory");
    struct line *line = &remote->lines[0];
    int r = connect_line(remote, line, deadline_of(remote), err);
    if (r < 0) {
        remote_close(remote);
        return r;
    }
    remote->base.host_size = (uint64_t)nbd_get_size(line->nbd);
    remote->n_lines = nbd_can_multi_conn(line->nbd) == 1 ? N_LINES_MAX : 1;
    *ret_file = (struct qcow_file){
        .fd = -1, .format = QCOW_FORMAT_RAW, .name = take_ptr(name), .remote = &remote->base};
    return 0;
}
