/* parse.c: recursive descent with precedence climbing. The first error ends it. Depth is bounded twice: what
 * recursion may take (`nesting`) and how deep the tree may grow (a chain a+a+a… leans to the left without
 * recursion here, but what walks the tree later recurses). */
#include "query/parse.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <strings.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/label.h"
#include "base/utf8.h"
#include "query/functions.h"
#include "query/regex.h"

struct parser {
    struct lexer lexer;
    struct token token; /* the one to look at */
    size_t last_end;    /* of the token before */
    struct arena *arena;
    const struct limits *limits;
    struct query_error *error;
    struct parse_regexes regexes;
    unsigned nesting;
    int status;
};

enum { PREC_OR = 1, PREC_AND, PREC_COMPARE, PREC_ADD, PREC_MUL, PREC_POW };

static struct ast *expr_parse(struct parser *parser, int prec_min);
static struct ast *duration_expr_parse(struct parser *parser, int prec_min);

const char *value_type_name(enum value_type type) {
    switch (type) {
    case VALUE_SCALAR:
        return "scalar";
    case VALUE_VECTOR:
        return "instant vector";
    case VALUE_MATRIX:
        return "range vector";
    case VALUE_STRING:
        return "string";
    case VALUE_NONE:
        break;
    }
    return "none";
}

void text_position(struct slice text, size_t at, char out[48]) {
    size_t line = 1, line_start = 0;
    if (at > text.len)
        at = text.len;
    for (size_t i = 0; i < at; i++) {
        if (text.data[i] == '\n') {
            line++;
            line_start = i + 1;
        }
    }
    snprintf(out, 48, "%zu:%zu", line, at - line_start + 1);
}

/* What texts quote may hold any bytes, and a long one is cut anywhere: what is left is made UTF-8. */
void query_error_clean(struct query_error *error) {
    uint8_t *p = (uint8_t *)error->text, *end = p + strlen(error->text);
    uint32_t code;
    while (p < end) {
        size_t len = utf8_decode(p, end, &code);
        if (len == 0)
            *p = '?';
        p += len > 0 ? len : 1;
    }
}

static int parse_error_setv(struct query_error *error, struct slice text, size_t at, const char *format,
                            va_list args) {
    char position[48];
    text_position(text, at, position);
    error->type = QUERY_ERROR_BAD_DATA;
    int len = snprintf(error->text, sizeof error->text, "%s: parse error: ", position);
    vsnprintf(error->text + len, sizeof error->text - (size_t)len, format, args);
    query_error_clean(error);
    return STATUS_BAD_QUERY;
}

int parse_error_set(struct query_error *error, struct slice text, size_t at, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int status = parse_error_setv(error, text, at, format, args);
    va_end(args);
    return status;
}

__attribute__((format(printf, 3, 4))) static void *fail(struct parser *parser, size_t at, const char *format,
                                                        ...) {
    if (parser->status < 0)
        return NULL;
    va_list args;
    va_start(args, format);
    parser->status = parse_error_setv(parser->error, parser->lexer.input, at, format, args);
    va_end(args);
    return NULL;
}

static void *fail_memory(struct parser *parser) {
    if (parser->status >= 0) {
        parser->status = STATUS_NO_MEMORY;
        parser->error->type = QUERY_ERROR_INTERNAL;
        snprintf(parser->error->text, sizeof parser->error->text, "out of memory while parsing the query");
    }
    return NULL;
}

/* What the current token is called in an error. */
static void token_describe(const struct token *token, struct buf *out) {
    const char *kind = NULL;
    switch (token->kind) {
    case TOKEN_END:
        buf_append_str(out, "end of input");
        return;
    case TOKEN_IDENT:
        kind = "identifier ";
        break;
    case TOKEN_METRIC_IDENT:
        kind = "metric identifier ";
        break;
    case TOKEN_STRING:
        kind = "string ";
        break;
    case TOKEN_NUMBER:
        kind = "number ";
        break;
    case TOKEN_DURATION:
        kind = "duration ";
        break;
    default:
        break;
    }
    if (kind != NULL) {
        buf_append_str(out, kind);
        struct slice text = token->text;
        bool cut = text.len > 10 && token->kind != TOKEN_IDENT && token->kind != TOKEN_METRIC_IDENT;
        if (cut)
            text.len = 10;
        if (text.len > 200)
            text.len = 200;
        while (text.len > 0 && !utf8_valid(text))
            text.len--;
        text_quote(out, text);
        if (cut)
            buf_append_str(out, "...");
        return;
    }
    switch (token_class(token->kind)) {
    case TOKEN_CLASS_OPERATOR:
        buf_printf(out, "<op:%s>", token_text(token->kind));
        break;
    case TOKEN_CLASS_AGGREGATOR:
        buf_printf(out, "<aggr:%s>", token_text(token->kind));
        break;
    case TOKEN_CLASS_KEYWORD:
        buf_printf(out, "<%s>", token_text(token->kind));
        break;
    default:
        text_quote(out, slice_str(token_text(token->kind)));
        break;
    }
}

