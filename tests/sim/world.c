/* world.c: see world.h. */
#include "tests/sim/world.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/label.h"
#include "base/metrics.h"

#define DIR           WORLD_DIR
#define WALL_BEGIN_MS INT64_C(1700000000000)
#define CALM_TRIES    3
#define SEGMENT_BYTES ((uint64_t)64 << 10)
#define LABELS_BYTES  ((size_t)256 << 10)
#define GROUP_BYTES   ((uint64_t)24 << 10)

void world_fail(struct world *world, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "sim: FAILED: seed %llu, round %u, step %u: ", (unsigned long long)world->seed,
            world->round, world->step);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    if (world->trace != NULL)
        fclose(world->trace);
    _Exit(1);
}

void world_note(struct world *world, const char *format, ...) {
    char line[512];
    int at = snprintf(line, sizeof line, "%llu.%u.%u %llu ", (unsigned long long)world->seed, world->round,
                      world->step, (unsigned long long)io_sim_now_ns(world->io));
    va_list arguments;
    va_start(arguments, format);
    int len = vsnprintf(line + at, sizeof line - (size_t)at, format, arguments);
    va_end(arguments);
    size_t bytes = (size_t)(at + len) < sizeof line ? (size_t)(at + len) : sizeof line - 1;
    world->trace_sum = world->trace_sum * 31 + crc32c(0, line, bytes);
    if (world->trace != NULL)
        fprintf(world->trace, "%s\n", line);
}

/* ---- time ---- */

int64_t world_now_ms(struct world *world) {
    return WALL_BEGIN_MS + world->clock_jump_ms + (int64_t)(io_sim_now_ns(world->io) / 1000000);
}

static int64_t clock_wall(void *context) {
    return world_now_ms(context);
}

static uint64_t clock_monotonic(void *context) {
    return io_sim_now_ns(((struct world *)context)->io);
}

/* ---- what reaches the disk ---- */

/* Does it belong to a copy? */
static bool is_copy(const char *path) {
    return strncmp(path, DIR "/snapshots", sizeof DIR "/snapshots" - 1) == 0;
}

/* "db/wal/0000002a.log" → 42; 0 for any other path. */
static uint32_t segment_of(const char *path) {
    const char *name = strrchr(path, '/');
    unsigned long number;
    char *end;
    if (name == NULL || strlen(name) != 13 || is_copy(path))
        return 0;
    number = strtoul(name + 1, &end, 16);
    return strcmp(end, ".log") == 0 ? (uint32_t)number : 0;
}

static void on_event(void *context, const struct io_event *event) {
    static const char *const kinds[] = {"write", "sync", "syncdir", "rename", "remove"};
    struct world *world = context;
    if (event->phase == IO_EVENT_COMPLETED) {
        world_note(world, "%s %s %llu %llu = %lld", kinds[event->kind], event->path,
                   (unsigned long long)event->offset, (unsigned long long)event->len,
                   (long long)event->result);
        if (is_copy(event->path))
            return;
        if (event->kind == IO_EVENT_SYNC && event->result == 0) {
            if (world->writing.segment != 0)
                world->written = world->writing;
            else
                world->next_bytes = world->writing.end;
            world->writing = (struct extent){0};
        }
        if (event->kind == IO_EVENT_RENAME && event->result == 0 && world->next_bytes > 8192) {
            world->carried = (struct extent){segment_of(event->path), 8192, world->next_bytes};
            if (world->settled)
                model_carry(&world->model, world->carried);
        }
        return;
    }
    if (event->kind != IO_EVENT_WRITE || is_copy(event->path))
        return;
    uint32_t segment = segment_of(event->path);
    if (world->writing.segment != segment)
        world->writing = (struct extent){segment, event->offset, event->offset};
    if (event->offset < world->writing.begin)
        world->writing.begin = event->offset;
    if (event->offset + event->len > world->writing.end)
        world->writing.end = event->offset + event->len;
}

/* ---- life ---- */

