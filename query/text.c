/* text.c: numbers, durations and times as text. */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <strings.h>

#include "base/alloc.h"
#include "query/parse.h"

bool duration_text_parse(struct slice text, int64_t *ms_out) {
    static const struct {
        char unit[3];
        int64_t ms;
    } units[] = {{"y", INT64_C(31536000000)},
                 {"w", 604800000},
                 {"d", 86400000},
                 {"h", 3600000},
                 {"m", 60000},
                 {"s", 1000},
                 {"ms", 1}};
    int64_t total = 0;
    size_t at = 0, unit_from = 0;
    if (text.len == 0)
        return false;
    if (text.len == 1 && text.data[0] == '0') {
        *ms_out = 0;
        return true;
    }
    while (at < text.len) {
        int64_t number = 0;
        size_t start = at;
        for (; at < text.len && text.data[at] >= '0' && text.data[at] <= '9'; at++) {
            if (__builtin_mul_overflow(number, 10, &number) ||
                __builtin_add_overflow(number, text.data[at] - '0', &number))
                return false;
        }
        if (at == start)
            return false;
        size_t unit_len = 0;
        while (at + unit_len < text.len && text.data[at + unit_len] >= 'a' && text.data[at + unit_len] <= 'z')
            unit_len++;
        size_t unit = unit_from;
        const size_t unit_count = sizeof units / sizeof units[0];
        while (unit < unit_count &&
               !slice_equal(slice_str(units[unit].unit), slice_of(text.data + at, unit_len)))
            unit++;
        if (unit == unit_count)
            return false;
        at += unit_len;
        unit_from = unit + 1;
        int64_t ms;
        if (__builtin_mul_overflow(number, units[unit].ms, &ms) || __builtin_add_overflow(total, ms, &total))
            return false;
    }
    if (total > INT64_MAX / 1000000) /* Prometheus holds nanoseconds */
        return false;
    *ms_out = total;
    return true;
}

/* Copies without underscores to a NUL-terminated buffer. */
static bool number_copy(struct slice text, char *out, size_t size) {
    size_t n = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] == '_')
            continue;
        if (n + 1 >= size)
            return false;
        out[n++] = (char)text.data[i];
    }
    out[n] = 0;
    return n > 0;
}

bool number_text_parse(struct slice text, double *out) {
    char small[128], *copy = small, *end = NULL;
    bool ok = false;
    if (text.len >= sizeof small) {
        copy = mem_alloc(text.len + 1);
        if (copy == NULL)
            return false;
    }
    if (!number_copy(text, copy, text.len >= sizeof small ? text.len + 1 : sizeof small))
        goto out;
    bool digits = true;
    for (const char *p = copy; *p != 0; p++)
        digits = digits && *p >= '0' && *p <= '9';
    if (copy[0] == '0' && (copy[1] | 32) == 'x') {
        errno = 0;
        unsigned long long hex = strtoull(copy + 2, &end, 16);
        ok = *end == 0 && end > copy + 2 && errno == 0 && hex <= INT64_MAX;
        if (ok)
            *out = (double)hex;
        goto out;
    }
    if (digits) { /* octal where it can be */
        errno = 0;
        unsigned long long whole = strtoull(copy, &end, copy[0] == '0' ? 8 : 10);
        if (*end == 0 && errno == 0 && whole <= INT64_MAX) {
            *out = (double)whole;
            ok = true;
            goto out;
        }
    }
    if (copy[0] != '.' && !(copy[0] >= '0' && copy[0] <= '9') && strcasecmp(copy, "inf") != 0 &&
        strcasecmp(copy, "nan") != 0)
        goto out;
    double value = strtod(copy, &end);
    if (*end == 0 && end > copy) {
        *out = value;
        ok = true;
    }
out:
    if (copy != small)
        mem_free(copy);
    return ok;
}

/* A decimal float with sign, no hexadecimal, no "nan". */
static bool float_parse(struct slice text, double *out) {
    char copy[128], *end = NULL;
    if (text.len == 0 || text.len >= sizeof copy)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (strchr("0123456789+-.eE", text.data[i]) == NULL || text.data[i] == 0)
            return false;
        copy[i] = (char)text.data[i];
    }
    copy[text.len] = 0;
    double value = strtod(copy, &end);
    if (*end != 0 || end == copy || !isfinite(value))
        return false;
    *out = value;
    return true;
}

