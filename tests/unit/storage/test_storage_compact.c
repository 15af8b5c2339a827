/* test_storage_compact.c: a storage whose blocks are merged behind its back: answers stay what they were, the
 * blocks get fewer, what is damaged is left alone, retention and restarts come in between, and readers see
 * each sample once while old and new change places. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/rand.h"
#include "tests/unit/storage/storage_fixture.h"

#define WINDOW_MS INT64_C(60000)
#define SERIES    40
#define SAMPLES   4000

static struct sample model[SERIES][SAMPLES];
static size_t counts[SERIES];

static void open_small(struct fixture *f) {
    fixture_open(f, IO_BACKEND_SYSCALL);
    storage_close(f->storage);
    f->limits.window_ms = (uint64_t)WINDOW_MS;
    f->limits.window_grace_ms = 5000;
    f->limits.late_ms_max = 20000;
    f->limits.retention_ms = 0;
    f->now_ms -= f->now_ms % (81 * WINDOW_MS);
    fixture_open_storage(f);
    metrics_reset();
    memset(counts, 0, sizeof counts);
}

/* Keeps the first of several with one time, as the storage must. */
static void model_put(int series, struct sample sample) {
    size_t at = counts[series];
    for (; at > 0 && model[series][at - 1].time_ms >= sample.time_ms; at--)
        if (model[series][at - 1].time_ms == sample.time_ms)
            return;
    assert_true(counts[series] < SAMPLES);
    memmove(&model[series][at + 1], &model[series][at], (counts[series] - at) * sizeof model[0][0]);
    model[series][at] = sample;
    counts[series]++;
}

static void scrape(struct fixture *f, struct rand *rand) {
    struct batch *b = batch_new();
    for (int series = 0; series < SERIES; series++) {
        struct sample sample = {f->now_ms + series % 3, double_bits((double)rand_below(rand, 1000) / 8)};
        batch_add(b, series, sample.time_ms, sample.value_bits);
        model_put(series, sample);
    }
    assert_int_equal(batch_write(f, b).status, STATUS_OK);
}

static void late(struct fixture *f, struct rand *rand, int64_t age_ms) {
    int series = (int)rand_below(rand, SERIES);
    struct sample sample = {f->now_ms - 1 - (int64_t)rand_below(rand, (uint64_t)age_ms),
                            double_bits((double)rand_below(rand, 7))};
    if (rand_below(rand, 2) && counts[series] > 0) /* of a time that is there, maybe with the same value */
        sample.time_ms = model[series][rand_below(rand, counts[series])].time_ms;
    struct storage_write_result result = write_one(f, series, sample.time_ms, sample.value_bits);
    assert_int_equal(result.status, STATUS_OK);
    if (result.samples_refused == 0)
        model_put(series, sample);
}

static void check(struct fixture *f) {
    for (int series = 0; series < SERIES; series++)
        series_expect(f, series, model[series], counts[series]);
}

/* What is told of the blocks: in order, all samples counted once, merged ones made of others that are gone.
 */
static void blocks_check(struct fixture *f) {
    struct arena arena;
    struct storage_block_info *blocks;
    struct storage_status status;
    size_t count;
    uint64_t samples = 0, in_blocks = 0, bytes = 0;
    uint32_t level_max = 0;
    arena_init(&arena, 0, 0);
    storage_status(f->storage, &status);
    assert_int_equal(storage_blocks(f->storage, &arena, &blocks, &count), STATUS_OK);
    assert_int_equal(count, status.blocks);
    for (size_t i = 0; i < count; i++) {
        const struct storage_block_info *block = &blocks[i];
        assert_true(i == 0 || blocks[i - 1].time_max_ms < block->time_min_ms);
        assert_int_equal(block->series, SERIES);
        assert_true(block->chunks >= SERIES && block->chunks <= block->samples && block->deletes == 0);
        assert_int_equal(block->source_count > 0, block->level > 1);
        for (size_t j = 0; j < block->source_count; j++)
            assert_true(block->sources[j] < block->id && block->sources[j] > 0);
        for (int series = 0; series < SERIES; series++)
            for (size_t j = 0; j < counts[series]; j++)
                in_blocks += model[series][j].time_ms >= block->time_min_ms &&
                             model[series][j].time_ms <= block->time_max_ms;
        samples += block->samples;
        bytes += block->bytes;
        level_max = block->level > level_max ? block->level : level_max;
    }
    assert_int_equal(samples, in_blocks);
    assert_int_equal(bytes, status.block_bytes);
    assert_true(level_max >= 3);
    arena_release(&arena);
}

