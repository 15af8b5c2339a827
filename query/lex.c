#include "query/lex.h"

#include <stdarg.h>
#include <stdio.h>
#include <strings.h>

#include "base/utf8.h"

static const struct {
    const char *text;
    enum token_class class;
} table[TOKEN_KINDS] = {
#define TOKEN(id, text, class) [TOKEN_##id] = {text, TOKEN_CLASS_##class},
#include "query/tokens.def"
#undef TOKEN
};

const char *token_text(enum token_kind kind) {
    return table[kind].text;
}

enum token_class token_class(enum token_kind kind) {
    return table[kind].class;
}

void lexer_init(struct lexer *lexer, struct slice input) {
    *lexer = (struct lexer){.input = input};
}

static bool is_digit(int c) {
    return c >= '0' && c <= '9';
}

static bool is_alpha(int c) {
    return c == '_' || ((c | 32) >= 'a' && (c | 32) <= 'z');
}

static bool is_hex(int c) {
    return is_digit(c) || ((c | 32) >= 'a' && (c | 32) <= 'f');
}

static bool is_space(int c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static int peek_at(const struct lexer *lexer, size_t at) {
    return at < lexer->input.len ? lexer->input.data[at] : -1;
}

static struct token token_make(struct lexer *lexer, enum token_kind kind, size_t start, size_t end) {
    lexer->at = end;
    return (struct token){kind, start, end, slice_of(lexer->input.data + start, end - start)};
}

static struct token error_at(struct lexer *lexer, size_t start, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static struct token error_at(struct lexer *lexer, size_t start, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(lexer->error, sizeof lexer->error, format, args);
    va_end(args);
    lexer->had_error = true;
    lexer->error_token = token_make(lexer, TOKEN_ERROR, start, start);
    return lexer->error_token;
}

/* The code point at `at` as Go's %q prints a rune. */
static void rune_quote(const struct lexer *lexer, size_t at, char out[24]) {
    uint32_t code = 0;
    size_t len = utf8_decode(lexer->input.data + at, lexer->input.data + lexer->input.len, &code);
    if (len == 0)
        snprintf(out, 24, "'\xef\xbf\xbd'");
    else if (code == '\'' || code == '\\')
        snprintf(out, 24, "'\\%c'", (int)code);
    else if (code == '\n')
        snprintf(out, 24, "'\\n'");
    else if (code == '\t')
        snprintf(out, 24, "'\\t'");
    else if (code == '\r')
        snprintf(out, 24, "'\\r'");
    else if (code < 32 || code == 127)
        snprintf(out, 24, "'\\x%02x'", code);
    else
        snprintf(out, 24, "'%.*s'", (int)len, (const char *)lexer->input.data + at);
}

static struct token unexpected_rune_at(struct lexer *lexer, size_t at, size_t position, const char *before) {
    char quoted[24];
    if (at >= lexer->input.len) {
        snprintf(quoted, sizeof quoted, "'\xef\xbf\xbd'");
    } else {
        rune_quote(lexer, at, quoted);
    }
    return error_at(lexer, position, "%s%s", before, quoted);
}

static struct token unexpected_rune(struct lexer *lexer, size_t at, const char *before) {
    return unexpected_rune_at(lexer, at, at, before);
}

/* A string from its opening quote on. Escapes are checked here and read by the parser. */
static struct token string_lex(struct lexer *lexer, size_t start) {
    uint8_t quote = lexer->input.data[start];
    size_t at = start + 1;
    if (quote == '`') {
        while (at < lexer->input.len && lexer->input.data[at] != '`')
            at++;
        if (at >= lexer->input.len)
            return error_at(lexer, start, "unterminated raw string");
        return token_make(lexer, TOKEN_STRING, start, at + 1);
    }
    for (;;) {
        int c = peek_at(lexer, at);
        if (c < 0 || c == '\n')
            return error_at(lexer, start, "unterminated quoted string");
        if (c == quote)
            return token_make(lexer, TOKEN_STRING, start, at + 1);
        if (c != '\\') {
            at++;
            continue;
        }
        int e = peek_at(lexer, at + 1);
        if (e < 0)
            return error_at(lexer, start, "escape sequence not terminated");
        size_t digits = 0;
        uint32_t base = 16, most = 255, value = 0;
        if (e == quote || (e > 0 && strchr("abfnrtv\\", e) != NULL)) {
            at += 2;
            continue;
        }
        if (e >= '0' && e <= '7') {
            digits = 3;
            base = 8;
            at += 1;
        } else if (e == 'x' || e == 'u' || e == 'U') {
            digits = e == 'x' ? 2 : e == 'u' ? 4 : 8;
            most = e == 'x' ? 255 : 0x10ffff;
            at += 2;
        } else {
            uint32_t code = 0;
            if (utf8_decode(lexer->input.data + at + 1, lexer->input.data + lexer->input.len, &code) == 0)
                code = 0xfffd;
            return error_at(lexer, start, "unknown escape sequence U+%04X", code);
        }
        for (size_t i = 0; i < digits; i++, at++) {
            int d = peek_at(lexer, at);
            if (d < 0)
                return error_at(lexer, start, "escape sequence not terminated");
            if (!(base == 8 ? d >= '0' && d <= '7' : is_hex(d)))
                return error_at(lexer, start, "illegal character U+%04X in escape sequence", (unsigned)d);
            uint32_t digit = (uint32_t)(is_digit(d) ? d - '0' : (d | 32) - 'a' + 10);
            value = value > 0x10ffff ? value : value * base + digit;
        }
        if (value > most || (most > 255 && value >= 0xd800 && value <= 0xdfff))
            return error_at(lexer, start, "escape sequence is an invalid Unicode code point");
    }
}

static size_t digits_skip(const struct lexer *lexer, size_t at, bool hex) {
    while (hex ? is_hex(peek_at(lexer, at)) : is_digit(peek_at(lexer, at)))
        at++;
    return at;
}

/* Digits, with single underscores between them. */
static size_t number_digits_skip(const struct lexer *lexer, size_t at, bool hex) {
    size_t end = digits_skip(lexer, at, hex);
    while (end > at && peek_at(lexer, end) == '_' &&
           (hex ? is_hex(peek_at(lexer, end + 1)) : is_digit(peek_at(lexer, end + 1))))
        end = digits_skip(lexer, end + 1, hex);
    return end;
}

static struct token number_lex(struct lexer *lexer, size_t start) {
    size_t at = start;
    if (peek_at(lexer, at) == '0' && (peek_at(lexer, at + 1) | 32) == 'x' && is_hex(peek_at(lexer, at + 2))) {
        at = number_digits_skip(lexer, at + 2, true);
    } else {
        at = number_digits_skip(lexer, at, false);
        if (peek_at(lexer, at) == '.')
            at = number_digits_skip(lexer, at + 1, false);
        int e = peek_at(lexer, at);
        if (e == 'e' || e == 'E') {
            size_t exponent = at + 1;
            if (peek_at(lexer, exponent) == '+' || peek_at(lexer, exponent) == '-')
                exponent++;
            if (is_digit(peek_at(lexer, exponent)))
                at = digits_skip(lexer, exponent, false);
        }
    }
    int c = peek_at(lexer, at);
    if (!is_alpha(c) && !is_digit(c) && c != '.')
        return token_make(lexer, TOKEN_NUMBER, start, at);
    /* Perhaps a duration: (digits unit)+ */
    size_t p = start;
    while (is_digit(peek_at(lexer, p))) {
        p = digits_skip(lexer, p, false);
        int unit = peek_at(lexer, p);
        if (unit == 'm' && peek_at(lexer, p + 1) == 's')
            p += 2;
        else if (unit > 0 && strchr("smhdwy", unit) != NULL)
            p++;
        else
            goto bad;
    }
    c = peek_at(lexer, p);
    if (p > start && !is_alpha(c) && !is_digit(c))
        return token_make(lexer, TOKEN_DURATION, start, p);
bad:
    p = p > at ? p : at;
    while (is_alpha(peek_at(lexer, p)) || is_digit(peek_at(lexer, p)))
        p++;
    size_t len = p - start < 60 ? p - start : 60;
    return error_at(lexer, start, "bad number or duration syntax: \"%.*s\"", (int)len,
                    (const char *)lexer->input.data + start);
}

static struct token word_lex(struct lexer *lexer, size_t start) {
    size_t at = start;
    bool colon = false;
    for (int c = peek_at(lexer, at); is_alpha(c) || is_digit(c) || c == ':'; c = peek_at(lexer, ++at))
        colon |= c == ':';
    size_t len = at - start;
    const char *text = (const char *)lexer->input.data + start;
    if (colon)
        return token_make(lexer, TOKEN_METRIC_IDENT, start, at);
    if (len == 3 && (strncasecmp(text, "inf", 3) == 0 || strncasecmp(text, "nan", 3) == 0))
        return token_make(lexer, TOKEN_NUMBER, start, at);
    for (enum token_kind kind = TOKEN_AND; kind < TOKEN_KINDS; kind++) {
        if (strlen(table[kind].text) == len && strncasecmp(text, table[kind].text, len) == 0)
            return token_make(lexer, kind, start, at);
    }
    return token_make(lexer, TOKEN_IDENT, start, at);
}

static struct token braces_lex(struct lexer *lexer, size_t start) {
    int c = peek_at(lexer, start), d = peek_at(lexer, start + 1);
    if (c < 0)
        return error_at(lexer, start, "unexpected end of input inside braces");
    if (is_alpha(c)) {
        size_t at = start;
        while (is_alpha(peek_at(lexer, at)) || is_digit(peek_at(lexer, at)))
            at++;
        return token_make(lexer, TOKEN_IDENT, start, at);
    }
    switch (c) {
    case '"':
    case '\'':
    case '`':
        return string_lex(lexer, start);
    case ',':
        return token_make(lexer, TOKEN_COMMA, start, start + 1);
    case '=':
        return d == '~' ? token_make(lexer, TOKEN_REGEX, start, start + 2)
                        : token_make(lexer, TOKEN_EQUAL, start, start + 1);
    case '!':
        if (d == '~')
            return token_make(lexer, TOKEN_NOT_REGEX, start, start + 2);
        if (d == '=')
            return token_make(lexer, TOKEN_NE, start, start + 2);
        return unexpected_rune_at(lexer, start + 1, start, "unexpected character after '!' inside braces: ");
    case '{':
        return unexpected_rune(lexer, start, "unexpected left brace ");
    case '}':
        lexer->in_braces = false;
        return token_make(lexer, TOKEN_RIGHT_BRACE, start, start + 1);
    default:
        return unexpected_rune(lexer, start, "unexpected character inside braces: ");
    }
}

static struct token brackets_lex(struct lexer *lexer, size_t start) {
    static const char *const words[] = {"step", "range", "max_of", "min_of"};
    int c = peek_at(lexer, start);
    if (c < 0)
        return error_at(lexer, start, "unexpected end of input in duration expression");
    if (is_digit(c) || (c == '.' && is_digit(peek_at(lexer, start + 1))))
        return number_lex(lexer, start);
    if (is_alpha(c)) {
        size_t at = start;
        while (is_alpha(peek_at(lexer, at)) || is_digit(peek_at(lexer, at)))
            at++;
        for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
            if (strlen(words[i]) == at - start &&
                strncasecmp(words[i], (const char *)lexer->input.data + start, at - start) == 0)
                return token_make(lexer, TOKEN_IDENT, start, at);
        }
        return unexpected_rune(lexer, start, "unexpected character in duration expression: ");
    }
    switch (c) {
    case ']':
        lexer->in_brackets = false;
        return token_make(lexer, TOKEN_RIGHT_BRACKET, start, start + 1);
    case '[':
        return unexpected_rune(lexer, start, "unexpected left bracket ");
    case ':':
        if (lexer->had_colon)
            return unexpected_rune(lexer, start, "unexpected colon ");
        lexer->had_colon = true;
        return token_make(lexer, TOKEN_COLON, start, start + 1);
    case '(':
        lexer->paren_depth++;
        return token_make(lexer, TOKEN_LEFT_PAREN, start, start + 1);
    case ')':
        if (lexer->paren_depth == 0)
            return unexpected_rune_at(lexer, start, start + 1, "unexpected right parenthesis ");
        lexer->paren_depth--;
        return token_make(lexer, TOKEN_RIGHT_PAREN, start, start + 1);
    case '+':
        return token_make(lexer, TOKEN_ADD, start, start + 1);
    case '-':
        return token_make(lexer, TOKEN_SUB, start, start + 1);
    case '*':
        return token_make(lexer, TOKEN_MUL, start, start + 1);
    case '/':
        return token_make(lexer, TOKEN_DIV, start, start + 1);
    case '%':
        return token_make(lexer, TOKEN_MOD, start, start + 1);
    case '^':
        return token_make(lexer, TOKEN_POW, start, start + 1);
    case ',':
        return token_make(lexer, TOKEN_COMMA, start, start + 1);
    default:
        return unexpected_rune(lexer, start, "unexpected character in duration expression: ");
    }
}

static struct token statement_lex(struct lexer *lexer, size_t start) {
    int c = peek_at(lexer, start), d = peek_at(lexer, start + 1);
    if (c < 0) {
        if (lexer->paren_depth > 0)
            return error_at(lexer, start, "unclosed left parenthesis");
        return token_make(lexer, TOKEN_END, start, start);
    }
    if (is_digit(c) || (c == '.' && is_digit(d)))
        return number_lex(lexer, start);
    if (is_alpha(c) || c == ':')
        return word_lex(lexer, start);
    switch (c) {
    case '"':
    case '\'':
    case '`':
        return string_lex(lexer, start);
    case '(':
        lexer->paren_depth++;
        return token_make(lexer, TOKEN_LEFT_PAREN, start, start + 1);
    case ')':
        if (lexer->paren_depth == 0)
            return unexpected_rune_at(lexer, start, start + 1, "unexpected right parenthesis ");
        lexer->paren_depth--;
        return token_make(lexer, TOKEN_RIGHT_PAREN, start, start + 1);
    case '{':
        lexer->in_braces = true;
        return token_make(lexer, TOKEN_LEFT_BRACE, start, start + 1);
    case '[':
        lexer->in_brackets = true;
        lexer->had_colon = false;
        return token_make(lexer, TOKEN_LEFT_BRACKET, start, start + 1);
    case ']':
        return unexpected_rune(lexer, start, "unexpected right bracket ");
    case ',':
        return token_make(lexer, TOKEN_COMMA, start, start + 1);
    case '+':
        return token_make(lexer, TOKEN_ADD, start, start + 1);
    case '-':
        return token_make(lexer, TOKEN_SUB, start, start + 1);
    case '*':
        return token_make(lexer, TOKEN_MUL, start, start + 1);
    case '/':
        return token_make(lexer, TOKEN_DIV, start, start + 1);
    case '%':
        return token_make(lexer, TOKEN_MOD, start, start + 1);
    case '^':
        return token_make(lexer, TOKEN_POW, start, start + 1);
    case '@':
        return token_make(lexer, TOKEN_AT, start, start + 1);
    case '=':
        if (d == '=')
            return token_make(lexer, TOKEN_EQ, start, start + 2);
        if (d == '~')
            return unexpected_rune_at(lexer, start + 1, start, "unexpected character after '=': ");
        return token_make(lexer, TOKEN_EQUAL, start, start + 1);
    case '!':
        if (d == '=')
            return token_make(lexer, TOKEN_NE, start, start + 2);
        return unexpected_rune_at(lexer, start + 1, start, "unexpected character after '!': ");
    case '<':
        if (d == '/')
            return token_make(lexer, TOKEN_TRIM_UPPER, start, start + 2);
        return d == '=' ? token_make(lexer, TOKEN_LE, start, start + 2)
                        : token_make(lexer, TOKEN_LT, start, start + 1);
    case '>':
        if (d == '/')
            return token_make(lexer, TOKEN_TRIM_LOWER, start, start + 2);
        return d == '=' ? token_make(lexer, TOKEN_GE, start, start + 2)
                        : token_make(lexer, TOKEN_GT, start, start + 1);
    default:
        return unexpected_rune(lexer, start, "unexpected character: ");
    }
}

struct token lexer_next(struct lexer *lexer) {
    if (lexer->had_error)
        return lexer->error_token;
    size_t at = lexer->at;
    for (;;) {
        while (is_space(peek_at(lexer, at)))
            at++;
        if (peek_at(lexer, at) != '#')
            break;
        while (at < lexer->input.len && lexer->input.data[at] != '\n')
            at++;
    }
    if (lexer->in_braces)
        return braces_lex(lexer, at);
    return lexer->in_brackets ? brackets_lex(lexer, at) : statement_lex(lexer, at);
}
