/* test_maintain.c: windows become blocks and back again in answers: cutting, late samples, restarts,
 * retention, damage, and all of it with the threads of the real server. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/metrics.h"
#include "base/rand.h"
#include "tests/unit/storage/storage_fixture.h"

#define WINDOW_MS INT64_C(60000)
#define SERIES    50
#define SAMPLES   2000

static struct sample model[SERIES][SAMPLES];
static size_t counts[SERIES];

static void open_small(struct fixture *f) {
    fixture_open(f, IO_BACKEND_SYSCALL);
    storage_close(f->storage);
    f->limits.window_ms = (uint64_t)WINDOW_MS;
    f->limits.window_grace_ms = 5000;
    f->limits.late_ms_max = 20000;
    f->limits.retention_ms = 0;
    f->limits.block_range_ms_max = (uint64_t)WINDOW_MS; /* blocks are merged in test_storage_compact */
    f->now_ms -= f->now_ms % WINDOW_MS;
    fixture_open_storage(f);
    metrics_reset();
    memset(counts, 0, sizeof counts);
}

static void model_put(int series, struct sample sample) {
    size_t at = counts[series]++;
    assert_true(counts[series] <= SAMPLES);
    for (; at > 0 && model[series][at - 1].time_ms > sample.time_ms; at--)
        model[series][at] = model[series][at - 1];
    model[series][at] = sample;
}

/* One sample of every series, at now. */
static void scrape(struct fixture *f, struct rand *rand) {
    struct batch *b = batch_new();
    for (int series = 0; series < SERIES; series++) {
        struct sample sample = {f->now_ms + series % 3, double_bits((double)rand_below(rand, 1000) / 8)};
        batch_add(b, series, sample.time_ms, sample.value_bits);
        model_put(series, sample);
    }
    assert_int_equal(batch_write(f, b).samples_stored, SERIES);
}

static void check(struct fixture *f) {
    for (int series = 0; series < SERIES; series++)
        series_expect(f, series, model[series], counts[series]);
}

/* Scrapes over many windows: what is over is in blocks and gone from the head, the log does not grow, and
 * nothing of this shows in answers, before or after a restart. */
static void test_cut(void **state) {
    (void)state;
    struct fixture f;
    struct rand rand;
    rand_init(&rand, 1);
    open_small(&f);
    size_t segments_max = 0;
    for (int round = 0; round < 200; round++) {
        scrape(&f, &rand);
        f.now_ms += 3000;
        fixture_maintain(&f);
        if (round % 50 == 20)
            check(&f);
        if (round == 120) {
            fixture_reopen(&f);
            check(&f);
        }
        size_t segments = fixture_entries(&f, "wal");
        if (segments > segments_max)
            segments_max = segments;
    }
    struct storage_status status;
    storage_status(f.storage, &status);
    assert_true(status.blocks >= 8 && status.blocks <= 10); /* of ten windows, the last may not be over */
    assert_int_equal(fixture_entries(&f, "blocks"), status.blocks);
    assert_int_equal(metric_get(METRIC_blocks_cut), status.blocks);
    assert_true(segments_max <= 5);
    assert_true(status.time_min_ms == model[0][0].time_ms);
    check(&f);

    /* Series that are only in blocks: the head forgot them at the start after the log was cut. */
    f.now_ms += 10 * WINDOW_MS;
    assert_int_equal(write_one(&f, SERIES + 1, f.now_ms, double_bits(1)).status, STATUS_OK);
    fixture_maintain(&f);
    for (int i = 0; i < 3; i++) /* the log moves on to a new segment at each start, and may then be cut */
        fixture_reopen(&f);
    f.now_ms += 2 * WINDOW_MS;
    fixture_maintain(&f);
    fixture_reopen(&f);
    check(&f);
    struct arena arena;
    arena_init(&arena, 0, 0);
    struct slice *values;
    size_t count;
    bool truncated;
    assert_int_equal(storage_label_values(f.storage, slice_str("i"), NULL, 0, INT64_MIN, INT64_MAX, 0, &arena,
                                          &values, &count, &truncated),
                     STATUS_OK);
    assert_int_equal(count, SERIES + 1);
    assert_int_equal(
        storage_label_names(f.storage, NULL, 0, INT64_MIN, INT64_MAX, 0, &arena, &values, &count, &truncated),
        STATUS_OK);
    assert_int_equal(count, 2);
    arena_release(&arena);
    /* and when one comes back it is the same series */
    struct sample again = {f.now_ms, double_bits(5)};
    assert_int_equal(write_one(&f, 7, again.time_ms, again.value_bits).samples_stored, 1);
    model_put(7, again);
    check(&f);
    fixture_close(&f);
}

