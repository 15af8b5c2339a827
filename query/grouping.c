/* grouping.c: what all aggregations have in common: where series belong. */
#include "query/eval.h"

int grouping_open(struct eval *eval, struct ast *ast, struct grid grid, struct grouping *grouping) {
    int status = STATUS_OK;
    const struct ast *param = ast->aggregate.param;
    grouping->without = ast->aggregate.without;
    grouping->scratch = eval_alloc(eval, (STORAGE_LABELS_MAX + 2) * sizeof *grouping->scratch);
    if (grouping->scratch == NULL)
        return eval_no_room(eval);
    TRY(names_sort(eval, ast->aggregate.labels, ast->aggregate.label_count, &grouping->names,
                   &grouping->name_count));
    if (param != NULL && param->type == VALUE_SCALAR)
        TRY(scalar_column(eval, ast->aggregate.param, grid, &grouping->params));
    TRY(node_build(eval, ast->aggregate.expr, grid, &grouping->child));
out:
    return status;
}

int grouping_labels_ask(struct grouping *grouping) {
    struct eval_node *child = grouping->child;
    return grouping->without || child->labels_ask == NULL
               ? STATUS_OK
               : child->labels_ask(child, grouping->names, grouping->name_count);
}

int grouping_find(struct eval *eval, struct grouping *grouping, const struct eval_series *series,
                  size_t *index_out, bool *added_out) {
    size_t count = labels_select(series->labels, series->label_count, grouping->names, grouping->name_count,
                                 !grouping->without, grouping->scratch);
    return label_table_find(eval, &grouping->table, grouping->scratch, count, index_out, added_out);
}

bool grouping_unique(const struct grouping *grouping) {
    return names_stay_unique(grouping->names, grouping->name_count, grouping->without);
}

struct value_range values_range(const double *values, size_t count) {
    struct value_range range = {INFINITY, -INFINITY, false};
    for (size_t i = 0; i < count; i++) {
        range.lowest = fmin(range.lowest, values[i]);
        range.highest = fmax(range.highest, values[i]);
        range.any_nan = range.any_nan || isnan(values[i]);
    }
    return range;
}
