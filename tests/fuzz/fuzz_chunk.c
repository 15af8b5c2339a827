/* fuzz_chunk: any bytes as a chunk, and as the samples of one.
 * Whatever decodes, decodes the same through a time window, and comes back when it is appended anew; whatever
 * is appended comes back bit for bit. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "storage/chunk/chunk.h"
#include "tests/lib/chunk_grow.h"

#define INPUT_BYTES_MAX 8192

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static _Noreturn void finding(const char *what) {
    fprintf(stderr, "finding: %s\n", what);
    abort();
}

struct series {
    struct sample samples[UINT8_MAX];
    int64_t starts_ms[UINT8_MAX];
    size_t count;
};

static void compare(const struct sample_columns *columns, const struct series *series, int64_t min,
                    int64_t max) {
    size_t at = 0;
    for (size_t i = 0; i < series->count; i++) {
        if (series->samples[i].time_ms < min || series->samples[i].time_ms > max)
            continue;
        if (at == columns->count)
            finding("a sample is missing");
        if (columns->times_ms[at] != series->samples[i].time_ms ||
            double_bits(columns->values[at]) != series->samples[i].value_bits ||
            columns->starts_ms[at] != series->starts_ms[i])
            finding("another sample");
        if (series->starts_ms[i] != START_NONE && !columns->has_starts)
            finding("a start that is not said to be there");
        at++;
    }
    if (at != columns->count)
        finding("a sample too many");
}

static void check_decode(struct slice bytes, struct chunk_info info, const struct series *series, int64_t min,
                         int64_t max) {
    struct sample_columns columns = {0};
    if (chunk_decode(bytes, info, min, max, &columns) != STATUS_OK)
        finding("does not decode");
    compare(&columns, series, min, max);
    sample_columns_release(&columns);
}

static void check_append(const struct series *series, int64_t min, int64_t max) {
    struct chunk_open chunk = {0};
    for (size_t i = 0; i < series->count; i++) {
        if (chunk_append(&chunk, series->samples[i], series->starts_ms[i], chunk_grow, NULL) != STATUS_OK)
            finding("does not append");
        if (chunk_last_value_bits(&chunk) != series->samples[i].value_bits)
            finding("another last value");
    }
    struct slice bytes = chunk_bytes(&chunk);
    uint8_t *exact = mem_alloc(bytes.len);
    if (exact == NULL)
        abort();
    if (bytes.len > 0)
        memcpy(exact, bytes.data, bytes.len);
    check_decode(slice_of(exact, bytes.len), chunk.info, series, INT64_MIN, INT64_MAX);
    check_decode(slice_of(exact, bytes.len), chunk.info, series, min, max);
    mem_free(exact);
    mem_free(chunk.bytes);
}

/* The bytes as a chunk of data[0] samples. */
static void check_bytes(const uint8_t *data, size_t size) {
    struct chunk_info info = {.sample_count = data[0], .start_byte = data[1]};
    struct slice bytes = slice_of(data + 2, size - 2);
    struct sample_columns columns = {0};
    int status = chunk_decode(bytes, info, INT64_MIN, INT64_MAX, &columns);
    if (status != STATUS_OK) {
        if (status != STATUS_CORRUPT || columns.count != 0 || columns.has_starts)
            finding("a refusal that leaves something behind");
        sample_columns_release(&columns);
        return;
    }
    if (columns.count != info.sample_count)
        finding("another number of samples");
    static struct series series;
    series.count = columns.count;
    for (size_t i = 0; i < columns.count; i++) {
        series.samples[i] = (struct sample){columns.times_ms[i], double_bits(columns.values[i])};
        series.starts_ms[i] = columns.starts_ms[i];
    }
    sample_columns_release(&columns);
    if (series.count == 0)
        return;
    int64_t a = series.samples[series.count / 3].time_ms, b = series.samples[series.count / 2].time_ms;
    check_decode(bytes, info, &series, a, b);
    if (series.count <= CHUNK_SAMPLES_MAX)
        check_append(&series, a, b);
}

static uint64_t number_take(const uint8_t **p, const uint8_t *end, size_t len) {
    uint64_t v = 0;
    for (; len > 0 && *p < end; len--)
        v = v << 8 | *(*p)++;
    return v;
}

/* The bytes as commands: one a sample, whose bits say how time, value and start go on from the one before. */
static void check_commands(const uint8_t *data, size_t size) {
    static struct series series;
    const uint8_t *p = data, *end = data + size;
    uint64_t time = number_take(&p, end, 6), step = 15000, value = 0, start = START_NONE;
    series.count = 0;
    while (p < end && series.count < CHUNK_SAMPLES_MAX) {
        uint8_t command = *p++;
        static const size_t step_lens[] = {0, 1, 3, 8};
        step += (uint64_t)unzigzag(number_take(&p, end, step_lens[command & 3]));
        time += step;
        switch (command >> 2 & 7) {
        case 0:
        case 1:
            break;
        case 2:
            value += number_take(&p, end, 1) << 40;
            break;
        case 3:
            value = double_bits((double)number_take(&p, end, 2) / 10);
            break;
        case 4:
            value = number_take(&p, end, 8);
            break;
        case 5:
            value = STALE_NAN_BITS;
            break;
        case 6:
            value ^= UINT64_C(1) << (number_take(&p, end, 1) & 63);
            break;
        default:
            value = 0;
        }
        if (command >> 5 == 6)
            start = time - number_take(&p, end, 3);
        else if (command >> 5 == 7)
            start = number_take(&p, end, 8);
        series.samples[series.count] = (struct sample){(int64_t)time, value};
        series.starts_ms[series.count++] = (int64_t)start;
    }
    if (series.count > 0)
        check_append(&series, series.samples[series.count / 3].time_ms,
                     series.samples[series.count - 1 - series.count / 3].time_ms);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2 || size > INPUT_BYTES_MAX)
        return 0;
    check_bytes(data, size);
    check_commands(data, size);
    return 0;
}
