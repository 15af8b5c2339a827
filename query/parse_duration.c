/* parse_duration.c: durations: literals, and expressions of them (in brackets, behind `offset`). */
#include "query/parser.h"

#include <math.h>
#include <stdio.h>
#include <strings.h>

#include "base/assert.h"
#include "query/functions.h"

/* A number or duration token as seconds. */
bool parser_seconds(struct parser *parser, struct token token, double *out) {
    if (token.kind == TOKEN_DURATION) {
        int64_t ms;
        if (!duration_text_parse(token.text, &ms)) {
            parser_fail(parser, token.start, "not a valid duration string: \"%.*s\"", SLICE_ARGS(token.text));
            return false;
        }
        *out = (double)ms / 1000;
        return true;
    }
    if (!number_text_parse(token.text, out)) {
        parser_fail(parser, token.start,
                    "error parsing number: strconv.ParseFloat: parsing \"%.*s\": invalid syntax",
                    token.text.len > 60 ? 60 : (int)token.text.len, (const char *)token.text.data);
        return false;
    }
    return true;
}

struct ast *parser_duration_number(struct parser *parser) {
    struct token token = parser->token;
    double seconds;
    if (!parser_seconds(parser, token, &seconds))
        return NULL;
    parser_advance(parser);
    struct ast *ast = parser_node(parser, AST_NUMBER, VALUE_SCALAR, token.start, 0);
    if (ast != NULL) {
        ast->number = seconds;
        ast->is_duration = token.kind == TOKEN_DURATION;
    }
    return ast;
}

bool is_duration_word(struct slice word) {
    static const char *const words[] = {"step", "range", "min_of", "max_of"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (word.len == strlen(words[i]) && strncasecmp((const char *)word.data, words[i], word.len) == 0)
            return true;
    }
    return false;
}

/* step(), range(), min_of(a, b), max_of(a, b) */
static struct ast *duration_call(struct parser *parser) {
    struct token name = parser->token;
    char lower[16] = {0};
    for (size_t i = 0; i < name.text.len && i < sizeof lower - 1; i++)
        lower[i] = (char)(name.text.data[i] >= 'A' && name.text.data[i] <= 'Z' ? name.text.data[i] | 32
                                                                               : name.text.data[i]);
    const struct function *function = function_find(slice_str(lower));
    ASSERT(function != NULL);
    parser_advance(parser);
    if (!parser_accept(parser, TOKEN_LEFT_PAREN))
        return parser_unexpected(parser, "duration expression", "\"(\"");
    size_t want = strlen(function->args);
    struct ast **args = ARENA_ARRAY(parser->arena, struct ast *, 2);
    if (args == NULL)
        return parser_fail_memory(parser);
    unsigned depth = 0;
    for (size_t i = 0; i < want; i++) {
        if (i > 0 && !parser_accept(parser, TOKEN_COMMA))
            return parser_unexpected(parser, "duration expression", "\",\"");
        args[i] = parser_duration_expr(parser, PREC_ADD);
        if (args[i] == NULL)
            return NULL;
        depth = depth > args[i]->depth ? depth : args[i]->depth;
    }
    if (!parser_accept(parser, TOKEN_RIGHT_PAREN))
        return parser_unexpected(parser, "duration expression", "\")\"");
    struct ast *ast = parser_node(parser, AST_CALL, VALUE_SCALAR, name.start, depth);
    if (ast != NULL) {
        ast->call.function = function;
        ast->call.args = args;
        ast->call.arg_count = want;
    }
    return ast;
}

struct ast *parser_duration_operand(struct parser *parser) {
    struct ast *ast = NULL;
    size_t start = parser->token.start;
    switch (parser->token.kind) {
    case TOKEN_NUMBER:
    case TOKEN_DURATION:
        ast = parser_duration_number(parser);
        break;
    case TOKEN_ADD:
    case TOKEN_SUB: {
        enum token_kind op = parser->token.kind;
        parser_advance(parser);
        struct ast *inner = parser_duration_expr(parser, PREC_POW);
        if (inner == NULL)
            break;
        ast = parser_node(parser, AST_UNARY, VALUE_SCALAR, start, inner->depth);
        if (ast != NULL) {
            ast->unary.op = op;
            ast->unary.expr = inner;
        }
        break;
    }
    case TOKEN_LEFT_PAREN: {
        parser_advance(parser);
        struct ast *inner = parser_duration_expr(parser, PREC_ADD);
        if (inner == NULL)
            break;
        if (!parser_accept(parser, TOKEN_RIGHT_PAREN)) {
            parser_unexpected(parser, "duration expression", "\")\"");
            break;
        }
        ast = parser_node(parser, AST_PAREN, VALUE_SCALAR, start, inner->depth);
        if (ast != NULL)
            ast->paren = inner;
        break;
    }
    case TOKEN_IDENT:
        if (is_duration_word(parser->token.text)) {
            ast = duration_call(parser);
            break;
        }
        __attribute__((fallthrough));
    default:
        parser_unexpected(parser, "subquery or range selector", "number, duration, step(), or range()");
        break;
    }
    return ast;
}

