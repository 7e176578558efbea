/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/glance/http.h"

#include <curl/curl.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "fs/glance/http_internal.h"
#include "fs/glance/secret.h"
#include "fs/log.h"
#include "qcow/base/cleanup.h"
#include "qcow/base/thread.h"

enum {
    ANSWER_MAX = 1024 * 1024,   /* a large catalog has some 50 KiB */
    ANSWER_PATIENCE = 10,       /* times the stall limit */
    REQUEST_PATIENCE = 3,       /* likewise, for all of a request without data */
    TICK_MS = 200,              /* how soon a cancel is seen */
    UPLOAD_BUFFER = 256 * 1024, /* fewer reads of the image than with the 64 KiB of libcurl */
    REQUEST_ID_MAX = 64,
    HEADER_MAX = 32 * 1024, /* tokens with a large catalog in them have some 10 KiB */
};

struct http {
    CURLM *multi; /* with the connections */
    CURL *easy;
    const struct glance_config *config;
    int64_t stall_ns;
    bool was_sent; /* something of the last request */
};

/* One request while it is under way. */
struct exchange {
    const struct http_request *request;
    struct http_answer answer;
    struct curl_slist *headers;
    uint64_t n_sent; /* of the upload */
    int upload_code; /* negative errno of its read, or 0 */
    bool is_too_large;
    struct error *err;
    char request_id[REQUEST_ID_MAX];
    char reason[CURL_ERROR_SIZE];
};

static unsigned retry_ms = 1000; /* as nova has it */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void init_library(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

int http_create(const struct glance_config *config, unsigned stall_timeout_s,
                struct http **ret_http, struct error *err)
{
    pthread_once(&once, init_library);
    struct http *http = calloc(1, sizeof(*http));
    if (!http)
        return error_set(err, -ENOMEM, "out of memory");
    http->config = config;
    http->stall_ns = (int64_t)stall_timeout_s * 1000000000;
    http->multi = curl_multi_init();
    http->easy = curl_easy_init();
    if (!http->multi || !http->easy) {
        http_destroy(http);
        return error_set(err, -ENOMEM, "out of memory");
    }
    *ret_http = http;
    return 0;
}

void http_destroy(struct http *http)
{
    if (!http)
        return;
    if (http->easy)
        curl_easy_cleanup(http->easy);
    if (http->multi)
        curl_multi_cleanup(http->multi);
    free(http);
}

void http_answer_fini(struct http_answer *answer)
{
    if (answer->body)
        explicit_bzero(answer->body, answer->body_len);
    free(answer->body);
    secret_free(answer->subject_token);
    *answer = (struct http_answer){0};
}

static bool is_cancelled(const struct glance_cancel *cancel)
{
    return cancel && cancel->is_cancelled && cancel->is_cancelled(cancel->ctx);
}

static int set_cancelled(struct error *err)
{
    return error_set(err, -EINTR, "cancelled");
}

int http_pause(unsigned ms, const struct glance_cancel *cancel, struct error *err)
{
    int64_t end = monotonic_ns() + (int64_t)ms * 1000000;
    while (!is_cancelled(cancel)) {
        int64_t left = end - monotonic_ns();
        if (left <= 0)
            return 0;
        if (left > (int64_t)TICK_MS * 1000000)
            left = (int64_t)TICK_MS * 1000000;
        nanosleep(&(struct timespec){.tv_nsec = left}, NULL);
    }
    return set_cancelled(err);
}

void http_set_retry_ms(unsigned ms)
{
    retry_ms = ms;
}

int http_pause_retry(const struct glance_cancel *cancel, struct error *err)
{
    return http_pause(retry_ms, cancel, err);
}

/* The body of the answer. */
static size_t take_body(char *data, size_t size, size_t n, void *ctx)
{
    struct exchange *x = ctx;
    size_t len = size * n;
    if (len > ANSWER_MAX - x->answer.body_len) {
        x->is_too_large = true;
        return CURL_WRITEFUNC_ERROR;
    }
    char *body = malloc(x->answer.body_len + len + 1);
    if (!body)
        return CURL_WRITEFUNC_ERROR;
    memcpy(body, x->answer.body, x->answer.body_len);
    memcpy(body + x->answer.body_len, data, len);
    body[x->answer.body_len + len] = '\0';
    explicit_bzero(x->answer.body, x->answer.body_len);
    free(x->answer.body);
    x->answer.body = body;
    x->answer.body_len += len;
    return len;
}

/* The value of the header called @name, without blanks around it; NULL if this is another one. */
static const char *header_value(const char *line, size_t len, const char *name, size_t *ret_len)
{
    size_t name_len = strlen(name);
    if (len <= name_len || strncasecmp(line, name, name_len) != 0 || line[name_len] != ':')
        return NULL;
    const char *start = line + name_len + 1, *end = line + len;
    while (start < end && (*start == ' ' || *start == '\t'))
        start++;
    while (end > start && (unsigned char)end[-1] <= ' ')
        end--;
    *ret_len = (size_t)(end - start);
    return start;
}

static void take_request_id(struct exchange *x, const char *value, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < len && n < REQUEST_ID_MAX - 1; i++)
        if ((unsigned char)value[i] > ' ' && (unsigned char)value[i] < 0x7f)
            x->request_id[n++] = value[i];
    x->request_id[n] = '\0';
}

