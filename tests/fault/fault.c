/* fault.c: fault sweeps over the storage on a simulated disk: opening, writing, rolling over, replaying,
 * selecting, closing, each with its n-th allocation or disk operation failing. Whatever fails: an operating
 * error or none, no wrong answer then or later, nothing acknowledged is lost, and the storage is itself again
 * once nothing fails. Leaks are the sanitizer's to find. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/log.h"
#include "tests/lib/fault.h"
#include "tests/sim/world.h"

static bool is_operating(int status) {
    return status == STATUS_OK || status == STATUS_NO_MEMORY || status == STATUS_IO ||
           status == STATUS_NO_SPACE;
}

/* One sample of each of `count` series from `first` on. */
static void send_scrape(struct world *world, uint32_t first, size_t count) {
    struct sent_sample *samples = calloc(count, sizeof *samples);
    ASSERT(samples != NULL);
    world->scrape_ms += 1000;
    for (size_t i = 0; i < count; i++) {
        uint32_t series = (first + (uint32_t)i) % world->series_count;
        samples[i] = (struct sent_sample){
            .series = series,
            .sample = {world->scrape_ms, double_bits(series * 1.37 + (double)world->scrape_ms / 7)},
            .start_ms = series % 4 == 0 ? world->scrape_ms - 500 : START_NONE};
    }
    world_send(world, samples, count);
}

/* A database with a few segments, sealed chunks, and a group in flight when the power went. */
static void database_make(struct world *world) {
    world_init(world, 7, 0, NULL);
    world_step_begin(world, 0, 0);
    world_open(world, true);
    for (unsigned i = 0; i < 6; i++) {
        send_scrape(world, i * 10, 40);
        world_drain(world);
        if (i == 3)
            world_restart(world);
    }
    world_step_begin(world, 0, 1);
    send_scrape(world, 30, 50);
    world_run(world, 1);
}

static void power_cut(struct world *world) {
    if (!io_sim_ended(world->io))
        io_sim_end_now(world->io, IO_SIM_POWER_CUT);
    world_close(world);
    io_sim_restart(world->io);
}

/* ---- the bodies: called with the fault armed ---- */

static void body_open(struct world *world) {
    int status = world_open_once(world);
    if (!is_operating(status))
        world_fail(world, "opening: %s", status_message(status));
}

static void body_append(struct world *world) {
    send_scrape(world, 60, 30); /* some of them new */
    send_scrape(world, 0, 5);
    world_run(world, UINT64_C(3000000000));
}

/* What was sent before: to be judged, older samples are looked for in chunks, which takes memory after the
 * sync. */
static void body_resend(struct world *world) {
    world->scrape_ms += 1000;
    for (size_t i = 0; i < 3; i++) {
        const struct model_write *write = world->model.writes[i];
        struct sent_sample *samples = calloc(write->count + 2, sizeof *samples);
        ASSERT(samples != NULL);
        memcpy(samples + 1, write->samples, write->count * sizeof *samples);
        samples[1].sample.value_bits ^= 1; /* one conflicts */
        /* and new ones at both ends: what failed in the middle must not show in part */
        samples[0] = samples[1];
        samples[0].sample.time_ms = world->scrape_ms + (int64_t)i;
        samples[write->count + 1] = samples[2];
        samples[write->count + 1].sample.time_ms = world->scrape_ms + (int64_t)i;
        world_send(world, samples, write->count + 2);
    }
    world_run(world, UINT64_C(3000000000));
}

static void body_roll(struct world *world) {
    for (unsigned i = 0; i < 24; i++) {
        send_scrape(world, i, 60); /* chunks grow, and need memory when they are applied */
        world_run(world, 50000000);
    }
    world_run(world, UINT64_C(8000000000));
}

