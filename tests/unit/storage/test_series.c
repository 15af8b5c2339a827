/* test_series.c: the series table against a linear scan over a plain list of label sets. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/rand.h"
#include "storage/series/series.h"

static const struct label_limits limits = {.name_bytes_max = 64, .value_bytes_max = 64, .count_max = 8};

#define MODEL_SERIES 3000
#define MODEL_LABELS 4

/* What the model knows of a series: values of up to four labels, "" where absent. */
struct model {
    char values[MODEL_SERIES][MODEL_LABELS][16];
    uint32_t slots[MODEL_SERIES];
    size_t count;
};
static const char *const model_names[MODEL_LABELS] = {"__name__", "a", "b", "c"};

static void model_bytes(const struct model *model, size_t i, bool reversed, struct buf *buf) {
    buf_clear(buf);
    for (size_t k = 0; k < MODEL_LABELS; k++) {
        size_t at = reversed ? MODEL_LABELS - 1 - k : k;
        label_bytes_append(buf, slice_str(model_names[at]), slice_str(model->values[i][at]));
    }
}

static void model_fill(struct model *model, struct series_table *table, struct rand *rand) {
    struct buf bytes;
    struct arena scratch;
    buf_init(&bytes);
    arena_init(&scratch, 0, 0);
    while (model->count < MODEL_SERIES) {
        size_t i = model->count;
        snprintf(model->values[i][0], 16, "m%d", (int)rand_below(rand, 10));
        for (size_t k = 1; k < MODEL_LABELS; k++)
            if (rand_below(rand, 4) != 0)
                snprintf(model->values[i][k], 16, "v%d", (int)rand_below(rand, k == 3 ? 2000 : 12));
        model_bytes(model, i, rand_below(rand, 2) == 0, &bytes);
        enum label_fault fault;
        uint32_t slot;
        assert_int_equal(series_ensure(table, buf_slice(&bytes), 0, &scratch, &fault, &slot), STATUS_OK);
        assert_int_equal(fault, LABEL_FAULT_NONE);
        bool known = false;
        for (size_t j = 0; j < i; j++) {
            bool equal = memcmp(model->values[i], model->values[j], sizeof model->values[i]) == 0;
            assert_int_equal(equal,
                             model->slots[j] == slot); /* one series a label set, one label set a series */
            known = known || equal;
        }
        if (!known) {
            model->slots[i] = slot;
            model->count++;
        }
        if (model->count < MODEL_SERIES)
            memset(model->values[model->count], 0, sizeof model->values[0]);
    }
    arena_release(&scratch);
    buf_release(&bytes);
}

static bool starts_with_v1(const struct matcher_pattern *pattern, struct slice value) {
    (void)pattern;
    return slice_starts_with(value, slice_str("v1"));
}

static bool is_empty_or_v2(const struct matcher_pattern *pattern, struct slice value) {
    (void)pattern;
    return value.len == 0 || slice_equal(value, slice_str("v2"));
}

static void test_match_equals_scan(void **state) {
    (void)state;
    struct rand rand;
    rand_init(&rand, 7);
    struct series_table *table;
    assert_int_equal(series_table_new(1, &limits, 1000000, &table), STATUS_OK);
    struct model *model = mem_zalloc(sizeof *model);
    model_fill(model, table, &rand);
    assert_int_equal(series_count(table), MODEL_SERIES);

    const struct matcher_pattern with_prefix = {.match = starts_with_v1, .prefix = slice_str("v1")};
    const struct matcher_pattern with_empty = {.match = is_empty_or_v2};
    const char *const values[] = {"", "m1", "m2", "v1", "v2", "v7", "nothing"};
    for (int round = 0; round < 2000; round++) {
        struct matcher matchers[3];
        size_t count = rand_below(&rand, 4);
        for (size_t i = 0; i < count; i++) {
            matchers[i] = (struct matcher){
                .kind = (enum matcher_kind)rand_below(&rand, 4),
                .name = slice_str(rand_below(&rand, 20) == 0 ? "unknown"
                                                             : model_names[rand_below(&rand, MODEL_LABELS)]),
                .value = slice_str(values[rand_below(&rand, 7)])};
            if (matchers[i].kind == MATCHER_REGEX || matchers[i].kind == MATCHER_NOT_REGEX)
                matchers[i].pattern = rand_below(&rand, 2) == 0 ? &with_prefix : &with_empty;
        }
        uint32_t *slots;
        size_t found;
        assert_int_equal(series_match(table, matchers, count, &slots, &found), STATUS_OK);
        size_t at = 0;
        for (size_t s = 0; s < model->count; s++) {
            bool all = true;
            for (size_t i = 0; i < count; i++) {
                struct slice value = {NULL, 0};
                for (size_t k = 0; k < MODEL_LABELS; k++)
                    if (slice_equal(matchers[i].name, slice_str(model_names[k])))
                        value = slice_str(model->values[s][k]);
                all = all && matcher_match(&matchers[i], value);
            }
            if (all) {
                assert_true(at < found);
                assert_int_equal(slots[at], model->slots[s]);
                at++;
            }
        }
        assert_int_equal(at, found);
        mem_free(slots);
    }
    mem_free(model);
    series_table_free(table);
}

