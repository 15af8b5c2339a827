/* parse.h: text → checked tree. */
#ifndef TIDALITE_QUERY_PARSE_H
#define TIDALITE_QUERY_PARSE_H

#include "base/arena.h"
#include "base/limits.h"
#include "query/ast.h"
#include "query/query.h"

struct regex;

/* What a tree holds outside its arena. */
struct parse_regexes {
    struct regex **items;
    size_t count;
    size_t capacity;
};

struct parse_result {
    struct ast *root;
    struct parse_regexes regexes;
};

/* Parses and type-checks. Durations that need the query's step or range (step(), range()) stay expressions:
 * see durations_resolve. STATUS_BAD_QUERY with *error in Prometheus' words, STATUS_NO_MEMORY. Release the
 * result's regexes. */
int query_parse(struct slice text, const struct limits *limits, struct arena *arena,
                struct query_error *error, struct parse_result *out);
void parse_regexes_release(struct parse_regexes *regexes);

/* Fills in the durations that depend on the query: start_ms, end_ms, step_ms as evaluated. STATUS_BAD_QUERY
 * with *error. */
int durations_resolve(struct ast *ast, int64_t start_ms, int64_t end_ms, int64_t step_ms,
                      struct query_error *error);

/* Type check (check.c); the parser calls it. STATUS_BAD_QUERY with *error. */
int query_check(struct ast *ast, struct slice text, struct query_error *error);

/* "line:column" of a byte position, both from 1. */
void text_position(struct slice text, size_t at, char out[48]);

/* Fills *error (and returns `status`) in the form "L:C: parse error: …". */
int parse_error_set(struct query_error *error, struct slice text, size_t at, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Makes the text valid UTF-8, whatever it quotes. */
void query_error_clean(struct query_error *error);

/* A duration as Prometheus writes it (1h30m); false if it is none or too large. */
bool duration_text_parse(struct slice text, int64_t *ms_out);

/* The number that a duration is, with signs and parentheses around it (*sign is -1 or 1); NULL: it is an
 * expression. */
const struct ast *duration_literal(const struct ast *ast, double *sign);

/* A number as Go's ParseInt(base 0) or else ParseFloat reads it. */
bool number_text_parse(struct slice text, double *out);

#endif
