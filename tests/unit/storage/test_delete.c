/* test_delete.c: deletes against a naive model: an array of samples a series, from which a delete takes out
 * what is there. Windows are cut meanwhile, late samples come, requests are sent again, blocks are written
 * anew, the storage is closed and opened. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/metrics.h"
#include "base/rand.h"
#include "storage/tombstone/hidden.h"
#include "storage/tombstone/tombstone.h"
#include "tests/unit/storage/storage_fixture.h"

#define WINDOW_MS INT64_C(60000)
#define SERIES    24
#define SAMPLES   4000

static struct sample model[SERIES][SAMPLES];
static size_t counts[SERIES];

/* ---- a compiler for tests: a pattern is a prefix ---- */

static int patterns_live;

struct prefix {
    struct matcher_pattern pattern;
    struct slice text;
};

static bool prefix_match(const struct matcher_pattern *pattern, struct slice value) {
    return slice_starts_with(value, ((const struct prefix *)pattern->context)->text);
}

static int prefix_compile(struct slice text, const struct matcher_pattern **out) {
    if (slice_equal(text, slice_str("(")))
        return STATUS_BAD_INPUT;
    struct prefix *prefix = mem_zalloc(sizeof *prefix);
    if (prefix == NULL)
        return STATUS_NO_MEMORY;
    prefix->text = text;
    prefix->pattern = (struct matcher_pattern){.match = prefix_match, .context = prefix, .prefix = text};
    patterns_live++;
    *out = &prefix->pattern;
    return STATUS_OK;
}

static void prefix_release(const struct matcher_pattern *pattern) {
    patterns_live--;
    mem_free(pattern->context);
}

static const struct matcher_compiler prefix_compiler = {prefix_compile, prefix_release};

/* ---- the two sides ---- */

static void open_small(struct fixture *f) {
    fixture_open(f, IO_BACKEND_SYSCALL);
    storage_close(f->storage);
    f->compiler = &prefix_compiler;
    f->limits.window_ms = (uint64_t)WINDOW_MS;
    f->limits.window_grace_ms = 5000;
    f->limits.late_ms_max = 20000;
    f->limits.retention_ms = 0;
    f->limits.deletes_max = 40;
    f->limits.delete_slice_series = 2;
    f->now_ms -= f->now_ms % WINDOW_MS;
    fixture_open_storage(f);
    metrics_reset();
    memset(counts, 0, sizeof counts);
}

/* The first of a time is kept. */
static void model_put(int series, struct sample sample) {
    size_t at = counts[series];
    while (at > 0 && model[series][at - 1].time_ms >= sample.time_ms)
        at--;
    if (at < counts[series] && model[series][at].time_ms == sample.time_ms)
        return;
    memmove(&model[series][at + 1], &model[series][at], (counts[series] - at) * sizeof sample);
    model[series][at] = sample;
    assert_true(++counts[series] < SAMPLES);
}

static size_t model_delete(int series, struct span span) {
    size_t kept = 0, gone;
    for (size_t i = 0; i < counts[series]; i++)
        if (model[series][i].time_ms < span.min_ms || model[series][i].time_ms > span.max_ms)
            model[series][kept++] = model[series][i];
    gone = counts[series] - kept;
    counts[series] = kept;
    return gone;
}

static void check_labels(struct fixture *f) {
    struct arena arena;
    struct slice *values;
    size_t count, want = 0;
    bool truncated;
    arena_init(&arena, 0, 0);
    for (int i = 0; i < SERIES; i++)
        want += counts[i] > 0;
    assert_int_equal(storage_label_values(f->storage, slice_str("i"), NULL, 0, INT64_MIN, INT64_MAX, 0,
                                          &arena, &values, &count, &truncated),
                     STATUS_OK);
    assert_int_equal(count, want);
    arena_release(&arena);
}

static void check(struct fixture *f) {
    for (int series = 0; series < SERIES; series++)
        series_expect(f, series, model[series], counts[series]);
    check_labels(f);
}