static void *unexpected(struct parser *parser, const char *context, const char *expected) {
    if (parser->token.kind == TOKEN_ERROR)
        return fail(parser, parser->token.start, "%s", parser->lexer.error);
    struct buf text;
    buf_init(&text);
    buf_append_str(&text, "unexpected ");
    token_describe(&parser->token, &text);
    if (context[0] != 0)
        buf_printf(&text, " in %s", context);
    if (expected[0] != 0)
        buf_printf(&text, ", expected %s", expected);
    if (text.failed)
        fail_memory(parser);
    else
        fail(parser, parser->token.start, "%.*s", (int)text.len, (const char *)text.data);
    buf_release(&text);
    return NULL;
}

static void advance(struct parser *parser) {
    parser->last_end = parser->token.end;
    parser->token = lexer_next(&parser->lexer);
}

static bool accept(struct parser *parser, enum token_kind kind) {
    if (parser->token.kind != kind)
        return false;
    advance(parser);
    return true;
}

static unsigned depth_of(const struct ast *ast) {
    return ast == NULL ? 0 : ast->depth;
}

static struct ast *node(struct parser *parser, enum ast_kind kind, enum value_type type, size_t start,
                        unsigned depth_below) {
    if (depth_below >= parser->limits->query_nesting_max)
        return fail(parser, start, "expression is nested deeper than %llu levels",
                    (unsigned long long)parser->limits->query_nesting_max);
    struct ast *ast = ARENA_NEW(parser->arena, struct ast);
    if (ast == NULL)
        return fail_memory(parser);
    ast->kind = kind;
    ast->type = type;
    ast->start = start;
    ast->end = parser->last_end;
    ast->depth = depth_below + 1;
    return ast;
}

static bool enter(struct parser *parser) {
    if (parser->status < 0)
        return false;
    if (++parser->nesting > parser->limits->query_nesting_max) {
        fail(parser, parser->token.start, "expression is nested deeper than %llu levels",
             (unsigned long long)parser->limits->query_nesting_max);
        return false;
    }
    return true;
}

static void leave(struct parser *parser) {
    parser->nesting--;
}

/* A growing array in the arena. */
static void *array_push(struct parser *parser, void *items, size_t count, size_t item_bytes) {
    if ((count & (count - 1)) != 0)
        return items; /* room up to the next power of two */
    size_t capacity = count == 0 ? 1 : count * 2;
    void *grown = arena_alloc(parser->arena, capacity * item_bytes);
    if (grown == NULL)
        return fail_memory(parser);
    if (count > 0)
        memcpy(grown, items, count * item_bytes);
    return grown;
}

/* The value of a string token: the lexer has checked the escapes. */
static bool string_value(struct parser *parser, struct token token, struct slice *out) {
    struct slice inner = slice_of(token.text.data + 1, token.text.len - 2);
    uint8_t *to = arena_alloc_bytes(parser->arena, inner.len + 1), *start = to;
    if (to == NULL) {
        fail_memory(parser);
        return false;
    }
    if (token.text.data[0] == '`') {
        for (size_t i = 0; i < inner.len; i++) {
            if (inner.data[i] != '\r') /* as in Go's raw strings */
                *to++ = inner.data[i];
        }
        *out = slice_of(start, (size_t)(to - start));
        return true;
    }
    for (size_t i = 0; i < inner.len;) {
        uint8_t c = inner.data[i++];
        if (c != '\\') {
            *to++ = c;
            continue;
        }
        c = inner.data[i++];
        size_t digits = 0, base = 16;
        switch (c) {
        case 'a':
            *to++ = '\a';
            continue;
        case 'b':
            *to++ = '\b';
            continue;
        case 'f':
            *to++ = '\f';
            continue;
        case 'n':
            *to++ = '\n';
            continue;
        case 'r':
            *to++ = '\r';
            continue;
        case 't':
            *to++ = '\t';
            continue;
        case 'v':
            *to++ = '\v';
            continue;
        case 'x':
            digits = 2;
            break;
        case 'u':
            digits = 4;
            break;
        case 'U':
            digits = 8;
            break;
        default:
            if (c < '0' || c > '7') {
                *to++ = c; /* a quote or a backslash */
                continue;
            }
            digits = 3;
            base = 8;
            i--;
            break;
        }
        uint32_t value = 0;
        for (size_t k = 0; k < digits; k++) {
            uint8_t d = inner.data[i++];
            value = value * (uint32_t)base + (uint32_t)(d <= '9' ? d - '0' : (d | 32) - 'a' + 10);
        }
        if (c == 'u' || c == 'U')
            to += utf8_encode(to, value); /* never longer than the escape */
        else
            *to++ = (uint8_t)value;
    }
    *out = slice_of(start, (size_t)(to - start));
    return true;
}

/* ---- Durations -------------------------------------------------------------------------------------------
 */

/* A number or duration token as seconds. */
static bool seconds_value(struct parser *parser, struct token token, double *out) {
    if (token.kind == TOKEN_DURATION) {
        int64_t ms;
        if (!duration_text_parse(token.text, &ms)) {
            fail(parser, token.start, "not a valid duration string: \"%.*s\"", SLICE_ARGS(token.text));
            return false;
        }
        *out = (double)ms / 1000;
        return true;
    }
    if (!number_text_parse(token.text, out)) {
        fail(parser, token.start,
             "error parsing number: strconv.ParseFloat: parsing \"%.*s\": invalid syntax",
             token.text.len > 60 ? 60 : (int)token.text.len, (const char *)token.text.data);
        return false;
    }
    return true;
}