/* Late samples into windows that are open, cut, and long gone; repetitions and conflicts of what is in a
 * block. */
static void test_late(void **state) {
    (void)state;
    struct fixture f;
    struct rand rand;
    rand_init(&rand, 2);
    open_small(&f);
    const int64_t begin_ms = f.now_ms;
    for (int round = 0; round < 100; round++) {
        scrape(&f, &rand);
        f.now_ms += 3000;
        fixture_maintain(&f);
        for (int i = 0; i < 5; i++) {
            int series = (int)rand_below(&rand, SERIES);
            int64_t age_ms = (int64_t)rand_below(&rand, 4) == 0 ? 400 * WINDOW_MS : f.now_ms - begin_ms;
            /* times of scrapes are 0, 1, 2 ms behind full seconds */
            struct sample sample = {f.now_ms - (int64_t)rand_below(&rand, (uint64_t)age_ms) / 1000 * 1000 +
                                        500,
                                    double_bits((double)round)};
            bool known = false;
            for (size_t j = 0; j < counts[series]; j++)
                known |= model[series][j].time_ms == sample.time_ms;
            if (known)
                continue;
            struct storage_write_result result = write_one(&f, series, sample.time_ms, sample.value_bits);
            assert_int_equal(result.samples_stored, 1);
            model_put(series, sample);
        }
        if (round % 30 == 10)
            fixture_reopen(&f);
        if (round % 10 == 0)
            check(&f);
    }
    f.now_ms += 3 * WINDOW_MS;
    fixture_maintain(&f);
    assert_true(metric_get(METRIC_blocks_late) > 5);
    check(&f);
    /* A repetition of what is in a block is acknowledged and changes nothing; so does a conflict there, which
     * nobody can tell without reading the block: the first one counts. */
    for (int i = 0; i < 50; i++) {
        int series = (int)rand_below(&rand, SERIES);
        struct sample sample = model[series][rand_below(&rand, counts[series])];
        if (i % 2)
            sample.value_bits ^= 1;
        struct storage_write_result result = write_one(&f, series, sample.time_ms, sample.value_bits);
        assert_int_equal(result.status, STATUS_OK);
        assert_int_equal(result.samples_refused, 0);
    }
    check(&f);
    fixture_reopen(&f);
    check(&f);
    f.now_ms += WINDOW_MS;
    fixture_maintain(&f);
    check(&f);
    fixture_close(&f);
}

/* A year of old data in one go: few blocks, in bounded memory. */
static void test_backfill(void **state) {
    (void)state;
    struct fixture f;
    open_small(&f);
    f.limits.late_bytes_max = 64 << 10;
    assert_int_equal(write_one(&f, 0, f.now_ms, double_bits(0)).status, STATUS_OK);
    f.now_ms += 2 * WINDOW_MS;
    fixture_maintain(&f);
    model_put(0, (struct sample){f.now_ms - 2 * WINDOW_MS, double_bits(0)});
    uint64_t bytes_max = 0;
    const int64_t step_ms = 600 * WINDOW_MS, begin_ms = f.now_ms - 1000 * step_ms;
    for (int64_t i = 0; i < 800; i++) {
        struct batch *b = batch_new();
        for (int series = 0; series < SERIES; series++) {
            struct sample sample = {begin_ms + i * step_ms, double_bits((double)i)};
            batch_add(b, series, sample.time_ms, sample.value_bits);
            model_put(series, sample);
        }
        assert_int_equal(batch_write(&f, b).samples_stored, SERIES);
        fixture_maintain(&f);
        struct storage_status status;
        storage_status(f.storage, &status);
        if (status.memory_late_bytes > bytes_max)
            bytes_max = status.memory_late_bytes;
    }
    struct storage_status status;
    storage_status(f.storage, &status);
    assert_true(bytes_max < 4 * (64 << 10));
    assert_true(status.blocks < 120);
    check(&f);
    fixture_reopen(&f);
    check(&f);
    fixture_close(&f);
}

