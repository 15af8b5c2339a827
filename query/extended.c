/* extended.c: ranges that are anchored or smoothed. Both give a window a value at its very edges, so that
 * nothing is extrapolated: anchored takes the samples nearest to them, smoothed the points on the lines
 * between samples. */
#include "query/eval.h"
#include "query/functions.h"

double extended_interpolate(const struct extended_window *window, size_t a, size_t b, int64_t time_ms,
                            bool is_counter) {
    double from = window->values[a], to = window->values[b];
    if (is_counter && to < from)
        from = 0; /* it began anew in between */
    return from + (to - from) * (double)(time_ms - window->times_ms[a]) /
                      (double)(window->times_ms[b] - window->times_ms[a]);
}

bool extended_edges(const struct extended_window *window, bool is_counter, double *left, double *right,
                    size_t *first, size_t *last) {
    const int64_t *times = window->times_ms;
    size_t low = window->low, high = window->high;
    if (low >= high)
        return false;
    /* The latest sample at or before the start, else the first of all. */
    size_t begin = low;
    while (begin + 1 < high && times[begin + 1] <= window->start_ms)
        begin++;
    /* The last one; smoothed: the first at or behind the end, if there is one. */
    size_t end = high - 1;
    if (window->smoothed) {
        end = begin;
        while (end + 1 < high && times[end] < window->end_ms)
            end++;
    }
    if (times[end] <= window->start_ms || times[begin] > window->end_ms)
        return false;
    *left = window->values[begin];
    if (window->smoothed && times[begin] < window->start_ms)
        *left = extended_interpolate(window, begin, begin + 1, window->start_ms, is_counter);
    *right = window->values[end];
    if (window->smoothed && end > low && times[end] > window->end_ms)
        *right = extended_interpolate(window, end - 1, end, window->end_ms, is_counter);
    *first = times[begin] <= window->start_ms ? begin + 1 : begin;
    *last = times[end] >= window->end_ms ? end : end + 1;
    if (*last < *first)
        *last = *first;
    return true;
}

static bool knows_anchored(enum function_id id) {
    return id == FUNCTION_CHANGES || id == FUNCTION_DELTA || id == FUNCTION_INCREASE || id == FUNCTION_RATE ||
           id == FUNCTION_RESETS;
}

static bool knows_smoothed(enum function_id id) {
    return id == FUNCTION_DELTA || id == FUNCTION_INCREASE || id == FUNCTION_RATE;
}

int extended_check(struct eval *eval, const struct ast *call) {
    const struct function *function = call->call.function;
    for (size_t i = 0; i < call->call.arg_count; i++) {
        const struct ast *arg = ast_unparen(call->call.args[i]);
        if (arg->kind != AST_MATRIX)
            continue;
        if (arg->range.anchored && !knows_anchored(function->id))
            return eval_fail(
                eval,
                "anchored modifier can only be used with: changes, delta, increase, rate, resets - "
                "not with %s",
                function->name);
        if (arg->range.smoothed && !knows_smoothed(function->id))
            return eval_fail(eval,
                             "smoothed modifier can only be used with: delta, increase, rate - not with %s",
                             function->name);
    }
    return STATUS_OK;
}