static int duration_prec(enum token_kind kind) {
    switch (kind) {
    case TOKEN_ADD:
    case TOKEN_SUB:
        return PREC_ADD;
    case TOKEN_MUL:
    case TOKEN_DIV:
    case TOKEN_MOD:
        return PREC_MUL;
    case TOKEN_POW:
        return PREC_POW;
    default:
        return 0;
    }
}

static struct ast *duration_expr_parse_inside(struct parser *parser, int prec_min) {
    struct ast *left = parser_duration_operand(parser);
    while (left != NULL) {
        enum token_kind op = parser->token.kind;
        int prec = duration_prec(op);
        if (prec == 0 || prec < prec_min)
            break;
        parser_advance(parser);
        struct ast *right = parser_duration_expr(parser, op == TOKEN_POW ? prec : prec + 1);
        if (right == NULL)
            return NULL;
        struct ast *ast = parser_node(parser, AST_BINARY, VALUE_SCALAR, left->start,
                                      left->depth > right->depth ? left->depth : right->depth);
        if (ast == NULL)
            return NULL;
        ast->binary.op = op;
        ast->binary.left = left;
        ast->binary.right = right;
        left = ast;
    }
    return left;
}

struct ast *parser_duration_expr(struct parser *parser, int prec_min) {
    if (!parser_enter(parser))
        return NULL;
    struct ast *ast = duration_expr_parse_inside(parser, prec_min);
    parser_leave(parser);
    return ast;
}

struct duration_context {
    double step_s, range_s;
    const char *fault;
    const struct ast *at;
};

static double duration_eval(struct duration_context *context, const struct ast *ast) {
    switch (ast->kind) {
    case AST_NUMBER:
        return ast->number;
    case AST_PAREN:
        return duration_eval(context, ast->paren);
    case AST_UNARY: {
        double v = duration_eval(context, ast->unary.expr);
        return ast->unary.op == TOKEN_SUB ? -v : v;
    }
    case AST_CALL: {
        switch (ast->call.function->id) {
        case FUNCTION_STEP:
            return context->step_s;
        case FUNCTION_RANGE:
            return context->range_s;
        default:
            break;
        }
        double a = duration_eval(context, ast->call.args[0]), b = duration_eval(context, ast->call.args[1]);
        return ast->call.function->id == FUNCTION_MIN_OF ? fmin(a, b) : fmax(a, b);
    }
    case AST_BINARY: {
        double a = duration_eval(context, ast->binary.left), b = duration_eval(context, ast->binary.right);
        switch (ast->binary.op) {
        case TOKEN_ADD:
            return a + b;
        case TOKEN_SUB:
            return a - b;
        case TOKEN_MUL:
            return a * b;
        case TOKEN_POW:
            return pow(a, b);
        case TOKEN_DIV:
        case TOKEN_MOD:
            if (b == 0 && context->fault == NULL) {
                context->fault = ast->binary.op == TOKEN_DIV ? "division by zero" : "modulo by zero";
                context->at = ast;
            }
            return ast->binary.op == TOKEN_DIV ? a / b : fmod(a, b);
        default:
            return NAN;
        }
    }
    default:
        return NAN;
    }
}

static const char duration_out_of_range[] = "duration is out of range";

static bool duration_to_ms(double seconds, bool literal, int64_t *ms_out) {
    if (!isfinite(seconds) || fabs(seconds) * 1e9 >= 9223372036854775808.0)
        return false;
    *ms_out = literal ? (int64_t)(round(seconds * 1e9) / 1e6) : (int64_t)(seconds * 1000);
    return true;
}