/* One sample of every series at that time: STATUS_OK or prepare's status. */
static int write_at(struct fixture *f, int64_t time_ms) {
    struct batch *b = batch_new();
    struct error_detail detail = {0};
    struct storage_write *write;
    for (int series = 0; series < SERIES; series++)
        batch_add(b, series, time_ms, double_bits(1));
    int status = storage_write_prepare(f->storage, &b->batch, &detail, &write);
    if (status == STATUS_OK) {
        storage_write_free(write);
        assert_int_equal(batch_write(f, b).samples_stored, SERIES);
        for (int series = 0; series < SERIES; series++)
            model_put(series, (struct sample){time_ms, double_bits(1)});
        return status;
    }
    assert_non_null(strstr(detail.text, "late samples hold"));
    batch_free(b);
    return status;
}

/* Blocks are not written as fast as late samples come: those who send them wait, others do not. */
static void test_late_held(void **state) {
    (void)state;
    struct fixture f;
    open_small(&f);
    f.limits.late_held_bytes_max = 256 << 10;
    f.limits.late_bytes_max = 128 << 10;
    int64_t begin_ms = f.now_ms - 20 * WINDOW_MS, late = 0, older;
    assert_int_equal(write_at(&f, f.now_ms), STATUS_OK);
    f.now_ms += 2 * WINDOW_MS;
    fixture_maintain(&f);
    struct storage_status status;
    while (write_at(&f, begin_ms + late) == STATUS_OK) {
        late++;
        assert_true(late < SAMPLES / 2);
        storage_status(f.storage, &status);
        assert_true(status.memory_late_bytes < 512 << 10); /* runs double */
    }
    assert_true(late > 50);
    assert_int_equal(metric_get(METRIC_writes_refused_late), 1);
    /* New ones, and the newest once more; but none that is late in the window that goes on. */
    assert_int_equal(write_at(&f, f.now_ms), STATUS_OK);
    struct batch *b = batch_new();
    batch_add(b, 3, f.now_ms, double_bits(1));
    assert_int_equal(batch_write(&f, b).samples_equal, 1);
    older = f.now_ms - 1;
    assert_int_equal(write_at(&f, older), STATUS_BUSY);
    check(&f);
    /* A block later they are taken. */
    fixture_maintain(&f);
    assert_int_equal(write_at(&f, begin_ms + late), STATUS_OK);
    assert_int_equal(write_at(&f, older), STATUS_OK);
    check(&f);
    fixture_reopen(&f);
    check(&f);
    fixture_close(&f);
}

/* By time and by size; a clock that jumps ahead drops nothing; what is dropped is gone from the disk, and
 * what a selection holds is not. */
