/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fs/glance/image.c and what is below it, where the services lie, fail and fall silent. */
#include "fs/glance/image.h"

#include <errno.h>
#include <openssl/evp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fs/glance/http_internal.h"
#include "tests/unit/glance/server.h"

#define DATA "the data of a disk"
enum { DATA_LEN = sizeof(DATA) - 1, STALL_S = 1 };

#define LOGIN_BODY(catalog)                                                                        \
    "{\"token\": {\"expires_at\": \"2031-01-01T01:00:00.000000Z\", \"user\": {\"id\": \"U\"}, "    \
    "\"project\": {\"id\": \"P\"}, \"catalog\": " catalog "}}"
#define LOGIN                                                                                      \
    {                                                                                              \
        "POST /v3/auth/tokens", "201 Created|X-Subject-Token: token1|Date: Wed, 01 Jan 2031 "      \
                                "00:00:00 GMT||" LOGIN_BODY("[]")                                  \
    }
#define CREATED                                                                                    \
    {                                                                                              \
        "POST /v2/images ", "201 Created||{}"                                                      \
    }
#define SENT                                                                                       \
    {                                                                                              \
        "PUT /v2/images/", "204 No Content"                                                        \
    }
#define DELETED                                                                                    \
    {                                                                                              \
        "DELETE /v2/images/", "204 No Content"                                                     \
    }
#define SHOWN(json)                                                                                \
    {                                                                                              \
        "GET /v2/images/", "200 OK||{" json "}"                                                    \
    }
#define QUEUED SHOWN("\"status\": \"queued\", \"name\": \"image\"")
#define ACTIVE SHOWN("\"status\": \"active\", \"size\": 18")

static struct server server;
static struct glance *glance;
static struct error err;
static char first_id[64];
static atomic_bool is_cancelled;

static bool check_cancelled(void *ctx)
{
    (void)ctx;
    return is_cancelled;
}

static const struct glance_cancel cancel = {.is_cancelled = check_cancelled};

static char *format_url(const char *path)
{
    char *url = NULL;
    assert_true(asprintf(&url, "http://127.0.0.1:%u%s", server.port, path) > 0);
    return url;
}

static void start(const struct step *steps, size_t n_steps, const char *endpoint)
{
    server_start(&server, steps, n_steps);
    struct glance_config *config = calloc(1, sizeof(*config));
    assert_non_null(config);
    config->auth_url = format_url("/v3");
    config->username = strdup("u");
    config->user_domain_id = strdup("default");
    config->password = strdup("password1");
    config->project_id = strdup("P");
    config->interface = strdup("public");
    config->endpoint_override = endpoint ? format_url(endpoint) : NULL;
    err = (struct error){0};
    is_cancelled = false;
    assert_int_equal(glance_create(config, STALL_S, &glance, &err), 0);
}

static void finish(void)
{
    glance_destroy(glance);
    assert_null(strstr(err.text, "password1"));
    assert_null(strstr(err.text, "token1"));
    server_finish(&server);
}

static uint64_t body_size = DATA_LEN;

static int read_data(void *ctx, uint64_t off, void *buf, size_t len, struct error *read_err)
{
    (void)ctx;
    (void)read_err;
    if (body_size == DATA_LEN)
        memcpy(buf, &DATA[off], len);
    else
        memset(buf, 0, len);
    return 0;
}

static int upload(bool is_protected)
{
    const struct glance_record record = {.name = "image",
                                         .disk_format = "raw",
                                         .visibility = "private",
                                         .is_protected = is_protected};
    const struct glance_body body = {.size = body_size, .read = read_data};
    struct glance_image *image;
    int r = glance_image_create(glance, &record, &cancel, &image, &err);
    if (r < 0)
        return r;
    snprintf(first_id, sizeof(first_id), "%s", glance_image_id(image));
    r = glance_image_send(image, &body, NULL, &cancel, &err);
    glance_image_free(image);
    return r;
}

/* An upload through all the steps, which ends with @code and with @text in the reason. */
static void check_upload(const struct step *steps, size_t n_steps, bool is_protected, int code,
                         const char *text)
{
    start(steps, n_steps, "");
    int r = upload(is_protected);
    if (r != code || !strstr(err.text, text))
        print_error("%d '%s', wanted %d '%s'\n", r, err.text, code, text);
    finish();
    assert_int_equal(r, code);
    assert_true(strstr(err.text, text));
}

