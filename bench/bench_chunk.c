/* bench-chunk: what a sample costs in the chunk codec, and a double as text. Chunks of 120 samples in several
 * kinds of series; appending goes round 4,096 open chunks, so that each is found in a cache further away, as
 * in the head. Prints the best of many rounds.
 *
 *     bench-chunk [ROUNDS] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/float_text.h"
#include "base/rand.h"
#include "storage/chunk/chunk.h"

#define CHUNKS      4096
#define GROW_STEP   16
#define TEXT_VALUES 4096

enum kind { KIND_CONSTANT, KIND_COUNTER, KIND_GAUGE, KIND_RANDOM, KIND_JITTER, KIND_STARTS, KIND_COUNT };
static const char *const kind_names[KIND_COUNT] = {"constant",    "counter",         "gauge, 2 decimals",
                                                   "random bits", "counter, +-3 ms", "counter, starts"};

static uint64_t now_ns(void) {
    return clock_monotonic_ns(clock_system());
}

static _Noreturn void fail(const char *what) {
    fprintf(stderr, "bench-chunk: %s\n", what);
    exit(1);
}

static uint8_t *grow(void *context, uint8_t *old, size_t old_capacity, size_t used, size_t bytes,
                     size_t *capacity) {
    (void)context;
    size_t want = old_capacity + old_capacity / 2;
    want = want < bytes ? bytes : want;
    want = (want + GROW_STEP - 1) / GROW_STEP * GROW_STEP;
    uint8_t *grown = mem_alloc(want);
    if (grown == NULL)
        return NULL;
    if (used > 0)
        memcpy(grown, old, used);
    mem_free(old);
    *capacity = want;
    return grown;
}

/* Samples stand in the order in which they arrive: the first of every chunk, the second of every chunk, … */
static void series_make(struct rand *rand, enum kind kind, struct sample *samples) {
    int64_t time_ms = 1700000000000 + (int64_t)rand_below(rand, 15000);
    double value = (double)rand_below(rand, 100000);
    for (size_t i = 0; i < CHUNK_SAMPLES_MAX; i++) {
        int64_t jitter = kind == KIND_JITTER ? (int64_t)rand_below(rand, 7) - 3 : 0;
        samples[i * CHUNKS] = (struct sample){time_ms + jitter, double_bits(value)};
        time_ms += 15000;
        if (kind == KIND_COUNTER || kind == KIND_JITTER || kind == KIND_STARTS)
            value += (double)(1 + rand_below(rand, 50));
        else if (kind == KIND_GAUGE)
            value = (double)rand_below(rand, 10000) / 100;
        else if (kind == KIND_RANDOM)
            value = bits_double(rand_u64(rand));
    }
}

static void bench_kind(enum kind kind, long rounds) {
    struct rand rand;
    rand_init(&rand, 1);
    struct sample *samples = mem_alloc(sizeof *samples * CHUNKS * CHUNK_SAMPLES_MAX);
    struct chunk_open *chunks = mem_zalloc(sizeof *chunks * CHUNKS);
    struct sample_columns columns = {0};
    if (samples == NULL || chunks == NULL || sample_columns_reserve(&columns, CHUNK_SAMPLES_MAX) < 0)
        fail("out of memory");
    for (size_t c = 0; c < CHUNKS; c++)
        series_make(&rand, kind, samples + c);

    const double total = (double)CHUNKS * CHUNK_SAMPLES_MAX;
    double append = 1e9, decode = 1e9;
    size_t bytes = 0;
    for (long round = 0; round < rounds; round++) {
        /* Memory stays: what is measured is a chunk that grew already, or mostly. */
        for (size_t c = 0; c < CHUNKS; c++)
            chunks[c] = (struct chunk_open){.bytes = chunks[c].bytes, .capacity = chunks[c].capacity};
        uint64_t t0 = now_ns();
        for (size_t i = 0; i < CHUNK_SAMPLES_MAX; i++)
            for (size_t c = 0; c < CHUNKS; c++) {
                int64_t start_ms = kind == KIND_STARTS ? 1699999999000 : START_NONE;
                if (chunk_append(&chunks[c], samples[i * CHUNKS + c], start_ms, grow, NULL) < 0)
                    fail("out of memory");
            }
        uint64_t t1 = now_ns();
        bytes = 0;
        for (size_t c = 0; c < CHUNKS; c++) {
            struct slice s = chunk_bytes(&chunks[c]);
            columns.count = 0;
            if (chunk_decode(s, chunks[c].info, INT64_MIN, INT64_MAX, &columns) < 0 ||
                columns.count != CHUNK_SAMPLES_MAX)
                fail("a chunk does not decode");
            bytes += s.len;
        }
        uint64_t t2 = now_ns();
        append = (double)(t1 - t0) / total < append ? (double)(t1 - t0) / total : append;
        decode = (double)(t2 - t1) / total < decode ? (double)(t2 - t1) / total : decode;
    }
    printf("%-18s append %5.1f ns   decode %5.2f ns (%4.0f M/s)   %5.2f bytes a sample\n", kind_names[kind],
           append, decode, 1e3 / decode, (double)bytes / total);
    for (size_t c = 0; c < CHUNKS; c++)
        mem_free(chunks[c].bytes);
    mem_free(chunks);
    mem_free(samples);
    sample_columns_release(&columns);
}

static double text_value(struct rand *rand, int kind) {
    switch (kind) {
    case 0:
        return (double)rand_below(rand, 10000000);
    case 1:
        return (double)rand_below(rand, 100000) / 100;
    case 2:
        return (double)rand_below(rand, 1000000000) / 1e6;
    default:
        return rand_double(rand) * 1000;
    }
}

static void bench_text(int kind, const char *name, long rounds) {
    static double values[TEXT_VALUES];
    struct rand rand;
    rand_init(&rand, 1);
    for (size_t i = 0; i < TEXT_VALUES; i++)
        values[i] = text_value(&rand, kind);
    double best = 1e9;
    size_t len = 0;
    for (long round = 0; round < rounds; round++) {
        char text[FLOAT_TEXT_BYTES_MAX];
        uint64_t t0 = now_ns();
        for (size_t i = 0; i < TEXT_VALUES; i++)
            len += float_text_json(values[i], text);
        double ns = (double)(now_ns() - t0) / TEXT_VALUES;
        best = ns < best ? ns : best;
    }
    printf("%-18s text   %5.1f ns   %.1f characters\n", name, best,
           (double)len / (double)rounds / TEXT_VALUES);
}

int main(int argc, char **argv) {
    long rounds = argc > 1 ? strtol(argv[1], NULL, 10) : 10;
    if (rounds < 1 || rounds > 10000)
        fail("ROUNDS is a number from 1 to 10000");
    for (int kind = 0; kind < KIND_COUNT; kind++)
        bench_kind((enum kind)kind, rounds);
    bench_text(0, "1234567", rounds * 50);
    bench_text(1, "123.45", rounds * 50);
    bench_text(2, "123.456789", rounds * 50);
    bench_text(3, "17 digits", rounds * 50);
    return 0;
}
