/* fault.c: fault sweeps over the storage on a simulated disk: opening, writing, rolling over, replaying,
 * selecting, closing, and all that goes on behind the log, each with its n-th allocation or disk operation
 * failing. Whatever fails: an operating error or none, no wrong answer then or later, nothing acknowledged is
 * lost, and the storage is itself again once nothing fails. Leaks are the sanitizer's to find. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/log.h"
#include "base/metrics.h"
#include "tests/lib/fault.h"
#include "tests/sim/world.h"

static bool is_operating(int status) {
    return status == STATUS_OK || status == STATUS_NO_MEMORY || status == STATUS_IO ||
           status == STATUS_NO_SPACE;
}

/* One sample of each of `count` series from `first` on. */
static void send_at(struct world *world, uint32_t first, size_t count, int64_t time_ms) {
    struct sent_sample *samples = calloc(count, sizeof *samples);
    ASSERT(samples != NULL);
    for (size_t i = 0; i < count; i++) {
        uint32_t series = (first + (uint32_t)i) % world->series_count;
        samples[i] =
            (struct sent_sample){.series = series,
                                 .sample = {time_ms, double_bits(series * 1.37 + (double)time_ms / 7)},
                                 .start_ms = series % 4 == 0 ? time_ms - 500 : START_NONE};
    }
    world_send(world, samples, count);
}

static void send_scrape(struct world *world, uint32_t first, size_t count) {
    world->scrape_ms += 1000;
    send_at(world, first, count, world->scrape_ms);
}