const struct ast *duration_literal(const struct ast *ast, double *sign) {
    *sign = 1;
    while (ast->kind == AST_PAREN || ast->kind == AST_UNARY) {
        if (ast->kind == AST_PAREN) {
            ast = ast->paren;
        } else {
            *sign = ast->unary.op == TOKEN_SUB ? -*sign : *sign;
            ast = ast->unary.expr;
        }
    }
    return ast->kind == AST_NUMBER ? ast : NULL;
}

/* A parsed duration: a literal is settled now, the rest when the query's step is known. */
bool parser_duration_settle(struct parser *parser, struct ast *expr, bool positive, int64_t *ms_out,
                            struct ast **expr_out) {
    double sign;
    const struct ast *literal = duration_literal(expr, &sign);
    *expr_out = NULL;
    if (literal == NULL) {
        *expr_out = expr;
        return true;
    }
    if (!duration_to_ms(sign * literal->number, true, ms_out)) {
        parser_fail(parser, expr->start, "%s", duration_out_of_range);
        return false;
    }
    if (positive && *ms_out <= 0) {
        parser_fail(parser, expr->start, "duration must be greater than 0");
        return false;
    }
    return true;
}

struct resolve {
    struct duration_context context;
    struct query_error *error;
};

static int duration_resolve(struct resolve *resolve, const struct ast *expr, bool positive, int64_t *ms_out) {
    if (expr == NULL)
        return STATUS_OK;
    resolve->context.fault = NULL;
    double seconds = duration_eval(&resolve->context, expr);
    const char *fault = resolve->context.fault;
    int64_t ms = 0;
    if (fault == NULL && !duration_to_ms(seconds, false, &ms))
        fault = duration_out_of_range;
    if (fault == NULL && positive && ms <= 0)
        fault = "duration must be greater than 0";
    if (fault == NULL) {
        *ms_out = ms;
        return STATUS_OK;
    }
    /* Prometheus does this between parsing and evaluation, and counts in bytes. */
    const struct ast *at = resolve->context.fault != NULL ? resolve->context.at : expr;
    resolve->error->type = QUERY_ERROR_BAD_DATA;
    snprintf(resolve->error->text, sizeof resolve->error->text, "%zu:%zu: %s", at->start, at->end, fault);
    return STATUS_BAD_QUERY;
}

static int tree_resolve(struct resolve *resolve, struct ast *ast) {
    int status = STATUS_OK;
    switch (ast->kind) {
    case AST_NUMBER:
    case AST_STRING:
        break;
    case AST_SELECTOR:
        TRY(duration_resolve(resolve, ast->selector.shift.offset_expr, false,
                             &ast->selector.shift.offset_ms));
        break;
    case AST_MATRIX:
    case AST_SUBQUERY:
        TRY(duration_resolve(resolve, ast->range.range_expr, true, &ast->range.range_ms));
        TRY(duration_resolve(resolve, ast->range.step_expr, true, &ast->range.step_ms));
        TRY(duration_resolve(resolve, ast->range.shift.offset_expr, false, &ast->range.shift.offset_ms));
        TRY(tree_resolve(resolve, ast->range.expr));
        break;
    case AST_UNARY:
        TRY(tree_resolve(resolve, ast->unary.expr));
        break;
    case AST_BINARY:
        TRY(tree_resolve(resolve, ast->binary.left));
        TRY(tree_resolve(resolve, ast->binary.right));
        break;
    case AST_AGGREGATE:
        if (ast->aggregate.param != NULL)
            TRY(tree_resolve(resolve, ast->aggregate.param));
        TRY(tree_resolve(resolve, ast->aggregate.expr));
        break;
    case AST_CALL:
        for (size_t i = 0; i < ast->call.arg_count; i++)
            TRY(tree_resolve(resolve, ast->call.args[i]));
        break;
    case AST_PAREN:
        TRY(tree_resolve(resolve, ast->paren));
        break;
    }
out:
    return status;
}

int durations_resolve(struct ast *ast, int64_t start_ms, int64_t end_ms, int64_t step_ms,
                      struct query_error *error) {
    struct resolve resolve = {.error = error};
    resolve.context.step_s = (double)step_ms / 1000;
    resolve.context.range_s = ((double)end_ms - (double)start_ms) / 1000;
    return tree_resolve(&resolve, ast);
}
