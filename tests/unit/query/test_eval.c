/* The evaluator on the fake storage: vectors worked out from the rules, and random data against naive
 * formulas. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/rand.h"
#include "query/eval.h"
#include "query/result.h"
#include "tests/unit/query/fake_storage.h"

static struct limits limits;
static struct storage *storage;

/* "name", "label", "value", …, NULL */
static size_t series(const char *name, ...) {
    struct label labels[16];
    size_t count = 0;
    va_list args;
    va_start(args, name);
    labels[count++] = (struct label){slice_str("__name__"), slice_str(name)};
    for (const char *label; (label = va_arg(args, const char *)) != NULL;)
        labels[count++] = (struct label){slice_str(label), slice_str(va_arg(args, const char *))};
    va_end(args);
    return fake_storage_series(storage, labels, count);
}

/* A value every `step_s` seconds from 0 on. */
static void values(size_t index, int64_t step_s, size_t count, const double *v) {
    for (size_t i = 0; i < count; i++)
        fake_storage_add(storage, index, (int64_t)i * step_s * 1000, v[i]);
}

static struct query_error last_error;

static struct query_result *run_at(const char *text, int64_t start_ms, int64_t end_ms, int64_t step_ms) {
    struct query_request request = {.text = slice_str(text),
                                    .range = step_ms > 0,
                                    .start_ms = start_ms,
                                    .end_ms = end_ms,
                                    .step_ms = step_ms,
                                    .lookback_ms = 300000,
                                    .timeout_ms = 600000};
    struct query_result *result = NULL;
    int status = query_run(storage, &limits, clock_system(), &request, &last_error, &result);
    assert_int_equal(status < 0, result == NULL);
    return result;
}

static struct query_result *run(const char *text, int64_t time_ms) {
    struct query_result *result = run_at(text, time_ms, time_ms, 0);
    if (result == NULL)
        fail_msg("%s: %s", text, last_error.text);
    return result;
}

static void fails(const char *text, int64_t time_ms, const char *error) {
    struct query_result *result = run_at(text, time_ms, time_ms, 0);
    if (result != NULL)
        fail_msg("%s should fail", text);
    if (strcmp(last_error.text, error) != 0)
        fail_msg("%s\n  gives    %s\n  expected %s", text, last_error.text, error);
}

/* Bit for bit, NaN like NaN. */
static bool same(double a, double b) {
    return (isnan(a) && isnan(b)) || double_bits(a) == double_bits(b);
}

static void gives(const char *text, int64_t time_ms, double want) {
    struct query_result *result = run(text, time_ms);
    double have;
    if (result->type == QUERY_VALUE_SCALAR) {
        have = result->scalar;
    } else {
        if (result->series_count != 1)
            fail_msg("%s: %zu series", text, result->series_count);
        have = result->series[0].values[0];
    }
    if (!same(have, want))
        fail_msg("%s: %.17g, expected %.17g", text, have, want);
    query_result_free(result);
}

static void gives_nothing(const char *text, int64_t time_ms) {
    struct query_result *result = run(text, time_ms);
    assert_int_equal(result->series_count, 0);
    query_result_free(result);
}