void world_init(struct world *world, uint64_t seed, unsigned faults, FILE *trace) {
    *world = (struct world){.seed = seed, .trace = trace};
    ASSERT(io_sim_open(seed, &world->io) == STATUS_OK);
    io_trace_set(world->io, on_event, world);
    world->clock = (struct clock){clock_wall, clock_monotonic, world};
    rand_init(&world->rand, seed * 2 + 1);
    struct rand *rand = &world->rand;

    /* Each world has some of the faults, rare or frequent: what always happens hides what it prevents. */
    static const unsigned rates[] = {0, 0, 5, 20, 60};
    for (unsigned bit = 1; bit <= FAULT_MEMORY; bit *= 2)
        if ((faults & bit) && (bit == FAULT_POWER || rand_below(rand, 2)))
            world->faults |= bit;
    if (world->faults & FAULT_SHORT)
        world->disk_faults.short_write = rates[1 + rand_below(rand, 4)];
    if (world->faults & FAULT_ERROR) {
        world->disk_faults.write_error = rates[rand_below(rand, 5)];
        world->disk_faults.sync_error = rates[rand_below(rand, 5)];
        world->disk_faults.read_error = rates[rand_below(rand, 4)];
        world->disk_faults.other_error = rates[rand_below(rand, 4)];
    }
    world->disk_faults.stale_blocks = (world->faults & FAULT_STALE) != 0;

    limits_init(&world->limits);
    world->limits.log_group_bytes_max = GROUP_BYTES;
    world->limits.log_segment_bytes = SEGMENT_BYTES << rand_below(rand, 3);
    world->limits.window_ms = 30000u << rand_below(rand, 4);
    world->limits.window_grace_ms = 1000u << rand_below(rand, 6);
    world->limits.late_ms_max = 1000u << rand_below(rand, 7);
    world->limits.late_bytes_max = 1000u << rand_below(rand, 10);
    world->limits.snapshot_samples_max = 20u << rand_below(rand, 6);
    world->limits.snapshot_ms_max = 1000u << rand_below(rand, 8);
    world->limits.retention_ms = 0;
    world->limits.scrub_bytes_per_s = (uint64_t)1 << (20 + rand_below(rand, 8));
    world->limits.scrub_pass_ms = 500u << rand_below(rand, 8);
    world->limits.deletes_max = 2u << rand_below(rand, 5);
    world->limits.delete_slice_series = 1u << seed % 7;
    world->series_count = 2 + (uint32_t)rand_below(rand, WORLD_SERIES_MAX - 1);
    buf_init(&world->labels);
    ASSERT(buf_reserve(&world->labels, LABELS_BYTES) != NULL);
    model_init(&world->model, world->series_count);
    world->scrape_ms = world_now_ms(world);
    metrics_reset();
}

void world_release(struct world *world) {
    world->cuts = metric_get(METRIC_blocks_cut);
    world->lates = metric_get(METRIC_blocks_late);
    world->snapshots = metric_get(METRIC_snapshots);
    world->cleaned = metric_get(METRIC_blocks_cleaned);
    world->merges = metric_get(METRIC_compactions);
    mem_fault_set(0, 0);
    if (world->storage != NULL)
        storage_close(world->storage);
    model_release(&world->model);
    world_copy_release(world);
    buf_release(&world->labels);
    io_close(world->io);
}

void world_step_begin(struct world *world, unsigned round, unsigned step) {
    world->round = round;
    world->step = step;
    uint64_t seed = world->seed * 1000003 + round * 1009 + step;
    rand_init(&world->rand, seed);
    io_sim_seed(world->io, ~seed);
}

static uint64_t damage_reported(void) {
    return metric_get(METRIC_wal_replay_corrupt_frames) + metric_get(METRIC_wal_replay_torn) +
           metric_get(METRIC_blocks_damaged) + metric_get(METRIC_block_damage) +
           metric_get(METRIC_snapshot_damage) + metric_get(METRIC_chunklog_damage);
}