static int outcome_wait(struct fixture *f, const struct outcome *outcome) {
    while (!outcome->done)
        if (!storage_step(f->storage, f->now_ms))
            storage_wait(f->storage, 10);
    return outcome->result.status;
}

static int delete_selectors(struct fixture *f, const struct delete_selector *selectors, size_t count,
                            struct span span) {
    struct outcome outcome;
    int status = delete_submit(f, selectors, count, span.min_ms, span.max_ms, &outcome);
    return status < 0 ? status : outcome_wait(f, &outcome);
}

static int delete_by(struct fixture *f, enum matcher_kind kind, const char *value, struct span span) {
    const struct matcher matcher = {.kind = kind, .name = slice_str("i"), .value = slice_str(value)};
    const struct delete_selector selector = {&matcher, 1};
    return delete_selectors(f, &selector, 1, span);
}

/* ---- tests ---- */

static void test_spans(void **state) {
    (void)state;
    struct rand rand;
    rand_init(&rand, 3);
    for (int round = 0; round < 2000; round++) {
        bool in[64] = {false};
        struct span spans[65];
        size_t count = 0;
        for (int i = 0; i < 12; i++) {
            int64_t min = (int64_t)rand_below(&rand, 64), max = min + (int64_t)rand_below(&rand, 10);
            if (max > 63)
                max = 63;
            for (int64_t t = min; t <= max; t++)
                in[t] = true;
            count = spans_add(spans, count, (struct span){min, max});
        }
        for (size_t i = 0; i < count; i++) {
            assert_true(spans[i].min_ms <= spans[i].max_ms);
            assert_true(i == 0 || spans[i - 1].max_ms + 1 < spans[i].min_ms);
        }
        for (int64_t from = 0; from < 64; from++) {
            bool all = true, any = false;
            assert_int_equal(spans_hold(spans, count, from), in[from]);
            for (int64_t to = from; to < 64; to++) {
                all &= in[to];
                any |= in[to];
                assert_int_equal(spans_cover(spans, count, from, to), all);
                assert_int_equal(spans_touch(spans, count, from, to), any);
            }
        }
    }
    struct span edges[3];
    size_t count = spans_add(edges, 0, (struct span){INT64_MAX, INT64_MAX});
    count = spans_add(edges, count, (struct span){INT64_MIN, INT64_MIN});
    assert_int_equal(count, 2);
    count = spans_add(edges, count, (struct span){INT64_MIN, INT64_MAX});
    assert_int_equal(count, 1);
    assert_true(spans_cover(edges, count, INT64_MIN, INT64_MAX));
}

static int span_count(void *context, struct span span) {
    *(int64_t *)context += span.max_ms - span.min_ms + 1;
    return STATUS_OK;
}

static void test_hidden(void **state) {
    (void)state;
    enum { SLOTS = 300, TIMES = 40 };
    static bool in[SLOTS][TIMES];
    struct rand rand;
    struct hidden *hidden;
    rand_init(&rand, 4);
    assert_int_equal(hidden_new(&hidden), STATUS_OK);
    for (int round = 0; round < 6; round++) {
        for (int i = 0; i < 500; i++) {
            uint32_t slot = (uint32_t)rand_below(&rand, SLOTS);
            int64_t min = (int64_t)rand_below(&rand, TIMES), max = min + (int64_t)rand_below(&rand, 4);
            if (max >= TIMES)
                max = TIMES - 1;
            for (int64_t t = min; t <= max; t++)
                in[slot][t] = true;
            assert_int_equal(hidden_add(hidden, slot, (struct span){min, max}), STATUS_OK);
        }
        int64_t cut = (int64_t)rand_below(&rand, TIMES), want = 0, have = 0;
        for (int slot = 0; slot < SLOTS; slot++)
            for (int64_t t = 0; t < TIMES; t++)
                assert_int_equal(hidden_holds(hidden, (uint32_t)slot, t), in[slot][t]);
        for (uint32_t slot = 0; slot < SLOTS; slot += HIDDEN_SLOTS)
            hidden_forget(hidden, slot, HIDDEN_SLOTS, cut);
        for (int slot = 0; slot < SLOTS; slot++)
            for (int64_t t = 0; t < TIMES; t++) {
                if (t >= cut)
                    assert_int_equal(hidden_holds(hidden, (uint32_t)slot, t), in[slot][t]);
                in[slot][t] = hidden_holds(hidden, (uint32_t)slot, t);
                want += in[slot][t];
            }
        for (uint32_t slot = 0; slot < SLOTS + 1000; slot++)
            assert_int_equal(hidden_slot_each(hidden, slot, span_count, &have), STATUS_OK);
        assert_int_equal(have, want);
    }
    hidden_forget(hidden, 0, 4 * HIDDEN_SLOTS, TIMES);
    assert_true(hidden_count(hidden) > 0);
    hidden_forget(hidden, 4 * HIDDEN_SLOTS, 4 * HIDDEN_SLOTS, TIMES);
    assert_int_equal(hidden_count(hidden), 0);
    assert_int_equal(hidden_memory_bytes(hidden), 0);
    hidden_free(hidden);
}

