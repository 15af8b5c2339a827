/* test_labels.c: label names and values, asked for in all the ways there are, against what a selection of the
 * same series has: with the head, blocks, ranges that cut blocks, and deletes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/rand.h"
#include "tests/unit/storage/storage_fixture.h"

#define WINDOW_MS   INT64_C(60000)
#define SERIES      120
#define WINDOWS     8
#define ODD_WINDOWS 3
#define TEXTS_MAX   512

static struct fixture f;
static int64_t first_ms;

/* ---- What is stored: each window lacks every fifth series, another one each time, and the last ones all
 * that are odd ---- */

static bool is_odd(int series) {
    return series % 10 == 3;
}

static void series_labels_write(struct buf *out, int series) {
    char text[16];
    snprintf(text, sizeof text, "m%d", series % 3);
    label_bytes_append(out, slice_str("__name__"), slice_str(text));
    snprintf(text, sizeof text, "g%d", series % 7);
    label_bytes_append(out, slice_str("g"), slice_str(text));
    snprintf(text, sizeof text, "i%d", series);
    label_bytes_append(out, slice_str("i"), slice_str(text));
    if (is_odd(series))
        label_bytes_append(out, slice_str("odd"), slice_str("yes"));
}

static void scrape(int window, int64_t time_ms) {
    struct batch *b = batch_new();
    for (int series = 0; series < SERIES; series++) {
        if (series % 5 == window % 5 || (is_odd(series) && window >= ODD_WINDOWS))
            continue;
        size_t at = b->batch.series_count++;
        b->offsets[at] = b->labels.len;
        series_labels_write(&b->labels, series);
        b->offsets[at + 1] = b->labels.len;
        b->batch.samples[at] = (struct sample){time_ms + series % 7, double_bits(series)};
        b->batch.series[at] = (struct batch_series){.sample_first = (uint32_t)at, .sample_count = 1};
        b->batch.sample_count++;
    }
    for (size_t i = 0; i < b->batch.series_count; i++) /* the labels may have moved */
        b->batch.series[i].labels =
            slice_of(b->labels.data + b->offsets[i], b->offsets[i + 1] - b->offsets[i]);
    struct storage_write_result result = batch_write(&f, b);
    assert_int_equal(result.samples_refused, 0);
    assert_int_equal(result.status, STATUS_OK);
}

static int setup(void **state) {
    (void)state;
    fixture_open(&f, IO_BACKEND_SYSCALL);
    storage_close(f.storage);
    f.limits.window_ms = (uint64_t)WINDOW_MS;
    f.limits.window_grace_ms = 5000;
    f.limits.retention_ms = 0;
    f.limits.block_range_ms_max = 3 * (uint64_t)WINDOW_MS;
    f.now_ms -= f.now_ms % WINDOW_MS;
    fixture_open_storage(&f);
    first_ms = f.now_ms;
    for (int window = 0; window < WINDOWS; window++)
        for (int part = 0; part < 3; part++) {
            scrape(window, f.now_ms);
            f.now_ms += WINDOW_MS / 3;
            fixture_maintain(&f);
        }
    struct storage_status status;
    storage_status(f.storage, &status);
    assert_true(status.blocks > 1);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    fixture_close(&f);
    return 0;
}

/* ---- The same from a selection ---- */

struct texts {
    char text[TEXTS_MAX][24];
    size_t count;
};

static int text_order(const void *a, const void *b) {
    return strcmp(a, b);
}

static void texts_add(struct texts *texts, struct slice text) {
    char copy[24] = {0};
    snprintf(copy, sizeof copy, "%.*s", SLICE_ARGS(text));
    for (size_t i = 0; i < texts->count; i++)
        if (strcmp(texts->text[i], copy) == 0)
            return;
    assert_true(texts->count < TEXTS_MAX);
    memcpy(texts->text[texts->count++], copy, sizeof copy);
}