static size_t take_header(char *line, size_t size, size_t n, void *ctx)
{
    struct exchange *x = ctx;
    size_t len = size * n, value_len;
    const char *value = header_value(line, len, "X-Openstack-Request-Id", &value_len);
    if (value)
        take_request_id(x, value, value_len);
    value = header_value(line, len, "Date", &value_len);
    if (value && value_len < REQUEST_ID_MAX) {
        char date[REQUEST_ID_MAX];
        memcpy(date, value, value_len);
        date[value_len] = '\0';
        x->answer.date_s = curl_getdate(date, NULL);
    }
    value = header_value(line, len, "X-Subject-Token", &value_len);
    if (value && value_len > 0) {
        secret_free(x->answer.subject_token);
        x->answer.subject_token = secret_copy(value, value_len);
    }
    return len;
}

static size_t give_upload(char *buf, size_t size, size_t n, void *ctx)
{
    struct exchange *x = ctx;
    const struct http_upload *upload = x->request->upload;
    size_t room = size * n;
    if (room > upload->size - x->n_sent)
        room = (size_t)(upload->size - x->n_sent);
    if (room == 0)
        return 0;
    int64_t got = upload->read(upload->ctx, buf, room, x->err);
    if (got < 0) {
        x->upload_code = (int)got;
        return CURL_READFUNC_ABORT;
    }
    x->n_sent += (uint64_t)got;
    if (upload->tick)
        upload->tick(upload->ctx);
    return (size_t)got;
}

/* libcurl starts again by itself when a connection that it had kept turns out to be dead. */
static int seek_upload(void *ctx, curl_off_t off, int origin)
{
    struct exchange *x = ctx;
    if (off != 0 || origin != SEEK_SET)
        return CURL_SEEKFUNC_CANTSEEK;
    x->n_sent = 0;
    x->request->upload->rewind(x->request->upload->ctx);
    return CURL_SEEKFUNC_OK;
}

static int add_header(struct exchange *x, const char *name, const char *value)
{
    if (!value)
        return 0;
    size_t room = strlen(name) + strlen(value) + 3;
    if (room > HEADER_MAX || strpbrk(value, "\r\n"))
        return -EINVAL;
    char *line = malloc(room);
    if (!line)
        return -ENOMEM;
    stpcpy(stpcpy(stpcpy(line, name), ": "), value);
    struct curl_slist *more = curl_slist_append(x->headers, line);
    explicit_bzero(line, room);
    free(line);
    if (!more)
        return -ENOMEM;
    x->headers = more;
    return 0;
}

static int add_headers(struct exchange *x)
{
    const struct http_request *request = x->request;
    int r = add_header(x, "Accept", "application/json");
    r = r < 0 ? r : add_header(x, "Content-Type", request->content_type);
    r = r < 0 ? r : add_header(x, "X-Auth-Token", request->token);
    r = r < 0 ? r : add_header(x, "X-Subject-Token", request->subject_token);
    if (r == 0 && request->upload) {
        /* Newer services look after their quota by it, before the data comes. */
        char size[32];
        snprintf(size, sizeof(size), "%" PRIu64, request->upload->size);
        r = add_header(x, "X-Openstack-Image-Size", size);
    }
    return r;
}

