#include "tests/promqltest/store.h"

#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/bytes.h"
#include "storage/io/io_sim.h"

static int64_t store_wall_ms(void *context) {
    return ((struct store *)context)->now_ms;
}

static uint64_t store_monotonic_ns(void *context) {
    return io_sim_now_ns(((struct store *)context)->io);
}

void store_open(struct store *store) {
    struct error_detail detail = {0};
    memset(store, 0, sizeof *store);
    limits_init(&store->limits);
    store->limits.retention_ms = 0;              /* time passes quickly here */
    store->limits.log_segment_bytes = 512 << 10; /* filled with zeros at each clear */
    store->limits.log_group_bytes_max = 256 << 10;
    store->clock = (struct clock){store_wall_ms, store_monotonic_ns, store};
    ASSERT(io_sim_open(1, &store->io) == STATUS_OK);
    const struct storage_options options = {
        .dir = "/promqltest", .io = store->io, .clock = &store->clock, .limits = &store->limits, .seed = 42};
    ASSERT(storage_open(&options, &detail, &store->storage) == STATUS_OK);
}

void store_close(struct store *store) {
    storage_close(store->storage);
    io_close(store->io);
}

struct outcome {
    bool done;
    struct storage_write_result result;
};

static void write_done(void *context, struct storage_write *write) {
    struct outcome *outcome = context;
    outcome->result = *storage_write_result(write);
    outcome->done = true;
}

static const char *batch_write(struct store *store, const struct write_batch *batch) {
    static struct outcome outcome;
    struct storage_write *write;
    struct error_detail detail = {0};
    if (storage_write_prepare(store->storage, batch, &detail, &write) < 0)
        return "the storage takes no write";
    outcome = (struct outcome){0};
    storage_write_submit(store->storage, write, write_done, &outcome);
    while (!outcome.done) {
        if (!storage_step(store->storage, store->now_ms))
            storage_wait(store->storage, 10);
    }
    storage_write_free(write);
    if (outcome.result.status < 0)
        return "the write failed";
    if (outcome.result.series_dropped > 0)
        return "a series was dropped";
    return outcome.result.samples_refused > 0 || outcome.result.series_refused > 0 ? outcome.result.reasons
                                                                                   : NULL;
}

static const char *series_write(struct store *store, const struct store_series *series) {
    struct buf labels;
    struct sample *samples = mem_alloc((series->count + 1) * sizeof *samples);
    ASSERT(samples != NULL);
    buf_init(&labels);
    for (size_t i = 0; i < series->label_count; i++)
        label_bytes_append(&labels, series->labels[i].name, series->labels[i].value);
    for (size_t i = 0; i < series->count; i++) {
        samples[i] = (struct sample){series->times_ms[i], double_bits(series->values[i])};
        store->now_ms = samples[i].time_ms > store->now_ms ? samples[i].time_ms : store->now_ms;
    }
    struct batch_series one = {.labels = buf_slice(&labels), .sample_count = (uint32_t)series->count};
    struct write_batch batch = {
        .series = &one, .series_count = 1, .samples = samples, .sample_count = series->count};
    const char *fault = batch_write(store, &batch);
    buf_release(&labels);
    mem_free(samples);
    return fault;
}

const char *store_write(struct store *store, const struct store_series *series, size_t count) {
    const char *first = NULL;
    for (size_t i = 0; i < count; i++) {
        const char *fault = series[i].count == 0 ? NULL : series_write(store, &series[i]);
        first = first == NULL ? fault : first;
    }
    return first;
}

bool store_flush(struct store *store) {
    store->now_ms += 12 * 3600 * 1000;
    for (int i = 0; i < 100000; i++) {
        bool more = storage_maintain(store->storage, store->now_ms);
        more = storage_step(store->storage, store->now_ms) || more;
        if (!more)
            return true;
        io_sim_advance_ns(store->io, 1000000);
    }
    return false;
}