static void body_select(struct world *world) {
    for (uint32_t series = 0; series < 4; series++)
        world_check_series(world, series, INT64_MIN, INT64_MAX);
    struct arena arena;
    arena_init(&arena, 0, 0);
    const struct matcher matcher = {
        .kind = MATCHER_NOT_EQUAL, .name = slice_str("i"), .value = slice_str("1")};
    struct slice *texts;
    size_t count;
    bool truncated;
    int status = storage_label_names(world->storage, &matcher, 1, INT64_MIN, INT64_MAX, 0, &arena, &texts,
                                     &count, &truncated);
    if (status == STATUS_OK ? count != 4 : status != STATUS_NO_MEMORY)
        world_fail(world, "label names: %s, %zu", status_message(status), count);
    status = storage_label_values(world->storage, slice_str("i"), &matcher, 1, INT64_MIN, INT64_MAX, 0,
                                  &arena, &texts, &count, &truncated);
    size_t want = model_series_in(&world->model, INT64_MIN, INT64_MAX) - 1;
    if (status == STATUS_OK ? count != want : status != STATUS_NO_MEMORY)
        world_fail(world, "label values: %s, %zu", status_message(status), count);
    status = storage_label_values(world->storage, slice_str("i"), NULL, 0, INT64_MIN, INT64_MAX, 0, &arena,
                                  &texts, &count, &truncated);
    if (status == STATUS_OK ? count != want + 1 : status != STATUS_NO_MEMORY)
        world_fail(world, "all label values: %s, %zu", status_message(status), count);
    arena_release(&arena);
}

static void body_close(struct world *world) {
    send_scrape(world, 60, 30);
    world_close(world);
}

/* ---- the sweeps ---- */

struct sweep_case {
    const char *name;
    void (*body)(struct world *world);
    bool fresh; /* on an empty disk */
    bool down;  /* with the storage closed, after a power cut */
};

static const struct sweep_case cases[] = {
    {"open, an empty directory", body_open, true, true},
    {"open, replay a torn log", body_open, false, true},
    {"append", body_append, false, false},
    {"append what is there", body_resend, false, false},
    {"commit, roll over", body_roll, false, false},
    {"select", body_select, false, false},
    {"close", body_close, false, false},
};

/* Afterwards: open or not, it must serve, remember and write. */
static void check_afterwards(struct world *world) {
    if (world->storage == NULL) {
        world_open(world, true);
    } else {
        world_drain(world);
        world_check_all(world);
    }
    world_check_alive(world);
    world_check_all(world);
    power_cut(world);
    world_open(world, true);
    world_check_alive(world);
}

static uint64_t sweep_run(const struct sweep_case *sweep_case, enum fault_kind kind, bool repeat) {
    struct fault_sweep sweep = {.kind = kind, .repeat = repeat};
    static struct world world;
    FAULT_SWEEP(&sweep) {
        if (sweep_case->fresh)
            world_init(&world, 7, 0, NULL);
        else
            database_make(&world);
        world_step_begin(&world, 1, (unsigned)sweep.at);
        if (sweep_case->down && !sweep_case->fresh)
            power_cut(&world);
        else if (!sweep_case->down)
            world_drain(&world);
        fault_arm(&sweep, world.io);
        world.armed = true;
        sweep_case->body(&world);
        world.armed = false;
        fault_disarm(&sweep, world.io);
        if (sweep_case->down && world.storage != NULL)
            world_settle(&world);
        check_afterwards(&world);
        world_release(&world);
    }
    return sweep.runs;
}

int main(void) {
    log_setup(LOG_ERROR, LOG_FORMAT_LOGFMT, open("/dev/null", O_WRONLY));
    alarm(900); /* nothing may hang */
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (unsigned kind = 0; kind < FAULT_KIND_COUNT; kind++)
            for (unsigned repeat = 0; repeat < 2; repeat++) {
                uint64_t runs = sweep_run(&cases[i], (enum fault_kind)kind, repeat != 0);
                printf("fault: %s, %s%s: %llu runs\n", cases[i].name, fault_kind_name((enum fault_kind)kind),
                       repeat ? " and all behind it" : "", (unsigned long long)runs);
                fflush(stdout);
            }
    return 0;
}
