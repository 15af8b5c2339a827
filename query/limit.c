/* limit.c: limitk and limit_ratio: some of the series, as they stream by. limitk takes the first k of each
 * group and step; limit_ratio those whose hash falls below the ratio, or, for a negative one, exactly the
 * others. */
#include "query/eval.h"

struct limit {
    struct eval_node base;
    struct ast *ast;
    struct grouping grouping;
    uint64_t **taken; /* of a group, at every step (limitk) */
    bool is_checked, is_empty;
};

static int limitk_check(struct limit *limit, const struct value_range *k) {
    struct eval *eval = limit->base.eval;
    char text[64];
    limit->is_empty = k->highest < 1 && !k->any_nan;
    if (limit->is_empty)
        return STATUS_OK;
    if (k->any_nan)
        return eval_fail(eval, "Parameter value is NaN");
    go_float(k->highest >= 9223372036854775808.0 ? k->highest : k->lowest, text);
    if (k->highest >= 9223372036854775808.0)
        return eval_fail(eval, "Scalar value %s overflows int64", text);
    if (k->lowest <= -9223372036854775808.0)
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
    struct value_range ratio = values_range(limit->grouping.params, limit->base.grid.count);
    if (limit->ast->aggregate.op == TOKEN_LIMITK)
        return limitk_check(limit, &ratio);
    limit->is_empty = ratio.highest == 0 && ratio.lowest == 0 && !ratio.any_nan;
    if (limit->is_empty)
        return STATUS_OK;
    if (ratio.any_nan)
        return eval_fail(limit->base.eval, "Ratio value is NaN");
    if (ratio.highest > 1)
        ratio_annotate(limit, ratio.highest, 1);
    if (ratio.lowest < -1)
        ratio_annotate(limit, ratio.lowest, -1);
    return STATUS_OK;
}

static void ratio_filter(struct limit *limit, struct eval_series *series) {
    double place = (double)labels_hash_stable(series->labels, series->label_count) / 18446744073709551616.0;
    for (BITS_EACH(i, series->present, limit->base.grid.count)) {
        double ratio = fmin(1, fmax(-1, limit->grouping.params[i]));
        if (!(ratio >= 0 ? place < ratio : place >= 1 + ratio))
            bits_clear(series->present, i);
    }
}

static int limitk_filter(struct limit *limit, struct eval_series *series) {
    int status = STATUS_OK;
    struct eval *eval = limit->base.eval;
    size_t count = limit->base.grid.count, index;
    bool added;
    TRY(grouping_find(eval, &limit->grouping, series, &index, &added));
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
        double k = limit->grouping.params[i];
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
    while ((status = node_next(limit->grouping.child, out)) == STATUS_OK) {
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
    TRY(grouping_open(eval, ast, grid, &limit->grouping));
    limit->base.unique_nameless = limit->grouping.child->unique_nameless;
    *out = &limit->base;
out:
    return status;
}