static const char *labels_of(const struct query_result *result, size_t index) {
    static char text[1024];
    struct buf buf;
    buf_init(&buf);
    labels_print_braces(&buf, result->series[index].labels, result->series[index].label_count);
    snprintf(text, sizeof text, "%.*s", (int)buf.len, (char *)buf.data);
    buf_release(&buf);
    return text;
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

static void literals(void **state) {
    (void)state;
    gives("-1 ^ 2", 0, -1);
    gives("2 ^ 3 ^ 2", 0, 512);
    gives("1 - 1 - 1", 0, -1);
    gives("010", 0, 8);
    gives("08", 0, 8);
    gives("1h", 0, 3600);
    gives("1 + 2 * 3 % 2", 0, 1);
    gives("5 % -3", 0, 2);
    gives("-5 % 3", 0, -2);
    gives("1 / 0", 0, INFINITY);
    gives("0 / 0", 0, NAN);
    gives("3 > bool 2", 0, 1);
    gives("3 == bool NaN", 0, 0);
    gives("1 atan2 1", 0, atan2(1, 1));
    gives("time()", 12345, 12.345);
    gives("2 * -3 ^ 2", 0, -18);
    gives("vector(1) + time()", 5000, 6);
    gives("scalar(vector(7)) * 2", 0, 14);
    gives("max_of(1, 2) + min_of(3, 4)", 0, 5);
    struct query_result *result = run("\"a\\tb\"", 0);
    assert_int_equal(result->type, QUERY_VALUE_STRING);
    assert_true(slice_equal(result->string, slice_str("a\tb")));
    query_result_free(result);
}

static void windows(void **state) {
    (void)state;
    size_t m = series("m_total", NULL);
    for (int i = 0; i <= 100; i++)
        fake_storage_add(storage, m, i * 10000, i * 10);
    gives("increase(m_total[60s])", 60000, 60);
    gives("increase(m_total[60s])", 65000, 60);
    gives("rate(m_total[60s])", 65000, 1);
    gives("count_over_time(m_total[10s])", 60000, 1);
    gives("count_over_time(m_total[1ms])", 60000, 1);
    gives("irate(m_total[60s])", 65000, 1);
    gives("delta(m_total[60s])", 65000, 60);
    gives("idelta(m_total[60s])", 65000, 10);
    gives_nothing("rate(m_total[10s])", 60000);
    gives_nothing("count_over_time(m_total[5s])", 9999);
    /* The lookback window is open on the left. */
    fake_storage_clear(storage);
    m = series("m", NULL);
    fake_storage_add(storage, m, 1000, 42);
    gives("m", 1000, 42);
    gives("m", 300999, 42);
    gives_nothing("m", 301000);
    gives_nothing("m", 999);
    gives("m offset 1s", 2000, 42);
    gives_nothing("m offset 1s", 1500);
    gives("m offset -1s", 0, 42);
    gives("m @ 1", 900000, 42);
    gives("timestamp(m)", 5000, 1);
    gives("timestamp(m offset 1s)", 5000, 1);
    gives("timestamp(-m)", 5000, 5);
}

static void stale_ends_a_series(void **state) {
    (void)state;
    size_t m = series("m", NULL);
    fake_storage_add(storage, m, 0, 1);
    fake_storage_add(storage, m, 10000, bits_double(STALE_NAN_BITS));
    fake_storage_add(storage, m, 20000, NAN);
    fake_storage_add(storage, m, 30000, 2);
    gives("m", 9999, 1);
    gives_nothing("m", 10000);
    gives_nothing("m", 19999);
    gives("m", 20000, NAN);
    gives("count_over_time(m[1m])", 30000, 3 - 0);
    gives("last_over_time(m[20s])", 19999, 1);
    gives("sum_over_time(m[25s])", 30000, NAN);
    gives("max_over_time(m[25s])", 30000, 2);
    gives("absent(m)", 15000, 1);
    gives("scalar(m)", 15000, NAN);
}

static void compensated_sums(void **state) {
    (void)state;
    static const double v[] = {1e100, 1, -1e100, 1};
    for (size_t i = 0; i < 4; i++) {
        char name[8];
        snprintf(name, sizeof name, "%zu", i);
        size_t m = series("m", "i", name, NULL);
        fake_storage_add(storage, m, 0, v[i]);
    }
    values(series("r", NULL), 1, 4, v);
    gives("sum(m)", 0, 2);
    static const char *const dense[] = {"sum(m)", "sum(m) - sum(m) + 2", "sum(m or on () vector(0)) * 1",
                                        "sum(m / 0) * 0 + 2"};
    for (size_t i = 0; i < 4; i++) {
        struct query_result *result = run_at(dense[i], 0, 99000, 1000);
        assert_non_null(result);
        assert_int_equal(result->series[0].count, 100);
        for (size_t k = 0; k < 100; k++)
            assert_true(i == 3 ? isnan(result->series[0].values[k]) : result->series[0].values[k] == 2);
        query_result_free(result);
    }
    gives("avg(m)", 0, 0.5);
    gives("sum_over_time(r[1m])", 3000, 2);
    gives("avg_over_time(r[1m])", 3000, 0.5);
    static const double large[] = {1.7e308, 1.7e308, 1.7e308};
    values(series("large", NULL), 1, 3, large);
    gives("avg_over_time(large[1m])", 2000, 1.7e308);
    gives("sum_over_time(large[1m])", 2000, INFINITY);
    gives("avg(large or -large or large)", 2000, 1.7e308);
}

static void counters_that_reset(void **state) {
    (void)state;
    static const double v[] = {5, 10, 3, 7, 2, NAN, 4};
    values(series("c_total", NULL), 10, 5, v);
    /* raw = 2-5 + 10 + 7 = 14 over 40 s; the window (-5, 45] begins 5 s before and ends 5 s behind. */
    gives("increase(c_total[50s])", 45000, 14 * ((40.0 + 5 + 5) / 40));
    /* Young counters do not reach below zero: 40 * 5 / 14 s is more than 5 s; with a first value of 0 nothing
     * is added. */
    static const double young[] = {0, 10, 20};
    values(series("y_total", NULL), 10, 3, young);
    gives("increase(y_total[30s])", 25000, 20 * ((20.0 + 0 + 5) / 20));
    gives("resets(c_total[50s])", 45000, 2);
    gives("changes(c_total[50s])", 45000, 4);
    gives("irate(c_total[50s])", 45000, 0.2);
}

static void quantiles(void **state) {
    (void)state;
    static const char *const le[] = {"0.1", "0.2", "+Inf"};
    static const double counts[] = {1, 3, 4};
    for (size_t i = 0; i < 3; i++)
        fake_storage_add(storage, series("h_bucket", "le", le[i], "a", "b", NULL), 0, counts[i]);
    gives("histogram_quantile(0.5, h_bucket)", 0, 0.1 + (0.2 - 0.1) * (1.0 / 2));
    gives("histogram_quantile(0.99, h_bucket)", 0, 0.2);
    gives("histogram_quantile(-1, h_bucket)", 0, -INFINITY);
    gives("histogram_quantile(2, h_bucket)", 0, INFINITY);
    gives("histogram_quantile(NaN, h_bucket)", 0, NAN);
    gives("histogram_quantile(0.5, h_bucket{le!=\"+Inf\"})", 0, NAN);
    struct query_result *result = run("histogram_quantile(2, h_bucket)", 0);
    assert_string_equal(labels_of(result, 0), "{a=\"b\"}");
    assert_int_equal(result->warning_count, 1);
    assert_string_equal(result->warnings[0],
                        "PromQL warning: quantile value should be between 0 and 1, got 2 (1:20)");
    query_result_free(result);
    fake_storage_add(storage, series("h_bucket", "le", "x", NULL), 0, 1);
    fake_storage_add(storage, series("h_bucket", "le", "0.15", "a", "b", NULL), 0, 0);
    result = run("histogram_quantile(0.5, h_bucket)", 0);
    assert_int_equal(result->warning_count, 1);
    assert_string_equal(result->warnings[0],
                        "PromQL warning: bucket label \"le\" is missing or has a malformed value of "
                        "\"x\" for metric name \"h_bucket\" (1:25)");
    assert_int_equal(result->info_count, 1);
    assert_string_equal(result->infos[0],
                        "PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see "
                        "https://prometheus.io/docs/prometheus/latest/querying/functions/"
                        "#histogram_quantile), "
                        "from buckets 0.15 to 0.15, with a max diff of 1, over 1 samples from "
                        "1970-01-01T00:00:00Z to "
                        "1970-01-01T00:00:00Z (1:25)");
    query_result_free(result);
}

static void top(void **state) {
    (void)state;
    static const double v[] = {NAN, 1, 3, 2, 3};
    for (size_t i = 0; i < 5; i++) {
        char name[8];
        snprintf(name, sizeof name, "%zu", i);
        fake_storage_add(storage, series("m", "i", name, NULL), 0, v[i]);
    }
    static const struct {
        const char *text;
        double want[5];
        size_t count;
    } cases[] = {
        {"topk(1, m{i=~\"0|1\"})", {1}, 1},
        {"topk(2, m{i=~\"0|1\"})", {1, NAN}, 2},
        {"topk(3, m)", {3, 3, 2}, 3},
        {"bottomk(2, m)", {1, 2}, 2},
        {"bottomk(9, m)", {1, 2, 3, 3, NAN}, 5},
        {"topk(0, m)", {0}, 0},
        {"sort(m)", {1, 2, 3, 3, NAN}, 5},
        {"sort_desc(m)", {3, 3, 2, 1, NAN}, 5},
        {"topk(1.9, m)", {3}, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct query_result *result = run(cases[i].text, 0);
        if (result->series_count != cases[i].count)
            fail_msg("%s: %zu series", cases[i].text, result->series_count);
        for (size_t k = 0; k < cases[i].count; k++) {
            if (!same(result->series[k].values[0], cases[i].want[k]))
                fail_msg("%s: place %zu has %g", cases[i].text, k, result->series[k].values[0]);
        }
        query_result_free(result);
    }
    struct query_result *result = run("topk(1, m)", 0);
    assert_string_equal(labels_of(result, 0), "{__name__=\"m\", i=\"2\"}"); /* the first of the equal ones */
    query_result_free(result);
    fails("topk(NaN, m)", 0, "Parameter value is NaN");
    fails("topk(1e20, m)", 0, "Scalar value 1e+20 overflows int64");
}

static void matching(void **state) {
    (void)state;
    fake_storage_add(storage, series("a", "x", "1", "y", "p", NULL), 0, 10);
    fake_storage_add(storage, series("a", "x", "2", "y", "p", NULL), 0, 20);
    fake_storage_add(storage, series("b", "x", "1", "z", "q", NULL), 0, 2);
    fake_storage_add(storage, series("b", "x", "3", "z", "q", NULL), 0, 3);
    struct query_result *result = run("a / on (x) b", 0);
    assert_int_equal(result->series_count, 1);
    assert_string_equal(labels_of(result, 0), "{x=\"1\"}");
    assert_true(result->series[0].values[0] == 5);
    query_result_free(result);
    result = run("a > ignoring (y, z) b", 0);
    assert_int_equal(result->series_count, 1);
    assert_string_equal(labels_of(result, 0), "{__name__=\"a\", x=\"1\"}");
    query_result_free(result);
    result = run("a + on (x) group_left (z) b", 0);
    assert_string_equal(labels_of(result, 0), "{x=\"1\", y=\"p\", z=\"q\"}");
    query_result_free(result);
    result = run("a unless on (x) b", 0);
    assert_int_equal(result->series_count, 1);
    assert_string_equal(labels_of(result, 0), "{__name__=\"a\", x=\"2\", y=\"p\"}");
    query_result_free(result);
    result = run("a or on (x) b", 0);
    assert_int_equal(result->series_count, 3);
    query_result_free(result);
    gives_nothing("a + b", 0);
    fails("a + on (y) b{x=\"1\"} * 0 or a + on (y) a", 0,
          "found duplicate series for the match group {y=\"p\"} on the right hand-side of the operation: "
          "[{__name__=\"a\", x=\"1\", y=\"p\"}, {__name__=\"a\", x=\"2\", y=\"p\"}];many-to-many matching "
          "not allowed: "
          "matching labels must be unique on one side");
    fails("a + on (y) group_right a", 0,
          "found duplicate series for the match group {y=\"p\"} on the left hand-side of the operation: "
          "[{__name__=\"a\", x=\"1\", y=\"p\"}, {__name__=\"a\", x=\"2\", y=\"p\"}];many-to-many matching "
          "not allowed: "
          "matching labels must be unique on one side");
    fails("a > on () b{x=\"1\"}", 0,
          "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)");
    gives_nothing("a{x=\"none\"} + on () b", 0); /* duplicates don't count where the other side is empty */
}

static void names_go(void **state) {
    (void)state;
    fake_storage_add(storage, series("a", "x", "1", NULL), 0, 1);
    fake_storage_add(storage, series("b", "x", "1", NULL), 0, 2);
    static const char *const dropped[] = {
        "-a", "abs(a)", "a + 1", "1 + a", "a > bool 0", "rate(a[1m]) or abs(a)", "a + a"};
    for (size_t i = 0; i < sizeof dropped / sizeof dropped[0]; i++) {
        struct query_result *result = run(dropped[i], 0);
        assert_int_equal(result->series_count, 1);
        assert_string_equal(labels_of(result, 0), "{x=\"1\"}");
        query_result_free(result);
    }
    static const char *const kept[] = {"a",
                                       "+a",
                                       "a > 0",
                                       "a >= a",
                                       "last_over_time(a[1m])",
                                       "topk(1, a)",
                                       "a and a",
                                       "sum by (__name__, x) (a)"};
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) {
        struct query_result *result = run(kept[i], 0);
        assert_int_equal(result->series_count, 1);
        if (strstr(labels_of(result, 0), "__name__=\"a\"") == NULL)
            fail_msg("%s: %s", kept[i], labels_of(result, 0));
        query_result_free(result);
    }
    fails("abs({x=\"1\"})", 0, "vector cannot contain metrics with the same labelset");
    fails("-{x=\"1\"}", 0, "vector cannot contain metrics with the same labelset");
    fails("count_over_time({x=\"1\"}[1m])", 0, "vector cannot contain metrics with the same labelset");
    fails("{x=\"1\"} * 2", 0, "vector cannot contain metrics with the same labelset");
    fails("label_replace({x=\"1\"}, \"__name__\", \"c\", \"x\", \".*\")", 0,
          "vector cannot contain metrics with the same labelset");
}

static void aggregations(void **state) {
    (void)state;
    fake_storage_add(storage, series("m", "a", "1", "b", "x", NULL), 0, 1);
    fake_storage_add(storage, series("m", "a", "1", "b", "y", NULL), 0, 2);
    fake_storage_add(storage, series("m", "a", "2", "b", "x", NULL), 0, NAN);
    gives("sum(m{a=\"1\"})", 0, 3);
    gives("min(m)", 0, 1);
    gives("max(m)", 0, 2);
    gives("count(m)", 0, 3);
    gives("group(m)", 0, 1);
    gives("max(m{a=\"2\"})", 0, NAN);
    gives("stddev(m{a=\"1\"})", 0, 0.5);
    gives("stdvar(m{a=\"1\"})", 0, 0.25);
    gives_nothing("sum(none)", 0);
    struct query_result *result = run("sum by (a) (m)", 0);
    assert_int_equal(result->series_count, 2);
    assert_string_equal(labels_of(result, 0), "{a=\"1\"}");
    query_result_free(result);
    result = run("count without (a) (m)", 0);
    assert_int_equal(result->series_count, 2);
    assert_string_equal(labels_of(result, 0), "{b=\"x\"}");
    assert_true(result->series[0].values[0] == 2);
    query_result_free(result);
}

static void not_yet(void **state) {
    (void)state;
    fails("start_timestamp(m)", 0, "function \"start_timestamp\" is not supported yet");
    assert_int_equal(last_error.type, QUERY_ERROR_EXECUTION);
    assert_null(run_at("m[5m]", 0, 60000, 1000));
    assert_string_equal(
        last_error.text,
        "invalid expression type \"range vector\" for range query, must be Scalar or instant Vector");
}

static void bounds(void **state) {
    (void)state;
    size_t m = series("m", NULL);
    for (int i = 0; i < 1000; i++)
        fake_storage_add(storage, m, i * 1000, i);
    limits.query_samples_max = 500;
    assert_null(run_at("m[1000s]", 999000, 999000, 0));
    assert_int_equal(last_error.type, QUERY_ERROR_EXECUTION);
    assert_string_equal(last_error.text,
                        "query processing would load too many samples into memory in query execution");
    assert_null(run_at("1", 0, 999000, 1000));
    assert_null(run_at("sum_over_time(m[1000000y:1ms])", 0, 0, 0));
    limits.query_samples_max = 50000000;
    limits.query_bytes_max = 4 << 20;
    assert_null(run_at("vector(1) + vector(2)", 0, 1000000, 1));
    assert_non_null(strstr(last_error.text, "of memory"));
    limits_init(&limits);
    atomic_bool canceled = true;
    struct query_request request = {
        .text = slice_str("m"), .lookback_ms = 300000, .timeout_ms = 1000, .canceled = &canceled};
    struct query_result *result;
    assert_int_equal(query_run(storage, &limits, clock_system(), &request, &last_error, &result),
                     STATUS_CANCELLED);
    assert_int_equal(last_error.type, QUERY_ERROR_CANCELED);
    assert_string_equal(last_error.text, "query was canceled in expression evaluation");
    request.canceled = NULL;
    request.timeout_ms = 0;
    assert_int_equal(query_run(storage, &limits, clock_system(), &request, &last_error, &result),
                     STATUS_TIMEOUT);
    assert_int_equal(last_error.type, QUERY_ERROR_TIMEOUT);
    assert_string_equal(last_error.text, "query timed out in expression evaluation");
    request.timeout_ms = 60000;
    request.series_limit = 1;
    fake_storage_add(storage, series("m", "x", "y", NULL), 0, 1);
    assert_int_equal(query_run(storage, &limits, clock_system(), &request, &last_error, &result), STATUS_OK);
    assert_int_equal(result->series_count, 1);
    assert_int_equal(result->warning_count, 1);
    assert_string_equal(result->warnings[0], "results truncated due to limit");
    query_result_free(result);
}

/* Expressions as deep as they may be, and labels as many as can be asked for. */
static void depth_and_labels(void **state) {
    (void)state;
    fake_storage_add(storage, series("m", "a", "b", NULL), 0, -7);
    struct buf text;
    buf_init(&text);
    for (int i = 0; i < 900; i++)
        buf_append_str(&text, "abs(");
    buf_append_str(&text, "m");
    for (int i = 0; i < 900; i++)
        buf_append_str(&text, ")");
    buf_append_byte(&text, 0);
    gives((const char *)text.data, 0, 7);
    for (int levels = 250; levels <= 260; levels += 10) {
        buf_clear(&text);
        buf_append_str(&text, "count without (x) (");
        for (int i = 0; i < levels; i++)
            buf_append_str(&text, "label_replace(");
        buf_append_str(&text, "m");
        for (int i = 0; i < levels; i++)
            buf_printf(&text, ", \"l%d\", \"v\", \"a\", \".*\")", i);
        buf_append_str(&text, ")");
        buf_append_byte(&text, 0);
        if (levels == 250)
            gives((const char *)text.data, 0, 1);
        else
            fails((const char *)text.data, 0, "a series would have more than 256 labels");
    }
    buf_clear(&text);
    buf_append_str(&text, "sum without (x) (absent(none{");
    for (int i = 0; i < 5000; i++)
        buf_printf(&text, "l%d=\"v\",", i);
    buf_append_str(&text, "}))");
    buf_append_byte(&text, 0);
    fails((const char *)text.data, 0, "a series would have more than 256 labels");
    buf_release(&text);
}

static uint64_t fake_now_ns;

static uint64_t clock_jumps(void *context) {
    (void)context;
    return fake_now_ns += 1000000000; /* a second at every look */
}

static int64_t clock_zero(void *context) {
    (void)context;
    return 0;
}

/* One series with a large window must not outrun the clock. */
static void slow_windows_time_out(void **state) {
    (void)state;
    size_t m = series("m", NULL);
    for (int i = 0; i < 20000; i++)
        fake_storage_add(storage, m, i * 1000, i);
    struct clock clock = {clock_zero, clock_jumps, NULL};
    struct query_request request = {.text = slice_str("sum_over_time(m[20000s])"),
                                    .range = true,
                                    .start_ms = 20000000,
                                    .end_ms = 21000000,
                                    .step_ms = 1000,
                                    .lookback_ms = 300000,
                                    .timeout_ms = 8000};
    struct query_result *result;
    assert_int_equal(query_run(storage, &limits, &clock, &request, &last_error, &result), STATUS_TIMEOUT);
}

/* Random expressions: a range query must agree with the instant queries at its steps. */
static size_t random_expr(struct rand *rand, char *out, size_t size, int depth) {
    static const char *const leaves[] = {"a",      "b",         "a{x=\"1\"}",    "a offset 7s",
                                         "b @ 60", "vector(3)", "vector(time())"};
    static const char *const binary[] = {"+",           "-",
                                         "/",           ">",
                                         "<= bool",     "and",
                                         "or",          "unless",
                                         "* on (x)",    "== ignoring (y)",
                                         "or on (x)",   "+ on (x) group_left ()",
                                         "unless on ()"};
    static const char *const around[] = {"sum(",
                                         "avg by (x) (",
                                         "max without (y) (",
                                         "-(",
                                         "abs(",
                                         "count by (y) (",
                                         "topk(2, ",
                                         "stddev(",
                                         "timestamp(",
                                         "round(",
                                         "group by (x, y) (",
                                         "ceil(",
                                         "bottomk by (x) (1, "};
    static const char *const ranges[] = {"rate",           "max_over_time", "sum_over_time",
                                         "last_over_time", "avg_over_time", "delta"};
    size_t len = 0;
    switch (depth == 0 ? 0 : rand_below(rand, 6)) {
    case 0:
        return (size_t)snprintf(out, size, "%s", leaves[rand_below(rand, 7)]);
    case 1:
    case 2:
        len = (size_t)snprintf(out, size, "(");
        len += random_expr(rand, out + len, size - len, depth - 1);
        len += (size_t)snprintf(out + len, size - len, ") %s (", binary[rand_below(rand, 13)]);
        len += random_expr(rand, out + len, size - len, depth - 1);
        return len + (size_t)snprintf(out + len, size - len, ")");
    case 3:
        return (size_t)snprintf(out, size, "%s(a[%ds])", ranges[rand_below(rand, 6)],
                                10 + (int)rand_below(rand, 60));
    case 4:
        len = (size_t)snprintf(out, size, "%s((", ranges[rand_below(rand, 6)]);
        len += random_expr(rand, out + len, size - len, depth - 1);
        return len + (size_t)snprintf(out + len, size - len, ")[40s:9s])");
    default:
        len = (size_t)snprintf(out, size, "%s", around[rand_below(rand, 13)]);
        len += random_expr(rand, out + len, size - len, depth - 1);
        return len + (size_t)snprintf(out + len, size - len, ")");
    }
}

/* The order of adding differs where topk hands on its best first: the last bits may too. */
static bool close_to(double a, double b) {
    return same(a, b) || fabs(a - b) <= 1e-9 * (fabs(a) + fabs(b)) + 1e-12;
}

static void random_expressions(void **state) {
    (void)state;
    struct rand rand;
    rand_init(&rand, 9);
    for (int i = 0; i < 6; i++) {
        char x[4] = {(char)('1' + i % 3), 0};
        size_t a = series("a", "x", x, "y", i < 3 ? "p" : "q", NULL), b = series("b", "x", x, NULL);
        for (int t = 0; t < 30; t++) {
            if (rand_below(&rand, 3) > 0)
                fake_storage_add(storage, a, t * 5000,
                                 rand_below(&rand, 8) == 0 ? bits_double(STALE_NAN_BITS)
                                                           : (double)rand_below(&rand, 10));
            if (i < 3 && rand_below(&rand, 3) > 0)
                fake_storage_add(storage, b, t * 5000, (double)rand_below(&rand, 10));
        }
    }
    size_t compared = 0;
    for (int round = 0; round < 1500; round++) {
        char text[4096];
        random_expr(&rand, text, sizeof text, 4);
        struct query_result *range = run_at(text, 3000, 150000, 7000);
        if (range == NULL)
            assert_int_equal(last_error.type, QUERY_ERROR_EXECUTION);
        for (size_t step = 0; range != NULL && step < range->steps; step++) {
            int64_t time = 3000 + (int64_t)step * 7000;
            struct query_result *instant = run_at(text, time, time, 0);
            if (instant == NULL)
                fail_msg("%s at %lld fails: %s; not as a range", text, (long long)time, last_error.text);
            size_t there = 0;
            for (size_t i = 0; i < range->series_count; i++) {
                const struct result_series *r = &range->series[i];
                if (!bits_get(r->present, step))
                    continue;
                size_t at = 0;
                for (BITS_EACH(k, r->present, step))
                    at++;
                there++;
                bool found = false;
                for (size_t j = 0; j < instant->series_count; j++) {
                    const struct result_series *v = &instant->series[j];
                    found = found || (labels_equal(r->labels, r->label_count, v->labels, v->label_count) &&
                                      close_to(r->values[at], v->values[0]));
                }
                if (!found)
                    fail_msg("%s at %lld: the range has %.17g for %s", text, (long long)time, r->values[at],
                             labels_of(range, i));
                compared++;
            }
            if (there != instant->series_count)
                fail_msg("%s at %lld: %zu series in the range, %zu alone", text, (long long)time, there,
                         instant->series_count);
            query_result_free(instant);
        }
        query_result_free(range);
    }
    assert_true(compared > 10000);
}

static void counter_note(void **state) {
    (void)state;
    size_t m = series("m", NULL);
    fake_storage_add(storage, m, 0, 0);
    fake_storage_add(storage, m, 1000, 1);
    struct query_result *result = run("1 +\n rate(m[1m])", 1000);
    assert_int_equal(result->info_count, 1);
    assert_string_equal(result->infos[0], "PromQL info: metric might not be a counter, name does not end in "
                                          "_total/_sum/_count/_bucket: \"m\" (2:7)");
    query_result_free(result);
    /* Ten are shown. */
    for (int i = 0; i < 13; i++) {
        char name[16];
        snprintf(name, sizeof name, "g%d", i);
        m = series(name, NULL);
        fake_storage_add(storage, m, 0, 0);
        fake_storage_add(storage, m, 1000, 1);
    }
    struct buf text;
    buf_init(&text);
    for (int i = 0; i < 13; i++)
        buf_printf(&text, "%srate(g%d[1m])", i == 0 ? "" : " or ", i);
    buf_append_byte(&text, 0);
    result = run((const char *)text.data, 1000);
    buf_release(&text);
    assert_int_equal(result->info_count, 11);
    assert_string_equal(result->infos[10], "3 more info annotations omitted");
    query_result_free(result);
    result = run_at("count(label_replace(last_over_time({__name__=~\"g.*\"}[1m]), \"n\", \"$1\", "
                    "\"__name__\", \"(.*)\"))",
                    1000, 1000, 0);
    assert_non_null(result);
    assert_true(result->series[0].values[0] == 13);
    query_result_free(result);
}

static void subqueries(void **state) {
    (void)state;
    size_t m = series("m", NULL);
    for (int i = 0; i <= 600; i++)
        fake_storage_add(storage, m, i * 1000, i);
    gives("sum_over_time(m[5m:1m])", 300000, 60 + 120 + 180 + 240 + 300);
    gives("sum_over_time(m[5m:1m])", 310000, 60 + 120 + 180 + 240 + 300);
    gives("count_over_time(vector(time())[1m:1m])", 0, 1);
    gives("max_over_time((m * 2)[1m:10s] @ 100)", 500000, 200);
    struct query_result *result = run("vector(1)[1m:1m]", -30000);
    assert_int_equal(result->type, QUERY_VALUE_MATRIX);
    assert_int_equal(result->series[0].count, 1);
    assert_int_equal(result->series[0].times_ms[0], -60000);
    query_result_free(result);
}

/* ---- Against naive formulas
 * ----------------------------------------------------------------------------------- */

#define SAMPLES 200

static double naive(const char *function, const int64_t *times, const double *v, size_t count, int64_t start,
                    int64_t end, bool *present) {
    double in[SAMPLES];
    int64_t at[SAMPLES];
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        if (times[i] > start && times[i] <= end) {
            at[n] = times[i];
            in[n++] = v[i];
        }
    }
    *present = n > 0;
    if (n == 0)
        return 0;
    double result = in[0];
    if (strcmp(function, "max_over_time") == 0 || strcmp(function, "min_over_time") == 0) {
        for (size_t i = 1; i < n; i++) {
            if (isnan(result) || (function[1] == 'a' ? in[i] > result : in[i] < result))
                result = in[i];
        }
        return result;
    }
    if (strcmp(function, "count_over_time") == 0)
        return (double)n;
    if (strcmp(function, "last_over_time") == 0)
        return in[n - 1];
    *present = n > 1;
    if (n < 2)
        return 0;
    bool counter = strcmp(function, "delta") != 0;
    result = in[n - 1] - in[0];
    for (size_t i = 1; counter && i < n; i++) {
        if (in[i] < in[i - 1])
            result += in[i - 1];
    }
    double sampled = (double)(at[n - 1] - at[0]) / 1000, average = sampled / (double)(n - 1);
    double to_start = (double)(at[0] - start) / 1000, to_end = (double)(end - at[n - 1]) / 1000;
    if (to_start >= average * 1.1)
        to_start = average / 2;
    if (counter && result > 0 && in[0] >= 0)
        to_start = fmin(to_start, sampled * (in[0] / result));
    if (to_end >= average * 1.1)
        to_end = average / 2;
    double factor = (sampled + to_start + to_end) / sampled;
    if (strcmp(function, "rate") == 0)
        factor /= (double)(end - start) / 1000;
    return result * factor;
}

