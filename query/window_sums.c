/* window_sums.c: functions over ranges that add: sums, means, spread, regressions.
 *
 * Prometheus adds with compensation (kahan_add): sum + c is the exact sum but for an error far below the last
 * digit. Any other way that comes as close rounds to the same double, but for once in 10^12 or so. So where
 * windows overlap,
 *
 *   sums are differences of running sums of twice the precision (two doubles each), if what these may be off
 *   is nothing beside the difference, and else made from the samples;
 *   a mean also has the uncompensated sum in its last digit: that is added up in order, for several windows
 *   at a time, since one addition has to wait for the one before;
 *   so it is with the spread: each window as ever, several at a time;
 *   in a regression x is the distance to the step: if the samples come evenly, that is the same in each
 *   window. The order in which products are added does not matter.
 *
 * Series with values that are not finite, or so large that a square may not be, are read sample by sample. */
#include "query/window.h"

#define MAGNITUDE_MAX 1e140

/* Two numbers for one instruction, where the processor has such. */
typedef double pair __attribute__((vector_size(16)));

/* Adds without a branch; *sum + *c as after kahan_add, if all is finite (Knuth's exact sum). */
#define EXACT_ADD(type, value, sum, c)                                                                       \
    do {                                                                                                     \
        type v_ = (value), t_ = (sum) + v_, b_ = t_ - (sum);                                                 \
        (c) += ((sum) - (t_ - b_)) + (v_ - b_);                                                              \
        (sum) = t_;                                                                                          \
    } while (0)

/* ---- Running sums ---------------------------------------------------------------------------------------
 */

/* In scratch: high and low parts of the sums of the first 0, 1, … samples, then room for one number each. */
static double *sums_high(const struct window *window) {
    return window->scratch;
}

static double *sums_low(const struct window *window) {
    return sums_high(window) + window->count + 1;
}

static double *sums_rest(const struct window *window) {
    return sums_low(window) + window->count + 1;
}

static void sums_make(struct window *window) {
    double *highs = sums_high(window), *lows = sums_low(window), high = 0, low = 0, magnitude = 0;
    bool integers = true;
    highs[0] = lows[0] = 0;
    for (size_t i = 0; i < window->count; i++) {
        double v = window->values[i];
        magnitude += fabs(v);
        integers = integers && v == rint(v);
        EXACT_ADD(double, v, high, low);
        double sum = high + low;
        low -= sum - high;
        high = sum;
        highs[i + 1] = high;
        lows[i + 1] = low;
    }
    window->sums_error = (double)window->count * magnitude * 0x1p-102;
    window->sums = !(magnitude < MAGNITUDE_MAX)     ? SUMS_NONE
                   : integers && magnitude < 0x1p53 ? SUMS_EXACT
                                                    : SUMS_KEPT;
}

static bool sums_ready(struct window *window) {
    if (window->sums == SUMS_UNKNOWN && window->overlaps)
        sums_make(window);
    return window->sums == SUMS_KEPT || window->sums == SUMS_EXACT;
}

/* The sum of samples [low, high) as *sum + *c, |*c| at most half the last digit of *sum. False: too much of
 * it has cancelled out. */
static bool sums_between(const struct window *window, struct span span, double *sum, double *c) {
    const double *highs = sums_high(window), *lows = sums_low(window);
    double high = highs[span.high], low = lows[span.high] - lows[span.low];
    EXACT_ADD(double, -highs[span.low], high, low);
    *sum = high + low;
    *c = low - (*sum - high);
    return window->sums == SUMS_EXACT || window->sums_error < fabs(*sum) * 0x1p-75;
}

static struct span window_span(const struct window *window) {
    return (struct span){window->low, window->high};
}

bool window_sum(struct window *window, double *out) {
    double sum = 0, c = 0;
    if (sums_ready(window) && sums_between(window, window_span(window), out, &c))
        return true;
    c = 0;
    for (size_t i = window->low; i < window->high; i++)
        kahan_add(window->values[i], &sum, &c);
    *out = isinf(sum) ? sum : sum + c;
    return true;
}

/* ---- Means ----------------------------------------------------------------------------------------------
 */

static double mean_of(const double *values, size_t n) {
    double sum = values[0], c = 0, mean = 0, count = 1;
    bool is_incremental = false;
    for (size_t i = 1; i < n; i++) {
        count = (double)(i + 1);
        if (!is_incremental) {
            double new_sum = sum, new_c = c;
            kahan_add(values[i], &new_sum, &new_c);
            if (!isinf(new_sum)) {
                sum = new_sum;
                c = new_c;
                continue;
            }
            is_incremental = true;
            mean = sum / (count - 1);
            c /= count - 1;
        }
        double q = (count - 1) / count;
        mean *= q;
        c *= q;
        kahan_add(values[i] / count, &mean, &c);
    }
    return is_incremental ? mean + c : sum / count + c / count;
}

static size_t spans_shortest(const struct span *spans, size_t count) {
    size_t shortest = SIZE_MAX;
    for (size_t k = 0; k < count; k++)
        shortest = spans[k].high - spans[k].low < shortest ? spans[k].high - spans[k].low : shortest;
    return shortest;
}

