/* check.c: types, before anything is read. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/matcher.h"
#include "query/functions.h"
#include "query/parse.h"

struct check {
    struct slice text;
    struct query_error *error;
};

#define FAIL(at, ...) parse_error_set(check->error, check->text, (at), __VA_ARGS__)

static int tree_check(struct check *check, struct ast *ast);

static int type_expect(struct check *check, struct ast *ast, enum value_type want, const char *context) {
    int status = tree_check(check, ast);
    if (status >= 0 && ast->type != want)
        status = FAIL(ast->start, "expected type %s in %s, got %s", value_type_name(want), context,
                      value_type_name(ast->type));
    return status;
}

/* Where the operator between two operands is written. */
static size_t operator_position(struct check *check, const struct ast *binary) {
    size_t at = binary->binary.left->end;
    while (at < check->text.len && (check->text.data[at] == ' ' || check->text.data[at] == '\t' ||
                                    check->text.data[at] == '\n' || check->text.data[at] == '\r'))
        at++;
    return at;
}

static int name_order(const void *a, const void *b) {
    return slice_compare(*(const struct slice *)a, *(const struct slice *)b);
}

/* No label may be both in on(…) and in group_x(…). */
static int include_check(struct check *check, const struct ast *ast) {
    const struct ast_matching *matching = &ast->binary.matching;
    size_t bytes = matching->include_count * sizeof(struct slice);
    struct slice *sorted = mem_alloc(bytes);
    int status = STATUS_OK;
    if (sorted == NULL) {
        check->error->type = QUERY_ERROR_INTERNAL;
        snprintf(check->error->text, sizeof check->error->text, "out of memory");
        return STATUS_NO_MEMORY;
    }
    memcpy(sorted, matching->include, bytes);
    qsort(sorted, matching->include_count, sizeof *sorted, name_order);
    for (size_t i = 0; i < matching->label_count && status >= 0; i++) {
        if (bsearch(&matching->labels[i], sorted, matching->include_count, sizeof *sorted, name_order) !=
            NULL)
            status = FAIL(operator_position(check, ast),
                          "label \"%.*s\" must not occur in ON and GROUP clause at once",
                          SLICE_ARGS(matching->labels[i]));
    }
    mem_free(sorted);
    return status;
}

static int binary_check(struct check *check, struct ast *ast) {
    int status = STATUS_OK;
    struct ast *left = ast->binary.left, *right = ast->binary.right;
    struct ast_matching *matching = &ast->binary.matching;
    enum token_kind op = ast->binary.op;
    TRY(tree_check(check, left));
    TRY(tree_check(check, right));
    if (ast->binary.return_bool && !op_is_comparison(op))
        return FAIL(operator_position(check, ast), "bool modifier can only be used on comparison operators");
    if (op_is_comparison(op) && !ast->binary.return_bool && left->type == VALUE_SCALAR &&
        right->type == VALUE_SCALAR)
        return FAIL(operator_position(check, ast), "comparisons between scalars must use BOOL modifier");
    if (matching->on && matching->include_count > 0)
        TRY(include_check(check, ast));
    if ((left->type != VALUE_SCALAR && left->type != VALUE_VECTOR) ||
        (right->type != VALUE_SCALAR && right->type != VALUE_VECTOR))
        return FAIL(left->type != VALUE_SCALAR && left->type != VALUE_VECTOR ? left->start : right->start,
                    "binary expression must contain only scalar and instant vector types");
    bool has_fill = matching->has_fill_left || matching->has_fill_right;
    if (left->type != VALUE_VECTOR || right->type != VALUE_VECTOR) {
        if (matching->label_count > 0)
            return FAIL(ast->start, "vector matching only allowed between instant vectors");
        if (has_fill)
            return FAIL(ast->start, "filling in missing series only allowed between instant vectors");
        if (op_is_set(op))
            return FAIL(ast->start, "set operator \"%s\" not allowed in binary scalar expression",
                        token_text(op));
    } else if (op_is_set(op)) {
        if (matching->card != CARD_MANY_TO_MANY)
            return FAIL(ast->start, "no grouping allowed for \"%s\" operation", token_text(op));
        if (has_fill)
            return FAIL(ast->start, "filling in missing series not allowed for set operators");
    }
out:
    return status;
}

