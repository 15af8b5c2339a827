/* float_text.h: doubles as text, exactly as Prometheus (Go's strconv) prints them: the shortest digits that
 * read back as the same double. */
#ifndef TIDALITE_BASE_FLOAT_TEXT_H
#define TIDALITE_BASE_FLOAT_TEXT_H

#include <stddef.h>

/* Room for any double in fixed form: sign, 309 digits, point, 324 zeros and digits. */
#define FLOAT_TEXT_BYTES_MAX 376

/* Room for float_text_json, whose texts have at most 25 bytes. */
#define FLOAT_JSON_BYTES_MAX 80

/* All write at `out` (FLOAT_TEXT_BYTES_MAX bytes, no NUL; what stands behind the text may be overwritten) and
 * return the length. NaN (any payload) → "NaN"; infinities → "+Inf", "-Inf"; -0 → "-0". */

/* Go 'f', -1: never an exponent. Scalars, expression printing, count_values. */
size_t float_text_fixed(double v, char *out);

/* JSON sample values (FLOAT_JSON_BYTES_MAX bytes): as fixed, but with an exponent where |v| < 1e-6 (not 0) or
 * >= 1e21: "1e-07", "1e+21".
 */
size_t float_text_json(double v, char *out);

/* Go 'g', -1, as in exposition text and %v: exponent where it is < -4 or >= 6: "1e+06", "0.0001". */
size_t float_text_go(double v, char *out);

/* The digits themselves: v = 0.d1d2d3… × 10^*point for finite v > 0. Writes at most 17 digits, returns how
 * many. */
size_t float_digits(double v, char *digits, int *point);

/* Unix milliseconds as Prometheus' JSON prints them: seconds, with exactly three decimals if the fraction is
 * not 0 ("12", "12.005", "-0.001"). At most 24 bytes. */
size_t time_text_json(long long time_ms, char *out);

#endif
