/* database.c: see database.h. */
#include "tests/flip/database.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/array.h"
#include "base/bytes.h"
#include "base/metrics.h"
#include "base/rand.h"
#include "storage/io/io_sim.h"

#define WINDOW_MS INT64_C(600000)
#define STEP_MS   INT64_C(4000)
#define REQUEST   15 /* steps */
#define WINDOWS   8

static void truth_put(struct database *db, int series, struct sample sample) {
    struct truth *truths =
        array_ensure(db->truths[series], &db->capacities[series], db->counts[series] + 1, sizeof *truths);
    assert_non_null(truths);
    size_t at = db->counts[series]++;
    for (; at > 0 && truths[at - 1].sample.time_ms > sample.time_ms; at--)
        truths[at] = truths[at - 1];
    truths[at] = (struct truth){sample, false};
    db->truths[series] = truths;
}

static void maintain(struct database *db) {
    struct fixture *f = &db->f;
    for (int idle = 0; idle < 3;) {
        bool worked = storage_maintain(f->storage, f->now_ms);
        worked |= storage_step(f->storage, f->now_ms);
        idle = worked ? 0 : idle + 1;
    }
}

/* Values as of a counter, a gauge, a random one, and ones that hardly change. */
static uint64_t value_of(struct rand *rand, int series, int64_t time_ms) {
    switch (series) {
    case 0:
        return double_bits((double)(time_ms / 1000 % 100000));
    case 1:
        return double_bits((double)rand_below(rand, 1000) / 8);
    case 2:
        return rand_u64(rand);
    default:
        return double_bits((double)(time_ms / 60000 % 7));
    }
}

static void request(struct database *db, struct rand *rand) {
    struct batch *b = batch_new();
    for (int step = 0; step < REQUEST; step++, db->f.now_ms += STEP_MS)
        for (int series = 0; series < DATABASE_SERIES; series++) {
            struct sample sample = {db->f.now_ms, value_of(rand, series, db->f.now_ms)};
            batch_add(b, series, sample.time_ms, sample.value_bits);
            truth_put(db, series, sample);
        }
    struct storage_write_result result = batch_write(&db->f, b);
    assert_int_equal(result.status, STATUS_OK);
    assert_int_equal(result.samples_stored, REQUEST * DATABASE_SERIES);
    maintain(db);
}

static void late(struct database *db, int series, int64_t age_ms) {
    struct sample sample = {db->f.now_ms - age_ms - 1, double_bits(-1.5)};
    assert_int_equal(write_one(&db->f, series, sample.time_ms, sample.value_bits).samples_stored, 1);
    truth_put(db, series, sample);
}

static void delete_done(void *context, struct storage_write *write) {
    assert_int_equal(storage_write_result(write)->status, STATUS_OK);
    storage_write_free(write);
    *(bool *)context = true;
}

static void delete_some(struct database *db, int series, int64_t from_ms, int64_t to_ms) {
    char value[16];
    snprintf(value, sizeof value, "%d", series);
    const struct matcher matcher = {.kind = MATCHER_EQUAL, .name = slice_str("i"), .value = slice_str(value)};
    const struct delete_selector selector = {&matcher, 1};
    struct storage_write *write;
    struct error_detail detail = {{0}};
    bool done = false;
    assert_int_equal(storage_delete_prepare(db->f.storage, &selector, 1, from_ms, to_ms, &detail, &write),
                     STATUS_OK);
    storage_write_submit(db->f.storage, write, delete_done, &done);
    while (!done)
        if (!storage_step(db->f.storage, db->f.now_ms))
            storage_wait(db->f.storage, 10);
    for (size_t i = 0; i < db->counts[series]; i++) {
        struct truth *truth = &db->truths[series][i];
        truth->deleted |= truth->sample.time_ms >= from_ms && truth->sample.time_ms <= to_ms;
    }
}

static void fill(struct database *db) {
    struct rand rand;
    rand_init(&rand, 1);
    int64_t begin_ms = db->f.now_ms, end_ms = begin_ms + WINDOWS * WINDOW_MS;
    while (db->f.now_ms < end_ms) {
        request(db, &rand);
        if (db->f.now_ms == begin_ms + 4 * WINDOW_MS) {
            late(db, 1, 2 * WINDOW_MS);
            late(db, 3, 2 * WINDOW_MS + 5);
        }
    }
    /* The last window but one is in the head still. */
    delete_some(db, 0, begin_ms + WINDOW_MS / 2, begin_ms + WINDOW_MS);
    delete_some(db, 2, begin_ms + 6 * WINDOW_MS + 1000, begin_ms + 6 * WINDOW_MS + 90000);
    delete_some(db, 1, db->f.now_ms - 300000, db->f.now_ms - 250000);
    late(db, 0, 31000);
    late(db, 3, 61000);
    for (int i = 0; i < 6; i++)
        request(db, &rand);
    db->again_ms = begin_ms + 2 * WINDOW_MS + 100001;
    delete_some(db, DATABASE_AGAIN, db->again_ms - 100001, db->again_ms + 100000);
    late(db, 2, 45000);
    late(db, 2, 3 * WINDOW_MS);
}

