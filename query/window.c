/* window.c: functions over ranges. Windows slide over a series' samples with two moving indices; some
 * functions carry on from the window before. */
#include "query/window.h"

#include "base/alloc.h"
#include "base/assert.h"
#include "query/functions.h"
#include "query/parallel.h"

/* ---- Counters and gauges --------------------------------------------------------------------------------
 */

/* Between the values at the very edges; counters add what each reset lost. */
static bool extended_delta(const struct window *window, bool is_counter, bool is_rate, double *out) {
    struct extended_window extended = {window->times_ms, window->values, window->low,     window->high,
                                       window->start_ms, window->end_ms, window->smoothed};
    double left, right;
    size_t first, last;
    if (!extended_edges(&extended, is_counter, &left, &right, &first, &last))
        return false;
    double result = right - left;
    if (is_counter) {
        double correction = 0, previous = left;
        for (size_t i = first; i < last; i++) {
            if (window->values[i] < previous)
                correction += previous;
            previous = window->values[i];
        }
        if (right < previous)
            correction += previous;
        result += correction;
    }
    *out = is_rate ? result / window->range_s : result;
    return true;
}

/* What each reset in the window lost, added in order. Where windows overlap, a list has the resets, so that
 * only these are looked at. */
static double resets_add(struct window *window, double result) {
    const double *values = window->values;
    size_t *list = window->scratch, low = window->low, high = window->high;
    if (!window->overlaps) {
        for (size_t i = low + 1; i < high; i++) {
            if (values[i] < values[i - 1])
                result += values[i - 1];
        }
        return result;
    }
    for (size_t i = window->seen; i < high; i++) {
        if (i > 0 && values[i] < values[i - 1])
            list[window->last++] = i;
    }
    window->seen = high;
    while (window->first < window->last && list[window->first] <= low)
        window->first++;
    for (size_t i = window->first; i < window->last; i++)
        result += values[list[i] - 1];
    return result;
}

static double edges_factor(const struct window *window, double to_start, bool is_rate) {
    const struct window_edges *edges = &window->edges;
    double factor = edges->sampled == 0 ? 1 : (edges->sampled + to_start + edges->to_end) / edges->sampled;
    return is_rate ? factor / window->range_s : factor;
}

/* Where samples come evenly these are the same in window after window, and nothing is divided. */
static void edges_find(struct window *window, bool is_rate) {
    struct window_edges *edges = &window->edges;
    int64_t first_ms = window->times_ms[window->low], last_ms = window->times_ms[window->high - 1];
    int64_t start_ms = first_ms - window->start_ms, sampled_ms = last_ms - first_ms;
    size_t count = window->high - window->low;
    if (count == edges->count && start_ms == edges->start_ms && sampled_ms == edges->sampled_ms)
        return; /* then the rest of the range is the same too */
    *edges = (struct window_edges){.count = count,
                                   .start_ms = start_ms,
                                   .sampled_ms = sampled_ms,
                                   .to_start = (double)start_ms / 1000,
                                   .to_end = (double)(window->end_ms - last_ms) / 1000,
                                   .sampled = (double)sampled_ms / 1000};
    double average = edges->sampled / (double)(count - 1), threshold = average * 1.1;
    if (edges->to_start >= threshold)
        edges->to_start = average / 2;
    if (edges->to_end >= threshold)
        edges->to_end = average / 2;
    edges->factor = edges_factor(window, edges->to_start, is_rate);
}

/* Is sampled * (first / result), as it is rounded, surely not below to_start? Most counters are far from 0.
 */
static bool zero_is_far(const struct window_edges *edges, double first, double result) {
    return first > 1e-200 && first * edges->sampled > edges->to_start * result * (1 + 1e-10);
}

