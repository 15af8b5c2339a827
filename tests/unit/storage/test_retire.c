/* test_retire.c: series come and go. In the storage: whatever left memory is found in its blocks, and goes on
 * if it comes back; slots are used again within one log segment; memory does not grow with those that went.
 * In the series table: writers, readers and retirement at once. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/metrics.h"
#include "base/rand.h"
#include "storage/series/series.h"
#include "tests/unit/storage/storage_fixture.h"

#define WINDOW_MS INT64_C(60000)
#define MODEL     3000 /* series */
#define PER       60   /* samples of one */

struct model_series {
    struct sample samples[PER];
    size_t count;
};
static struct model_series model[MODEL];

static void open_small(struct fixture *f) {
    fixture_open(f, IO_BACKEND_SYSCALL);
    storage_close(f->storage);
    f->limits.window_ms = (uint64_t)WINDOW_MS;
    f->limits.window_grace_ms = 5000;
    f->limits.retention_ms = 0;
    f->now_ms -= f->now_ms % WINDOW_MS;
    fixture_open_storage(f);
    metrics_reset();
    memset(model, 0, sizeof model);
}

static void write_series(struct fixture *f, int first, int end) {
    while (first < end) {
        struct batch *b = batch_new();
        for (int i = 0; i < 50 && first < end; i++, first++) {
            struct sample sample = {f->now_ms, double_bits(first + (double)f->now_ms / 1000)};
            batch_add(b, first, sample.time_ms, sample.value_bits);
            assert_true(model[first].count < PER);
            model[first].samples[model[first].count++] = sample;
        }
        assert_int_equal(batch_write(f, b).status, STATUS_OK);
    }
}

static void check(struct fixture *f, int end, int step) {
    for (int i = 0; i < end; i += step)
        series_expect(f, i, model[i].samples, model[i].count);
    struct storage_selection *selection;
    assert_int_equal(storage_select(f->storage, NULL, 0, INT64_MIN, INT64_MAX, 0, &selection), STATUS_OK);
    assert_int_equal(selection_series_count(selection), end); /* each once, wherever it is */
    selection_close(selection);
}

static void test_series_come_and_go(void **state) {
    (void)state;
    struct fixture f;
    open_small(&f);
    uint64_t bytes_early = 0;
    int made = 20;
    for (int window = 0; window < 14; window++) {
        for (int round = 0; round < 4; round++) {
            write_series(&f, made, made + 200); /* these live for one window */
            write_series(&f, 0, 20);            /* and these for ever */
            f.now_ms += WINDOW_MS / 4;
            fixture_maintain(&f);
        }
        made += 200;
        struct storage_status status;
        storage_status(f.storage, &status);
        if (window >= 1)
            assert_true(status.series <= 620); /* of this window, of the last ones, and the lasting */
        if (window == 6)
            bytes_early = status.memory_series_bytes;
        if (window == 5 || window == 9)
            fixture_reopen(&f);
        if (window == 8 || window == 13)
            check(&f, made, 7);
        if (window == 10) { /* some come back */
            write_series(&f, 100, 300);
            check(&f, made, 3);
            fixture_reopen(&f);
            check(&f, made, 3);
        }
    }
    struct storage_status status;
    storage_status(f.storage, &status);
    assert_true(metric_get(METRIC_head_series_retired) >= 1500);
    assert_true(status.memory_series_bytes < bytes_early + bytes_early / 10);
    fixture_close(&f);
}

/* A selection keeps what it found while its series leave; a write in flight keeps its series. */
static void test_pins_hold(void **state) {
    (void)state;
    struct fixture f;
    open_small(&f);
    write_series(&f, 0, 100);
    struct storage_selection *selection;
    assert_int_equal(storage_select(f.storage, NULL, 0, INT64_MIN, INT64_MAX, 0, &selection), STATUS_OK);
    assert_int_equal(selection_series_count(selection), 100);
    f.now_ms += 2 * WINDOW_MS;
    write_series(&f, 200, 210);
    fixture_maintain(&f);
    struct storage_status status;
    storage_status(f.storage, &status);
    assert_int_equal(status.series, 110); /* nothing left: the selection may look */
    for (size_t i = 0; i < 100; i++) {
        char text[16];
        snprintf(text, sizeof text, "%zu", i);
        assert_true(slice_equal(selection_label(selection, i, slice_str("i")), slice_str(text)));
    }
    selection_close(selection);

    /* This one was looked up before its series would leave. */
    struct batch *b = batch_new();
    batch_add(b, 5, f.now_ms, double_bits(55));
    model[5].samples[model[5].count++] = (struct sample){f.now_ms, double_bits(55)};
    struct storage_write *write;
    struct error_detail detail = {0};
    assert_int_equal(storage_write_prepare(f.storage, &b->batch, &detail, &write), STATUS_OK);
    fixture_maintain(&f);
    storage_write_free(write);
    fixture_maintain(&f);
    assert_int_equal(batch_write(&f, b).samples_stored, 1);
    fixture_maintain(&f);
    storage_status(f.storage, &status);
    assert_true(status.series <= 110);
    series_expect(&f, 5, model[5].samples, model[5].count);
    f.now_ms += WINDOW_MS;
    write_series(&f, 200, 210);
    f.now_ms += WINDOW_MS;
    write_series(&f, 200, 210);
    fixture_maintain(&f);
    storage_status(f.storage, &status);
    assert_int_equal(status.series, 10);
    fixture_reopen(&f);
    series_expect(&f, 5, model[5].samples, model[5].count);
    fixture_close(&f);
}