static void test_retention(void **state) {
    (void)state;
    struct fixture f;
    struct rand rand;
    rand_init(&rand, 3);
    open_small(&f);
    for (int round = 0; round < 200; round++) {
        scrape(&f, &rand);
        f.now_ms += 3000;
        fixture_maintain(&f);
    }
    struct storage_status status;
    storage_status(f.storage, &status);
    uint64_t blocks = status.blocks;
    assert_true(blocks >= 8);

    const int64_t now_ms = f.now_ms;
    f.limits.retention_ms = (uint64_t)(5 * WINDOW_MS);
    f.now_ms += INT64_C(10) * 365 * 86400000; /* years ahead */
    struct storage_selection *selection;
    assert_int_equal(storage_select(f.storage, NULL, 0, INT64_MIN, INT64_MAX, 0, &selection), STATUS_OK);
    fixture_maintain(&f);
    storage_status(f.storage, &status);
    f.now_ms = now_ms;
    int64_t newest_ms = model[0][counts[0] - 1].time_ms;
    assert_true(status.time_min_ms <= newest_ms - 4 * WINDOW_MS); /* what retention keeps is kept */
    assert_true(status.time_min_ms >= newest_ms - 7 * WINDOW_MS);
    /* the selection sees what it saw */
    assert_int_equal(selection_series_count(selection), SERIES);
    struct sample_columns columns = {0};
    for (size_t i = 0; i < SERIES; i++) {
        columns.count = 0;
        assert_int_equal(selection_read(selection, i, INT64_MIN, INT64_MAX, &columns), STATUS_OK);
        assert_int_equal(columns.count, counts[0]);
    }
    sample_columns_release(&columns);
    size_t held = fixture_entries(&f, "blocks");
    selection_close(selection);
    fixture_maintain(&f);
    storage_status(f.storage, &status);
    assert_true(fixture_entries(&f, "blocks") < held);
    assert_int_equal(fixture_entries(&f, "blocks"), status.blocks);
    assert_int_equal(write_one(&f, 1, newest_ms - 6 * WINDOW_MS, 1).samples_refused, 1);

    f.limits.retention_ms = 0;
    f.limits.retention_bytes = status.block_bytes / 2;
    fixture_maintain(&f);
    storage_status(f.storage, &status);
    assert_true(status.block_bytes <= f.limits.retention_bytes);
    assert_true(status.blocks > 0);
    fixture_reopen(&f);
    fixture_close(&f);
}

/* A block whose files are damaged or gone: the others are served, and it is told. */
static void test_damage(void **state) {
    (void)state;
    struct fixture f;
    struct rand rand;
    rand_init(&rand, 4);
    open_small(&f);
    for (int round = 0; round < 100; round++) {
        scrape(&f, &rand);
        f.now_ms += 3000;
        fixture_maintain(&f);
    }
    storage_close(f.storage);
    char path[128];
    snprintf(path, sizeof path, "%s/blocks/%016x/chunks", f.dir, 1);
    FILE *file = fopen(path, "r+");
    assert_non_null(file);
    fseek(file, 3000, SEEK_SET);
    for (int i = 0; i < 200; i++) /* more than a run's labels, less than two runs */
        fputc('x', file);
    fclose(file);
    snprintf(path, sizeof path, "%s/blocks/%016x/index.mdb", f.dir, 2);
    assert_int_equal(unlink(path), 0);
    fixture_open_storage(&f);
    size_t missing = 0;
    struct storage_selection *selection;
    assert_int_equal(storage_select(f.storage, NULL, 0, INT64_MIN, INT64_MAX, 0, &selection), STATUS_OK);
    assert_int_equal(selection_series_count(selection), SERIES);
    struct sample_columns columns = {0};
    for (size_t i = 0; i < SERIES; i++) {
        columns.count = 0;
        assert_int_equal(selection_read(selection, i, INT64_MIN, INT64_MAX, &columns), STATUS_OK);
        missing += counts[0] - columns.count;
    }
    assert_true(missing > 0 && missing <= 60); /* a chunk or two, of 20 samples each */
    assert_true(selection_damaged(selection) > 0);
    sample_columns_release(&columns);
    selection_close(selection);
    /* without a manifest nothing says which blocks count */
    storage_close(f.storage);
    snprintf(path, sizeof path, "%s/manifest", f.dir);
    assert_int_equal(unlink(path), 0);
    const struct storage_options options = {
        .dir = f.dir, .io = f.io, .clock = &fixture_clock, .limits = &f.limits, .seed = 1};
    struct error_detail detail = {0};
    assert_int_equal(storage_open(&options, &detail, &f.storage), STATUS_CORRUPT);
    assert_non_null(strstr(detail.text, "manifest"));
    f.storage = NULL;
    fixture_close(&f);
}

