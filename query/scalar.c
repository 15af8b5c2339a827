/* scalar.c: operators on numbers, and expressions of type scalar. */
#include "query/eval.h"

#include <stdio.h>

#include "query/functions.h"

bool operator_apply(enum token_kind op, double left, double right, double *out) {
    switch (op) {
    case TOKEN_ADD:
        *out = left + right;
        return true;
    case TOKEN_SUB:
        *out = left - right;
        return true;
    case TOKEN_MUL:
        *out = left * right;
        return true;
    case TOKEN_DIV:
        *out = left / right;
        return true;
    case TOKEN_MOD:
        *out = fmod(left, right);
        return true;
    case TOKEN_POW:
        *out = pow(left, right);
        return true;
    case TOKEN_ATAN2:
        *out = atan2(left, right);
        return true;
    default:
        break;
    }
    *out = left;
    switch (op) {
    case TOKEN_EQ:
        return left == right;
    case TOKEN_NE:
        return left != right;
    case TOKEN_LT:
        return left < right;
    case TOKEN_LE:
        return left <= right;
    case TOKEN_GT:
        return left > right;
    case TOKEN_GE:
        return left >= right;
    default:
        return false;
    }
}

int scalar_column(struct eval *eval, struct ast *ast, struct grid grid, double **out) {
    double *values = eval_alloc(eval, (grid.count + 1) * sizeof *values);
    if (values == NULL)
        return eval_no_room(eval);
    int status = scalar_eval(eval, ast, grid, values);
    if (status >= 0)
        *out = values;
    return status;
}

/* scalar(v): the one element of a step, else NaN. */
static int scalar_of_vector(struct eval *eval, struct ast *ast, struct grid grid, double *values) {
    int status = STATUS_OK;
    struct eval_node *child;
    struct eval_series series;
    uint64_t *seen = eval_alloc(eval, (bits_words(grid.count) + 1) * 8);
    if (seen == NULL)
        return eval_no_room(eval);
    TRY(node_build(eval, ast, grid, &child));
    for (size_t i = 0; i < grid.count; i++)
        values[i] = NAN;
    while ((status = node_next(child, &series)) == STATUS_OK) {
        for (BITS_EACH(i, series.present, grid.count)) {
            values[i] = bits_get(seen, i) ? NAN : series.values[i];
            bits_set(seen, i);
        }
    }
    if (status == STATUS_END)
        status = STATUS_OK;
out:
    return status;
}

static int scalar_call(struct eval *eval, struct ast *ast, struct grid grid, double *values) {
    int status = STATUS_OK;
    double value = 0;
    switch (ast->call.function->id) {
    case FUNCTION_TIME:
        for (size_t i = 0; i < grid.count; i++)
            values[i] = (double)grid_time(&grid, i) / 1000;
        return STATUS_OK;
    case FUNCTION_SCALAR:
        return scalar_of_vector(eval, ast->call.args[0], grid, values);
    case FUNCTION_PI:
        value = M_PI;
        break;
    case FUNCTION_START:
        value = (double)eval->request->start_ms / 1000;
        break;
    case FUNCTION_END:
        value = (double)eval->request->end_ms / 1000;
        break;
    case FUNCTION_RANGE:
        value = ((double)eval->request->end_ms - (double)eval->request->start_ms) / 1000;
        break;
    case FUNCTION_STEP:
        value = eval->request->range ? (double)eval->request->step_ms / 1000 : 0;
        break;
    case FUNCTION_MIN_OF:
    case FUNCTION_MAX_OF: {
        double *right = NULL;
        bool want_max = ast->call.function->id == FUNCTION_MAX_OF;
        TRY(scalar_eval(eval, ast->call.args[0], grid, values));
        TRY(scalar_column(eval, ast->call.args[1], grid, &right));
        for (size_t i = 0; i < grid.count; i++)
            values[i] = want_max ? value_max(values[i], right[i]) : value_min(values[i], right[i]);
        return STATUS_OK;
    }
    default: {
        char what[96];
        snprintf(what, sizeof what, "function \"%s\"", ast->call.function->name);
        return eval_unsupported(eval, what);
    }
    }
    for (size_t i = 0; i < grid.count; i++)
        values[i] = value;
out:
    return status;
}

int scalar_eval(struct eval *eval, struct ast *ast, struct grid grid, double *values) {
    int status = STATUS_OK;
    if (ast->step_invariant && grid.count > 1 && ast->kind != AST_PAREN) {
        enum counting counting = eval->counting;
        eval->counting = counting == COUNT_STEPS ? COUNT_REPEATED : counting;
        status = scalar_eval(eval, ast, (struct grid){grid.start_ms, grid.step_ms, 1}, values);
        eval->counting = counting;
        if (status < 0)
            return status;
        for (size_t i = 1; i < grid.count; i++)
            values[i] = values[0];
        return STATUS_OK;
    }
    switch (ast->kind) {
    case AST_NUMBER:
        for (size_t i = 0; i < grid.count; i++)
            values[i] = ast->number;
        return STATUS_OK;
    case AST_PAREN:
        return scalar_eval(eval, ast->paren, grid, values);
    case AST_UNARY:
        TRY(scalar_eval(eval, ast->unary.expr, grid, values));
        for (size_t i = 0; ast->unary.op == TOKEN_SUB && i < grid.count; i++)
            values[i] = -values[i];
        return STATUS_OK;
    case AST_BINARY: {
        enum token_kind op = ast->binary.op;
        if (op == TOKEN_TRIM_UPPER || op == TOKEN_TRIM_LOWER)
            return eval_fail(eval, "operator \"%s\" not allowed for Scalar operations", token_text(op));
        double *right = NULL;
        TRY(scalar_eval(eval, ast->binary.left, grid, values));
        TRY(scalar_column(eval, ast->binary.right, grid, &right));
        for (size_t i = 0; i < grid.count; i++) {
            double result = 0;
            bool holds = operator_apply(op, values[i], right[i], &result);
            values[i] = op_is_comparison(op) ? (holds ? 1 : 0) : result;
        }
        return STATUS_OK;
    }
    case AST_CALL:
        return scalar_call(eval, ast, grid, values);
    default:
        return eval_fail(eval, "unexpected error: not a scalar");
    }
out:
    return status;
}
