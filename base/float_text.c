/* float_text.c: digits of a double, and where Go puts the point.
 *
 * Short ones are found at once (short_place). For all others: Raffaello Giulietti, "The Schubfach way to
 * render doubles" (2020): of the multiples of 10^k, where 10^k is the largest power of ten not wider than the
 * interval that reads back as v, and of 10^(k+1), the one inside that interval that is nearest to v. Three
 * products with a rounded-up 126-bit 10^-k, each of which is exact enough to decide by (section 9 there),
 * place v and the interval's ends among them. */
#include "base/float_text.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/bytes.h"

#define DOUBLE_INT_MAX 0x1p53

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

/* Eight digits of v < 10^8 as eight bytes from 0 to 9, the first in the lowest: halves, then quarters, then
 * digits side by side, each division by a multiplication. */
static inline uint64_t digits8(uint32_t v) {
    uint64_t fours = v / 10000 | (uint64_t)(v % 10000) << 32;
    uint64_t hundreds = (fours * 10486 >> 20) & UINT64_C(0x0000007f0000007f);
    uint64_t twos = hundreds | (fours - 100 * hundreds) << 16;
    uint64_t tens = (twos * 103 >> 10) & UINT64_C(0x000f000f000f000f);
    return tens | (twos - 10 * tens) << 8;
}

/* v < 10^16 as 16 such bytes. */
static unsigned __int128 digits16(uint64_t v) {
    return (unsigned __int128)digits8((uint32_t)(v % 100000000)) << 64 | digits8((uint32_t)(v / 100000000));
}

/* v = 0.d1d2d3… * 10^point. The digits stay in registers until they are stored where they belong: to store
 * them and load them again at another place costs as much as finding them. */
struct digits {
    unsigned __int128 front; /* the first 16 as text, the first in the lowest byte, '0' behind the last */
    uint8_t last;            /* the 17th */
    unsigned count;          /* without zeros at the end */
    int point;
};

#define ZEROS16 ((unsigned __int128)UINT64_C(0x3030303030303030) << 64 | UINT64_C(0x3030303030303030))

/* From bytes of 0 to 9. */
static struct digits digits_of(unsigned __int128 front, uint8_t last, int point) {
    uint64_t upper = (uint64_t)(front >> 64), lower = (uint64_t)front;
    unsigned count =
        upper != 0 ? 16 - (unsigned)__builtin_clzll(upper) / 8 : 8 - (unsigned)__builtin_clzll(lower | 1) / 8;
    return (struct digits){front + ZEROS16, (uint8_t)('0' + last), last != 0 ? 17 : count, point};
}

/* ---- Schubfach
 * --------------------------------------------------------------------------------------------------
 */

#define POWER_MIN (-292)
static const struct {
    uint64_t high, low; /* 63 bits each */
} powers[] = {
#define POWER(high, low) {high, low},
#include "base/float_powers.def"
#undef POWER
};

static int log10_pow2(int e) { /* floor(log10(2^e)) */
    return (int)((e * INT64_C(661971961083)) >> 41);
}

static int log10_three_quarters_pow2(int e) { /* floor(log10(3/4 * 2^e)) */
    return (int)((e * INT64_C(661971961083) - INT64_C(274743187321)) >> 41);
}

static int log2_pow10(int e) { /* floor(log2(10^e)) */
    return (int)((e * INT64_C(913124641741)) >> 38);
}

static uint64_t mul_high(uint64_t a, uint64_t b) {
    return (uint64_t)((unsigned __int128)a * b >> 64);
}

/* The product of the power and c, without its lower 127 bits; the last bit says whether any of those is set.
 */
static uint64_t product(uint64_t high, uint64_t low, uint64_t c) {
    const uint64_t mask = INT64_MAX;
    uint64_t z = (high * c >> 1) + mul_high(low, c);
    uint64_t w = mul_high(high, c) + (z >> 63);
    return w | ((z & mask) + mask) >> 63;
}