static void as_the_naive_way(void **state) {
    (void)state;
    static const char *const functions[] = {
        "rate", "increase", "delta", "max_over_time", "min_over_time", "count_over_time", "last_over_time"};
    struct rand rand;
    rand_init(&rand, 3);
    size_t compared = 0;
    for (int round = 0; round < 300; round++) {
        fake_storage_clear(storage);
        size_t m = series("m_total", NULL), count = 1 + rand_below(&rand, SAMPLES - 1);
        int64_t times[SAMPLES], time = 0;
        double v[SAMPLES], value = 0;
        bool regular = rand_below(&rand, 2) == 0;
        for (size_t i = 0; i < count; i++) {
            time += regular ? 15000 : 1 + (int64_t)rand_below(&rand, 40000);
            value =
                rand_below(&rand, 20) == 0 ? (double)rand_below(&rand, 5) : value + rand_double(&rand) * 10;
            times[i] = time;
            v[i] = rand_below(&rand, 40) == 0 ? NAN : value;
            fake_storage_add(storage, m, time, v[i]);
        }
        const char *function = functions[(size_t)round % 7];
        int64_t range_s = 1 + (int64_t)rand_below(&rand, 600), step = 1 + (int64_t)rand_below(&rand, 60000);
        int64_t offset_s = (int64_t)rand_below(&rand, 100) - 50, start = (int64_t)rand_below(&rand, 100000);
        size_t steps = 1 + rand_below(&rand, 100);
        char text[128];
        snprintf(text, sizeof text, "%s(m_total[%llds] offset %s%llds)", function, (long long)range_s,
                 offset_s < 0 ? "-" : "", (long long)(offset_s < 0 ? -offset_s : offset_s));
        struct query_result *result = run_at(text, start, start + (int64_t)(steps - 1) * step, step);
        if (result == NULL)
            fail_msg("%s: %s", text, last_error.text);
        assert_int_equal(result->steps, steps);
        size_t n = 0;
        for (size_t i = 0; i < steps; i++) {
            int64_t end = start + (int64_t)i * step - offset_s * 1000;
            bool present;
            double want = naive(function, times, v, count, end - range_s * 1000, end, &present);
            bool have = result->series_count > 0 && bits_get(result->series[0].present, i);
            assert_int_equal(have, present);
            if (have && !same(result->series[0].values[n++], want))
                fail_msg("%s at step %zu: %.17g, expected %.17g", text, i, result->series[0].values[n - 1],
                         want);
            compared += have;
        }
        query_result_free(result);
    }
    assert_true(compared > 5000);
}

