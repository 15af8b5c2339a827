/* float_text.c: digits and a point placed as Go's strconv places them. */
#include "base/float_text.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define INTEGER_MAX 9007199254740992.0 /* 2^53: integers below it are their own shortest digits */

static char *put_unsigned(char *out, uint64_t v) {
    char reversed[20];
    size_t len = 0;
    do {
        reversed[len++] = (char)('0' + v % 10);
        v /= 10;
    } while (v != 0);
    while (len > 0)
        *out++ = reversed[--len];
    return out;
}

/* NaN, infinities, zeros and the sign: true if that was all. */
static bool put_special(double *v, char **out) {
    const char *text = NULL;
    if (isnan(*v))
        text = "NaN";
    else if (isinf(*v))
        text = *v > 0 ? "+Inf" : "-Inf";
    else if (*v == 0)
        text = signbit(*v) ? "-0" : "0";
    if (text != NULL) {
        size_t len = strlen(text);
        memcpy(*out, text, len);
        *out += len;
        return true;
    }
    if (*v < 0) {
        *(*out)++ = '-';
        *v = -*v;
    }
    return false;
}

static char *put_fixed(char *out, const char *digits, size_t count, int point) {
    if (point <= 0) {
        *out++ = '0';
        *out++ = '.';
        memset(out, '0', (size_t)-point);
        out += -point;
        memcpy(out, digits, count);
        return out + count;
    }
    size_t whole = (size_t)point;
    if (whole >= count) {
        memcpy(out, digits, count);
        memset(out + count, '0', whole - count);
        return out + whole;
    }
    memcpy(out, digits, whole);
    out[whole] = '.';
    memcpy(out + whole + 1, digits + whole, count - whole);
    return out + count + 1;
}

static char *put_exponent(char *out, const char *digits, size_t count, int point) {
    *out++ = digits[0];
    if (count > 1) {
        *out++ = '.';
        memcpy(out, digits + 1, count - 1);
        out += count - 1;
    }
    int exponent = point - 1;
    *out++ = 'e';
    *out++ = exponent < 0 ? '-' : '+';
    unsigned magnitude = (unsigned)(exponent < 0 ? -exponent : exponent);
    if (magnitude < 10)
        *out++ = '0';
    return put_unsigned(out, magnitude);
}

/* Fixed form, but with an exponent where the decimal exponent is below `low` or at least `high`. */
static size_t put_float(double v, int low, int high, char *out) {
    char *p = out;
    if (put_special(&v, &p))
        return (size_t)(p - out);
    if (v < INTEGER_MAX && v == (double)(uint64_t)v && high > 16)
        return (size_t)(put_unsigned(p, (uint64_t)v) - out);
    char digits[24];
    int point;
    size_t count = float_digits(v, digits, &point);
    if (point - 1 < low || point - 1 >= high)
        p = put_exponent(p, digits, count, point);
    else
        p = put_fixed(p, digits, count, point);
    return (size_t)(p - out);
}

size_t float_text_fixed(double v, char *out) {
    return put_float(v, -1000, 1000, out);
}

size_t float_text_json(double v, char *out) {
    return put_float(v, -6, 21, out);
}

size_t float_text_go(double v, char *out) {
    return put_float(v, -4, 21, out);
}

size_t time_text_json(long long time_ms, char *out) {
    char *p = out;
    uint64_t magnitude = time_ms < 0 ? -(uint64_t)time_ms : (uint64_t)time_ms;
    if (time_ms < 0)
        *p++ = '-';
    p = put_unsigned(p, magnitude / 1000);
    unsigned fraction = (unsigned)(magnitude % 1000);
    if (fraction != 0) {
        *p++ = '.';
        *p++ = (char)('0' + fraction / 100);
        *p++ = (char)('0' + fraction / 10 % 10);
        *p++ = (char)('0' + fraction % 10);
    }
    return (size_t)(p - out);
}
