#include "tests/promqltest/check.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "query/eval.h"
#include "query/regex.h"
#include "query/result.h"

static bool starts(const char *text, const char *prefix) {
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static const char *skip_space(const char *p) {
    while (*p == ' ' || *p == '\t')
        p++;
    return p;
}

static bool float_same(double a, double b) {
    bool a_stale = double_bits(a) == STALE_NAN_BITS, b_stale = double_bits(b) == STALE_NAN_BITS;
    if (a_stale || b_stale)
        return a_stale && b_stale;
    if (a == b || (isnan(a) && isnan(b)))
        return true;
    double sum = fabs(a) + fabs(b), diff = fabs(a - b);
    if (a == 0 || b == 0 || sum < DBL_MIN)
        return diff < 1e-6 * DBL_MIN;
    return diff / fmin(sum, DBL_MAX) < 1e-6;
}

/* ---- Texts ----------------------------------------------------------------------------------------------
 */

static bool text_matches(const char *want, const char *text, struct arena *arena) {
    if (want == NULL)
        return true;
    if (starts(want, "msg:"))
        return strcmp(skip_space(want + 4), text) == 0;
    if (!starts(want, "regex:"))
        return false;
    char error[REGEX_ERROR_BYTES], *pattern = arena_printf(arena, ".*(?:%s).*", skip_space(want + 6));
    struct regex *regex;
    if (pattern == NULL || regex_new(slice_str(pattern), 1 << 20, false, error, &regex) < 0)
        return false;
    bool matches = regex_pattern(regex)->match(regex_pattern(regex), slice_str(text));
    regex_free(regex);
    return matches;
}

const char *check_failure(const struct script_eval *eval, const char *error, struct arena *arena) {
    if (!eval->fail)
        return arena_printf(arena, "it failed: %s", error);
    if (text_matches(eval->fail_pattern, error, arena))
        return NULL;
    return arena_printf(arena, "it failed with \"%s\", not \"%s\"", error, eval->fail_pattern);
}

static const char *notes_check(const struct script_notes *notes, const char *what, const char *const *texts,
                               size_t count, struct arena *arena) {
    if (notes->none && count > 0)
        return arena_printf(arena, "%s nobody expects: %s", what, texts[0]);
    if (!notes->some)
        return NULL;
    if (count == 0)
        return arena_printf(arena, "a %s is missing", what);
    for (size_t i = 0; notes->count > 0 && i < count; i++) {
        bool found = false;
        for (size_t k = 0; k < notes->count; k++)
            found = found || text_matches(notes->patterns[k], texts[i], arena);
        if (!found)
            return arena_printf(arena, "%s nobody expects: %s", what, texts[i]);
    }
    for (size_t k = 0; k < notes->count; k++) {
        bool found = false;
        for (size_t i = 0; i < count; i++)
            found = found || text_matches(notes->patterns[k], texts[i], arena);
        if (!found)
            return arena_printf(arena, "a %s is missing: %s", what, notes->patterns[k]);
    }
    return NULL;
}

/* ---- Series ---------------------------------------------------------------------------------------------
 */

static const char *labels_text(const struct label *labels, size_t count, struct arena *arena) {
    struct buf buf;
    buf_init(&buf);
    labels_print_braces(&buf, labels, count);
    const char *text = arena_str(arena, buf_slice(&buf));
    buf_release(&buf);
    return text;
}

/* The point of a result series at a time. */
static struct script_value point_at(const struct query_result *result, const struct result_series *series,
                                    int64_t time_ms) {
    size_t n = 0;
    for (size_t i = 0; series->times_ms != NULL && i < series->count; i++) {
        if (series->times_ms[i] == time_ms)
            return (struct script_value){true, series->values[i]};
    }
    for (size_t i = 0; series->present != NULL && i < result->steps; i++) {
        if (!bits_get(series->present, i))
            continue;
        if (result->start_ms + (int64_t)i * result->step_ms == time_ms)
            return (struct script_value){true, series->values[n]};
        n++;
    }
    return (struct script_value){0};
}

static bool labels_are(const struct script_series *want, const struct result_series *have) {
    return labels_equal(want->labels, want->label_count, have->labels, have->label_count);
}

static const char *series_check(const struct script_eval *eval, const struct query_result *result,
                                int64_t start_ms, int64_t step_ms, bool only_there, struct arena *arena) {
    bool *seen = arena_zalloc(arena, eval->series_count + 1);
    size_t at = 0;
    for (size_t i = 0; i < result->series_count; i++) {
        const struct result_series *have = &result->series[i];
        if (only_there && !point_at(result, have, start_ms).present)
            continue;
        const char *labels = labels_text(have->labels, have->label_count, arena);
        size_t k = eval->ordered ? at : 0;
        while (!eval->ordered && k < eval->series_count && (seen[k] || !labels_are(&eval->series[k], have)))
            k++;
        if (k >= eval->series_count || !labels_are(&eval->series[k], have))
            return arena_printf(arena, "series %s is not expected%s", labels, eval->ordered ? " here" : "");
        const struct script_series *want = &eval->series[k];
        seen[k] = true;
        at++;
        size_t found = 0;
        for (size_t v = 0; v < want->value_count; v++) {
            struct script_value point = point_at(result, have, start_ms + (int64_t)v * step_ms);
            found += point.present;
            if (point.present != want->values[v].present)
                return arena_printf(arena, "%s: value %zu is %s", labels, v,
                                    point.present ? "there" : "missing");
            if (point.present && !float_same(point.v, want->values[v].v))
                return arena_printf(arena, "%s: value %zu is %.17g, expected %.17g", labels, v, point.v,
                                    want->values[v].v);
        }
        if (!only_there && found != have->count)
            return arena_printf(arena, "%s: %zu points more than expected", labels, have->count - found);
    }
    for (size_t k = 0; k < eval->series_count; k++) {
        if (!seen[k])
            return arena_printf(arena, "series %s is missing",
                                labels_text(eval->series[k].labels, eval->series[k].label_count, arena));
    }
    return NULL;
}

static const char *sorted_check(const struct query_result *result) {
    for (size_t i = 1; i < result->series_count; i++) {
        const struct result_series *a = &result->series[i - 1], *b = &result->series[i];
        if (labels_compare(a->labels, a->label_count, b->labels, b->label_count) >= 0)
            return "the series are not sorted";
    }
    return NULL;
}

static const char *value_check(const struct script_eval *eval, const struct query_result *result,
                               struct arena *arena) {
    if (eval->string != NULL)
        return result->type == QUERY_VALUE_STRING && slice_equal(result->string, slice_str(eval->string))
                   ? NULL
                   : "it is not that string";
    if (eval->has_scalar) {
        if (result->type != QUERY_VALUE_SCALAR)
            return "it is no scalar";
        return float_same(result->scalar, eval->scalar)
                   ? NULL
                   : arena_printf(arena, "it is %.17g, expected %.17g", result->scalar, eval->scalar);
    }
    if (eval->range || eval->has_grid) {
        const char *fault = result->type == QUERY_VALUE_MATRIX ? sorted_check(result) : "it is no matrix";
        if (fault != NULL)
            return fault;
    } else if (result->type != QUERY_VALUE_VECTOR) {
        return "it is no vector";
    }
    if (eval->has_grid)
        return series_check(eval, result, eval->grid_start_ms, eval->grid_step_ms, false, arena);
    /* An instant query may run at another time than it was written for; it has one point. */
    return series_check(eval, result, result->start_ms, result->step_ms, false, arena);
}

const char *check_result(const struct script_eval *eval, const struct query_result *result,
                         struct arena *arena) {
    if (eval->fail)
        return "it should have failed";
    const char *fault =
        notes_check(&eval->warnings, "warning", result->warnings, result->warning_count, arena);
    if (fault == NULL)
        fault = notes_check(&eval->infos, "info", result->infos, result->info_count, arena);
    return fault == NULL ? value_check(eval, result, arena) : fault;
}

const char *check_middle(const struct script_eval *eval, const struct query_result *result, int64_t time_ms,
                         bool compare, struct arena *arena) {
    const char *fault = result->type == QUERY_VALUE_MATRIX ? sorted_check(result) : "it is no matrix";
    if (fault != NULL || !compare)
        return fault;
    if (!eval->has_scalar)
        return series_check(eval, result, time_ms, 0, true, arena);
    struct script_value point = {0};
    if (result->series_count == 1)
        point = point_at(result, &result->series[0], time_ms);
    return point.present && float_same(point.v, eval->scalar)
               ? NULL
               : arena_printf(arena, "it is %.17g, expected %.17g", point.v, eval->scalar);
}