static int values_order(const void *a, const void *b) {
    const double *x = a, *y = b;
    return value_before(*x, *y) ? -1 : value_before(*y, *x);
}

static void quantiles_without_sorting(void **state) {
    (void)state;
    static const double specials[] = {NAN, INFINITY, -INFINITY, 1, 2};
    static const double places[] = {-1, 0, 0.01, 0.5, 0.9, 0.999, 1, 2, NAN};
    double values[300], sorted[300], copy[300];
    struct rand rand;
    rand_init(&rand, 5);
    for (int round = 0; round < 3000; round++) {
        size_t count = 1 + rand_below(&rand, round % 3 == 0 ? 300 : 12);
        uint64_t distinct = 1 + rand_below(&rand, round % 2 == 0 ? 8 : 1000000);
        uint64_t special = round % 5 == 0 ? 3 : 1000;
        for (size_t i = 0; i < count; i++)
            values[i] = rand_below(&rand, special) == 0 ? specials[rand_below(&rand, 5)]
                                                        : (double)rand_below(&rand, distinct) + 1;
        memcpy(sorted, values, count * sizeof *values);
        qsort(sorted, count, sizeof *sorted, values_order);
        for (size_t k = 0; k < sizeof places / sizeof places[0]; k++) {
            memcpy(copy, values, count * sizeof *values);
            double have = quantile_of_values(places[k], copy, count);
            double want = quantile_of_sorted(places[k], sorted, count);
            if (!same(have, want))
                fail_msg("round %d: quantile %g of %zu values is %.17g, not %.17g", round, places[k], count,
                         have, want);
        }
    }
}

