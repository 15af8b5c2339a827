/* test_compact_plan.c: which blocks are merged when: single rules, then a year of blocks with late ones among
 * them, merged as planned, with what must hold checked at each step and what it costs at the end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/rand.h"
#include "storage/compact/compact.h"

#define H   INT64_C(3600000)
#define W   (2 * H)
#define DAY (24 * H)

static const struct compact_rules usual = {.window_ms = W, .range_ms_max = 31 * DAY, .cut_ms = 1000 * DAY};

static struct compact_block block(uint64_t id, int64_t begin_ms, int64_t end_ms, uint64_t position,
                                  uint64_t bytes) {
    return (struct compact_block){
        .id = id, .time_min_ms = begin_ms, .time_max_ms = end_ms - 1, .position = position, .bytes = bytes};
}

static size_t plan(const struct compact_block *blocks, size_t count, const struct compact_rules *rules,
                   size_t *chosen) {
    size_t found = compact_plan(blocks, count, rules, chosen);
    assert_true(found <= COMPACT_INPUTS_MAX);
    for (size_t i = 1; i < found; i++)
        assert_true(blocks[chosen[i - 1]].position <= blocks[chosen[i]].position);
    return found;
}

static void test_range_max(void **state) {
    (void)state;
    assert_int_equal(compact_range_max(W, 0), 31 * DAY);
    assert_int_equal(compact_range_max(W, 15 * DAY), 36 * H);
    assert_int_equal(compact_range_max(W, 10000 * DAY), 31 * DAY);
    assert_int_equal(compact_range_max(W, H), W);
}

static void test_levels(void **state) {
    (void)state;
    size_t chosen[COMPACT_INPUTS_MAX];
    struct compact_rules rules = usual;
    struct compact_block blocks[9];
    for (uint64_t i = 0; i < 9; i++)
        blocks[i] = block(i, (int64_t)i * W, (int64_t)(i + 1) * W, i, 100);
    assert_int_equal(plan(blocks, 0, &rules, chosen), 0);
    assert_int_equal(plan(blocks, 1, &rules, chosen), 0); /* alone */
    assert_int_equal(plan(blocks, 9, &rules, chosen), 3); /* the first three */
    assert_true(chosen[0] == 0 && chosen[1] == 1 && chosen[2] == 2);
    rules.cut_ms = 3 * W; /* too fresh: late data may come */
    assert_int_equal(plan(blocks, 3, &rules, chosen), 0);
    rules.cut_ms = 4 * W;
    assert_int_equal(plan(blocks, 3, &rules, chosen), 3);
    rules.range_ms_max = 2 * W; /* short retention: no levels */
    assert_int_equal(plan(blocks, 9, &rules, chosen), 0);
    /* windows are aligned: 2 … 5 are no window */
    assert_int_equal(plan(blocks + 2, 3, &usual, chosen), 2);
    assert_true(chosen[0] == 1 && chosen[1] == 2);
    /* negative times too */
    for (uint64_t i = 0; i < 3; i++)
        blocks[i] = block(i, ((int64_t)i - 3) * W, ((int64_t)i - 2) * W, i, 100);
    assert_int_equal(plan(blocks, 3, &usual, chosen), 3);
    /* the ends of time do no harm */
    blocks[0] = block(0, INT64_MIN, INT64_MIN + 5, 0, 100);
    blocks[1] = block(1, INT64_MIN, INT64_MAX, 1, 100);
    blocks[2] = block(2, INT64_MAX - 5, INT64_MAX, 2, 100);
    assert_int_equal(plan(blocks, 3, &usual, chosen), 3); /* overlaps */
    blocks[1] = block(1, 0, W, 1, 100);
    assert_int_equal(plan(blocks, 3, &usual, chosen), 0);
}

