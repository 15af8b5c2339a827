/* test_block_edges.c: blocks at the edges of what they may hold: times at both ends of int64, labels at the
 * limits, a series with a million samples, no series at all; and the index that is looked at later. */
#include <fcntl.h>
#include <pthread.h>

#include "base/limits.h"
#include "base/log.h"
#include "test_block_model.h"
#include "tests/lib/chunk_grow.h"

/* Adds a series whose chunks hold these samples, `per_chunk` each. */
static void add_samples(struct model *model, const char *name, const struct sample *samples, size_t count,
                        size_t per_chunk) {
    size_t chunks = (count + per_chunk - 1) / per_chunk;
    model_add(model, 1, "__name__", name, NULL);
    struct model_series *series = &model->series[model->count - 1];
    mem_free((void *)(uintptr_t)series->chunks[0].bits.data);
    mem_free(series->chunks);
    series->chunks = mem_zalloc(chunks * sizeof *series->chunks);
    series->chunk_count = chunks;
    for (size_t c = 0; c < chunks; c++) {
        struct chunk_open open = {0};
        size_t from = c * per_chunk, to = from + per_chunk < count ? from + per_chunk : count;
        for (size_t i = from; i < to; i++)
            assert_int_equal(chunk_append(&open, samples[i], START_NONE, chunk_grow, NULL), STATUS_OK);
        struct slice bits = chunk_bytes(&open);
        uint8_t *copy = mem_alloc(bits.len);
        memcpy(copy, bits.data, bits.len);
        mem_free(open.bytes);
        series->chunks[c] = (struct block_chunk){.time_min_ms = samples[from].time_ms,
                                                 .time_max_ms = samples[to - 1].time_ms,
                                                 .info = open.info,
                                                 .log_position = c % 3 == 0 ? UINT64_MAX - c : c,
                                                 .bits = slice_of(copy, bits.len)};
    }
}

static int on_finding(void *context, const struct block_finding *finding) {
    print_message("%s at %llu: %s\n", finding->file, (unsigned long long)finding->offset, finding->what);
    (*(size_t *)context)++;
    return 0;
}

/* Written, read, verified; then again with an index that is made out of `chunks`. */
static void check_both_ways(struct model *model) {
    model_sort(model);
    assert_int_equal(model_write(model, NULL), STATUS_OK);
    struct block *block = model_block(model);
    size_t findings = 0;
    model_check(model, block);
    assert_int_equal(block_verify(block, on_finding, &findings, NULL), STATUS_OK);
    assert_int_equal(findings, 0);
    block_close(block);
    model_file_remove(model, "index.mdb");
    model_file_remove(model, "meta.json");
    assert_int_equal(block_open(model->io, model->dir, NULL, &block), STATUS_OK);
    assert_true(block_index_rebuilt(block));
    model_check(model, block);
    assert_int_equal(block_repair(block, NULL), STATUS_OK);
    block_close(block);
    block = model_block(model);
    model_check(model, block);
    block_close(block);
}