static bool texts_have(const struct texts *texts, const char *text) {
    for (size_t i = 0; i < texts->count; i++)
        if (strcmp(texts->text[i], text) == 0)
            return true;
    return false;
}

struct question {
    struct slice name; /* empty: names */
    struct matcher matchers[2];
    size_t matcher_count;
    int64_t start_ms;
    int64_t end_ms;
};

static void select_texts(const struct question *q, int64_t start_ms, int64_t end_ms, struct texts *out) {
    struct storage_selection *selection;
    struct label labels[STORAGE_LABELS_MAX];
    out->count = 0;
    assert_int_equal(
        storage_select(f.storage, q->matchers, q->matcher_count, start_ms, end_ms, 0, &selection), STATUS_OK);
    for (size_t i = 0; i < selection_series_count(selection); i++) {
        size_t count = selection_labels(selection, i, labels);
        for (size_t k = 0; k < count; k++)
            if (q->name.len == 0 || slice_equal(labels[k].name, q->name))
                texts_add(out, q->name.len == 0 ? labels[k].name : labels[k].value);
    }
    selection_close(selection);
    qsort(out->text, out->count, sizeof out->text[0], text_order);
}

static void lookup_texts(const struct question *q, size_t limit, struct texts *out, bool *truncated) {
    struct arena arena;
    struct slice *texts;
    size_t count;
    arena_init(&arena, 0, 0);
    int status = q->name.len == 0
                     ? storage_label_names(f.storage, q->matchers, q->matcher_count, q->start_ms, q->end_ms,
                                           limit, &arena, &texts, &count, truncated)
                     : storage_label_values(f.storage, q->name, q->matchers, q->matcher_count, q->start_ms,
                                            q->end_ms, limit, &arena, &texts, &count, truncated);
    assert_int_equal(status, STATUS_OK);
    out->count = 0;
    for (size_t i = 0; i < count; i++)
        texts_add(out, texts[i]);
    assert_int_equal(out->count, count); /* each once */
    for (size_t i = 1; i < count; i++)
        assert_true(strcmp(out->text[i - 1], out->text[i]) < 0);
    arena_release(&arena);
}

static struct question question_make(struct rand *rand) {
    static const char *const names[] = {"", "__name__", "g", "i", "odd", "none"};
    static const char *const values[][4] = {{"m0", "m1", "m2", "m9"},
                                            {"g0", "g3", "g6", "g7"},
                                            {"i0", "i3", "i77", "i119"},
                                            {"yes", "", "no", "yes"},
                                            {"", "x", "", "x"}};
    struct question q = {.name = slice_str(names[rand_below(rand, 6)]), .matcher_count = rand_below(rand, 3)};
    for (size_t i = 0; i < q.matcher_count; i++) {
        size_t name = rand_below(rand, 5);
        q.matchers[i] = (struct matcher){.kind = rand_below(rand, 2) == 0 ? MATCHER_EQUAL : MATCHER_NOT_EQUAL,
                                         .name = slice_str(names[name + 1]),
                                         .value = slice_str(values[name][rand_below(rand, 4)])};
    }
    q.start_ms = INT64_MIN;
    q.end_ms = INT64_MAX;
    if (rand_below(rand, 4) > 0)
        q.start_ms = first_ms + (int64_t)rand_below(rand, (WINDOWS + 2) * (uint64_t)WINDOW_MS) - WINDOW_MS;
    if (rand_below(rand, 4) > 0)
        q.end_ms = (q.start_ms == INT64_MIN ? first_ms : q.start_ms) +
                   (int64_t)rand_below(rand, 3 * (uint64_t)WINDOW_MS);
    return q;
}

/* Exactly what a selection has, or, where no series are looked at, what blocks that the range touches have.
 */
