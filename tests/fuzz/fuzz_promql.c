/* fuzz_promql.c: any text through lexer, parser, type check, printer and evaluator, as a query, as a
 * selector, as a duration and as a time. What holds besides: errors have a type and are UTF-8; a tree that is
 * printed and parsed again prints the same; an instant query finds as many series as a range of that one
 * step. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/batch.h"
#include "base/bytes.h"
#include "base/utf8.h"
#include "query/parse.h"
#include "query/print.h"
#include "tests/unit/query/fake_storage.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Virtual time: a query may look at the clock so many times. */
static uint64_t looks;

static uint64_t clock_looks(void *context) {
    (void)context;
    return looks++ * 1000000;
}

static int64_t clock_zero(void *context) {
    (void)context;
    return 0;
}

static const struct clock fuzz_clock = {clock_zero, clock_looks, NULL};

/* Names and labels of the scripts, a few samples each, with gaps, NaN, a stale marker, resets and buckets. */
static struct storage *storage_make(void) {
    static const char *const names[] = {"m",   "metric",      "metric_total", "http_requests",
                                        "foo", "target_info", "x_bucket",     "data",
                                        "up",  "bar"};
    static const char *const les[] = {"0.1", "1", "+Inf", "bad"};
    struct storage *storage = fake_storage_new();
    for (unsigned i = 0; i < 40; i++) {
        char group[8], instance[8];
        snprintf(group, sizeof group, "g%u", i % 3);
        snprintf(instance, sizeof instance, "%u", i / 10);
        const struct label labels[] = {{slice_str("__name__"), slice_str(names[i % 10])},
                                       {slice_str("group"), slice_str(group)},
                                       {slice_str("instance"), slice_str(instance)},
                                       {slice_str("job"), slice_str("j")},
                                       {slice_str("le"), slice_str(i % 10 == 6 ? les[i / 10] : "")}};
        size_t series = fake_storage_series(storage, labels, 5);
        for (unsigned k = 0; k < 8; k++) {
            double v = (double)((i * 7 + k * 3) % 11);
            if ((i + k) % 13 == 0)
                continue;
            if ((i + k) % 17 == 0)
                v = bits_double(NORMAL_NAN_BITS);
            if ((i + k) % 19 == 0)
                v = bits_double(STALE_NAN_BITS);
            fake_storage_add(storage, series, k * 30000, v);
        }
    }
    return storage;
}

static long evaluate(struct storage *storage, const struct limits *limits, struct slice text, bool range,
                     int64_t start_ms, int64_t end_ms, bool delayed) {
    struct query_request request = {.text = text,
                                    .range = range,
                                    .start_ms = start_ms,
                                    .end_ms = end_ms,
                                    .step_ms = range ? 30000 : 0,
                                    .lookback_ms = 300000,
                                    .timeout_ms = 2000,
                                    .delayed_name_removal = delayed};
    struct query_error error = {0};
    struct query_result *result = NULL;
    looks = 0;
    if (query_run(storage, limits, &fuzz_clock, &request, &error, &result) < 0) {
        ASSERT(error.type != QUERY_ERROR_NONE && result == NULL);
        ASSERT(utf8_valid(slice_str(error.text)));
        return -1;
    }
    struct buf json;
    struct query_json_cursor cursor = {0};
    buf_init(&json);
    while (query_result_json(result, &cursor, 1000, &json)) {
    }
    buf_release(&json);
    enum query_value_type type = query_result_type(result);
    long count = type == QUERY_VALUE_VECTOR || type == QUERY_VALUE_MATRIX
                     ? (long)query_result_series_count(result)
                     : -2;
    query_result_free(result);
    return count;
}

/* As Prometheus does, infinity is printed with a plus, which in front of a power is read as an operator, and
 * printed once more: the same number, one plus longer each time. */
static void infinities_strip(struct buf *text) {
    size_t kept = 0;
    for (size_t i = 0; i < text->len; i++) {
        size_t end = i;
        while (end < text->len && text->data[end] == '+')
            end++;
        if (end > i && text->len - end >= 3 && memcmp(text->data + end, "Inf", 3) == 0)
            i = end;
        text->data[kept++] = text->data[i];
    }
    text->len = kept;
}

static void print_check(struct ast *root, const struct limits *limits, struct arena *arena) {
    struct buf first, second;
    struct query_error error = {0};
    struct parse_result again;
    buf_init(&first);
    buf_init(&second);
    ast_print(root, &first);
    if (first.len <= limits->query_text_bytes_max &&
        query_parse(buf_slice(&first), limits, arena, &error, &again) >= 0) {
        ast_print(again.root, &second);
        infinities_strip(&first);
        infinities_strip(&second);
        ASSERT(slice_equal(buf_slice(&first), buf_slice(&second)));
        parse_regexes_release(&again.regexes);
    }
    buf_release(&first);
    buf_release(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct storage *storage;
    struct limits limits;
    struct query_error error = {0};
    struct parse_result parsed;
    struct query_selector selector;
    struct slice text = slice_of(data, size);
    struct arena arena;
    int64_t ms;
    if (storage == NULL)
        storage = storage_make();
    limits_init(&limits);
    limits.regex_bytes_max = 1 << 20;
    limits.query_samples_max = 100000;
    limits.query_bytes_max = 32 << 20;
    arena_init(&arena, 0, 64 << 20);
    if (query_parse(text, &limits, &arena, &error, &parsed) >= 0) {
        ASSERT(parsed.root->end <= size);
        bool is_vector = parsed.root->type == VALUE_VECTOR;
        print_check(parsed.root, &limits, &arena);
#ifdef FUZZ_PLANTED_BUG
        if (parsed.root->kind == AST_BINARY && parsed.root->binary.op == TOKEN_UNLESS)
            abort();
#endif
        parse_regexes_release(&parsed.regexes);
        long instant = evaluate(storage, &limits, text, false, 120000, 120000, false);
        long range = evaluate(storage, &limits, text, true, 120000, 120000, false);
        /* step() and what is made of it differ. */
        bool has_step = false;
        for (size_t i = 0; i + 4 <= size; i++)
            has_step = has_step || ((data[i] | 32) == 's' && (data[i + 1] | 32) == 't');
        if (is_vector && !has_step && instant >= 0 && range >= 0)
            ASSERT(instant == range);
        evaluate(storage, &limits, text, true, 0, 240000, true);
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
