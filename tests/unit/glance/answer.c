/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/glance/answer.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fs/glance/keystone.h"
#include "fs/glance/url.h"
#include "qcow/base/cleanup.h"

static struct http_answer answer_of(const char *body)
{
    return (struct http_answer){.status = 400, .body = (char *)body, .body_len = strlen(body)};
}

static void check_message(const char *body, const char *want)
{
    static char password[] = "hunter22", secret[] = "abc", token[] = "to<k>en";
    const struct glance_config config = {.password = password,
                                         .application_credential_secret = secret};
    struct http_answer answer = answer_of(body);
    char text[ANSWER_TEXT_MAX];
    answer_message(&answer, &config, token, text);
    assert_string_equal(text, want);
}

static void shows_messages_of_the_services(void **state)
{
    (void)state;
    check_message("{\"message\": \"Image ID 1 already exists!<br /><br />\\n\\n\\n\", \"code\": "
                  "\"409 Conflict\", \"title\": \"Conflict\"}",
                  "Image ID 1 already exists!");
    check_message("{\"error\": {\"code\": 401, \"message\": \"No &lt;way&gt; &amp;lt;\"}}",
                  "No <way> &lt;");
    check_message("<html><head><title>502 Bad Gateway</title></head>\r\n<body>nginx</body>",
                  "502 Bad Gateway nginx");
    check_message("{\"error\": \"quota\"}", "quota");
    check_message("{\"title\": \"Gone\"}", "Gone");
    check_message("{\"other\": 1}", "");
    check_message("", "");
    check_message("a < b", "a < b");
}

static void shows_no_secrets(void **state)
{
    (void)state;
    check_message("{\"message\": \"'hunter22' is no hunter22\"}", "'***' is no ***");
    check_message("the token to<k>en is bad", "the token *** is bad");
    check_message("<p>the token to&lt;k&gt;en is bad</p>", "the token *** is bad");
    check_message("the token to<k>en, to&lt;k>en", "the token ***, ***");
    check_message("abc is too short to be hidden", "abc is too short to be hidden");
}

static void shows_no_characters_that_do_harm(void **state)
{
    (void)state;
    check_message("a\x1b[31mb\x7f"
                  "c",
                  "a [31mb c");
    /* lint: clang-tidy/misc-misleading-bidirectional: what is to be hidden */
    check_message("\xff\xc3\xa9\xe2\x80\xae\xed\xa0\x80", "?é??????");
    check_message("\xc2\x9b"
                  "2J",
                  "??2J");
    char large[3000] = "", want[ANSWER_TEXT_MAX];
    memset(large, 'x', sizeof(large) - 1);
    memset(want, 'x', sizeof(want));
    want[ANSWER_TEXT_MAX - 1] = '\0';
    check_message(large, want);
}

static void takes_only_objects_for_json(void **state)
{
    (void)state;
    static const char *const bodies[] = {"", "[1]", "\"x\"", "{\"a\": }", "{\"a\": 1} x", "\xff"};
    for (size_t i = 0; i < sizeof(bodies) / sizeof(*bodies); i++) {
        struct http_answer answer = answer_of(bodies[i]);
        assert_null(answer_json(&answer));
        assert_false(answer_is_from_service(&answer));
    }
    struct http_answer answer = answer_of("{\"a\": \"b\\u0000c\", \"d\": 5, \"e\": \"f\"}");
    auto_json json_t *json = answer_json(&answer);
    assert_non_null(json);
    assert_null(json_text(json, "a"));
    assert_null(json_text(json, "d"));
    assert_null(json_text(json, "x"));
    assert_string_equal(json_text(json, "e"), "f");
}

static void reads_times(void **state)
{
    (void)state;
    assert_int_equal(answer_time("1970-01-02T00:00:01.000000Z"), 86401);
    assert_int_equal(answer_time("2026-11-21T21:50:22Z"), 1795297822);
    assert_int_equal(answer_time("tomorrow"), -1);
    assert_int_equal(answer_time("2026-11-21"), -1);
    assert_int_equal(answer_time(NULL), -1);
}

