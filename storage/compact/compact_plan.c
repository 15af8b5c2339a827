/* compact_plan.c: which blocks to merge next. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "storage/compact/compact.h"

#define RANGE_MS_MAX  (INT64_C(31) * 24 * 3600 * 1000)
#define LEVEL_FACTOR  3
#define WEIGHT_FACTOR 4 /* later blocks are merged into what is at most so many times as heavy */
#define DEPTH_MAX     8 /* more light blocks than this over one are merged with each other */
#define PATIENCE      3 /* so many ranges late, a window is merged though data for it is still coming */

int64_t compact_range_max(int64_t window_ms, int64_t retention_ms) {
    int64_t range_ms = retention_ms == 0 ? RANGE_MS_MAX : retention_ms / 10;
    if (range_ms > RANGE_MS_MAX)
        range_ms = RANGE_MS_MAX;
    return range_ms < window_ms ? window_ms : range_ms;
}

struct plan {
    const struct compact_block *blocks;
    const struct compact_rules *rules;
    size_t count;
    size_t *by_time; /* indexes, by time_min */
    size_t *stack;   /* of the overlapping blocks at hand, by position */
    bool *taken;
};

static bool overlap(const struct compact_block *a, const struct compact_block *b) {
    return a->time_min_ms <= b->time_max_ms && b->time_min_ms <= a->time_max_ms;
}

static int time_order(const void *a, const void *b, void *context) {
    const struct compact_block *blocks = context, *x = &blocks[*(const size_t *)a],
                               *y = &blocks[*(const size_t *)b];
    if (x->time_min_ms != y->time_min_ms)
        return x->time_min_ms < y->time_min_ms ? -1 : 1;
    return (x->position > y->position) - (x->position < y->position);
}

static int position_order(const void *a, const void *b, void *context) {
    const struct compact_block *blocks = context, *x = &blocks[*(const size_t *)a],
                               *y = &blocks[*(const size_t *)b];
    if (x->position != y->position)
        return x->position < y->position ? -1 : 1;
    return (x > y) - (x < y); /* as they were given */
}

/* ---- Overlaps ----------------------------------------------------------------------------------------- */

/* stack[from] and all above it that lie over it, or over one of those, and so on: then nothing that was
 * logged between two of them lies between them. 0: one of them is held, or they are too many. */
static size_t pile(struct plan *plan, size_t from, size_t count, size_t *chosen) {
    const struct compact_block *bottom = &plan->blocks[plan->stack[from]];
    struct compact_block hull = {.time_min_ms = bottom->time_min_ms, .time_max_ms = bottom->time_max_ms};
    for (size_t i = from; i < count; i++)
        plan->taken[i] = i == from;
    for (bool grown = true; grown;) {
        grown = false;
        for (size_t i = from; i < count; i++) {
            const struct compact_block *block = &plan->blocks[plan->stack[i]];
            if (plan->taken[i] || !overlap(block, &hull))
                continue;
            plan->taken[i] = grown = true;
            if (block->time_min_ms < hull.time_min_ms)
                hull.time_min_ms = block->time_min_ms;
            if (block->time_max_ms > hull.time_max_ms)
                hull.time_max_ms = block->time_max_ms;
        }
    }
    size_t chosen_count = 0;
    for (size_t i = from; i < count; i++) {
        if (!plan->taken[i])
            continue;
        if (plan->blocks[plan->stack[i]].is_held || chosen_count == COMPACT_INPUTS_MAX)
            return 0;
        chosen[chosen_count++] = plan->stack[i];
    }
    return chosen_count > 1 ? chosen_count : 0;
}

/* What lies on stack[from] directly. */
static uint64_t weight_above(const struct plan *plan, size_t from, size_t count) {
    uint64_t bytes = 0;
    const struct compact_block *bottom = &plan->blocks[plan->stack[from]];
    for (size_t i = from + 1; i < count; i++)
        if (overlap(&plan->blocks[plan->stack[i]], bottom))
            bytes += plan->blocks[plan->stack[i]].bytes;
    return bytes;
}

/* Many light blocks inside the time of stack[from]: the last of them, as many as are not much lighter than
 * those behind them together, so that their sizes stay a geometric series. All that lie over it and were
 * logged later are among them, or they begin behind the last one that is not. */
static size_t litter_plan(const struct plan *plan, size_t from, size_t count, size_t *chosen) {
    const struct compact_block *bottom = &plan->blocks[plan->stack[from]];
    size_t found = 0;
    for (size_t i = from + 1; i < count; i++) {
        const struct compact_block *block = &plan->blocks[plan->stack[i]];
        if (!overlap(block, bottom))
            continue;
        if (block->is_held || block->time_min_ms < bottom->time_min_ms ||
            block->time_max_ms > bottom->time_max_ms) {
            found = 0;
            continue;
        }
        if (found == COMPACT_INPUTS_MAX) {
            memmove(chosen, chosen + 1, (found - 1) * sizeof *chosen);
            found--;
        }
        chosen[found++] = plan->stack[i];
    }
    if (found <= DEPTH_MAX)
        return 0;
    uint64_t behind = 0;
    size_t first = found - 1;
    for (; first > 0; first--) {
        behind += plan->blocks[chosen[first]].bytes;
        if (found - first > 1 && plan->blocks[chosen[first - 1]].bytes > behind)
            break;
    }
    memmove(chosen, chosen + first, (found - first) * sizeof *chosen);
    return found - first;
}