/* Each window from first to last. */
static void plain_sums(const double *values, const struct span *spans, double *sums) {
    size_t common = spans_shortest(spans, WINDOW_BATCH);
    const double *at[WINDOW_BATCH];
    double sum[WINDOW_BATCH];
#pragma GCC unroll 8
    for (size_t k = 0; k < WINDOW_BATCH; k++) {
        at[k] = values + spans[k].low;
        sum[k] = 0;
    }
    for (size_t i = 0; i < common; i++) {
#pragma GCC unroll 8
        for (size_t k = 0; k < WINDOW_BATCH; k++)
            sum[k] += at[k][i];
    }
#pragma GCC unroll 8
    for (size_t k = 0; k < WINDOW_BATCH; k++)
        sums[k] = sum[k];
    for (size_t k = 0; k < WINDOW_BATCH; k++) {
        for (size_t i = spans[k].low + common; i < spans[k].high; i++)
            sums[k] += values[i];
    }
}

void windows_avg(struct window *window, const struct span *spans, size_t count, double *out) {
    struct span batch[WINDOW_BATCH];
    double plain[WINDOW_BATCH], sum, c;
    bool is_ready = sums_ready(window);
    if (is_ready && window->sums != SUMS_EXACT) {
        for (size_t k = 0; k < WINDOW_BATCH; k++)
            batch[k] = spans[k < count ? k : 0];
        plain_sums(window->values, batch, plain);
    }
    for (size_t k = 0; k < count; k++) {
        size_t n = spans[k].high - spans[k].low;
        if (!is_ready || !sums_between(window, spans[k], &sum, &c)) {
            out[k] = mean_of(window->values + spans[k].low, n);
            continue;
        }
        if (window->sums == SUMS_EXACT)
            plain[k] = sum;
        out[k] = plain[k] / (double)n + ((sum - plain[k]) + c) / (double)n;
    }
}

/* ---- Spread ---------------------------------------------------------------------------------------------
 */

struct spread {
    double count, mean, mean_c, aux, aux_c;
};

static double spread_finish(struct spread s, const double *values, size_t n) {
    for (size_t i = (size_t)s.count; i < n; i++) {
        s.count++;
        double delta = values[i] - (s.mean + s.mean_c);
        kahan_add(delta / s.count, &s.mean, &s.mean_c);
        kahan_add(delta * (values[i] - (s.mean + s.mean_c)), &s.aux, &s.aux_c);
    }
    return (s.aux + s.aux_c) / s.count;
}

#define SPREAD_PAIRS 2

/* The first `common` samples of SPREAD_PAIRS * 2 windows. */
static void spread_pairs(const double *values, const struct span *spans, size_t common, struct spread *out) {
    const double *at[SPREAD_PAIRS * 2];
    pair mean[SPREAD_PAIRS], mean_c[SPREAD_PAIRS], aux[SPREAD_PAIRS], aux_c[SPREAD_PAIRS];
    for (size_t k = 0; k < SPREAD_PAIRS * 2; k++)
        at[k] = values + spans[k].low;
    for (size_t k = 0; k < SPREAD_PAIRS; k++)
        mean[k] = mean_c[k] = aux[k] = aux_c[k] = (pair){0, 0};
    for (size_t i = 0; i < common; i++) {
        double n = (double)(i + 1);
        pair count = {n, n};
#pragma GCC unroll 2
        for (size_t k = 0; k < SPREAD_PAIRS; k++) {
            pair v = {at[2 * k][i], at[2 * k + 1][i]}, delta = v - (mean[k] + mean_c[k]);
            EXACT_ADD(pair, delta / count, mean[k], mean_c[k]);
            EXACT_ADD(pair, delta * (v - (mean[k] + mean_c[k])), aux[k], aux_c[k]);
        }
    }
    for (size_t k = 0; k < SPREAD_PAIRS * 2; k++)
        out[k] = (struct spread){(double)common, mean[k / 2][k % 2], mean_c[k / 2][k % 2], aux[k / 2][k % 2],
                                 aux_c[k / 2][k % 2]};
}

void windows_stdvar(struct window *window, const struct span *spans, size_t count, double *out) {
    struct spread spreads[WINDOW_BATCH] = {0};
    if (sums_ready(window)) {
        for (size_t k = 0; k + SPREAD_PAIRS * 2 <= count; k += SPREAD_PAIRS * 2)
            spread_pairs(window->values, spans + k, spans_shortest(spans + k, SPREAD_PAIRS * 2), spreads + k);
    }
    for (size_t k = 0; k < count; k++)
        out[k] = spread_finish(spreads[k], window->values + spans[k].low, spans[k].high - spans[k].low);
}

void windows_stddev(struct window *window, const struct span *spans, size_t count, double *out) {
    windows_stdvar(window, spans, count, out);
    for (size_t k = 0; k < count; k++)
        out[k] = sqrt(out[k]);
}

/* ---- A line through the samples -------------------------------------------------------------------------
 */