/* The shortest decimal *d * 10^*k (d may end in zeros) that reads back as finite v > 0; among several the
 * nearest. */
static uint64_t shortest_find(double v, int *k_out) {
    uint64_t bits = double_bits(v), fraction = bits & ((UINT64_C(1) << 52) - 1), c = fraction;
    int exponent = (int)(bits >> 52), q = -1074;
    if (exponent != 0) {
        c |= UINT64_C(1) << 52;
        q = exponent - 1075;
    }
    uint64_t odd = c & 1, middle = c << 2, upper = middle + 2, lower;
    int k;
    if (fraction != 0 || exponent <= 1) {
        lower = middle - 2;
        k = log10_pow2(q);
    } else { /* a power of two: its neighbour below is nearer */
        lower = middle - 1;
        k = log10_three_quarters_pow2(q);
    }
    int shift = q + log2_pow10(-k) + 2;
    uint64_t high = powers[-k - POWER_MIN].high, low = powers[-k - POWER_MIN].low;
    uint64_t v_at = product(high, low, middle << shift), lower_at = product(high, low, lower << shift) + odd,
             upper_at = product(high, low, upper << shift) - odd;
    /* Everything is in quarters of 10^k now. */
    uint64_t s = v_at >> 2;
    *k_out = k;
    /* Selected by arithmetic: which it is differs from value to value, and a branch would be guessed wrong
     * every other time. */
    uint64_t ten = s / 10 * 10;
    unsigned ten_in = lower_at <= ten << 2, next_ten_in = (ten + 10) << 2 <= upper_at;
    if ((s >= 10) & (ten_in ^ next_ten_in))
        return ten + 10 * next_ten_in;
    unsigned s_in = lower_at <= s << 2, next_in = (s + 1) << 2 <= upper_at;
    unsigned nearer_next = (v_at & 3) + (s & 1) > 2;
    return s + ((s_in ^ next_in) ? next_in : nearer_next);
}

static inline struct digits digits_find(double v) {
    int k;
    uint64_t d = shortest_find(v, &k);
    while (d < 10000000000000000) { /* once for most, more often for subnormal ones */
        d *= 10;
        k--;
    }
    unsigned __int128 rest = digits16(d % 10000000000000000);
    return digits_of(rest << 8 | d / 10000000000000000, (uint8_t)(rest >> 120), k + 17);
}

static void store16(char *p, unsigned __int128 bytes) {
    memcpy(p, &bytes, 16);
}

size_t float_digits(double v, char *out, int *point) {
    struct digits digits = digits_find(v);
    char room[17];
    store16(room, digits.front);
    room[16] = (char)digits.last;
    memcpy(out, room, digits.count);
    *point = digits.point;
    return digits.count;
}

/* Everything below stores whole registers: FLOAT_TEXT_BYTES_MAX and FLOAT_JSON_BYTES_MAX have room for what
 * is too much. */

static char *all_place(char *p, const struct digits *digits) {
    store16(p, digits->front);
    p[16] = (char)digits->last;
    return p + digits->count;
}

/* A point and what stands behind the first `whole` digits, 1 <= whole < count. */
static char *behind_place(char *p, const struct digits *digits, unsigned whole) {
    *p = '.';
    uint64_t low = (uint64_t)digits->front, high = (uint64_t)(digits->front >> 64), last = digits->last;
    if (whole < 8) {
        uint64_t parts[2] = {low >> 8 * whole | high << (64 - 8 * whole),
                             high >> 8 * whole | last << (64 - 8 * whole)};
        memcpy(p + 1, parts, 16);
    } else {
        store16(p + 1, (digits->front >> 8 * (whole - 1)) >> 8 | (unsigned __int128)last << 8 * (16 - whole));
    }
    return p + 1 + digits->count - whole;
}

static char *zeros_place(char *p, size_t count) {
    if (count <= 16)
        store16(p, ZEROS16);
    else
        memset(p, '0', count);
    return p + count;
}

