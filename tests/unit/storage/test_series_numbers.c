/* test_series_numbers.c: a copy of the table that is kept by what it says has changed, and loaded into a new
 * one; and loads that are no tables. Series come and go meanwhile. */
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

static const struct label_limits limits = {.name_bytes_max = 64, .value_bytes_max = 4096, .count_max = 8};

#define NUMBERS 4000

/* What a snapshot's label part says. */
struct copy {
    uint8_t *pairs[NUMBERS];
    size_t pair_lens[NUMBERS];
    uint64_t ids[NUMBERS];
    uint32_t lists[NUMBERS][8];
    uint32_t counts[NUMBERS];
    uint32_t pair_end;
    uint32_t slot_end;
};

static void copy_update(struct copy *copy, struct series_table *table, struct rand *rand) {
    uint32_t numbers[256];
    size_t count;
    while ((count = series_changed_slots(table, numbers, 1 + rand_below(rand, 256))) > 0)
        for (size_t i = 0; i < count; i++) {
            uint32_t slot = numbers[i], pair_count = 0;
            assert_true(slot < NUMBERS && slot < series_slot_end(table));
            const uint32_t *pairs = series_pairs(table, slot, &pair_count);
            copy->counts[slot] = pairs == NULL ? 0 : pair_count;
            if (pairs != NULL)
                memcpy(copy->lists[slot], pairs, pair_count * sizeof *pairs);
            copy->ids[slot] = pairs == NULL ? 0 : series_id(table, slot);
            copy->slot_end = slot >= copy->slot_end ? slot + 1 : copy->slot_end;
        }
    while ((count = series_changed_pairs(table, numbers, 1 + rand_below(rand, 256))) > 0)
        for (size_t i = 0; i < count; i++) {
            uint32_t pair = numbers[i];
            assert_true(pair < NUMBERS && pair < series_pair_end(table));
            struct slice bytes = series_pair(table, pair);
            mem_free(copy->pairs[pair]);
            copy->pairs[pair] = bytes.len == 0 ? NULL : (uint8_t *)mem_strndup(bytes.data, bytes.len);
            copy->pair_lens[pair] = bytes.len;
            copy->pair_end = pair >= copy->pair_end ? pair + 1 : copy->pair_end;
        }
}

static int copy_load(const struct copy *copy, unsigned threads, uint64_t seed, struct series_table **out) {
    static struct slice pairs[NUMBERS];
    static struct series_load_entry series[NUMBERS];
    for (uint32_t i = 0; i < copy->pair_end; i++)
        pairs[i] = slice_of(copy->pairs[i], copy->pair_lens[i]);
    for (uint32_t i = 0; i < copy->slot_end; i++)
        series[i] = (struct series_load_entry){copy->ids[i], copy->lists[i], copy->counts[i]};
    const struct series_load load = {pairs, copy->pair_end, series, copy->slot_end, threads};
    assert_int_equal(series_table_new(seed, &limits, 1000000, out), STATUS_OK);
    struct error_detail detail = {0};
    int status = series_load(*out, &load, &detail);
    if (status == STATUS_CORRUPT)
        assert_true(detail.text[0] != '\0');
    return status;
}

static void copy_release(struct copy *copy) {
    for (uint32_t i = 0; i < NUMBERS; i++)
        mem_free(copy->pairs[i]);
    mem_free(copy);
}

/* ---- */

struct world {
    struct series_table *table;
    struct arena scratch;
    struct buf bytes;
    struct rand rand;
    uint32_t churn; /* series are numbered; those below it are silent */
    uint32_t made;
    uint32_t slots[NUMBERS * 4]; /* by number */
};

static void labels_make(struct buf *bytes, uint32_t number) {
    char text[2100];
    buf_clear(bytes);
    snprintf(text, sizeof text, "m%u", number % 7);
    label_bytes_append(bytes, slice_str("__name__"), slice_str(text));
    /* some pairs and series are long, and hashed in another way */
    snprintf(text, sizeof text, "v%0*u", number % 50 == 0 ? 2000 : 1, number);
    label_bytes_append(bytes, slice_str("a"), slice_str(text));
    if (number % 3 == 0) {
        snprintf(text, sizeof text, "n%u", number / 100);
        label_bytes_append(bytes, slice_str(text), slice_str("x"));
    }
    snprintf(text, sizeof text, "z%u", number % 5);
    label_bytes_append(bytes, slice_str("z"), slice_str(text));
}

