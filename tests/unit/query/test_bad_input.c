/* test_bad_input.c: queries that nobody should send: each gets an answer, or an error with a position, in
 * bounded time and memory. What bounds them are the default limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "query/query.h"
#include "query/result.h"
#include "tests/unit/query/fake_storage.h"

/* Of CPU: far more than any of them takes, for slow machines under sanitizers; what is quadratic takes
 * longer. */
#define SECONDS_MAX 30
#define RSS_MAX_KB  (1536 << 10)

static struct storage *storage;
static struct limits limits;
static struct query_error error;
static struct buf text;

static int setup(void **state) {
    (void)state;
    limits_init(&limits);
    storage = fake_storage_new();
    buf_init(&text);
    for (int i = 0; i < 200; i++) {
        char name[32], value[32];
        snprintf(name, sizeof name, "metric_name_%06d", i);
        snprintf(value, sizeof value, "v%d", i);
        const struct label labels[] = {{slice_str("__name__"), slice_str(name)},
                                       {slice_str("a"), slice_str(value)}};
        fake_storage_add(storage, fake_storage_series(storage, labels, 2), 0, i);
    }
    return 0;
}

static int teardown(void **state) {
    (void)state;
    fake_storage_free(storage);
    buf_release(&text);
    return 0;
}

/* Runs `text`: its series, or -1 with `error`. */
static long run_range(int64_t start_ms, int64_t end_ms, int64_t step_ms) {
    struct query_request request = {.text = buf_slice(&text),
                                    .range = step_ms > 0,
                                    .start_ms = start_ms,
                                    .end_ms = end_ms,
                                    .step_ms = step_ms,
                                    .lookback_ms = 300000,
                                    .timeout_ms = SECONDS_MAX * 20000};
    struct query_result *result = NULL;
    clock_t begun = clock();
    int status = query_run(storage, &limits, clock_system(), &request, &error, &result);
    clock_t seconds = (clock() - begun) / CLOCKS_PER_SEC;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    assert_true(usage.ru_maxrss < RSS_MAX_KB);
    if (seconds >= SECONDS_MAX)
        fail_msg("%.60s… took %ld s of CPU", (const char *)text.data, (long)seconds);
    long count = status < 0 ? -1 : (long)query_result_series_count(result);
    query_result_free(result);
    return count;
}

static long run(void) {
    return run_range(0, 0, 0);
}

static void fails(const char *with) {
    error = (struct query_error){0};
    long count = run();
    if (count >= 0)
        fail_msg("%.60s… should have failed", (const char *)text.data);
    if (strstr(error.text, with) == NULL)
        fail_msg("%.60s…: %s", (const char *)text.data, error.text);
}

static void repeat(const char *what, size_t times) {
    for (size_t i = 0; i < times; i++)
        buf_append_str(&text, what);
}

static void set(const char *what) {
    buf_clear(&text);
    buf_append_str(&text, what);
}

static void empty_and_broken(void **state) {
    (void)state;
    set("");
    fails("1:1: parse error: no expression found in input");
    assert_int_equal(error.type, QUERY_ERROR_BAD_DATA);
    set("  # nothing\n\t");
    fails("parse error: no expression found in input");
    set("m{a=\"\xff\"}");
    fails("1:6: parse error: invalid UTF-8 rune");
    set("\xc3");
    fails("1:1: parse error: invalid UTF-8 rune");
    set("m\n+\n{a=\"x\" \xe2\x82");
    fails("3:8: parse error: invalid UTF-8 rune");
    buf_clear(&text);
    buf_append(&text, "m\0m", 3);
    fails("1:2: parse error: ");
    set("\"");
    repeat("\\", 100001);
    fails("parse error: ");
}

/* As long as a query may be, and one byte more. */
static void one_mebibyte(void **state) {
    (void)state;
    size_t bytes = (size_t)limits.query_text_bytes_max;
    set("1");
    repeat("+1", (bytes - 1) / 2);
    fails("expression is nested deeper than 1000 levels");
    set("\"");
    repeat("x", bytes - 2);
    buf_append_str(&text, "\"");
    assert_int_equal(run(), 0);
    set("#");
    repeat("#", bytes - 4);
    buf_append_str(&text, "\n1");
    assert_int_equal(run(), 0);
    repeat(" ", 2);
    fails("the query is longer than");
    set("{a=\"v1\"");
    while (text.len + 10 < bytes)
        buf_append_str(&text, ",a=\"v1\"");
    buf_append_str(&text, "}");
    assert_int_equal(run(), 1);
    set("absent(none{a=\"v1\"");
    while (text.len + 12 < bytes)
        buf_append_str(&text, ",a=\"v1\"");
    buf_append_str(&text, "})");
    assert_int_equal(run(), 1);
    set("max_of(1,");
    repeat("1,", bytes / 2 - 10);
    buf_append_str(&text, "1)");
    fails("expected 2 argument(s) in call to \"max_of\"");
    set("");
    repeat("m ", bytes / 2);
    fails("parse error: unexpected identifier \"m\"");
}

