/* ast.h: a parsed query. Nodes live in the parser's arena. */
#ifndef TIDALITE_QUERY_AST_H
#define TIDALITE_QUERY_AST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/matcher.h"
#include "base/slice.h"
#include "query/lex.h"

enum value_type { VALUE_NONE, VALUE_SCALAR, VALUE_VECTOR, VALUE_MATRIX, VALUE_STRING };

enum ast_kind {
    AST_NUMBER,
    AST_STRING,
    AST_SELECTOR, /* a{b="c"} */
    AST_MATRIX,   /* selector[5m] */
    AST_SUBQUERY, /* expr[5m:1m] */
    AST_UNARY,
    AST_BINARY,
    AST_AGGREGATE,
    AST_CALL,
    AST_PAREN
};

enum at_kind { AT_NONE, AT_TIME, AT_START, AT_END };

/* offset and @, on selectors and subqueries. */
struct ast_shift {
    bool has_offset;
    struct ast *offset_expr; /* NULL: offset_ms is final; else it is computed once step and range are known */
    int64_t offset_ms;
    enum at_kind at;
    int64_t at_ms;
};

struct ast_matching {
    bool has_matching; /* on or ignoring was written */
    bool on;
    struct slice *labels;
    size_t label_count;
    enum { CARD_ONE_TO_ONE, CARD_MANY_TO_ONE, CARD_ONE_TO_MANY, CARD_MANY_TO_MANY } card;
    struct slice *include;
    size_t include_count;
    bool has_fill_left, has_fill_right;
    double fill_left, fill_right;
    bool fill_both; /* written as fill(v) */
};

struct function;

struct ast {
    enum ast_kind kind;
    enum value_type type;
    size_t start; /* byte positions in the text */
    size_t end;
    unsigned depth;      /* of the tree below, itself included */
    bool step_invariant; /* set before evaluation: the same value at every step */
    bool is_duration;    /* a number written as a duration: 5m */
    size_t print_len;    /* print.c's own: bytes of the node in one line */
    union {
        double number;
        struct slice string;
        struct {
            struct slice name; /* before the braces, or quoted inside; empty if there was none */
            bool name_quoted;  /* inside, before matcher number name_at */
            size_t name_at;
            struct matcher *matchers;
            size_t matcher_count;
            struct ast_shift shift;
            bool anchored, smoothed;
        } selector;
        struct { /* AST_MATRIX and AST_SUBQUERY */
            struct ast *expr;
            struct ast *range_expr; /* NULL: range_ms is final */
            int64_t range_ms;
            bool has_step;
            struct ast *step_expr;
            int64_t step_ms;
            struct ast_shift shift; /* of a subquery; a matrix has its selector's */
            bool anchored, smoothed;
        } range;
        struct {
            enum token_kind op;
            struct ast *expr;
        } unary;
        struct {
            enum token_kind op;
            bool return_bool;
            struct ast *left, *right;
            struct ast_matching matching;
        } binary;
        struct {
            enum token_kind op;
            bool without;
            struct slice *labels;
            size_t label_count;
            struct ast *param; /* NULL if the operator takes none */
            struct ast *expr;
        } aggregate;
        struct {
            const struct function *function;
            struct ast **args;
            size_t arg_count;
        } call;
        struct ast *paren;
    };
};

/* "scalar", "instant vector", "range vector", "string". */
const char *value_type_name(enum value_type type);

static inline struct ast *ast_unparen(struct ast *ast) {
    while (ast->kind == AST_PAREN)
        ast = ast->paren;
    return ast;
}

static inline bool op_is_comparison(enum token_kind op) {
    return op >= TOKEN_EQ && op <= TOKEN_GE;
}

static inline bool op_is_set(enum token_kind op) {
    return op == TOKEN_AND || op == TOKEN_OR || op == TOKEN_UNLESS;
}

#endif