static void test_held(void **state) {
    (void)state;
    size_t chosen[COMPACT_INPUTS_MAX];
    struct compact_block blocks[9];
    for (uint64_t i = 0; i < 9; i++)
        blocks[i] = block(i, (int64_t)i * W, (int64_t)(i + 1) * W, i, 100);
    blocks[1].is_held = true;
    assert_int_equal(plan(blocks, 9, &usual, chosen), 3); /* the next window */
    assert_true(chosen[0] == 3);
    /* what lies over a held block can't reach below it */
    struct compact_block stack[3] = {block(0, 0, W, 1, 100), block(1, 0, W, 2, 100), block(2, 0, W, 3, 100)};
    stack[1].is_held = true;
    assert_int_equal(plan(stack, 3, &usual, chosen), 0);
    stack[1].is_held = false;
    stack[0].is_held = true;
    assert_int_equal(plan(stack, 3, &usual, chosen), 2);
    assert_true(chosen[0] == 1 && chosen[1] == 2);
}

static void test_overlaps(void **state) {
    (void)state;
    size_t chosen[COMPACT_INPUTS_MAX];
    /* a little late data over much: not yet */
    struct compact_block two[2] = {block(0, 0, W, 1, 1000), block(1, H, W, 2, 100)};
    assert_int_equal(plan(two, 2, &usual, chosen), 0);
    two[1].bytes = 250;
    assert_int_equal(plan(two, 2, &usual, chosen), 2);
    /* two late ones of one time are merged without what is below */
    struct compact_block three[3] = {block(0, 0, W, 1, 10000), block(1, H, W, 2, 100),
                                     block(2, H, W, 3, 100)};
    assert_int_equal(plan(three, 3, &usual, chosen), 2);
    assert_true(chosen[0] == 1 && chosen[1] == 2);
    /* the order in the array is of no account */
    struct compact_block turned[3] = {three[2], three[0], three[1]};
    assert_int_equal(plan(turned, 3, &usual, chosen), 2);
    assert_true(chosen[0] == 2 && chosen[1] == 0);
    /* of equal positions the first in the array comes first, whatever its id */
    struct compact_block equal[3] = {block(9, 0, W, 7, 100), block(2, 0, W, 7, 100), block(5, 0, W, 7, 100)};
    assert_int_equal(plan(equal, 3, &usual, chosen), 3);
    assert_true(chosen[0] == 0 && chosen[1] == 1 && chosen[2] == 2);
    /* what was logged between goes along */
    struct compact_block between[3] = {block(0, 0, W, 1, 100), block(1, 0, 9 * W, 2, 10),
                                       block(2, 0, W, 3, 100)};
    assert_int_equal(plan(between, 3, &usual, chosen), 3);
    /* a little late data over two windows does not join them early */
    struct compact_rules fresh = usual;
    fresh.cut_ms = 2 * W;
    struct compact_block across[3] = {block(0, 0, W, 1, 1000), block(1, W, 2 * W, 2, 1000),
                                      block(2, 0, 2 * W, 3, 10)};
    assert_int_equal(plan(across, 3, &fresh, chosen), 0);
    /* many little ones over one: merged in the end, from the top */
    struct compact_block many[10];
    many[0] = block(0, 0, W, 1, 100000);
    for (uint64_t i = 1; i < 10; i++)
        many[i] = block(i, (int64_t)i * H / 10, (int64_t)(i + 1) * H / 10, i + 1, 10);
    assert_int_equal(plan(many, 8, &usual, chosen), 0);
    size_t found = plan(many, 10, &usual, chosen);
    for (size_t i = 0; i < found; i++)
        assert_true(chosen[i] != 0);
}

static bool busy(void *context, int64_t begin_ms, int64_t end_ms) {
    const int64_t *time_ms = context;
    return *time_ms >= begin_ms && *time_ms < end_ms;
}

