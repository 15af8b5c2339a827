/* test_float_text.c: the digits against std::to_chars (which the fast paths go around) and against printf
 * with rising precision (which knows neither); the forms against known texts and strtod. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/batch.h"
#include "base/bytes.h"
#include "base/float_text.h"
#include "base/rand.h"
#include "tests/unit/base/float_oracle.h"

#define VALUES_DEFAULT 3000000 /* TIDALITE_FLOAT_VALUES raises it */

struct forms {
    double v;
    const char *fixed, *json, *go;
};

static void assert_form(size_t (*form)(double, char *), double v, const char *expected) {
    char text[FLOAT_TEXT_BYTES_MAX + 1];
    memset(text, '#', sizeof text);
    size_t len = form(v, text);
    assert_true(len < FLOAT_TEXT_BYTES_MAX);
    assert_int_equal(text[FLOAT_TEXT_BYTES_MAX], '#');
    text[len] = '\0';
    assert_string_equal(text, expected);
}

static void test_forms(void **state) {
    (void)state;
    static const struct forms table[] = {
        {0.0, "0", "0", "0"},
        {-0.0, "-0", "-0", "-0"},
        {__builtin_inf(), "+Inf", "+Inf", "+Inf"},
        {-__builtin_inf(), "-Inf", "-Inf", "-Inf"},
        {1, "1", "1", "1"},
        {-1.5, "-1.5", "-1.5", "-1.5"},
        {10, "10", "10", "10"},
        {100000, "100000", "100000", "100000"},
        {123456, "123456", "123456", "123456"},
        {999999.5, "999999.5", "999999.5", "999999.5"},
        {1000000, "1000000", "1000000", "1e+06"},
        {1234567, "1234567", "1234567", "1.234567e+06"},
        {123.45, "123.45", "123.45", "123.45"},
        {0.1, "0.1", "0.1", "0.1"},
        {0.1 + 0.2, "0.30000000000000004", "0.30000000000000004", "0.30000000000000004"},
        {0.0001, "0.0001", "0.0001", "0.0001"},
        {0.00001, "0.00001", "0.00001", "1e-05"},
        {0.000001, "0.000001", "0.000001", "1e-06"},
        {0.00000123, "0.00000123", "0.00000123", "1.23e-06"},
        {1e-7, "0.0000001", "1e-07", "1e-07"},
        {-1e-7, "-0.0000001", "-1e-07", "-1e-07"},
        {9.99e-7, "0.000000999", "9.99e-07", "9.99e-07"},
        {1.5e250, NULL, "1.5e+250", "1.5e+250"},
        {1e20, "100000000000000000000", "100000000000000000000", "1e+20"},
        {999999999999999900000.0, "999999999999999900000", "999999999999999900000", "9.999999999999999e+20"},
        {1e21, "1000000000000000000000", "1e+21", "1e+21"},
        {-1.25e21, "-1250000000000000000000", "-1.25e+21", "-1.25e+21"},
        {9007199254740991.0, "9007199254740991", "9007199254740991", "9.007199254740991e+15"},
        {9007199254740992.0, "9007199254740992", "9007199254740992", "9.007199254740992e+15"},
        {9223372036854775808.0, "9223372036854776000", "9223372036854776000", "9.223372036854776e+18"},
        {1.7976931348623157e308, NULL, "1.7976931348623157e+308", "1.7976931348623157e+308"},
        {2.2250738585072014e-308, NULL, "2.2250738585072014e-308", "2.2250738585072014e-308"},
        {5e-324, NULL, "5e-324", "5e-324"},
        /* Exactly between two neighbours, and read back by rounding to even. */
        {4.468743327960138e16, "44687433279601380", "44687433279601380", "4.468743327960138e+16"},
        {9e22, "90000000000000000000000", "9e+22", "9e+22"},
        {5e-21, "0.000000000000000000005", "5e-21", "5e-21"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (table[i].fixed != NULL)
            assert_form(float_text_fixed, table[i].v, table[i].fixed);
        assert_form(float_text_json, table[i].v, table[i].json);
        assert_form(float_text_go, table[i].v, table[i].go);
    }
    static const uint64_t nans[] = {STALE_NAN_BITS, NORMAL_NAN_BITS, UINT64_C(0xffffffffffffffff)};
    for (size_t i = 0; i < 3; i++) {
        assert_form(float_text_fixed, bits_double(nans[i]), "NaN");
        assert_form(float_text_json, bits_double(nans[i]), "NaN");
        assert_form(float_text_go, bits_double(nans[i]), "NaN");
    }
}

/* The longest texts there are fit, and what is written too much stays inside the room as well. */
static void test_longest(void **state) {
    (void)state;
    static const double longest[] = {-5e-324, -2.2250738585072014e-308, -1.7976931348623157e308,
                                     -4.9406564584124654e-324, -1.2345678901234567e-307};
    for (size_t i = 0; i < sizeof longest / sizeof longest[0]; i++) {
        char text[FLOAT_TEXT_BYTES_MAX + 1];
        text[FLOAT_TEXT_BYTES_MAX] = '#';
        size_t len = float_text_fixed(longest[i], text);
        assert_int_equal(text[FLOAT_TEXT_BYTES_MAX], '#');
        text[len] = '\0';
        assert_null(strchr(text, 'e'));
        assert_true(strtod(text, NULL) == longest[i]);
    }
}

/* Values as they come: any bits, integers, decimals of a few digits, sums of such, and the borders of each.
 */
static double value_make(struct rand *rand) {
    static const double tens[] = {1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e9, 1e12, 1e15, 1e18, 1e21, 1e22};
    double ten = tens[rand_below(rand, sizeof tens / sizeof tens[0])];
    switch (rand_below(rand, 8)) {
    case 0:
        return (double)(rand_u64(rand) >> rand_below(rand, 64));
    case 1:
        return (double)(rand_u64(rand) >> (11 + rand_below(rand, 40))) / ten;
    case 2:
        return (double)rand_below(rand, 1000000) / ten;
    case 3:
        return (double)rand_below(rand, 1000) * 0.1 + (double)rand_below(rand, 1000) * 0.001;
    case 4: /* a decimal and its neighbours */
        return bits_double(double_bits((double)(1 + rand_below(rand, 100000000)) / ten) +
                           rand_below(rand, 3) - 1);
    case 5: /* powers of two and their neighbours */
        return bits_double((rand_below(rand, 2047) << 52) + rand_below(rand, 2));
    case 6: /* 15 to 17 digits */
        return (double)(100000000000000 + rand_below(rand, 99900000000000000)) / ten;
    default:
        return bits_double(rand_u64(rand) & ~(UINT64_C(1) << 63));
    }
}

static void test_digits_to_chars(void **state) {
    (void)state;
    const char *more = getenv("TIDALITE_FLOAT_VALUES");
    long count = more != NULL ? strtol(more, NULL, 10) : VALUES_DEFAULT;
    struct rand rand;
    rand_init(&rand, 1);
    for (long i = 0; i < count; i++) {
        double v = value_make(&rand);
        if (!(v > 0) || v > 1.7976931348623157e308)
            continue;
        char digits[17], text[FLOAT_SCIENTIFIC_BYTES_MAX], ours[64];
        int point;
        size_t len = float_digits(v, digits, &point);
        assert_in_range(len, 1, 17);
        size_t at = 0;
        ours[at++] = digits[0];
        if (len > 1)
            ours[at++] = '.';
        memcpy(ours + at, digits + 1, len - 1);
        at += len - 1;
        at += (size_t)snprintf(ours + at, sizeof ours - at, "e%+03d", point - 1);
        size_t text_len = float_scientific(v, text);
        if (at != text_len || memcmp(ours, text, at) != 0)
            fail_msg("%.17g: %.*s instead of %.*s", v, (int)at, ours, (int)text_len, text);
    }
}

/* The fixed form made from the oracle's digits. */
static size_t fixed_expected(double v, char *out) {
    char text[FLOAT_SCIENTIFIC_BYTES_MAX], digits[20];
    size_t len = float_scientific(v, text), count = 0, at = 0;
    for (; text[at] != 'e'; at++)
        if (text[at] != '.')
            digits[count++] = text[at];
    text[len] = 0;
    int point = (int)strtol(text + at + 1, NULL, 10) + 1;
    size_t n = 0;
    for (int i = point < 1 ? point - 1 : 0; i < (int)count || i < point; i++) {
        if (i == point)
            out[n++] = '.';
        out[n++] = i < 0 || i >= (int)count ? '0' : digits[i];
    }
    return n;
}

static void test_fixed_to_chars(void **state) {
    (void)state;
    struct rand rand;
    rand_init(&rand, 5);
    for (int i = 0; i < 1000000; i++) {
        double v = value_make(&rand);
        if (!(v > 0) || v > 1.7976931348623157e308)
            continue;
        if (i % 3 == 0) /* around those of three decimals */
            v = bits_double(
                double_bits((double)rand_below(&rand, UINT64_C(1) << rand_below(&rand, 54)) / 1000) +
                rand_below(&rand, 3));
        if (v == 0)
            continue;
        char ours[FLOAT_TEXT_BYTES_MAX], expected[FLOAT_TEXT_BYTES_MAX];
        size_t len = float_text_fixed(v, ours), expected_len = fixed_expected(v, expected);
        if (len != expected_len || memcmp(ours, expected, len) != 0)
            fail_msg("%.17g: %.*s instead of %.*s", v, (int)len, ours, (int)expected_len, expected);
    }
}

static void test_digits_printf(void **state) {
    (void)state;
    struct rand rand;
    rand_init(&rand, 2);
    for (int i = 0; i < 60000; i++) {
        double v = value_make(&rand);
        /* At a power of two the nearest decimal of n digits may be no longer the same double while another
         * is. */
        if (!(v > 0) || v > 1.7976931348623157e308 || (double_bits(v) << 12) == 0)
            continue;
        char expected[40];
        for (int precision = 0; precision < 17; precision++) {
            snprintf(expected, sizeof expected, "%.*e", precision, v);
            if (strtod(expected, NULL) == v)
                break;
        }
        char digits[17];
        int point;
        size_t len = float_digits(v, digits, &point), at = 0;
        char *e = strchr(expected, 'e');
        for (const char *p = expected; p < e; p++)
            if (*p != '.')
                assert_true(at < len && digits[at++] == *p);
        assert_int_equal(at, len);
        assert_int_equal(point - 1, strtol(e + 1, NULL, 10));
    }
}

static void test_forms_read_back(void **state) {
    (void)state;
    struct rand rand;
    rand_init(&rand, 3);
    size_t (*const forms[])(double, char *) = {float_text_fixed, float_text_json, float_text_go};
    for (int i = 0; i < 300000; i++) {
        double v = value_make(&rand);
        if (v != v || v > 1.7976931348623157e308)
            continue;
        if (i % 2 == 0)
            v = -v;
        for (size_t form = 0; form < 3; form++) {
            char text[FLOAT_TEXT_BYTES_MAX];
            text[forms[form](v, text)] = '\0';
            if (double_bits(strtod(text, NULL)) != double_bits(v))
                fail_msg("%.17g: %s", v, text);
            double size = v < 0 ? -v : v;
            bool exponent = form == 1   ? size != 0 && (size < 1e-6 || size >= 1e21)
                            : form == 2 ? size != 0 && (size < 1e-4 || size >= 1e6)
                                        : false;
            assert_int_equal(strchr(text, 'e') != NULL, exponent);
        }
    }
}

static void test_time(void **state) {
    (void)state;
    static const struct {
        long long ms;
        const char *text;
    } table[] = {
        {0, "0"},
        {1, "0.001"},
        {-1, "-0.001"},
        {12000, "12"},
        {12005, "12.005"},
        {1500, "1.500"},
        {1700000000123, "1700000000.123"},
        {-1500, "-1.500"},
        {-2000, "-2"},
        {9999999999999, "9999999999.999"},
        {INT64_MAX, "9223372036854775.807"},
        {INT64_MIN, "-9223372036854775.808"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        char text[25];
        size_t len = time_text_json(table[i].ms, text);
        assert_true(len <= 24);
        text[len] = '\0';
        assert_string_equal(text, table[i].text);
    }
    struct rand rand;
    rand_init(&rand, 4);
    for (int i = 0; i < 200000; i++) {
        long long ms = (long long)(rand_u64(&rand) >> rand_below(&rand, 64)) % 1000000000000000;
        char text[25], expected[40];
        text[time_text_json(ms, text)] = '\0';
        long long size = ms < 0 ? -ms : ms;
        snprintf(expected, sizeof expected, size % 1000 != 0 ? "%s%lld.%03lld" : "%s%lld", ms < 0 ? "-" : "",
                 size / 1000, size % 1000);
        assert_string_equal(text, expected);
    }
}

/* ---- The powers of ten
 * ------------------------------------------------------------------------------------------
 */

/* Whole numbers of up to 1,300 bits, least limb first. */
#define LIMBS 44
struct whole {
    uint32_t limbs[LIMBS];
};

static void whole_mul(struct whole *w, uint32_t factor) {
    uint64_t carry = 0;
    for (size_t i = 0; i < LIMBS; i++) {
        carry += (uint64_t)w->limbs[i] * factor;
        w->limbs[i] = (uint32_t)carry;
        carry >>= 32;
    }
    assert_int_equal(carry, 0);
}

static int whole_compare(const struct whole *a, const struct whole *b) {
    for (size_t i = LIMBS; i-- > 0;) {
        if (a->limbs[i] != b->limbs[i])
            return a->limbs[i] < b->limbs[i] ? -1 : 1;
    }
    return 0;
}

static struct whole whole_of(unsigned __int128 v, size_t shift) {
    struct whole w = {{0}};
    for (size_t bit = 0; bit < 128; bit++) {
        if ((v >> bit & 1) != 0) {
            assert_true((bit + shift) / 32 < LIMBS);
            w.limbs[(bit + shift) / 32] |= UINT32_C(1) << (bit + shift) % 32;
        }
    }
    return w;
}

/* (g - 1) * 2^r <= 10^e < g * 2^r, with whole numbers on both sides, and g of 126 bits. */
static void test_powers(void **state) {
    (void)state;
    static const uint64_t rows[][2] = {
#define POWER(high, low) {high, low},
#include "base/float_powers.def"
#undef POWER
    };
    assert_int_equal(sizeof rows / sizeof rows[0], 324 + 292 + 1);
    for (int e = -292; e <= 324; e++) {
        unsigned __int128 g = (unsigned __int128)rows[e + 292][0] << 63 | rows[e + 292][1];
        assert_true(g >> 125 == 1 && rows[e + 292][1] >> 63 == 0);
        int r = (int)((e * INT64_C(913124641741)) >> 38) - 125; /* floor(log2(10^e)) - 125 */
        struct whole low = whole_of(g - 1, r > 0 ? (size_t)r : 0), high = whole_of(g, r > 0 ? (size_t)r : 0),
                     ten = whole_of(1, r < 0 ? (size_t)-r : 0);
        for (int i = 0; i < (e < 0 ? -e : e); i++) {
            if (e > 0) {
                whole_mul(&ten, 10);
            } else {
                whole_mul(&low, 10);
                whole_mul(&high, 10);
            }
        }
        assert_true(whole_compare(&low, &ten) <= 0);
        assert_true(whole_compare(&ten, &high) < 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),           cmocka_unit_test(test_longest),
        cmocka_unit_test(test_digits_to_chars), cmocka_unit_test(test_digits_printf),
        cmocka_unit_test(test_forms_read_back), cmocka_unit_test(test_time),
        cmocka_unit_test(test_powers),          cmocka_unit_test(test_fixed_to_chars),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