#define CHECK(code, text, ...)                                                                     \
    do {                                                                                           \
        const struct step steps[] = {__VA_ARGS__};                                                 \
        check_upload(steps, sizeof(steps) / sizeof(*steps), false, code, text);                    \
    } while (0)
#define CHECK_PROTECTED(code, text, ...)                                                           \
    do {                                                                                           \
        const struct step steps[] = {__VA_ARGS__};                                                 \
        check_upload(steps, sizeof(steps) / sizeof(*steps), true, code, text);                     \
    } while (0)

static void sends_and_compares(void **state)
{
    (void)state;
    CHECK(0, "", LOGIN, CREATED, SENT, ACTIVE);
    CHECK(
        0, "", LOGIN, CREATED, SENT,
        SHOWN("\"status\": \"active\", \"size\": 18, \"checksum\": null, \"os_hash_algo\": null"));
    CHECK(0, "", LOGIN, CREATED, SENT, SHOWN("\"status\": \"saving\""), ACTIVE);
    assert_string_equal(first_id, server.last_id);
}

static void hash_of(const EVP_MD *kind, char *ret_text)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n;
    assert_int_equal(EVP_Digest(DATA, DATA_LEN, digest, &n, kind, NULL), 1);
    for (unsigned i = 0; i < n; i++)
        snprintf(ret_text + 2 * i, 3, "%02x", digest[i]);
}

static void believes_the_right_hash_only(void **state)
{
    (void)state;
    char sha512[2 * EVP_MAX_MD_SIZE + 1], md5[2 * EVP_MAX_MD_SIZE + 1], answer[1024];
    hash_of(EVP_sha512(), sha512);
    hash_of(EVP_md5(), md5);
    const struct {
        const char *algo, *value, *checksum;
        bool is_right;
    } rows[] = {
        {"sha512", sha512, md5, true},    {"sha512", sha512, "wrong", true},
        {"sha512", "00ff", md5, false},   {"blake2b", "00ff", md5, true},
        {"blake2b", "00ff", "00", false}, {"sha512", md5, sha512, false},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        snprintf(answer, sizeof(answer),
                 "200 OK||{\"status\": \"active\", \"size\": 18, \"os_hash_algo\": \"%s\", "
                 "\"os_hash_value\": \"%s\", \"checksum\": \"%s\"}",
                 rows[i].algo, rows[i].value, rows[i].checksum);
        if (rows[i].is_right)
            CHECK(0, "", LOGIN, CREATED, SENT, {"GET ", answer});
        else
            CHECK(-EIO, "Glance keeps other data than was sent", LOGIN, CREATED, SENT,
                  {"GET ", answer}, DELETED);
    }
}

static void deletes_what_is_not_what_was_sent(void **state)
{
    (void)state;
    CHECK(-EIO, "17 bytes of the 18", LOGIN, CREATED, SENT,
          SHOWN("\"status\": \"active\", \"size\": 17"), DELETED);
    CHECK(-EIO, "bytes of the 18", LOGIN, CREATED, SENT,
          SHOWN("\"status\": \"active\", \"size\": \"18\""), DELETED);
    CHECK(-EIO, "bytes of the 18", LOGIN, CREATED, SENT, SHOWN("\"status\": \"active\""), DELETED);
    CHECK(-EIO, "is 'queued', not active", LOGIN, CREATED, SENT, QUEUED, DELETED);
    CHECK(-EIO, "is 'killed', not active", LOGIN, CREATED, SENT, SHOWN("\"status\": \"killed\""),
          DELETED);
    CHECK(-ECANCELED, "was deleted meanwhile", LOGIN, CREATED, SENT,
          SHOWN("\"status\": \"pending_delete\""), DELETED);
    CHECK(-EIO, "no JSON that makes sense", LOGIN, CREATED, SENT, SHOWN("\"size\": 18"), DELETED);
    CHECK(-EIO, "no JSON that makes sense", LOGIN, CREATED, SENT, {"GET ", "200 OK||[1"}, DELETED);
}