int world_open_once(struct world *world) {
    world->damage_before = damage_reported();
    world->torn_before = metric_get(METRIC_wal_replay_torn);
    world->carried = (struct extent){0};
    world->settled = false;
    const struct storage_options options = {.dir = DIR,
                                            .io = world->io,
                                            .clock = &world->clock,
                                            .limits = &world->limits,
                                            .seed = rand_u64(&world->rand)};
    struct error_detail detail = {0};
    int status = storage_open(&options, &detail, &world->storage);
    world_note(world, "open = %s %s", status_name(status), detail.text);
    if (status < 0)
        world->storage = NULL;
    world->opens++;
    return status;
}

void world_close(struct world *world) {
    if (world->storage != NULL)
        storage_close(world->storage);
    world->storage = NULL;
    if (world->in_flight != 0)
        world_fail(world, "%u requests were never answered", world->in_flight);
    if (world->cleans != 0)
        world_fail(world, "%u askings to clean were never answered", world->cleans);
    if (world->copy.asked)
        world_fail(world, "the asking for a copy was never answered");
}

static void faults_apply(struct world *world, bool calm) {
    static const struct io_sim_faults none = {0};
    world->armed = false;
    io_sim_faults_set(world->io, calm ? &none : &world->disk_faults);
    if (calm) {
        io_sim_capacity_set(world->io, 0);
        io_sim_end_after(world->io, IO_SIM_KILL, 0);
        mem_fault_set(0, 0);
    }
}

/* ---- reading ---- */

static void columns_of(struct world *world, struct storage_selection *selection, size_t index,
                       int64_t time_min_ms, int64_t time_max_ms, struct sample_columns *columns) {
    int status = selection_read(selection, index, time_min_ms, time_max_ms, columns);
    if (status < 0)
        world_fail(world, "selection_read: %s", status_message(status));
}

static uint32_t number_parse(struct world *world, struct slice text) {
    uint32_t number = 0;
    for (size_t i = 0; i < text.len; i++)
        number = number * 10 + (uint32_t)(text.data[i] - '0');
    if (text.len == 0 || number >= world->series_count)
        world_fail(world, "a series that was never sent: i=\"%.*s\"", SLICE_ARGS(text));
    return number;
}

static uint32_t series_number(struct world *world, struct storage_selection *selection, size_t index) {
    return number_parse(world, selection_label(selection, index, slice_str("i")));
}

struct found_series *world_read(struct world *world, struct storage *storage) {
    struct found_series *found = calloc(world->series_count, sizeof *found);
    ASSERT(found != NULL);
    struct storage_selection *selection;
    int status = storage_select(storage, NULL, 0, INT64_MIN, INT64_MAX, 0, &selection);
    if (status < 0)
        world_fail(world, "storage_select: %s", status_message(status));
    for (size_t i = 0; i < selection_series_count(selection); i++) {
        uint32_t number = series_number(world, selection, i);
        if (found[number].columns.count > 0)
            world_fail(world, "series %u stands twice", number);
        columns_of(world, selection, i, INT64_MIN, INT64_MAX, &found[number].columns);
    }
    selection_close(selection);
    return found;
}

void world_read_release(struct world *world, struct found_series *found) {
    for (uint32_t i = 0; i < world->series_count; i++)
        sample_columns_release(&found[i].columns);
    free(found);
}

/* Both sides, for whoever looks for the reason. */
static void series_dump(struct world *world, uint32_t number, const struct sample_columns *columns) {
    const struct model_series *series = &world->model.series[number];
    for (size_t i = 0; i < series->count; i++)
        fprintf(stderr, "sim: must have %lld %016llx, from segment %u, bytes %llu to %llu\n",
                (long long)series->samples[i].time_ms, (unsigned long long)series->samples[i].value_bits,
                series->samples[i].at.segment, (unsigned long long)series->samples[i].at.begin,
                (unsigned long long)series->samples[i].at.end);
    for (size_t i = 0; i < columns->count; i++)
        fprintf(stderr, "sim: has       %lld %016llx\n", (long long)columns->times_ms[i],
                (unsigned long long)double_bits(columns->values[i]));
    for (size_t i = 0; i < world->model.rot_count; i++)
        fprintf(stderr, "sim: rot in segment %u at %llu\n", world->model.rots[i].segment,
                (unsigned long long)world->model.rots[i].offset);
    for (size_t i = 0; i < world->model.write_count; i++)
        for (size_t j = 0; j < world->model.writes[i]->count; j++)
            if (world->model.writes[i]->samples[j].series == number)
                fprintf(stderr, "sim: request %zu, %s: %lld %016llx\n", i,
                        (const char *[]){"in flight", "acknowledged", "maybe",
                                         "dead"}[world->model.writes[i]->state],
                        (long long)world->model.writes[i]->samples[j].sample.time_ms,
                        (unsigned long long)world->model.writes[i]->samples[j].sample.value_bits);
}