/* 60 windows: a few blocks at last. */
static void test_levels(void **state) {
    (void)state;
    struct fixture f;
    struct rand rand;
    struct storage_status status;
    rand_init(&rand, 1);
    open_small(&f);
    for (int round = 0; round < 300; round++) {
        scrape(&f, &rand);
        f.now_ms += WINDOW_MS / 5;
        fixture_maintain(&f);
        if (round % 100 == 50)
            check(&f);
        if (round % 170 == 100)
            fixture_reopen(&f);
    }
    storage_status(f.storage, &status);
    assert_true(metric_get(METRIC_blocks_cut) >= 57);
    assert_true(metric_get(METRIC_compactions) >= 22);
    assert_in_range(status.blocks, 1, 10); /* 27 + 27 + 3 + …, and what may not be merged yet */
    assert_int_equal(fixture_entries(&f, "blocks"), status.blocks);
    assert_int_equal(metric_get(METRIC_compaction_errors), 0);
    uint64_t first = metric_get(METRIC_block_written_cut),
             again = metric_get(METRIC_block_written_compaction);
    assert_true(again > 0 && again < 3 * first); /* three levels; small windows shrink when merged */
    check(&f);
    blocks_check(&f);
    fixture_reopen(&f);
    check(&f);
    blocks_check(&f);
    fixture_close(&f);
}

/* Late samples, repeated and conflicting: the first one counts, before the merge and after. */
static void test_late(void **state) {
    (void)state;
    struct fixture f;
    struct rand rand;
    rand_init(&rand, 2);
    open_small(&f);
    for (int round = 0; round < 120; round++) {
        scrape(&f, &rand);
        f.now_ms += WINDOW_MS / 5;
        fixture_maintain(&f);
        for (int i = 0; i < 20; i++)
            late(&f, &rand, rand_below(&rand, 3) ? 3 * WINDOW_MS : 60 * WINDOW_MS);
        if (round % 20 == 10)
            check(&f);
        if (round % 60 == 30)
            fixture_reopen(&f);
    }
    f.now_ms += 5 * WINDOW_MS;
    fixture_maintain(&f);
    check(&f);
    struct storage_status status;
    storage_status(f.storage, &status);
    assert_true(metric_get(METRIC_blocks_late) > 30);
    assert_true(metric_get(METRIC_compactions) > 10);
    assert_true(metric_get(METRIC_samples_merged_conflict) > 0);
    assert_true(status.blocks < metric_get(METRIC_blocks_late) / 2);
    assert_int_equal(fixture_entries(&f, "blocks"), status.blocks);
    fixture_reopen(&f);
    check(&f);
    fixture_close(&f);
}

/* Late samples that always make another block due do not put off merging. */
static void test_late_stream(void **state) {
    (void)state;
    struct fixture f;
    struct rand rand;
    rand_init(&rand, 8);
    open_small(&f);
    f.limits.late_bytes_max = 1;
    for (int round = 0; round < 10; round++) {
        scrape(&f, &rand);
        f.now_ms += WINDOW_MS;
    }
    f.now_ms += 5 * WINDOW_MS;
    while (metric_get(METRIC_compactions) < 3 && metric_get(METRIC_blocks_late) < 200) {
        late(&f, &rand, 12 * WINDOW_MS);
        (void)storage_maintain(f.storage, f.now_ms);
    }
    assert_true(metric_get(METRIC_compactions) >= 3);
    assert_in_range(metric_get(METRIC_blocks_late), 3, 60);
    check(&f);
    fixture_close(&f);
}

