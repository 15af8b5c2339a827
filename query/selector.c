/* selector.c: instant selectors. A series is read and decoded once for the whole query; the newest sample
 * moves along with the steps. */
#include "query/eval.h"

#include "base/bytes.h"

struct selector {
    struct eval_node base;
    struct storage_selection *selection;
    size_t index;
    int64_t offset_ms;
    int64_t lookback_ms;
    bool is_fixed;
    bool timestamps; /* the samples' times instead of their values */
    bool smoothed;   /* between samples: a line through both neighbours */
    int64_t fixed_ms;
    int64_t time_min_ms, time_max_ms;
    struct sample_columns columns;
    struct label *labels;
    double *values;
    uint64_t *present;
};

/* The newest sample in (time - lookback, time], if it is no stale marker. */
static bool newest_find(const struct selector *selector, int64_t time, size_t *at, double *out) {
    const struct sample_columns *columns = &selector->columns;
    while (*at < columns->count && columns->times_ms[*at] <= time)
        (*at)++; /* samples [0, at) are not later than the step */
    if (*at == 0 || columns->times_ms[*at - 1] <= time - selector->lookback_ms)
        return false;
    double value = columns->values[*at - 1];
    if (double_bits(value) == STALE_NAN_BITS)
        return false;
    *out = selector->timestamps ? (double)columns->times_ms[*at - 1] / 1000 : value;
    return true;
}

/* The sample at the time itself, else the point on the line between the neighbours, both within lookback;
 * with none behind, the one before. Stale markers are gone already. */
static bool smoothed_find(const struct selector *selector, int64_t time, size_t *at, double *out) {
    const struct sample_columns *columns = &selector->columns;
    while (*at < columns->count && columns->times_ms[*at] < time)
        (*at)++;
    if (*at < columns->count && columns->times_ms[*at] == time) {
        *out = columns->values[*at];
        return true;
    }
    if (*at == 0 || columns->times_ms[*at - 1] <= time - selector->lookback_ms)
        return false;
    *out = columns->values[*at - 1];
    if (*at < columns->count && columns->times_ms[*at] <= time + selector->lookback_ms) {
        struct extended_window window = {.times_ms = columns->times_ms, .values = columns->values};
        *out = extended_interpolate(&window, *at - 1, *at, time, false);
    }
    return true;
}

static void selector_column(struct selector *selector) {
    const struct grid *grid = &selector->base.grid;
    memset(selector->present, 0, bits_words(grid->count) * sizeof *selector->present);
    size_t at = 0, steps = selector->is_fixed ? 1 : grid->count;
    for (size_t i = 0; i < steps; i++) {
        int64_t time = (selector->is_fixed ? selector->fixed_ms : grid_time(grid, i)) - selector->offset_ms;
        if (selector->smoothed ? smoothed_find(selector, time, &at, &selector->values[i])
                               : newest_find(selector, time, &at, &selector->values[i]))
            bits_set(selector->present, i);
    }
    selector->base.eval->samples_queried += bits_count(selector->present, grid->count);
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
        if (selector->smoothed)
            stale_drop(&selector->columns);
        if (selector->columns.count == 0)
            continue;
        selector_column(selector);
        if (!bits_any(selector->present, node->grid.count))
            continue;
        out->labels = selector->labels;
        out->label_count = selection_labels(selector->selection, index, selector->labels);
        out->values = selector->values;
        out->present = selector->present;
        out->drop_name = false;
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
    struct selector *selector = node_new(eval, sizeof *selector, grid, selector_next);
    if (selector == NULL)
        return eval_no_room(eval);
    selector->base.release = selector_release;
    selector->offset_ms = ast->selector.shift.offset_ms;
    selector->lookback_ms = eval->request->lookback_ms;
    selector->timestamps = timestamps;
    selector->smoothed = ast->selector.smoothed;
    selector->is_fixed = shift_fixed(eval, &ast->selector.shift, &selector->fixed_ms);
    int64_t first = selector->is_fixed ? selector->fixed_ms : grid.start_ms;
    int64_t last = selector->is_fixed ? selector->fixed_ms : grid_last(&grid);
    selector->time_min_ms = time_clamp(first - selector->offset_ms - selector->lookback_ms + 1);
    selector->time_max_ms =
        time_clamp(last - selector->offset_ms + (selector->smoothed ? selector->lookback_ms : 0));
    selector->base.unique_nameless = matchers_name_one(ast);
    selector->labels = eval_alloc(eval, (STORAGE_LABELS_MAX + 1) * sizeof(struct label));
    selector->values = eval_alloc(eval, (grid.count + 1) * sizeof(double));
    selector->present = eval_alloc(eval, (bits_words(grid.count) + 1) * 8);
    if (selector->labels == NULL || selector->values == NULL || selector->present == NULL)
        return eval_no_room(eval);
    TRY(select_open(eval, ast->selector.matchers, ast->selector.matcher_count, selector->time_min_ms,
                    selector->time_max_ms, &selector->selection));
    *out = &selector->base;
out:
    return status;
}
