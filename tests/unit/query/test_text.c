/* Numbers, durations and times as text. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "query/parse.h"

static void numbers(void **state) {
    (void)state;
    static const struct {
        const char *text;
        double value;
    } good[] = {{"010", 8},
                {"08", 8},
                {"09.5", 9.5},
                {"0x1F", 31},
                {"0", 0},
                {"1_000", 1000},
                {"1e3", 1000},
                {".5", 0.5},
                {"5.", 5},
                {"1e+3", 1e3},
                {"9223372036854775807", 9223372036854775807.0},
                {"9223372036854775808", 9223372036854775808.0},
                {"Inf", INFINITY},
                {"1e999", INFINITY}};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        double value = -1;
        assert_true(number_text_parse(slice_str(good[i].text), &value));
        if (value != good[i].value)
            fail_msg("%s: %.17g", good[i].text, value);
    }
    static const char *const bad[] = {"", "x", "0x", "1e", "1.2.3", "0x1p3", "infinity"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        double value;
        assert_false(number_text_parse(slice_str(bad[i]), &value));
    }
}

static void durations(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t ms;
    } good[] = {{"15s", 15000}, {"1h30m", 5400000}, {"1y2w3d4h5m6s7ms", 32845506007 + 0},
                {"0s", 0},      {"0", 0},           {"15", 15000},
                {"1.5", 1500},  {"0.0015", 1},      {"1e3", 1000000},
                {"-5", -5000},  {"100ms", 100}};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        int64_t ms = -1;
        if (!query_duration_parse(slice_str(good[i].text), &ms))
            fail_msg("%s is refused", good[i].text);
        if (i == 2)
            assert_int_equal(ms, INT64_C(31536000000) + 2 * INT64_C(604800000) + 3 * INT64_C(86400000) +
                                     4 * 3600000 + 5 * 60000 + 6000 + 7);
        else
            assert_int_equal(ms, good[i].ms);
    }
    static const char *const bad[] = {"",
                                      "s",
                                      "1.5h",
                                      "1m1h",
                                      "1s1s",
                                      "5 m",
                                      "-5m",
                                      "1e400",
                                      "9223372037",
                                      "300y",
                                      "NaN",
                                      "Inf",
                                      "99999999999999999999s",
                                      "1ms1s",
                                      "0x10"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        int64_t ms;
        if (query_duration_parse(slice_str(bad[i]), &ms))
            fail_msg("%s is taken as %lld", bad[i], (long long)ms);
    }
}

static void times(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t ms;
    } good[] = {{"0", 0},
                {"1435781430.781", 1435781430781},
                {"123.123", 123123},
                {"-1.5", -1500},
                {"1e3", 1000000},
                {"1970-01-01T00:00:00Z", 0},
                {"2015-06-03T13:21:58.555Z", 1433337718555},
                {"2015-06-03T14:21:58.555555555+01:00", 1433337718555},
                {"2000-02-29T00:00:00Z", 951782400000},
                {"1969-12-31T23:59:59.5Z", -500},
                {"1e18", 9223372036854775}, /* beyond the calendar: as far as times go, and no error */
                {"-1e300", -9223372036854775},
                {"-292273086-05-16T16:47:06Z", -9223372036854775},
                {"292277025-08-18T07:12:54.999999999Z", 9223372036854775}};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        int64_t ms = 1;
        if (!query_time_parse(slice_str(good[i].text), &ms) || ms != good[i].ms)
            fail_msg("%s: %lld", good[i].text, (long long)ms);
    }
    static const char *const bad[] = {"",
                                      "foo",
                                      "30s",
                                      "2015-06-03",
                                      "2015-13-01T00:00:00Z",
                                      "2001-02-29T00:00:00Z",
                                      "2015-06-03T24:00:00Z",
                                      "2015-06-03T13:21:58",
                                      "1e400",
                                      "nan",
                                      "2015-06-03T13:21:58.Z"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        int64_t ms;
        if (query_time_parse(slice_str(bad[i]), &ms))
            fail_msg("%s is taken", bad[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(numbers), cmocka_unit_test(durations),
                                       cmocka_unit_test(times)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
