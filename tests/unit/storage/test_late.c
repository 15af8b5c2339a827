/* test_late.c: late samples against an array a series: any order, repetitions and conflicts, windows sealed
 * and dropped, deletes, memory that runs out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rand.h"
#include "storage/late/late.h"
#include "tests/lib/fault.h"

#define SLOTS  20
#define TIMES  3000
#define WINDOW 500

static bool there[SLOTS][TIMES];
static uint64_t bits[SLOTS][TIMES];
static int64_t starts[SLOTS][TIMES];

static struct late_range window_of(int64_t time_ms) {
    int64_t begin_ms = time_ms / WINDOW * WINDOW;
    return (struct late_range){begin_ms, begin_ms + WINDOW};
}

static struct late_range range_of(int64_t time_ms) {
    int64_t begin_ms = time_ms / (3 * WINDOW) * (3 * WINDOW);
    return (struct late_range){begin_ms, begin_ms + 3 * WINDOW};
}

static int add(struct late *late, uint32_t slot, int64_t time_ms, uint64_t value_bits, int64_t start_ms,
               enum late_verdict *verdict, uint64_t *existing) {
    return late_add(late, slot, (struct sample){time_ms, value_bits}, start_ms, 1000, range_of(time_ms),
                    window_of(time_ms), verdict, existing);
}

/* Reads a range of a slot and compares it with the arrays. */
static void expect(struct late *late, uint32_t slot, int64_t min_ms, int64_t max_ms) {
    struct sample_columns columns = {0};
    size_t at = 0;
    assert_int_equal(late_read(late, slot, min_ms, max_ms, &columns), STATUS_OK);
    bool any = false;
    for (int64_t t = min_ms < 0 ? 0 : min_ms; t < TIMES && t <= max_ms; t++) {
        if (!there[slot][t])
            continue;
        any = true;
        assert_true(at < columns.count && columns.times_ms[at] == t);
        assert_memory_equal(&columns.values[at], &bits[slot][t], 8);
        assert_true((columns.has_starts ? columns.starts_ms[at] : START_NONE) == starts[slot][t]);
        at++;
    }
    assert_int_equal(at, columns.count);
    assert_int_equal(late_overlaps(late, slot, min_ms, max_ms), any);
    sample_columns_release(&columns);
}

static void test_random(void **state) {
    (void)state;
    struct late *late;
    struct rand rand;
    rand_init(&rand, 1);
    memset(there, 0, sizeof there);
    assert_int_equal(late_new(&late), STATUS_OK);
    for (int i = 0; i < 40000; i++) {
        uint32_t slot = (uint32_t)rand_below(&rand, SLOTS);
        int64_t t = (int64_t)rand_below(&rand, TIMES);
        uint64_t value = rand_below(&rand, 3), existing = 99;
        int64_t start = rand_below(&rand, 4) ? START_NONE : t - 1;
        enum late_verdict verdict;
        if (rand_below(&rand, 2000) == 0) { /* a window is written to a block */
            struct late_info info;
            if (!late_pick(late, TIMES, INT64_MAX, 0, &info))
                continue;
            for (size_t w = 0; w < late_count(late); w++) {
                struct late_window *window = late_at(late, w);
                struct late_info this;
                late_info(window, &this);
                if (this.sealed || this.range.begin_ms != info.range.begin_ms)
                    continue;
                late_seal(window);
                late_drop(late, window);
                for (int64_t gone = info.range.begin_ms; gone < info.range.end_ms && gone < TIMES; gone++)
                    for (int s = 0; s < SLOTS; s++)
                        there[s][gone] = false;
                break;
            }
            continue;
        }
        if (rand_below(&rand, 300) == 0) {
            int64_t max = t + (int64_t)rand_below(&rand, 400);
            uint64_t want = 0;
            for (int64_t gone = t; gone <= max && gone < TIMES; gone++) {
                want += there[slot][gone];
                there[slot][gone] = false;
            }
            assert_int_equal(late_delete(late, slot, t, max), want);
            expect(late, slot, 0, TIMES);
            continue;
        }
        assert_int_equal(add(late, slot, t, value, start, &verdict, &existing), STATUS_OK);
        if (!there[slot][t]) {
            assert_int_equal(verdict, LATE_STORED);
            there[slot][t] = true;
            bits[slot][t] = value;
            starts[slot][t] = start;
        } else {
            assert_int_equal(verdict, bits[slot][t] == value ? LATE_EQUAL : LATE_CONFLICT);
            assert_int_equal(existing, bits[slot][t]);
        }
        if (i % 100 == 0) {
            int64_t min = (int64_t)rand_below(&rand, TIMES);
            expect(late, slot, min, min + (int64_t)rand_below(&rand, TIMES));
        }
    }
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        expect(late, slot, INT64_MIN, INT64_MAX);
    late_free(late);
}

