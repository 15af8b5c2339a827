#include "unit.h"

#include "base/bytes.h"
#include "base/metrics.h"
#include "server/exposition.h"

static const struct label extra[] = {{{(const uint8_t *)"job", 3}, {(const uint8_t *)"j", 1}}};

static void check_value(const struct exposition *exposition, size_t index, double value) {
    assert_int_equal(exposition->batch.samples[index].value_bits, double_bits(value));
    assert_int_equal(exposition->batch.samples[index].time_ms, 1234);
    assert_int_equal(exposition->batch.series[index].sample_first, index);
    assert_int_equal(exposition->batch.series[index].sample_count, 1);
}

static void test_lines(void **state) {
    (void)state;
    struct arena arena;
    struct exposition exposition;
    struct error_detail detail = {{0}};
    static const char text[] = "# HELP a_total Something.\n# TYPE a_total counter\na_total 1\n\n"
                               "b{x=\"1\",y=\"\"} -2.5e-3 1700000000000\n"
                               "  c{ x=\"a\\\"b\\\\c\\nd\" , } +Inf\n"
                               "d{} NaN";
    arena_init(&arena, 0, 0);
    exposition_init(&exposition, &arena, 1234, extra, 1);
    assert_int_equal(exposition_parse(&exposition, slice_str(text), &detail), STATUS_OK);
    assert_int_equal(exposition.batch.series_count, 4);
    assert_int_equal(exposition.batch.sample_count, 4);
    check_value(&exposition, 0, 1);
    check_value(&exposition, 1, -2.5e-3);
    check_value(&exposition, 2, __builtin_inf());
    assert_int_equal(exposition.batch.samples[3].value_bits, NORMAL_NAN_BITS);
    static const char *const names[] = {"a_total", "b", "c", "d"};
    for (size_t i = 0; i < 4; i++) {
        struct slice labels = exposition.batch.series[i].labels;
        assert_true(label_bytes_well_formed(labels));
        assert_slice(label_bytes_get(labels, slice_str("__name__")), names[i]);
        assert_slice(label_bytes_get(labels, slice_str("job")), "j");
    }
    assert_slice(label_bytes_get(exposition.batch.series[1].labels, slice_str("x")), "1");
    assert_slice(label_bytes_get(exposition.batch.series[2].labels, slice_str("x")), "a\"b\\c\nd");
    arena_release(&arena);
}

static void test_bad_lines(void **state) {
    (void)state;
    static const char *const bad[] = {"{x=\"1\"} 1", "a",          "a ",          "a x",
                                      "a{x=1} 1",    "a{x=\"1} 1", "a{x=\"1\" 1", "a{x=\"1\" y=\"2\"} 1",
                                      "a{x} 1",      "a{x=\"\\",   "1.5",         "a{x=\"1\"}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct arena arena;
        struct exposition exposition;
        struct error_detail detail = {{0}};
        char text[64] = "ok 1\n";
        strcat(text, bad[i]);
        arena_init(&arena, 0, 0);
        exposition_init(&exposition, &arena, 1234, extra, 1);
        assert_int_equal(exposition_parse(&exposition, slice_str(text), &detail), STATUS_BAD_INPUT);
        assert_non_null(strstr(detail.text, "line 2"));
        assert_int_equal(exposition.batch.series_count, 1);
        arena_release(&arena);
    }
}

/* The text it is for. */
static void test_own_metrics(void **state) {
    (void)state;
    struct arena arena;
    struct exposition exposition;
    struct error_detail detail = {{0}};
    struct buf text;
    size_t lines = 0;
    buf_init(&text);
    arena_init(&arena, 0, 0);
    metric_observe_ns(METRIC_query_seconds, 5000000);
    metrics_print(&text);
    assert_false(text.failed);
    for (size_t i = 0; i < text.len; i++)
        lines += text.data[i] == '\n' && i + 1 < text.len && text.data[i + 1] != '#';
    exposition_init(&exposition, &arena, 1234, extra, 1);
    assert_int_equal(exposition_parse(&exposition, buf_slice(&text), &detail), STATUS_OK);
    assert_true(exposition.batch.series_count > 50);
    assert_int_equal(exposition.batch.series_count, lines);
    arena_release(&arena);
    buf_release(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_lines), cmocka_unit_test(test_bad_lines),
                                       cmocka_unit_test(test_own_metrics)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