static struct ast *duration_number(struct parser *parser) {
    struct token token = parser->token;
    double seconds;
    if (!seconds_value(parser, token, &seconds))
        return NULL;
    advance(parser);
    struct ast *ast = node(parser, AST_NUMBER, VALUE_SCALAR, token.start, 0);
    if (ast != NULL) {
        ast->number = seconds;
        ast->is_duration = token.kind == TOKEN_DURATION;
    }
    return ast;
}

static bool is_duration_word(struct slice word) {
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
    advance(parser);
    if (!accept(parser, TOKEN_LEFT_PAREN))
        return unexpected(parser, "duration expression", "\"(\"");
    size_t want = strlen(function->args);
    struct ast **args = ARENA_ARRAY(parser->arena, struct ast *, 2);
    if (args == NULL)
        return fail_memory(parser);
    unsigned depth = 0;
    for (size_t i = 0; i < want; i++) {
        if (i > 0 && !accept(parser, TOKEN_COMMA))
            return unexpected(parser, "duration expression", "\",\"");
        args[i] = duration_expr_parse(parser, PREC_ADD);
        if (args[i] == NULL)
            return NULL;
        depth = depth > args[i]->depth ? depth : args[i]->depth;
    }
    if (!accept(parser, TOKEN_RIGHT_PAREN))
        return unexpected(parser, "duration expression", "\")\"");
    struct ast *ast = node(parser, AST_CALL, VALUE_SCALAR, name.start, depth);
    if (ast != NULL) {
        ast->call.function = function;
        ast->call.args = args;
        ast->call.arg_count = want;
    }
    return ast;
}