/* Sealed: what comes for its time goes to another window, and both are read as one. */
static void test_sealed(void **state) {
    (void)state;
    struct late *late;
    enum late_verdict verdict;
    uint64_t existing;
    memset(there, 0, sizeof there);
    memset(starts, 0, sizeof starts);
    assert_int_equal(late_new(&late), STATUS_OK);
    late_now(late, 5);
    for (int64_t t = 100; t < 200; t += 2) {
        assert_int_equal(add(late, 1, t, 7, START_NONE, &verdict, &existing), STATUS_OK);
        there[1][t] = true;
        bits[1][t] = 7;
    }
    struct late_window *window = late_at(late, 0);
    late_seal(window);
    for (int64_t t = 101; t < 200; t += 2) {
        assert_int_equal(add(late, 1, t, 8, START_NONE, &verdict, &existing), STATUS_OK);
        assert_int_equal(verdict, LATE_STORED);
        there[1][t] = true;
        bits[1][t] = 8;
    }
    assert_int_equal(add(late, 1, 102, 9, START_NONE, &verdict, &existing), STATUS_OK);
    assert_int_equal(verdict, LATE_CONFLICT);
    assert_int_equal(late_count(late), 2);
    expect(late, 1, 0, TIMES);
    struct late_info info;
    late_info(window, &info);
    assert_true(info.sealed && info.sample_count == 50 && info.position_first == 1000 && info.since_ms == 5);
    uint32_t *slots;
    size_t count;
    assert_int_equal(late_window_slots(window, &slots, &count), STATUS_OK);
    assert_true(count == 1 && slots[0] == 1);
    mem_free(slots);
    struct sample_columns columns = {0};
    assert_int_equal(late_window_read(window, 1, 0, TIMES, &columns), STATUS_OK);
    assert_int_equal(columns.count, 50);
    sample_columns_release(&columns);
    /* A delete reaches into a sealed one too. */
    assert_int_equal(late_delete(late, 1, 110, 119), 10);
    for (int64_t t = 110; t < 120; t++)
        there[1][t] = false;
    expect(late, 1, 0, TIMES);
    assert_int_equal(late_delete(late, 2, 0, TIMES), 0);
    late_unseal(window);
    late_seal(window);
    late_drop(late, window);
    for (int64_t t = 100; t < 200; t += 2)
        there[1][t] = false;
    expect(late, 1, 0, TIMES);
    assert_int_equal(late_position_first(late), 1000);
    late_free(late);
}

static void test_pick(void **state) {
    (void)state;
    struct late *late;
    struct late_info info;
    enum late_verdict verdict;
    uint64_t existing;
    assert_int_equal(late_new(&late), STATUS_OK);
    assert_false(late_pick(late, INT64_MAX, INT64_MAX, 0, &info));
    assert_true(late_position_first(late) == UINT64_MAX);
    late_now(late, 10);
    for (int64_t t = 0; t < 300; t++)
        add(late, 0, t, 0, START_NONE, &verdict, &existing);
    late_now(late, 20);
    add(late, 0, 3 * WINDOW, 0, START_NONE, &verdict, &existing);
    assert_false(late_pick(late, INT64_MAX, 10, UINT64_MAX, &info)); /* none older, and little memory */
    assert_true(late_pick(late, INT64_MAX, 11, UINT64_MAX, &info));
    assert_int_equal(info.since_ms, 10);
    assert_false(late_pick(late, 3 * WINDOW - 1, 11, UINT64_MAX, &info)); /* it ends behind that */
    assert_true(late_pick(late, INT64_MAX, 0, 100, &info));               /* too much memory: the largest */
    assert_int_equal(info.sample_count, 300);
    assert_true(late_memory_bytes(late) > 300 * 24);
    late_free(late);
}