static void test_busy(void **state) {
    (void)state;
    size_t chosen[COMPACT_INPUTS_MAX];
    int64_t time_ms = W + 5;
    struct compact_rules rules = usual;
    rules.is_busy = busy;
    rules.context = &time_ms;
    struct compact_block blocks[6];
    for (uint64_t i = 0; i < 6; i++)
        blocks[i] = block(i, (int64_t)i * W, (int64_t)(i + 1) * W, i, 100);
    rules.cut_ms = 7 * W;
    assert_int_equal(plan(blocks, 6, &rules, chosen), 3);
    assert_true(chosen[0] == 3); /* the one that is quiet */
    assert_int_equal(plan(blocks, 3, &rules, chosen), 0);
    rules.cut_ms = 12 * W; /* after a while it is merged nevertheless */
    assert_int_equal(plan(blocks, 3, &rules, chosen), 3);
}

/* ---- A year ------------------------------------------------------------------------------------------- */

#define BLOCKS_MAX 4000

struct world {
    struct compact_block blocks[BLOCKS_MAX];
    size_t count;
    uint64_t id, position;
    uint64_t written, merged; /* bytes: first by cutting, then by merging */
    struct compact_rules rules;
    int64_t retention_ms;
};

static void add(struct world *world, int64_t begin_ms, int64_t end_ms, uint64_t bytes) {
    assert_true(world->count < BLOCKS_MAX);
    world->blocks[world->count++] = block(world->id++, begin_ms, end_ms, ++world->position, bytes);
    world->written += bytes;
}

/* What must hold of every plan: nothing that was logged between two of the chosen lies in their time. */
static void check_plan(const struct world *world, const size_t *chosen, size_t found) {
    struct compact_block hull = world->blocks[chosen[0]];
    uint64_t first = hull.position, last = world->blocks[chosen[found - 1]].position;
    for (size_t i = 0; i < found; i++) {
        const struct compact_block *one = &world->blocks[chosen[i]];
        if (one->time_min_ms < hull.time_min_ms)
            hull.time_min_ms = one->time_min_ms;
        if (one->time_max_ms > hull.time_max_ms)
            hull.time_max_ms = one->time_max_ms;
    }
    for (size_t i = 0; i < world->count; i++) {
        const struct compact_block *other = &world->blocks[i];
        bool is_chosen = false;
        for (size_t k = 0; k < found; k++)
            is_chosen |= chosen[k] == i;
        assert_true(is_chosen || other->position < first || other->position > last ||
                    other->time_min_ms > hull.time_max_ms || other->time_max_ms < hull.time_min_ms);
    }
    if (found > 1)
        assert_true(hull.time_max_ms - hull.time_min_ms < world->rules.range_ms_max);
}

static void settle(struct world *world) {
    size_t chosen[COMPACT_INPUTS_MAX], found;
    for (int rounds = 0; (found = plan(world->blocks, world->count, &world->rules, chosen)) > 0; rounds++) {
        assert_true(rounds < 1000); /* it ends */
        check_plan(world, chosen, found);
        struct compact_block merged = world->blocks[chosen[found - 1]];
        merged.id = world->id++;
        merged.bytes = 0;
        for (size_t i = 0; i < found; i++) {
            const struct compact_block *one = &world->blocks[chosen[i]];
            merged.bytes += one->bytes;
            if (one->time_min_ms < merged.time_min_ms)
                merged.time_min_ms = one->time_min_ms;
            if (one->time_max_ms > merged.time_max_ms)
                merged.time_max_ms = one->time_max_ms;
        }
        world->merged += merged.bytes;
        for (size_t i = 0; i < found; i++)
            world->blocks[chosen[i]].bytes = UINT64_MAX; /* to go */
        size_t kept = 0;
        for (size_t i = 0; i < world->count; i++)
            if (world->blocks[i].bytes != UINT64_MAX)
                world->blocks[kept++] = world->blocks[i];
        world->count = kept;
        world->blocks[world->count++] = merged;
    }
}

static void retain(struct world *world, int64_t now_ms) {
    size_t kept = 0;
    for (size_t i = 0; i < world->count; i++)
        if (world->retention_ms == 0 || world->blocks[i].time_max_ms >= now_ms - world->retention_ms)
            world->blocks[kept++] = world->blocks[i];
    world->count = kept;
}