static int call_check(struct check *check, struct ast *ast) {
    int status = STATUS_OK;
    const struct function *function = ast->call.function;
    size_t types = strlen(function->args), count = ast->call.arg_count;
    if (function->variadic == 0) {
        if (count != types)
            return FAIL(ast->start, "expected %zu argument(s) in call to \"%s\", got %zu", types,
                        function->name, count);
    } else {
        size_t least = types - 1;
        if (count < least)
            return FAIL(ast->start, "expected at least %zu argument(s) in call to \"%s\", got %zu", least,
                        function->name, count);
        if (function->variadic > 0 && count > least + (size_t)function->variadic)
            return FAIL(ast->start, "expected at most %zu argument(s) in call to \"%s\", got %zu",
                        least + (size_t)function->variadic, function->name, count);
    }
    for (size_t i = 0; i < count; i++) {
        struct ast *arg = ast->call.args[i];
        /* The data labels of info() may match anything. */
        if (function->id == FUNCTION_INFO && i == 1) {
            if (arg->kind != AST_SELECTOR)
                return FAIL(arg->start, "expected label selectors only");
            if (arg->selector.name.data != NULL)
                return FAIL(arg->start, "expected label selectors only, got vector selector instead");
            continue;
        }
        TRY(tree_check(check, arg));
        enum value_type want = function_arg_type(function->args[i < types ? i : types - 1]);
        if (arg->type != want)
            return FAIL(arg->start, "expected type %s in call to function \"%s\", got %s",
                        value_type_name(want), function->name, value_type_name(arg->type));
    }
out:
    return status;
}

static int selector_check(struct check *check, struct ast *ast) {
    for (size_t i = 0; i < ast->selector.matcher_count; i++) {
        if (!matcher_match(&ast->selector.matchers[i], slice_of(NULL, 0)))
            return STATUS_OK;
    }
    if (ast->selector.name.data != NULL && ast->selector.name.len > 0)
        return STATUS_OK;
    return FAIL(ast->start, "vector selector must contain at least one non-empty matcher");
}

static int tree_check(struct check *check, struct ast *ast) {
    int status = STATUS_OK;
    switch (ast->kind) {
    case AST_NUMBER:
    case AST_STRING:
        return STATUS_OK;
    case AST_SELECTOR:
        return selector_check(check, ast);
    case AST_MATRIX:
        return tree_check(check, ast->range.expr);
    case AST_SUBQUERY:
        TRY(tree_check(check, ast->range.expr));
        if (ast->range.expr->type != VALUE_VECTOR)
            return FAIL(ast->start, "subquery is only allowed on instant vector, got %s instead",
                        ast->range.expr->type == VALUE_MATRIX   ? "matrix"
                        : ast->range.expr->type == VALUE_STRING ? "string"
                                                                : "scalar");
        break;
    case AST_UNARY:
        TRY(tree_check(check, ast->unary.expr));
        if (ast->unary.expr->type != VALUE_SCALAR && ast->unary.expr->type != VALUE_VECTOR)
            return FAIL(
                ast->start,
                "unary expression only allowed on expressions of type scalar or instant vector, got \"%s\"",
                value_type_name(ast->unary.expr->type));
        break;
    case AST_BINARY:
        return binary_check(check, ast);
    case AST_AGGREGATE:
        TRY(type_expect(check, ast->aggregate.expr, VALUE_VECTOR, "aggregation expression"));
        if (ast->aggregate.param != NULL)
            TRY(type_expect(check, ast->aggregate.param,
                            ast->aggregate.op == TOKEN_COUNT_VALUES ? VALUE_STRING : VALUE_SCALAR,
                            "aggregation parameter"));
        break;
    case AST_CALL:
        return call_check(check, ast);
    case AST_PAREN:
        return tree_check(check, ast->paren);
    }
out:
    return status;
}

int query_check(struct ast *ast, struct slice text, struct query_error *error) {
    struct check check = {text, error};
    return tree_check(&check, ast);
}