static void test_edges(void **state) {
    (void)state;
    struct late *late;
    enum late_verdict verdict;
    uint64_t existing;
    struct sample_columns columns = {0};
    assert_int_equal(late_new(&late), STATUS_OK);
    const struct late_range low = {INT64_MIN, 0}, high = {0, INT64_MAX};
    assert_int_equal(late_add(late, UINT32_MAX - 1, (struct sample){INT64_MIN, 1}, START_NONE, 1, low, low,
                              &verdict, &existing),
                     STATUS_OK);
    assert_int_equal(late_add(late, UINT32_MAX - 1, (struct sample){INT64_MAX - 1, 2}, START_NONE, 1, high,
                              high, &verdict, &existing),
                     STATUS_OK);
    assert_int_equal(late_read(late, UINT32_MAX - 1, INT64_MIN, INT64_MAX, &columns), STATUS_OK);
    assert_true(columns.count == 2 && columns.times_ms[0] == INT64_MIN &&
                columns.times_ms[1] == INT64_MAX - 1);
    sample_columns_release(&columns);
    assert_int_equal(late_delete(late, UINT32_MAX - 1, INT64_MIN, INT64_MAX), 2);
    late_free(late);
}

/* A million samples of one series, from the newest to the oldest: bounded time and memory. */
static void test_many(void **state) {
    (void)state;
    struct late *late;
    enum late_verdict verdict;
    uint64_t existing;
    const struct late_range range = {0, 2000000};
    const int64_t count = 1000000;
    assert_int_equal(late_new(&late), STATUS_OK);
    for (int64_t t = count; t-- > 0;)
        assert_int_equal(late_add(late, 3, (struct sample){t, (uint64_t)t}, START_NONE, 1, range, range,
                                  &verdict, &existing),
                         STATUS_OK);
    assert_true(late_memory_bytes(late) < (uint64_t)count * 24 * 5 / 4);
    struct sample_columns columns = {0};
    assert_int_equal(late_read(late, 3, 1000, 1999, &columns), STATUS_OK);
    assert_int_equal(columns.count, 1000);
    for (size_t i = 0; i < columns.count; i++)
        assert_true(columns.times_ms[i] == 1000 + (int64_t)i);
    sample_columns_release(&columns);
    late_free(late);
}

/* Any allocation may fail: nothing is lost, and the same sample can be added again. */
static void test_faults(void **state) {
    (void)state;
    struct fault_sweep sweep = {.kind = FAULT_KIND_ALLOCATION};
    FAULT_SWEEP(&sweep) {
        struct late *late;
        struct rand rand;
        rand_init(&rand, 9);
        memset(there, 0, sizeof there);
        memset(starts, 0, sizeof starts);
        assert_int_equal(late_new(&late), STATUS_OK);
        fault_arm(&sweep, NULL);
        for (int i = 0; i < 700; i++) {
            uint32_t slot = (uint32_t)rand_below(&rand, 3);
            int64_t t = (int64_t)rand_below(&rand, TIMES);
            enum late_verdict verdict;
            uint64_t existing;
            int status = add(late, slot, t, 1, START_NONE, &verdict, &existing);
            assert_true(status == STATUS_OK || status == STATUS_NO_MEMORY);
            if (status == STATUS_NO_MEMORY)
                assert_int_equal(add(late, slot, t, 1, START_NONE, &verdict, &existing), STATUS_OK);
            there[slot][t] = true;
            bits[slot][t] = 1;
        }
        fault_disarm(&sweep, NULL);
        for (uint32_t slot = 0; slot < 3; slot++)
            expect(late, slot, 0, TIMES);
        late_free(late);
    }
    assert_true(sweep.runs > 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random), cmocka_unit_test(test_sealed), cmocka_unit_test(test_pick),
        cmocka_unit_test(test_edges),  cmocka_unit_test(test_many),   cmocka_unit_test(test_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
