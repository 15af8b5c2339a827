/* bench-window: what functions over ranges cost: range queries over series that lie in memory as they are
 * (this file stands in for storage), on one thread. A step's window holds 20 or 240 samples and moves by one.
 * Prints the best of many rounds: the time of one window, and of each sample in it.
 *
 *     bench-window [ROUNDS [FUNCTION]] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/arena.h"
#include "base/clock.h"
#include "base/rand.h"
#include "query/query.h"

#define SERIES    32 /* too few for helpers */
#define SAMPLES   720
#define SCRAPE_MS 15000
#define STEPS     240
#define JITTER_MS 4 /* of every other series; the others come evenly */
#define FIRST_MS  INT64_C(1700000000000)

static const char *const calls[] = {
    "last_over_time(m[%s])",
    "count_over_time(m[%s])",
    "rate(m[%s])",
    "delta(m[%s])",
    "changes(m[%s])",
    "min_over_time(m[%s])",
    "max_over_time(m[%s])",
    "ts_of_max_over_time(m[%s])",
    "sum_over_time(m[%s])",
    "avg_over_time(m[%s])",
    "stddev_over_time(m[%s])",
    "deriv(m[%s])",
    "predict_linear(m[%s], 3600)",
    "quantile_over_time(0.9, m[%s])",
    "mad_over_time(m[%s])",
    "double_exponential_smoothing(m[%s], 0.5, 0.5)",
};

/* ---- In place of storage --------------------------------------------------------------------------------
 */

struct storage {
    int64_t times_ms[2][SAMPLES];
    double values[SERIES][SAMPLES];
    char pods[SERIES][8];
};

struct storage_selection {
    struct storage *storage;
};

int storage_select(struct storage *storage, const struct matcher *matchers, size_t matcher_count,
                   int64_t time_min_ms, int64_t time_max_ms, size_t series_max,
                   struct storage_selection **out) {
    (void)matchers, (void)matcher_count, (void)time_min_ms, (void)time_max_ms, (void)series_max;
    struct storage_selection *selection = mem_zalloc(sizeof *selection);
    if (selection == NULL)
        return STATUS_NO_MEMORY;
    selection->storage = storage;
    *out = selection;
    return STATUS_OK;
}

void selection_close(struct storage_selection *selection) {
    mem_free(selection);
}

size_t selection_series_count(const struct storage_selection *selection) {
    (void)selection;
    return SERIES;
}

size_t selection_labels(const struct storage_selection *selection, size_t index, struct label *out) {
    out[0] = (struct label){slice_str("__name__"), slice_str("m")};
    out[1] = (struct label){slice_str("pod"), slice_str(selection->storage->pods[index])};
    return 2;
}

size_t selection_labels_named(const struct storage_selection *selection, size_t index,
                              const struct slice *names, size_t name_count, struct label *out) {
    (void)names;
    return name_count == 0 ? 0 : selection_labels(selection, index, out);
}

uint64_t selection_damaged(const struct storage_selection *selection) {
    (void)selection;
    return 0;
}

void selection_damage_text(struct storage_selection *selection, char *out, size_t bytes) {
    (void)selection;
    snprintf(out, bytes, "%s", "");
}

int selection_read(struct storage_selection *selection, size_t index, int64_t time_min_ms,
                   int64_t time_max_ms, struct sample_columns *columns) {
    const int64_t *times_ms = selection->storage->times_ms[index % 2];
    size_t low = 0, high = SAMPLES;
    while (low < high && times_ms[low] < time_min_ms)
        low++;
    while (low < high && times_ms[high - 1] > time_max_ms)
        high--;
    if (sample_columns_reserve(columns, high - low) < 0)
        return STATUS_NO_MEMORY;
    memcpy(columns->times_ms, times_ms + low, (high - low) * sizeof(int64_t));
    memcpy(columns->values, selection->storage->values[index] + low, (high - low) * sizeof(double));
    columns->count = high - low;
    return STATUS_OK;
}

int selection_read_newest(struct storage_selection *selection, size_t index, int64_t time_min_ms,
                          int64_t time_max_ms, struct sample_columns *columns) {
    return selection_read(selection, index, time_min_ms, time_max_ms, columns);
}

static void storage_fill(struct storage *storage) {
    struct rand rand;
    rand_init(&rand, 1);
    for (size_t i = 0; i < SAMPLES; i++)
        storage->times_ms[0][i] = FIRST_MS + (int64_t)i * SCRAPE_MS;
    for (size_t i = 0; i < SAMPLES; i++)
        storage->times_ms[1][i] = storage->times_ms[0][i] + (int64_t)rand_below(&rand, JITTER_MS);
    for (size_t s = 0; s < SERIES; s++) {
        double value = (double)rand_below(&rand, 1000000);
        snprintf(storage->pods[s], sizeof storage->pods[s], "p%zu", s);
        for (size_t i = 0; i < SAMPLES; i++) {
            value += ((double)rand_below(&rand, 2001) - 1000) / 100;
            storage->values[s][i] = value;
        }
    }
}

/* ---- Measuring ------------------------------------------------------------------------------------------
 */

static _Noreturn void fail(const char *what) {
    fprintf(stderr, "bench-window: %s\n", what);
    exit(1);
}

static double window_ns(struct storage *storage, const struct limits *limits, const char *call,
                        const char *range, long rounds) {
    char text[128];
    double best = 1e18;
    snprintf(text, sizeof text, call, range);
    struct query_request request = {.text = slice_str(text),
                                    .range = true,
                                    .end_ms = FIRST_MS + (SAMPLES - 1) * SCRAPE_MS + SCRAPE_MS / 2,
                                    .step_ms = SCRAPE_MS,
                                    .lookback_ms = 300000,
                                    .timeout_ms = 600000};
    request.start_ms = request.end_ms - (STEPS - 1) * SCRAPE_MS;
    for (long i = 0; i < rounds; i++) {
        struct query_error error;
        struct query_result *result;
        uint64_t begun = clock_monotonic_ns(clock_system());
        if (query_run(storage, limits, clock_system(), &request, &error, &result) < 0)
            fail(error.text);
        double spent = (double)(clock_monotonic_ns(clock_system()) - begun);
        query_result_free(result);
        best = spent < best ? spent : best;
    }
    return best / SERIES / STEPS;
}

int main(int argc, char **argv) {
    static struct storage storage;
    struct limits limits;
    long rounds = argc > 1 ? strtol(argv[1], NULL, 10) : 20;
    if (rounds < 1 || rounds > 100000)
        fail("ROUNDS is a number from 1 to 100000");
    limits_init(&limits);
    storage_fill(&storage);
    printf("%-34s %14s %14s %12s\n", "", "20: ns/window", "240: ns/window", "ns/sample");
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        if (argc > 2 && strstr(calls[i], argv[2]) == NULL)
            continue;
        double narrow = window_ns(&storage, &limits, calls[i], "5m", rounds);
        double wide = window_ns(&storage, &limits, calls[i], "1h", rounds);
        printf("%-34.*s %14.0f %14.0f %12.2f\n", (int)strcspn(calls[i], "("), calls[i], narrow, wide,
               wide / 240);
    }
    return 0;
}