static bool extrapolate(struct window *window, bool is_counter, bool is_rate, double *out) {
    const double *values = window->values;
    size_t low = window->low, high = window->high;
    if (window->is_extended)
        return extended_delta(window, is_counter, is_rate, out);
    if (high - low < 2)
        return false;
    double result = values[high - 1] - values[low];
    if (is_counter)
        result = resets_add(window, result);
    edges_find(window, is_rate);
    const struct window_edges *edges = &window->edges;
    double factor = edges->factor;
    if (is_counter && result > 0 && values[low] >= 0 && !zero_is_far(edges, values[low], result)) {
        double to_zero = edges->sampled * (values[low] / result);
        if (to_zero < edges->to_start)
            factor = edges_factor(window, to_zero, is_rate);
    }
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

/* How many neighbours in [low, high) differ (`resets`: fall). Carries on from the window before. */
static size_t events_count(struct window *window, size_t low, size_t high, bool resets) {
    const double *values = window->values;
    if (window->events_high <= low || window->events_high > high) {
        window->events = 0;
        window->events_low = low;
        window->events_high = low + 1;
    }
#define IS_EVENT(i)                                                                                          \
    (resets ? values[i] < values[(i)-1]                                                                      \
            : values[i] != values[(i)-1] && !(isnan(values[i]) && isnan(values[(i)-1])))
    for (; window->events_high < high; window->events_high++)
        window->events += IS_EVENT(window->events_high);
    for (; window->events_low < low; window->events_low++)
        window->events -= IS_EVENT(window->events_low + 1);
#undef IS_EVENT
    return window->events;
}

static bool events_window(struct window *window, bool resets, double *out) {
    size_t low = window->low, high = window->high;
    if (window->is_extended) {
        /* Anchored: the latest sample at or before the start counts too. */
        if (window->times_ms[high - 1] <= window->start_ms)
            return false;
        while (low + 1 < high && window->times_ms[low + 1] <= window->start_ms)
            low++;
    }
    *out = (double)events_count(window, low, high, resets);
    return true;
}

static bool window_changes(struct window *window, double *out) {
    return events_window(window, false, out);
}

static bool window_resets(struct window *window, double *out) {
    return events_window(window, true, out);
}

/* ---- Smoothing -------------------------------------------------------------------------------------------
 */

/* Holt and Winters' double exponential smoothing: a smooths the values, b their trend. */
static bool window_smoothing(struct window *window, double *out) {
    if (!(window->a > 0 && window->a < 1) && !isnan(window->a)) {
        window->status =
            eval_fail(window->eval, "invalid smoothing factor. Expected: 0 < sf < 1, got: %f", window->a);
        return false;
    }
    if (!(window->b > 0 && window->b < 1) && !isnan(window->b)) {
        window->status =
            eval_fail(window->eval, "invalid trend factor. Expected: 0 < tf < 1, got: %f", window->b);
        return false;
    }
    if (window->high - window->low < 2)
        return false;
    const double *values = window->values + window->low;
    double before = 0, smooth = values[0], trend = values[1] - values[0];
    for (size_t i = 1; i < window->high - window->low; i++) {
        double x = window->a * values[i];
        if (i > 1)
            trend = window->b * (smooth - before) + (1 - window->b) * trend;
        double y = (1 - window->a) * (smooth + trend);
        before = smooth;
        smooth = x + y;
    }
    *out = smooth;
    return true;
}

/* ---- Times ----------------------------------------------------------------------------------------------
 */

static bool window_ts_first(struct window *window, double *out) {
    *out = (double)window->times_ms[window->low] / 1000;
    return true;
}

static bool window_ts_last(struct window *window, double *out) {
    *out = (double)window->times_ms[window->high - 1] / 1000;
    return true;
}

/* ---- The table ------------------------------------------------------------------------------------------
 */

/* How a function reads its windows: one after the other, or some together. */
struct reading {
    window_fn one;
    windows_fn some;
    bool has_scratch;
};

static struct reading reading_of(enum function_id id) {
    switch (id) {
    case FUNCTION_RATE:
        return (struct reading){window_rate, NULL, true};
    case FUNCTION_INCREASE:
        return (struct reading){window_increase, NULL, true};
    case FUNCTION_DELTA:
        return (struct reading){window_delta, NULL, false};
    case FUNCTION_IRATE:
        return (struct reading){window_irate, NULL, false};
    case FUNCTION_IDELTA:
        return (struct reading){window_idelta, NULL, false};
    case FUNCTION_SUM_OVER_TIME:
        return (struct reading){window_sum, NULL, true};
    case FUNCTION_AVG_OVER_TIME:
        return (struct reading){NULL, windows_avg, true};
    case FUNCTION_MAX_OVER_TIME:
        return (struct reading){window_max, NULL, true};
    case FUNCTION_MIN_OVER_TIME:
        return (struct reading){window_min, NULL, true};
    case FUNCTION_COUNT_OVER_TIME:
        return (struct reading){window_count, NULL, false};
    case FUNCTION_ABSENT_OVER_TIME:
    case FUNCTION_PRESENT_OVER_TIME:
        return (struct reading){window_present, NULL, false};
    case FUNCTION_LAST_OVER_TIME:
        return (struct reading){window_last, NULL, false};
    case FUNCTION_FIRST_OVER_TIME:
        return (struct reading){window_first, NULL, false};
    case FUNCTION_CHANGES:
        return (struct reading){window_changes, NULL, false};
    case FUNCTION_RESETS:
        return (struct reading){window_resets, NULL, false};
    case FUNCTION_DERIV:
        return (struct reading){window_deriv, NULL, true};
    case FUNCTION_PREDICT_LINEAR:
        return (struct reading){window_predict, NULL, true};
    case FUNCTION_DOUBLE_EXPONENTIAL_SMOOTHING:
        return (struct reading){window_smoothing, NULL, false};
    case FUNCTION_STDDEV_OVER_TIME:
        return (struct reading){NULL, windows_stddev, true};
    case FUNCTION_STDVAR_OVER_TIME:
        return (struct reading){NULL, windows_stdvar, true};
    case FUNCTION_QUANTILE_OVER_TIME:
        return (struct reading){window_quantile, NULL, true};
    case FUNCTION_MAD_OVER_TIME:
        return (struct reading){window_mad, NULL, true};
    case FUNCTION_TS_OF_FIRST_OVER_TIME:
        return (struct reading){window_ts_first, NULL, false};
    case FUNCTION_TS_OF_LAST_OVER_TIME:
        return (struct reading){window_ts_last, NULL, false};
    case FUNCTION_TS_OF_MAX_OVER_TIME:
        return (struct reading){window_ts_max, NULL, true};
    case FUNCTION_TS_OF_MIN_OVER_TIME:
        return (struct reading){window_ts_min, NULL, true};
    default:
        return (struct reading){0};
    }
}

struct range_call {
    struct eval_node base;
    struct range_source source;
    struct ast *call;
    struct reading reading;
    bool keep_name;
    bool is_extended, smoothed;
    double *a, *b;               /* scalar arguments at every step, or NULL */
    struct column_reader reader; /* of a selector */
    struct column_worker worker; /* of a subquery */
    struct column_slot slot;
};

/* A window may hold millions of samples and some functions read all of them at every step: the clock is
 * looked at between. */
#define WINDOW_WORK_MAX (1u << 20)

/* Carrying over pays if a sample stands in that many windows. */
#define OVERLAP_MIN 8

static bool scratch_reserve(const struct range_call *call, struct column_worker *worker, size_t count) {
    size_t words = count * WINDOW_SCRATCH_WORDS + WINDOW_SCRATCH_EXTRA;
    if (!call->reading.has_scratch || words <= worker->scratch_count)
        return true;
    double *grown = mem_realloc(worker->scratch, words * 2 * sizeof *grown);
    if (grown == NULL)
        return false;
    worker->scratch = grown;
    worker->scratch_count = words * 2;
    return true;
}

/* Moves on to the window of a step; false: there is no sample in it. */
static bool window_move(const struct range_call *call, struct window *window, size_t step) {
    const struct range_source *source = &call->source;
    window->eval_ms = grid_time(&call->base.grid, step);
    window->end_ms = (source->is_fixed ? source->fixed_ms : window->eval_ms) - source->offset_ms;
    window->start_ms = window->end_ms - source->range_ms;
    while (window->high < window->count &&
           window->times_ms[window->high] <= window->end_ms + source->after_ms)
        window->high++;
    while (window->low < window->high &&
           window->times_ms[window->low] <= window->start_ms - source->before_ms)
        window->low++;
    if (call->a != NULL)
        window->a = call->a[step];
    if (call->b != NULL)
        window->b = call->b[step];
    return window->low < window->high;
}

static size_t samples_look(const struct window *window, struct column_slot *slot, size_t step) {
    size_t count = window->high - window->low;
    if (slot->looked != NULL)
        slot->looked[step] = (uint32_t)count;
    return count;
}

/* The windows from *step on, as many as are read together; *step moves behind them. Returns how many samples
 * they have in all. */
static size_t batch_read(const struct range_call *call, struct window *window, struct column_slot *slot,
                         size_t *step, size_t steps) {
    struct span spans[WINDOW_BATCH];
    double values[WINDOW_BATCH];
    size_t at[WINDOW_BATCH], count = 0, work = 0;
    for (; *step < steps && count < WINDOW_BATCH; ++*step) {
        if (!window_move(call, window, *step))
            continue;
        work += samples_look(window, slot, *step);
        at[count] = *step;
        spans[count++] = (struct span){window->low, window->high};
    }
    if (count > 0)
        call->reading.some(window, spans, count, values);
    for (size_t k = 0; k < count; k++) {
        slot->values[at[k]] = values[k];
        bits_set(slot->present, at[k]);
    }
    return work;
}

static size_t window_read(const struct range_call *call, struct window *window, struct column_slot *slot,
                          size_t step) {
    if (!window_move(call, window, step))
        return 0;
    if (call->reading.one(window, &slot->values[step]))
        bits_set(slot->present, step);
    if (window->status < 0)
        slot->status = window->status;
    return samples_look(window, slot, step);
}

/* All windows of one series. On any thread, unless the function says otherwise (speaks_up). */
static void windows_slide(void *context, struct column_worker *worker, struct column_slot *slot) {
    const struct range_call *call = context;
    const struct range_source *source = &call->source;
    const struct grid *grid = &call->base.grid;
    const struct sample_columns *columns = &worker->columns;
    if (!scratch_reserve(call, worker, columns->count)) {
        slot->status = STATUS_NO_MEMORY;
        return;
    }
    /* With @ all windows are one; only arguments and the time of evaluation can make steps differ. */
    bool once = source->is_fixed && call->a == NULL;
    size_t steps = once && grid->count > 1 ? 1 : grid->count, work = 0;
    struct window window = {.eval = call->base.eval,
                            .call = call->call,
                            .times_ms = columns->times_ms,
                            .values = columns->values,
                            .count = columns->count,
                            .range_s = (double)source->range_ms / 1000,
                            .scratch = worker->scratch,
                            .overlaps = steps >= OVERLAP_MIN && !source->is_fixed &&
                                        grid->step_ms <= source->range_ms / OVERLAP_MIN,
                            .is_extended = call->is_extended,
                            .smoothed = call->smoothed};
    for (size_t i = 0; i < steps && slot->status >= 0;) {
        size_t samples = call->reading.some != NULL ? batch_read(call, &window, slot, &i, steps)
                                                    : window_read(call, &window, slot, i++);
        work += samples;
        slot->queried += samples;
        if (work > WINDOW_WORK_MAX && slot->status >= 0) {
            slot->status = eval_stop_status(call->base.eval);
            work = 0;
        }
    }
    if (steps < grid->count && bits_get(slot->present, 0)) {
        bits_fill(slot->present, grid->count);
        for (size_t i = 1; i < grid->count; i++)
            slot->values[i] = slot->values[0];
    }
}

/* A series of a subquery. */
static int subquery_next(struct range_call *call, struct column_slot **slot_out) {
    struct column_slot *slot = &call->slot;
    struct eval *eval = call->base.eval;
    for (;;) {
        int status = range_source_next(&call->source);
        if (status != STATUS_OK)
            return status;
        column_slot_clear(slot, call->base.grid.count);
        call->worker.columns = call->source.columns; /* lent */
        windows_slide(call, &call->worker, slot);
        eval_samples_queried(&call->base, slot->queried, slot->looked);
        if (slot->status == STATUS_NO_MEMORY)
            return eval_no_room(eval);
        if (slot->status == STATUS_CANCELLED || slot->status == STATUS_TIMEOUT)
            return eval_stop(eval, slot->status);
        if (slot->status < 0)
            return slot->status;
        if (bits_any(slot->present, call->base.grid.count)) {
            *slot_out = slot;
            return STATUS_OK;
        }
    }
}

static int series_next(struct range_call *call, struct column_slot **slot_out) {
    struct range_source *source = &call->source;
    if (call->reader.selection == NULL)
        return subquery_next(call, slot_out);
    int status = column_reader_next(&call->reader, slot_out);
    if (status == STATUS_OK)
        source->label_count = column_labels(&call->reader, *slot_out, source->labels);
    return status;
}

/* ---- What may be no counter ------------------------------------------------------------------------------
 */

static bool has_suffix(struct slice s, const char *suffix) {
    size_t len = strlen(suffix);
    return s.len >= len && memcmp(s.data + s.len - len, suffix, len) == 0;
}

/* A series that says its type is believed; for others the name has to tell. */
static void counter_check(struct range_call *call) {
    const struct range_source *source = &call->source;
    struct slice name = labels_get(source->labels, source->label_count, NAME_LABEL);
    struct slice type = labels_get(source->labels, source->label_count, TYPE_LABEL);
    if (name.len == 0)
        return;
    bool is_counter =
        type.len > 0 ? slice_equal(type, slice_str("counter")) || slice_equal(type, slice_str("histogram"))
                     : has_suffix(name, "_total") || has_suffix(name, "_sum") || has_suffix(name, "_count") ||
                           has_suffix(name, "_bucket");
    if (is_counter)
        return;
    struct buf text;
    buf_init(&text);
    buf_append_str(&text, "PromQL info: metric might not be a counter, ");
    if (type.len > 0) {
        buf_append_str(&text, "__type__ label is not set to \"counter\" or \"histogram\", got ");
        text_quote(&text, type);
        buf_append_str(&text, ": ");
    } else {
        buf_append_str(&text, "name does not end in _total/_sum/_count/_bucket: ");
    }
    text_quote(&text, name);
    if (!text.failed)
        annotate(call->base.eval, true, call->call->call.args[0]->start, "%.*s", (int)text.len,
                 (const char *)text.data);
    buf_release(&text);
}

/* ---- The node -------------------------------------------------------------------------------------------
 */

static bool checks_counters(const struct range_call *call) {
    enum function_id id = call->call->call.function->id;
    return id == FUNCTION_RATE || id == FUNCTION_INCREASE;
}

static int range_next(struct eval_node *node, struct eval_series *out) {
    struct range_call *call = (struct range_call *)node;
    struct column_slot *slot;
    int status = series_next(call, &slot);
    if (status != STATUS_OK)
        return status;
    if (checks_counters(call))
        counter_check(call);
    *out = (struct eval_series){call->source.labels, call->source.label_count, slot->values, slot->present,
                                call->source.drop_name};
    if (!call->keep_name)
        series_drop_name(node->eval, out);
    return STATUS_OK;
}

static int range_labels_ask(struct eval_node *node, const struct slice *names, size_t count) {
    struct range_call *call = (struct range_call *)node;
    struct slice *wanted = eval_alloc(node->eval, (count + 2) * sizeof *wanted);
    if (wanted == NULL)
        return eval_no_room(node->eval);
    memcpy(wanted, names, count * sizeof *wanted);
    if (checks_counters(call)) {
        wanted[count++] = NAME_LABEL;
        wanted[count++] = TYPE_LABEL;
    }
    call->reader.names = wanted;
    call->reader.name_count = count;
    return STATUS_OK;
}

static void range_release(struct eval_node *node) {
    struct range_call *call = (struct range_call *)node;
    column_reader_close(&call->reader);
    range_source_close(&call->source);
    mem_free(call->worker.scratch);
}

/* What annotates or fails runs on the query's own thread. */
static bool speaks_up(const struct range_call *call) {
    enum function_id id = call->call->call.function->id;
    bool outside = false;
    for (size_t i = 0; id == FUNCTION_QUANTILE_OVER_TIME && i < call->base.grid.count; i++)
        outside = outside || !(call->a[i] >= 0 && call->a[i] <= 1);
    return outside || id == FUNCTION_DOUBLE_EXPONENTIAL_SMOOTHING;
}

static int reader_open(struct range_call *call) {
    struct column_reader *reader = &call->reader;
    struct range_source *source = &call->source;
    struct eval *eval = call->base.eval;
    size_t count = call->base.grid.count;
    reader->eval = eval;
    reader->node = &call->base;
    reader->make = windows_slide;
    reader->context = call;
    if (source->selection != NULL) {
        reader->selection = source->selection;
        source->selection = NULL;
        reader->placing = source->placing;
        reader->time_min_ms = source->time_min_ms;
        reader->time_max_ms = source->time_max_ms;
        reader->drop_stale = true;
        reader->alone = speaks_up(call);
        return column_reader_open(reader, count);
    }
    return column_slot_make(eval, count, &call->slot);
}

/* Which argument is the range, and which are scalars. */
static int range_args(struct range_call *call, struct ast *ast, struct ast **range_out) {
    int status = STATUS_OK;
    struct eval *eval = call->base.eval;
    struct ast **args = ast->call.args;
    double **scalars[] = {&call->a, &call->b};
    size_t scalar_count = 0;
    for (size_t i = 0; i < ast->call.arg_count; i++) {
        if (args[i]->type == VALUE_MATRIX)
            *range_out = args[i];
        else if (scalar_count < 2)
            TRY(scalar_column(eval, args[i], call->base.grid, scalars[scalar_count++]));
    }
out:
    return status;
}

int range_node(struct eval *eval, struct ast *ast, struct grid grid, struct eval_node **out) {
    int status = extended_check(eval, ast);
    if (status < 0)
        return status;
    struct range_call *call = node_new(eval, sizeof *call, grid, range_next);
    if (call == NULL)
        return eval_no_room(eval);
    enum function_id id = ast->call.function->id;
    struct ast *range = NULL;
    call->base.release = range_release;
    call->base.labels_ask = range_labels_ask;
    call->call = ast;
    call->reading = reading_of(id);
    call->keep_name = id == FUNCTION_LAST_OVER_TIME || id == FUNCTION_FIRST_OVER_TIME;
    TRY(range_args(call, ast, &range));
    ASSERT((call->reading.one != NULL || call->reading.some != NULL) && range != NULL);
    const struct ast *inner = ast_unparen(range);
    call->smoothed = inner->kind == AST_MATRIX && inner->range.smoothed;
    call->is_extended = call->smoothed || (inner->kind == AST_MATRIX && inner->range.anchored);
    TRY(range_source_open(eval, range, grid, &call->source));
    TRY(reader_open(call));
    bool names_gone = !call->keep_name && !eval->delayed_names;
    *out = &call->base;
    if (names_gone && !call->source.unique_nameless)
        TRY(merge_node(eval, &call->base, true, NULL, out));
    (*out)->unique_nameless = names_gone || call->source.unique_nameless;
out:
    return status;
}
