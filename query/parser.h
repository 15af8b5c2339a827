/* parser.h: what the files of the parser share (parser.c), and the entries of their grammars. Recursive
 * descent with precedence climbing; the first error ends it. Depth is bounded twice: what recursion may take
 * (`nesting`) and how deep the tree may grow (a chain a+a+a… leans to the left without recursion here, but
 * what walks the tree later recurses). Functions that return a pointer give NULL, those that return bool
 * false, after an error. */
#ifndef TIDALITE_QUERY_PARSER_H
#define TIDALITE_QUERY_PARSER_H

#include "query/parse.h"

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

/* ---- Errors: always NULL, so that they can be returned --------------------------------------------------
 */

void *parser_fail(struct parser *parser, size_t at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void *parser_fail_memory(struct parser *parser);

/* "unexpected … in CONTEXT, expected EXPECTED", both perhaps "". */
void *parser_unexpected(struct parser *parser, const char *context, const char *expected);

/* ---- Tokens and nodes -----------------------------------------------------------------------------------
 */

void parser_advance(struct parser *parser);
bool parser_accept(struct parser *parser, enum token_kind kind);

/* May a token stand in a list of labels: an identifier, or any keyword? */
bool is_label_token(enum token_kind kind);
bool token_is_word(const struct token *token, const char *word);

/* The value of a string token: the lexer has checked the escapes. */
bool parser_string_value(struct parser *parser, struct token token, struct slice *out);

/* A node from `start` to the token before this one, over trees of `depth_below`. */
struct ast *parser_node(struct parser *parser, enum ast_kind kind, enum value_type type, size_t start,
                        unsigned depth_below);
unsigned ast_depth(const struct ast *ast); /* 0 for NULL */

/* Around whatever recurses. */
bool parser_enter(struct parser *parser);
void parser_leave(struct parser *parser);

/* A growing array in the arena. */
void *parser_array_push(struct parser *parser, void *items, size_t count, size_t item_bytes);

/* Length and UTF-8 of a text. */
int parse_text_check(struct slice text, uint64_t bytes_max, const char *what, struct query_error *error);

/* ---- Grammars -------------------------------------------------------------------------------------------
 */

struct ast *parser_expr(struct parser *parser, int prec_min); /* parse.c */

/* parse_selector.c: name, name{…}, {…}; `name` is the token before the current one, or the current brace. */
struct ast *parser_selector(struct parser *parser, struct token name);

/* parse_postfix.c: what stands behind an operand. */
struct ast *parser_brackets(struct parser *parser, struct ast *expr);
bool parser_offset(struct parser *parser, struct ast *ast);
bool parser_at(struct parser *parser, struct ast *ast);
bool parser_extend(struct parser *parser, struct ast *ast);

/* parse_duration.c */
bool is_duration_word(struct slice word);
bool parser_seconds(struct parser *parser, struct token token, double *out); /* a number or duration token */
struct ast *parser_duration_number(struct parser *parser);
struct ast *parser_duration_operand(struct parser *parser);
struct ast *parser_duration_expr(struct parser *parser, int prec_min);

/* A parsed duration: a literal is settled now, the rest when the query's step is known. */
bool parser_duration_settle(struct parser *parser, struct ast *expr, bool positive, int64_t *ms_out,
                            struct ast **expr_out);

#endif
