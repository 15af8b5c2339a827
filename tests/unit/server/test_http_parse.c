#include "unit.h"

#include "server/http_parse.h"

/* ---- The head's guard -----------------------------------------------------------------------------------
 */

/* Feeds `text` in pieces of `step` bytes; whatever the pieces, the verdict is the same. */
static enum head_verdict guard(const struct limits *limits, const char *text, size_t step, size_t *taken) {
    struct head_guard guard;
    size_t len = strlen(text);
    head_guard_init(&guard);
    *taken = 0;
    while (*taken < len) {
        size_t piece = len - *taken < step ? len - *taken : step, used = 0;
        enum head_verdict verdict =
            head_guard_feed(&guard, limits, (const uint8_t *)text + *taken, piece, &used);
        if (verdict != HEAD_MORE && verdict != HEAD_COMPLETE)
            return verdict;
        *taken += used;
        if (verdict == HEAD_COMPLETE)
            return verdict;
        assert_int_equal(used, piece);
    }
    return HEAD_MORE;
}

static void check_guard(const struct limits *limits, const char *text, enum head_verdict expected) {
    for (size_t step = 1; step < 9; step++) {
        size_t taken;
        assert_int_equal(guard(limits, text, step, &taken), expected);
    }
}

static void test_guard(void **state) {
    (void)state;
    struct limits limits;
    limits_init(&limits);
    check_guard(&limits, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", HEAD_COMPLETE);
    check_guard(&limits, "\r\n\r\nGET / HTTP/1.1\r\n\r\n", HEAD_COMPLETE);
    check_guard(&limits, "GET / HTTP/1.1\r\nHost: x\r\n\r", HEAD_MORE);
    check_guard(&limits, "GET / HTTP/1.1\r\nX: a\tb \xc3\xa4\r\n\r\n", HEAD_COMPLETE);
    check_guard(&limits, "GET / HTTP/1.1\nHost: x\n\n", HEAD_BAD_LINE_END);
    check_guard(&limits, "GET / HTTP/1.1\r\nHost: x\n\r\n", HEAD_BAD_LINE_END);
    check_guard(&limits, "GET / HTTP/1.1\r\n\n", HEAD_BAD_LINE_END);
    check_guard(&limits, "GET / HTTP/1.1\r\nX:\rTransfer-Encoding: chunked\r\n\r\n", HEAD_BAD_LINE_END);
    check_guard(&limits, "GET / HTTP/1.1\rX: y\r\n\r\n", HEAD_BAD_LINE_END);
    check_guard(&limits, "GET / HTTP/1.1\r\nX: y\r\n\rZ", HEAD_BAD_LINE_END);
    check_guard(&limits, "\rGET / HTTP/1.1\r\n\r\n", HEAD_BAD_LINE_END);
    check_guard(&limits, "GET / HTTP/1.1\r\nX: y\r\n z\r\n\r\n", HEAD_FOLDED);
    check_guard(&limits, "GET / HTTP/1.1\r\nX: y\r\n\tz\r\n\r\n", HEAD_FOLDED);
    check_guard(&limits, "GET / HTTP/1.1\r\n folded first\r\n\r\n", HEAD_FOLDED);
    check_guard(&limits, "GET / HTTP/1.1\r\nX: \x01\r\n\r\n", HEAD_BAD_BYTE);
    check_guard(&limits, "GET /\x7f HTTP/1.1\r\n\r\n", HEAD_BAD_BYTE);
    check_guard(&limits, "G\x02T / HTTP/1.1\r\n\r\n", HEAD_BAD_BYTE);
}

static void test_guard_used(void **state) {
    (void)state;
    struct limits limits;
    static const char head[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                      both[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /two";
    limits_init(&limits);
    for (size_t step = 1; step < sizeof both; step++) {
        size_t taken;
        assert_int_equal(guard(&limits, both, step, &taken), HEAD_COMPLETE);
        assert_int_equal(taken, strlen(head));
    }
}

static void test_guard_limits(void **state) {
    (void)state;
    struct limits limits;
    limits_init(&limits);
    limits.url_bytes_max = 5;
    check_guard(&limits, "GET /1234 HTTP/1.1\r\n\r\n", HEAD_COMPLETE);
    check_guard(&limits, "GET /12345 HTTP/1.1\r\n\r\n", HEAD_URL_TOO_LONG);
    limits_init(&limits);
    limits.header_count_max = 2;
    check_guard(&limits, "GET / HTTP/1.1\r\na: 1\r\nb: 2\r\n\r\n", HEAD_COMPLETE);
    check_guard(&limits, "GET / HTTP/1.1\r\na: 1\r\nb: 2\r\nc: 3\r\n\r\n", HEAD_TOO_MANY);
    limits_init(&limits);
    limits.header_bytes_max = 20;
    check_guard(&limits, "GET / HTTP/1.1\r\na: 123456\r\n\r\n", HEAD_COMPLETE);
    check_guard(&limits, "GET / HTTP/1.1\r\na: 123456789012345\r\n\r\n", HEAD_TOO_LONG);
    limits_init(&limits);
    char method[4096];
    memset(method, 'M', sizeof method - 1);
    method[sizeof method - 1] = 0;
    check_guard(&limits, method, HEAD_TOO_LONG);
    memset(method, '\n', sizeof method - 1);
    for (size_t i = 0; i < sizeof method - 1; i += 2)
        method[i] = '\r';
    check_guard(&limits, method, HEAD_TOO_LONG);
}

/* ---- Targets, parameters --------------------------------------------------------------------------------
 */

static void check_split(const char *target, const char *path, const char *query) {
    struct slice got_path, got_query;
    target_split(slice_str(target), &got_path, &got_query);
    assert_slice(got_path, path);
    assert_slice(got_query, query);
}

static void test_target(void **state) {
    (void)state;
    check_split("/a/b", "/a/b", "");
    check_split("/a?b=c?d", "/a", "b=c?d");
    check_split("/a?", "/a", "");
    check_split("?x", "", "x");
    check_split("", "", "");
    check_split("http://h:1/a?b", "/a", "b");
    check_split("https://h", "/", "");
    check_split("http://h?b", "/", ""); /* no path, so no query of one */
    check_split("*", "*", "");
}

static void test_percent(void **state) {
    (void)state;
    static const struct {
        const char *text, *plain, *plus;
    } good[] = {{"", "", ""},
                {"abc", "abc", "abc"},
                {"a%20b+c", "a b+c", "a b c"},
                {"%41%4a%4A", "AJJ", "AJJ"},
                {"%25%2B", "%+", "%+"},
                {"%c3%a4", "\xc3\xa4", "\xc3\xa4"}};
    static const char *const bad[] = {"%", "%4", "%zz", "a%4", "%%41", "%-1"};
    struct arena arena;
    struct error_detail detail;
    struct slice out;
    arena_init(&arena, 0, 0);
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(percent_decode(slice_str(good[i].text), false, &arena, &detail, &out), STATUS_OK);
        assert_slice(out, good[i].plain);
        assert_int_equal(percent_decode(slice_str(good[i].text), true, &arena, &detail, &out), STATUS_OK);
        assert_slice(out, good[i].plus);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        detail = (struct error_detail){{0}};
        assert_int_equal(percent_decode(slice_str(bad[i]), true, &arena, &detail, &out), STATUS_BAD_INPUT);
        assert_non_null(strstr(detail.text, "invalid URL escape \"%"));
    }
    arena_release(&arena);
}

static void test_params(void **state) {
    (void)state;
    struct arena arena;
    struct params params = {0};
    struct error_detail detail = {{0}};
    arena_init(&arena, 0, 0);
    assert_int_equal(
        params_parse(slice_str("a=1&b=2&&c&a=3&match%5B%5D=x%3D%22y+z%22&=v&d==&"), &arena, &detail, &params),
        STATUS_OK);
    assert_int_equal(params_parse(slice_str("a=9&e=5"), &arena, &detail, &params), STATUS_OK);
    assert_int_equal(params.count, 9);
    assert_slice(params_get(&params, "a"), "1");
    assert_slice(params_get(&params, "b"), "2");
    assert_slice(params_get(&params, "c"), "");
    assert_slice(params_get(&params, "match[]"), "x=\"y z\"");
    assert_slice(params_get(&params, "d"), "=");
    assert_slice(params_get(&params, "e"), "5");
    assert_slice(params_get(&params, "f"), "");
    assert_slice(params.items[3].value, "3");
    assert_int_equal(params_parse(slice_str("a=%"), &arena, &detail, &params), STATUS_BAD_INPUT);
    arena_release(&arena);
}

static void test_params_bounded(void **state) {
    (void)state;
    struct arena arena;
    struct params params = {0};
    struct error_detail detail = {{0}};
    static char text[2 * (PARAMS_COUNT_MAX + 1) + 1];
    for (size_t i = 0; i < PARAMS_COUNT_MAX + 1; i++)
        memcpy(text + 2 * i, "a&", 2);
    arena_init(&arena, 0, 0);
    assert_int_equal(params_parse(slice_of(text, 2 * PARAMS_COUNT_MAX), &arena, &detail, &params), STATUS_OK);
    params = (struct params){0};
    assert_int_equal(params_parse(slice_str(text), &arena, &detail, &params), STATUS_BAD_INPUT);
    arena_release(&arena);
}

static void test_integer(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t value;
    } good[] = {{"0", 0}, {"+7", 7}, {"-12", -12}, {"007", 7}, {"9223372036854775807", INT64_MAX}};
    static const char *const bad[] = {"", "-", "+", "1.5", "x", "1x", " 1", "0x1"};
    static const char *const large[] = {"9223372036854775808", "99999999999999999999999",
                                        "-99999999999999999999"};
    int64_t value;
    bool range;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_true(integer_parse(slice_str(good[i].text), &value, &range));
        assert_true(value == good[i].value);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(integer_parse(slice_str(bad[i]), &value, &range));
        assert_false(range);
    }
    for (size_t i = 0; i < sizeof large / sizeof large[0]; i++) {
        assert_false(integer_parse(slice_str(large[i]), &value, &range));
        assert_true(range);
    }
    assert_false(integer_parse(slice_str("99999999999999999999x"), &value, &range));
    assert_false(range); /* wrong before it is large */
}