/* Sorting knows no sign of zero. */
static bool same_in_order(const char *text, double a, double b) {
    return same(a, b) || (a == 0 && b == 0 && strncmp(text, "quantile", 8) == 0);
}

/* Where windows overlap much is carried over from one to the next (query/window.h). An instant query reads
 * its one window sample by sample: what a range query gives has to be the same, bit for bit. */
enum series_kind {
    KIND_DECIMALS,
    KIND_INTEGERS,
    KIND_COUNTER,
    KIND_FALLING,
    KIND_LEVELS,
    KIND_MAGNITUDES,
    KIND_ZEROS,
    KIND_SPECIAL,
    KIND_COUNT
};

static double kind_value(struct rand *rand, enum series_kind kind, double before) {
    static const double specials[] = {NAN, INFINITY, -INFINITY, 0.0, -0.0, 1e308, -1e308, 1, 2};
    static const double magnitudes[] = {1e100, 1, -1e100, 1e-5, 1e16, -1e16, 0.1, 3};
    switch (kind) {
    case KIND_DECIMALS:
        return before + ((double)rand_below(rand, 2001) - 1000) / 100;
    case KIND_INTEGERS:
        return (double)rand_below(rand, 1000) - 300;
    case KIND_COUNTER:
        return rand_below(rand, 20) == 0 ? rand_double(rand) : before + rand_double(rand) * 10;
    case KIND_FALLING:
        return before - rand_double(rand);
    case KIND_LEVELS:
        return rand_below(rand, 12) == 0 ? rand_double(rand) * 100 : before;
    case KIND_MAGNITUDES:
        return rand_below(rand, 3) == 0 ? magnitudes[rand_below(rand, 8)] : rand_double(rand);
    case KIND_ZEROS:
        return rand_below(rand, 2) == 0 ? 0.0 : -0.0;
    default:
        return rand_below(rand, 4) == 0 ? specials[rand_below(rand, 9)] : rand_double(rand);
    }
}

