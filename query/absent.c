/* absent.c: one series that is made, not read: vector(s), absent(v), absent_over_time(m). */
#include <stdlib.h>

#include "query/eval.h"
#include "query/functions.h"

struct single {
    struct eval_node base;
    struct eval_node *absent_of; /* NULL: values are there already */
    bool done;
    struct label *labels;
    size_t label_count;
    double *values;
    uint64_t *present;
};

static int single_next(struct eval_node *node, struct eval_series *out) {
    struct single *single = (struct single *)node;
    if (single->done)
        return STATUS_END;
    single->done = true;
    size_t count = node->grid.count;
    bits_fill(single->present, count);
    if (single->absent_of != NULL) {
        int status;
        struct eval_series series;
        while ((status = node_next(single->absent_of, &series)) == STATUS_OK) {
            for (size_t i = 0; i < bits_words(count); i++)
                single->present[i] &= ~series.present[i];
        }
        if (status < 0)
            return status;
        for (size_t i = 0; i < count; i++)
            single->values[i] = 1;
    }
    if (!bits_any(single->present, count))
        return STATUS_END;
    *out = (struct eval_series){single->labels, single->label_count, single->values, single->present, false};
    return STATUS_OK;
}

static int single_node(struct eval *eval, struct grid grid, struct single **out) {
    struct single *single = node_new(eval, sizeof *single, grid, single_next);
    if (single == NULL)
        return eval_no_room(eval);
    single->base.unique_nameless = true;
    single->values = eval_alloc(eval, (grid.count + 1) * sizeof(double));
    single->present = eval_alloc(eval, (bits_words(grid.count) + 1) * 8);
    if (single->values == NULL || single->present == NULL)
        return eval_no_room(eval);
    *out = single;
    return STATUS_OK;
}

int vector_of_scalar_node(struct eval *eval, struct ast *scalar, struct grid grid, struct eval_node **out) {
    struct single *single;
    int status = single_node(eval, grid, &single);
    if (status >= 0)
        status = scalar_eval(eval, scalar, grid, single->values);
    if (status >= 0)
        *out = &single->base;
    return status;
}

int vector_of_time_node(struct eval *eval, struct grid grid, struct eval_node **out) {
    struct single *single;
    int status = single_node(eval, grid, &single);
    if (status < 0)
        return status;
    for (size_t i = 0; i < grid.count; i++)
        single->values[i] = (double)grid_time(&grid, i) / 1000;
    *out = &single->base;
    return STATUS_OK;
}

/* By name, and those of one name as they are written. */
static int matcher_order(const void *a, const void *b) {
    const struct matcher *left = *(const struct matcher *const *)a,
                         *right = *(const struct matcher *const *)b;
    int order = slice_compare(left->name, right->name);
    return order != 0 ? order : (left > right) - (left < right);
}

/* absent() says what it can about what is missing: the labels of the selector's = matchers. A matcher for a
 * label that an = matcher named before it, and one of another kind, takes the label away again; so the order
 * counts, as in Prometheus. */
static int absent_labels(struct eval *eval, struct ast *arg, struct single *single) {
    arg = ast_unparen(arg);
    if (arg->kind == AST_MATRIX)
        arg = arg->range.expr;
    if (arg->kind != AST_SELECTOR)
        return STATUS_OK;
    size_t count = arg->selector.matcher_count;
    single->labels = eval_alloc(eval, (count + 1) * sizeof *single->labels);
    if (single->labels == NULL)
        return eval_no_room(eval);
    const struct matcher **sorted = eval_alloc(eval, (count + 1) * sizeof *sorted);
    if (sorted == NULL)
        return eval_no_room(eval);
    for (size_t i = 0; i < count; i++)
        sorted[i] = &arg->selector.matchers[i];
    if (count > 0)
        qsort(sorted, count, sizeof *sorted, matcher_order);
    for (size_t i = 0, end; i < count; i = end) {
        struct slice name = sorted[i]->name, value = slice_of(NULL, 0);
        bool has = false;
        for (end = i; end < count && slice_equal(sorted[end]->name, name); end++) {
            bool sets = sorted[end]->kind == MATCHER_EQUAL && !has;
            value = sets ? sorted[end]->value : slice_of(NULL, 0);
            has = has || sets;
        }
        if (value.len > 0 && !slice_equal(name, NAME_LABEL))
            single->labels[single->label_count++] = (struct label){name, value};
    }
    return STATUS_OK;
}

int absent_node(struct eval *eval, struct ast *call, struct grid grid, struct eval_node **out) {
    int status = STATUS_OK;
    struct single *single;
    TRY(single_node(eval, grid, &single));
    if (call->call.function->how == FUNCTION_HOW_ABSENT)
        TRY(node_build(eval, call->call.args[0], grid, &single->absent_of));
    else
        TRY(range_node(eval, call, grid, &single->absent_of));
    TRY(absent_labels(eval, call->call.args[0], single));
    *out = &single->base;
out:
    return status;
}
