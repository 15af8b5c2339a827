/* window_order.c: functions over ranges that ask for the order of values: extremes and quantiles. */
#include "query/window.h"

#include <stdlib.h>

/* ---- Extremes -------------------------------------------------------------------------------------------
 */

/* Does a value take the place of an earlier one? Anything takes that of NaN. */
static inline bool takes_over(double v, double before, bool want_max, bool last_wins) {
    if (isnan(before) || (last_wins && v == before))
        return true;
    return want_max ? v > before : v < before;
}

/* The place of the extreme: the first, or the last, among equals. Where windows overlap, a list has all that
 * may become it, best first: what a later sample takes over never will. */
static inline size_t extreme_find(struct window *window, bool want_max, bool last_wins) {
    const double *values = window->values;
    if (!window->overlaps) {
        size_t best = window->low;
        for (size_t i = window->low + 1; i < window->high; i++)
            best = takes_over(values[i], values[best], want_max, last_wins) ? i : best;
        return best;
    }
    size_t *list = window->scratch, last = window->last;
    for (; window->seen < window->high; window->seen++) {
        double v = values[window->seen];
        while (last > window->first && takes_over(v, values[list[last - 1]], want_max, last_wins))
            last--;
        list[last++] = window->seen;
    }
    window->last = last;
    while (list[window->first] < window->low)
        window->first++;
    return list[window->first];
}

bool window_max(struct window *window, double *out) {
    *out = window->values[extreme_find(window, true, false)];
    return true;
}

bool window_min(struct window *window, double *out) {
    *out = window->values[extreme_find(window, false, false)];
    return true;
}

bool window_ts_max(struct window *window, double *out) {
    *out = (double)window->times_ms[extreme_find(window, true, true)] / 1000;
    return true;
}

bool window_ts_min(struct window *window, double *out) {
    *out = (double)window->times_ms[extreme_find(window, false, true)] / 1000;
    return true;
}

/* ---- Quantiles ------------------------------------------------------------------------------------------
 */

static int values_order(const void *a, const void *b) {
    const double *x = a, *y = b;
    return value_before(*x, *y) ? -1 : value_before(*y, *x);
}

/* How many of the sorted values come before v. */
static size_t place_find(const double *sorted, size_t count, double v) {
    size_t low = 0;
    while (count > 0) {
        size_t half = count / 2;
        bool before = value_before(sorted[low + half], v);
        low = before ? low + half + 1 : low;
        count = before ? count - half - 1 : half;
    }
    return low;
}

/* One value leaves, another comes: only what stands between them moves. */
static void sorted_replace(double *sorted, size_t count, double old, double v) {
    size_t from = place_find(sorted, count, old), to = place_find(sorted, count, v);
    if (to > from) {
        to--;
        memmove(sorted + from, sorted + from + 1, (to - from) * sizeof *sorted);
    } else {
        memmove(sorted + to + 1, sorted + to, (from - to) * sizeof *sorted);
    }
    sorted[to] = v;
}

static void sorted_remove(double *sorted, size_t count, double old) {
    size_t at = place_find(sorted, count, old);
    memmove(sorted + at, sorted + at + 1, (count - at - 1) * sizeof *sorted);
}

static void sorted_insert(double *sorted, size_t count, double v) {
    size_t at = place_find(sorted, count, v);
    memmove(sorted + at + 1, sorted + at, (count - at) * sizeof *sorted);
    sorted[at] = v;
}

/* The window's values in order: those of the window before, but for what left and what came. */
static const double *window_sort(struct window *window) {
    double *sorted = window->scratch;
    const double *values = window->values;
    size_t low = window->sorted_low, high = window->sorted_high, count = high - low;
    size_t moves = (window->low - low) + (window->high - high);
    if (window->low >= high || moves > (window->high - window->low) / 4) {
        count = window->high - window->low;
        memcpy(sorted, values + window->low, count * sizeof *sorted);
        qsort(sorted, count, sizeof *sorted, values_order);
    } else {
        while (low < window->low && high < window->high)
            sorted_replace(sorted, count, values[low++], values[high++]);
        while (low < window->low)
            sorted_remove(sorted, count--, values[low++]);
        while (high < window->high)
            sorted_insert(sorted, count++, values[high++]);
    }
    window->sorted_low = window->low;
    window->sorted_high = window->high;
    return sorted;
}

bool window_quantile(struct window *window, double *out) {
    size_t count = window->high - window->low;
    annotate_quantile(window->eval, window->call->call.args[0]->start, window->a);
    if (window->overlaps) {
        *out = quantile_of_sorted(window->a, window_sort(window), count);
        return true;
    }
    memcpy(window->scratch, window->values + window->low, count * sizeof(double));
    *out = quantile_of_values(window->a, window->scratch, count);
    return true;
}

/* Distances between values closer to 0 are finite. */
#define DISTANT 1e300

/* The distances from the median, smallest first, as far as their median: the nearest values on either side
 * are the next. */
static double mad_of_sorted(const double *sorted, size_t count) {
    double median = quantile_of_sorted(0.5, sorted, count), nearest[2] = {0, 0};
    size_t right = place_find(sorted, count, median), left = right;
    for (size_t i = 0; i <= count / 2; i++) {
        double below = left > 0 ? fabs(sorted[left - 1] - median) : INFINITY;
        double above = right < count ? fabs(sorted[right] - median) : INFINITY;
        bool is_below = right == count || (left > 0 && below < above);
        nearest[0] = nearest[1];
        nearest[1] = is_below ? below : above;
        left -= is_below;
        right += !is_below;
    }
    return count % 2 == 1 ? nearest[1] : quantile_of_sorted(0.5, nearest, 2);
}

/* The median distance from the median. */
bool window_mad(struct window *window, double *out) {
    size_t count = window->high - window->low;
    const double *values = window->values + window->low;
    double *scratch = (double *)window->scratch + window->count; /* behind what stands sorted */
    *out = NAN;
    if (window->overlaps) {
        const double *sorted = window_sort(window);
        if (isnan(sorted[0]))
            return true;
        if (sorted[0] > -DISTANT && sorted[count - 1] < DISTANT) {
            *out = mad_of_sorted(sorted, count);
            return true;
        }
    }
    for (size_t i = 0; i < count; i++) {
        if (isnan(values[i]))
            return true;
    }
    memcpy(scratch, values, count * sizeof(double));
    double median = quantile_of_values(0.5, scratch, count);
    for (size_t i = 0; i < count; i++)
        scratch[i] = fabs(values[i] - median);
    *out = quantile_of_values(0.5, scratch, count);
    return true;
}