static char *fixed_place(char *p, const struct digits *digits) {
    if (digits->point <= 0) {
        *p++ = '0';
        *p++ = '.';
        return all_place(zeros_place(p, (size_t)-digits->point), digits);
    }
    unsigned whole = (unsigned)digits->point;
    char *end = all_place(p, digits);
    if (whole < digits->count)
        return behind_place(p + whole, digits, whole);
    return zeros_place(end, whole - digits->count);
}

static char *exponent_place(char *p, const struct digits *digits) {
    *p++ = (char)digits->front;
    if (digits->count > 1)
        p = behind_place(p, digits, 1);
    int exponent = digits->point - 1;
    *p++ = 'e';
    *p++ = exponent < 0 ? '-' : '+';
    unsigned magnitude = (unsigned)(exponent < 0 ? -exponent : exponent);
    if (magnitude >= 100)
        *p++ = (char)('0' + magnitude / 100);
    *p++ = (char)('0' + magnitude / 10 % 10);
    *p++ = (char)('0' + magnitude % 10);
    return p;
}

/* m < 10^16, all its digits. */
static char *integer_place(char *p, uint64_t m) {
    size_t len = decimal_len(m);
    if (m < 100000000) {
        uint64_t text = (digits8((uint32_t)m) >> 8 * (8 - len)) + (uint64_t)ZEROS16;
        memcpy(p, &text, 8);
    } else {
        store16(p, (digits16(m) >> 8 * (16 - len)) + ZEROS16);
    }
    return p + len;
}

/* Most values of metrics are integers or have up to three decimals (percentages, milliseconds); their digits
 * are found with less. If m / 1000, which is rounded correctly, is v, and m has at most 15 digits, then m's
 * digits read back as v, and no others of at most 15 do: two such decimals are never the same double. NULL:
 * it is another value. */
static inline char *short_place(char *p, double v) {
    int64_t whole = (int64_t)v; /* signed: what the processor converts in one step */
    if ((double)whole == v)
        return integer_place(p, (uint64_t)whole);
    whole = (int64_t)(v * 1e3 + 0.5);
    if (whole >= 1000000000000000 || (double)whole / 1e3 != v)
        return NULL;
    uint64_t m = (uint64_t)whole;
    unsigned fraction = (unsigned)(m % 1000);
    p = integer_place(p, m / 1000);
    const char text[4] = {'.', (char)('0' + fraction / 100), (char)('0' + fraction / 10 % 10),
                          (char)('0' + fraction % 10)};
    memcpy(p, text, 4);
    return p + (fraction % 10 != 0 ? 4 : fraction % 100 != 0 ? 3 : 2);
}

/* The exponent form is taken where the decimal exponent is below `low` or at least `high`. */
static inline size_t print(double v, int low, int high, char *out) {
    uint64_t bits = double_bits(v), size = bits & INT64_MAX;
    if (size >= UINT64_C(0x7ff) << 52) {
        memcpy(out, isnan(v) ? "NaN" : v > 0 ? "+Inf" : "-Inf", 4);
        return isnan(v) ? 3 : 4;
    }
    char *p = out;
    *p = '-'; /* overwritten if there is no sign */
    p += bits >> 63;
    v = bits_double(size);
    if (v < DOUBLE_INT_MAX && (high > 15 || v < 1e5)) {
        char *end = short_place(p, v);
        if (end != NULL)
            return (size_t)(end - out);
    }
    struct digits digits = digits_find(v);
    p = digits.point - 1 < low || digits.point - 1 >= high ? exponent_place(p, &digits)
                                                           : fixed_place(p, &digits);
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
    char digits[16]; /* at most 16 */
    size_t len = (size_t)(integer_place(digits, seconds) - digits);
    memcpy(p, digits, len);
    p += len;
    if (fraction != 0) {
        *p++ = '.';
        *p++ = (char)('0' + fraction / 100);
        *p++ = (char)('0' + fraction / 10 % 10);
        *p++ = (char)('0' + fraction % 10);
    }
    return (size_t)(p - out);
}