static void test_payload(void **state) {
    (void)state;
    struct matcher matchers[] = {
        {.kind = MATCHER_EQUAL, .name = slice_str("a"), .value = slice_str("")},
        {.kind = MATCHER_NOT_REGEX, .name = slice_str("b\xff"), .value = slice_str("x.*")},
        {.kind = MATCHER_NOT_EQUAL, .name = slice_str(""), .value = slice_str("y")},
    };
    const struct tombstone_selector selectors[] = {{matchers, 2}, {matchers + 2, 1}};
    struct buf payload;
    struct tombstone *tombstone;
    buf_init(&payload);
    tombstone_payload_write(&payload, selectors, 2, (struct span){INT64_MIN, INT64_MAX});
    assert_int_equal(tombstone_new(buf_slice(&payload), 7, NULL, &tombstone), STATUS_UNSUPPORTED);
    assert_int_equal(tombstone_new(buf_slice(&payload), 7, &prefix_compiler, &tombstone), STATUS_OK);
    assert_int_equal(tombstone->selector_count, 2);
    assert_int_equal(tombstone->selectors[0].count, 2);
    assert_int_equal(tombstone->selectors[0].matchers[1].kind, MATCHER_NOT_REGEX);
    assert_true(slice_equal(tombstone->selectors[0].matchers[1].name, matchers[1].name));
    assert_true(slice_equal(tombstone->selectors[1].matchers[0].value, matchers[2].value));
    assert_true(tombstone->span.min_ms == INT64_MIN && tombstone->span.max_ms == INT64_MAX);
    tombstone_unref(tombstone);
    /* Cut anywhere, or with something behind it, it is none; changed anywhere, it is one or none. */
    for (size_t len = 0; len < payload.len; len++)
        assert_int_equal(tombstone_new(slice_of(payload.data, len), 7, &prefix_compiler, &tombstone),
                         STATUS_CORRUPT);
    for (size_t at = 0; at < payload.len; at++)
        for (int bit = 0; bit < 8; bit++) {
            payload.data[at] ^= (uint8_t)(1 << bit);
            int status = tombstone_new(buf_slice(&payload), 7, &prefix_compiler, &tombstone);
            assert_true(status == STATUS_OK || status == STATUS_CORRUPT);
            if (status == STATUS_OK)
                tombstone_unref(tombstone);
            payload.data[at] ^= (uint8_t)(1 << bit);
        }
    buf_append_byte(&payload, 0);
    assert_int_equal(tombstone_new(buf_slice(&payload), 7, &prefix_compiler, &tombstone), STATUS_CORRUPT);
    buf_release(&payload);
    assert_int_equal(patterns_live, 0);
}

/* How many deletes may hide something in the only block. */
static uint64_t block_deletes(struct fixture *f) {
    struct arena arena;
    struct storage_block_info *blocks;
    size_t count;
    arena_init(&arena, 0, 0);
    assert_int_equal(storage_blocks(f->storage, &arena, &blocks, &count), STATUS_OK);
    assert_int_equal(count, 1);
    uint64_t deletes = blocks[0].deletes;
    arena_release(&arena);
    return deletes;
}

