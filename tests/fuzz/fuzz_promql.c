/* fuzz_promql.c: any text through lexer, parser and type check, as a query, as a selector, as a duration and
 * as a time; and what parses is printed and parses again. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/utf8.h"
#include "query/parse.h"
#include "query/print.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Printed in one line and in several, it is a query again, and the same one. */
static void print_check(struct ast *ast, const struct limits *limits) {
    struct buf once, twice, lines;
    struct arena arena;
    buf_init(&once);
    buf_init(&twice);
    buf_init(&lines);
    arena_init(&arena, 0, 64 << 20);
    ast_print(ast, &once);
    bool whole = ast_print_pretty(ast, 1 << 20, &lines);
    const struct buf *const texts[] = {&once, &lines};
    for (size_t i = 0; i < (whole ? 2u : 1u); i++) {
        struct query_error error = {0};
        struct parse_result parsed;
        if (texts[i]->len > limits->query_text_bytes_max)
            continue;
        ASSERT(query_parse(buf_slice(texts[i]), limits, &arena, &error, &parsed) == STATUS_OK);
        buf_clear(&twice);
        ast_print(parsed.root, &twice);
        /* An infinity in front of a power gets a sign more each time, as in Prometheus. */
        ASSERT(slice_equal(buf_slice(&once), buf_slice(&twice)) ||
               memmem(once.data, once.len, "+Inf ^", 6) != NULL);
        parse_regexes_release(&parsed.regexes);
    }
    arena_release(&arena);
    buf_release(&once);
    buf_release(&twice);
    buf_release(&lines);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct limits limits;
    struct query_error error = {0};
    struct parse_result parsed;
    struct query_selector selector;
    struct slice text = slice_of(data, size);
    struct arena arena;
    int64_t ms;
    limits_init(&limits);
    limits.regex_bytes_max = 1 << 20;
    arena_init(&arena, 0, 64 << 20);
    if (query_parse(text, &limits, &arena, &error, &parsed) >= 0) {
        ASSERT(parsed.root->end <= size);
        print_check(parsed.root, &limits);
        durations_resolve(parsed.root, text, 1000, 61000, 15000, &error);
#ifdef FUZZ_PLANTED_BUG
        if (parsed.root->kind == AST_BINARY && parsed.root->binary.op == TOKEN_UNLESS)
            abort();
#endif
        parse_regexes_release(&parsed.regexes);
    } else {
        ASSERT(error.type != QUERY_ERROR_NONE);
        ASSERT(utf8_valid(slice_str(error.text)));
    }
    if (query_selector_parse(text, &limits, &arena, &error, &selector) >= 0)
        query_selector_release(&selector);
    query_duration_parse(text, &ms);
    query_time_parse(text, &ms);
    arena_release(&arena);
    return 0;
}
