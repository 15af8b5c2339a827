/* parse.c: expressions: operators, calls, aggregations. */
#include "query/parser.h"

#include "base/alloc.h"
#include "base/label.h"
#include "base/utf8.h"
#include "query/functions.h"

static bool labels_parse(struct parser *parser, struct slice **labels_out, size_t *count_out) {
    struct slice *labels = NULL;
    size_t count = 0;
    if (!parser_accept(parser, TOKEN_LEFT_PAREN)) {
        parser_unexpected(parser, "grouping opts", "\"(\"");
        return false;
    }
    while (parser->token.kind != TOKEN_RIGHT_PAREN) {
        struct slice label = parser->token.text;
        if (parser->token.kind == TOKEN_STRING) {
            if (!parser_string_value(parser, parser->token, &label))
                return false;
            if (label.len == 0 || !utf8_valid(label)) {
                parser_unexpected(parser, "grouping opts", "label");
                return false;
            }
        } else if (!is_label_token(parser->token.kind)) {
            /* Numbers: inf and nan are words too, and a metric identifier has a colon. */
            uint8_t c = label.len > 0 ? label.data[0] : 0;
            if (parser->token.kind != TOKEN_NUMBER || (c | 32) < 'a' || (c | 32) > 'z') {
                parser_unexpected(parser, "grouping opts", "label");
                return false;
            }
        }
        labels = parser_array_push(parser, labels, count, sizeof(struct slice));
        if (labels == NULL)
            return false;
        labels[count++] = label;
        parser_advance(parser);
        if (parser->token.kind == TOKEN_COMMA)
            parser_advance(parser);
        else if (parser->token.kind != TOKEN_RIGHT_PAREN) {
            parser_unexpected(parser, "grouping opts", "\",\" or \")\"");
            return false;
        }
    }
    parser_advance(parser);
    *labels_out = labels;
    *count_out = count;
    return true;
}

/* ( a, b ) behind a function's name or an aggregation. */
static bool args_parse(struct parser *parser, struct ast ***args_out, size_t *count_out,
                       unsigned *depth_out) {
    struct ast **args = NULL;
    size_t count = 0;
    unsigned depth = 0;
    parser_advance(parser);
    while (parser->token.kind != TOKEN_RIGHT_PAREN) {
        struct ast *arg = parser_expr(parser, PREC_OR);
        if (arg == NULL)
            return false;
        args = parser_array_push(parser, args, count, sizeof(struct ast *));
        if (args == NULL)
            return false;
        args[count++] = arg;
        depth = depth > arg->depth ? depth : arg->depth;
        if (parser->token.kind == TOKEN_COMMA) {
            size_t comma = parser->token.start;
            parser_advance(parser);
            if (parser->token.kind == TOKEN_RIGHT_PAREN) {
                parser_fail(parser, comma, "trailing commas not allowed in function call args");
                return false;
            }
        } else if (parser->token.kind != TOKEN_RIGHT_PAREN) {
            parser_unexpected(parser, "", "");
            return false;
        }
    }
    parser_advance(parser);
    *args_out = args;
    *count_out = count;
    *depth_out = depth;
    return true;
}

static struct ast *call_parse(struct parser *parser, struct token name) {
    struct ast **args;
    size_t count;
    unsigned depth;
    if (!args_parse(parser, &args, &count, &depth))
        return NULL;
    const struct function *function = function_find(name.text);
    if (function == NULL) {
        int len = name.text.len > 400 ? 400 : (int)name.text.len;
        return parser_fail(parser, name.start, "unknown function with name \"%.*s\"", len,
                           (const char *)name.text.data);
    }
    struct ast *ast = parser_node(parser, AST_CALL, function->type, name.start, depth);
    if (ast == NULL)
        return NULL;
    ast->call.function = function;
    ast->call.args = args;
    ast->call.arg_count = count;
    return ast;
}

static bool aggregate_clause(struct parser *parser, struct ast *ast) {
    ast->aggregate.without = parser->token.kind == TOKEN_WITHOUT;
    parser_advance(parser);
    return labels_parse(parser, &ast->aggregate.labels, &ast->aggregate.label_count);
}