static void question_check(const struct question *q, bool exact) {
    struct texts got, inner, outer, cut;
    bool truncated, own_only = true;
    for (size_t i = 0; i < q->matcher_count; i++)
        own_only = own_only && slice_equal(q->matchers[i].name, q->name);
    lookup_texts(q, 0, &got, &truncated);
    assert_false(truncated);
    select_texts(q, q->start_ms, q->end_ms, &inner);
    int64_t reach = exact || !own_only || (q->matcher_count > 0 && q->name.len == 0) ? 0 : 3 * WINDOW_MS;
    select_texts(q, q->start_ms == INT64_MIN ? INT64_MIN : q->start_ms - reach,
                 q->end_ms == INT64_MAX ? INT64_MAX : q->end_ms + reach, &outer);
    for (size_t i = 0; i < inner.count; i++)
        assert_true(texts_have(&got, inner.text[i]));
    for (size_t i = 0; i < got.count; i++)
        assert_true(texts_have(&outer, got.text[i]));
    for (size_t limit = 1; limit <= got.count + 1; limit += got.count / 2 + 1) {
        lookup_texts(q, limit, &cut, &truncated);
        assert_true(truncated == (limit < got.count));
        assert_int_equal(cut.count, limit < got.count ? limit : got.count);
        assert_memory_equal(cut.text, got.text, cut.count * sizeof cut.text[0]);
    }
}

static void test_lookups(void **state) {
    (void)state;
    struct rand rand;
    rand_init(&rand, 7);
    for (int i = 0; i < 3000; i++) {
        struct question q = question_make(&rand);
        question_check(&q, false);
    }
}

/* What fell silent is told while the range reaches it, and no longer. */
static void test_range(void **state) {
    (void)state;
    static const char *const names[] = {"", "odd"};
    static const struct matcher any = {MATCHER_NOT_EQUAL, {(const uint8_t *)"i", 1}, {NULL, 0}, NULL};
    for (int i = 0; i < 4; i++) {
        struct texts got;
        bool truncated;
        const char *text = i % 2 == 0 ? "odd" : "yes";
        struct question q = {
            .name = slice_str(names[i % 2]), .matchers = {any}, .matcher_count = (size_t)i / 2};
        q.start_ms = INT64_MIN;
        q.end_ms = first_ms + WINDOW_MS - 1;
        lookup_texts(&q, 0, &got, &truncated);
        assert_true(texts_have(&got, text));
        q.start_ms = first_ms + 2 * ODD_WINDOWS * WINDOW_MS; /* blocks are of up to three windows */
        q.end_ms = INT64_MAX;
        lookup_texts(&q, 0, &got, &truncated);
        assert_false(texts_have(&got, text));
        q.start_ms = first_ms + (WINDOWS + 1) * WINDOW_MS;
        lookup_texts(&q, 0, &got, &truncated);
        assert_int_equal(got.count, 0);
    }
}

/* With deletes that blocks are read with, nothing of what is hidden is told. */
static void test_deletes(void **state) {
    (void)state;
    struct rand rand;
    struct outcome outcome = {0};
    const struct matcher gone = {.kind = MATCHER_EQUAL, .name = slice_str("g"), .value = slice_str("g3")};
    const struct delete_selector selector = {&gone, 1};
    assert_int_equal(delete_submit(&f, &selector, 1, INT64_MIN, INT64_MAX, &outcome), STATUS_OK);
    while (!outcome.done) {
        storage_step(f.storage, f.now_ms);
        storage_wait(f.storage, 1);
    }
    struct texts got;
    bool truncated;
    struct question q = {.name = slice_str("g"), .start_ms = INT64_MIN, .end_ms = INT64_MAX};
    lookup_texts(&q, 0, &got, &truncated);
    assert_int_equal(got.count, 6);
    rand_init(&rand, 8);
    for (int i = 0; i < 1000; i++) {
        q = question_make(&rand);
        question_check(&q, true);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_lookups), cmocka_unit_test(test_range),
                                       cmocka_unit_test(test_deletes)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