static void finds_bases_of_urls(void **state)
{
    (void)state;
    static const struct {
        const char *url, *image, *identity;
    } rows[] = {
        {"http://h:9292", "http://h:9292", "http://h:9292"},
        {"http://h:9292/", "http://h:9292", "http://h:9292"},
        {"http://h/image/v2/", "http://h/image", "http://h/image"},
        {"http://h/image/v2.15", "http://h/image", "http://h/image"},
        {"http://h/v2.0/", "http://h", "http://h"},
        {"http://h/v3", "http://h/v3", "http://h/v3"},
        {"http://h/v2images", "http://h/v2images", "http://h/v2images"},
        {"http://v2", "http://v2", "http://v2"},
        {"http://h/v1", "http://h", "http://h/v1"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        auto_free char *image = url_image_base(rows[i].url);
        auto_free char *identity = url_identity_base(rows[i].url);
        assert_string_equal(image, rows[i].image);
        assert_string_equal(identity, rows[i].identity);
    }
    assert_true(url_is_v3("http://h/v3"));
    assert_false(url_is_v3("http://h/v3.14"));
}

static void never_leaves_the_host(void **state)
{
    (void)state;
    static const struct {
        const char *href, *want;
    } rows[] = {
        {"http://evil.example:1/identity/v3/", "https://h:5000/identity/v3"},
        {"/identity/v3", "https://h:5000/identity/v3"},
        {"//evil.example/v3", NULL},
        {"https://user@h:5000/v3/", "https://h:5000/v3"},
        {"v3", NULL},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        auto_free char *url = url_with_path_of("https://h:5000/x", rows[i].href);
        if (rows[i].want)
            assert_string_equal(url, rows[i].want);
        else
            assert_null(url);
    }
}

static json_t *endpoint(const char *region, const char *interface, const char *url)
{
    return json_pack("{ss ss ss}", "region_id", region, "interface", interface, "url", url);
}

static int find(const char *catalog, const char *region, char **ret_url, struct error *err)
{
    static char interface[] = "public";
    const struct glance_config config = {.interface = interface, .region_name = (char *)region};
    auto_json json_t *json = json_loads(catalog, 0, NULL);
    assert_non_null(json);
    return keystone_find_endpoint(json, &config, ret_url, err);
}

static void finds_the_image_service(void **state)
{
    (void)state;
    auto_json json_t *json =
        json_pack("[{ss s[o]} i {ss s[oiooooo]}]", "type", "compute", "endpoints",
                  endpoint("A", "public", "http://c"), 7, "type", "image", "endpoints",
                  endpoint("A", "admin", "http://1"), 3, endpoint("A", "public", "http://2/v2/"),
                  endpoint("B", "public", "http://3"), endpoint("C", "public", "http://4"),
                  endpoint("D", "public", "gopher://5"), json_null());
    auto_free char *catalog = json_dumps(json, 0);
    assert_non_null(catalog);
    static const struct {
        const char *region, *url, *text;
    } rows[] = {
        {NULL, "http://2", NULL},
        {"B", "http://3", NULL},
        {"C", "http://4", NULL},
        {"D", NULL, "address in Keystone's catalog is no http"},
        {"E", NULL,
         "region 'E' (public) in the catalog, but in: A (admin), A (public), B (public)"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        auto_free char *url = NULL;
        struct error err = {0};
        int r = find(catalog, rows[i].region, &url, &err);
        assert_int_equal(r, rows[i].url ? 0 : -EINVAL);
        if (rows[i].url)
            assert_string_equal(url, rows[i].url);
        else if (!strstr(err.text, rows[i].text))
            fail_msg("'%s', wanted '%s'", err.text, rows[i].text);
    }
    auto_free char *url = NULL;
    struct error err = {0};
    assert_int_equal(find("[]", NULL, &url, &err), -EINVAL);
    assert_string_equal(err.text, "Keystone's catalog has no image service");
    assert_int_equal(find("[{\"type\": \"image\", \"endpoints\": {}}]", NULL, &url, &err), -EINVAL);
}

static void writes_requests_for_each_way_to_log_in(void **state)
{
    (void)state;
    static char a[] = "a", b[] = "b\"", c[] = "c", d[] = "d", e[] = "e";
    static const struct {
        struct glance_config config;
        const char *want;
    } rows[] = {
        {{.auth_type = GLANCE_AUTH_PASSWORD,
          .username = a,
          .password = b,
          .user_domain_id = c,
          .project_name = d,
          .project_domain_name = e},
         "{\"auth\":{\"identity\":{\"methods\":[\"password\"],\"password\":{\"user\":{\"name\":"
         "\"a\",\"domain\":{\"id\":\"c\"},\"password\":\"b\\\"\"}}},\"scope\":{\"project\":"
         "{\"name\":\"d\",\"domain\":{\"name\":\"e\"}}}}}"},
        {{.auth_type = GLANCE_AUTH_PASSWORD, .user_id = a, .password = b, .project_id = d},
         "{\"auth\":{\"identity\":{\"methods\":[\"password\"],\"password\":{\"user\":{\"id\":"
         "\"a\",\"password\":\"b\\\"\"}}},\"scope\":{\"project\":{\"id\":\"d\"}}}}"},
        {{.auth_type = GLANCE_AUTH_APPLICATION_CREDENTIAL,
          .application_credential_id = a,
          .application_credential_secret = b,
          .project_id = d},
         "{\"auth\":{\"identity\":{\"methods\":[\"application_credential\"],"
         "\"application_credential\":{\"id\":\"a\",\"secret\":\"b\\\"\"}}}}"},
        {{.auth_type = GLANCE_AUTH_TOKEN, .token = a, .project_id = d},
         "{\"auth\":{\"identity\":{\"methods\":[\"token\"],\"token\":{\"id\":\"a\"}},"
         "\"scope\":{\"project\":{\"id\":\"d\"}}}}"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        auto_free char *body = keystone_request(&rows[i].config);
        assert_non_null(body);
        assert_string_equal(body, rows[i].want);
    }
    static char no_text[] = "\xff";
    const struct glance_config broken = {
        .auth_type = GLANCE_AUTH_PASSWORD, .user_id = a, .password = no_text};
    assert_null(keystone_request(&broken));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shows_messages_of_the_services),
        cmocka_unit_test(shows_no_secrets),
        cmocka_unit_test(shows_no_characters_that_do_harm),
        cmocka_unit_test(takes_only_objects_for_json),
        cmocka_unit_test(reads_times),
        cmocka_unit_test(finds_bases_of_urls),
        cmocka_unit_test(never_leaves_the_host),
        cmocka_unit_test(finds_the_image_service),
        cmocka_unit_test(writes_requests_for_each_way_to_log_in),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