/* How many series of the model have the pair; and how many values a name has, in *values_out, with what they
 * take in all series. */
static uint64_t model_count(const struct model *model, size_t name, const char *value) {
    uint64_t count = 0;
    for (size_t i = 0; i < model->count; i++)
        count += strcmp(model->values[i][name], value) == 0;
    return count;
}

static uint64_t model_bytes_of(const struct model *model, size_t name, uint64_t *values_out) {
    uint64_t bytes = 0;
    *values_out = 0;
    for (size_t i = 0; i < model->count; i++) {
        const char *value = model->values[i][name];
        if (value[0] == '\0')
            continue;
        bytes += strlen(model_names[name]) + strlen(value) + 2;
        bool first = true;
        for (size_t j = 0; j < i && first; j++)
            first = strcmp(model->values[j][name], value) != 0;
        *values_out += first;
    }
    return bytes;
}

static size_t name_index(struct slice name) {
    for (size_t k = 0; k < MODEL_LABELS; k++)
        if (slice_equal(name, slice_str(model_names[k])))
            return k;
    fail();
    return 0;
}

static void test_stats_equal_count(void **state) {
    (void)state;
    struct rand rand;
    rand_init(&rand, 8);
    struct series_table *table;
    assert_int_equal(series_table_new(1, &limits, 1000000, &table), STATUS_OK);
    struct model *model = mem_zalloc(sizeof *model);
    model_fill(model, table, &rand);
    struct arena arena;
    arena_init(&arena, 0, 0);
    static const size_t row_limits[] = {1, 3, 10, 10000};
    for (size_t round = 0; round < 4; round++) {
        size_t limit = row_limits[round];
        struct series_stats stats;
        assert_int_equal(series_stats(table, limit, &arena, &stats), STATUS_OK);
        uint64_t pairs = 0, values, metrics;
        for (size_t k = 0; k < MODEL_LABELS; k++) {
            (void)model_bytes_of(model, k, &values);
            pairs += values;
        }
        (void)model_bytes_of(model, 0, &metrics);
        assert_int_equal(stats.series, MODEL_SERIES);
        assert_int_equal(stats.pairs, pairs);
        assert_int_equal(stats.by_metric_count, metrics < limit ? metrics : limit);
        assert_int_equal(stats.by_pair_count, pairs < limit ? pairs : limit);
        assert_int_equal(stats.by_name_count, MODEL_LABELS < limit ? MODEL_LABELS : limit);
        assert_int_equal(stats.by_name_bytes_count, stats.by_name_count);
        uint64_t smallest = UINT64_MAX;
        for (size_t i = 0; i < stats.by_pair_count; i++) {
            char value[17] = {0};
            memcpy(value, stats.by_pair[i].value.data, stats.by_pair[i].value.len);
            uint64_t count = model_count(model, name_index(stats.by_pair[i].name), value);
            assert_int_equal(stats.by_pair[i].count, count);
            assert_true(count <= smallest);
            smallest = count;
        }
        for (size_t i = 0; i < model->count && limit < pairs; i++) /* none that is left out has more */
            for (size_t k = 0; k < MODEL_LABELS; k++) {
                if (model->values[i][k][0] == '\0')
                    continue;
                bool told = false;
                for (size_t j = 0; j < stats.by_pair_count && !told; j++)
                    told = slice_equal(stats.by_pair[j].name, slice_str(model_names[k])) &&
                           slice_equal(stats.by_pair[j].value, slice_str(model->values[i][k]));
                assert_true(told || (i % 50 != 0) || model_count(model, k, model->values[i][k]) <= smallest);
            }
        for (size_t i = 0; i < stats.by_metric_count; i++) {
            char value[17] = {0};
            memcpy(value, stats.by_metric[i].name.data, stats.by_metric[i].name.len);
            assert_int_equal(stats.by_metric[i].count, model_count(model, 0, value));
        }
        for (size_t i = 0; i < stats.by_name_count; i++) {
            (void)model_bytes_of(model, name_index(stats.by_name[i].name), &values);
            assert_int_equal(stats.by_name[i].count, values);
            assert_int_equal(stats.by_name_bytes[i].count,
                             model_bytes_of(model, name_index(stats.by_name_bytes[i].name), &values));
            assert_true(i == 0 || stats.by_name_bytes[i].count <= stats.by_name_bytes[i - 1].count);
        }
    }
    arena_release(&arena);
    mem_free(model);
    series_table_free(table);
}