bool query_duration_parse(struct slice text, int64_t *ms_out) {
    double seconds;
    if (float_parse(text, &seconds)) {
        double ns = seconds * 1e9;
        if (ns > (double)INT64_MAX || ns < (double)INT64_MIN || ns >= 9223372036854775808.0)
            return false;
        *ms_out = (int64_t)ns / 1000000;
        return true;
    }
    return duration_text_parse(text, ms_out);
}

static bool digits_read(const uint8_t *p, size_t count, int *out) {
    int value = 0;
    for (size_t i = 0; i < count; i++) {
        if (p[i] < '0' || p[i] > '9')
            return false;
        value = value * 10 + (p[i] - '0');
    }
    *out = value;
    return true;
}

/* Days since 1970-01-01 of a date in the proleptic Gregorian calendar. */
static int64_t days_from_civil(int64_t year, int month, int day) {
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    int64_t year_of_era = year - era * 400;
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + day_of_era - 719468;
}

/* RFC 3339: 2006-01-02T15:04:05[.fraction](Z|±hh:mm). */
static bool rfc3339_parse(struct slice text, int64_t *ms_out) {
    static const int month_days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    const uint8_t *p = text.data;
    int year, month, day, hour, minute, second;
    if (text.len < 20 || !digits_read(p, 4, &year) || p[4] != '-' || !digits_read(p + 5, 2, &month) ||
        p[7] != '-' || !digits_read(p + 8, 2, &day) || p[10] != 'T' || !digits_read(p + 11, 2, &hour) ||
        p[13] != ':' || !digits_read(p + 14, 2, &minute) || p[16] != ':' || !digits_read(p + 17, 2, &second))
        return false;
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    if (month < 1 || month > 12 || day < 1 || day > month_days[month - 1] ||
        (month == 2 && day == 29 && !leap) || hour > 23 || minute > 59 || second > 59)
        return false;
    size_t at = 19;
    int64_t ns = 0;
    if (p[at] == '.' || p[at] == ',') {
        size_t digits = 0;
        for (at++; at < text.len && p[at] >= '0' && p[at] <= '9'; at++, digits++) {
            if (digits < 9)
                ns = ns * 10 + (p[at] - '0');
        }
        if (digits == 0)
            return false;
        for (; digits < 9; digits++)
            ns *= 10;
    }
    int64_t zone_s = 0;
    if (at + 1 == text.len && p[at] == 'Z') {
        at++;
    } else if (at + 6 == text.len && (p[at] == '+' || p[at] == '-') && p[at + 3] == ':') {
        int zone_hour, zone_minute;
        if (!digits_read(p + at + 1, 2, &zone_hour) || !digits_read(p + at + 4, 2, &zone_minute) ||
            zone_hour > 23 || zone_minute > 59)
            return false;
        zone_s = (zone_hour * 60 + zone_minute) * 60;
        if (p[at] == '-')
            zone_s = -zone_s;
    } else {
        return false;
    }
    int64_t seconds = days_from_civil(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - zone_s;
    *ms_out = seconds * 1000 + ns / 1000000;
    return true;
}

/* The two boundary times Prometheus' clients send for "everything": kept inside what arithmetic on times can
 * bear. */
#define TIME_MIN_MS INT64_C(-9223372036854775)
#define TIME_MAX_MS INT64_C(9223372036854775)

bool query_time_parse(struct slice text, int64_t *ms_out) {
    double seconds;
    if (float_parse(text, &seconds)) {
        double whole;
        double fraction = round(modf(seconds, &whole) * 1000) / 1000;
        double ms = whole * 1000 + round(fraction * 1000);
        *ms_out = ms > (double)TIME_MAX_MS   ? TIME_MAX_MS
                  : ms < (double)TIME_MIN_MS ? TIME_MIN_MS
                                             : (int64_t)ms;
        return true;
    }
    if (slice_equal(text, slice_str("-292273086-05-16T16:47:06Z"))) {
        *ms_out = TIME_MIN_MS;
        return true;
    }
    if (slice_equal(text, slice_str("292277025-08-18T07:12:54.999999999Z"))) {
        *ms_out = TIME_MAX_MS;
        return true;
    }
    return rfc3339_parse(text, ms_out);
}