static void found_compare(struct world *world, const struct found_series *found) {
    for (uint32_t i = 0; i < world->series_count; i++) {
        const char *different = model_compare(&world->model, i, &found[i].columns, INT64_MIN, INT64_MAX);
        if (different != NULL) {
            series_dump(world, i, &found[i].columns);
            world_fail(world, "%s", different);
        }
    }
    world->checks++;
}

/* A durable group that waits for memory shows in part, as one in flight may: it gets its memory first. So
 * does a delete that goes on. */
static void apply_finish(struct world *world) {
    mem_fault_set(0, 0);
    unsigned steps = 0;
    do {
        (void)storage_step(world->storage, world_now_ms(world));
        if (++steps == 100000)
            world_fail(world, "a delete does not end");
    } while (metric_get(METRIC_deletes_applying) > 0);
}

void world_check_all(struct world *world) {
    apply_finish(world);
    struct found_series *found = world_read(world, world->storage);
    found_compare(world, found);
    world_read_release(world, found);
}

void world_check_series(struct world *world, uint32_t series, int64_t time_min_ms, int64_t time_max_ms) {
    char text[16];
    snprintf(text, sizeof text, "%u", series);
    apply_finish(world);
    if (world->faults & FAULT_MEMORY) {
        mem_fault_set(rand_below(&world->rand, 16), 0);
    }
    const struct matcher matcher = {.kind = MATCHER_EQUAL, .name = slice_str("i"), .value = slice_str(text)};
    struct storage_selection *selection;
    int status = storage_select(world->storage, &matcher, 1, time_min_ms, time_max_ms, 0, &selection);
    if (status == STATUS_NO_MEMORY && ((world->faults & FAULT_MEMORY) || world->armed))
        return;
    if (status < 0)
        world_fail(world, "storage_select: %s", status_message(status));
    struct sample_columns columns = {0};
    size_t count = selection_series_count(selection);
    if (count > 1)
        world_fail(world, "%zu series for one", count);
    if (count == 1 && selection_read(selection, 0, time_min_ms, time_max_ms, &columns) == STATUS_NO_MEMORY)
        count = SIZE_MAX; /* nothing to compare */
    selection_close(selection);
    const char *different =
        count == SIZE_MAX ? NULL : model_compare(&world->model, series, &columns, time_min_ms, time_max_ms);
    sample_columns_release(&columns);
    if (different != NULL)
        world_fail(world, "%s", different);
    world->checks++;
}

void world_check_labels(struct world *world) {
    apply_finish(world);
    struct arena arena;
    arena_init(&arena, 0, 0);
    struct slice *values;
    size_t count;
    bool truncated;
    int status = storage_label_values(world->storage, slice_str("i"), NULL, 0, INT64_MIN, INT64_MAX, 0,
                                      &arena, &values, &count, &truncated);
    if (status < 0)
        world_fail(world, "storage_label_values: %s", status_message(status));
    bool *listed = calloc(world->series_count, sizeof *listed);
    ASSERT(listed != NULL);
    for (size_t i = 0; i < count; i++) {
        uint32_t number = number_parse(world, values[i]);
        if (listed[number])
            world_fail(world, "i=%u is listed twice", number);
        listed[number] = true;
    }
    for (uint32_t i = 0; i < world->series_count; i++) {
        bool want = model_series_has(&world->model.series[i], INT64_MIN, INT64_MAX);
        /* A series with a chunk that can't be read may have samples, and is listed. */
        if (listed[i] != want && (want || !world->model.block_rot))
            world_fail(world, "i=%u %s samples, and is %s", i, want ? "has" : "has no",
                       want ? "not listed" : "listed");
    }
    free(listed);
    arena_release(&arena);
    world->checks++;
}

