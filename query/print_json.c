/* print_json.c: a tree as JSON, the members of web/api/v1/translate_ast.go in the order of Go's encoder. */
#include "base/float_text.h"
#include "base/json_text.h"
#include "base/label.h"
#include "query/functions.h"
#include "query/parse.h"
#include "query/print.h"

static void string_print(struct buf *out, const char *text) {
    json_string_append(out, slice_str(text), JSON_HTML);
}

static void bool_print(struct buf *out, bool v) {
    buf_append_str(out, v ? "true" : "false");
}

static void slices_print(struct buf *out, const struct slice *items, size_t count) {
    buf_append_byte(out, '[');
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            buf_append_byte(out, ',');
        json_string_append(out, items[i], JSON_HTML);
    }
    buf_append_byte(out, ']');
}

static void number_print(struct buf *out, double v, bool is_duration) {
    char text[FLOAT_TEXT_BYTES_MAX];
    size_t len = float_text_fixed(v, text);
    buf_append_str(out, "{\"duration\":");
    bool_print(out, is_duration);
    buf_append_str(out, ",\"type\":\"numberLiteral\",\"val\":\"");
    buf_append(out, text, len);
    buf_append_str(out, "\"}");
}

/* ---- Durations that are expressions
 * ------------------------------------------------------------------------------
 */

static void duration_expr_print(struct buf *out, const struct ast *ast) {
    bool wrapped = ast->kind == AST_PAREN;
    double sign;
    const struct ast *plain = duration_literal(ast, &sign), *left = NULL, *right = NULL;
    if (plain != NULL) {
        number_print(out, sign * plain->number, plain->is_duration);
        return;
    }
    while (ast->kind == AST_PAREN)
        ast = ast->paren;
    const char *op;
    if (ast->kind == AST_BINARY) {
        op = token_text(ast->binary.op);
        left = ast->binary.left;
        right = ast->binary.right;
    } else if (ast->kind == AST_UNARY) {
        op = token_text(ast->unary.op);
        right = ast->unary.expr;
    } else {
        op = ast->call.function->name;
        left = ast->call.arg_count > 0 ? ast->call.args[0] : NULL;
        right = ast->call.arg_count > 1 ? ast->call.args[1] : NULL;
    }
    buf_append_str(out, "{\"lhs\":");
    if (left != NULL)
        duration_expr_print(out, left);
    else
        buf_append_str(out, "null");
    buf_append_str(out, ",\"op\":");
    string_print(out, op);
    buf_append_str(out, ",\"rhs\":");
    if (right != NULL)
        duration_expr_print(out, right);
    else
        buf_append_str(out, "null");
    buf_append_str(out, ",\"type\":\"durationExpr\",\"wrapped\":");
    bool_print(out, wrapped);
    buf_append_byte(out, '}');
}

/* `,"KEY":MILLISECONDS,"KEYExpr":…` */
static void duration_print(struct buf *out, const char *key, int64_t ms, const struct ast *expr) {
    buf_printf(out, ",\"%s\":%lld,\"%sExpr\":", key, expr != NULL ? 0 : (long long)ms, key);
    if (expr != NULL)
        duration_expr_print(out, expr);
    else
        buf_append_str(out, "null");
}

/* ---- Selectors
 * ------------------------------------------------------------------------------------------------------
 */

static void matcher_print(struct buf *out, const struct matcher *matcher, bool first) {
    static const char *const operators[] = {[MATCHER_EQUAL] = "=",
                                            [MATCHER_NOT_EQUAL] = "!=",
                                            [MATCHER_REGEX] = "=~",
                                            [MATCHER_NOT_REGEX] = "!~"};
    buf_append_str(out, first ? "{\"name\":" : ",{\"name\":");
    json_string_append(out, matcher->name, JSON_HTML);
    buf_printf(out, ",\"type\":\"%s\",\"value\":", operators[matcher->kind]);
    json_string_append(out, matcher->value, JSON_HTML);
    buf_append_byte(out, '}');
}