static void sends_again_what_failed_in_passing(void **state)
{
    (void)state;
    CHECK(0, "", LOGIN, CREATED, {"PUT ", "503 Busy"}, QUEUED, SENT, ACTIVE);
    CHECK(0, "", LOGIN, CREATED, {"PUT ", RESET}, {"GET ", "503 Busy"}, QUEUED,
          {"PUT ", "500 Oops||{\"message\": \"oops\"}"}, QUEUED, SENT, ACTIVE);
    CHECK(-EIO, "Glance refuses the data: 502 bad luck", LOGIN, CREATED,
          {"PUT ", "502 Bad||<b>bad luck</b>"}, QUEUED, {"PUT ", "502 Bad||bad luck"}, QUEUED,
          {"PUT ", "502 Bad||bad luck"}, QUEUED, DELETED);
    /* It has the data already, or somebody's. */
    CHECK(0, "", LOGIN, CREATED, {"PUT ", "409 Conflict"}, ACTIVE);
    CHECK(-EIO, "17 bytes", LOGIN, CREATED, {"PUT ", "409 Conflict"},
          SHOWN("\"status\": \"active\", \"size\": 17"), DELETED);
}

static void repeats_a_record_by_the_same_id(void **state)
{
    (void)state;
    CHECK(0, "", LOGIN, {"POST /v2/images ", RESET}, CREATED, SENT, ACTIVE);
    assert_string_equal(first_id, server.last_id);
    CHECK(0, "", LOGIN, {"POST /v2/images ", "504 Timeout"}, {"POST /v2/images ", "409 Conflict"},
          QUEUED, SENT, ACTIVE);
    /* Not by us: then it is not ours to delete. */
    CHECK(-EIO, "is there already, and none of ours", LOGIN, {"POST /v2/images ", "409 Conflict"},
          SHOWN("\"status\": \"active\", \"name\": \"image\""));
    CHECK(-EIO, "none of ours", LOGIN, {"POST /v2/images ", "409 Conflict"},
          SHOWN("\"status\": \"queued\", \"name\": \"other\""));
    /* Given up: it may be there all the same. */
    CHECK(-EIO, "503", LOGIN, {"POST /v2/images ", RESET}, {"POST /v2/images ", "503 Busy"},
          {"POST /v2/images ", "503 Busy"}, DELETED);
    /* A clean refusal leaves nothing to delete. */
    CHECK(-EPERM, "403 no", LOGIN, {"POST /v2/images ", "403 Forbidden||{\"message\": \"no\"}"});
}