/* ---- threads on the table ---- */

#define TABLE_SERIES 600u
#define TABLE_LABELS 3
#define ROUNDS       15000u

static const struct label_limits limits = {.name_bytes_max = 64, .value_bytes_max = 64, .count_max = 8};

struct shared {
    struct series_table *table;
    atomic_uint samples[1 << 16]; /* by slot: what a head would hold */
    atomic_uint writers;
    atomic_bool failed;
};

static void labels_make(struct buf *bytes, uint32_t number) {
    char text[32];
    buf_clear(bytes);
    snprintf(text, sizeof text, "m%u", number % 4);
    label_bytes_append(bytes, slice_str("__name__"), slice_str(text));
    snprintf(text, sizeof text, "v%u", number);
    label_bytes_append(bytes, slice_str("a"), slice_str(text));
    snprintf(text, sizeof text, "n%u", number % 50);
    label_bytes_append(bytes, slice_str(text), slice_str("x"));
}

/* Looks up or makes a series, and stores a sample of it while pinned: it must not leave in between. */
static void *writer_run(void *context) {
    struct shared *shared = context;
    struct arena scratch;
    struct buf bytes, back;
    struct rand rand;
    arena_init(&scratch, 0, 0);
    buf_init(&bytes);
    buf_init(&back);
    rand_init(&rand, atomic_fetch_add(&shared->writers, 1));
    for (unsigned i = 0; i < ROUNDS && !atomic_load(&shared->failed); i++) {
        unsigned pin = series_pin(shared->table);
        labels_make(&bytes, (uint32_t)rand_below(&rand, TABLE_SERIES));
        enum label_fault fault;
        uint32_t slot =
            series_find(shared->table, series_hash(shared->table, buf_slice(&bytes)), buf_slice(&bytes));
        arena_reset(&scratch);
        if (slot == SLOT_NONE &&
            series_ensure(shared->table, buf_slice(&bytes), 0, &scratch, &fault, &slot) < 0)
            atomic_store(&shared->failed, true);
        if (rand_below(&rand, 4) == 0)
            sched_yield(); /* between looking up and applying */
        atomic_fetch_add(&shared->samples[slot], 1);
        if (series_find(shared->table, series_hash(shared->table, buf_slice(&bytes)), buf_slice(&bytes)) !=
            slot)
            atomic_store(&shared->failed, true);
        buf_clear(&back);
        series_labels_append(shared->table, slot, &back);
        if (!slice_equal(buf_slice(&back), buf_slice(&bytes)))
            atomic_store(&shared->failed, true);
        series_unpin(shared->table, pin);
    }
    atomic_fetch_sub(&shared->writers, 1000);
    arena_release(&scratch);
    buf_release(&bytes);
    buf_release(&back);
    return NULL;
}

static bool ends_with_7(const struct matcher_pattern *pattern, struct slice value) {
    (void)pattern;
    return value.len > 0 && value.data[value.len - 1] == '7';
}

static int count_each(void *context, struct slice value, const uint32_t *slots, size_t count) {
    (void)slots, (void)count;
    *(size_t *)context += value.len > 0;
    return STATUS_OK;
}

static int name_each(void *context, struct slice name) {
    *(size_t *)context += name.len > 0;
    return STATUS_OK;
}

