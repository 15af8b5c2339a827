/* range.c: selectors and functions over ranges. A series is read and decoded once for the whole query; then
 * windows slide over its samples with two moving indices. */
#include "query/eval.h"

#include <stdio.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "query/functions.h"

#define TIME_FLOOR   (INT64_MIN / 4)
#define TIME_CEILING (INT64_MAX / 4)

static int64_t time_clamp(int64_t ms) {
    return ms < TIME_FLOOR ? TIME_FLOOR : ms > TIME_CEILING ? TIME_CEILING : ms;
}

static int64_t grid_last(const struct grid *grid) {
    return grid_time(grid, grid->count == 0 ? 0 : grid->count - 1);
}

/* @ as a time, if there is one. */
static bool shift_fixed(const struct eval *eval, const struct ast_shift *shift, int64_t *ms_out) {
    switch (shift->at) {
    case AT_NONE:
        return false;
    case AT_TIME:
        *ms_out = shift->at_ms;
        return true;
    case AT_START:
        *ms_out = eval->request->start_ms;
        return true;
    case AT_END:
        *ms_out = eval->request->end_ms;
        return true;
    }
    return false;
}

static bool matchers_name_one(const struct ast *selector) {
    for (size_t i = 0; i < selector->selector.matcher_count; i++) {
        const struct matcher *matcher = &selector->selector.matchers[i];
        if (matcher->kind == MATCHER_EQUAL && matcher->value.len > 0 &&
            slice_equal(matcher->name, NAME_LABEL))
            return true;
    }
    return false;
}

static int select_open(struct eval *eval, const struct ast *selector, int64_t time_min_ms,
                       int64_t time_max_ms, struct storage_selection **out) {
    int status = storage_select(eval->storage, selector->selector.matchers, selector->selector.matcher_count,
                                time_min_ms, time_max_ms, 0, out);
    if (status == STATUS_NO_MEMORY)
        return eval_no_room(eval);
    if (status < 0)
        return eval_fail(eval, "expanding series: %s", status_message(status));
    return STATUS_OK;
}

static int series_read(struct eval *eval, struct storage_selection *selection, size_t index,
                       int64_t time_min_ms, int64_t time_max_ms, struct sample_columns *columns) {
    int status = eval_tick(eval);
    if (status < 0)
        return status;
    columns->count = 0;
    status = selection_read(selection, index, time_min_ms, time_max_ms, columns);
    if (status < 0) {
        eval->error->type = QUERY_ERROR_INTERNAL;
        snprintf(eval->error->text, sizeof eval->error->text, "reading samples: %s", status_message(status));
        return status;
    }
    eval->samples_total += columns->count;
    return eval_samples_check(eval, columns->count);
}

/* ---- Instant selectors --------------------------------------------------------------------------------- */

struct selector {
    struct eval_node base;
    struct storage_selection *selection;
    size_t index;
    int64_t offset_ms;
    int64_t lookback_ms;
    bool is_fixed;
    bool timestamps; /* the samples' times instead of their values */
    int64_t fixed_ms;
    int64_t time_min_ms, time_max_ms;
    struct sample_columns columns;
    struct label *labels;
    double *values;
    uint64_t *present;
};

/* The newest sample in (time - lookback, time], if it is no stale marker. */
static void selector_column(struct selector *selector) {
    const struct grid *grid = &selector->base.grid;
    const struct sample_columns *columns = &selector->columns;
    memset(selector->present, 0, bits_words(grid->count) * sizeof *selector->present);
    size_t behind = 0,
           steps = selector->is_fixed ? 1 : grid->count; /* samples [0, behind) are not later than the step */
    for (size_t i = 0; i < steps; i++) {
        int64_t time = (selector->is_fixed ? selector->fixed_ms : grid_time(grid, i)) - selector->offset_ms;
        while (behind < columns->count && columns->times_ms[behind] <= time)
            behind++;
        if (behind == 0 || columns->times_ms[behind - 1] <= time - selector->lookback_ms)
            continue;
        double value = columns->values[behind - 1];
        if (double_bits(value) == STALE_NAN_BITS)
            continue;
        selector->values[i] = selector->timestamps ? (double)columns->times_ms[behind - 1] / 1000 : value;
        bits_set(selector->present, i);
    }
    if (selector->is_fixed && grid->count > 0 && bits_get(selector->present, 0)) {
        bits_fill(selector->present, grid->count);
        for (size_t i = 1; i < grid->count; i++)
            selector->values[i] = selector->values[0];
    }
}

