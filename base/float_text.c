/* float_text.c: digits of a double, and where Go puts the point.
 *
 * Most metric values are integers or decimals of a few digits. Those do not need the shortest-digits
 * algorithm: if an integer m of at most 15 digits divided by a power of ten that a double holds exactly (10^0
 * … 10^22) gives v, then m's digits are the answer. The division is rounded correctly, so m / 10^k reads back
 * as v; and two decimals of at most 15 digits are never the same double, so no other and no shorter one does.
 */
#include "base/float_text.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/bytes.h"
#include "base/float_text_private.h"

#define DIGITS_MAX     17
#define DIGITS_ROOM    24 /* digits are copied in one fixed-size move */
#define DOUBLE_INT_MAX 0x1p53

static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
#define POWER_MAX 22

static const uint64_t integer_powers[] = {1u,
                                          10u,
                                          100u,
                                          1000u,
                                          10000u,
                                          100000u,
                                          1000000u,
                                          10000000u,
                                          100000000u,
                                          1000000000u,
                                          10000000000u,
                                          100000000000u,
                                          1000000000000u,
                                          10000000000000u,
                                          100000000000000u,
                                          1000000000000000u,
                                          10000000000000000u,
                                          100000000000000000u,
                                          1000000000000000000u,
                                          10000000000000000000u};

static size_t decimal_len(uint64_t v) {
    /* 1233 / 4096 is log10(2) closely enough for 64 bits. */
    size_t guess = (64 - (size_t)__builtin_clzll(v | 1)) * 1233 >> 12;
    return guess + (v >= integer_powers[guess]) + (v == 0);
}

/* Writes v in decimal, decimal_len(v) characters. */
static void decimal_write(uint64_t v, char *out, size_t len) {
    static const char pairs[] =
        "00010203040506070809101112131415161718192021222324252627282930313233343536373839"
        "40414243444546474849505152535455565758596061626364656667686970717273747576777879"
        "8081828384858687888990919293949596979899";
    char *p = out + len;
    while (v >= 100) {
        p -= 2;
        memcpy(p, pairs + v % 100 * 2, 2);
        v /= 100;
    }
    if (v >= 10)
        memcpy(p - 2, pairs + v * 2, 2);
    else
        p[-1] = (char)('0' + v);
}

/* The integer m < 10^15 and the k with v == m / 10^k, if there is one among those tried. */
static bool decimal_find(double v, uint64_t *m_out, int *k_out) {
    if (v >= 1e15 || v < 1e-7)
        return false;
    /* Three decimals first (percentages, milliseconds), then as many as 15 digits hold. */
    int k = 3;
    double scaled = v * 1e3;
    if (scaled < 1e15) {
        uint64_t m = (uint64_t)(scaled + 0.5);
        if ((double)m / 1e3 == v) {
            *m_out = m;
            *k_out = k;
            return true;
        }
    }
    int exponent = (int)(double_bits(v) >> 52) - 1023;    /* 2^exponent <= v < 2^(exponent + 1) */
    k = 14 - (int)((int64_t)(exponent + 1) * 1233 >> 12); /* so that v * 10^k < 10^15; may be one too few */
    if (k < 0)
        k = 0;
    if (k > POWER_MAX)
        k = POWER_MAX;
    scaled = v * powers[k];
    if (scaled >= 1e15)
        return false;
    uint64_t m = (uint64_t)(scaled + 0.5);
    if ((double)m / powers[k] != v)
        return false;
    *m_out = m;
    *k_out = k;
    return true;
}

