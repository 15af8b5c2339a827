/* parse_selector.c: series selectors, by themselves (match[]) and in queries. */
#include "query/parser.h"

#include <stdio.h>

#include "base/alloc.h"
#include "base/label.h"
#include "query/regex.h"

static bool regex_add(struct parser *parser, struct regex *regex) {
    struct parse_regexes *list = &parser->regexes;
    if (list->count == list->capacity) {
        size_t capacity = list->capacity == 0 ? 4 : list->capacity * 2;
        struct regex **items = mem_realloc(list->items, capacity * sizeof(struct regex *));
        if (items == NULL) {
            regex_free(regex);
            parser_fail_memory(parser);
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
    selector->selector.matchers = parser_array_push(parser, selector->selector.matchers,
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
            parser_fail_memory(parser);
        if (status < 0) {
            parser_fail(parser, start, "%s", error);
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
        parser_fail_memory(parser);
    else
        parser_fail(parser, at, "metric name must not be set twice: %.*s", (int)text.len,
                    (const char *)text.data);
    buf_release(&text);
    return NULL;
}

/* { … }, the brace is the current token. */
static bool matchers_parse(struct parser *parser, struct ast *selector) {
    parser_advance(parser);
    while (parser->token.kind != TOKEN_RIGHT_BRACE) {
        struct token first = parser->token;
        if (first.kind != TOKEN_IDENT && first.kind != TOKEN_STRING) {
            parser_unexpected(parser, "label matching", "identifier or \"}\"");
            return false;
        }
        struct slice name = first.text;
        if (first.kind == TOKEN_STRING && !parser_string_value(parser, first, &name))
            return false;
        parser_advance(parser);
        enum token_kind op = parser->token.kind;
        if (op == TOKEN_EQUAL || op == TOKEN_NE || op == TOKEN_REGEX || op == TOKEN_NOT_REGEX) {
            parser_advance(parser);
            struct slice value;
            if (parser->token.kind != TOKEN_STRING) {
                parser_unexpected(parser, "label matching", "string");
                return false;
            }
            if (!parser_string_value(parser, parser->token, &value))
                return false;
            parser_advance(parser);
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
            parser_unexpected(parser, "label matching", "label matching operator");
            return false;
        }
        if (parser->token.kind == TOKEN_COMMA)
            parser_advance(parser);
        else if (parser->token.kind != TOKEN_RIGHT_BRACE) {
            parser_unexpected(parser, "label matching", "\",\" or \"}\"");
            return false;
        }
    }
    parser_advance(parser);
    return true;
}

/* name, name{…}, {…}; `name` empty for the last. The current token is behind the name. */
struct ast *parser_selector(struct parser *parser, struct token name) {
    struct ast *ast = parser_node(parser, AST_SELECTOR, VALUE_VECTOR, name.start, 0);
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

int query_selector_parse(struct slice text, const struct limits *limits, struct arena *arena,
                         struct query_error *error, struct query_selector *out) {
    int status = parse_text_check(text, limits->selector_bytes_max, "selector", error);
    if (status < 0)
        return status;
    struct parser parser = {.arena = arena, .limits = limits, .error = error};
    lexer_init(&parser.lexer, text);
    parser_advance(&parser);
    struct token first = parser.token;
    struct ast *ast = NULL;
    if (first.kind == TOKEN_LEFT_BRACE) {
        ast = parser_selector(&parser, first);
    } else if (is_label_token(first.kind) || first.kind == TOKEN_METRIC_IDENT) {
        parser_advance(&parser);
        ast = parser_selector(&parser, first);
    } else {
        parser_unexpected(&parser, "", "");
    }
    if (ast != NULL && parser.token.kind != TOKEN_END)
        parser_unexpected(&parser, "", "");
    status = parser.status;
    if (status >= 0) {
        out->matchers = ast->selector.matchers;
        out->count = ast->selector.matcher_count;
        out->empty_ok = true;
        for (size_t i = 0; i < out->count; i++)
            out->empty_ok = out->empty_ok && matcher_match(&out->matchers[i], slice_of(NULL, 0));
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
