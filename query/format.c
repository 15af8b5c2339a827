/* format.c: a query's text as Prometheus would write it, and its tree as JSON, without running it. */
#include <stdio.h>

#include "query/parse.h"
#include "query/print.h"

enum what { FORMAT_TEXT, FORMAT_JSON };

static int format(struct slice text, const struct limits *limits, enum what what, struct query_error *error,
                  struct buf *out) {
    struct parse_result parsed = {0};
    struct arena arena;
    *error = (struct query_error){0};
    arena_init(&arena, 64 << 10, (size_t)limits->query_bytes_max);
    int status = query_parse(text, limits, &arena, error, &parsed);
    if (status >= 0) {
        bool fits = true;
        if (what == FORMAT_TEXT)
            fits = ast_print_pretty(parsed.root, (size_t)limits->query_bytes_max, out);
        else
            ast_print_json(parsed.root, out);
        if (out->failed) {
            status = STATUS_NO_MEMORY;
            error->type = QUERY_ERROR_INTERNAL;
            snprintf(error->text, sizeof error->text, "out of memory");
        } else if (!fits) {
            status = STATUS_BUDGET;
            error->type = QUERY_ERROR_EXECUTION;
            snprintf(error->text, sizeof error->text, "the formatted query would be longer than %llu bytes",
                     (unsigned long long)limits->query_bytes_max);
        }
        parse_regexes_release(&parsed.regexes);
    }
    arena_release(&arena);
    return status;
}

int query_format(struct slice text, const struct limits *limits, struct query_error *error, struct buf *out) {
    return format(text, limits, FORMAT_TEXT, error, out);
}

int query_tree_json(struct slice text, const struct limits *limits, struct query_error *error,
                    struct buf *out) {
    return format(text, limits, FORMAT_JSON, error, out);
}