/* Least squares of n points from their sums. */
static void line_through(double n, double x, double y, double xy, double xx, double *slope,
                         double *intercept) {
    double covariance = xy - x * y / n, variance = xx - x * x / n;
    *slope = covariance / variance;
    *intercept = y / n - *slope * x / n;
}

/* x in seconds from `origin_ms`. What is constant has slope 0 exactly. */
static void regression_read(const struct window *window, int64_t origin_ms, double *slope,
                            double *intercept) {
    double n = 0, x_sum = 0, x_c = 0, y_sum = 0, y_c = 0, xy_sum = 0, xy_c = 0, xx_sum = 0, xx_c = 0;
    double first = window->values[window->low];
    bool is_constant = true;
    for (size_t i = window->low; i < window->high; i++) {
        double y = window->values[i], x = (double)(window->times_ms[i] - origin_ms) / 1000;
        is_constant = is_constant && (i == window->low || y == first);
        n++;
        kahan_add(x, &x_sum, &x_c);
        kahan_add(y, &y_sum, &y_c);
        kahan_add(x * y, &xy_sum, &xy_c);
        kahan_add(x * x, &xx_sum, &xx_c);
    }
    if (is_constant) {
        *slope = isinf(first) ? NAN : 0;
        *intercept = isinf(first) ? NAN : first;
        return;
    }
    line_through(n, x_sum + x_c, y_sum + y_c, xy_sum + xy_c, xx_sum + xx_c, slope, intercept);
}

static double pair_sum(pair sum, pair c) {
    double total = sum[0], rest = c[0] + c[1];
    EXACT_ADD(double, sum[1], total, rest);
    return total + rest;
}

/* The sum of x times y, two at a time. */
static double products_sum(const double *x, const double *y, size_t n) {
    pair sum = {0, 0}, c = {0, 0};
    for (size_t i = 0; i + 1 < n; i += 2)
        EXACT_ADD(pair, ((pair){x[i], x[i + 1]} * (pair){y[i], y[i + 1]}), sum, c);
    if (n % 2 == 1)
        EXACT_ADD(pair, ((pair){x[n - 1] * y[n - 1], 0}), sum, c);
    return pair_sum(sum, c);
}

/* How far back samples are equal, and how far back they come evenly. */
static void runs_carry_on(struct window *window) {
    const int64_t *times = window->times_ms;
    for (; window->seen < window->high; window->seen++) {
        size_t i = window->seen;
        if (i > 0 && window->values[i] != window->values[i - 1])
            window->level_from = i;
        if (i > 1 && times[i] - times[i - 1] != times[i - 1] - times[i - 2])
            window->even_from = i - 1;
    }
}

/* x of the window's samples, and the sums of x and x². */
static const double *x_make(struct window *window, int64_t origin_ms) {
    double *x = sums_rest(window);
    const int64_t *times = window->times_ms + window->low;
    size_t n = window->high - window->low;
    int64_t first = times[0] - origin_ms, gap = window->even_from <= window->low ? times[1] - times[0] : 0;
    if (gap != 0 && n == window->x_count && first == window->x_first_ms && gap == window->x_gap_ms)
        return x;
    pair sum = {0, 0}, c = {0, 0}, squares = {0, 0}, squares_c = {0, 0};
    for (size_t i = 0; i < n; i += 2) {
        pair two = {(double)(times[i] - origin_ms), i + 1 < n ? (double)(times[i + 1] - origin_ms) : 0};
        two /= (pair){1000, 1000};
        x[i] = two[0];
        x[i + 1] = two[1];
        EXACT_ADD(pair, two, sum, c);
        EXACT_ADD(pair, two * two, squares, squares_c);
    }
    window->x_first_ms = first;
    window->x_gap_ms = gap;
    window->x_count = n;
    window->x_sum = pair_sum(sum, c);
    window->xx_sum = pair_sum(squares, squares_c);
    return x;
}

static void regression(struct window *window, int64_t origin_ms, double *slope, double *intercept) {
    double y_sum, y_c, n = (double)(window->high - window->low);
    const double *values = window->values + window->low;
    if (!sums_ready(window)) {
        regression_read(window, origin_ms, slope, intercept);
        return;
    }
    runs_carry_on(window);
    if (window->level_from <= window->low) {
        *slope = 0;
        *intercept = values[0];
        return;
    }
    if (!sums_between(window, window_span(window), &y_sum, &y_c)) {
        regression_read(window, origin_ms, slope, intercept);
        return;
    }
    const double *x = x_make(window, origin_ms);
    line_through(n, window->x_sum, y_sum, products_sum(x, values, window->high - window->low), window->xx_sum,
                 slope, intercept);
}

bool window_deriv(struct window *window, double *out) {
    double intercept;
    if (window->high - window->low < 2)
        return false;
    regression(window, window->times_ms[window->low], out, &intercept);
    return true;
}

bool window_predict(struct window *window, double *out) {
    double slope, intercept;
    if (window->high - window->low < 2)
        return false;
    regression(window, window->eval_ms, &slope, &intercept);
    *out = slope * window->a + intercept;
    return true;
}