static void test_labels_come_back_canonical(void **state) {
    (void)state;
    struct series_table *table;
    assert_int_equal(series_table_new(1, &limits, 10, &table), STATUS_OK);
    struct buf bytes, back;
    struct arena scratch;
    buf_init(&bytes);
    buf_init(&back);
    arena_init(&scratch, 0, 0);
    label_bytes_append(&bytes, slice_str("z"), slice_str("1"));
    label_bytes_append(&bytes, slice_str("empty"), slice_str(""));
    label_bytes_append(&bytes, slice_str("__name__"), slice_str("m"));
    enum label_fault fault;
    uint32_t slot;
    assert_int_equal(series_ensure(table, buf_slice(&bytes), 77, &scratch, &fault, &slot), STATUS_OK);
    assert_int_equal(series_id(table, slot), 77);
    struct label labels[4];
    assert_int_equal(series_labels(table, slot, labels, 4), 2);
    assert_true(slice_equal(labels[0].name, slice_str("__name__")));
    assert_true(slice_equal(labels[1].value, slice_str("1")));
    assert_true(slice_equal(series_label(table, slot, slice_str("z")), slice_str("1")));
    assert_int_equal(series_label(table, slot, slice_str("empty")).len, 0);

    /* The canonical bytes find it directly; the bytes as sent do not, but ensure to the same slot. */
    series_labels_append(table, slot, &back);
    assert_int_equal(series_find(table, series_hash(table, buf_slice(&back)), buf_slice(&back)), slot);
    assert_int_equal(series_find(table, series_hash(table, buf_slice(&bytes)), buf_slice(&bytes)), SLOT_NONE);
    uint32_t again;
    assert_int_equal(series_ensure(table, buf_slice(&bytes), 0, &scratch, &fault, &again), STATUS_OK);
    assert_int_equal(again, slot);

    /* The next series gets an id above the one that was given. */
    buf_clear(&bytes);
    label_bytes_append(&bytes, slice_str("__name__"), slice_str("n"));
    assert_int_equal(series_ensure(table, buf_slice(&bytes), 0, &scratch, &fault, &again), STATUS_OK);
    assert_int_equal(series_id(table, again), 78);
    arena_release(&scratch);
    buf_release(&bytes);
    buf_release(&back);
    series_table_free(table);
}

static void test_limit_of_series(void **state) {
    (void)state;
    struct series_table *table;
    assert_int_equal(series_table_new(1, &limits, 3, &table), STATUS_OK);
    struct buf bytes;
    struct arena scratch;
    buf_init(&bytes);
    arena_init(&scratch, 0, 0);
    for (int i = 0; i < 5; i++) {
        char name[16];
        snprintf(name, sizeof name, "m%d", i);
        buf_clear(&bytes);
        label_bytes_append(&bytes, slice_str("__name__"), slice_str(name));
        enum label_fault fault;
        uint32_t slot;
        int status = series_ensure(table, buf_slice(&bytes), 0, &scratch, &fault, &slot);
        assert_int_equal(status, i < 3 ? STATUS_OK : STATUS_BUSY);
    }
    arena_release(&scratch);
    buf_release(&bytes);
    series_table_free(table);
}