/* What was deleted and is sent again is new. */
static void test_again(void **state) {
    (void)state;
    struct fixture f;
    open_small(&f);
    int64_t t = f.now_ms;
    assert_int_equal(write_one(&f, 1, t, 10).samples_stored, 1);
    assert_int_equal(write_one(&f, 1, t + 1, 11).samples_stored, 1);
    assert_int_equal(delete_by(&f, MATCHER_EQUAL, "1", (struct span){t, t}), STATUS_OK);
    series_expect(&f, 1, (struct sample[]){{t + 1, 11}}, 1);
    struct storage_write_result again = write_one(&f, 1, t, 10);
    assert_int_equal(again.samples_stored, 1);
    again = write_one(&f, 1, t, 10);
    assert_int_equal(again.samples_equal, 1);
    again = write_one(&f, 1, t, 12); /* and then it is there: another is in conflict with it */
    assert_int_equal(again.samples_refused, 1);
    series_expect(&f, 1, (struct sample[]){{t, 10}, {t + 1, 11}}, 2);
    fixture_reopen(&f);
    series_expect(&f, 1, (struct sample[]){{t, 10}, {t + 1, 11}}, 2);
    f.now_ms += 2 * WINDOW_MS;
    fixture_maintain(&f);
    assert_int_equal(metric_get(METRIC_blocks_cut), 1);
    series_expect(&f, 1, (struct sample[]){{t, 10}, {t + 1, 11}}, 2);
    /* The same with the sample in a block. */
    assert_int_equal(delete_by(&f, MATCHER_EQUAL, "1", (struct span){t + 2, t + 9}), STATUS_OK);
    assert_int_equal(block_deletes(&f), 0); /* of another time */
    assert_int_equal(delete_by(&f, MATCHER_EQUAL, "1", (struct span){t, t}), STATUS_OK);
    assert_int_equal(block_deletes(&f), 1);
    series_expect(&f, 1, (struct sample[]){{t + 1, 11}}, 1);
    assert_int_equal(write_one(&f, 1, t, 13).samples_stored, 1);
    series_expect(&f, 1, (struct sample[]){{t, 13}, {t + 1, 11}}, 2);
    fixture_reopen(&f);
    series_expect(&f, 1, (struct sample[]){{t, 13}, {t + 1, 11}}, 2);
    f.now_ms += WINDOW_MS;
    fixture_maintain(&f);
    assert_int_equal(metric_get(METRIC_blocks_late), 1);
    fixture_reopen(&f);
    series_expect(&f, 1, (struct sample[]){{t, 13}, {t + 1, 11}}, 2);
    fixture_close(&f);
}

static void clean_set(void *context, int status) {
    *(int *)context = status;
}

static void clean(struct fixture *f) {
    int status = 1;
    assert_int_equal(storage_deletes_clean(f->storage, clean_set, &status), STATUS_OK);
    fixture_maintain(f);
    assert_int_equal(status, STATUS_OK);
    assert_int_equal(metric_get(METRIC_deletes_pending), 0);
}