static void knows_what_refusals_mean(void **state)
{
    (void)state;
    static const struct {
        const char *answer, *text;
        int code;
    } rows[] = {
        {"400 Bad Request||{\"message\": \"schema\"}", "400 schema", -EINVAL},
        {"403 Forbidden||{\"message\": \"no\"}", "403 no", -EPERM},
        {"404 Not Found", "was deleted meanwhile", -ECANCELED},
        {"410 Gone", "was deleted meanwhile", -ECANCELED},
        {"413 Too Large||{\"message\": \"quota\"}", "413 quota", -EDQUOT},
        {"413 Too Large||{\"message\": \"Image storage media is full\"}", "full", -ENOSPC},
        {"413 Too Large||{\"message\": \"The provided image is too large.\"}", "413", -EFBIG},
        {"413 Too Large||<h1>413</h1>nginx", "413 413 nginx", -EFBIG},
        {"415 Unsupported", "415 (no reason given)", -EINVAL},
        {"507 Full", "507", -ENOSPC},
        {"200 OK", "200", -EIO},
        {"300 Choices", "300", -EIO},
        {"302 Found|Location: /v2/images/x/file", "302", -EIO},
        {EARLY "413 Too Large||{\"message\": \"quota\"}", "413 quota", -EDQUOT},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
        CHECK(rows[i].code, rows[i].text, LOGIN, CREATED, {"PUT ", rows[i].answer}, DELETED);
}

static void logs_in_again_once(void **state)
{
    (void)state;
    const struct step refused = {"PUT ", "401 Unauthorized||{\"message\": \"who?\"}"};
    CHECK(0, "", LOGIN, CREATED, refused, LOGIN, SENT, ACTIVE);
    CHECK(-EACCES, "Glance accepts no token of ours: who?", LOGIN, CREATED, refused, LOGIN, refused,
          DELETED);
    CHECK(-EACCES, "Keystone refuses 'u' for project 'P': gone", LOGIN,
          {"POST /v2/images ", "401 Unauthorized"},
          {"POST /v3/auth/tokens", "401 No||{\"error\": {\"message\": \"gone\"}}"});
}

static void says_what_is_left_where_it_cannot_delete(void **state)
{
    (void)state;
    CHECK(-EPERM, "403 no; image ", LOGIN, CREATED,
          {"PUT ", "403 Forbidden||{\"message\": \"no\"}"},
          {"DELETE ", "403 Forbidden||{\"message\": \"never\"}"});
    assert_non_null(
        strstr(err.text, "may be left there (Glance does not delete the image: 403 never"));
    assert_non_null(strstr(err.text, first_id));
    /* Somebody else did. */
    CHECK(-EPERM, "403", LOGIN, CREATED, {"PUT ", "403 Forbidden"}, {"DELETE ", "404 Not Found"});
    assert_null(strstr(err.text, "left"));
}

static void protects_what_is_active(void **state)
{
    (void)state;
    CHECK_PROTECTED(0, "", LOGIN, CREATED, SENT, ACTIVE, {"PATCH ", "200 OK||{}"});
    CHECK_PROTECTED(-EPERM, "does not protect the image: 403", LOGIN, CREATED, SENT, ACTIVE,
                    {"PATCH ", "403 Forbidden"}, DELETED);
    /* It is protected by now, although the answer says otherwise. */
    CHECK_PROTECTED(-EIO, "503", LOGIN, CREATED, SENT, ACTIVE, {"PATCH ", "503 Busy"},
                    {"PATCH ", "503 Busy"}, {"PATCH ", "503 Busy"}, {"DELETE ", "403 Protected"},
                    {"PATCH ", "200 OK||{}"}, DELETED);
}

static void gives_up_on_silence(void **state)
{
    (void)state;
    CHECK(-ETIMEDOUT, "nothing moved for 1 s", LOGIN, {"POST /v2/images ", SILENCE}, DELETED);
    CHECK(-ETIMEDOUT, "Keystone at 'http://127.0.0.1:", {"POST /v3/auth/tokens", SILENCE});
    CHECK(-ETIMEDOUT, "no whole answer", {"POST /v3/auth/tokens", DRIP});
}

static void gives_up_on_a_server_that_talks_and_takes_no_data(void **state)
{
    (void)state;
    body_size = 256 << 20; /* more than sockets hold */
    CHECK(-EIO, "is 'killed', not active", LOGIN, CREATED, {"PUT ", PROCEED},
          SHOWN("\"status\": \"killed\""), DELETED);
    body_size = DATA_LEN;
}

static void deletes_what_comes_to_be_late(void **state)
{
    (void)state;
    const struct step none = {"DELETE ", "404 Not Found"}, busy = {"DELETE ", "409 Conflict"};
    CHECK(-ETIMEDOUT, "nothing moved for 1 s", LOGIN, {"POST /v2/images ", SILENCE}, none, DELETED);
    CHECK(-EPERM, "403", LOGIN, CREATED, {"PUT ", "403 Forbidden"}, busy, DELETED);
    CHECK(-EIO, "another id", LOGIN,
          {"POST /v2/images ", "201 Created||{\"id\": \"01234567-89ab-cdef-0123-456789abcdef\"}"},
          {"DELETE /v2/images/01234567-89ab-cdef-0123-456789abcdef ", "204 No Content"});
}

static void tells_no_token(void **state)
{
    (void)state;
    CHECK(-EINVAL, "refuses the image: 400 X-Auth-Token: ******!", LOGIN,
          {"POST /v2/images ", "400 Bad Request||{\"message\": \"X-Auth-Token: token1!\"}"});
}

static void believes_a_token_that_lives_for_ever(void **state)
{
    (void)state;
    const struct step login = {"POST /v3/auth/tokens",
                               "201 Created|X-Subject-Token: token1||{\"token\": {\"expires_at\": "
                               "\"9999-12-31T00:00:00Z\", \"user\": {\"id\": \"U\"}, "
                               "\"project\": {\"id\": \"P\"}}}"};
    CHECK(0, "", login, CREATED, SENT, ACTIVE);
}

static void *cancel_soon(void *ctx)
{
    while (server.n_done < *(size_t *)ctx)
        pause_us(1000);
    is_cancelled = true;
    return NULL;
}

static void is_cancelled_while_nothing_moves(void **state)
{
    (void)state;
    const struct step steps[] = {LOGIN, CREATED, {"PUT ", SILENCE}, DELETED};
    for (size_t n = 3; n < 4; n++) {
        pthread_t thread;
        start(steps, sizeof(steps) / sizeof(*steps), "");
        assert_int_equal(pthread_create(&thread, NULL, cancel_soon, &n), 0);
        int r = upload(false);
        pthread_join(thread, NULL);
        finish();
        assert_int_equal(r, -EINTR);
        assert_string_equal(err.text, "cancelled");
    }
}

static void check_login(const char *answer, const char *endpoint, int code, const char *text)
{
    const struct step steps[] = {{"POST /v3/auth/tokens", answer},
                                 {"POST /v3/auth/tokens", answer},
                                 {"POST /v3/auth/tokens", answer}};
    char *project_id = NULL, *user_id = NULL;
    /* What another try may cure is tried three times. */
    start(steps, code == -EIO ? 3 : 1, endpoint);
    int r = glance_login(glance, NULL, &project_id, &user_id, &err);
    if (r != code || !strstr(err.text, text))
        print_error("%d '%s', wanted %d '%s'\n", r, err.text, code, text);
    finish();
    assert_int_equal(r, code);
    assert_non_null(strstr(err.text, text));
    if (r == 0) {
        assert_string_equal(project_id, "P");
        assert_string_equal(user_id, "U");
    }
    free(project_id);
    free(user_id);
}

static void believes_no_login_that_makes_no_sense(void **state)
{
    (void)state;
#define TOKEN "201 Created|X-Subject-Token: token1||"
    check_login(TOKEN LOGIN_BODY("[]"), "/", 0, "");
    check_login("201 Created||" LOGIN_BODY("[]"), "/", -EIO, "answers as no Keystone does");
    check_login(TOKEN "{\"token\": 5}", "/", -EIO, "answers as no Keystone does");
    check_login(TOKEN "not JSON", "/", -EIO, "answers as no Keystone does");
    check_login(TOKEN, "/", -EIO, "answers as no Keystone does");
    check_login("201 Created|X-Subject-Token: token1|Content-Length: 999||{\"token\":", "/", -EIO,
                "Keystone at 'http");
    check_login(TOKEN "{\"token\": {\"user\": {\"id\": \"U\"}}}", "/", -EINVAL, "for no project");
    check_login(TOKEN LOGIN_BODY("[]"), NULL, -EINVAL, "catalog has no image service");
    check_login(TOKEN LOGIN_BODY("{\"type\": \"image\"}"), NULL, -EINVAL, "no image service");
    check_login("302 Found|Location: http://127.0.0.1:1/||", "/", -EINVAL, "says 302");
    check_login("401 No||{\"error\": {\"message\": \"is password1 right?\"}}", "/", -EACCES,
                "is *** right?");
    check_login("503 Busy||later", "/", -EIO, "Keystone says 503: later");
}

static void reads_no_answer_without_end(void **state)
{
    (void)state;
    size_t len = 2 << 20;
    char *answer = malloc(len);
    assert_non_null(answer);
    memset(answer, ' ', len - 1);
    answer[len - 1] = '\0';
    memcpy(answer, "201 Created||", 13);
    check_login(answer, "/", -EIO, "its answer is larger than 1048576 bytes");
    free(answer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sends_and_compares),
        cmocka_unit_test(believes_the_right_hash_only),
        cmocka_unit_test(deletes_what_is_not_what_was_sent),
        cmocka_unit_test(sends_again_what_failed_in_passing),
        cmocka_unit_test(repeats_a_record_by_the_same_id),
        cmocka_unit_test(knows_what_refusals_mean),
        cmocka_unit_test(logs_in_again_once),
        cmocka_unit_test(says_what_is_left_where_it_cannot_delete),
        cmocka_unit_test(protects_what_is_active),
        cmocka_unit_test(gives_up_on_silence),
        cmocka_unit_test(gives_up_on_a_server_that_talks_and_takes_no_data),
        cmocka_unit_test(deletes_what_comes_to_be_late),
        cmocka_unit_test(tells_no_token),
        cmocka_unit_test(believes_a_token_that_lives_for_ever),
        cmocka_unit_test(is_cancelled_while_nothing_moves),
        cmocka_unit_test(believes_no_login_that_makes_no_sense),
        cmocka_unit_test(reads_no_answer_without_end),
    };
    http_set_retry_ms(10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