static struct ast *duration_operand(struct parser *parser) {
    struct ast *ast = NULL;
    size_t start = parser->token.start;
    switch (parser->token.kind) {
    case TOKEN_NUMBER:
    case TOKEN_DURATION:
        ast = duration_number(parser);
        break;
    case TOKEN_ADD:
    case TOKEN_SUB: {
        enum token_kind op = parser->token.kind;
        advance(parser);
        struct ast *inner = duration_expr_parse(parser, PREC_POW);
        if (inner == NULL)
            break;
        ast = node(parser, AST_UNARY, VALUE_SCALAR, start, inner->depth);
        if (ast != NULL) {
            ast->unary.op = op;
            ast->unary.expr = inner;
        }
        break;
    }
    case TOKEN_LEFT_PAREN: {
        advance(parser);
        struct ast *inner = duration_expr_parse(parser, PREC_ADD);
        if (inner == NULL)
            break;
        if (!accept(parser, TOKEN_RIGHT_PAREN)) {
            unexpected(parser, "duration expression", "\")\"");
            break;
        }
        ast = node(parser, AST_PAREN, VALUE_SCALAR, start, inner->depth);
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
        unexpected(parser, "subquery or range selector", "number, duration, step(), or range()");
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
    struct ast *left = duration_operand(parser);
    while (left != NULL) {
        enum token_kind op = parser->token.kind;
        int prec = duration_prec(op);
        if (prec == 0 || prec < prec_min)
            break;
        advance(parser);
        struct ast *right = duration_expr_parse(parser, op == TOKEN_POW ? prec : prec + 1);
        if (right == NULL)
            return NULL;
        struct ast *ast = node(parser, AST_BINARY, VALUE_SCALAR, left->start,
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

static struct ast *duration_expr_parse(struct parser *parser, int prec_min) {
    if (!enter(parser))
        return NULL;
    struct ast *ast = duration_expr_parse_inside(parser, prec_min);
    leave(parser);
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

static const char duration_out_of_range[] = "duration out of range";

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
static bool duration_settle(struct parser *parser, struct ast *expr, bool positive, int64_t *ms_out,
                            struct ast **expr_out) {
    double sign;
    const struct ast *literal = duration_literal(expr, &sign);
    *expr_out = NULL;
    if (literal == NULL) {
        *expr_out = expr;
        return true;
    }
    if (!duration_to_ms(sign * literal->number, true, ms_out)) {
        fail(parser, expr->start, "%s", duration_out_of_range);
        return false;
    }
    if (positive && *ms_out <= 0) {
        fail(parser, expr->start, "duration must be greater than 0");
        return false;
    }
    return true;
}

struct resolve {
    struct slice text;
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
    parse_error_set(resolve->error, resolve->text, expr->start, "%s", fault);
    resolve->error->type = QUERY_ERROR_EXECUTION;
    return STATUS_EXECUTION;
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

int durations_resolve(struct ast *ast, struct slice text, int64_t start_ms, int64_t end_ms, int64_t step_ms,
                      struct query_error *error) {
    struct resolve resolve = {.text = text, .error = error};
    resolve.context.step_s = (double)step_ms / 1000;
    resolve.context.range_s = (double)(end_ms - start_ms) / 1000;
    return tree_resolve(&resolve, ast);
}

/* ---- Selectors ------------------------------------------------------------------------------------------
 */

static bool regex_add(struct parser *parser, struct regex *regex) {
    struct parse_regexes *list = &parser->regexes;
    if (list->count == list->capacity) {
        size_t capacity = list->capacity == 0 ? 4 : list->capacity * 2;
        struct regex **items = mem_realloc(list->items, capacity * sizeof(struct regex *));
        if (items == NULL) {
            regex_free(regex);
            fail_memory(parser);
            return false;
        }
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->count++] = regex;
    return true;
}

void parse_regexes_release(struct parse_regexes *regexes) {
    for (size_t i = 0; i < regexes->count; i++)
        regex_free(regexes->items[i]);
    mem_free(regexes->items);
    *regexes = (struct parse_regexes){0};
}

static bool matcher_push(struct parser *parser, struct ast *selector, struct matcher matcher) {
    selector->selector.matchers = array_push(parser, selector->selector.matchers,
                                             selector->selector.matcher_count, sizeof(struct matcher));
    if (selector->selector.matchers == NULL)
        return false;
    selector->selector.matchers[selector->selector.matcher_count++] = matcher;
    return true;
}

static bool matcher_make(struct parser *parser, struct ast *selector, size_t start, struct slice name,
                         enum token_kind op, struct slice value) {
    struct matcher matcher = {.name = name, .value = value};
    switch (op) {
    case TOKEN_EQUAL:
        matcher.kind = MATCHER_EQUAL;
        break;
    case TOKEN_NE:
        matcher.kind = MATCHER_NOT_EQUAL;
        break;
    case TOKEN_REGEX:
        matcher.kind = MATCHER_REGEX;
        break;
    default:
        matcher.kind = MATCHER_NOT_REGEX;
        break;
    }
    if (matcher.kind == MATCHER_REGEX || matcher.kind == MATCHER_NOT_REGEX) {
        char error[REGEX_ERROR_BYTES];
        struct regex *regex;
        int status = regex_new(value, parser->limits->regex_bytes_max, false, error, &regex);
        if (status == STATUS_NO_MEMORY)
            fail_memory(parser);
        if (status < 0) {
            fail(parser, start, "%s", error);
            return false;
        }
        if (!regex_add(parser, regex))
            return false;
        matcher.pattern = regex_pattern(regex);
    }
    return matcher_push(parser, selector, matcher);
}

static void *name_twice(struct parser *parser, size_t at, struct slice a, struct slice b) {
    struct buf text;
    buf_init(&text);
    text_quote(&text, a);
    buf_append_str(&text, " or ");
    text_quote(&text, b);
    if (text.failed)
        fail_memory(parser);
    else
        fail(parser, at, "metric name must not be set twice: %.*s", (int)text.len, (const char *)text.data);
    buf_release(&text);
    return NULL;
}

/* { … }, the brace is the current token. */
static bool matchers_parse(struct parser *parser, struct ast *selector) {
    advance(parser);
    while (parser->token.kind != TOKEN_RIGHT_BRACE) {
        struct token first = parser->token;
        if (first.kind != TOKEN_IDENT && first.kind != TOKEN_STRING) {
            unexpected(parser, "label matching", "identifier or \"}\"");
            return false;
        }
        struct slice name = first.text;
        if (first.kind == TOKEN_STRING && !string_value(parser, first, &name))
            return false;
        advance(parser);
        enum token_kind op = parser->token.kind;
        if (op == TOKEN_EQUAL || op == TOKEN_NE || op == TOKEN_REGEX || op == TOKEN_NOT_REGEX) {
            advance(parser);
            struct slice value;
            if (parser->token.kind != TOKEN_STRING) {
                unexpected(parser, "label matching", "string");
                return false;
            }
            if (!string_value(parser, parser->token, &value))
                return false;
            advance(parser);
            if (!matcher_make(parser, selector, first.start, name, op, value))
                return false;
        } else if (first.kind == TOKEN_STRING && (op == TOKEN_COMMA || op == TOKEN_RIGHT_BRACE)) {
            /* {"a metric name"} */
            if (selector->selector.name.data != NULL) {
                name_twice(parser, first.start, selector->selector.name, name);
                return false;
            }
            selector->selector.name = name;
            selector->selector.name_quoted = true;
            selector->selector.name_at = selector->selector.matcher_count;
        } else {
            unexpected(parser, "label matching", "label matching operator");
            return false;
        }
        if (parser->token.kind == TOKEN_COMMA)
            advance(parser);
        else if (parser->token.kind != TOKEN_RIGHT_BRACE) {
            unexpected(parser, "label matching", "\",\" or \"}\"");
            return false;
        }
    }
    advance(parser);
    return true;
}

/* name, name{…}, {…}; `name` empty for the last. The current token is behind the name. */
static struct ast *selector_parse(struct parser *parser, struct token name) {
    struct ast *ast = node(parser, AST_SELECTOR, VALUE_VECTOR, name.start, 0);
    if (ast == NULL)
        return NULL;
    if (name.kind != TOKEN_LEFT_BRACE)
        ast->selector.name = name.text;
    if (parser->token.kind == TOKEN_LEFT_BRACE && !matchers_parse(parser, ast))
        return NULL;
    ast->end = parser->last_end;
    if (ast->selector.name.data != NULL) {
        for (size_t i = 0; i < ast->selector.matcher_count; i++) {
            struct matcher *matcher = &ast->selector.matchers[i];
            if (slice_equal(matcher->name, slice_str(LABEL_NAME_METRIC)))
                return name_twice(parser, ast->start, ast->selector.name, matcher->value);
        }
        struct matcher matcher = {
            .kind = MATCHER_EQUAL, .name = slice_str(LABEL_NAME_METRIC), .value = ast->selector.name};
        if (!matcher_push(parser, ast, matcher))
            return NULL;
    }
    return ast;
}

/* ---- Label lists, calls, aggregations ---------------------------------------------------------------------
 */

static bool is_label_token(enum token_kind kind) {
    return kind == TOKEN_IDENT || (kind >= TOKEN_AND && kind < TOKEN_KINDS);
}

static bool labels_parse(struct parser *parser, struct slice **labels_out, size_t *count_out) {
    struct slice *labels = NULL;
    size_t count = 0;
    if (!accept(parser, TOKEN_LEFT_PAREN)) {
        unexpected(parser, "grouping opts", "\"(\"");
        return false;
    }
    while (parser->token.kind != TOKEN_RIGHT_PAREN) {
        struct slice label = parser->token.text;
        if (parser->token.kind == TOKEN_STRING) {
            if (!string_value(parser, parser->token, &label))
                return false;
            if (label.len == 0 || !utf8_valid(label)) {
                unexpected(parser, "grouping opts", "label");
                return false;
            }
        } else if (!is_label_token(parser->token.kind)) {
            /* Numbers: inf and nan are words too, and a metric identifier has a colon. */
            uint8_t c = label.len > 0 ? label.data[0] : 0;
            if (parser->token.kind != TOKEN_NUMBER || (c | 32) < 'a' || (c | 32) > 'z') {
                unexpected(parser, "grouping opts", "label");
                return false;
            }
        }
        labels = array_push(parser, labels, count, sizeof(struct slice));
        if (labels == NULL)
            return false;
        labels[count++] = label;
        advance(parser);
        if (parser->token.kind == TOKEN_COMMA)
            advance(parser);
        else if (parser->token.kind != TOKEN_RIGHT_PAREN) {
            unexpected(parser, "grouping opts", "\",\" or \")\"");
            return false;
        }
    }
    advance(parser);
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
    advance(parser);
    while (parser->token.kind != TOKEN_RIGHT_PAREN) {
        struct ast *arg = expr_parse(parser, PREC_OR);
        if (arg == NULL)
            return false;
        args = array_push(parser, args, count, sizeof(struct ast *));
        if (args == NULL)
            return false;
        args[count++] = arg;
        depth = depth > arg->depth ? depth : arg->depth;
        if (parser->token.kind == TOKEN_COMMA) {
            size_t comma = parser->token.start;
            advance(parser);
            if (parser->token.kind == TOKEN_RIGHT_PAREN) {
                fail(parser, comma, "trailing commas not allowed in function call args");
                return false;
            }
        } else if (parser->token.kind != TOKEN_RIGHT_PAREN) {
            unexpected(parser, "", "");
            return false;
        }
    }
    advance(parser);
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
        return fail(parser, name.start, "unknown function with name \"%.*s\"", len,
                    (const char *)name.text.data);
    }
    struct ast *ast = node(parser, AST_CALL, function->type, name.start, depth);
    if (ast == NULL)
        return NULL;
    ast->call.function = function;
    ast->call.args = args;
    ast->call.arg_count = count;
    return ast;
}

static bool aggregate_clause(struct parser *parser, struct ast *ast) {
    ast->aggregate.without = parser->token.kind == TOKEN_WITHOUT;
    advance(parser);
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
        return unexpected(parser, "aggregation", "");
    if (!args_parse(parser, &args, &count, &depth))
        return NULL;
    if (!has_clause && (parser->token.kind == TOKEN_BY || parser->token.kind == TOKEN_WITHOUT) &&
        !aggregate_clause(parser, &clause))
        return NULL;
    struct ast *ast = node(parser, AST_AGGREGATE, VALUE_VECTOR, op.start, depth);
    if (ast == NULL)
        return NULL;
    ast->aggregate = clause.aggregate;
    ast->aggregate.op = op.kind;
    if (count == 0)
        return fail(parser, op.start, "no arguments for aggregate expression provided");
    size_t want = aggregate_has_param(op.kind) ? 2 : 1;
    if (count != want)
        return fail(parser, op.start,
                    "wrong number of arguments for aggregate expression provided, expected %zu, got %zu",
                    want, count);
    ast->aggregate.param = want == 2 ? args[0] : NULL;
    ast->aggregate.expr = args[want - 1];
    return ast;
}

/* ---- Postfix: ranges, offset, @
 * ---------------------------------------------------------------------------- */

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

static struct ast *brackets_parse(struct parser *parser, struct ast *expr) {
    size_t bracket = parser->token.start;
    advance(parser);
    if (parser->token.kind == TOKEN_RIGHT_BRACKET || parser->token.kind == TOKEN_COLON)
        return unexpected(parser, "subquery or range selector", "number, duration, step(), or range()");
    struct ast *range = duration_expr_parse(parser, PREC_ADD), *range_expr = NULL, *step_expr = NULL;
    int64_t range_ms = 0, step_ms = 0;
    if (range == NULL || !duration_settle(parser, range, true, &range_ms, &range_expr))
        return NULL;
    bool subquery = accept(parser, TOKEN_COLON), has_step = false;
    if (subquery && parser->token.kind != TOKEN_RIGHT_BRACKET) {
        struct ast *step = duration_expr_parse(parser, PREC_ADD);
        if (step == NULL || !duration_settle(parser, step, true, &step_ms, &step_expr))
            return NULL;
        has_step = true;
    }
    if (!accept(parser, TOKEN_RIGHT_BRACKET))
        return subquery ? unexpected(parser, "subquery selector", "\"]\"")
                        : unexpected(parser, "subquery or range", "\":\" or \"]\"");
    unsigned depth = expr->depth;
    depth = depth > depth_of(range_expr) ? depth : depth_of(range_expr);
    depth = depth > depth_of(step_expr) ? depth : depth_of(step_expr);
    if (!subquery) {
        if (expr->kind != AST_SELECTOR)
            return fail(parser, bracket, "ranges only allowed for vector selectors");
        if (shift_is_set(&expr->selector.shift))
            return fail(parser, bracket, "no offset modifiers allowed before range");
        if (expr->selector.shift.at != AT_NONE)
            return fail(parser, bracket, "no @ modifiers allowed before range");
        if (expr->selector.anchored || expr->selector.smoothed)
            return fail(parser, bracket, "no anchored or smoothed modifiers allowed before range");
    }
    struct ast *ast = node(parser, subquery ? AST_SUBQUERY : AST_MATRIX, VALUE_MATRIX, expr->start, depth);
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
        advance(parser);
    struct ast *ast;
    enum token_kind kind = parser->token.kind;
    if (kind == TOKEN_NUMBER || kind == TOKEN_DURATION || kind == TOKEN_LEFT_PAREN ||
        (kind == TOKEN_IDENT && is_duration_word(parser->token.text)))
        ast = duration_operand(parser);
    else
        return unexpected(parser, "offset", "number, duration, step(), or range()");
    if (ast == NULL || !has_sign)
        return ast;
    struct ast *unary = node(parser, AST_UNARY, VALUE_SCALAR, sign.start, ast->depth);
    if (unary != NULL) {
        unary->unary.op = sign.kind;
        unary->unary.expr = ast;
    }
    return unary;
}

static bool offset_parse(struct parser *parser, struct ast *ast) {
    advance(parser);
    struct ast *operand = offset_operand(parser);
    if (operand == NULL)
        return false;
    struct ast_shift *shift = shift_of(ast);
    if (shift == NULL) {
        fail(parser, ast->start,
             "offset modifier must be preceded by an instant vector selector or range vector selector or a "
             "subquery");
        return false;
    }
    if (shift_is_set(shift)) {
        fail(parser, ast->start, "offset may not be set multiple times");
        return false;
    }
    if (!duration_settle(parser, operand, false, &shift->offset_ms, &shift->offset_expr))
        return false;
    shift->has_offset = true;
    ast->end = parser->last_end;
    return true;
}

static bool token_is_word(const struct token *token, const char *word) {
    return token->kind == TOKEN_IDENT && token->text.len == strlen(word) &&
           strncasecmp((const char *)token->text.data, word, token->text.len) == 0;
}

static bool at_parse(struct parser *parser, struct ast *ast) {
    advance(parser);
    struct ast_shift parsed = {0};
    bool is_start = token_is_word(&parser->token, "start");
    if (is_start || token_is_word(&parser->token, "end")) {
        advance(parser);
        if (!accept(parser, TOKEN_LEFT_PAREN) || !accept(parser, TOKEN_RIGHT_PAREN)) {
            unexpected(parser, "@", "timestamp");
            return false;
        }
        parsed.at = is_start ? AT_START : AT_END;
    } else {
        double sign = parser->token.kind == TOKEN_SUB ? -1 : 1, seconds;
        if (parser->token.kind == TOKEN_SUB || parser->token.kind == TOKEN_ADD)
            advance(parser);
        if (parser->token.kind != TOKEN_NUMBER && parser->token.kind != TOKEN_DURATION) {
            unexpected(parser, "@", "timestamp");
            return false;
        }
        if (!seconds_value(parser, parser->token, &seconds))
            return false;
        double ms = round(sign * seconds * 1000);
        if (!isfinite(ms) || fabs(ms) >= 9.2e15) {
            fail(parser, parser->token.start, "timestamp out of bounds for @ modifier: %f", sign * seconds);
            return false;
        }
        advance(parser);
        parsed.at = AT_TIME;
        parsed.at_ms = (int64_t)ms;
    }
    struct ast_shift *shift = shift_of(ast);
    if (shift == NULL) {
        fail(parser, ast->start,
             "@ modifier must be preceded by an instant vector selector or range vector selector or a "
             "subquery");
        return false;
    }
    if (shift->at != AT_NONE) {
        fail(parser, ast->start, "@ <timestamp> may not be set multiple times");
        return false;
    }
    shift->at = parsed.at;
    shift->at_ms = parsed.at_ms;
    ast->end = parser->last_end;
    return true;
}

static bool extend_parse(struct parser *parser, struct ast *ast) {
    bool anchored = parser->token.kind == TOKEN_ANCHORED;
    advance(parser);
    bool *anchored_flag, *smoothed_flag;
    if (ast->kind == AST_SELECTOR) {
        anchored_flag = &ast->selector.anchored;
        smoothed_flag = &ast->selector.smoothed;
    } else if (ast->kind == AST_MATRIX) {
        anchored_flag = &ast->range.anchored;
        smoothed_flag = &ast->range.smoothed;
    } else {
        fail(parser, ast->start,
             "%s modifier must be preceded by an instant vector selector or range vector selector",
             anchored ? "anchored" : "smoothed");
        return false;
    }
    if (anchored && ast->kind == AST_SELECTOR) {
        fail(parser, ast->start, "anchored modifier must be preceded by a range vector selector");
        return false;
    }
    if (*anchored_flag || *smoothed_flag) {
        fail(parser, ast->start,
             "anchored and smoothed modifiers cannot be used together or set multiple times");
        return false;
    }
    *(anchored ? anchored_flag : smoothed_flag) = true;
    ast->end = parser->last_end;
    return true;
}

/* ---- Expressions
 * -------------------------------------------------------------------------------------------- */

static struct ast *literal_parse(struct parser *parser) {
    struct token token = parser->token;
    if (token.kind == TOKEN_STRING) {
        struct slice value;
        if (!string_value(parser, token, &value))
            return NULL;
        advance(parser);
        struct ast *ast = node(parser, AST_STRING, VALUE_STRING, token.start, 0);
        if (ast != NULL)
            ast->string = value;
        return ast;
    }
    return duration_number(parser);
}

static struct ast *primary_parse(struct parser *parser) {
    struct token token = parser->token;
    switch (token.kind) {
    case TOKEN_NUMBER:
    case TOKEN_DURATION:
    case TOKEN_STRING:
        return literal_parse(parser);
    case TOKEN_LEFT_PAREN: {
        advance(parser);
        struct ast *inner = expr_parse(parser, PREC_OR);
        if (inner == NULL)
            return NULL;
        if (!accept(parser, TOKEN_RIGHT_PAREN))
            return unexpected(parser, "", "");
        struct ast *ast = node(parser, AST_PAREN, inner->type, token.start, inner->depth);
        if (ast != NULL)
            ast->paren = inner;
        return ast;
    }
    case TOKEN_LEFT_BRACE:
        return selector_parse(parser, token);
    case TOKEN_IDENT:
        advance(parser);
        return parser->token.kind == TOKEN_LEFT_PAREN ? call_parse(parser, token)
                                                      : selector_parse(parser, token);
    case TOKEN_METRIC_IDENT:
        advance(parser);
        return selector_parse(parser, token);
    case TOKEN_BOOL:
    case TOKEN_ON:
    case TOKEN_IGNORING:
    case TOKEN_GROUP_LEFT:
    case TOKEN_GROUP_RIGHT:
    case TOKEN_ATAN2:
        return unexpected(parser, "", "");
    default:
        break;
    }
    if (token_class(token.kind) == TOKEN_CLASS_AGGREGATOR) {
        advance(parser);
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
            return unexpected(parser, "aggregation", "");
        default:
            return selector_parse(parser, token);
        }
    }
    if (is_label_token(token.kind)) { /* a keyword as a metric's name */
        advance(parser);
        return selector_parse(parser, token);
    }
    return unexpected(parser, "", "");
}

static struct ast *operand_parse(struct parser *parser) {
    struct ast *ast = NULL;
    struct token sign = parser->token;
    if (sign.kind == TOKEN_ADD || sign.kind == TOKEN_SUB) {
        advance(parser);
        struct ast *inner = expr_parse(parser, PREC_POW); /* as tight as *, so only ^ binds tighter */
        if (inner != NULL && inner->kind == AST_NUMBER) {
            if (sign.kind == TOKEN_SUB)
                inner->number = -inner->number;
            inner->start = sign.start;
            ast = inner;
        } else if (inner != NULL) {
            ast = node(parser, AST_UNARY, inner->type, sign.start, inner->depth);
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
            ast = brackets_parse(parser, ast);
            continue;
        case TOKEN_OFFSET:
            ok = offset_parse(parser, ast);
            break;
        case TOKEN_AT:
            ok = at_parse(parser, ast);
            break;
        case TOKEN_ANCHORED:
        case TOKEN_SMOOTHED:
            ok = extend_parse(parser, ast);
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
    advance(parser);
    advance(parser);
    double sign = parser->token.kind == TOKEN_SUB ? -1 : 1;
    if (parser->token.kind == TOKEN_SUB || parser->token.kind == TOKEN_ADD)
        advance(parser);
    if (parser->token.kind != TOKEN_NUMBER && parser->token.kind != TOKEN_DURATION) {
        unexpected(parser, "fill modifier", "number");
        return false;
    }
    double value;
    if (!seconds_value(parser, parser->token, &value))
        return false;
    advance(parser);
    if (!accept(parser, TOKEN_RIGHT_PAREN)) {
        unexpected(parser, "fill modifier", "\")\"");
        return false;
    }
    *out = sign * value;
    return true;
}

static bool modifiers_parse(struct parser *parser, struct ast *binary) {
    struct ast_matching *matching = &binary->binary.matching;
    if (accept(parser, TOKEN_BOOL))
        binary->binary.return_bool = true;
    if (parser->token.kind == TOKEN_ON || parser->token.kind == TOKEN_IGNORING) {
        matching->has_matching = true;
        matching->on = parser->token.kind == TOKEN_ON;
        advance(parser);
        if (!labels_parse(parser, &matching->labels, &matching->label_count))
            return false;
        if (parser->token.kind == TOKEN_GROUP_LEFT || parser->token.kind == TOKEN_GROUP_RIGHT) {
            matching->card = parser->token.kind == TOKEN_GROUP_LEFT ? CARD_MANY_TO_ONE : CARD_ONE_TO_MANY;
            advance(parser);
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
        advance(parser);
        struct ast binary = {0};
        binary.binary.op = op;
        if (!modifiers_parse(parser, &binary))
            return NULL;
        struct ast *right = expr_parse(parser, op == TOKEN_POW ? prec : prec + 1);
        if (right == NULL)
            return NULL;
        enum value_type type =
            left->type == VALUE_SCALAR && right->type == VALUE_SCALAR ? VALUE_SCALAR : VALUE_VECTOR;
        struct ast *ast = node(parser, AST_BINARY, type, left->start,
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

static struct ast *expr_parse(struct parser *parser, int prec_min) {
    if (!enter(parser))
        return NULL;
    struct ast *ast = expr_parse_inside(parser, prec_min);
    leave(parser);
    return ast;
}

static int text_check(struct slice text, uint64_t bytes_max, const char *what, struct query_error *error) {
    if (text.len > bytes_max)
        return parse_error_set(error, text, 0, "the %s is longer than %llu bytes", what,
                               (unsigned long long)bytes_max);
    if (!utf8_valid(text)) {
        const uint8_t *p = text.data, *end = text.data + text.len;
        uint32_t code;
        for (size_t len; p < end && (len = utf8_decode(p, end, &code)) > 0;)
            p += len;
        return parse_error_set(error, text, (size_t)(p - text.data), "invalid UTF-8 rune");
    }
    return STATUS_OK;
}

int query_parse(struct slice text, const struct limits *limits, struct arena *arena,
                struct query_error *error, struct parse_result *out) {
    int status = text_check(text, limits->query_text_bytes_max, "query", error);
    if (status < 0)
        return status;
    struct parser parser = {.arena = arena, .limits = limits, .error = error};
    lexer_init(&parser.lexer, text);
    advance(&parser);
    struct ast *root = NULL;
    if (parser.token.kind == TOKEN_END)
        fail(&parser, 0, "no expression found in input");
    else
        root = expr_parse(&parser, PREC_OR);
    if (root != NULL && parser.token.kind != TOKEN_END)
        unexpected(&parser, "", "");
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

int query_selector_parse(struct slice text, const struct limits *limits, struct arena *arena,
                         struct query_error *error, struct query_selector *out) {
    int status = text_check(text, limits->selector_bytes_max, "selector", error);
    if (status < 0)
        return status;
    struct parser parser = {.arena = arena, .limits = limits, .error = error};
    lexer_init(&parser.lexer, text);
    advance(&parser);
    struct token first = parser.token;
    struct ast *ast = NULL;
    if (first.kind == TOKEN_LEFT_BRACE) {
        ast = selector_parse(&parser, first);
    } else if (is_label_token(first.kind) || first.kind == TOKEN_METRIC_IDENT) {
        advance(&parser);
        ast = selector_parse(&parser, first);
    } else {
        unexpected(&parser, "", "");
    }
    if (ast != NULL && parser.token.kind != TOKEN_END)
        unexpected(&parser, "", "");
    status = parser.status;
    if (status >= 0) {
        bool not_empty = false;
        for (size_t i = 0; i < ast->selector.matcher_count; i++)
            not_empty = not_empty || !matcher_match(&ast->selector.matchers[i], slice_of(NULL, 0));
        if (!not_empty) {
            error->type = QUERY_ERROR_BAD_DATA;
            snprintf(error->text, sizeof error->text, "match[] must contain at least one non-empty matcher");
            status = STATUS_BAD_QUERY;
        }
    }
    if (status >= 0) {
        out->matchers = ast->selector.matchers;
        out->count = ast->selector.matcher_count;
        mem_free(parser.regexes.items); /* each is reachable through its matcher */
        return STATUS_OK;
    }
    parse_regexes_release(&parser.regexes);
    return status;
}

void query_selector_release(struct query_selector *selector) {
    for (size_t i = 0; i < selector->count; i++) {
        if (selector->matchers[i].pattern != NULL)
            regex_free(regex_of(selector->matchers[i].pattern));
    }
    *selector = (struct query_selector){0};
}
