/* steps.c: see steps.h. */
#include "tests/sim/steps.h"

#include <stdlib.h>

#include "base/assert.h"
#include "base/bytes.h"

#define SCRAPE_SERIES_MAX 60

static uint64_t below(struct world *world, uint64_t bound) {
    return rand_below(&world->rand, bound);
}

static bool one_in(struct world *world, uint64_t bound) {
    return below(world, bound) == 0;
}

static struct sent_sample *samples_new(size_t count) {
    struct sent_sample *samples = calloc(count, sizeof *samples);
    ASSERT(samples != NULL);
    return samples;
}

static uint64_t any_value(struct world *world) {
    static const uint64_t odd[] = {STALE_NAN_BITS,
                                   NORMAL_NAN_BITS,
                                   UINT64_C(0x8000000000000000),
                                   UINT64_C(0x7ff0000000000000),
                                   UINT64_C(0xfff8dead0000beef),
                                   1};
    switch (below(world, 8)) {
    case 0:
        return odd[below(world, 6)];
    case 1:
        return rand_u64(&world->rand);
    case 2:
        return double_bits((double)below(world, 1000) / 100);
    default:
        return double_bits((double)below(world, 10)); /* conflicts and repetitions need equal ones */
    }
}

static int64_t any_start(struct world *world, int64_t time_ms) {
    return time_ms - 1000 * (int64_t)(1 + below(world, 3));
}

/* Several requests of one scrape: new samples of many series, in order. */
static void step_scrape(struct world *world) {
    world->scrape_ms += 1 + (int64_t)below(world, 15000);
    /* As long as the clock does not say otherwise: real senders do not live in the future. */
    int64_t newest_ms = world_now_ms(world) + (int64_t)world->limits.future_ms_max;
    if (world->scrape_ms > newest_ms && !one_in(world, 8))
        io_sim_advance_ns(world->io, (uint64_t)(world->scrape_ms - newest_ms) * 1000000);
    uint64_t requests = 1 + below(world, 4);
    for (uint64_t i = 0; i < requests && world->in_flight < WORLD_IN_FLIGHT_MAX; i++) {
        size_t count = 1 + (size_t)below(world, SCRAPE_SERIES_MAX);
        struct sent_sample *samples = samples_new(count);
        uint32_t series = (uint32_t)below(world, world->series_count);
        bool starts = one_in(world, 4);
        for (size_t j = 0; j < count; j++) {
            int64_t time_ms = world->scrape_ms + (int64_t)below(world, 3);
            samples[j] = (struct sent_sample){
                .series = series,
                .sample = {time_ms, any_value(world)},
                .start_ms = starts && !one_in(world, 4) ? any_start(world, time_ms) : START_NONE};
            series = (series + 1) % world->series_count;
        }
        world_send(world, samples, count);
        if (one_in(world, 2) && !io_sim_ended(world->io))
            (void)storage_step(world->storage, world_now_ms(world));
    }
}

/* A request that was sent before, whatever became of it. */
static void step_resend(struct world *world) {
    if (world->model.write_count == 0 || world->in_flight >= WORLD_IN_FLIGHT_MAX)
        return;
    size_t recent = world->model.write_count < 32 ? world->model.write_count : 32;
    size_t which = one_in(world, 4) ? (size_t)below(world, world->model.write_count)
                                    : world->model.write_count - 1 - (size_t)below(world, recent);
    const struct model_write *write = world->model.writes[which];
    if (write->count == 0)
        return;
    struct sent_sample *samples = samples_new(write->count);
    for (size_t i = 0; i < write->count; i++)
        samples[i] = write->samples[i];
    world_send(world, samples, write->count);
}

/* Late, duplicate, conflicting: samples near stored ones. */
static void step_quarrel(struct world *world) {
    if (world->in_flight >= WORLD_IN_FLIGHT_MAX)
        return;
    size_t count = 1 + (size_t)below(world, 20);
    struct sent_sample *samples = samples_new(count);
    for (size_t i = 0; i < count; i++) {
        uint32_t number = (uint32_t)below(world, world->series_count);
        const struct model_series *series = &world->model.series[number];
        struct sent_sample sample = {.series = number, .sample = {world->scrape_ms, any_value(world)}};
        if (series->count > 0) {
            const struct model_sample *stored =
                &series->samples[one_in(world, 2) ? series->count - 1 : (size_t)below(world, series->count)];
            sample.sample.time_ms = (int64_t)((uint64_t)stored->time_ms + below(world, 3) - 1);
            if (one_in(world, 2)) {
                sample.sample.time_ms = stored->time_ms;
                sample.start_ms = stored->start_ms;
                if (one_in(world, 2))
                    sample.sample.value_bits = stored->value_bits;
            }
        }
        if (one_in(world, 40))
            sample.sample.time_ms =
                world_now_ms(world) + (int64_t)world->limits.future_ms_max + (int64_t)below(world, 3) - 1;
        samples[i] = sample;
    }
    world_send(world, samples, count);
}