/* ---- opening ---- */

/* After a start: what survived of the writes nobody knows about, what rot took, and is all else as it was? */
void world_settle(struct world *world) {
    world->settled = true;
    struct found_series *found = world_read(world, world->storage);
    size_t lost;
    struct storage_status status;
    storage_status(world->storage, &status);
    model_settle(&world->model, found, status.writable, world->carried, &lost);
    world->lost_to_rot += lost;
    uint64_t damage = damage_reported() - world->damage_before;
    if (lost > 0 && damage == 0)
        world_fail(world, "%zu samples lost to rot, and nothing was reported: %s", lost,
                   world->model.lost_text);
    found_compare(world, found);
    world_read_release(world, found);
    if (world->calm_open && !status.writable)
        world_fail(world, "the log can't be written on a disk without faults");
    /* A file of a block that a failing disk did not give may be told of as damage: it was made anew from the
     * rest. */
    bool no_rot = world->model.rot_count == 0 && !world->model.block_rot && !world->manifest_rot;
    if (no_rot && (metric_get(METRIC_wal_replay_corrupt_frames) > 0 ||
                   (world->calm_open && damage != metric_get(METRIC_wal_replay_torn) - world->torn_before)))
        world_fail(world,
                   "damage reported where there is none: %llu frames, %llu blocks, %llu in blocks, %llu in "
                   "snapshots, %llu in the chunk log",
                   (unsigned long long)metric_get(METRIC_wal_replay_corrupt_frames),
                   (unsigned long long)metric_get(METRIC_blocks_damaged),
                   (unsigned long long)metric_get(METRIC_block_damage),
                   (unsigned long long)metric_get(METRIC_snapshot_damage),
                   (unsigned long long)metric_get(METRIC_chunklog_damage));
}

void world_open(struct world *world, bool calm) {
    for (unsigned tries = 0;; tries++) {
        bool now_calm = calm || tries >= CALM_TRIES;
        faults_apply(world, now_calm);
        world->calm_open = now_calm;
        if (!now_calm && rand_below(&world->rand, 4) == 0)
            io_sim_end_after(world->io, world->faults & FAULT_POWER ? IO_SIM_POWER_CUT : IO_SIM_KILL,
                             1 + rand_below(&world->rand, 60));
        if (!now_calm && (world->faults & FAULT_MEMORY) && rand_below(&world->rand, 3) == 0)
            mem_fault_set(1 + rand_below(&world->rand, 200), 0);
        int status = world_open_once(world);
        mem_fault_set(0, 0);
        if (io_sim_ended(world->io)) {
            world_close(world);
            io_sim_restart(world->io);
            world->survived_ends++;
            continue;
        }
        if (status == STATUS_OK)
            break;
        if (now_calm)
            world_fail(world, "does not open: %s", status_message(status));
    }
    io_sim_end_after(world->io, IO_SIM_KILL, 0);
    world_settle(world);
    world_copy_check(world, true);
}

static bool header_spare(void *context, const char *path, uint64_t offset) {
    /* One damaged copy of a header costs nothing; both cost the segment, which is too much to follow here. */
    struct world *world = context;
    uint32_t segment = segment_of(path);
    if (is_copy(path))
        return true; /* nobody reads it */
    if (strcmp(path, DIR "/manifest") == 0)
        return world->manifest_rot; /* one of its two copies may be damaged */
    if (segment == 0 || offset >= 8192)
        return false;
    for (size_t i = 0; i < world->model.rot_count; i++)
        if (world->model.rots[i].segment == segment && world->model.rots[i].offset < 8192)
            return true;
    return false;
}