static void free_headers(struct curl_slist *headers)
{
    for (struct curl_slist *at = headers; at; at = at->next)
        secret_wipe(at->data);
    curl_slist_free_all(headers);
}

static void set_tls(CURL *easy, const struct glance_config *config)
{
    if (config->ca_file)
        curl_easy_setopt(easy, CURLOPT_CAINFO, config->ca_file);
    if (config->cert_file)
        curl_easy_setopt(easy, CURLOPT_SSLCERT, config->cert_file);
    if (config->key_file)
        curl_easy_setopt(easy, CURLOPT_SSLKEY, config->key_file);
    if (config->is_insecure) {
        curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
        curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
    }
}

static void set_method(CURL *easy, struct exchange *x)
{
    const struct http_request *request = x->request;
    if (request->upload) {
        curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)request->upload->size);
        curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, (long)UPLOAD_BUFFER);
        curl_easy_setopt(easy, CURLOPT_READFUNCTION, give_upload);
        curl_easy_setopt(easy, CURLOPT_READDATA, x);
        curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, seek_upload);
        curl_easy_setopt(easy, CURLOPT_SEEKDATA, x);
    } else if (request->body) {
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request->body);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(request->body));
    }
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method);
}

/* All but what would need memory cannot fail here: a URL that is none fails later. */
static void set_options(struct http *http, struct exchange *x)
{
    CURL *easy = http->easy;
    curl_easy_reset(easy);
    curl_easy_setopt(easy, CURLOPT_URL, x->request->url);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L); /* a cancel does not wait for the resolver */
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)(http->stall_ns / 1000000));
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "virtsnapfs");
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, x->reason);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, x);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, take_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, x);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, x->headers);
    set_tls(easy, http->config);
    set_method(easy, x);
}

/*
 * Bytes that went either way; as long as there is data to be sent, of that alone: a server that
 * takes none of it may say "100 Continue" for ever.
 */
static int64_t count_moved(CURL *easy, bool is_sending)
{
    curl_off_t up = 0, down = 0;
    long head = 0;
    curl_easy_getinfo(easy, CURLINFO_SIZE_UPLOAD_T, &up);
    if (is_sending)
        return up;
    curl_easy_getinfo(easy, CURLINFO_SIZE_DOWNLOAD_T, &down);
    curl_easy_getinfo(easy, CURLINFO_HEADER_SIZE, &head);
    return up + down + head;
}

static bool is_connected(CURL *easy)
{
    curl_off_t us = 0;
    curl_easy_getinfo(easy, CURLINFO_PRETRANSFER_TIME_T, &us);
    return us > 0;
}

/* Until libcurl is done: its code, or a negative errno. */
static int drive(struct http *http, struct exchange *x, const struct glance_cancel *cancel,
                 CURLcode *ret_code)
{
    const struct http_upload *upload = x->request->upload;
    int64_t moved = -1, since = monotonic_ns(), sent_ns = since;
    for (;;) {
        int n_running = 0, n_left;
        if (is_cancelled(cancel))
            return set_cancelled(x->err);
        if (curl_multi_perform(http->multi, &n_running) != CURLM_OK)
            return error_set(x->err, -EIO, "libcurl failed");
        const CURLMsg *msg = curl_multi_info_read(http->multi, &n_left);
        if (msg && msg->msg == CURLMSG_DONE) {
            *ret_code = msg->data.result;
            return 0;
        }
        bool is_sent = upload && x->n_sent == upload->size;
        int64_t now = monotonic_ns(), moved_now = count_moved(http->easy, upload && !is_sent);
        if (moved_now != moved)
            since = now;
        moved = moved_now;
        if (upload && !is_sent)
            sent_ns = now;
        /* An answer that comes drop by drop moves, too. */
        if (now - sent_ns > http->stall_ns * (upload ? 2 * ANSWER_PATIENCE : REQUEST_PATIENCE))
            return error_set(x->err, -ETIMEDOUT, "no whole answer after %" PRId64 " s",
                             (now - sent_ns) / 1000000000);
        if (now - since > http->stall_ns * (is_sent ? ANSWER_PATIENCE : 1))
            return error_set(x->err, is_connected(http->easy) ? -ETIMEDOUT : -EHOSTUNREACH,
                             "nothing moved for %" PRId64 " s", (now - since) / 1000000000);
        if (upload && upload->tick)
            upload->tick(upload->ctx);
        curl_multi_poll(http->multi, NULL, 0, TICK_MS, NULL);
    }
}

