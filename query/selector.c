/* selector.c: instant selectors. A series is read and decoded once for the whole query; the newest sample
 * moves along with the steps. */
#include "query/eval.h"

#include "base/bytes.h"
#include "query/parallel.h"

struct selector {
    struct eval_node base;
    struct column_reader reader;
    int64_t offset_ms;
    int64_t lookback_ms;
    bool is_fixed;
    bool timestamps; /* the samples' times instead of their values */
    bool smoothed;   /* between samples: a line through both neighbours */
    int64_t fixed_ms;
    struct label *labels;
};

/* The newest sample in (time - lookback, time], if it is no stale marker. */
static bool newest_find(const struct selector *selector, const struct sample_columns *columns, int64_t time,
                        size_t *at, double *out) {
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
static bool smoothed_find(const struct selector *selector, const struct sample_columns *columns, int64_t time,
                          size_t *at, double *out) {
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

static void selector_column(void *context, struct column_worker *worker, struct column_slot *slot) {
    const struct selector *selector = context;
    const struct sample_columns *columns = &worker->columns;
    const struct grid *grid = &selector->base.grid;
    size_t at = 0, steps = selector->is_fixed ? 1 : grid->count;
    for (size_t i = 0; i < steps; i++) {
        int64_t time = (selector->is_fixed ? selector->fixed_ms : grid_time(grid, i)) - selector->offset_ms;
        if (selector->smoothed ? smoothed_find(selector, columns, time, &at, &slot->values[i])
                               : newest_find(selector, columns, time, &at, &slot->values[i]))
            bits_set(slot->present, i);
    }
    if (selector->is_fixed && grid->count > 0 && bits_get(slot->present, 0)) {
        bits_fill(slot->present, grid->count);
        for (size_t i = 1; i < grid->count; i++)
            slot->values[i] = slot->values[0];
    }
    slot->queried = bits_count(slot->present, grid->count);
    for (size_t i = 0; slot->looked != NULL && i < grid->count; i++)
        slot->looked[i] = bits_get(slot->present, i);
}

static int selector_next(struct eval_node *node, struct eval_series *out) {
    struct selector *selector = (struct selector *)node;
    struct column_slot *slot;
    int status = column_reader_next(&selector->reader, &slot);
    if (status != STATUS_OK)
        return status;
    size_t label_count = column_labels(&selector->reader, slot, selector->labels);
    *out = (struct eval_series){selector->labels, label_count, slot->values, slot->present, false};
    return STATUS_OK;
}

static int selector_labels_ask(struct eval_node *node, const struct slice *names, size_t count) {
    struct column_reader *reader = &((struct selector *)node)->reader;
    static const struct slice none;
    reader->names = count == 0 ? &none : names;
    reader->name_count = count;
    return STATUS_OK;
}

static void selector_release(struct eval_node *node) {
    column_reader_close(&((struct selector *)node)->reader);
}

int selector_node(struct eval *eval, struct ast *ast, struct grid grid, bool timestamps,
                  struct eval_node **out) {
    int status = STATUS_OK;
    struct selector *selector = node_new(eval, sizeof *selector, grid, selector_next);
    if (selector == NULL)
        return eval_no_room(eval);
    selector->base.release = selector_release;
    selector->base.labels_ask = selector_labels_ask;
    selector->offset_ms = ast->selector.shift.offset_ms;
    selector->lookback_ms = eval->request->lookback_ms;
    selector->timestamps = timestamps;
    selector->smoothed = ast->selector.smoothed;
    selector->is_fixed = shift_fixed(eval, &ast->selector.shift, &selector->fixed_ms);
    int64_t first = selector->is_fixed ? selector->fixed_ms : grid.start_ms;
    int64_t last = selector->is_fixed ? selector->fixed_ms : grid_last(&grid);
    struct column_reader *reader = &selector->reader;
    reader->eval = eval;
    reader->node = &selector->base;
    reader->placing = placing_of(eval, selector->offset_ms, selector->is_fixed);
    reader->time_min_ms = time_clamp(first - selector->offset_ms - selector->lookback_ms + 1);
    reader->time_max_ms =
        time_clamp(last - selector->offset_ms + (selector->smoothed ? selector->lookback_ms : 0));
    reader->drop_stale = selector->smoothed;
    reader->newest_only = first == last && !selector->smoothed;
    reader->make = selector_column;
    reader->context = selector;
    selector->base.unique_nameless = matchers_name_one(ast);
    selector->labels = eval_alloc(eval, (STORAGE_LABELS_MAX + 1) * sizeof(struct label));
    if (selector->labels == NULL)
        return eval_no_room(eval);
    TRY(select_open(eval, ast->selector.matchers, ast->selector.matcher_count, reader->time_min_ms,
                    reader->time_max_ms, &reader->selection));
    TRY(column_reader_open(reader, grid.count));
    *out = &selector->base;
out:
    return status;
}
