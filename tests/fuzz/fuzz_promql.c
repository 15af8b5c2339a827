/* fuzz_promql.c: any text through lexer, parser and type check, as a query, as a selector, as a duration and
 * as a time. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/utf8.h"
#include "query/parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

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
