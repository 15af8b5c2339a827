/* bench-json: what a point costs as JSON: query_result_json over results of several kinds, and the value's
 * text alone. Prints the best of many rounds.
 *
 *     bench-json [ROUNDS] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/float_text.h"
#include "base/rand.h"
#include "query/eval.h"
#include "query/result.h"

#define SERIES      500
#define STEPS       241
#define SLICE_BYTES 65536

enum kind { KIND_CONSTANT, KIND_COUNTER, KIND_DECIMALS, KIND_RATE, KIND_BITS, KIND_COUNT };
static const char *const kind_names[KIND_COUNT] = {"constant", "integer counter", "gauge, 2 decimals",
                                                   "rate, all digits", "random bits"};

static uint64_t now_ns(void) {
    return clock_monotonic_ns(clock_system());
}

static void *must(void *p) {
    if (p == NULL) {
        fprintf(stderr, "bench-json: out of memory\n");
        exit(1);
    }
    return p;
}

static double value_make(struct rand *rand, enum kind kind, double before) {
    double v;
    switch (kind) {
    case KIND_CONSTANT:
        return before;
    case KIND_COUNTER:
        return before + (double)rand_below(rand, 1000);
    case KIND_DECIMALS:
        return (double)rand_below(rand, 10000000) / 100;
    case KIND_RATE:
        return (double)rand_below(rand, 100000) * (300.0 / 285.0) / 300;
    default:
        do {
            uint64_t bits = rand_u64(rand);
            memcpy(&v, &bits, sizeof v);
        } while (v - v != 0 || v == 0);
        return v;
    }
}

static struct query_result *result_make(struct rand *rand, enum kind kind) {
    struct query_result *result = must(mem_zalloc(sizeof *result));
    arena_init(&result->arena, 1 << 20, 0);
    result->type = QUERY_VALUE_MATRIX;
    result->start_ms = 1700000000000 + 250;
    result->step_ms = 15000;
    result->steps = STEPS;
    result->series_count = SERIES;
    result->series = must(ARENA_ARRAY(&result->arena, struct result_series, SERIES));
    result->time_texts = must(arena_alloc(&result->arena, STEPS * sizeof *result->time_texts));
    result->time_lens = must(arena_alloc(&result->arena, STEPS));
    for (size_t i = 0; i < STEPS; i++)
        result->time_lens[i] =
            (uint8_t)time_text_json(result->start_ms + (int64_t)i * result->step_ms, result->time_texts[i]);
    for (size_t s = 0; s < SERIES; s++) {
        struct result_series *series = &result->series[s];
        double v = (double)rand_below(rand, 1000000);
        series->labels = must(ARENA_ARRAY(&result->arena, struct label, 1));
        series->labels[0] = (struct label){slice_str("pod"), slice_str("pod-12345")};
        series->label_count = 1;
        series->count = STEPS;
        series->values = must(arena_alloc(&result->arena, STEPS * sizeof(double)));
        series->present = must(arena_zalloc(&result->arena, bits_words(STEPS) * 8));
        bits_fill(series->present, STEPS);
        for (size_t i = 0; i < STEPS; i++)
            series->values[i] = v = value_make(rand, kind, v);
    }
    return result;
}

static uint64_t json_ns(const struct query_result *result, struct buf *out, size_t *bytes_out) {
    struct query_json_cursor cursor = {0};
    size_t bytes = 0;
    uint64_t begun = now_ns();
    for (bool more = true; more; bytes += out->len) {
        buf_clear(out);
        more = query_result_json(result, &cursor, SLICE_BYTES, out);
    }
    *bytes_out = bytes;
    return now_ns() - begun;
}

static uint64_t text_ns(const struct query_result *result) {
    char text[FLOAT_TEXT_BYTES_MAX];
    size_t bytes = 0;
    uint64_t begun = now_ns();
    for (size_t s = 0; s < SERIES; s++) {
        for (size_t i = 0; i < STEPS; i++)
            bytes += float_text_json(result->series[s].values[i], text);
    }
    uint64_t spent = now_ns() - begun;
    return bytes == 0 ? 0 : spent;
}

int main(int argc, char **argv) {
    size_t rounds = argc > 1 ? strtoul(argv[1], NULL, 10) : 40, bytes = 0;
    struct rand rand;
    struct buf out;
    rand_init(&rand, 1);
    buf_init(&out);
    printf("%-20s %10s %10s %10s\n", "", "ns/point", "ns/value", "B/point");
    for (enum kind kind = 0; kind < KIND_COUNT; kind++) {
        struct query_result *result = result_make(&rand, kind);
        uint64_t best = UINT64_MAX, best_text = UINT64_MAX;
        for (size_t i = 0; i < rounds; i++) {
            uint64_t spent = json_ns(result, &out, &bytes), text = text_ns(result);
            best = spent < best ? spent : best;
            best_text = text < best_text ? text : best_text;
        }
        const double points = SERIES * STEPS;
        printf("%-20s %10.1f %10.1f %10.1f\n", kind_names[kind], (double)best / points,
               (double)best_text / points, (double)bytes / points);
        query_result_free(result);
    }
    buf_release(&out);
    return 0;
}