static void a_hundred_thousand_parentheses(void **state) {
    (void)state;
    static const char *const openers[] = {"(", "-", "sum(", "abs(", "2^", "m[1m:1m]+(", "m offset (", "m[("};
    for (size_t i = 0; i < sizeof openers / sizeof openers[0]; i++) {
        buf_clear(&text);
        repeat(openers[i], 100000);
        error = (struct query_error){0};
        assert_int_equal(run(), -1);
        assert_int_equal(error.type, QUERY_ERROR_BAD_DATA);
        assert_non_null(strstr(error.text, ": parse error: "));
    }
    set("m");
    repeat("[1m:1m]", 100000);
    fails("expression is nested deeper than 1000 levels");
    set("m");
    repeat(")", 100000);
    fails("parse error: unexpected right parenthesis ')'");
}

static void regex_bombs(void **state) {
    (void)state;
    static const char *const patterns[] = {"((((a{1000}){1000}){1000}){1000})",
                                           "(((((a{30}){30}){30}){30}){30})",
                                           "(a*)*b",
                                           "(x+x+)+y",
                                           "(.*a){900}",
                                           "[\\\\pL]{1000}"};
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++) {
        buf_clear(&text);
        buf_printf(&text, "{a=~\"%s\"}", patterns[i]);
        long count = run();
        assert_true(count == 0 || (count == -1 && strstr(error.text, "1:2: parse error: ") != NULL));
        buf_clear(&text);
        buf_printf(&text, "label_replace({a=\"v1\"}, \"x\", \"y\", \"a\", \"%s\")", patterns[i]);
        count = run();
        assert_true(count == 1 || (count == -1 && error.type == QUERY_ERROR_EXECUTION));
    }
    set("{a=~\"");
    repeat("(", 100000);
    buf_append_str(&text, "\"}");
    fails("1:2: parse error: ");
}

/* What a dashboard's variable with "all" makes of 40,000 values has to work. */
static void forty_thousand_names(void **state) {
    (void)state;
    set("{__name__=~\"");
    for (int i = 0; i < 40000; i++)
        buf_printf(&text, "%smetric_name_%06d", i == 0 ? "" : "|", i);
    buf_append_str(&text, "\"}");
    assert_int_equal(run(), 200);
    set("count({a=~\"(");
    for (int i = 0; i < 40000; i++)
        buf_printf(&text, "%sv%d", i == 0 ? "" : "|", i);
    buf_append_str(&text, ")\"})");
    assert_int_equal(run(), 1);
    set("{a!~\"");
    for (int i = 1; i < 40000; i++)
        buf_printf(&text, "%sv%d", i == 1 ? "" : "|", i);
    buf_append_str(&text, "\", __name__!=\"\"}");
    assert_int_equal(run(), 1);
}