static bool aggregate_has_param(enum token_kind op) {
    return op == TOKEN_TOPK || op == TOKEN_BOTTOMK || op == TOKEN_COUNT_VALUES || op == TOKEN_QUANTILE ||
           op == TOKEN_LIMITK || op == TOKEN_LIMIT_RATIO;
}

static struct ast *aggregate_parse(struct parser *parser, struct token op) {
    struct ast clause = {0}, **args;
    size_t count;
    unsigned depth;
    bool has_clause = parser->token.kind == TOKEN_BY || parser->token.kind == TOKEN_WITHOUT;
    if (has_clause && !aggregate_clause(parser, &clause))
        return NULL;
    if (parser->token.kind != TOKEN_LEFT_PAREN)
        return parser_unexpected(parser, "aggregation", "");
    if (!args_parse(parser, &args, &count, &depth))
        return NULL;
    if (!has_clause && (parser->token.kind == TOKEN_BY || parser->token.kind == TOKEN_WITHOUT) &&
        !aggregate_clause(parser, &clause))
        return NULL;
    struct ast *ast = parser_node(parser, AST_AGGREGATE, VALUE_VECTOR, op.start, depth);
    if (ast == NULL)
        return NULL;
    ast->aggregate = clause.aggregate;
    ast->aggregate.op = op.kind;
    if (count == 0)
        return parser_fail(parser, op.start, "no arguments for aggregate expression provided");
    size_t want = aggregate_has_param(op.kind) ? 2 : 1;
    if (count != want)
        return parser_fail(
            parser, op.start,
            "wrong number of arguments for aggregate expression provided, expected %zu, got %zu", want,
            count);
    ast->aggregate.param = want == 2 ? args[0] : NULL;
    ast->aggregate.expr = args[want - 1];
    return ast;
}

static struct ast *literal_parse(struct parser *parser) {
    struct token token = parser->token;
    if (token.kind == TOKEN_STRING) {
        struct slice value;
        if (!parser_string_value(parser, token, &value))
            return NULL;
        parser_advance(parser);
        struct ast *ast = parser_node(parser, AST_STRING, VALUE_STRING, token.start, 0);
        if (ast != NULL)
            ast->string = value;
        return ast;
    }
    return parser_duration_number(parser);
}

static struct ast *primary_parse(struct parser *parser) {
    struct token token = parser->token;
    switch (token.kind) {
    case TOKEN_NUMBER:
    case TOKEN_DURATION:
    case TOKEN_STRING:
        return literal_parse(parser);
    case TOKEN_LEFT_PAREN: {
        parser_advance(parser);
        struct ast *inner = parser_expr(parser, PREC_OR);
        if (inner == NULL)
            return NULL;
        if (!parser_accept(parser, TOKEN_RIGHT_PAREN))
            return parser_unexpected(parser, "", "");
        struct ast *ast = parser_node(parser, AST_PAREN, inner->type, token.start, inner->depth);
        if (ast != NULL)
            ast->paren = inner;
        return ast;
    }
    case TOKEN_LEFT_BRACE:
        return parser_selector(parser, token);
    case TOKEN_IDENT:
        parser_advance(parser);
        return parser->token.kind == TOKEN_LEFT_PAREN ? call_parse(parser, token)
                                                      : parser_selector(parser, token);
    case TOKEN_METRIC_IDENT:
        parser_advance(parser);
        return parser_selector(parser, token);
    case TOKEN_BOOL:
    case TOKEN_ON:
    case TOKEN_IGNORING:
    case TOKEN_GROUP_LEFT:
    case TOKEN_GROUP_RIGHT:
    case TOKEN_ATAN2:
        return parser_unexpected(parser, "", "");
    default:
        break;
    }
    if (token_class(token.kind) == TOKEN_CLASS_AGGREGATOR) {
        parser_advance(parser);
        switch (parser->token.kind) {
        case TOKEN_LEFT_PAREN:
        case TOKEN_BY:
        case TOKEN_WITHOUT:
            return aggregate_parse(parser, token);
        case TOKEN_IDENT:
        case TOKEN_METRIC_IDENT:
        case TOKEN_NUMBER:
        case TOKEN_DURATION:
        case TOKEN_STRING:
            return parser_unexpected(parser, "aggregation", "");
        default:
            return parser_selector(parser, token);
        }
    }
    if (is_label_token(token.kind)) { /* a keyword as a metric's name */
        parser_advance(parser);
        return parser_selector(parser, token);
    }
    return parser_unexpected(parser, "", "");
}

