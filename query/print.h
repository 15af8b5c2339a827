/* print.h: trees back to text, as Prometheus (main at 3.14) prints them. */
#ifndef TIDALITE_QUERY_PRINT_H
#define TIDALITE_QUERY_PRINT_H

#include "base/buf.h"
#include "query/ast.h"

/* One line: matchers sorted as text, `by (a, b) (…)`, durations as 1h30m, numbers without exponent, @ with
 * three decimals. Parsed again it is the same tree, but for what has no meaning: the order of matchers,
 * parentheses around a lone number in a duration, a plus in front of a duration, an offset of 0. Sets
 * print_len in every node. */
void ast_print(struct ast *ast, struct buf *out);

/* The same in lines: a node of more than 100 bytes is split, its parts indented by two spaces more. False,
 * with part of it in `out`, when that takes more than `bytes_max` (deep trees are mostly indentation). */
bool ast_print_pretty(struct ast *ast, size_t bytes_max, struct buf *out);

/* The tree as JSON, as /api/v1/parse_query shows it: keys in byte order. Members as in Prometheus, among them
 * rangeExpr, stepExpr and offsetExpr, which are null where the duration is plain. */
void ast_print_json(const struct ast *ast, struct buf *out);

#endif