static int selector_next(struct eval_node *node, struct eval_series *out) {
    struct selector *selector = (struct selector *)node;
    while (selector->index < selection_series_count(selector->selection)) {
        size_t index = selector->index++;
        int status = series_read(node->eval, selector->selection, index, selector->time_min_ms,
                                 selector->time_max_ms, &selector->columns);
        if (status < 0)
            return status;
        if (selector->columns.count == 0)
            continue;
        selector_column(selector);
        if (!bits_any(selector->present, node->grid.count))
            continue;
        out->labels = selector->labels;
        out->label_count = selection_labels(selector->selection, index, selector->labels);
        out->values = selector->values;
        out->present = selector->present;
        return STATUS_OK;
    }
    return STATUS_END;
}

static void selector_release(struct eval_node *node) {
    struct selector *selector = (struct selector *)node;
    if (selector->selection != NULL)
        selection_close(selector->selection);
    sample_columns_release(&selector->columns);
}

int selector_node(struct eval *eval, struct ast *ast, struct grid grid, bool timestamps,
                  struct eval_node **out) {
    int status = STATUS_OK;
    if (ast->selector.smoothed || ast->selector.anchored)
        return eval_unsupported(eval, "the smoothed modifier");
    struct selector *selector = node_new(eval, sizeof *selector, grid, selector_next);
    if (selector == NULL)
        return eval_no_room(eval);
    selector->base.release = selector_release;
    selector->offset_ms = ast->selector.shift.offset_ms;
    selector->lookback_ms = eval->request->lookback_ms;
    selector->timestamps = timestamps;
    selector->is_fixed = shift_fixed(eval, &ast->selector.shift, &selector->fixed_ms);
    int64_t first = selector->is_fixed ? selector->fixed_ms : grid.start_ms;
    int64_t last = selector->is_fixed ? selector->fixed_ms : grid_last(&grid);
    selector->time_min_ms = time_clamp(first - selector->offset_ms - selector->lookback_ms + 1);
    selector->time_max_ms = time_clamp(last - selector->offset_ms);
    selector->base.unique_nameless = matchers_name_one(ast);
    selector->labels = eval_alloc(eval, (STORAGE_LABELS_MAX + 1) * sizeof(struct label));
    selector->values = eval_alloc(eval, (grid.count + 1) * sizeof(double));
    selector->present = eval_alloc(eval, (bits_words(grid.count) + 1) * 8);
    if (selector->labels == NULL || selector->values == NULL || selector->present == NULL)
        return eval_no_room(eval);
    TRY(select_open(eval, ast, selector->time_min_ms, selector->time_max_ms, &selector->selection));
    *out = &selector->base;
out:
    return status;
}

/* ---- Sources of ranges
 * --------------------------------------------------------------------------------------- */

/* The default step of subqueries: Prometheus' global evaluation interval. */
#define SUBQUERY_STEP_MS 60000