/* A damaged block is not merged away: what is missing is told of as long as the block is there. */
static void test_damage(void **state) {
    (void)state;
    struct fixture f;
    struct rand rand;
    rand_init(&rand, 3);
    open_small(&f);
    for (int round = 0; round < 15; round++) { /* three windows, not to be merged yet */
        scrape(&f, &rand);
        f.now_ms += WINDOW_MS / 5;
        fixture_maintain(&f);
    }
    f.now_ms += 5000;
    fixture_maintain(&f);
    assert_int_equal(fixture_entries(&f, "blocks"), 3);
    storage_close(f.storage);
    char path[128];
    snprintf(path, sizeof path, "%s/blocks/%016x/chunks", f.dir, 2);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    uint8_t bytes[600];
    memset(bytes, 'x', sizeof bytes);
    assert_int_equal(pwrite(fd, bytes, sizeof bytes, 700), sizeof bytes);
    close(fd);
    fixture_open_storage(&f);
    for (int round = 0; round < 50; round++) {
        scrape(&f, &rand);
        f.now_ms += WINDOW_MS / 5;
        fixture_maintain(&f);
    }
    assert_int_equal(access(path, F_OK), 0);
    assert_true(metric_get(METRIC_compactions) > 0); /* the others go on */
    assert_in_range(metric_get(METRIC_compaction_errors), 0, 2);
    struct storage_selection *selection;
    struct sample_columns columns = {0};
    assert_int_equal(storage_select(f.storage, NULL, 0, INT64_MIN, INT64_MAX, 0, &selection), STATUS_OK);
    for (size_t i = 0; i < SERIES; i++)
        assert_int_equal(selection_read(selection, i, INT64_MIN, INT64_MAX, &columns), STATUS_OK);
    assert_true(selection_damaged(selection) > 0);
    sample_columns_release(&columns);
    selection_close(selection);
    fixture_close(&f);
}

/* Retention takes an input away while it is merged, and blocks that were merged when they are over. */
static void test_retention(void **state) {
    (void)state;
    struct fixture f;
    struct rand rand;
    rand_init(&rand, 4);
    open_small(&f);
    for (int round = 0; round < 30; round++) { /* six windows */
        scrape(&f, &rand);
        f.now_ms += WINDOW_MS / 5;
        if (round < 15)
            fixture_maintain(&f);
    }
    /* until a merge is under way */
    for (int i = 0; i < 100000 && fixture_entries(&f, "blocks") < 7; i++) {
        storage_maintain(f.storage, f.now_ms);
        storage_step(f.storage, f.now_ms);
        if (metric_get(METRIC_compactions) > 0)
            break;
    }
    f.limits.retention_ms = (uint64_t)WINDOW_MS;
    fixture_maintain(&f);
    struct storage_status status;
    storage_status(f.storage, &status);
    assert_true(metric_get(METRIC_blocks_dropped) > 0);
    assert_int_equal(fixture_entries(&f, "blocks"), status.blocks);
    for (int series = 0; series < SERIES; series++) { /* what is left is what is not too old */
        size_t gone = 0;
        while (gone < counts[series] && model[series][gone].time_ms < status.time_min_ms)
            gone++;
        series_expect(&f, series, model[series] + gone, counts[series] - gone);
    }
    fixture_close(&f);
}

/* A selection holds what it saw, however much is merged meanwhile. */
static void test_held_selection(void **state) {
    (void)state;
    struct fixture f;
    struct rand rand;
    rand_init(&rand, 5);
    open_small(&f);
    for (int round = 0; round < 30; round++) {
        scrape(&f, &rand);
        f.now_ms += WINDOW_MS / 5;
        if (round == 14)
            fixture_maintain(&f);
    }
    struct storage_selection *selection;
    assert_int_equal(storage_select(f.storage, NULL, 0, INT64_MIN, INT64_MAX, 0, &selection), STATUS_OK);
    size_t before = counts[0];
    for (int round = 0; round < 100; round++) {
        scrape(&f, &rand);
        f.now_ms += WINDOW_MS / 5;
        fixture_maintain(&f);
    }
    struct sample_columns columns = {0};
    for (size_t i = 0; i < SERIES; i++) {
        columns.count = 0;
        assert_int_equal(selection_read(selection, i, INT64_MIN, f.now_ms - 101 * WINDOW_MS / 5, &columns),
                         STATUS_OK);
        assert_true(columns.count >= before - 1 && columns.count <= before);
    }
    sample_columns_release(&columns);
    selection_close(selection);
    fixture_maintain(&f);
    check(&f);
    fixture_close(&f);
}

