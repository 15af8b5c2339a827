/* limit.c: limitk and limit_ratio: some of the series, as they stream by. limitk takes the first k of each
 * group and step; limit_ratio those whose hash falls below the ratio, or, for a negative one, exactly the
 * others. */
#include "query/eval.h"

struct limit {
    struct eval_node base;
    struct ast *ast;
    struct eval_node *child;
    struct slice *names;
    size_t name_count;
    struct label *scratch;
    struct label_table table;
    uint64_t **taken; /* of a group, at every step (limitk) */
    double *params;   /* at every step */
    bool is_checked, is_empty;
};

static int limitk_check(struct limit *limit, double lowest, double highest, bool any_nan) {
    struct eval *eval = limit->base.eval;
    char text[64];
    limit->is_empty = highest < 1 && !any_nan;
    if (limit->is_empty)
        return STATUS_OK;
    if (any_nan)
        return eval_fail(eval, "Parameter value is NaN");
    go_float(highest >= 9223372036854775808.0 ? highest : lowest, text);
    if (highest >= 9223372036854775808.0)
        return eval_fail(eval, "Scalar value %s overflows int64", text);
    if (lowest <= -9223372036854775808.0)
        return eval_fail(eval, "Scalar value %s underflows int64", text);
    return STATUS_OK;
}

static void ratio_annotate(struct limit *limit, double ratio, double cap) {
    char text[64];
    go_float(ratio, text);
    annotate(limit->base.eval, false, limit->ast->aggregate.param->start,
             "PromQL warning: ratio value should be between -1 and 1, got %s, capping to %.0f", text, cap);
}

static int params_check(struct limit *limit) {
    double highest = -INFINITY, lowest = INFINITY;
    bool any_nan = false;
    for (size_t i = 0; i < limit->base.grid.count; i++) {
        highest = fmax(highest, limit->params[i]);
        lowest = fmin(lowest, limit->params[i]);
        any_nan = any_nan || isnan(limit->params[i]);
    }
    if (limit->ast->aggregate.op == TOKEN_LIMITK)
        return limitk_check(limit, lowest, highest, any_nan);
    limit->is_empty = highest == 0 && lowest == 0 && !any_nan;
    if (limit->is_empty)
        return STATUS_OK;
    if (any_nan)
        return eval_fail(limit->base.eval, "Ratio value is NaN");
    if (highest > 1)
        ratio_annotate(limit, highest, 1);
    if (lowest < -1)
        ratio_annotate(limit, lowest, -1);
    return STATUS_OK;
}

static void ratio_filter(struct limit *limit, struct eval_series *series) {
    double place = (double)labels_hash_stable(series->labels, series->label_count) / 18446744073709551616.0;
    for (BITS_EACH(i, series->present, limit->base.grid.count)) {
        double ratio = fmin(1, fmax(-1, limit->params[i]));
        if (!(ratio >= 0 ? place < ratio : place >= 1 + ratio))
            bits_clear(series->present, i);
    }
}

static int limitk_filter(struct limit *limit, struct eval_series *series) {
    int status = STATUS_OK;
    struct eval *eval = limit->base.eval;
    size_t count = limit->base.grid.count, index;
    bool added;
    size_t label_count = labels_select(series->labels, series->label_count, limit->names, limit->name_count,
                                       !limit->ast->aggregate.without, limit->scratch);
    TRY(label_table_find(eval, &limit->table, limit->scratch, label_count, &index, &added));
    if (added) {
        uint64_t **grown = eval_push(eval, limit->taken, index, sizeof *grown);
        if (grown == NULL)
            return eval_no_room(eval);
        limit->taken = grown;
        TRY(eval_samples_check(eval, count));
        eval->samples_held += count;
        grown[index] = eval_alloc(eval, (count + 1) * sizeof **grown);
        if (grown[index] == NULL)
            return eval_no_room(eval);
    }
    uint64_t *taken = limit->taken[index];
    for (BITS_EACH(i, series->present, count)) {
        double k = limit->params[i];
        if (k >= 1 && (double)taken[i] < floor(k))
            taken[i]++;
        else
            bits_clear(series->present, i);
    }
out:
    return status;
}

static int limit_next(struct eval_node *node, struct eval_series *out) {
    struct limit *limit = (struct limit *)node;
    int status = STATUS_OK;
    if (!limit->is_checked) {
        TRY(params_check(limit));
        limit->is_checked = true;
    }
    if (limit->is_empty)
        return STATUS_END;
    while ((status = node_next(limit->child, out)) == STATUS_OK) {
        if (limit->ast->aggregate.op == TOKEN_LIMIT_RATIO)
            ratio_filter(limit, out);
        else
            TRY(limitk_filter(limit, out));
        if (bits_any(out->present, node->grid.count))
            return STATUS_OK;
    }
out:
    return status;
}

int limit_node(struct eval *eval, struct ast *ast, struct grid grid, struct eval_node **out) {
    int status = STATUS_OK;
    struct limit *limit = node_new(eval, sizeof *limit, grid, limit_next);
    if (limit == NULL)
        return eval_no_room(eval);
    limit->ast = ast;
    limit->scratch = eval_alloc(eval, (STORAGE_LABELS_MAX + 2) * sizeof(struct label));
    if (limit->scratch == NULL)
        return eval_no_room(eval);
    TRY(names_sort(eval, ast->aggregate.labels, ast->aggregate.label_count, &limit->names,
                   &limit->name_count));
    TRY(scalar_column(eval, ast->aggregate.param, grid, &limit->params));
    TRY(node_build(eval, ast->aggregate.expr, grid, &limit->child));
    limit->base.unique_nameless = limit->child->unique_nameless;
    *out = &limit->base;
out:
    return status;
}