/* The real threads: a writer of scrapes and of late samples, readers that compare, one who deletes and lets
 * blocks be cleaned, one who asks how it all is; windows of a tenth of a second, merged, with snapshots. */

struct shared {
    struct fixture *f;
    _Atomic int64_t written_ms; /* of series 0: all multiples of 10 up to here were acknowledged */
    _Atomic int64_t deleted_ms; /* of series 11, which is deleted over and over: nothing up to here is left */
    _Atomic unsigned cleaned;
    _Atomic bool stop;
    _Atomic unsigned reads;
};

/* How many samples there are of one series up to a time; all of them are at multiples of 10. SIZE_MAX: it
 * failed. */
static size_t samples_until(struct fixture *f, const char *series, int64_t time_max_ms,
                            struct sample_columns *columns) {
    const struct matcher matcher = {
        .kind = MATCHER_EQUAL, .name = slice_str("i"), .value = slice_str(series)};
    struct storage_selection *selection;
    columns->count = 0;
    if (storage_select(f->storage, &matcher, 1, 0, time_max_ms, 0, &selection) != STATUS_OK)
        return SIZE_MAX;
    bool failed = selection_series_count(selection) > 1 ||
                  (selection_series_count(selection) == 1 &&
                   selection_read(selection, 0, 0, time_max_ms, columns) != STATUS_OK);
    selection_close(selection);
    return failed ? SIZE_MAX : columns->count;
}

static void *reader_run(void *context) {
    struct shared *shared = context;
    struct sample_columns columns = {0};
    while (!shared->stop) {
        int64_t written_ms = shared->written_ms, deleted_ms = shared->deleted_ms;
        if (samples_until(shared->f, "0", written_ms, &columns) != (size_t)(written_ms / 10))
            return (void *)1;
        for (size_t i = 0; i < columns.count; i++)
            if (columns.times_ms[i] != (int64_t)(i + 1) * 10)
                return (void *)1;
        if (samples_until(shared->f, "11", deleted_ms, &columns) != 0)
            return (void *)1;
        shared->reads++;
    }
    sample_columns_release(&columns);
    return NULL;
}

static void cleaned(void *context, int status) {
    struct shared *shared = context;
    shared->cleaned += status == STATUS_OK;
}

static void *deleter_run(void *context) {
    struct shared *shared = context;
    for (unsigned i = 0; !shared->stop; i++) {
        /* All there is of series 11; or one sample of series 13, which a block has by then, sooner or later.
         */
        bool all = i % 2 == 0;
        const struct matcher matcher = {
            .kind = MATCHER_EQUAL, .name = slice_str("i"), .value = slice_str(all ? "11" : "13")};
        const struct delete_selector selector = {&matcher, 1};
        int64_t written_ms = shared->written_ms, one_ms = 10 * (1 + i * 37 % 300);
        unsigned before = shared->cleaned;
        struct outcome outcome;
        int status =
            delete_submit(shared->f, &selector, 1, all ? 0 : one_ms, all ? written_ms : one_ms, &outcome);
        if (status != STATUS_OK && status != STATUS_BUSY)
            return (void *)1;
        while (status == STATUS_OK && !outcome.done)
            usleep(100);
        if (status == STATUS_OK && outcome.result.status != STATUS_OK)
            return (void *)1;
        if (status == STATUS_OK && all)
            shared->deleted_ms = written_ms;
        usleep(20000);
        if (i % 4 != 3)
            continue;
        if (storage_deletes_clean(shared->f->storage, cleaned, shared) != STATUS_OK)
            return (void *)1;
        while (!shared->stop && shared->cleaned == before)
            usleep(1000);
    }
    return NULL;
}