/* How many blocks a time is in, at most. */
static size_t depth(const struct world *world) {
    size_t most = 0;
    for (size_t i = 0; i < world->count; i++) {
        size_t over = 0;
        for (size_t k = 0; k < world->count; k++)
            over += world->blocks[k].time_min_ms <= world->blocks[i].time_min_ms &&
                    world->blocks[k].time_max_ms >= world->blocks[i].time_min_ms;
        if (over > most)
            most = over;
    }
    return most;
}

/* Two-hour blocks for `days`; `late`: so many small blocks for older times between two of them. */
static void year(int days, int64_t retention_ms, int late, double cost_max, size_t count_max,
                 size_t depth_max) {
    struct world *world = mem_zalloc(sizeof *world);
    struct rand rand;
    rand_init(&rand, (uint64_t)late + 1);
    world->rules = usual;
    world->retention_ms = retention_ms;
    world->rules.range_ms_max = compact_range_max(W, retention_ms);
    size_t most = 0, deepest = 0;
    for (int64_t i = 0; i < days * 12; i++) {
        int64_t now_ms = (i + 1) * W;
        world->rules.cut_ms = now_ms;
        add(world, i * W + 10, now_ms - 10, 100000 + rand_below(&rand, 20000));
        for (int k = 0; k < late; k++) {
            uint64_t ago = rand_below(&rand, 4) ? rand_below(&rand, 3) : rand_below(&rand, 100);
            if ((int64_t)ago > i)
                continue;
            int64_t begin_ms = (i - (int64_t)ago) * W;
            add(world, begin_ms + 5, begin_ms + W - 5 - (int64_t)rand_below(&rand, (uint64_t)W / 2),
                500 + rand_below(&rand, 1000));
        }
        retain(world, now_ms);
        settle(world);
        size_t deep = i % 50 == 49 ? depth(world) : 0;
        most = world->count > most ? world->count : most;
        deepest = deep > deepest ? deep : deepest;
    }
    double cost = (double)world->merged / (double)world->written;
    print_message("%d days, %lld kept, %d late blocks a window: at most %zu blocks, %zu over each other, "
                  "each byte merged %.2f times\n",
                  days, (long long)(retention_ms / DAY), late, most, deepest, cost);
    assert_true(cost < cost_max);
    assert_true(most <= count_max);
    assert_true(deepest <= depth_max);
    mem_free(world);
}

static void test_year(void **state) {
    (void)state;
    year(365, 0, 0, 5.5, 40, 1);
    year(365, 365 * DAY, 0, 5.5, 40, 1);
    year(100, 15 * DAY, 0, 4.0, 40, 1);
    year(200, 0, 1, 8.0, 200, 12);
    year(100, 15 * DAY, 5, 8.0, 200, 12);
    year(100, 0, 20, 8.0, 300, 12);
}

/* Anything at all: it ends, and what must hold does. */
static void test_random(void **state) {
    (void)state;
    struct world *world = mem_zalloc(sizeof *world);
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct rand rand;
        rand_init(&rand, seed);
        memset(world, 0, sizeof *world);
        world->rules = usual;
        world->rules.range_ms_max = INT64_MAX; /* not checked here */
        uint64_t count = 1 + rand_below(&rand, 120);
        for (uint64_t i = 0; i < count; i++) {
            int64_t begin_ms = (int64_t)rand_below(&rand, (uint64_t)(20 * DAY));
            add(world, begin_ms,
                begin_ms + 1 + (int64_t)rand_below(&rand, (uint64_t)W * (1 + rand_below(&rand, 30))),
                1 + rand_below(&rand, 1000) * rand_below(&rand, 1000));
            world->blocks[i].is_held = rand_below(&rand, 20) == 0;
        }
        settle(world);
        for (size_t i = 0; i < world->count; i++)
            assert_true(!world->blocks[i].is_held || world->blocks[i].id < count);
    }
    mem_free(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_range_max), cmocka_unit_test(test_levels), cmocka_unit_test(test_held),
        cmocka_unit_test(test_overlaps),  cmocka_unit_test(test_busy),   cmocka_unit_test(test_year),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