static int subquery_open(struct eval *eval, struct ast *ast, struct range_source *source) {
    int64_t step = ast->range.has_step ? ast->range.step_ms : SUBQUERY_STEP_MS;
    int64_t first = source->is_fixed ? source->fixed_ms : source->grid.start_ms;
    int64_t last = source->is_fixed ? source->fixed_ms : grid_last(&source->grid);
    int64_t bound = time_clamp(first - source->offset_ms - source->range_ms);
    int64_t end = time_clamp(last - source->offset_ms);
    int64_t start = step * (bound / step);
    if (start <= bound)
        start += step;
    struct grid grid = {start, step, 0};
    if (end >= start) {
        uint64_t count = (uint64_t)((end - start) / step) + 1;
        int status = eval_samples_check(eval, count);
        if (status < 0)
            return status;
        grid.count = (size_t)count;
    }
    if (grid.count == 0)
        return STATUS_OK;
    int status = node_build(eval, ast->range.expr, grid, &source->child);
    if (status >= 0)
        source->unique_nameless = source->child->unique_nameless;
    return status;
}

int range_source_open(struct eval *eval, struct ast *ast, struct grid grid, struct range_source *source) {
    ast = ast_unparen(ast);
    *source = (struct range_source){.eval = eval, .grid = grid, .range_ms = ast->range.range_ms};
    if (ast->range.anchored || ast->range.smoothed)
        return eval_unsupported(eval,
                                ast->range.anchored ? "the anchored modifier" : "the smoothed modifier");
    const struct ast_shift *shift =
        ast->kind == AST_MATRIX ? &ast->range.expr->selector.shift : &ast->range.shift;
    source->offset_ms = shift->offset_ms;
    source->is_fixed = shift_fixed(eval, shift, &source->fixed_ms);
    if (ast->kind == AST_SUBQUERY)
        return subquery_open(eval, ast, source);
    int64_t first = source->is_fixed ? source->fixed_ms : grid.start_ms;
    int64_t last = source->is_fixed ? source->fixed_ms : grid_last(&grid);
    source->time_min_ms = time_clamp(first - source->offset_ms - source->range_ms + 1);
    source->time_max_ms = time_clamp(last - source->offset_ms);
    source->unique_nameless = matchers_name_one(ast->range.expr);
    source->labels = eval_alloc(eval, (STORAGE_LABELS_MAX + 1) * sizeof(struct label));
    if (source->labels == NULL)
        return eval_no_room(eval);
    return select_open(eval, ast->range.expr, source->time_min_ms, source->time_max_ms, &source->selection);
}

static void stale_drop(struct sample_columns *columns) {
    size_t i = 0;
    while (i < columns->count && double_bits(columns->values[i]) != STALE_NAN_BITS)
        i++;
    size_t kept = i;
    for (; i < columns->count; i++) {
        if (double_bits(columns->values[i]) == STALE_NAN_BITS)
            continue;
        columns->times_ms[kept] = columns->times_ms[i];
        columns->values[kept] = columns->values[i];
        if (columns->has_starts)
            columns->starts_ms[kept] = columns->starts_ms[i];
        kept++;
    }
    columns->count = kept;
}

static int child_read(struct range_source *source) {
    struct eval_series series;
    int status = node_next(source->child, &series);
    if (status != STATUS_OK)
        return status;
    const struct grid *grid = &source->child->grid;
    size_t count = bits_count(series.present, grid->count), n = 0;
    source->columns.count = 0;
    if (sample_columns_reserve(&source->columns, count) < 0)
        return eval_no_room(source->eval);
    for (BITS_EACH(i, series.present, grid->count)) {
        source->columns.times_ms[n] = grid_time(grid, i);
        source->columns.values[n++] = series.values[i];
    }
    source->columns.count = n;
    source->labels = series.labels;
    source->label_count = series.label_count;
    return eval_samples_check(source->eval, n);
}

int range_source_next(struct range_source *source) {
    for (;;) {
        if (source->selection == NULL) {
            if (source->child == NULL)
                return STATUS_END;
            int status = child_read(source);
            if (status != STATUS_OK || source->columns.count > 0)
                return status;
            continue;
        }
        if (source->index == selection_series_count(source->selection))
            return STATUS_END;
        size_t index = source->index++;
        int status = series_read(source->eval, source->selection, index, source->time_min_ms,
                                 source->time_max_ms, &source->columns);
        if (status < 0)
            return status;
        stale_drop(&source->columns);
        if (source->columns.count == 0)
            continue;
        source->label_count = selection_labels(source->selection, index, source->labels);
        return STATUS_OK;
    }
}