/* As written; the parser keeps the name's matcher last, also where the name was quoted among the others. */
static void matchers_print(struct buf *out, const struct ast *ast) {
    size_t count = ast->selector.matcher_count,
           name_at = ast->selector.name_quoted ? ast->selector.name_at : count;
    bool first = true;
    buf_append_str(out, "\"matchers\":[");
    for (size_t i = 0; i < count; i++) {
        if (i == name_at && i < count - 1) {
            matcher_print(out, &ast->selector.matchers[count - 1], first);
            first = false;
        }
        if (i < count - 1 || name_at >= count - 1)
            matcher_print(out, &ast->selector.matchers[i], first);
        first = false;
    }
    buf_append_byte(out, ']');
}

static void start_or_end_print(struct buf *out, const struct ast_shift *shift) {
    buf_append_str(out, ",\"startOrEnd\":");
    buf_append_str(out, shift->at == AT_START ? "\"start\"" : shift->at == AT_END ? "\"end\"" : "null");
}

static void timestamp_print(struct buf *out, const struct ast_shift *shift) {
    if (shift->at == AT_TIME)
        buf_printf(out, ",\"timestamp\":%lld", (long long)shift->at_ms);
    else
        buf_append_str(out, ",\"timestamp\":null");
}

/* `range` is the matrix around it, or NULL. */
static void selector_print(struct buf *out, const struct ast *ast, const struct ast *range) {
    buf_append_str(out, "{\"anchored\":");
    bool_print(out, range != NULL ? range->range.anchored : ast->selector.anchored);
    buf_append_byte(out, ',');
    matchers_print(out, ast);
    buf_append_str(out, ",\"name\":");
    json_string_append(out, ast->selector.name_quoted ? slice_str("") : ast->selector.name, JSON_HTML);
    duration_print(out, "offset", ast->selector.shift.offset_ms, ast->selector.shift.offset_expr);
    if (range != NULL)
        duration_print(out, "range", range->range.range_ms, range->range.range_expr);
    buf_append_str(out, ",\"smoothed\":");
    bool_print(out, range != NULL ? range->range.smoothed : ast->selector.smoothed);
    start_or_end_print(out, &ast->selector.shift);
    timestamp_print(out, &ast->selector.shift);
    buf_printf(out, ",\"type\":\"%s\"}", range != NULL ? "matrixSelector" : "vectorSelector");
}

static void subquery_print(struct buf *out, const struct ast *ast) {
    buf_append_str(out, "{\"expr\":");
    ast_print_json(ast->range.expr, out);
    duration_print(out, "offset", ast->range.shift.offset_ms, ast->range.shift.offset_expr);
    duration_print(out, "range", ast->range.range_ms, ast->range.range_expr);
    start_or_end_print(out, &ast->range.shift);
    duration_print(out, "step", ast->range.step_ms, ast->range.step_expr);
    timestamp_print(out, &ast->range.shift);
    buf_append_str(out, ",\"type\":\"subquery\"}");
}

/* ---- Expressions
 * -----------------------------------------------------------------------------------------------------
 */

static void fill_print(struct buf *out, bool has, double v) {
    char text[FLOAT_TEXT_BYTES_MAX];
    if (has && v - v == 0)
        buf_append(out, text, float_text_json(v, text));
    else
        buf_append_str(out, "null");
}

static void matching_print(struct buf *out, const struct ast *ast) {
    static const char *const cards[] = {[CARD_ONE_TO_ONE] = "one-to-one",
                                        [CARD_MANY_TO_ONE] = "many-to-one",
                                        [CARD_ONE_TO_MANY] = "one-to-many",
                                        [CARD_MANY_TO_MANY] = "many-to-many"};
    const struct ast_matching *matching = &ast->binary.matching;
    if (ast->binary.left->type != VALUE_VECTOR || ast->binary.right->type != VALUE_VECTOR) {
        buf_append_str(out, "null");
        return;
    }
    buf_printf(out, "{\"card\":\"%s\",\"fillValues\":{\"lhs\":", cards[matching->card]);
    fill_print(out, matching->has_fill_left, matching->fill_left);
    buf_append_str(out, ",\"rhs\":");
    fill_print(out, matching->has_fill_right, matching->fill_right);
    buf_append_str(out, "},\"include\":");
    slices_print(out, matching->include, matching->include_count);
    buf_append_str(out, ",\"labels\":");
    slices_print(out, matching->labels, matching->label_count);
    buf_append_str(out, ",\"on\":");
    bool_print(out, matching->on);
    buf_append_byte(out, '}');
}