static void make(struct world *world, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        enum label_fault fault;
        labels_make(&world->bytes, world->made);
        arena_reset(&world->scratch);
        assert_int_equal(series_ensure(world->table, buf_slice(&world->bytes), 0, &world->scratch, &fault,
                                       &world->slots[world->made]),
                         STATUS_OK);
        assert_int_equal(fault, LABEL_FAULT_NONE);
        world->made++;
    }
}

static bool is_silent(void *context, uint32_t slot) {
    struct world *world = context;
    for (uint32_t i = world->churn; i < world->made; i++)
        if (world->slots[i] == slot)
            return false;
    return true;
}

static void retire(struct world *world) {
    const struct series_retire_sink sink = {.is_silent = is_silent, .context = world};
    enum series_retire_state state;
    while ((state = series_retire_step(world->table, &sink, 100)) != SERIES_RETIRE_DONE)
        assert_int_equal(state, SERIES_RETIRE_MORE); /* nothing is pinned */
    series_slots_release(world->table);
}

static void check_equal(struct series_table *a, struct series_table *b, uint32_t count) {
    struct buf x, y;
    buf_init(&x);
    buf_init(&y);
    uint32_t *slots, *others;
    size_t slot_count, other_count;
    assert_int_equal(series_count(b), count);
    assert_int_equal(series_match(a, NULL, 0, &slots, &slot_count), STATUS_OK);
    assert_int_equal(series_match(b, NULL, 0, &others, &other_count), STATUS_OK);
    assert_int_equal(slot_count, count);
    assert_int_equal(other_count, count);
    for (size_t i = 0; i < slot_count; i++) {
        assert_int_equal(slots[i], others[i]);
        buf_clear(&x);
        buf_clear(&y);
        series_labels_append(a, slots[i], &x);
        series_labels_append(b, slots[i], &y);
        assert_true(slice_equal(buf_slice(&x), buf_slice(&y)));
        assert_int_equal(series_id(a, slots[i]), series_id(b, slots[i]));
        assert_int_equal(series_find(b, series_hash(b, buf_slice(&y)), buf_slice(&y)), slots[i]);
    }
    mem_free(slots);
    mem_free(others);
    for (int i = 0; i < 12; i++) {
        char text[16];
        snprintf(text, sizeof text, "%c%d", i < 7 ? 'm' : 'z', i < 7 ? i : i - 7);
        const struct matcher matcher = {MATCHER_EQUAL, slice_str(i < 7 ? "__name__" : "z"), slice_str(text),
                                        NULL};
        assert_int_equal(series_match(a, &matcher, 1, &slots, &slot_count), STATUS_OK);
        assert_int_equal(series_match(b, &matcher, 1, &others, &other_count), STATUS_OK);
        assert_int_equal(slot_count, other_count);
        assert_memory_equal(slots, others, slot_count * sizeof *slots);
        mem_free(slots);
        mem_free(others);
    }
    struct arena arena;
    arena_init(&arena, 0, 0);
    struct series_stats stats, other_stats;
    assert_int_equal(series_stats(a, 1000, &arena, &stats), STATUS_OK);
    assert_int_equal(series_stats(b, 1000, &arena, &other_stats), STATUS_OK);
    assert_int_equal(stats.pairs, other_stats.pairs);
    assert_int_equal(stats.by_name_count, other_stats.by_name_count);
    arena_release(&arena);
    buf_release(&x);
    buf_release(&y);
}

static void test_copy_follows(void **state) {
    (void)state;
    static struct world world;
    world = (struct world){0};
    rand_init(&world.rand, 3);
    assert_int_equal(series_table_new(1, &limits, 1000000, &world.table), STATUS_OK);
    arena_init(&world.scratch, 0, 0);
    buf_init(&world.bytes);
    struct copy *copy = mem_zalloc(sizeof *copy);
    for (int round = 0; round < 12; round++) {
        make(&world, 100 + (uint32_t)rand_below(&world.rand, 400));
        if (round % 3 != 0) {
            world.churn += (uint32_t)rand_below(&world.rand, world.made - world.churn);
            retire(&world);
            assert_int_equal(series_count(world.table), world.made - world.churn);
        }
        if (round % 4 == 3) {
            struct copy *fresh = mem_zalloc(sizeof *fresh);
            copy_release(copy);
            copy = fresh;
            assert_int_equal(series_changed_all(world.table), STATUS_OK);
        }
        copy_update(copy, world.table, &world.rand);
        struct series_table *loaded;
        assert_int_equal(copy_load(copy, 1 + (unsigned)round % 2, 77, &loaded), STATUS_OK);
        check_equal(world.table, loaded, world.made - world.churn);
        uint32_t number;
        assert_int_equal(series_changed_slots(loaded, &number, 1), 0);

        /* It goes on where the other one was: free numbers are used, ids are not. */
        uint64_t id = series_id_next(world.table);
        series_id_next_set(loaded, id);
        enum label_fault fault;
        uint32_t slot;
        labels_make(&world.bytes, 1000000);
        assert_int_equal(series_ensure(loaded, buf_slice(&world.bytes), 0, &world.scratch, &fault, &slot),
                         STATUS_OK);
        assert_int_equal(series_id(loaded, slot), id);
        assert_true(slot == series_count(loaded) - 1 || slot < series_slot_end(world.table));
        series_table_free(loaded);
    }
    assert_true(series_slot_end(world.table) < 2500); /* slots were used again */
    copy_release(copy);
    series_table_free(world.table);
    arena_release(&world.scratch);
    buf_release(&world.bytes);
}