static void rot(struct world *world) {
    struct io_sim_rot where;
    if (!io_sim_rot(world->io, DIR, header_spare, world, &where))
        return;
    world_note(world, "rot %s %llu", where.path, (unsigned long long)where.offset);
    world->rots++;
    world->manifest_rot |= strcmp(where.path, DIR "/manifest") == 0;
    world->model.block_rot |= strncmp(where.path, DIR "/blocks/", sizeof DIR "/blocks/" - 1) == 0 ||
                              strncmp(where.path, DIR "/head/", sizeof DIR "/head/" - 1) == 0;
    if (segment_of(where.path) != 0)
        model_rot(&world->model, segment_of(where.path), where.offset);
}

void world_end(struct world *world, enum io_sim_end end) {
    mem_fault_set(0, 0);
    world->armed = false;
    if (!io_sim_ended(world->io))
        io_sim_end_now(world->io, end);
    world_note(world, "end");
    world_close(world);
    io_sim_restart(world->io);
    world->survived_ends++;
    world_note(world, "disk %016llx", (unsigned long long)io_sim_fingerprint(world->io));
    if ((world->faults & FAULT_ROT) && rand_below(&world->rand, 3) == 0)
        rot(world);
    world_open(world, false);
}

bool world_ended(struct world *world) {
    if (!io_sim_ended(world->io))
        return false;
    world_end(world, IO_SIM_KILL);
    return true;
}

void world_restart(struct world *world) {
    mem_fault_set(0, 0);
    world_close(world);
    if (io_sim_ended(world->io)) {
        world_end(world, IO_SIM_KILL);
        return;
    }
    world_open(world, false);
}

/* ---- writing ---- */

struct pending {
    struct world *world;
    struct model_write *write;
    uint64_t future;
};

static void on_done(void *context, struct storage_write *write) {
    struct pending *pending = context;
    struct world *world = pending->world;
    const struct storage_write_result *result = storage_write_result(write);
    struct model_write *sent = pending->write;
    world_note(world, "done %llu %s stored %llu equal %llu refused %llu", (unsigned long long)sent->number,
               status_name(result->status), (unsigned long long)result->samples_stored,
               (unsigned long long)result->samples_equal, (unsigned long long)result->samples_refused);
    world->in_flight--;
    if (result->status == STATUS_OK) {
        world->acknowledged++;
        struct model_verdict want = {0};
        if (sent->state == WRITE_IN_FLIGHT)
            want = model_acknowledge(&world->model, sent, world->written);
        want.refused += pending->future;
        /* What is in a block already is not looked for: a repetition or a conflict counts as stored, and
         * changes no answer. */
        if (result->samples_stored < want.stored || result->samples_refused > want.refused ||
            result->samples_stored + result->samples_equal + result->samples_refused !=
                want.stored + want.equal + want.refused)
            world_fail(world, "request %llu: stored %llu, equal %llu, refused %llu; must be %llu, %llu, %llu",
                       (unsigned long long)sent->number, (unsigned long long)result->samples_stored,
                       (unsigned long long)result->samples_equal, (unsigned long long)result->samples_refused,
                       (unsigned long long)want.stored, (unsigned long long)want.equal,
                       (unsigned long long)want.refused);
    } else {
        if (result->samples_stored + result->samples_equal > 0 && result->status != STATUS_NO_MEMORY)
            world_fail(world, "request %llu failed and stored", (unsigned long long)sent->number);
        world->failed++;
        if (sent->state == WRITE_IN_FLIGHT)
            sent->state = WRITE_MAYBE;
    }
    storage_write_free(write);
    free(pending);
}