static const char *type_text(enum value_type type) {
    static const char *const texts[] = {[VALUE_NONE] = "none",
                                        [VALUE_SCALAR] = "scalar",
                                        [VALUE_VECTOR] = "vector",
                                        [VALUE_MATRIX] = "matrix",
                                        [VALUE_STRING] = "string"};
    return texts[type];
}

static void call_print(struct buf *out, const struct ast *ast) {
    const struct function *function = ast->call.function;
    buf_append_str(out, "{\"args\":[");
    for (size_t i = 0; i < ast->call.arg_count; i++) {
        if (i > 0)
            buf_append_byte(out, ',');
        ast_print_json(ast->call.args[i], out);
    }
    buf_append_str(out, "],\"func\":{\"argTypes\":[");
    for (const char *arg = function->args; *arg != 0; arg++)
        buf_printf(out, "%s\"%s\"", arg == function->args ? "" : ",", type_text(function_arg_type(*arg)));
    buf_printf(out, "],\"name\":\"%s\",\"returnType\":\"%s\",\"variadic\":%d},\"type\":\"call\"}",
               function->name, type_text(function->type), function->variadic);
}

void ast_print_json(const struct ast *ast, struct buf *out) {
    switch (ast->kind) {
    case AST_NUMBER:
        number_print(out, ast->number, ast->is_duration);
        break;
    case AST_STRING:
        buf_append_str(out, "{\"type\":\"stringLiteral\",\"val\":");
        json_string_append(out, ast->string, JSON_HTML);
        buf_append_byte(out, '}');
        break;
    case AST_SELECTOR:
        selector_print(out, ast, NULL);
        break;
    case AST_MATRIX:
        selector_print(out, ast->range.expr, ast);
        break;
    case AST_SUBQUERY:
        subquery_print(out, ast);
        break;
    case AST_UNARY:
        buf_append_str(out, "{\"expr\":");
        ast_print_json(ast->unary.expr, out);
        buf_printf(out, ",\"op\":\"%s\",\"type\":\"unaryExpr\"}", token_text(ast->unary.op));
        break;
    case AST_BINARY:
        buf_append_str(out, "{\"bool\":");
        bool_print(out, ast->binary.return_bool);
        buf_append_str(out, ",\"lhs\":");
        ast_print_json(ast->binary.left, out);
        buf_append_str(out, ",\"matching\":");
        matching_print(out, ast);
        buf_append_str(out, ",\"op\":");
        string_print(out, token_text(ast->binary.op));
        buf_append_str(out, ",\"rhs\":");
        ast_print_json(ast->binary.right, out);
        buf_append_str(out, ",\"type\":\"binaryExpr\"}");
        break;
    case AST_AGGREGATE:
        buf_append_str(out, "{\"expr\":");
        ast_print_json(ast->aggregate.expr, out);
        buf_append_str(out, ",\"grouping\":");
        slices_print(out, ast->aggregate.labels, ast->aggregate.label_count);
        buf_printf(out, ",\"op\":\"%s\",\"param\":", token_text(ast->aggregate.op));
        if (ast->aggregate.param != NULL)
            ast_print_json(ast->aggregate.param, out);
        else
            buf_append_str(out, "null");
        buf_append_str(out, ",\"type\":\"aggregation\",\"without\":");
        bool_print(out, ast->aggregate.without);
        buf_append_byte(out, '}');
        break;
    case AST_CALL:
        call_print(out, ast);
        break;
    case AST_PAREN:
        buf_append_str(out, "{\"expr\":");
        ast_print_json(ast->paren, out);
        buf_append_str(out, ",\"type\":\"parenExpr\"}");
        break;
    }
}