static size_t stack_plan(struct plan *plan, size_t count, size_t *chosen) {
    size_t found = 0;
    qsort_r(plan->stack, count, sizeof *plan->stack, position_order, (void *)(uintptr_t)plan->blocks);
    for (size_t from = 0; from + 1 < count && found == 0; from++)
        if (plan->blocks[plan->stack[from]].bytes / WEIGHT_FACTOR <= weight_above(plan, from, count))
            found = pile(plan, from, count, chosen);
    for (size_t from = 0; from + 1 < count && found == 0; from++)
        found = litter_plan(plan, from, count, chosen);
    return found;
}

/* The blocks from by_time[from] on that hang together; returns how many, and puts them on the stack. */
static size_t stack_take(struct plan *plan, size_t from) {
    size_t count = 0;
    int64_t end_ms = INT64_MIN;
    for (size_t i = from; i < plan->count; i++) {
        const struct compact_block *block = &plan->blocks[plan->by_time[i]];
        if (count > 0 && block->time_min_ms > end_ms)
            break;
        if (block->time_max_ms > end_ms)
            end_ms = block->time_max_ms;
        plan->stack[count++] = plan->by_time[i];
    }
    return count;
}

static size_t overlaps_plan(struct plan *plan, size_t *chosen) {
    for (size_t from = 0; from < plan->count;) {
        size_t count = stack_take(plan, from), found = stack_plan(plan, count, chosen);
        if (found > 0)
            return found;
        from += count;
    }
    return 0;
}

/* ---- Levels ------------------------------------------------------------------------------------------- */

/* The end of the aligned window that holds the time: [*begin, *end). False if there is no such number. */
static bool window_of(int64_t time_ms, int64_t range_ms, int64_t *begin_ms, int64_t *end_ms) {
    int64_t number = time_ms / range_ms - (time_ms % range_ms < 0);
    return !__builtin_mul_overflow(number, range_ms, begin_ms) &&
           !__builtin_add_overflow(*begin_ms, range_ms, end_ms);
}

static bool window_is_over(const struct compact_rules *rules, int64_t begin_ms, int64_t end_ms) {
    int64_t range_ms = end_ms - begin_ms, due_ms, late_ms;
    if (__builtin_add_overflow(end_ms, rules->window_ms, &due_ms) || due_ms > rules->cut_ms)
        return false;
    if (rules->is_busy == NULL || !rules->is_busy(rules->context, begin_ms, end_ms))
        return true;
    return !__builtin_mul_overflow(range_ms, PATIENCE, &late_ms) &&
           !__builtin_add_overflow(end_ms, late_ms, &late_ms) && late_ms <= rules->cut_ms;
}

/* The blocks from by_time[*at] on that begin in the same window; *at moves behind them. */
static size_t window_plan(struct plan *plan, int64_t range_ms, size_t *at, int64_t *reached_ms,
                          size_t *chosen) {
    int64_t begin_ms, end_ms, column_end_ms = INT64_MIN;
    size_t count = 0, columns = 0;
    if (!window_of(plan->blocks[plan->by_time[*at]].time_min_ms, range_ms, &begin_ms, &end_ms)) {
        ++*at;
        return 0;
    }
    bool fits = *reached_ms < begin_ms; /* nothing from before reaches into it */
    for (; *at < plan->count; ++*at) {
        const struct compact_block *block = &plan->blocks[plan->by_time[*at]];
        if (block->time_min_ms >= end_ms)
            break;
        fits &= !block->is_held && block->time_max_ms < end_ms && count < COMPACT_INPUTS_MAX;
        if (fits)
            chosen[count++] = plan->by_time[*at];
        columns += columns == 0 || block->time_min_ms > column_end_ms;
        if (block->time_max_ms > column_end_ms)
            column_end_ms = block->time_max_ms;
    }
    if (column_end_ms > *reached_ms)
        *reached_ms = column_end_ms;
    if (!fits || columns < 2 || !window_is_over(plan->rules, begin_ms, end_ms))
        return 0;
    qsort_r(chosen, count, sizeof *chosen, position_order, (void *)(uintptr_t)plan->blocks);
    return count;
}

static size_t levels_plan(struct plan *plan, size_t *chosen) {
    int64_t range_ms = plan->rules->window_ms;
    while (range_ms <= plan->rules->range_ms_max / LEVEL_FACTOR) {
        range_ms *= LEVEL_FACTOR;
        int64_t reached_ms = INT64_MIN;
        for (size_t at = 0; at < plan->count;) {
            size_t found = window_plan(plan, range_ms, &at, &reached_ms, chosen);
            if (found > 0)
                return found;
        }
    }
    return 0;
}

/* ---- */

size_t compact_plan(const struct compact_block *blocks, size_t count, const struct compact_rules *rules,
                    size_t *chosen_out) {
    ASSERT(rules->window_ms > 0);
    if (count == 0)
        return 0;
    size_t found = 0;
    struct plan plan = {.blocks = blocks, .rules = rules, .count = count};
    plan.by_time = mem_alloc(count * sizeof *plan.by_time);
    plan.stack = mem_alloc(count * sizeof *plan.stack);
    plan.taken = mem_alloc(count * sizeof *plan.taken);
    if (plan.by_time == NULL || plan.stack == NULL || plan.taken == NULL)
        goto out; /* another time */
    for (size_t i = 0; i < count; i++)
        plan.by_time[i] = i;
    qsort_r(plan.by_time, count, sizeof *plan.by_time, time_order, (void *)(uintptr_t)blocks);
    found = overlaps_plan(&plan, chosen_out);
    if (found == 0)
        found = levels_plan(&plan, chosen_out);
out:
    mem_free(plan.by_time);
    mem_free(plan.stack);
    mem_free(plan.taken);
    return found;
}