static void test_refused(void **state) {
    (void)state;
    struct fixture f;
    open_small(&f);
    int64_t t = f.now_ms;
    const struct span all = {INT64_MIN, INT64_MAX};
    assert_int_equal(delete_by(&f, MATCHER_REGEX, "(", all), STATUS_BAD_INPUT);
    char *large = calloc(1, f.limits.delete_bytes_max + 1);
    assert_non_null(large);
    memset(large, 'x', f.limits.delete_bytes_max);
    assert_int_equal(delete_by(&f, MATCHER_EQUAL, large, all), STATUS_TOO_LARGE);
    free(large);
    /* Only deletes that a block needs wait; the others hide what is in memory and are done. */
    write_one(&f, 1, t, 1);
    for (uint64_t i = 0; i < 3 * f.limits.deletes_max; i++) {
        assert_int_equal(delete_by(&f, MATCHER_EQUAL, "7", all), STATUS_OK);
        fixture_maintain(&f);
    }
    f.now_ms += 2 * WINDOW_MS;
    fixture_maintain(&f);
    write_one(&f, 2, f.now_ms, 1);
    for (uint64_t i = 0; i < f.limits.deletes_max; i++)
        assert_int_equal(delete_by(&f, MATCHER_EQUAL, "7", all), STATUS_OK);
    assert_int_equal(delete_by(&f, MATCHER_EQUAL, "1", all), STATUS_BUSY);
    assert_int_equal(metric_get(METRIC_deletes_refused), 1);
    series_expect(&f, 1, (struct sample[]){{t, 1}}, 1);
    fixture_maintain(&f); /* blocks are written anew by themselves, when many wait */
    assert_int_equal(metric_get(METRIC_deletes_pending), 0);
    assert_int_equal(metric_get(METRIC_blocks_cleaned), 0); /* it was only marked: nothing in it was hidden */
    assert_int_equal(delete_by(&f, MATCHER_EQUAL, "1", all), STATUS_OK);
    series_expect(&f, 1, NULL, 0);
    assert_int_equal(metric_get(METRIC_deletes_pending), 1);
    clean(&f);
    struct storage_status status;
    storage_status(f.storage, &status);
    assert_int_equal(status.blocks, 0);
    fixture_reopen(&f);
    series_expect(&f, 1, NULL, 0);
    series_expect(&f, 2, (struct sample[]){{t + 2 * WINDOW_MS, 1}}, 1);
    fixture_close(&f);
    assert_int_equal(patterns_live, 0);
}

static void delete_begin(struct fixture *f, const char *but, struct outcome *outcome) {
    const struct matcher matchers[] = {
        {.kind = MATCHER_NOT_EQUAL, .name = slice_str("i"), .value = slice_str(but)},
        {.kind = MATCHER_REGEX, .name = slice_str("i"), .value = slice_str("1")},
    };
    const struct delete_selector selectors[] = {{matchers, 1}, {matchers + 1, 1}};
    uint64_t before = metric_get(METRIC_deletes_applying);
    assert_int_equal(delete_submit(f, selectors, 2, INT64_MIN, INT64_MAX, outcome), STATUS_OK);
    while (metric_get(METRIC_deletes_applying) == before)
        if (!storage_step(f->storage, f->now_ms))
            storage_wait(f->storage, 10);
}

/* Writes do not wait for a delete that meets many series: they are answered before it, and stay. */
static void test_slices(void **state) {
    (void)state;
    struct fixture f;
    struct outcome first, second;
    open_small(&f);
    f.limits.delete_slice_series = 1;
    int64_t t = f.now_ms;
    for (int series = 0; series < SERIES; series++) {
        write_one(&f, series, t, 1);
        write_one(&f, series, t + 1, 2);
        write_one(&f, series, t - 1000, 3); /* late */
    }
    delete_begin(&f, "5", &first);
    assert_int_equal(write_one(&f, 20, t, 1).samples_stored, 1); /* the same again */
    assert_int_equal(write_one(&f, 21, t + 2, 1).samples_stored, 1);
    assert_int_equal(write_one(&f, 22, t - 1000, 7).samples_stored, 1);
    assert_int_equal(write_one(&f, 5, t, 1).samples_equal, 1);   /* met by neither selector */
    assert_int_equal(write_one(&f, 99, t, 1).samples_stored, 1); /* was not there */
    assert_false(first.done);
    /* What is to be cut waits, and another delete for that. */
    f.now_ms += 2 * WINDOW_MS;
    (void)storage_maintain(f.storage, f.now_ms);
    f.now_ms -= 2 * WINDOW_MS;
    delete_begin(&f, "20", &second);
    assert_true(first.done);
    assert_int_equal(write_one(&f, 23, t, 4).samples_stored, 1);
    assert_false(second.done);
    assert_int_equal(outcome_wait(&f, &second), STATUS_OK);
    assert_int_equal(first.result.status, STATUS_OK);
    for (int round = 0; round < 2; round++) {
        series_expect(&f, 20, (struct sample[]){{t, 1}}, 1);
        series_expect(&f, 23, (struct sample[]){{t, 4}}, 1);
        for (int series = 0; series < SERIES; series++)
            if (series != 20 && series != 23)
                series_expect(&f, series, NULL, 0);
        fixture_reopen(&f);
    }
    fixture_close(&f);
}

