/* invariant.c: what does not depend on the step is evaluated once. As in Prometheus, a subtree is invariant
 * if everything below it is fixed by @ and no function in it looks at the time of evaluation. */
#include "query/eval.h"
#include "query/functions.h"

static bool function_looks_at_time(enum function_id id) {
    switch (id) {
    case FUNCTION_TIME:
    case FUNCTION_TIMESTAMP:
    case FUNCTION_PREDICT_LINEAR:
    case FUNCTION_MINUTE:
    case FUNCTION_HOUR:
    case FUNCTION_DAY_OF_WEEK:
    case FUNCTION_DAY_OF_MONTH:
    case FUNCTION_DAY_OF_YEAR:
    case FUNCTION_DAYS_IN_MONTH:
    case FUNCTION_MONTH:
    case FUNCTION_YEAR:
    case FUNCTION_START:
    case FUNCTION_END:
    case FUNCTION_RANGE:
    case FUNCTION_STEP:
        return true;
    default:
        return false;
    }
}

void invariant_mark(struct ast *ast) {
    bool invariant = true;
    switch (ast->kind) {
    case AST_NUMBER:
    case AST_STRING:
        break;
    case AST_SELECTOR:
        invariant = ast->selector.shift.at != AT_NONE;
        break;
    case AST_MATRIX:
        invariant_mark(ast->range.expr);
        invariant = ast->range.expr->step_invariant;
        break;
    case AST_SUBQUERY:
        /* Inside it has steps of its own. */
        invariant_mark(ast->range.expr);
        invariant = ast->range.shift.at != AT_NONE;
        break;
    case AST_UNARY:
        invariant_mark(ast->unary.expr);
        invariant = ast->unary.expr->step_invariant;
        break;
    case AST_BINARY:
        invariant_mark(ast->binary.left);
        invariant_mark(ast->binary.right);
        invariant = ast->binary.left->step_invariant && ast->binary.right->step_invariant;
        break;
    case AST_AGGREGATE:
        if (ast->aggregate.param != NULL) {
            invariant_mark(ast->aggregate.param);
            invariant = ast->aggregate.param->step_invariant;
        }
        invariant_mark(ast->aggregate.expr);
        invariant = invariant && ast->aggregate.expr->step_invariant;
        break;
    case AST_CALL:
        invariant = !function_looks_at_time(ast->call.function->id);
        for (size_t i = 0; i < ast->call.arg_count; i++) {
            /* The second argument of info() is only matchers. */
            if (ast->call.function->id == FUNCTION_INFO && i == 1)
                continue;
            invariant_mark(ast->call.args[i]);
            invariant = invariant && ast->call.args[i]->step_invariant;
        }
        break;
    case AST_PAREN:
        invariant_mark(ast->paren);
        invariant = ast->paren->step_invariant;
        break;
    }
    ast->step_invariant = invariant;
}

struct repeat {
    struct eval_node base;
    struct eval_node *child;
    double *values;
    uint64_t *present;
};

static int repeat_next(struct eval_node *node, struct eval_series *out) {
    struct repeat *repeat = (struct repeat *)node;
    struct eval_series series;
    for (;;) {
        int status = node_next(repeat->child, &series);
        if (status != STATUS_OK)
            return status;
        if (bits_get(series.present, 0))
            break;
    }
    for (size_t i = 0; i < node->grid.count; i++)
        repeat->values[i] = series.values[0];
    bits_fill(repeat->present, node->grid.count);
    *out = series;
    out->values = repeat->values;
    out->present = repeat->present;
    return STATUS_OK;
}

int repeat_node(struct eval *eval, struct eval_node *child, struct grid grid, struct eval_node **out) {
    struct repeat *repeat = node_new(eval, sizeof *repeat, grid, repeat_next);
    if (repeat == NULL)
        return eval_no_room(eval);
    repeat->child = child;
    repeat->base.unique_nameless = child->unique_nameless;
    repeat->values = eval_alloc(eval, (grid.count + 1) * sizeof(double));
    repeat->present = eval_alloc(eval, (bits_words(grid.count) + 1) * 8);
    if (repeat->values == NULL || repeat->present == NULL)
        return eval_no_room(eval);
    *out = &repeat->base;
    return STATUS_OK;
}