static void test_boolean(void **state) {
    (void)state;
    bool value = false;
    assert_true(boolean_parse(slice_str("T"), &value) && value);
    assert_true(boolean_parse(slice_str("False"), &value) && !value);
    assert_true(boolean_parse(slice_str("1"), &value) && value);
    assert_true(boolean_parse(slice_str("0"), &value) && !value);
    assert_false(boolean_parse(slice_str("tRUE"), &value));
    assert_false(boolean_parse(slice_str(""), &value));
}

/* ---- Header values --------------------------------------------------------------------------------------
 */

static void test_headers(void **state) {
    (void)state;
    assert_true(header_offers(slice_str("gzip"), "gzip"));
    assert_true(header_offers(slice_str("deflate, GZip;q=0.5"), "gzip"));
    assert_true(header_offers(slice_str("gzip;q=0.001"), "gzip"));
    assert_false(header_offers(slice_str("gzip;q=0"), "gzip"));
    assert_false(header_offers(slice_str("gzip; q=0.000"), "gzip"));
    assert_false(header_offers(slice_str("xgzip, deflate"), "gzip"));
    assert_false(header_offers(slice_str(""), "gzip"));
    assert_true(
        header_param_is(slice_str("a/b;x=1;q=0.5, c/d; q=0.1; Escaping=\"allow\""), "escaping", "allow"));
    assert_false(header_param_is(slice_str("a/b;escaping=other,escaping=allow"), "escaping", "allow"));
    assert_false(header_param_is(slice_str(""), "escaping", "allow"));
    assert_true(media_type_is(slice_str("Application/X-Protobuf ; a=b"), "application/x-protobuf"));
    assert_false(media_type_is(slice_str("application/x-protobuf2"), "application/x-protobuf"));
    assert_slice(media_type_param(slice_str("a/b;proto=x.Y"), "proto"), "x.Y");
    assert_slice(media_type_param(slice_str("a/b ; c=d; Proto = \"x.Y\" "), "proto"), "x.Y");
    assert_slice(media_type_param(slice_str("a/b;protox=1"), "proto"), "");
    assert_slice(media_type_param(slice_str("a/b"), "proto"), "");
    assert_slice(slice_trim(slice_str(" \ta b\t ")), "a b");
    assert_slice(slice_trim(slice_str("  ")), "");
}

