/* lex.h: PromQL text → tokens, one at a time. Positions are byte offsets. Never fails as a function: what is
 * wrong becomes a TOKEN_ERROR with Prometheus' words, and from then on every token is that error. */
#ifndef TIDALITE_QUERY_LEX_H
#define TIDALITE_QUERY_LEX_H

#include <stdbool.h>
#include <stddef.h>

#include "base/slice.h"

enum token_kind {
#define TOKEN(id, text, class) TOKEN_##id,
#include "query/tokens.def"
#undef TOKEN
    TOKEN_KINDS
};

enum token_class {
    TOKEN_CLASS_OTHER,
    TOKEN_CLASS_SYMBOL,
    TOKEN_CLASS_OPERATOR,
    TOKEN_CLASS_AGGREGATOR,
    TOKEN_CLASS_KEYWORD
};

struct token {
    enum token_kind kind;
    size_t start;
    size_t end;
    struct slice text; /* as written, borrowed from the input; strings with their quotes */
};

#define LEX_ERROR_BYTES 160

struct lexer {
    struct slice input;
    size_t at;
    size_t paren_depth;
    bool in_braces;
    bool in_brackets;
    bool had_colon; /* inside these brackets */
    bool had_error;
    struct token error_token;
    char error[LEX_ERROR_BYTES];
};

void lexer_init(struct lexer *lexer, struct slice input);
struct token lexer_next(struct lexer *lexer);

const char *token_text(enum token_kind kind);
enum token_class token_class(enum token_kind kind);

#endif