/* Each of these is refused with a line, and without a leak. */
static void test_load_is_checked(void **state) {
    (void)state;
    struct buf m, m2, a, b, two, bad;
    struct buf *const bufs[] = {&m, &m2, &a, &b, &two, &bad};
    for (size_t i = 0; i < 6; i++)
        buf_init(bufs[i]);
    label_bytes_append(&m, slice_str("__name__"), slice_str("m"));
    label_bytes_append(&m2, slice_str("__name__"), slice_str("m2"));
    label_bytes_append(&a, slice_str("a"), slice_str("1"));
    label_bytes_append(&b, slice_str("b"), slice_str("1"));
    label_bytes_append(&two, slice_str("c"), slice_str("1"));
    label_bytes_append(&two, slice_str("d"), slice_str("1"));
    label_bytes_append(&bad, slice_str("e"), slice_str(""));
    const uint32_t lists[][3] = {{0, 2, 3}, {1, 2, 3}, {2, 0, 3}, {0, 1, 3}, {0, 2, 9}, {0, 2, 5}, {0, 0, 2}};
    struct slice pairs[6] = {buf_slice(&m), buf_slice(&m2), buf_slice(&a), buf_slice(&b)};
    for (unsigned threads = 1; threads <= 2; threads++)
        for (size_t which = 0; which < 12; which++) {
            struct series_load_entry series[4] = {{5, lists[0], 3}, {0, NULL, 0}, {6, lists[1], 3}};
            struct series_load load = {pairs, 5, series, 4, threads};
            pairs[4] = (struct slice){NULL, 0};
            if (which >= 1 && which <= 5)
                series[3] = (struct series_load_entry){7, lists[which + 1], 3};
            else if (which == 6)
                series[3] = (struct series_load_entry){7, lists[1], 3}; /* twice */
            else if (which == 7)
                pairs[4] = buf_slice(&two);
            else if (which == 8)
                pairs[4] = buf_slice(&bad);
            else if (which == 9)
                pairs[4] = pairs[0];
            else if (which == 10)
                pairs[4] = slice_of(a.data, a.len - 1);
            else if (which == 11)
                pairs[4] = slice_of(a.data, 1);
            struct series_table *table;
            struct error_detail detail = {0};
            assert_int_equal(series_table_new(1, &limits, 10, &table), STATUS_OK);
            int status = series_load(table, &load, &detail);
            assert_int_equal(status, which == 0 ? STATUS_OK : STATUS_CORRUPT);
            assert_int_equal(detail.text[0] != '\0', which != 0);
            series_table_free(table);
        }
    /* Without memory, too. */
    bool clean = false;
    for (uint64_t fail = 1; !clean; fail++) {
        const struct series_load_entry series[] = {{5, lists[0], 3}, {0, NULL, 0}, {6, lists[1], 3}};
        const struct series_load load = {pairs, 4, series, 3, 1};
        struct series_table *table;
        assert_int_equal(series_table_new(1, &limits, 10, &table), STATUS_OK);
        mem_fault_set(fail, 0);
        int status = series_load(table, &load, NULL);
        clean = mem_fault_set(0, 0) < fail;
        assert_int_equal(status, clean ? STATUS_OK : STATUS_NO_MEMORY);
        series_table_free(table);
    }
    for (size_t i = 0; i < 6; i++)
        buf_release(bufs[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copy_follows),
        cmocka_unit_test(test_load_is_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
