/* The JSON of results, whole and in slices of every size. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "query/query.h"
#include "tests/unit/query/fake_storage.h"

static struct limits limits;
static struct storage *storage;

static void add(const char *name, const char *label, const char *value, int64_t time_ms, double v) {
    struct label labels[] = {{slice_str("__name__"), slice_str(name)}, {slice_str(label), slice_str(value)}};
    fake_storage_add(storage, fake_storage_series(storage, labels, 2), time_ms, v);
}

static void prints(const char *text, int64_t start_ms, int64_t end_ms, int64_t step_ms, const char *want) {
    struct query_request request = {.text = slice_str(text),
                                    .range = step_ms > 0,
                                    .start_ms = start_ms,
                                    .end_ms = end_ms,
                                    .step_ms = step_ms,
                                    .lookback_ms = 300000,
                                    .timeout_ms = 60000};
    struct query_error error;
    struct query_result *result;
    if (query_run(storage, &limits, clock_system(), &request, &error, &result) < 0)
        fail_msg("%s: %s", text, error.text);
    for (size_t bytes = 1; bytes < strlen(want) + 10; bytes += bytes < 100 ? 1 : 37) {
        struct query_json_cursor cursor = {0};
        struct buf out;
        buf_init(&out);
        for (;;) {
            size_t before = out.len;
            bool more = query_result_json(result, &cursor, bytes, &out);
            if (!more)
                break;
            assert_true(out.len >= before + bytes);
        }
        if (!slice_equal(buf_slice(&out), slice_str(want)))
            fail_msg("%s, %zu bytes at a time\n  gives    %.*s\n  expected %s", text, bytes, (int)out.len,
                     (char *)out.data, want);
        buf_release(&out);
    }
    query_result_free(result);
}

static void scalars_and_strings(void **state) {
    (void)state;
    prints("1e-7", 0, 0, 0, "{\"resultType\":\"scalar\",\"result\":[0,\"0.0000001\"]}");
    prints("1e21", 1500, 1500, 0, "{\"resultType\":\"scalar\",\"result\":[1.5,\"1000000000000000000000\"]}");
    prints("-Inf", 12000, 12000, 0, "{\"resultType\":\"scalar\",\"result\":[12,\"-Inf\"]}");
    prints("\"<a>\\n\\\"\\u2028\\x01\\xff\"", 0, 0, 0,
           "{\"resultType\":\"string\",\"result\":[0,\"\\u003ca\\u003e\\n\\\"\\u2028\\u0001\\ufffd\"]}");
}

static void vectors(void **state) {
    (void)state;
    prints("none", 0, 0, 0, "{\"resultType\":\"vector\",\"result\":[]}");
    prints("none[5m]", 0, 0, 0, "{\"resultType\":\"matrix\",\"result\":[]}");
    add("m", "a", "<\"\\\n>&\xc3\xa9", 1500, 1e21);
    prints("m", 1500, 1500, 0,
           "{\"resultType\":\"vector\",\"result\":[{\"metric\":{\"__name__\":\"m\",\"a\":\"<\\\"\\\\\\n>&"
           "\xc3\xa9\"},"
           "\"value\":[1.500,\"1e+21\"]}]}");
    prints("sum(m) * 1e-28", 2000, 2000, 0,
           "{\"resultType\":\"vector\",\"result\":[{\"metric\":{},\"value\":[2,\"1e-07\"]}]}");
    prints("m * 0 + 1e20", 2005, 2005, 0,
           "{\"resultType\":\"vector\",\"result\":[{\"metric\":{\"a\":\"<\\\"\\\\\\n>&\xc3\xa9\"},\"value\":["
           "2.005,"
           "\"100000000000000000000\"]}]}");
}

static void matrices(void **state) {
    (void)state;
    add("m", "B", "2", 0, 1);
    add("m", "B", "2", 1000, bits_double(UINT64_C(0x7ff0000000000002)));
    add("m", "B", "2", 2500, NAN);
    add("m", "B", "1", 1000, -0.0);
    prints("m", 0, 3000, 500,
           "{\"resultType\":\"matrix\",\"result\":["
           "{\"metric\":{\"B\":\"1\",\"__name__\":\"m\"},\"values\":[[1,\"-0\"],[1.500,\"-0\"],[2,\"-0\"],[2."
           "500,\"-0\"],"
           "[3,\"-0\"]]},"
           "{\"metric\":{\"B\":\"2\",\"__name__\":\"m\"},\"values\":[[0,\"1\"],[0.500,\"1\"],[2.500,\"NaN\"],"
           "[3,\"NaN\"]]}]}");
    prints("m{B=\"2\"}[10s]", 3000, 3000, 0,
           "{\"resultType\":\"matrix\",\"result\":[{\"metric\":{\"B\":\"2\",\"__name__\":\"m\"},\"values\":[["
           "0,\"1\"],"
           "[2.500,\"NaN\"]]}]}");
    prints("time()", -1000, 1000, 1000,
           "{\"resultType\":\"matrix\",\"result\":[{\"metric\":{},\"values\":[[-1,\"-1\"],[0,\"0\"],[1,\"1\"]"
           "]}]}");
}

/* More steps than one word of presence bits, with holes. */
static void many_steps(void **state) {
    (void)state;
    struct buf want;
    buf_init(&want);
    buf_append_str(
        &want,
        "{\"resultType\":\"matrix\",\"result\":[{\"metric\":{\"__name__\":\"m\",\"a\":\"b\"},\"values\":[");
    bool first = true;
    for (int i = 0; i < 200; i++) {
        bool there = i % 3 != 1;
        add("m", "a", "b", i * 1000, there ? i : bits_double(UINT64_C(0x7ff0000000000002)));
        if (there)
            buf_printf(&want, "%s[%d,\"%d\"]", first ? "" : ",", i, i);
        first = false;
    }
    buf_append_str(&want, "]}]}");
    buf_append_byte(&want, 0);
    prints("m", 0, 199000, 1000, (const char *)want.data);
    buf_release(&want);
}

static int setup(void **state) {
    (void)state;
    limits_init(&limits);
    storage = fake_storage_new();
    return 0;
}

static int teardown(void **state) {
    (void)state;
    fake_storage_free(storage);
    return 0;
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {TEST(scalars_and_strings), TEST(vectors), TEST(matrices),
                                       TEST(many_steps)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
