/* parse_postfix.c: ranges and subqueries, offset, @, anchored and smoothed. */
#include "query/parser.h"

#include <math.h>

static bool shift_is_set(const struct ast_shift *shift) {
    return shift->has_offset && (shift->offset_expr != NULL || shift->offset_ms != 0);
}

static struct ast_shift *shift_of(struct ast *ast) {
    switch (ast->kind) {
    case AST_SELECTOR:
        return &ast->selector.shift;
    case AST_MATRIX:
        return &ast->range.expr->selector.shift;
    case AST_SUBQUERY:
        return &ast->range.shift;
    default:
        return NULL;
    }
}

struct ast *parser_brackets(struct parser *parser, struct ast *expr) {
    size_t bracket = parser->token.start;
    parser_advance(parser);
    if (parser->token.kind == TOKEN_RIGHT_BRACKET || parser->token.kind == TOKEN_COLON)
        return parser_unexpected(parser, "subquery or range selector",
                                 "number, duration, step(), or range()");
    struct ast *range = parser_duration_expr(parser, PREC_ADD), *range_expr = NULL, *step_expr = NULL;
    int64_t range_ms = 0, step_ms = 0;
    if (range == NULL || !parser_duration_settle(parser, range, true, &range_ms, &range_expr))
        return NULL;
    bool subquery = parser_accept(parser, TOKEN_COLON), has_step = false;
    if (subquery && parser->token.kind != TOKEN_RIGHT_BRACKET) {
        struct ast *step = parser_duration_expr(parser, PREC_ADD);
        if (step == NULL || !parser_duration_settle(parser, step, true, &step_ms, &step_expr))
            return NULL;
        has_step = true;
    }
    if (!parser_accept(parser, TOKEN_RIGHT_BRACKET))
        return subquery ? parser_unexpected(parser, "subquery selector", "\"]\"")
                        : parser_unexpected(parser, "subquery or range", "\":\" or \"]\"");
    unsigned depth = expr->depth;
    depth = depth > ast_depth(range_expr) ? depth : ast_depth(range_expr);
    depth = depth > ast_depth(step_expr) ? depth : ast_depth(step_expr);
    if (!subquery) {
        if (expr->kind != AST_SELECTOR)
            return parser_fail(parser, bracket, "ranges only allowed for vector selectors");
        if (shift_is_set(&expr->selector.shift))
            return parser_fail(parser, bracket, "no offset modifiers allowed before range");
        if (expr->selector.shift.at != AT_NONE)
            return parser_fail(parser, bracket, "no @ modifiers allowed before range");
        if (expr->selector.anchored || expr->selector.smoothed)
            return parser_fail(parser, bracket, "no anchored or smoothed modifiers allowed before range");
    }
    struct ast *ast =
        parser_node(parser, subquery ? AST_SUBQUERY : AST_MATRIX, VALUE_MATRIX, expr->start, depth);
    if (ast == NULL)
        return NULL;
    ast->range.expr = expr;
    ast->range.range_ms = range_ms;
    ast->range.range_expr = range_expr;
    ast->range.has_step = has_step;
    ast->range.step_ms = step_ms;
    ast->range.step_expr = step_expr;
    return ast;
}

/* number, duration, a signed one, (expression), step(), … */
static struct ast *offset_operand(struct parser *parser) {
    struct token sign = parser->token;
    bool has_sign = sign.kind == TOKEN_ADD || sign.kind == TOKEN_SUB;
    if (has_sign)
        parser_advance(parser);
    struct ast *ast;
    enum token_kind kind = parser->token.kind;
    if (kind == TOKEN_NUMBER || kind == TOKEN_DURATION || kind == TOKEN_LEFT_PAREN ||
        (kind == TOKEN_IDENT && is_duration_word(parser->token.text)))
        ast = parser_duration_operand(parser);
    else
        return parser_unexpected(parser, "offset", "number, duration, step(), or range()");
    if (ast == NULL || !has_sign)
        return ast;
    struct ast *unary = parser_node(parser, AST_UNARY, VALUE_SCALAR, sign.start, ast->depth);
    if (unary != NULL) {
        unary->unary.op = sign.kind;
        unary->unary.expr = ast;
    }
    return unary;
}