static void carried_over_windows(void **state) {
    (void)state;
    static const char *const calls[] = {
        "rate(m_total[%llds])",
        "increase(m_total[%llds])",
        "max_over_time(m_total[%llds])",
        "min_over_time(m_total[%llds])",
        "ts_of_max_over_time(m_total[%llds])",
        "ts_of_min_over_time(m_total[%llds])",
        "sum_over_time(m_total[%llds])",
        "avg_over_time(m_total[%llds])",
        "stddev_over_time(m_total[%llds])",
        "stdvar_over_time(m_total[%llds])",
        "deriv(m_total[%llds])",
        "predict_linear(m_total[%llds], 100)",
        "predict_linear(m_total[%llds] offset -1m, 100)",
        "quantile_over_time(0.9, m_total[%llds])",
        "quantile_over_time(time() / 1000 %% 1.2, m_total[%llds])",
        "mad_over_time(m_total[%llds])",
        "changes(m_total[%llds])",
        "resets(m_total[%llds])",
        "avg_over_time((m_total * 1.1)[%llds:7s])",
    };
    struct rand rand;
    rand_init(&rand, 11);
    size_t compared = 0;
    for (int round = 0; round < 8 * KIND_COUNT; round++) {
        fake_storage_clear(storage);
        size_t m = series("m_total", NULL), spacing = rand_below(&rand, 3);
        int64_t time = 0;
        double v = 50;
        for (size_t i = 0; i < SAMPLES; i++) {
            bool is_even = spacing == 0 || (spacing == 1 && rand_below(&rand, 30) > 0);
            time += is_even ? 5000 : 1 + (int64_t)rand_below(&rand, 10000);
            time += rand_below(&rand, 100) == 0 ? 200000 : 0;
            v = kind_value(&rand, (enum series_kind)(round % KIND_COUNT), v);
            fake_storage_add(storage, m, time, v);
        }
        int64_t step = 5000 * (1 + (int64_t)rand_below(&rand, 3)), start = (int64_t)rand_below(&rand, 200000);
        int64_t range_s = step / 1000 * (8 + (int64_t)rand_below(&rand, 40));
        for (size_t k = 0; k < sizeof calls / sizeof calls[0]; k++) {
            char text[128];
            snprintf(text, sizeof text, calls[k], (long long)range_s);
            struct query_result *range = run_at(text, start, start + 60 * step, step);
            assert_non_null(range);
            size_t at = 0;
            for (size_t i = 0; range->series_count > 0 && i < range->steps; i++) {
                struct query_result *instant = run(text, start + (int64_t)i * step);
                bool present = bits_get(range->series[0].present, i);
                assert_int_equal(present, instant->series_count);
                if (present &&
                    !same_in_order(text, range->series[0].values[at], instant->series[0].values[0]))
                    fail_msg("round %d, %s at %lld: %.17g, alone %.17g", round, text,
                             (long long)(start + (int64_t)i * step), range->series[0].values[at],
                             instant->series[0].values[0]);
                at += present;
                query_result_free(instant);
            }
            compared += at;
            query_result_free(range);
        }
    }
    assert_true(compared > 50000);
}