static void test_times(void **state) {
    (void)state;
    static const int64_t bases[] = {0, INT64_MIN, INT64_MAX, 1700000000000};
    static const struct sample ends[] = {{INT64_MIN, 1}, {INT64_MIN + 1, 2}, {-1, 3},
                                         {0, 4},         {INT64_MAX - 1, 5}, {INT64_MAX, 6}};
    for (size_t b = 0; b < sizeof bases / sizeof *bases; b++) {
        struct model model;
        model_open(&model, IO_BACKEND_SYSCALL, 30 + b);
        model_random(&model, 10, 2);
        add_samples(&model, "all", ends, 6, 6); /* one chunk from end to end */
        add_samples(&model, "two", ends, 6, 3);
        add_samples(&model, "each", ends, 6, 1);
        add_samples(&model, "low", ends, 2, 2);
        add_samples(&model, "high", ends + 4, 2, 1);
        model.time_base_ms = bases[b];
        check_both_ways(&model);
        struct block *block = model_block(&model);
        assert_true(block_meta(block)->time_min_ms == INT64_MIN);
        assert_true(block_meta(block)->time_max_ms == INT64_MAX);
        struct matcher all = {.kind = MATCHER_NOT_EQUAL, .name = slice_str("__name__")};
        uint32_t *ordinals;
        size_t count;
        static const int64_t ranges[][2] = {
            {INT64_MIN, INT64_MIN}, {INT64_MAX, INT64_MAX}, {INT64_MIN, INT64_MAX}, {0, 0}};
        for (size_t r = 0; r < 4; r++) {
            assert_int_equal(
                block_select(block, &all, 1, ranges[r][0], ranges[r][1], &ordinals, &count, NULL), STATUS_OK);
            assert_int_equal(count, model.count);
            struct block_view *view;
            struct block_series series;
            assert_int_equal(block_view_open(block, &view), STATUS_OK);
            for (size_t i = 0; i < model.count; i++) {
                size_t expected = 0;
                for (size_t c = 0; c < model.series[i].chunk_count; c++)
                    expected += model.series[i].chunks[c].time_min_ms <= ranges[r][1] &&
                                model.series[i].chunks[c].time_max_ms >= ranges[r][0];
                assert_int_equal(
                    block_view_series(view, (uint32_t)i, ranges[r][0], ranges[r][1], &series, NULL),
                    STATUS_OK);
                assert_int_equal(series.chunk_count, expected);
            }
            block_view_close(view);
            mem_free(ordinals);
        }
        block_close(block);
        model_close(&model);
    }
}

/* 64 labels, names of 1 KiB, values of 16 KiB: more than a megabyte of labels a series. */
static void test_labels(void **state) {
    (void)state;
    struct limits limits;
    limits_init(&limits);
    struct model model;
    model_open(&model, IO_BACKEND_SYSCALL, 40);
    model_random(&model, 20, 2);
    for (int s = 0; s < 3; s++) {
        struct buf labels;
        buf_init(&labels);
        size_t name_len = limits.label_name_bytes_max, value_len = limits.label_value_bytes_max;
        char *name = mem_alloc(name_len), *value = mem_alloc(value_len);
        label_bytes_append(&labels, slice_str("__name__"), slice_str("wide"));
        for (size_t i = 1; i < limits.labels_per_series_max; i++) {
            memset(name, 'a', name_len);
            memset(value, 'v', value_len);
            name[name_len - 2] = (char)('0' + i / 10); /* they differ at their ends only */
            name[name_len - 1] = (char)('0' + i % 10);
            value[value_len - 1] = (char)('0' + s);
            label_bytes_append(&labels, slice_of(name, name_len), slice_of(value, value_len));
        }
        assert_false(labels.failed);
        model_add_bytes(&model, buf_slice(&labels), 3);
        mem_free(name);
        mem_free(value);
        buf_release(&labels);
    }
    check_both_ways(&model);
    struct block *block = model_block(&model);
    const struct model_series *wide = &model.series[0];
    for (size_t i = 0; i < model.count; i++)
        if (model.series[i].labels_len > wide->labels_len)
            wide = &model.series[i];
    struct label label;
    for (struct slice rest = slice_of(wide->labels, wide->labels_len); label_next(&rest, &label, NULL);) {
        struct matcher matcher = {.kind = MATCHER_EQUAL, .name = label.name, .value = label.value};
        model_check_select(&model, block, &matcher, 1);
        matcher.kind = MATCHER_NOT_EQUAL;
        model_check_select(&model, block, &matcher, 1);
    }
    block_close(block);
    model_close(&model);
}

/* 10^6 samples in one series, and another in chunks of one sample. */
static void test_long_series(void **state) {
    (void)state;
    struct model model;
    model_open(&model, IO_BACKEND_SYSCALL, 50);
    model_random(&model, 20, 2);
    size_t count = 1000000;
    struct sample *samples = mem_alloc(count * sizeof *samples);
    for (size_t i = 0; i < count; i++)
        samples[i] = (struct sample){1700000000000 + (int64_t)i * 15000, i * 3};
    add_samples(&model, "long", samples, count, CHUNK_SAMPLES_MAX);
    add_samples(&model, "scattered", samples, 50000, 1);
    mem_free(samples);
    check_both_ways(&model);
    model_close(&model);
}