/* As float_digits, but `digits` has DIGITS_ROOM bytes. */
static size_t digits_find(double v, char *digits, int *point) {
    uint64_t m = 0;
    int k = 0;
    bool found = v < DOUBLE_INT_MAX && (double)(m = (uint64_t)v) == v;
    if (!found)
        found = decimal_find(v, &m, &k);
    if (found) {
        size_t len = decimal_len(m);
        decimal_write(m, digits, len);
        *point = (int)len - k;
        while (len > 1 && digits[len - 1] == '0')
            len--;
        return len;
    }

    char text[FLOAT_SCIENTIFIC_BYTES_MAX];
    size_t text_len = float_scientific(v, text);
    digits[0] = text[0];
    size_t at = 1, len = 1;
    if (text[at] == '.')
        for (at++; text[at] != 'e'; at++)
            digits[len++] = text[at];
    bool negative = text[at + 1] == '-';
    int exponent = 0;
    for (at += 2; at < text_len; at++)
        exponent = exponent * 10 + (text[at] - '0');
    *point = (negative ? -exponent : exponent) + 1;
    return len;
}

size_t float_digits(double v, char *digits, int *point) {
    char room[DIGITS_ROOM];
    size_t len = digits_find(v, room, point);
    memcpy(digits, room, len);
    return len;
}

/* Moves of a fixed size are a few instructions, where a call of memcpy with the true length costs as much as
 * the digits: FLOAT_TEXT_BYTES_MAX has room for what is written too much. */
static char *fixed_place(char *p, const char *digits, size_t len, int point) {
    if (point <= 0) {
        *p++ = '0';
        *p++ = '.';
        memset(p, '0', (size_t)-point);
        p += -point;
        memcpy(p, digits, DIGITS_ROOM);
        return p + len;
    }
    memcpy(p, digits, DIGITS_ROOM);
    size_t whole = (size_t)point;
    if (whole >= len) {
        memset(p + len, '0', whole - len);
        return p + whole;
    }
    p[whole] = '.';
    memcpy(p + whole + 1, digits + whole, DIGITS_MAX);
    return p + len + 1;
}

static char *exponent_place(char *p, const char *digits, size_t len, int point) {
    *p++ = digits[0];
    if (len > 1) {
        *p++ = '.';
        memcpy(p, digits + 1, DIGITS_MAX);
        p += len - 1;
    }
    int exponent = point - 1;
    *p++ = 'e';
    *p++ = exponent < 0 ? '-' : '+';
    unsigned magnitude = (unsigned)(exponent < 0 ? -exponent : exponent);
    if (magnitude >= 100)
        *p++ = (char)('0' + magnitude / 100);
    *p++ = (char)('0' + magnitude / 10 % 10);
    *p++ = (char)('0' + magnitude % 10);
    return p;
}

/* The exponent form is taken where the decimal exponent is below `low` or at least `high`. */
static size_t print(double v, int low, int high, char *out) {
    char *p = out;
    if (!isfinite(v)) {
        memcpy(out, isnan(v) ? "NaN" : v > 0 ? "+Inf" : "-Inf", 4);
        return isnan(v) ? 3 : 4;
    }
    if (signbit(v)) {
        *p++ = '-';
        v = -v;
    }
    if (v == 0) {
        *p++ = '0';
        return (size_t)(p - out);
    }
    char digits[DIGITS_ROOM + DIGITS_MAX] = {0};
    int point;
    size_t len = digits_find(v, digits, &point);
    p = point - 1 < low || point - 1 >= high ? exponent_place(p, digits, len, point)
                                             : fixed_place(p, digits, len, point);
    return (size_t)(p - out);
}

size_t float_text_fixed(double v, char *out) {
    return print(v, -1000, 1000, out);
}

size_t float_text_json(double v, char *out) {
    return print(v, -6, 21, out);
}

size_t float_text_go(double v, char *out) {
    return print(v, -4, 6, out);
}

size_t time_text_json(long long time_ms, char *out) {
    char *p = out;
    uint64_t ms = (uint64_t)time_ms;
    if (time_ms < 0) {
        *p++ = '-';
        ms = -ms;
    }
    uint64_t seconds = ms / 1000, fraction = ms % 1000;
    size_t len = decimal_len(seconds);
    decimal_write(seconds, p, len);
    p += len;
    if (fraction != 0) {
        *p++ = '.';
        *p++ = (char)('0' + fraction / 100);
        *p++ = (char)('0' + fraction / 10 % 10);
        *p++ = (char)('0' + fraction % 10);
    }
    return (size_t)(p - out);
}
