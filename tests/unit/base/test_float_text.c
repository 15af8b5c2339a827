/* test_float_text.c: Prometheus' number text: known vectors, and for random doubles that the text reads back
 * to the same bits and that no shorter digits would. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/float_text.h"
#include "base/rand.h"

typedef size_t (*text_fn)(double, char *);

static void expect(text_fn print, double v, const char *text) {
    char out[FLOAT_TEXT_BYTES_MAX + 1];
    size_t len = print(v, out);
    assert_true(len <= FLOAT_TEXT_BYTES_MAX);
    out[len] = '\0';
    assert_string_equal(out, text);
}

static void test_vectors(void **state) {
    (void)state;
    expect(float_text_json, 1e21, "1e+21");
    expect(float_text_json, 1e20, "100000000000000000000");
    expect(float_text_json, 0.000001, "0.000001");
    expect(float_text_json, 1e-7, "1e-07");
    expect(float_text_json, -1.5e-7, "-1.5e-07");
    expect(float_text_json, 9223372036854775808.0, "9223372036854776000");
    expect(float_text_json, 1.7976931348623157e308, "1.7976931348623157e+308");
    expect(float_text_json, 5e-324, "5e-324");
    expect(float_text_json, 0.1, "0.1");
    expect(float_text_json, 123.45, "123.45");
    expect(float_text_json, -0.0, "-0");
    expect(float_text_json, 0, "0");
    expect(float_text_json, 100, "100");
    expect(float_text_json, 9007199254740993.0, "9007199254740992");
    expect(float_text_json, NAN, "NaN");
    expect(float_text_json, INFINITY, "+Inf");
    expect(float_text_json, -INFINITY, "-Inf");
    expect(float_text_fixed, 1e-7, "0.0000001");
    expect(float_text_fixed, 1e22, "10000000000000000000000");
    expect(float_text_fixed, 0.30000000000000004, "0.30000000000000004");
    expect(float_text_go, 0.0001, "0.0001");
    expect(float_text_go, 0.00001, "1e-05");
    expect(float_text_go, 1e21, "1e+21");
    expect(float_text_go, 123456789, "1.23456789e+08");
}

static void test_times(void **state) {
    (void)state;
    static const struct {
        long long ms;
        const char *text;
    } rows[] = {{0, "0"},
                {1500, "1.500"},
                {12005, "12.005"},
                {-1, "-0.001"},
                {-2000, "-2"},
                {999, "0.999"},
                {1700000000000, "1700000000"},
                {INT64_MAX, "9223372036854775.807"},
                {INT64_MIN, "-9223372036854775.808"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char out[32];
        out[time_text_json(rows[i].ms, out)] = '\0';
        assert_string_equal(out, rows[i].text);
    }
}

static double double_make(struct rand *rand) {
    switch (rand_below(rand, 4)) {
    case 0:
        return bits_double(rand_u64(rand));
    case 1:
        return ((double)rand_below(rand, 2000000) - 1000000) / 100;
    case 2:
        return (double)(int64_t)rand_u64(rand);
    default:
        return (double)rand_below(rand, 1u << 20);
    }
}

static void test_round_trip(void **state) {
    (void)state;
    struct rand rand;
    rand_init(&rand, 5);
    for (int i = 0; i < 300000; i++) {
        double v = double_make(&rand);
        if (isnan(v) || isinf(v))
            continue;
        static const text_fn prints[] = {float_text_json, float_text_fixed, float_text_go};
        for (size_t k = 0; k < 3; k++) {
            char out[FLOAT_TEXT_BYTES_MAX + 1];
            size_t len = prints[k](v, out);
            assert_true(len <= FLOAT_TEXT_BYTES_MAX);
            out[len] = '\0';
            assert_true(double_bits(strtod(out, NULL)) == double_bits(v));
        }
        if (v == 0)
            continue;
        char digits[24], shorter[40];
        int point;
        size_t count = float_digits(fabs(v), digits, &point);
        assert_in_range(count, 1, 17);
        if (count > 1) {
            snprintf(shorter, sizeof shorter, "%.*e", (int)count - 2, fabs(v));
            assert_true(strtod(shorter, NULL) != fabs(v));
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_vectors), cmocka_unit_test(test_times),
                                       cmocka_unit_test(test_round_trip)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