static struct ast *operand_parse(struct parser *parser) {
    struct ast *ast = NULL;
    struct token sign = parser->token;
    if (sign.kind == TOKEN_ADD || sign.kind == TOKEN_SUB) {
        parser_advance(parser);
        struct ast *inner = parser_expr(parser, PREC_POW); /* as tight as *, so only ^ binds tighter */
        if (inner != NULL && inner->kind == AST_NUMBER) {
            if (sign.kind == TOKEN_SUB)
                inner->number = -inner->number;
            inner->start = sign.start;
            ast = inner;
        } else if (inner != NULL) {
            ast = parser_node(parser, AST_UNARY, inner->type, sign.start, inner->depth);
            if (ast != NULL) {
                ast->unary.op = sign.kind;
                ast->unary.expr = inner;
            }
        }
        return ast;
    }
    ast = primary_parse(parser);
    while (ast != NULL) {
        bool ok;
        switch (parser->token.kind) {
        case TOKEN_LEFT_BRACKET:
            ast = parser_brackets(parser, ast);
            continue;
        case TOKEN_OFFSET:
            ok = parser_offset(parser, ast);
            break;
        case TOKEN_AT:
            ok = parser_at(parser, ast);
            break;
        case TOKEN_ANCHORED:
        case TOKEN_SMOOTHED:
            ok = parser_extend(parser, ast);
            break;
        default:
            return ast;
        }
        if (!ok)
            ast = NULL;
    }
    return ast;
}

static int operator_prec(enum token_kind kind) {
    switch (kind) {
    case TOKEN_OR:
        return PREC_OR;
    case TOKEN_AND:
    case TOKEN_UNLESS:
        return PREC_AND;
    case TOKEN_EQ:
    case TOKEN_NE:
    case TOKEN_LT:
    case TOKEN_LE:
    case TOKEN_GT:
    case TOKEN_GE:
    case TOKEN_TRIM_UPPER:
    case TOKEN_TRIM_LOWER:
        return PREC_COMPARE;
    case TOKEN_ADD:
    case TOKEN_SUB:
        return PREC_ADD;
    case TOKEN_MUL:
    case TOKEN_DIV:
    case TOKEN_MOD:
    case TOKEN_ATAN2:
        return PREC_MUL;
    case TOKEN_POW:
        return PREC_POW;
    default:
        return 0;
    }
}

/* `fill` and its sisters are words of the language only before a parenthesis. */
static bool is_fill(struct parser *parser, const char *word) {
    if (!token_is_word(&parser->token, word))
        return false;
    struct slice input = parser->lexer.input;
    size_t at = parser->token.end;
    while (at < input.len && (input.data[at] == ' ' || input.data[at] == '\t' || input.data[at] == '\n' ||
                              input.data[at] == '\r'))
        at++;
    return at < input.len && input.data[at] == '(';
}

static bool fill_value(struct parser *parser, double *out) {
    parser_advance(parser);
    parser_advance(parser);
    double sign = parser->token.kind == TOKEN_SUB ? -1 : 1;
    if (parser->token.kind == TOKEN_SUB || parser->token.kind == TOKEN_ADD)
        parser_advance(parser);
    if (parser->token.kind != TOKEN_NUMBER && parser->token.kind != TOKEN_DURATION) {
        parser_unexpected(parser, "fill modifier", "number");
        return false;
    }
    double value;
    if (!parser_seconds(parser, parser->token, &value))
        return false;
    parser_advance(parser);
    if (!parser_accept(parser, TOKEN_RIGHT_PAREN)) {
        parser_unexpected(parser, "fill modifier", "\")\"");
        return false;
    }
    *out = sign * value;
    return true;
}