void range_source_close(struct range_source *source) {
    if (source->selection != NULL)
        selection_close(source->selection);
    source->selection = NULL;
    sample_columns_release(&source->columns);
}

/* ---- Functions over a window
 * ---------------------------------------------------------------------------------- */

/* The samples [low, high) of a series, those in (start_ms, end_ms]. Lives for the whole series, so that
 * functions can carry on from the window before. */
struct window {
    const int64_t *times_ms;
    const double *values;
    size_t low, high;
    int64_t start_ms, end_ms;
    double range_s;
    size_t reset; /* the newest sample below `high` that is smaller than the one before it; 0 = none */
    size_t extreme, seen; /* for min and max: the best of [.., seen) */
};

/* One value from a window of at least one sample; false: none. */
typedef bool (*window_fn)(struct window *window, double *out);

static bool extrapolate(const struct window *window, bool is_counter, bool is_rate, double *out) {
    const double *values = window->values;
    size_t low = window->low, high = window->high;
    if (high - low < 2)
        return false;
    int64_t first_ms = window->times_ms[low], last_ms = window->times_ms[high - 1];
    double result = values[high - 1] - values[low];
    if (is_counter && window->reset > low) {
        for (size_t i = low + 1; i < high; i++) {
            if (values[i] < values[i - 1])
                result += values[i - 1];
        }
    }
    double to_start = (double)(first_ms - window->start_ms) / 1000;
    double to_end = (double)(window->end_ms - last_ms) / 1000;
    double sampled = (double)(last_ms - first_ms) / 1000;
    double average = sampled / (double)(high - low - 1);
    double threshold = average * 1.1;
    if (to_start >= threshold)
        to_start = average / 2;
    if (is_counter && result > 0 && values[low] >= 0) {
        double to_zero = sampled * (values[low] / result);
        if (to_zero < to_start)
            to_start = to_zero;
    }
    if (to_end >= threshold)
        to_end = average / 2;
    double factor = sampled == 0 ? 1 : (sampled + to_start + to_end) / sampled;
    if (is_rate)
        factor /= window->range_s;
    *out = result * factor;
    return true;
}

static bool window_rate(struct window *window, double *out) {
    return extrapolate(window, true, true, out);
}

static bool window_increase(struct window *window, double *out) {
    return extrapolate(window, true, false, out);
}

static bool window_delta(struct window *window, double *out) {
    return extrapolate(window, false, false, out);
}

static bool last_two(const struct window *window, bool is_rate, double *out) {
    if (window->high - window->low < 2)
        return false;
    size_t last = window->high - 1;
    int64_t gap_ms = window->times_ms[last] - window->times_ms[last - 1];
    if (gap_ms == 0)
        return false;
    double a = window->values[last - 1], b = window->values[last];
    double result = is_rate && b < a ? b : b - a;
    *out = is_rate ? result / ((double)gap_ms / 1000) : result;
    return true;
}

static bool window_irate(struct window *window, double *out) {
    return last_two(window, true, out);
}

static bool window_idelta(struct window *window, double *out) {
    return last_two(window, false, out);
}

static bool window_sum(struct window *window, double *out) {
    double sum = 0, c = 0;
    for (size_t i = window->low; i < window->high; i++)
        kahan_add(window->values[i], &sum, &c);
    *out = isinf(sum) ? sum : sum + c;
    return true;
}