/* Time stamps at the edges of what there is. */
static void step_edges(struct world *world) {
    static const int64_t times[] = {INT64_MIN, INT64_MIN + 1, -1, 0, 1, INT64_MAX};
    if (world->in_flight >= WORLD_IN_FLIGHT_MAX)
        return;
    struct sent_sample *samples = samples_new(2);
    for (size_t i = 0; i < 2; i++)
        samples[i] = (struct sent_sample){.series = (uint32_t)below(world, world->series_count),
                                          .sample = {times[below(world, 6)], any_value(world)}};
    world_send(world, samples, 2);
}

static void step_run_briefly(struct world *world) {
    world_run(world, 1 + below(world, 3000000));
}

static void step_run_long(struct world *world) {
    world_run(world, below(world, UINT64_C(8000000000)));
}

static void step_drain(struct world *world) {
    world_drain(world);
}

static void step_query(struct world *world) {
    uint32_t series = (uint32_t)below(world, world->series_count);
    int64_t min_ms = INT64_MIN, max_ms = INT64_MAX;
    if (one_in(world, 2)) {
        min_ms = world->scrape_ms - (int64_t)below(world, 600000);
        max_ms = min_ms + (int64_t)below(world, 600000);
    }
    world_check_series(world, series, min_ms, max_ms);
}

static void step_query_all(struct world *world) {
    world_check_all(world);
    world_check_labels(world);
}

static void step_restart(struct world *world) {
    world_drain(world);
    if (!io_sim_ended(world->io))
        world_restart(world);
}

static void step_clock(struct world *world) {
    if (!(world->faults & FAULT_CLOCK))
        return;
    static const int64_t jumps_ms[] = {-3600000, -60000, -1000, 1000, 60000, 3600000};
    world->clock_jump_ms += jumps_ms[below(world, 6)];
}

static void step_fill(struct world *world) {
    if (!(world->faults & FAULT_FULL))
        return;
    bool full = one_in(world, 2);
    io_sim_capacity_set(world->io, full ? io_sim_used_bytes(world->io) + below(world, 100000) : 0);
}

/* Of one series, of a metric, or of all others. */
static void step_delete(struct world *world) {
    if (world->in_flight >= WORLD_IN_FLIGHT_MAX)
        return;
    struct model_delete what = {.modulus = one_in(world, 3) ? 7 : 0,
                                .rest = (uint32_t)below(world, world->series_count),
                                .others = one_in(world, 10),
                                .time_min_ms = INT64_MIN,
                                .time_max_ms = INT64_MAX};
    what.rest %= what.modulus == 0 ? UINT32_MAX : what.modulus;
    if (!one_in(world, 4)) {
        what.time_min_ms = world->scrape_ms - (int64_t)below(world, 600000);
        what.time_max_ms = what.time_min_ms + (int64_t)below(world, 100000);
    }
    world_delete(world, what);
}

static void step_clean(struct world *world) {
    world_clean(world);
}

static void step_copy(struct world *world) {
    world_copy_ask(world);
}

static void step_alive(struct world *world) {
    world_check_alive(world);
}

void step_run(struct world *world) {
    static const struct {
        const char *name;
        void (*run)(struct world *world);
        unsigned weight;
    } steps[] = {
        {"scrape", step_scrape, 30},  {"resend", step_resend, 10},   {"quarrel", step_quarrel, 10},
        {"edges", step_edges, 1},     {"run", step_run_briefly, 25}, {"run long", step_run_long, 3},
        {"drain", step_drain, 6},     {"query", step_query, 6},      {"query all", step_query_all, 1},
        {"restart", step_restart, 1}, {"clock", step_clock, 2},      {"fill", step_fill, 3},
        {"alive", step_alive, 1},     {"delete", step_delete, 5},    {"clean", step_clean, 1},
        {"copy", step_copy, 3},
    };
    unsigned sum = 0;
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++)
        sum += steps[i].weight;
    unsigned drawn = (unsigned)below(world, sum);
    size_t at = 0;
    while (drawn >= steps[at].weight)
        drawn -= steps[at++].weight;
    world_note(world, "step %s", steps[at].name);
    steps[at].run(world);
    world_copy_check(world, false);
}
