/* parser.c: errors, tokens and nodes of the parser. */
#include "query/parser.h"

#include <stdarg.h>
#include <stdio.h>
#include <strings.h>

#include "base/label.h"
#include "base/utf8.h"

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

void *parser_fail(struct parser *parser, size_t at, const char *format, ...) {
    if (parser->status < 0)
        return NULL;
    va_list args;
    va_start(args, format);
    parser->status = parse_error_setv(parser->error, parser->lexer.input, at, format, args);
    va_end(args);
    return NULL;
}

void *parser_fail_memory(struct parser *parser) {
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

void *parser_unexpected(struct parser *parser, const char *context, const char *expected) {
    if (parser->token.kind == TOKEN_ERROR)
        return parser_fail(parser, parser->token.start, "%s", parser->lexer.error);
    struct buf text;
    buf_init(&text);
    buf_append_str(&text, "unexpected ");
    token_describe(&parser->token, &text);
    if (context[0] != 0)
        buf_printf(&text, " in %s", context);
    if (expected[0] != 0)
        buf_printf(&text, ", expected %s", expected);
    if (text.failed)
        parser_fail_memory(parser);
    else
        parser_fail(parser, parser->token.start, "%.*s", (int)text.len, (const char *)text.data);
    buf_release(&text);
    return NULL;
}

void parser_advance(struct parser *parser) {
    parser->last_end = parser->token.end;
    parser->token = lexer_next(&parser->lexer);
}

bool parser_accept(struct parser *parser, enum token_kind kind) {
    if (parser->token.kind != kind)
        return false;
    parser_advance(parser);
    return true;
}

unsigned ast_depth(const struct ast *ast) {
    return ast == NULL ? 0 : ast->depth;
}

struct ast *parser_node(struct parser *parser, enum ast_kind kind, enum value_type type, size_t start,
                        unsigned depth_below) {
    if (depth_below >= parser->limits->query_nesting_max)
        return parser_fail(parser, start, "expression is nested deeper than %llu levels",
                           (unsigned long long)parser->limits->query_nesting_max);
    struct ast *ast = ARENA_NEW(parser->arena, struct ast);
    if (ast == NULL)
        return parser_fail_memory(parser);
    ast->kind = kind;
    ast->type = type;
    ast->start = start;
    ast->end = parser->last_end;
    ast->depth = depth_below + 1;
    return ast;
}

bool parser_enter(struct parser *parser) {
    if (parser->status < 0)
        return false;
    if (++parser->nesting > parser->limits->query_nesting_max) {
        parser_fail(parser, parser->token.start, "expression is nested deeper than %llu levels",
                    (unsigned long long)parser->limits->query_nesting_max);
        return false;
    }
    return true;
}

void parser_leave(struct parser *parser) {
    parser->nesting--;
}

/* A growing array in the arena. */
void *parser_array_push(struct parser *parser, void *items, size_t count, size_t item_bytes) {
    if ((count & (count - 1)) != 0)
        return items; /* room up to the next power of two */
    size_t capacity = count == 0 ? 1 : count * 2;
    void *grown = arena_alloc(parser->arena, capacity * item_bytes);
    if (grown == NULL)
        return parser_fail_memory(parser);
    if (count > 0)
        memcpy(grown, items, count * item_bytes);
    return grown;
}

/* The value of a string token: the lexer has checked the escapes. */
bool parser_string_value(struct parser *parser, struct token token, struct slice *out) {
    struct slice inner = slice_of(token.text.data + 1, token.text.len - 2);
    uint8_t *to = arena_alloc_bytes(parser->arena, inner.len + 1), *start = to;
    if (to == NULL) {
        parser_fail_memory(parser);
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

bool is_label_token(enum token_kind kind) {
    return kind == TOKEN_IDENT || (kind >= TOKEN_AND && kind < TOKEN_KINDS);
}

bool token_is_word(const struct token *token, const char *word) {
    return token->kind == TOKEN_IDENT && token->text.len == strlen(word) &&
           strncasecmp((const char *)token->text.data, word, token->text.len) == 0;
}

int parse_text_check(struct slice text, uint64_t bytes_max, const char *what, struct query_error *error) {
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