void database_make(struct database *db) {
    struct fixture *f = &db->f;
    memset(db, 0, sizeof *db);
    assert_int_equal(io_sim_open(1, &f->io), STATUS_OK);
    f->io_maintain = NULL;
    limits_init(&f->limits);
    f->limits.log_group_bytes_max = 24 << 10;
    f->limits.log_segment_bytes = 64 << 10;
    f->limits.window_ms = (uint64_t)WINDOW_MS;
    f->limits.window_grace_ms = (uint64_t)WINDOW_MS * 9 / 10;
    f->limits.late_ms_max = 1000;
    f->limits.retention_ms = 0;
    f->limits.snapshot_samples_max = 700;
    f->limits.scrub_pass_ms = UINT64_C(1) << 40;
    snprintf(f->dir, sizeof f->dir, DATABASE_DIR);
    f->now_ms = INT64_C(1700000000000) / (27 * WINDOW_MS) * 27 * WINDOW_MS;
    fixture_open_storage(f);
    fill(db);
    struct arena arena;
    struct storage_block_info *blocks;
    size_t count, late_blocks = 0, merged = 0, hidden = 0;
    arena_init(&arena, 0, 0);
    assert_int_equal(storage_blocks(f->storage, &arena, &blocks, &count), STATUS_OK);
    for (size_t i = 0; i < count; i++) {
        merged += blocks[i].level > 1;
        late_blocks += blocks[i].samples < 10;
        hidden += blocks[i].deletes > 0;
    }
    arena_release(&arena);
    printf("%zu blocks, %zu merged, %zu of late samples, %zu with deletes that wait; %" PRIu64 " snapshots\n",
           count, merged, late_blocks, hidden, metric_get(METRIC_snapshots));
    storage_close(f->storage);
    f->storage = NULL;
    for (int series = 0; series < DATABASE_SERIES; series++)
        for (size_t i = 0; i < db->counts[series]; i++)
            db->visible += !db->truths[series][i].deleted;
}

#define WRITTEN_BITS UINT64_C(0x4014cccccccccccd)

void database_write(struct database *db) {
    struct batch *b = batch_new();
    for (int series = 0; series < DATABASE_SERIES; series++)
        batch_add(b, series, db->f.now_ms, WRITTEN_BITS);
    batch_add(b, DATABASE_AGAIN, db->again_ms, WRITTEN_BITS);
    struct storage_write_result result = batch_write(&db->f, b);
    assert_int_equal(result.status, STATUS_OK);
    assert_int_equal(result.samples_stored, DATABASE_WRITTEN);
}

void database_release(struct database *db) {
    io_close(db->f.io);
    for (int series = 0; series < DATABASE_SERIES; series++)
        mem_free(db->truths[series]);
}

/* ---- what is true ---- */

static void wrong(struct verdict *verdict, const char *what, int series, int64_t time_ms) {
    if (verdict->wrong++ == 0)
        snprintf(verdict->text, sizeof verdict->text, "%s: series %d, time %" PRId64, what, series, time_ms);
}

static void series_check(const struct database *db, int series, const struct sample_columns *columns,
                         struct verdict *verdict) {
    const struct truth *truth = db->truths[series], *end = truth + db->counts[series];
    for (size_t i = 0; i < columns->count; i++) {
        int64_t time_ms = columns->times_ms[i];
        if (double_bits(columns->values[i]) == WRITTEN_BITS &&
            (time_ms == db->f.now_ms || (series == DATABASE_AGAIN && time_ms == db->again_ms))) {
            verdict->written++;
            continue;
        }
        if (i > 0 && columns->times_ms[i - 1] >= time_ms) {
            wrong(verdict, "out of order", series, time_ms);
            continue;
        }
        while (truth < end && truth->sample.time_ms < time_ms)
            truth++;
        if (truth == end || truth->sample.time_ms != time_ms)
            wrong(verdict, "never sent", series, time_ms);
        else if (truth->sample.value_bits != double_bits(columns->values[i]))
            wrong(verdict, "of another value", series, time_ms);
        else if (truth->deleted)
            verdict->deleted++;
        else
            verdict->found++;
    }
}

/* Which series of ours; -1: none. */
static int series_of(struct storage_selection *selection, size_t index) {
    struct label labels[STORAGE_LABELS_MAX];
    size_t count = selection_labels(selection, index, labels);
    if (count != 2 || !slice_equal(labels[0].name, slice_str("__name__")) ||
        !slice_equal(labels[0].value, slice_str("m")) || !slice_equal(labels[1].name, slice_str("i")) ||
        labels[1].value.len != 1 || labels[1].value.data[0] < '0' ||
        labels[1].value.data[0] >= '0' + DATABASE_SERIES)
        return -1;
    return labels[1].value.data[0] - '0';
}

void database_check(struct database *db, struct storage *storage, struct verdict *verdict) {
    struct storage_selection *selection;
    struct sample_columns columns = {0};
    bool seen[DATABASE_SERIES] = {false};
    *verdict = (struct verdict){0};
    if (storage_select(storage, NULL, 0, INT64_MIN, INT64_MAX, 0, &selection) != STATUS_OK) {
        wrong(verdict, "nothing can be selected", 0, 0);
        return;
    }
    for (size_t i = 0; i < selection_series_count(selection); i++) {
        int series = series_of(selection, i);
        columns.count = 0;
        if (series < 0 || seen[series]) {
            wrong(verdict, series < 0 ? "a series of nobody" : "a series twice", series, 0);
            continue;
        }
        seen[series] = true;
        int status = selection_read(selection, i, INT64_MIN, INT64_MAX, &columns);
        if (status == STATUS_CORRUPT)
            verdict->damaged++;
        else if (status < 0)
            wrong(verdict, "it can't be read", series, 0);
        else
            series_check(db, series, &columns, verdict);
    }
    verdict->damaged += selection_damaged(selection);
    selection_close(selection);
    sample_columns_release(&columns);
}
