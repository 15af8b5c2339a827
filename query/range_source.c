/* range_source.c: range vectors: selectors and subqueries, each series with all samples that any window may
 * need. */
#include "query/eval.h"

#include <stdio.h>

#include "base/bytes.h"

#define TIME_FLOOR   (INT64_MIN / 4)
#define TIME_CEILING (INT64_MAX / 4)

int64_t time_clamp(int64_t ms) {
    return ms < TIME_FLOOR ? TIME_FLOOR : ms > TIME_CEILING ? TIME_CEILING : ms;
}

bool shift_fixed(const struct eval *eval, const struct ast_shift *shift, int64_t *ms_out) {
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

bool matchers_name_one(const struct ast *selector) {
    for (size_t i = 0; i < selector->selector.matcher_count; i++) {
        const struct matcher *matcher = &selector->selector.matchers[i];
        if (matcher->kind == MATCHER_EQUAL && matcher->value.len > 0 &&
            slice_equal(matcher->name, NAME_LABEL))
            return true;
    }
    return false;
}

int select_open(struct eval *eval, const struct matcher *matchers, size_t count, int64_t time_min_ms,
                int64_t time_max_ms, struct storage_selection **out) {
    int status = storage_select(eval->storage, matchers, count, time_min_ms, time_max_ms, 0, out);
    if (status == STATUS_NO_MEMORY)
        return eval_no_room(eval);
    if (status < 0)
        return eval_fail(eval, "expanding series: %s", status_message(status));
    eval_damage_note(eval, *out);
    return STATUS_OK;
}

int series_read(struct eval *eval, struct storage_selection *selection, size_t index,
                const struct placing *placing, int64_t time_min_ms, int64_t time_max_ms,
                struct sample_columns *columns) {
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
    eval_damage_note(eval, selection);
    eval->samples_read += columns->count;
    for (size_t i = 0; eval->read_at_step != NULL && i < columns->count; i++)
        eval->read_at_step[placing_step(eval, placing, columns->times_ms[i])]++;
    return eval_samples_check(eval, columns->count);
}

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
    enum counting counting = eval->counting;
    struct placing placing = eval->placing;
    eval->placing = source->placing;
    eval->counting = COUNT_NOT;
    int status = node_build(eval, ast->range.expr, grid, &source->child);
    eval->counting = counting;
    eval->placing = placing;
    if (status >= 0)
        source->unique_nameless = source->child->unique_nameless;
    return status;
}

int range_source_open(struct eval *eval, struct ast *ast, struct grid grid, struct range_source *source) {
    ast = ast_unparen(ast);
    *source = (struct range_source){.eval = eval, .grid = grid, .range_ms = ast->range.range_ms};
    if (ast->kind == AST_MATRIX && (ast->range.anchored || ast->range.smoothed)) {
        source->before_ms = eval->request->lookback_ms;
        source->after_ms = ast->range.smoothed ? eval->request->lookback_ms : 0;
    }
    const struct ast_shift *shift =
        ast->kind == AST_MATRIX ? &ast->range.expr->selector.shift : &ast->range.shift;
    source->offset_ms = shift->offset_ms;
    source->is_fixed = shift_fixed(eval, shift, &source->fixed_ms);
    source->placing = placing_of(eval, source->offset_ms, source->is_fixed);
    if (ast->kind == AST_SUBQUERY)
        return subquery_open(eval, ast, source);
    int64_t first = source->is_fixed ? source->fixed_ms : grid.start_ms;
    int64_t last = source->is_fixed ? source->fixed_ms : grid_last(&grid);
    source->time_min_ms = time_clamp(first - source->offset_ms - source->range_ms - source->before_ms + 1);
    source->time_max_ms = time_clamp(last - source->offset_ms + source->after_ms);
    source->unique_nameless = matchers_name_one(ast->range.expr);
    source->labels = eval_alloc(eval, (STORAGE_LABELS_MAX + 1) * sizeof(struct label));
    if (source->labels == NULL)
        return eval_no_room(eval);
    return select_open(eval, ast->range.expr->selector.matchers, ast->range.expr->selector.matcher_count,
                       source->time_min_ms, source->time_max_ms, &source->selection);
}

void stale_drop(struct sample_columns *columns) {
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
    source->drop_name = series.drop_name;
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
        int status = series_read(source->eval, source->selection, index, &source->placing,
                                 source->time_min_ms, source->time_max_ms, &source->columns);
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