static void disk_make(struct world *world) {
    world_init(world, 7, 0, NULL);
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

/* ---- what goes on behind the log ---- */

#define WINDOW_MS INT64_C(30000)
#define SERIES    8 /* of the databases below: all four label names are in use */

static void advance(struct world *world, int64_t ms) {
    io_sim_advance_ns(world->io, (uint64_t)ms * 1000000);
}

/* A scrape at the time it is, after so much of it. */
static void scrape_after(struct world *world, int64_t ms) {
    advance(world, ms);
    world->scrape_ms = world_now_ms(world) - 1000;
    send_scrape(world, 0, SERIES);
    world_drain(world);
}

static void late_run(struct world *world) {
    world->limits.late_ms_max = 1;
    world_run(world, UINT64_C(1000000000));
    world->limits.late_ms_max = 3600000;
}

/* `windows` windows in blocks, each under late samples, and two thirds of one in the head; late samples of
 * all of them in memory; a delete that hides something of each. Nothing is due: what would be waits for a
 * limit, or for time to pass. */
static void windows_make(struct world *world, unsigned windows) {
    world_init(world, 7, 0, NULL);
    world_step_begin(world, 0, 0);
    world->limits.window_ms = (uint64_t)WINDOW_MS;
    world->limits.window_grace_ms = 1000;
    world->limits.late_ms_max = 3600000;
    world->limits.late_bytes_max = 1 << 20;
    world->limits.block_range_ms_max = (uint64_t)WINDOW_MS;
    world->limits.snapshot_samples_max = world->limits.snapshot_ms_max = INT64_MAX;
    world->limits.scrub_pass_ms = UINT64_C(1) << 40;
    world->limits.deletes_max = 64;
    world_open(world, true);
    advance(world, 3 * WINDOW_MS - world_now_ms(world) % (3 * WINDOW_MS)); /* windows that merge */
    const int64_t begin_ms = world_now_ms(world);
    for (unsigned i = 0; i <= windows; i++) {
        scrape_after(world, begin_ms + i * WINDOW_MS + 5000 - world_now_ms(world));
        scrape_after(world, 10000);
        if (i == windows)
            break;
        scrape_after(world, 10000);
        advance(world, 6500);
        world_run(world, UINT64_C(1000000000));
        send_at(world, i, 3, begin_ms + i * WINDOW_MS + 9000);
        world_drain(world);
        late_run(world);
    }
    for (unsigned i = 0; i <= windows; i++)
        send_at(world, i, 3, begin_ms + i * WINDOW_MS + 7000);
    world_drain(world);
    world_delete(world, (struct model_delete){.modulus = 7,
                                              .rest = 2,
                                              .time_min_ms = begin_ms + 6000,
                                              .time_max_ms = begin_ms + windows * WINDOW_MS + 10000});
    world_drain(world);
    world_run(world, UINT64_C(1000000000));
    if (metric_get(METRIC_blocks_cut) != windows)
        world_fail(world, "%llu windows are cut", (unsigned long long)metric_get(METRIC_blocks_cut));
}

static void one_window(struct world *world) {
    windows_make(world, 1);
}

static void no_window(struct world *world) {
    windows_make(world, 0);
}

static void snapshot_run(struct world *world) {
    world->limits.snapshot_samples_max = 1;
    world_run(world, UINT64_C(3000000000));
}

static void one_snapshot(struct world *world) {
    windows_make(world, 1);
    for (unsigned i = 0; i < 3; i++) { /* two are kept, and the log before them is not */
        snapshot_run(world);
        world->limits.snapshot_samples_max = INT64_MAX;
        send_scrape(world, 5 + 5 * i, 10); /* new series */
        world_drain(world);
        if (i < 2)
            world_restart(world); /* a new segment */
    }
    if (metric_get(METRIC_snapshots) != 3)
        world_fail(world, "%llu snapshots", (unsigned long long)metric_get(METRIC_snapshots));
}

static void three_windows(struct world *world) {
    windows_make(world, 3);
    late_run(world);
}

/* Three windows make one block, since a fourth is over too; at once after a start. */
static void merge_due(struct world *world) {
    windows_make(world, 4);
    late_run(world);
    world->limits.block_range_ms_max = 3 * (uint64_t)WINDOW_MS;
    world_restart(world);
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

static void body_cut(struct world *world) {
    advance(world, 17000);
    world_run(world, UINT64_C(8000000000));
}

static void body_late(struct world *world) {
    world->limits.late_ms_max = 1;
    world_run(world, UINT64_C(8000000000));
}

static void body_run(struct world *world) {
    world_run(world, UINT64_C(8000000000));
}

static void body_delete(struct world *world) {
    struct model_delete what = {
        .others = true, .rest = 1, .time_min_ms = INT64_MIN, .time_max_ms = INT64_MAX};
    if (world_delete(world, what))
        world_run(world, UINT64_C(3000000000));
}

static void body_clean(struct world *world) {
    world_clean(world);
    world_run(world, UINT64_C(8000000000));
}

static void body_retention(struct world *world) {
    world->limits.retention_ms = 3 * (uint64_t)WINDOW_MS / 2;
    world_run(world, UINT64_C(8000000000));
}

/* Two windows are dropped as a whole, and one is kept. */
static void retention_after(struct world *world) {
    world_run(world, UINT64_C(3000000000));
    model_forget(&world->model, world->scrape_ms - (int64_t)world->limits.retention_ms);
}

static void body_close(struct world *world) {
    send_scrape(world, 60, 30);
    world_close(world);
}

/* ---- the sweeps ---- */

struct sweep_case {
    const char *name;
    void (*make)(struct world *world);
    void (*body)(struct world *world);
    bool down; /* with the storage closed, after a power cut */
    /* What the body begins is done at last, once nothing fails: this counter has gone up by so much. */
    enum metric_id counter;
    uint64_t counts;
    void (*again)(struct world *world); /* what failed is not tried again by itself; NULL: it is */
    void (*after)(struct world *world);
};

static const struct sweep_case cases_log[] = {
    {.name = "open, an empty directory", .make = disk_make, .body = body_open, .down = true},
    {.name = "open, replay a torn log", .make = database_make, .body = body_open, .down = true},
    {.name = "append", .make = database_make, .body = body_append},
    {.name = "append what is there", .make = database_make, .body = body_resend},
    {.name = "commit, roll over", .make = database_make, .body = body_roll},
    {.name = "select", .make = database_make, .body = body_select},
    {.name = "close", .make = database_make, .body = body_close},
};

static const struct sweep_case cases_behind[] = {
    {.name = "cut", .make = no_window, .body = body_cut, .counter = METRIC_blocks_cut, .counts = 1},
    {.name = "write late samples",
     .make = one_window,
     .body = body_late,
     .counter = METRIC_blocks_late,
     .counts = 1},
    {.name = "first snapshot",
     .make = one_window,
     .body = snapshot_run,
     .counter = METRIC_snapshots,
     .counts = 1},
    {.name = "snapshot",
     .make = one_snapshot,
     .body = snapshot_run,
     .counter = METRIC_snapshots,
     .counts = 1},
    {.name = "merge", .make = merge_due, .body = body_run, .counter = METRIC_compactions, .counts = 1},
    {.name = "delete", .make = one_window, .body = body_delete},
    {.name = "clean",
     .make = one_window,
     .body = body_clean,
     .counter = METRIC_blocks_cleaned,
     .counts = 1,
     .again = world_clean},
    {.name = "retention",
     .make = three_windows,
     .body = body_retention,
     .counter = METRIC_blocks_dropped,
     .counts = 2,
     .after = retention_after},
    {.name = "open, snapshots, blocks and deletes", .make = one_snapshot, .body = body_open, .down = true},
    {.name = "select from blocks", .make = one_window, .body = body_select},
};

/* What the body began ends, in as much time as the longest waits between two tries need. */
static void finish(struct world *world, const struct sweep_case *sweep_case, uint64_t before) {
    for (unsigned i = 0; metric_get(sweep_case->counter) < before + sweep_case->counts; i++) {
        if (i == 150)
            world_fail(world, "%s: not done once nothing fails any more", sweep_case->name);
        if (sweep_case->again != NULL && i % 10 == 0)
            sweep_case->again(world);
        world_run(world, UINT64_C(1000000000));
    }
}

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
        sweep_case->make(&world);
        world_step_begin(&world, 1, (unsigned)sweep.at);
        if (sweep_case->down && world.storage != NULL)
            power_cut(&world);
        else if (!sweep_case->down)
            world_drain(&world);
        uint64_t before = metric_get(sweep_case->counter);
        fault_arm(&sweep, world.io);
        world.armed = true;
        sweep_case->body(&world);
        world.armed = false;
        fault_disarm(&sweep, world.io);
        if (sweep_case->down && world.storage != NULL)
            world_settle(&world);
        if (sweep_case->counts > 0)
            finish(&world, sweep_case, before);
        if (sweep_case->after != NULL)
            sweep_case->after(&world);
        check_afterwards(&world);
        world_release(&world);
    }
    return sweep.runs;
}

/* fault log|behind [NAME]: the log and what it is read for, or what goes on behind it; the rows that have
 * NAME in theirs. */
int main(int argc, char **argv) {
    bool behind = argc > 1 && strcmp(argv[1], "behind") == 0;
    const struct sweep_case *cases = behind ? cases_behind : cases_log;
    const size_t count =
        behind ? sizeof cases_behind / sizeof cases_behind[0] : sizeof cases_log / sizeof cases_log[0];
    log_setup(LOG_ERROR, LOG_FORMAT_LOGFMT, open("/dev/null", O_WRONLY));
    alarm(900); /* nothing may hang */
    for (size_t i = 0; i < count; i++)
        for (unsigned kind = 0;
             kind < FAULT_KIND_COUNT && (argc < 3 || strstr(cases[i].name, argv[2]) != NULL); kind++)
            for (unsigned repeat = 0; repeat < 2; repeat++) {
                uint64_t runs = sweep_run(&cases[i], (enum fault_kind)kind, repeat != 0);
                printf("fault: %s, %s%s: %llu runs\n", cases[i].name, fault_kind_name((enum fault_kind)kind),
                       repeat ? " and all behind it" : "", (unsigned long long)runs);
                fflush(stdout);
            }
    return 0;
}