static void many_labels(void **state) {
    (void)state;
    size_t bytes = (size_t)limits.query_text_bytes_max;
    static const char *const heads[] = {"sum by (a", "sum without (x", "sum without (__name__"};
    static const long counts[] = {200, 200, 200};
    for (size_t i = 0; i < 3; i++) {
        set(heads[i]);
        for (int k = 0; text.len + 100 < bytes; k++)
            buf_printf(&text, ",l%d", k);
        buf_append_str(&text, ") ({a!=\"\"})");
        assert_int_equal(run(), counts[i]);
        set(heads[i]);
        while (text.len + 100 < bytes)
            buf_append_str(&text, ",a");
        buf_append_str(&text, ") ({a!=\"\"})");
        assert_true(run() > 0);
    }
    set("{a!=\"\"} * on(a");
    for (int k = 0; text.len < bytes / 2; k++)
        buf_printf(&text, ",l%d", k);
    buf_append_str(&text, ") group_left(x");
    for (int k = 0; text.len + 100 < bytes; k++)
        buf_printf(&text, ",k%d", k);
    buf_append_str(&text, ") {a!=\"\"}");
    assert_int_equal(run(), 200);
    set("m * on(a");
    for (int k = 0; text.len < bytes / 2; k++)
        buf_printf(&text, ",l%d", k);
    buf_append_str(&text, ") group_left(x");
    for (int k = 0; text.len + 100 < bytes; k++)
        buf_printf(&text, ",k%d", k);
    buf_append_str(&text, ",a) m");
    fails("label \"a\" must not occur in ON and GROUP clause at once");
    set("sort_by_label({a!=\"\"}");
    for (int k = 0; text.len < bytes / 8; k++)
        buf_printf(&text, ",\"l%d\"", k);
    buf_append_str(&text, ")");
    assert_int_equal(run(), 200);
    set("label_join({a=\"v1\"},\"x\",\"-\"");
    while (text.len + 100 < bytes)
        buf_append_str(&text, ",\"a\"");
    buf_append_str(&text, ")");
    assert_int_equal(run(), 1);
}

static void many_points(void **state) {
    (void)state;
    static const char too_many[] = "too many samples into memory";
    set("metric_name_000001");
    assert_int_equal(run_range(0, 1000000000, 1), -1);
    assert_non_null(strstr(error.text, too_many));
    assert_int_equal(run_range(INT64_MIN, INT64_MAX, 1), -1);
    assert_non_null(strstr(error.text, too_many));
    set("1");
    assert_int_equal(run_range(0, 1000000000, 1), -1);
    set("sum_over_time(metric_name_000001[31y:1ms])"); /* 10^12 points */
    fails(too_many);
    set("sum_over_time(metric_name_000001[290y:1ms] @ 0 offset -100y)");
    fails(too_many);
    set("max_over_time(max_over_time(max_over_time(metric_name_000001[1d:1s])[1d:1s])[1d:1s])");
    assert_true(run() >= -1);
    set("sum_over_time(metric_name_000001[1e300])");
    fails("1:34: parse error: duration is out of range");
    set("metric_name_000001 offset 1e300");
    fails("parse error: duration is out of range");
    set("metric_name_000001[1y * 1e200 * 1e200]");
    fails("duration is out of range");
    set("metric_name_000001[5m / 0]");
    fails("19:25: division by zero");
    set("metric_name_000001 @ 1e18");
    fails("timestamp out of bounds for @ modifier");
    set("topk(1e18, {a!=\"\"})");
    assert_int_equal(run(), 200);
    set("limitk(1e18, {a!=\"\"})");
    assert_int_equal(run(), 200);
    set("metric_name_000001[290y] offset -290y @ 9e12");
    assert_int_equal(run(), 0);
}

/* A pair of vectors that match everything with everything, and a chain of labels that doubles. */
static void large_products(void **state) {
    (void)state;
    set("{a!=\"\"} * on() group_left {a!=\"\"}");
    fails("many-to-many matching not allowed");
    set("label_join(label_join(label_join(label_join({a!=\"\"},\"b\",\"\",\"a\",\"a\",\"a\",\"a\"),\"c\","
        "\"\",\"b\",\"b\","
        "\"b\",\"b\"),\"d\",\"\",\"c\",\"c\",\"c\",\"c\"),\"e\",\"\",\"d\",\"d\",\"d\",\"d\")");
    assert_int_equal(run(), 200);
    limits.query_bytes_max = 256 << 20;
    buf_clear(&text);
    repeat("label_join(", 300);
    buf_append_str(&text, "metric_name_000001");
    repeat(",\"a\",\"\",\"a\",\"a\",\"a\",\"a\")", 300);
    fails("of memory");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(empty_and_broken, setup, teardown),
        cmocka_unit_test_setup_teardown(one_mebibyte, setup, teardown),
        cmocka_unit_test_setup_teardown(a_hundred_thousand_parentheses, setup, teardown),
        cmocka_unit_test_setup_teardown(regex_bombs, setup, teardown),
        cmocka_unit_test_setup_teardown(forty_thousand_names, setup, teardown),
        cmocka_unit_test_setup_teardown(many_labels, setup, teardown),
        cmocka_unit_test_setup_teardown(many_points, setup, teardown),
        cmocka_unit_test_setup_teardown(large_products, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