bool parser_offset(struct parser *parser, struct ast *ast) {
    parser_advance(parser);
    struct ast *operand = offset_operand(parser);
    if (operand == NULL)
        return false;
    struct ast_shift *shift = shift_of(ast);
    if (shift == NULL) {
        parser_fail(
            parser, ast->start,
            "offset modifier must be preceded by an instant vector selector or range vector selector or a "
            "subquery");
        return false;
    }
    if (shift_is_set(shift)) {
        parser_fail(parser, ast->start, "offset may not be set multiple times");
        return false;
    }
    if (!parser_duration_settle(parser, operand, false, &shift->offset_ms, &shift->offset_expr))
        return false;
    shift->has_offset = true;
    ast->end = parser->last_end;
    return true;
}

bool parser_at(struct parser *parser, struct ast *ast) {
    parser_advance(parser);
    struct ast_shift parsed = {0};
    bool is_start = token_is_word(&parser->token, "start");
    if (is_start || token_is_word(&parser->token, "end")) {
        parser_advance(parser);
        if (!parser_accept(parser, TOKEN_LEFT_PAREN) || !parser_accept(parser, TOKEN_RIGHT_PAREN)) {
            parser_unexpected(parser, "@", "timestamp");
            return false;
        }
        parsed.at = is_start ? AT_START : AT_END;
    } else {
        double sign = parser->token.kind == TOKEN_SUB ? -1 : 1, seconds;
        if (parser->token.kind == TOKEN_SUB || parser->token.kind == TOKEN_ADD)
            parser_advance(parser);
        if (parser->token.kind != TOKEN_NUMBER && parser->token.kind != TOKEN_DURATION) {
            parser_unexpected(parser, "@", "timestamp");
            return false;
        }
        if (!parser_seconds(parser, parser->token, &seconds))
            return false;
        double ms = round(sign * seconds * 1000);
        if (!isfinite(ms) || fabs(ms) >= 9.2e15) {
            parser_fail(parser, parser->token.start, "timestamp out of bounds for @ modifier: %f",
                        sign * seconds);
            return false;
        }
        parser_advance(parser);
        parsed.at = AT_TIME;
        parsed.at_ms = (int64_t)ms;
    }
    struct ast_shift *shift = shift_of(ast);
    if (shift == NULL) {
        parser_fail(parser, ast->start,
                    "@ modifier must be preceded by an instant vector selector or range vector selector or a "
                    "subquery");
        return false;
    }
    if (shift->at != AT_NONE) {
        parser_fail(parser, ast->start, "@ <timestamp> may not be set multiple times");
        return false;
    }
    shift->at = parsed.at;
    shift->at_ms = parsed.at_ms;
    ast->end = parser->last_end;
    return true;
}

bool parser_extend(struct parser *parser, struct ast *ast) {
    bool anchored = parser->token.kind == TOKEN_ANCHORED;
    parser_advance(parser);
    bool *anchored_flag, *smoothed_flag;
    if (ast->kind == AST_SELECTOR) {
        anchored_flag = &ast->selector.anchored;
        smoothed_flag = &ast->selector.smoothed;
    } else if (ast->kind == AST_MATRIX) {
        anchored_flag = &ast->range.anchored;
        smoothed_flag = &ast->range.smoothed;
    } else {
        parser_fail(parser, ast->start,
                    "%s modifier must be preceded by an instant vector selector or range vector selector",
                    anchored ? "anchored" : "smoothed");
        return false;
    }
    if (anchored && ast->kind == AST_SELECTOR) {
        parser_fail(parser, ast->start, "anchored modifier must be preceded by a range vector selector");
        return false;
    }
    if (*anchored_flag || *smoothed_flag) {
        parser_fail(parser, ast->start,
                    "anchored and smoothed modifiers cannot be used together or set multiple times");
        return false;
    }
    *(anchored ? anchored_flag : smoothed_flag) = true;
    ast->end = parser->last_end;
    return true;
}