static void test_label_names(void **state) {
    (void)state;
    static const struct {
        const char *name, *plain;
    } cases[] = {{"job", "job"},
                 {"U__", ""},
                 {"U__job", "job"},
                 {"U__http_2e_status_20_code", "http.status code"},
                 {"U__a__b", "a_b"},
                 {"U___e4_", "\xc3\xa4"},
                 {"U___1f600_", "\xf0\x9f\x98\x80"},
                 {"U___2E_", "."},
                 /* malformed: as they are */
                 {"U__a_", "U__a_"},
                 {"U__a_2e", "U__a_2e"},
                 {"U__a_zz_", "U__a_zz_"},
                 {"U__a_110000_", "U__a_110000_"},
                 {"U__a_d800_", "U__a_d800_"},
                 {"U__a_0000000_", "U__a_0000000_"},
                 {"u__a_2e_", "u__a_2e_"}};
    struct arena arena;
    arena_init(&arena, 0, 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_slice(label_name_unescape(slice_str(cases[i].name), &arena), cases[i].plain);
    arena_release(&arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_guard),          cmocka_unit_test(test_guard_used),
        cmocka_unit_test(test_guard_limits),   cmocka_unit_test(test_target),
        cmocka_unit_test(test_percent),        cmocka_unit_test(test_params),
        cmocka_unit_test(test_params_bounded), cmocka_unit_test(test_integer),
        cmocka_unit_test(test_boolean),        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_label_names)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