static void random_write(struct fixture *f, struct rand *rand) {
    struct batch *b = batch_new();
    int count = 1 + (int)rand_below(rand, SERIES);
    for (int i = 0; i < count; i++) {
        int series = (int)rand_below(rand, SERIES);
        bool twice = false;
        int64_t time_ms = f->now_ms + (int64_t)rand_below(rand, 3);
        if (rand_below(rand, 3) == 0) /* late */
            time_ms -= (int64_t)rand_below(rand, 5 * (uint64_t)WINDOW_MS) / 500 * 500;
        struct sample sample = {time_ms, double_bits((double)rand_below(rand, 4))};
        for (size_t j = 0; j < b->batch.sample_count; j++)
            twice |= b->batch.samples[j].time_ms == time_ms;
        if (twice) /* which of two in one request counts is told elsewhere */
            continue;
        batch_add(b, series, time_ms, sample.value_bits);
        model_put(series, sample);
    }
    assert_int_equal(batch_write(f, b).status, STATUS_OK);
}

/* One that goes on while others write. */
static struct outcome ahead = {.done = true};

static void ahead_finish(struct fixture *f) {
    assert_int_equal(outcome_wait(f, &ahead), STATUS_OK);
}

static size_t random_delete(struct fixture *f, struct rand *rand) {
    static const enum matcher_kind kinds[] = {MATCHER_EQUAL, MATCHER_EQUAL, MATCHER_NOT_EQUAL, MATCHER_REGEX,
                                              MATCHER_NOT_REGEX};
    struct matcher matchers[3];
    char values[3][16];
    size_t selectors = 1 + rand_below(rand, 3), gone = 0;
    struct delete_selector list[3];
    struct span span = {INT64_MIN, INT64_MAX};
    if (rand_below(rand, 8) != 0) {
        span.min_ms = f->now_ms - (int64_t)rand_below(rand, 6 * (uint64_t)WINDOW_MS);
        span.max_ms = span.min_ms + (int64_t)rand_below(rand, (uint64_t)WINDOW_MS);
    }
    for (size_t i = 0; i < selectors; i++) {
        snprintf(values[i], sizeof values[i], "%d", (int)rand_below(rand, SERIES + 2));
        matchers[i] = (struct matcher){kinds[rand_below(rand, rand_below(rand, 4) ? 2 : 5)], slice_str("i"),
                                       slice_str(values[i]), NULL};
        list[i] = (struct delete_selector){&matchers[i], 1};
    }
    ahead_finish(f);
    int status = delete_submit(f, list, selectors, span.min_ms, span.max_ms, &ahead);
    if (status == STATUS_BUSY) {
        ahead = (struct outcome){.done = true};
        return 0;
    }
    assert_int_equal(status, STATUS_OK);
    for (int series = 0; series < SERIES; series++) {
        char text[16];
        bool matches = false;
        snprintf(text, sizeof text, "%d", series);
        for (size_t i = 0; i < selectors; i++) {
            bool equal = strcmp(text, values[i]) == 0,
                 begins = strncmp(text, values[i], strlen(values[i])) == 0;
            matches |= matchers[i].kind == MATCHER_EQUAL       ? equal
                       : matchers[i].kind == MATCHER_NOT_EQUAL ? !equal
                       : matchers[i].kind == MATCHER_REGEX     ? begins
                                                               : !begins;
        }
        if (matches)
            gone += model_delete(series, span);
    }
    return gone;
}