static void *asker_run(void *context) {
    struct shared *shared = context;
    while (!shared->stop) {
        struct storage_status status;
        struct storage_memory memory;
        struct storage_cardinality cardinality;
        struct arena arena;
        arena_init(&arena, 0, 0);
        storage_status(shared->f->storage, &status);
        storage_memory(shared->f->storage, &memory);
        if (storage_cardinality(shared->f->storage, 5, &arena, &cardinality) != STATUS_OK)
            return (void *)1;
        arena_release(&arena);
        usleep(2000);
    }
    return NULL;
}

static bool all_happened(const struct shared *shared) {
    return metric_get(METRIC_blocks_cut) >= 5 && metric_get(METRIC_blocks_late) > 0 &&
           metric_get(METRIC_snapshots) >= 3 && metric_get(METRIC_compactions) > 0 &&
           metric_get(METRIC_blocks_cleaned) > 0 && shared->cleaned > 0;
}

/* With the storage's own threads. */
static void batch_wait(struct fixture *f, struct batch *b) {
    struct outcome outcome;
    batch_submit(f, b, &outcome);
    while (!outcome.done)
        usleep(100);
    batch_free(b);
    assert_int_equal(outcome.result.status, STATUS_OK);
}

static void test_threads(void **state) {
    (void)state;
    struct fixture f;
    open_small(&f);
    storage_close(f.storage);
    f.limits.window_ms = 100;
    f.limits.window_grace_ms = 50;
    f.limits.late_ms_max = 30;
    f.limits.block_range_ms_max = 900;
    f.limits.snapshot_samples_max = 500;
    f.limits.log_group_bytes_max = 16 << 10;
    f.limits.log_segment_bytes = 64 << 10;
    f.limits.scrub_pass_ms = 1;
    f.now_ms = 0;
    fixture_open_storage(&f);
    assert_int_equal(storage_thread_start(f.storage), STATUS_OK);
    struct shared shared = {.f = &f};
    void *(*const runs[])(void *) = {reader_run, reader_run, deleter_run, asker_run};
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, runs[i], &shared), 0);
    for (int64_t i = 1; i <= 300; i++) {
        struct batch *b = batch_new();
        batch_add(b, 0, i * 10, double_bits((double)i));
        for (int series = 1; series < 20; series++)
            batch_add(b, series, i * 10 - (series % 5 == 0 ? 1500 : 0), double_bits((double)i));
        batch_wait(&f, b);
        shared.written_ms = i * 10;
        f.now_ms = i * 10;
    }
    /* However fast that was: what comes now for the oldest windows is late; and once it is written, there is
     * time for the rest. */
    for (int64_t i = 0; i < 6000 && !all_happened(&shared); i++) {
        if (metric_get(METRIC_blocks_late) == 0) {
            struct batch *b = batch_new();
            batch_add(b, 5, i * 10 % 3000 + 5, double_bits(1));
            batch_wait(&f, b);
        }
        usleep(10000);
        f.now_ms += 10;
    }
    shared.stop = true;
    for (int i = 0; i < 4; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    storage_thread_stop(f.storage);
    if (!all_happened(&shared))
        fail_msg("cut %llu, late %llu, snapshots %llu, merged %llu, cleaned %llu, asked %u",
                 (unsigned long long)metric_get(METRIC_blocks_cut),
                 (unsigned long long)metric_get(METRIC_blocks_late),
                 (unsigned long long)metric_get(METRIC_snapshots),
                 (unsigned long long)metric_get(METRIC_compactions),
                 (unsigned long long)metric_get(METRIC_blocks_cleaned), shared.cleaned);
    assert_true(shared.reads > 10);
    fixture_close(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cut),       cmocka_unit_test(test_late),      cmocka_unit_test(test_backfill),
        cmocka_unit_test(test_late_held), cmocka_unit_test(test_retention), cmocka_unit_test(test_damage),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