static void test_empty(void **state) {
    (void)state;
    struct model model;
    model_open(&model, IO_BACKEND_SYSCALL, 60);
    assert_int_equal(model_write(&model, NULL), STATUS_OK);
    struct block *block = model_block(&model);
    assert_int_equal(block_ordinal_count(block), 0);
    struct block_cursor *cursor;
    struct block_series series;
    assert_int_equal(block_cursor_open(block, 0, BLOCK_SHARDS - 1, &cursor), STATUS_OK);
    assert_int_equal(block_cursor_next(cursor, &series, NULL), STATUS_END);
    block_cursor_close(cursor);
    block_close(block);
    model_close(&model);
}

/* ---- Opened later ------------------------------------------------------------------------------------- */

static void *select_run(void *context) {
    struct block *block = context;
    struct matcher all = {.kind = MATCHER_NOT_EQUAL, .name = slice_str("__name__")};
    uint32_t *ordinals;
    size_t count;
    assert_int_equal(block_select(block, &all, 1, INT64_MIN, INT64_MAX, &ordinals, &count, NULL), STATUS_OK);
    mem_free(ordinals);
    return (void *)count;
}

/* The index is looked at by the first who needs it, however many come at once; damaged or not. */
static void test_later(void **state) {
    (void)state;
    static const char *const missing[] = {NULL, "index.mdb", "index.sum", "meta.json"};
    for (size_t m = 0; m < 4; m++) {
        struct model model;
        model_open(&model, IO_BACKEND_SYSCALL, 70 + m);
        model_random(&model, 500, 2);
        assert_int_equal(model_write(&model, NULL), STATUS_OK);
        if (missing[m] != NULL)
            model_file_remove(&model, missing[m]);
        struct block *block;
        assert_int_equal(block_open_later(model.io, model.dir, NULL, &block), STATUS_OK);
        assert_false(block_is_prepared(block));
        assert_false(block_index_rebuilt(block));
        const struct block_meta *meta = block_meta(block);
        assert_int_equal(meta->series_count, model.count);
        assert_true(meta->time_min_ms <= meta->time_max_ms);
        pthread_t threads[4];
        for (int i = 0; i < 4; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, select_run, block), 0);
        for (int i = 0; i < 4; i++) {
            void *count;
            assert_int_equal(pthread_join(threads[i], &count), 0);
            assert_int_equal((size_t)count, model.count);
        }
        assert_true(block_is_prepared(block));
        assert_int_equal(block_index_rebuilt(block), m == 1 || m == 2);
        assert_int_equal(block_damage_count(block), m > 0);
        model_check(&model, block);
        block_close(block);
        model_close(&model);
    }
}

/* A failure on the way is not remembered. */
static void test_later_fails(void **state) {
    (void)state;
    struct model model;
    model_open(&model, IO_BACKEND_SYSCALL, 80);
    model_random(&model, 50, 2);
    assert_int_equal(model_write(&model, NULL), STATUS_OK);
    struct block *block;
    assert_int_equal(block_open_later(model.io, model.dir, NULL, &block), STATUS_OK);
    int failures = 0, status;
    for (uint64_t n = 1;; n++) {
        mem_fault_set(n, false);
        struct error_detail detail = {0};
        status = block_prepare(block, &detail);
        mem_fault_set(0, false);
        if (status == STATUS_OK)
            break;
        assert_int_equal(status, STATUS_NO_MEMORY);
        assert_true(strlen(detail.text) > 0);
        assert_false(block_is_prepared(block));
        failures++;
    }
    assert_true(failures > 0);
    model_check(&model, block);
    block_close(block);
    model_close(&model);
}

int main(void) {
    log_setup(LOG_ERROR, LOG_FORMAT_LOGFMT, open("/dev/null", O_WRONLY | O_CLOEXEC));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_times), cmocka_unit_test(test_labels), cmocka_unit_test(test_long_series),
        cmocka_unit_test(test_empty), cmocka_unit_test(test_later),  cmocka_unit_test(test_later_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