static bool modifiers_parse(struct parser *parser, struct ast *binary) {
    struct ast_matching *matching = &binary->binary.matching;
    if (parser_accept(parser, TOKEN_BOOL))
        binary->binary.return_bool = true;
    if (parser->token.kind == TOKEN_ON || parser->token.kind == TOKEN_IGNORING) {
        matching->has_matching = true;
        matching->on = parser->token.kind == TOKEN_ON;
        parser_advance(parser);
        if (!labels_parse(parser, &matching->labels, &matching->label_count))
            return false;
        if (parser->token.kind == TOKEN_GROUP_LEFT || parser->token.kind == TOKEN_GROUP_RIGHT) {
            matching->card = parser->token.kind == TOKEN_GROUP_LEFT ? CARD_MANY_TO_ONE : CARD_ONE_TO_MANY;
            parser_advance(parser);
            if (parser->token.kind == TOKEN_LEFT_PAREN &&
                !labels_parse(parser, &matching->include, &matching->include_count))
                return false;
        }
    }
    if (is_fill(parser, "fill")) {
        if (!fill_value(parser, &matching->fill_left))
            return false;
        matching->fill_right = matching->fill_left;
        matching->has_fill_left = matching->has_fill_right = matching->fill_both = true;
        return true;
    }
    for (;;) {
        if (!matching->has_fill_left && is_fill(parser, "fill_left")) {
            if (!fill_value(parser, &matching->fill_left))
                return false;
            matching->has_fill_left = true;
        } else if (!matching->has_fill_right && is_fill(parser, "fill_right")) {
            if (!fill_value(parser, &matching->fill_right))
                return false;
            matching->has_fill_right = true;
        } else {
            return true;
        }
    }
}

static struct ast *expr_parse_inside(struct parser *parser, int prec_min) {
    struct ast *left = operand_parse(parser);
    while (left != NULL) {
        enum token_kind op = parser->token.kind;
        int prec = operator_prec(op);
        if (prec == 0 || prec < prec_min)
            break;
        parser_advance(parser);
        struct ast binary = {0};
        binary.binary.op = op;
        if (!modifiers_parse(parser, &binary))
            return NULL;
        struct ast *right = parser_expr(parser, op == TOKEN_POW ? prec : prec + 1);
        if (right == NULL)
            return NULL;
        enum value_type type =
            left->type == VALUE_SCALAR && right->type == VALUE_SCALAR ? VALUE_SCALAR : VALUE_VECTOR;
        struct ast *ast = parser_node(parser, AST_BINARY, type, left->start,
                                      left->depth > right->depth ? left->depth : right->depth);
        if (ast == NULL)
            return NULL;
        ast->binary = binary.binary;
        ast->binary.left = left;
        ast->binary.right = right;
        if (op_is_set(op) && ast->binary.matching.card == CARD_ONE_TO_ONE)
            ast->binary.matching.card = CARD_MANY_TO_MANY;
        left = ast;
    }
    return left;
}

struct ast *parser_expr(struct parser *parser, int prec_min) {
    if (!parser_enter(parser))
        return NULL;
    struct ast *ast = expr_parse_inside(parser, prec_min);
    parser_leave(parser);
    return ast;
}

int query_parse(struct slice text, const struct limits *limits, struct arena *arena,
                struct query_error *error, struct parse_result *out) {
    int status = parse_text_check(text, limits->query_text_bytes_max, "query", error);
    if (status < 0)
        return status;
    struct parser parser = {.arena = arena, .limits = limits, .error = error};
    lexer_init(&parser.lexer, text);
    parser_advance(&parser);
    struct ast *root = NULL;
    if (parser.token.kind == TOKEN_END)
        parser_fail(&parser, 0, "no expression found in input");
    else
        root = parser_expr(&parser, PREC_OR);
    if (root != NULL && parser.token.kind != TOKEN_END)
        parser_unexpected(&parser, "", "");
    status = parser.status;
    if (status >= 0)
        status = query_check(root, text, error);
    if (status < 0) {
        parse_regexes_release(&parser.regexes);
        return status;
    }
    out->root = root;
    out->regexes = parser.regexes;
    return STATUS_OK;
}