static bool window_avg(struct window *window, double *out) {
    double sum = window->values[window->low], c = 0, mean = 0, count = 1;
    bool is_incremental = false;
    for (size_t i = window->low + 1; i < window->high; i++) {
        count = (double)(i - window->low + 1);
        if (!is_incremental) {
            double new_sum = sum, new_c = c;
            kahan_add(window->values[i], &new_sum, &new_c);
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
        kahan_add(window->values[i] / count, &mean, &c);
    }
    *out = is_incremental ? mean + c : sum / count + c / count;
    return true;
}

static bool extreme_find(struct window *window, bool want_max, double *out) {
    const double *values = window->values;
    if (window->extreme < window->low || window->seen <= window->low) {
        window->extreme = window->low; /* the best has left the window: look again */
        window->seen = window->low + 1;
    }
    for (size_t i = window->seen; i < window->high; i++) {
        double best = values[window->extreme];
        if ((want_max ? values[i] > best : values[i] < best) || isnan(best))
            window->extreme = i;
    }
    window->seen = window->high;
    *out = values[window->extreme];
    return true;
}

static bool window_max(struct window *window, double *out) {
    return extreme_find(window, true, out);
}

static bool window_min(struct window *window, double *out) {
    return extreme_find(window, false, out);
}

static bool window_count(struct window *window, double *out) {
    *out = (double)(window->high - window->low);
    return true;
}

static bool window_present(struct window *window, double *out) {
    (void)window;
    *out = 1;
    return true;
}

static bool window_last(struct window *window, double *out) {
    *out = window->values[window->high - 1];
    return true;
}

static bool window_first(struct window *window, double *out) {
    *out = window->values[window->low];
    return true;
}

static bool window_changes(struct window *window, double *out) {
    size_t changes = 0;
    for (size_t i = window->low + 1; i < window->high; i++) {
        double a = window->values[i - 1], b = window->values[i];
        changes += a != b && !(isnan(a) && isnan(b));
    }
    *out = (double)changes;
    return true;
}

static bool window_resets(struct window *window, double *out) {
    size_t resets = 0;
    for (size_t i = window->low + 1; i < window->high; i++)
        resets += window->values[i] < window->values[i - 1];
    *out = (double)resets;
    return true;
}

static window_fn window_function(enum function_id id) {
    switch (id) {
    case FUNCTION_RATE:
        return window_rate;
    case FUNCTION_INCREASE:
        return window_increase;
    case FUNCTION_DELTA:
        return window_delta;
    case FUNCTION_IRATE:
        return window_irate;
    case FUNCTION_IDELTA:
        return window_idelta;
    case FUNCTION_SUM_OVER_TIME:
        return window_sum;
    case FUNCTION_AVG_OVER_TIME:
        return window_avg;
    case FUNCTION_MAX_OVER_TIME:
        return window_max;
    case FUNCTION_MIN_OVER_TIME:
        return window_min;
    case FUNCTION_COUNT_OVER_TIME:
        return window_count;
    case FUNCTION_ABSENT_OVER_TIME:
    case FUNCTION_PRESENT_OVER_TIME:
        return window_present;
    case FUNCTION_LAST_OVER_TIME:
        return window_last;
    case FUNCTION_FIRST_OVER_TIME:
        return window_first;
    case FUNCTION_CHANGES:
        return window_changes;
    case FUNCTION_RESETS:
        return window_resets;
    default:
        return NULL;
    }
}

struct range_call {
    struct eval_node base;
    struct range_source source;
    struct ast *call;
    window_fn function;
    bool drop_name;
    double *values;
    uint64_t *present;
};

/* A window may hold millions of samples and most functions read all of them at every step: the clock is
 * looked at between. */
#define WINDOW_WORK_MAX (1u << 20)

static int windows_slide(struct range_call *call) {
    const struct range_source *source = &call->source;
    const struct grid *grid = &call->base.grid;
    const struct sample_columns *columns = &source->columns;
    struct window window = {
        .times_ms = columns->times_ms, .values = columns->values, .range_s = (double)source->range_ms / 1000};
    memset(call->present, 0, bits_words(grid->count) * sizeof *call->present);
    size_t steps = source->is_fixed ? 1 : grid->count, work = 0;
    for (size_t i = 0; i < steps; i++) {
        window.end_ms = (source->is_fixed ? source->fixed_ms : grid_time(grid, i)) - source->offset_ms;
        window.start_ms = window.end_ms - source->range_ms;
        for (; window.high < columns->count && columns->times_ms[window.high] <= window.end_ms;
             window.high++) {
            if (window.high > 0 && columns->values[window.high] < columns->values[window.high - 1])
                window.reset = window.high;
        }
        while (window.low < window.high && columns->times_ms[window.low] <= window.start_ms)
            window.low++;
        if (window.low < window.high && call->function(&window, &call->values[i]))
            bits_set(call->present, i);
        work += window.high - window.low;
        if (work > WINDOW_WORK_MAX) {
            int status = eval_check(call->base.eval);
            if (status < 0)
                return status;
            work = 0;
        }
    }
    if (source->is_fixed && grid->count > 0 && bits_get(call->present, 0)) {
        bits_fill(call->present, grid->count);
        for (size_t i = 1; i < grid->count; i++)
            call->values[i] = call->values[0];
    }
    return STATUS_OK;
}

static bool has_suffix(struct slice s, const char *suffix) {
    size_t len = strlen(suffix);
    return s.len >= len && memcmp(s.data + s.len - len, suffix, len) == 0;
}

static void counter_name_check(struct range_call *call, struct slice name) {
    if (name.len == 0 || has_suffix(name, "_total") || has_suffix(name, "_sum") ||
        has_suffix(name, "_count") || has_suffix(name, "_bucket"))
        return;
    struct buf quoted;
    buf_init(&quoted);
    text_quote(&quoted, name);
    if (!quoted.failed)
        annotate(call->base.eval, true, call->call->call.args[0]->start,
                 "PromQL info: metric might not be a counter, name does not end in "
                 "_total/_sum/_count/_bucket: %.*s",
                 (int)quoted.len, (const char *)quoted.data);
    buf_release(&quoted);
}

static int range_next(struct eval_node *node, struct eval_series *out) {
    struct range_call *call = (struct range_call *)node;
    enum function_id id = call->call->call.function->id;
    for (;;) {
        int status = range_source_next(&call->source);
        if (status != STATUS_OK)
            return status;
        status = windows_slide(call);
        if (status < 0)
            return status;
        if (!bits_any(call->present, node->grid.count))
            continue;
        if (id == FUNCTION_RATE || id == FUNCTION_INCREASE)
            counter_name_check(call, labels_get(call->source.labels, call->source.label_count, NAME_LABEL));
        *out =
            (struct eval_series){call->source.labels, call->source.label_count, call->values, call->present};
        if (call->drop_name)
            labels_drop_name(out);
        return STATUS_OK;
    }
}

static void range_release(struct eval_node *node) {
    range_source_close(&((struct range_call *)node)->source);
}

int range_node(struct eval *eval, struct ast *ast, struct grid grid, struct eval_node **out) {
    int status = STATUS_OK;
    struct range_call *call = node_new(eval, sizeof *call, grid, range_next);
    if (call == NULL)
        return eval_no_room(eval);
    enum function_id id = ast->call.function->id;
    call->base.release = range_release;
    call->call = ast;
    call->function = window_function(id);
    ASSERT(call->function != NULL);
    call->drop_name = id != FUNCTION_LAST_OVER_TIME && id != FUNCTION_FIRST_OVER_TIME;
    call->values = eval_alloc(eval, (grid.count + 1) * sizeof(double));
    call->present = eval_alloc(eval, (bits_words(grid.count) + 1) * 8);
    if (call->values == NULL || call->present == NULL)
        return eval_no_room(eval);
    TRY(range_source_open(eval, ast->call.args[0], grid, &call->source));
    call->base.unique_nameless = call->drop_name || call->source.unique_nameless;
    *out = &call->base;
    if (call->drop_name && !call->source.unique_nameless)
        TRY(merge_node(eval, &call->base, true, NULL, out));
    (*out)->unique_nameless = call->base.unique_nameless;
out:
    return status;
}