/* A range query is an instant query at every step, for all kinds of nodes; and results come sorted. */
static void range_is_many_instants(void **state) {
    (void)state;
    static const char *const texts[] = {
        "a",
        "a + 1",
        "sum by (x) (a)",
        "avg(a)",
        "a / b",
        "a > on (x) b",
        "topk(2, a)",
        "bottomk by (x) (1, a)",
        "rate(a[40s])",
        "a and b",
        "a or b",
        "a unless b",
        "max_over_time(a[1m:7s])",
        "clamp(a, 2, time() / 10)",
        "scalar(a{x=\"1\"}) + time()",
        "absent(a{x=\"1\"})",
        "a @ 50",
        "sum_over_time(a[30s] @ end())",
        "stddev(a)",
        "quantile(0.7, a)",
        "quantile by (y) (time() / 200, a)",
        "count without (x) (a)",
        "label_replace(a, \"z\", \"$1\", \"x\", \"(.)\")",
        "timestamp(a)",
        "histogram_quantile(0.5, label_replace(a, \"le\", \"$1\", \"x\", \"(.)\"))",
        "minute(a * 100)",
        "a * on (x) group_left () b",
        "b * on (x) group_right () a",
        "-a",
        "round(a, 0.3)",
        "vector(time()) - 5",
    };
    struct rand rand;
    rand_init(&rand, 5);
    for (int i = 0; i < 4; i++) {
        char x[4] = {(char)('1' + i), 0};
        size_t a = series("a", "x", x, "y", i % 2 == 0 ? "p" : "q", NULL), b = series("b", "x", x, NULL);
        for (int t = 0; t < 40; t++) {
            if (rand_below(&rand, 3) > 0)
                fake_storage_add(storage, a, t * 5000, (double)rand_below(&rand, 10));
            if (rand_below(&rand, 3) > 0)
                fake_storage_add(storage, b, t * 5000,
                                 rand_below(&rand, 8) == 0 ? bits_double(STALE_NAN_BITS)
                                                           : (double)rand_below(&rand, 10));
        }
    }
    for (size_t k = 0; k < sizeof texts / sizeof texts[0]; k++) {
        struct query_result *range = run_at(texts[k], 0, 210000, 3000);
        if (range == NULL)
            fail_msg("%s: %s", texts[k], last_error.text);
        size_t *at = calloc(range->series_count + 1, sizeof *at);
        assert_non_null(at);
        for (size_t i = 1; i < range->series_count; i++)
            assert_true(labels_compare(range->series[i - 1].labels, range->series[i - 1].label_count,
                                       range->series[i].labels, range->series[i].label_count) < 0);
        for (size_t step = 0; step < range->steps; step++) {
            int64_t time = (int64_t)step * 3000;
            size_t there = 0;
            if (strstr(texts[k], "end()") != NULL)
                break;
            struct query_result *instant = run(texts[k], time);
            for (size_t i = 0; i < range->series_count; i++) {
                if (!bits_get(range->series[i].present, step))
                    continue;
                double have = range->series[i].values[at[i]++];
                there++;
                bool found = instant->type == QUERY_VALUE_SCALAR && same(have, instant->scalar);
                for (size_t j = 0; j < instant->series_count; j++)
                    found =
                        found || (labels_equal(range->series[i].labels, range->series[i].label_count,
                                               instant->series[j].labels, instant->series[j].label_count) &&
                                  same(have, instant->series[j].values[0]));
                if (!found)
                    fail_msg("%s at %lld: the range has %g for %s", texts[k], (long long)time, have,
                             labels_of(range, i));
            }
            if (there != (instant->type == QUERY_VALUE_SCALAR ? 1 : instant->series_count))
                fail_msg("%s at %lld: %zu series in the range, %zu alone", texts[k], (long long)time, there,
                         instant->series_count);
            query_result_free(instant);
        }
        free(at);
        query_result_free(range);
    }
}

static void any_allocation_may_fail(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++) {
        char x[4] = {(char)('1' + i), 0};
        size_t m = series("m_total", "x", x, "le", x, NULL);
        for (int t = 0; t < 10; t++)
            fake_storage_add(storage, m, t * 1000, t);
    }
    static const char text[] =
        "sum by (x) (rate(m_total{x=~\"1|2.*\"}[5s])) / on (x) max by (x) (m_total) or topk(1, abs(m_total)) "
        "or histogram_quantile(0.5, m_total) or label_replace(m_total, \"a\", \"$1\", \"x\", \"(.)\")";
    for (uint64_t n = 1;; n++) {
        mem_fault_set(n, 0);
        struct query_result *result = run_at(text, 1000, 9000, 1000);
        uint64_t calls = mem_fault_set(0, 0);
        if (result != NULL) {
            assert_true(calls < n && n > 20);
            query_result_free(result);
            break;
        }
        assert_int_equal(last_error.type, QUERY_ERROR_INTERNAL);
    }
}

/* An answer that damage on disk may have touched says so. */
static void damage(void **state) {
    (void)state;
    fake_storage_add(storage, series("m", "a", "b", NULL), 0, 1);
    struct query_result *result = run("m", 0);
    assert_int_equal(result->warning_count, 0);
    query_result_free(result);
    fake_storage_damage(storage, 2);
    static const char *const queries[] = {"m", "sum(rate(m[5m]))", "m[5m]", "absent(none)"};
    for (size_t i = 0; i < 4; i++) {
        result = run(queries[i], 0);
        assert_int_equal(result->warning_count, 1);
        assert_string_equal(result->warnings[0], "samples may be missing, damaged on disk: block 7");
        query_result_free(result);
    }
    fake_storage_damage(storage, 0);
}