static int errno_of(CURL *easy, CURLcode code)
{
    long os_errno = 0;
    switch ((int)code) {
    case CURLE_COULDNT_CONNECT:
        curl_easy_getinfo(easy, CURLINFO_OS_ERRNO, &os_errno);
        return os_errno == ECONNREFUSED ? -ECONNREFUSED : -EHOSTUNREACH;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_OPERATION_TIMEDOUT: /* of the connection: the rest is timed by drive() */
        return -EHOSTUNREACH;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_ENGINE_INITFAILED:
        return -EPROTO;
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
        return -EINVAL;
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
    case CURLE_WEIRD_SERVER_REPLY:
        return -ECONNRESET;
    case CURLE_OUT_OF_MEMORY:
        return -ENOMEM;
    }
    return -EIO;
}

/* libcurl's code counts second: an answer may come before the body was taken. */
static int judge(struct http *http, struct exchange *x, CURLcode code)
{
    long status = 0;
    if (x->upload_code < 0)
        return x->upload_code; /* its reason is there already */
    curl_easy_getinfo(http->easy, CURLINFO_RESPONSE_CODE, &status);
    x->answer.status = status;
    if (code == CURLE_OK && status >= 200)
        return 0;
    if (status >= 300 && !x->is_too_large)
        return 0;
    if (x->is_too_large)
        return error_set(x->err, -EIO, "its answer is larger than %d bytes", ANSWER_MAX);
    return error_set(x->err, code == CURLE_OK ? -EIO : errno_of(http->easy, code), "%s",
                     x->reason[0] ? x->reason : curl_easy_strerror(code));
}

static int perform(struct http *http, struct exchange *x, const struct glance_cancel *cancel)
{
    x->answer.date_s = -1;
    x->answer.body = calloc(1, 1);
    int r = x->answer.body ? add_headers(x) : -ENOMEM;
    if (r < 0)
        return error_set(x->err, r, r == -ENOMEM ? "out of memory" : "a token is malformed");
    if (x->request->upload)
        x->request->upload->rewind(x->request->upload->ctx);
    set_options(http, x);
    http->was_sent = false;
    if (curl_multi_add_handle(http->multi, http->easy) != CURLM_OK)
        return error_set(x->err, -ENOMEM, "libcurl failed");
    CURLcode code = CURLE_OK;
    r = drive(http, x, cancel, &code);
    if (r == 0)
        r = judge(http, x, code);
    http->was_sent = is_connected(http->easy);
    /* (At last: it forgets what is known of the exchange.) */
    curl_multi_remove_handle(http->multi, http->easy);
    return r;
}

bool http_was_sent(const struct http *http)
{
    return http->was_sent;
}

int http_do(struct http *http, const struct http_request *request,
            const struct glance_cancel *cancel, struct http_answer *ret_answer, struct error *err)
{
    struct error own_err = {0};
    struct exchange x = {.request = request, .err = err ? err : &own_err};
    int64_t begin = monotonic_ns();
    int r = perform(http, &x, cancel);
    int64_t ms = (monotonic_ns() - begin) / 1000000;
    if (r == 0)
        log_debug("glance: %s %s: %ld [%s] %" PRId64 " ms", request->method, request->url,
                  x.answer.status, x.request_id[0] ? x.request_id : "no request id", ms);
    else
        log_debug("glance: %s %s: %s %" PRId64 " ms", request->method, request->url, x.err->text,
                  ms);
    free_headers(x.headers);
    curl_easy_reset(http->easy); /* nothing of this frame is left in it */
    if (r < 0) {
        http_answer_fini(&x.answer);
        return r;
    }
    *ret_answer = x.answer;
    return 0;
}