/* What is found has the labels asked for, each label set once, as long as it is pinned. */
static void *reader_run(void *context) {
    struct shared *shared = context;
    const struct matcher_pattern pattern = {.match = ends_with_7};
    const struct matcher sets[3][2] = {{{MATCHER_EQUAL, slice_str("__name__"), slice_str("m3"), NULL},
                                        {MATCHER_REGEX, slice_str("a"), slice_str(".*7"), &pattern}},
                                       {{MATCHER_REGEX, slice_str("a"), slice_str(".*7"), &pattern},
                                        {MATCHER_NOT_EQUAL, slice_str("__name__"), slice_str("m1"), NULL}},
                                       {{MATCHER_NOT_EQUAL, slice_str("__name__"), slice_str("m1"), NULL},
                                        {MATCHER_NOT_REGEX, slice_str("a"), slice_str(".*7"), &pattern}}};
    static _Thread_local uint8_t seen[TABLE_SERIES];
    for (unsigned round = 0; atomic_load(&shared->writers) < 1000 && !atomic_load(&shared->failed); round++) {
        unsigned pin = series_pin(shared->table);
        uint32_t *slots = NULL;
        size_t count = 0;
        if (series_match(shared->table, sets[round % 3], 2, &slots, &count) < 0)
            atomic_store(&shared->failed, true);
        memset(seen, 0, sizeof seen);
        for (size_t i = 0; i < count; i++) {
            struct label labels[TABLE_LABELS];
            struct slice a = series_label(shared->table, slots[i], slice_str("a"));
            unsigned number = 0;
            for (size_t k = 1; k < a.len; k++)
                number = number * 10 + (unsigned)(a.data[k] - '0');
            bool ends = ends_with_7(NULL, a);
            if (series_labels(shared->table, slots[i], labels, TABLE_LABELS) != TABLE_LABELS ||
                number >= TABLE_SERIES || seen[number]++ != 0 || ends != (round % 3 != 2) ||
                (round % 3 == 0) > (number % 4 == 3) || (round % 3 != 0 && number % 4 == 1))
                atomic_store(&shared->failed, true);
        }
        mem_free(slots);
        size_t walked = 0;
        (void)series_each_value(shared->table, slice_str("a"), count_each, &walked);
        (void)series_each_name(shared->table, name_each, &walked);
        struct arena arena;
        struct series_stats stats;
        arena_init(&arena, 0, 0);
        if (series_stats(shared->table, 5, &arena, &stats) < 0 || stats.by_metric_count > 4)
            atomic_store(&shared->failed, true);
        arena_release(&arena);
        struct series_memory memory;
        series_memory(shared->table, &memory);
        series_unpin(shared->table, pin);
    }
    return NULL;
}

static bool has_no_sample(void *context, uint32_t slot) {
    return atomic_load(&((struct shared *)context)->samples[slot]) == 0;
}

static void slot_left(void *context, uint32_t slot) {
    struct shared *shared = context;
    if (atomic_load(&shared->samples[slot]) != 0)
        atomic_store(&shared->failed, true);
}

static void test_threads(void **state) {
    (void)state;
    static struct shared shared;
    memset(&shared, 0, sizeof shared);
    assert_int_equal(series_table_new(1, &limits, 1000000, &shared.table), STATUS_OK);
    pthread_t threads[4];
    atomic_init(&shared.writers, 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, i < 2 ? writer_run : reader_run, &shared), 0);
    const struct series_retire_sink sink = {has_no_sample, slot_left, &shared};
    struct rand rand;
    rand_init(&rand, 9);
    uint64_t passes = 0;
    uint32_t numbers[64];
    while (atomic_load(&shared.writers) < 1000) {
        /* "Windows are cut": samples go, of half of the series. */
        uint32_t end = series_slot_end(shared.table);
        for (uint32_t i = 0; i < end; i++)
            if (rand_below(&rand, 2) == 0)
                atomic_store(&shared.samples[i], 0);
        enum series_retire_state step;
        while ((step = series_retire_step(shared.table, &sink, 200)) != SERIES_RETIRE_DONE &&
               atomic_load(&shared.writers) < 1000)
            if (step == SERIES_RETIRE_WAITS)
                sched_yield();
        series_slots_release(shared.table);
        passes++;
        (void)series_changed_slots(shared.table, numbers, 64);
        (void)series_changed_pairs(shared.table, numbers, 64);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_false(atomic_load(&shared.failed));
    assert_true(passes > 3);
    assert_true(series_slot_end(shared.table) < 3 * TABLE_SERIES); /* slots were used again */
    while (series_retire_step(shared.table, &sink, 200) != SERIES_RETIRE_DONE)
        ;
    for (uint32_t i = 0; i < series_slot_end(shared.table); i++)
        atomic_store(&shared.samples[i], 0);
    while (series_retire_step(shared.table, &sink, 200) != SERIES_RETIRE_DONE)
        ;
    while (series_retire_step(shared.table, &sink, 200) != SERIES_RETIRE_DONE)
        ;
    assert_int_equal(series_count(shared.table), 0);
    struct arena arena;
    struct series_stats stats;
    arena_init(&arena, 0, 0);
    assert_int_equal(series_stats(shared.table, 5, &arena, &stats), STATUS_OK);
    assert_int_equal(stats.pairs, 0);
    arena_release(&arena);
    series_table_free(shared.table);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_series_come_and_go),
        cmocka_unit_test(test_pins_hold),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