/* A series is made once however many threads ask, and nothing that fails for lack of memory stays half made.
 */
static void test_no_memory(void **state) {
    (void)state;
    struct buf bytes, back;
    buf_init(&bytes);
    buf_init(&back);
    label_bytes_append(&bytes, slice_str("__name__"), slice_str("m"));
    label_bytes_append(&bytes, slice_str("a"), slice_str("b"));
    bool clean = false;
    for (uint64_t fail = 1; !clean; fail++) {
        struct series_table *table;
        struct arena scratch;
        assert_int_equal(series_table_new(1, &limits, 10, &table), STATUS_OK);
        arena_init(&scratch, 0, 0);
        enum label_fault fault;
        uint32_t slot;
        mem_fault_set(fail, 0);
        int status = series_ensure(table, buf_slice(&bytes), 0, &scratch, &fault, &slot);
        clean = mem_fault_set(0, 0) < fail;
        assert_int_equal(status, clean ? STATUS_OK : STATUS_NO_MEMORY);
        assert_int_equal(series_ensure(table, buf_slice(&bytes), 0, &scratch, &fault, &slot), STATUS_OK);
        assert_int_equal(series_count(table), 1);
        buf_clear(&back);
        series_labels_append(table, slot, &back);
        assert_true(slice_equal(buf_slice(&back), buf_slice(&bytes)));
        uint32_t *slots;
        size_t count;
        const struct matcher matcher = {
            .kind = MATCHER_EQUAL, .name = slice_str("a"), .value = slice_str("b")};
        assert_int_equal(series_match(table, &matcher, 1, &slots, &count), STATUS_OK);
        assert_int_equal(count, 1);
        mem_free(slots);
        arena_release(&scratch);
        series_table_free(table);
    }
    buf_release(&bytes);
    buf_release(&back);
}

#define THREADS       4
#define THREAD_SERIES 2000

static void *thread_ensure(void *context) {
    struct series_table *table = context;
    struct buf bytes;
    struct arena scratch;
    buf_init(&bytes);
    arena_init(&scratch, 0, 0);
    for (int i = 0; i < THREAD_SERIES; i++) {
        char value[16];
        snprintf(value, sizeof value, "v%d", i);
        buf_clear(&bytes);
        label_bytes_append(&bytes, slice_str("__name__"), slice_str("m"));
        label_bytes_append(&bytes, slice_str("a"), slice_str(value));
        enum label_fault fault;
        uint32_t slot = series_find(table, series_hash(table, buf_slice(&bytes)), buf_slice(&bytes));
        if (slot == SLOT_NONE && series_ensure(table, buf_slice(&bytes), 0, &scratch, &fault, &slot) < 0)
            return (void *)1;
        if (!slice_equal(series_label(table, slot, slice_str("a")), slice_str(value)))
            return (void *)1;
        if (i % 100 == 0) {
            uint32_t *slots;
            size_t count;
            const struct matcher matcher = {
                .kind = MATCHER_EQUAL, .name = slice_str("__name__"), .value = slice_str("m")};
            if (series_match(table, &matcher, 1, &slots, &count) < 0 || count < (size_t)i)
                return (void *)1;
            mem_free(slots);
        }
        arena_reset(&scratch);
    }
    arena_release(&scratch);
    buf_release(&bytes);
    return NULL;
}

static void test_threads(void **state) {
    (void)state;
    struct series_table *table;
    assert_int_equal(series_table_new(1, &limits, 1000000, &table), STATUS_OK);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, thread_ensure, table), 0);
    for (int i = 0; i < THREADS; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    assert_int_equal(series_count(table), THREAD_SERIES);
    series_table_free(table);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_match_equals_scan), cmocka_unit_test(test_labels_come_back_canonical),
        cmocka_unit_test(test_limit_of_series),   cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_threads),           cmocka_unit_test(test_stats_equal_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