static void random_run(uint64_t seed) {
    struct fixture f;
    struct rand rand;
    size_t gone = 0;
    rand_init(&rand, seed);
    open_small(&f);
    for (int round = 0; round < 300; round++) {
        switch (rand_below(&rand, 16)) {
        case 0:
        case 1:
            gone += random_delete(&f, &rand);
            break;
        case 2:
            f.now_ms += WINDOW_MS;
            fixture_maintain(&f);
            break;
        case 3: /* a slice of whatever is going on */
            for (int i = 0; i < 3; i++) {
                (void)storage_maintain(f.storage, f.now_ms);
                (void)storage_step(f.storage, f.now_ms);
            }
            break;
        case 4:
            if (rand_below(&rand, 4) == 0)
                fixture_reopen(&f);
            break;
        case 5:
            if (rand_below(&rand, 6) == 0)
                clean(&f);
            break;
        case 6:
            ahead_finish(&f);
            series_expect(&f, (int)(seed % SERIES), model[seed % SERIES], counts[seed % SERIES]);
            break;
        default:
            f.now_ms += (int64_t)rand_below(&rand, 6000);
            random_write(&f, &rand);
        }
        if (round % 40 == 39) {
            ahead_finish(&f);
            check(&f);
        }
    }
    ahead_finish(&f);
    check(&f);
    clean(&f);
    check(&f);
    fixture_reopen(&f);
    check(&f);
    assert_true(gone > 0);
    fixture_close(&f);
    assert_int_equal(patterns_live, 0);
}

static void test_random(void **state) {
    (void)state;
    const char *one = getenv("TEST_SEED");
    for (uint64_t seed = 1; seed <= 4; seed++) {
        if (one != NULL)
            seed = strtoull(one, NULL, 10);
        print_message("seed %llu\n", (unsigned long long)seed);
        random_run(seed);
        if (one != NULL)
            break;
    }
}

/* Deletes that come as fast as they are saved do not keep windows from being cut. */
static void test_stream(void **state) {
    (void)state;
    struct fixture f;
    open_small(&f);
    const int64_t begin_ms = f.now_ms;
    for (int window = 0; window < 2; window++) {
        assert_int_equal(write_one(&f, 0, f.now_ms, double_bits(window)).status, STATUS_OK);
        f.now_ms += 2 * WINDOW_MS;
        if (window == 0)
            fixture_maintain(&f); /* a block that needs them */
    }
    assert_int_equal(metric_get(METRIC_blocks_cut), 1);
    for (int i = 0; i < 30; i++) {
        assert_int_equal(delete_by(&f, MATCHER_EQUAL, "7", (struct span){begin_ms, begin_ms + i}), STATUS_OK);
        (void)storage_maintain(f.storage, f.now_ms);
    }
    assert_int_equal(metric_get(METRIC_blocks_cut), 2);
    fixture_close(&f);
}

/* Who asks for what was deleted to be cleaned out gets an answer, however many more deletes come. */
static void test_clean_stream(void **state) {
    (void)state;
    struct fixture f;
    int status = 1, rounds = 0;
    open_small(&f);
    f.limits.deletes_max = 100000;
    const int64_t begin_ms = f.now_ms;
    for (int window = 0; window < 2; window++) {
        write_one(&f, 1, f.now_ms, 1);
        write_one(&f, 2, f.now_ms, 1);
        f.now_ms += 2 * WINDOW_MS;
        fixture_maintain(&f);
    }
    assert_int_equal(delete_by(&f, MATCHER_EQUAL, "1", (struct span){INT64_MIN, INT64_MAX}), STATUS_OK);
    assert_int_equal(storage_deletes_clean(f.storage, clean_set, &status), STATUS_OK);
    for (; status == 1 && rounds < 1000; rounds++) {
        assert_int_equal(
            delete_by(&f, MATCHER_EQUAL, "7", (struct span){begin_ms - rounds, begin_ms + 9 * WINDOW_MS}),
            STATUS_OK);
        (void)storage_maintain(f.storage, f.now_ms);
    }
    assert_int_equal(status, STATUS_OK);
    assert_int_equal(metric_get(METRIC_blocks_cleaned), 2);
    assert_in_range(rounds, 4, 40);
    fixture_close(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spans),  cmocka_unit_test(test_hidden), cmocka_unit_test(test_payload),
        cmocka_unit_test(test_stream), cmocka_unit_test(test_again),  cmocka_unit_test(test_refused),
        cmocka_unit_test(test_random), cmocka_unit_test(test_slices), cmocka_unit_test(test_clean_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