/* The real threads: a writer, readers that compare; windows of a tenth of a second are cut and merged. */
struct shared {
    struct fixture *f;
    _Atomic int64_t written_ms; /* of series 0: all multiples of 10 up to here were acknowledged */
    _Atomic bool stop;
    _Atomic unsigned reads;
};

static bool read_once(struct shared *shared, struct sample_columns *columns) {
    const struct matcher matcher = {.kind = MATCHER_EQUAL, .name = slice_str("i"), .value = slice_str("0")};
    struct storage_selection *selection;
    int64_t written_ms = shared->written_ms;
    if (storage_select(shared->f->storage, &matcher, 1, 0, written_ms, 0, &selection) != STATUS_OK)
        return false;
    columns->count = 0;
    bool right = written_ms == 0 || (selection_series_count(selection) == 1 &&
                                     selection_read(selection, 0, 0, written_ms, columns) == STATUS_OK &&
                                     columns->count == (size_t)(written_ms / 10));
    for (size_t i = 0; i < columns->count && right; i++)
        right = columns->times_ms[i] == (int64_t)(i + 1) * 10;
    selection_close(selection);
    return right;
}

static void *reader_run(void *context) {
    struct shared *shared = context;
    struct sample_columns columns = {0};
    bool right = true;
    for (; !shared->stop && right; shared->reads++) {
        right = read_once(shared, &columns);
        usleep(200); /* a moment without old versions, or the head is never freed */
    }
    sample_columns_release(&columns);
    return right ? NULL : (void *)1;
}

static void test_threads(void **state) {
    (void)state;
    struct fixture f;
    open_small(&f);
    storage_close(f.storage);
    f.limits.window_ms = 100;
    f.limits.window_grace_ms = 50;
    f.limits.late_ms_max = 30;
    f.now_ms = 3500; /* all windows are over, none is so old that it is cut longer */
    fixture_open_storage(&f);
    assert_int_equal(storage_thread_start(f.storage), STATUS_OK);
    struct shared shared = {.f = &f};
    pthread_t readers[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&readers[i], NULL, reader_run, &shared), 0);
    for (int64_t i = 1; i <= 300; i++) {
        struct batch *b = batch_new();
        struct outcome outcome;
        batch_add(b, 0, i * 10, double_bits((double)i));
        for (int series = 1; series < 20; series++)
            batch_add(b, series, i * 10 - (series % 5 == 0 ? 250 : 0), double_bits((double)i));
        batch_submit(&f, b, &outcome);
        while (!outcome.done)
            usleep(100);
        batch_free(b);
        assert_int_equal(outcome.result.status, STATUS_OK);
        shared.written_ms = i * 10;
        if (i % 10 == 0)
            usleep(5000);
    }
    for (int i = 0; i < 9000 && metric_get(METRIC_compactions) < 3; i++)
        usleep(10000);
    shared.stop = true;
    for (int i = 0; i < 2; i++) {
        void *failed;
        pthread_join(readers[i], &failed);
        assert_null(failed);
    }
    storage_thread_stop(f.storage);
    assert_true(metric_get(METRIC_compactions) >= 3);
    assert_true(shared.reads > 10);
    fixture_close(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_levels),         cmocka_unit_test(test_late),
        cmocka_unit_test(test_damage),         cmocka_unit_test(test_retention),
        cmocka_unit_test(test_held_selection), cmocka_unit_test(test_threads),
        cmocka_unit_test(test_late_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