/* The label bytes of a series; now and then in another order, which must be the same series. */
static void labels_append(struct world *world, uint32_t series) {
    struct buf *buf = &world->labels;
    char number[16], metric[16];
    snprintf(number, sizeof number, "%u", series);
    snprintf(metric, sizeof metric, "m%u", series % 7);
    bool shuffled = rand_below(&world->rand, 16) == 0;
    if (shuffled)
        label_bytes_append(buf, slice_str("i"), slice_str(number));
    label_bytes_append(buf, slice_str("__name__"), slice_str(metric));
    if (!shuffled)
        label_bytes_append(buf, slice_str("i"), slice_str(number));
    if (series % 3 == 0)
        label_bytes_append(buf,
                           slice_str("stra\xc3\x9f"
                                     "e"),
                           slice_str(series % 2 ? "\xf0\x9f\x8c\x8a tide" : "ebb"));
    if (series % 5 == 0) {
        static const char long_value[] =
            "a-rather-long-label-value-that-takes-room-in-the-log-and-in-frames-";
        label_bytes_append(buf, slice_str("zone"), slice_str(long_value));
    }
}

bool world_send(struct world *world, struct sent_sample *samples, size_t count) {
    struct write_batch batch = {.series = calloc(count + 1, sizeof *batch.series),
                                .samples = calloc(count + 1, sizeof *batch.samples),
                                .starts_ms = calloc(count + 1, sizeof *batch.starts_ms),
                                .series_count = count,
                                .sample_count = count};
    size_t *ends = calloc(count + 1, sizeof *ends);
    struct pending *pending = calloc(1, sizeof *pending);
    ASSERT(batch.series != NULL && batch.samples != NULL && batch.starts_ms != NULL && ends != NULL &&
           pending != NULL);
    int64_t future_ms = world_now_ms(world) + (int64_t)world->limits.future_ms_max;
    struct buf *labels = &world->labels;
    if (metric_get(METRIC_wal_writable) != 0)
        model_bury(&world->model);
    buf_clear(labels);
    size_t kept = 0;
    bool starts = false;
    for (size_t i = 0; i < count; i++) {
        labels_append(world, samples[i].series);
        ends[i] = labels->len;
        batch.samples[i] = samples[i].sample;
        batch.starts_ms[i] = samples[i].start_ms;
        starts |= samples[i].start_ms != START_NONE;
        batch.series[i] = (struct batch_series){.sample_first = (uint32_t)i, .sample_count = 1};
        /* What is too far ahead is refused before the log: the model need not know it. */
        if (samples[i].sample.time_ms > future_ms)
            pending->future++;
        else
            samples[kept++] = samples[i];
    }
    ASSERT(labels->len < LABELS_BYTES);
    for (size_t i = 0; i < count; i++) {
        size_t begin = i == 0 ? 0 : ends[i - 1];
        batch.series[i].labels = slice_of(labels->data + begin, ends[i] - begin);
    }
    int64_t *starts_ms = batch.starts_ms;
    if (!starts)
        batch.starts_ms = NULL;

    struct storage_write *write;
    struct error_detail detail = {0};
    if ((world->faults & FAULT_MEMORY) && rand_below(&world->rand, 8) == 0)
        mem_fault_set(1 + rand_below(&world->rand, 40), 0);
    int status = storage_write_prepare(world->storage, &batch, &detail, &write);
    pending->world = world;
    pending->write = model_send(&world->model, samples, kept);
    world_note(world, "send %llu %zu samples = %s", (unsigned long long)pending->write->number, kept,
               status_name(status));
    if (status == STATUS_OK) {
        world->in_flight++;
        storage_write_submit(world->storage, write, on_done, pending);
    } else {
        if ((!(world->faults & FAULT_MEMORY) && !world->armed) || status != STATUS_NO_MEMORY)
            world_fail(world, "storage_write_prepare: %s", detail.text);
        pending->write->state = WRITE_DEAD;
        free(pending);
    }
    free(batch.series);
    free(batch.samples);
    free(starts_ms);
    free(ends);
    return status == STATUS_OK;
}

/* ---- deleting ---- */