/* So many series that other cores help: each has to be what it is alone, in the order of the storage. */
static void many_series(void **state) {
    (void)state;
    static const char *const queries[] = {"m_total{%s}",
                                          "rate(m_total{%s}[1m])",
                                          "max_over_time(m_total{%s}[2m] offset 10s)",
                                          "mad_over_time(m_total{%s}[1m])",
                                          "quantile_over_time(0.7, m_total{%s}[1m])",
                                          "m_total{%s} smoothed",
                                          "deriv(m_total{%s}[1m] @ 300)"};
    char text[160], matcher[40];
    for (int i = 0; i < 400; i++) {
        snprintf(matcher, sizeof matcher, "%04d", i);
        size_t one = series("m_total", "i", matcher, NULL);
        for (int k = i % 7; k < 60; k += 1 + i % 3)
            fake_storage_add(storage, one, k * 10000, (k * 37 + i * 11) % 101);
    }
    for (size_t q = 0; q < sizeof queries / sizeof queries[0]; q++) {
        snprintf(text, sizeof text, queries[q], "");
        struct query_result *all = run_at(text, 0, 600000, 15000);
        assert_non_null(all);
        assert_int_equal(all->series_count, 400);
        for (size_t i = 0; i < all->series_count; i += 13) {
            struct result_series *have = &all->series[i];
            snprintf(matcher, sizeof matcher, "i=\"%04zu\"", i);
            snprintf(text, sizeof text, queries[q], matcher);
            struct query_result *alone = run_at(text, 0, 600000, 15000);
            assert_non_null(alone);
            assert_int_equal(alone->series_count, 1);
            struct result_series *want = &alone->series[0];
            assert_true(labels_equal(have->labels, have->label_count, want->labels, want->label_count));
            assert_int_equal(have->count, want->count);
            assert_memory_equal(have->present, want->present, bits_words(all->steps) * 8);
            for (size_t k = 0; k < want->count; k++)
                assert_true(same(have->values[k], want->values[k]));
            query_result_free(alone);
        }
        struct query_stats stats;
        query_result_stats(all, &stats);
        assert_true(stats.samples_total > 0 && stats.samples_read > 0);
        query_result_free(all);
    }
    fails("double_exponential_smoothing(m_total[1m], 2, 0.5)", 300000,
          "invalid smoothing factor. Expected: 0 < sf < 1, got: 2.000000");
    atomic_bool canceled = true;
    struct query_request request = {
        .text = slice_str("m_total"), .lookback_ms = 300000, .timeout_ms = 1000, .canceled = &canceled};
    struct query_result *result;
    assert_int_equal(query_run(storage, &limits, clock_system(), &request, &last_error, &result),
                     STATUS_CANCELLED);
}

/* totalQueryableSamples: a window counts at each step; what is evaluated once, at every step; a subquery by
 * its points. */
static void samples_are_counted_by_step(void **state) {
    (void)state;
    static const struct {
        const char *text;
        uint64_t at_step[4]; /* 0, 20, 40, 60 s */
        uint64_t read[4];    /* samples at 0, 10, 20, 30, 40 and a stale marker at 45 s, each once */
    } cases[] = {
        {"m", {1, 1, 1, 0}, {1, 2, 2, 1}},
        {"m + m offset 20s", {1, 2, 2, 1}, {1, 3, 4, 3}},
        {"sum_over_time(m[30s])", {1, 3, 3, 1}, {1, 2, 2, 1}},
        {"sum_over_time(m[30s] offset 10s)", {0, 2, 3, 2}, {0, 2, 2, 2}},
        {"avg_over_time(m[30s])", {1, 3, 3, 1}, {1, 2, 2, 1}},
        {"rate(m[10s])", {1, 1, 1, 0}, {1, 2, 2, 1}},
        {"m @ 20", {1, 1, 1, 1}, {3, 0, 0, 0}},
        {"count_over_time(m[30s] @ 20) + 1", {3, 3, 3, 3}, {3, 0, 0, 0}},
        {"predict_linear(m[30s] @ 20, 1)", {3, 3, 3, 3}, {3, 0, 0, 0}},
        {"scalar(m @ 20) + time()", {1, 1, 1, 1}, {3, 0, 0, 0}},
        {"sum_over_time(m[20s:5s])", {1, 4, 4, 0}, {1, 2, 2, 1}},
        {"sum_over_time(m[20s:5s] offset 20s)", {0, 1, 4, 4}, {0, 1, 2, 2}},
        {"sum_over_time(sum_over_time(m[1m])[20s:5s])", {1, 4, 4, 4}, {1, 2, 2, 1}},
        {"vector(1)", {0, 0, 0, 0}, {0, 0, 0, 0}},
    };
    size_t m = series("m", NULL);
    for (int i = 0; i < 5; i++)
        fake_storage_add(storage, m, i * 10000, 1);
    fake_storage_add(storage, m, 45000, bits_double(STALE_NAN_BITS));
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        struct query_request request = {.text = slice_str(cases[k].text),
                                        .range = true,
                                        .end_ms = 79999,
                                        .step_ms = 20000,
                                        .lookback_ms = 300000,
                                        .timeout_ms = 600000,
                                        .step_stats = true};
        struct query_result *result;
        struct query_stats stats;
        assert_int_equal(query_run(storage, &limits, clock_system(), &request, &last_error, &result), 0);
        query_result_stats(result, &stats);
        assert_int_equal(stats.step_count, 4);
        uint64_t total = 0, read = 0;
        for (size_t i = 0; i < 4; i++) {
            if (stats.read_at_step[i] != cases[k].read[i])
                fail_msg("%s: %llu samples read for step %zu, expected %llu", cases[k].text,
                         (unsigned long long)stats.read_at_step[i], i, (unsigned long long)cases[k].read[i]);
            read += stats.read_at_step[i];
            if (stats.samples_at_step[i] != cases[k].at_step[i])
                fail_msg("%s: %llu samples at step %zu, expected %llu", cases[k].text,
                         (unsigned long long)stats.samples_at_step[i], i,
                         (unsigned long long)cases[k].at_step[i]);
            total += cases[k].at_step[i];
        }
        assert_int_equal(stats.samples_total, total);
        assert_int_equal(stats.samples_read, read);
        query_result_free(result);
        request.step_stats = false;
        assert_int_equal(query_run(storage, &limits, clock_system(), &request, &last_error, &result), 0);
        query_result_stats(result, &stats);
        assert_null(stats.samples_at_step);
        assert_int_equal(stats.samples_total, total);
        query_result_free(result);
    }
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(literals),
        TEST(windows),
        TEST(stale_ends_a_series),
        TEST(compensated_sums),
        TEST(counters_that_reset),
        TEST(quantiles),
        TEST(top),
        TEST(matching),
        TEST(names_go),
        TEST(aggregations),
        TEST(not_yet),
        TEST(bounds),
        TEST(counter_note),
        TEST(subqueries),
        TEST(as_the_naive_way),
        TEST(quantiles_without_sorting),
        TEST(carried_over_windows),
        TEST(range_is_many_instants),
        TEST(any_allocation_may_fail),
        TEST(depth_and_labels),
        TEST(slow_windows_time_out),
        TEST(random_expressions),
        TEST(many_series),
        TEST(damage),
        TEST(samples_are_counted_by_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