bool world_delete(struct world *world, struct model_delete what) {
    char text[16];
    snprintf(text, sizeof text, what.modulus == 0 ? "%u" : "m%u", what.rest);
    const struct matcher matcher = {.kind = what.others ? MATCHER_NOT_EQUAL : MATCHER_EQUAL,
                                    .name = slice_str(what.modulus == 0 ? "i" : "__name__"),
                                    .value = slice_str(text)};
    const struct delete_selector selector = {&matcher, 1};
    struct pending *pending = calloc(1, sizeof *pending);
    ASSERT(pending != NULL);
    if (metric_get(METRIC_wal_writable) != 0)
        model_bury(&world->model);
    if ((world->faults & FAULT_MEMORY) && rand_below(&world->rand, 8) == 0)
        mem_fault_set(1 + rand_below(&world->rand, 40), 0);
    struct storage_write *write;
    struct error_detail detail = {0};
    int status = storage_delete_prepare(world->storage, &selector, 1, what.time_min_ms, what.time_max_ms,
                                        &detail, &write);
    pending->world = world;
    pending->write = model_send_delete(&world->model, what);
    world_note(world, "delete %llu = %s", (unsigned long long)pending->write->number, status_name(status));
    if (status == STATUS_OK) {
        world->in_flight++;
        world->deletes++;
        storage_write_submit(world->storage, write, on_done, pending);
        return true;
    }
    bool memory = status == STATUS_NO_MEMORY && ((world->faults & FAULT_MEMORY) || world->armed);
    if (!memory && status != STATUS_BUSY)
        world_fail(world, "storage_delete_prepare: %s", detail.text);
    pending->write->state = WRITE_DEAD;
    free(pending);
    return false;
}

static void on_clean(void *context, int status) {
    struct world *world = context;
    world_note(world, "cleaned %s", status_name(status));
    world->cleans--;
}

void world_clean(struct world *world) {
    if (storage_deletes_clean(world->storage, on_clean, world) == STATUS_OK)
        world->cleans++;
}

/* ---- running ---- */

void world_run(struct world *world, uint64_t ns) {
    uint64_t end_ns = io_sim_now_ns(world->io) + ns;
    while (io_sim_now_ns(world->io) < end_ns && !io_sim_ended(world->io)) {
        bool worked = storage_step(world->storage, world_now_ms(world));
        if (!io_sim_ended(world->io))
            worked |= storage_maintain(world->storage, world_now_ms(world));
        if (!worked) {
            /* as the thread would: wait for a completion, or for something to do */
            uint64_t left_ns = end_ns - io_sim_now_ns(world->io);
            if (io_in_flight(world->io) > 0)
                (void)io_poll(world->io, 1 + (int)(left_ns / 1000000 < 100 ? left_ns / 1000000 : 100));
            else
                io_sim_advance_ns(world->io, left_ns < 10000000 ? left_ns : 10000000);
        }
    }
}

void world_drain(struct world *world) {
    uint64_t end_ns = io_sim_now_ns(world->io) + UINT64_C(60000000000);
    while (world->in_flight > 0 && !io_sim_ended(world->io)) {
        if (io_sim_now_ns(world->io) > end_ns)
            world_fail(world, "%u requests are not answered after 60 s", world->in_flight);
        world_run(world, 10000000);
    }
}

void world_check_alive(struct world *world) {
    faults_apply(world, true);
    uint64_t end_ns = io_sim_now_ns(world->io) + UINT64_C(30000000000);
    world_drain(world);
    for (;;) {
        uint64_t acknowledged = world->acknowledged;
        struct sent_sample *sample = calloc(1, sizeof *sample);
        ASSERT(sample != NULL);
        world->scrape_ms++;
        *sample = (struct sent_sample){.sample = {world->scrape_ms, double_bits(1)}};
        bool too_far = sample->sample.time_ms > world_now_ms(world) + (int64_t)world->limits.future_ms_max;
        world_send(world, sample, 1);
        world_drain(world);
        if (world->acknowledged > acknowledged && !too_far)
            break;
        if (io_sim_now_ns(world->io) > end_ns && !too_far)
            world_fail(world, "no write is acknowledged 30 s after all faults ended");
        if (too_far)
            break; /* the clock went back: nothing new can be stored, and that was answered */
        world_run(world, 100000000);
    }
    faults_apply(world, false);
}
