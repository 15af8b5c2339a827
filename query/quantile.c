/* quantile.c: quantiles of plain values, and the aggregation of that name. */
#include "query/eval.h"

#include "base/alloc.h"

/* Moves the values below the pivot (`with_equal`: or equal to it) to the front of [low, end), and returns
 * where they end. No branch depends on a value: half of them would be guessed wrong. */
static inline size_t values_part(double *values, size_t low, size_t end, double pivot, bool with_equal) {
    size_t front = low;
    for (size_t i = low; i < end; i++) {
        double v = values[i];
        values[i] = values[front];
        values[front] = v;
        front += with_equal ? v <= pivot : v < pivot;
    }
    return front;
}

#define PIVOT_SAMPLES     9
#define PIVOT_SAMPLED_MIN 64

/* A value near the k-th smallest of [low, end): of a few, the one whose place among them is that of k. */
static double pivot_choose(const double *values, size_t low, size_t end, size_t k) {
    size_t count = end - low;
    if (count < PIVOT_SAMPLED_MIN)
        return values[low + count / 2];
    double sample[PIVOT_SAMPLES];
    for (size_t i = 0; i < PIVOT_SAMPLES; i++) {
        double v = values[low + (2 * i + 1) * count / (2 * PIVOT_SAMPLES)];
        size_t at = i;
        for (; at > 0 && v < sample[at - 1]; at--)
            sample[at] = sample[at - 1];
        sample[at] = v;
    }
    return sample[(k - low) * PIVOT_SAMPLES / count];
}

/* Moves the k-th smallest to place k, smaller ones before it, larger ones behind. */
static void values_select(double *values, size_t count, size_t k) {
    size_t low = 0, end = count;
    for (size_t i = 0; i < count; i++) { /* NaN first */
        double v = values[i];
        values[i] = values[low];
        values[low] = v;
        low += v != v;
    }
    while (k >= low && end - low > 1) {
        double pivot = pivot_choose(values, low, end, k);
        size_t below = values_part(values, low, end, pivot, false);
        if (k < below)
            end = below;
        else
            low = values_part(values, below, end, pivot, true); /* beyond k: it is the pivot */
    }
}

/* The place below the quantile; false: q is not between 0 and 1, and *out is what there is. */
static bool quantile_place(double q, size_t count, size_t *low, double *weight, double *out) {
    if (count > 0 && q >= 0 && q <= 1) {
        double rank = q * (double)(count - 1);
        *weight = rank - floor(rank);
        *low = (size_t)floor(rank);
        return true;
    }
    *out = count == 0 || isnan(q) ? NAN : q < 0 ? -INFINITY : INFINITY;
    return false;
}

double quantile_of_sorted(double q, const double *values, size_t count) {
    double weight, out;
    size_t low;
    if (!quantile_place(q, count, &low, &weight, &out))
        return out;
    return values[low] * (1 - weight) + values[low + 1 < count ? low + 1 : low] * weight;
}

double quantile_of_values(double q, double *values, size_t count) {
    double weight, out;
    size_t low;
    if (!quantile_place(q, count, &low, &weight, &out))
        return out;
    values_select(values, count, low);
    double below = values[low], above = below;
    if (low + 1 < count) {
        above = values[low + 1];
        for (size_t i = low + 2; i < count; i++)
            above = value_before(values[i], above) ? values[i] : above;
    }
    return below * (1 - weight) + above * weight;
}

void annotate_quantile(struct eval *eval, size_t at, double q) {
    if (q >= 0 && q <= 1)
        return;
    char text[64];
    go_float(q, text);
    annotate(eval, false, at, "PromQL warning: quantile value should be between 0 and 1, got %s", text);
}

/* ---- quantile(φ, v) -------------------------------------------------------------------------------------
 */

struct quantile_group {
    struct kept_column *columns;
    size_t count;
    uint64_t *present;
    bool drop_name;
};

struct quantile {
    struct eval_node base;
    struct ast *ast;
    struct grouping grouping;
    struct quantile_group *groups;
    bool is_read;
    size_t at;
    double *values;
};

static int quantile_add(struct quantile *node, const struct eval_series *series) {
    int status = STATUS_OK;
    struct eval *eval = node->base.eval;
    size_t words = bits_words(node->base.grid.count), index;
    bool added;
    TRY(grouping_find(eval, &node->grouping, series, &index, &added));
    if (added) {
        struct quantile_group *grown = eval_push(eval, node->groups, index, sizeof *grown);
        if (grown == NULL)
            return eval_no_room(eval);
        node->groups = grown;
        grown[index] = (struct quantile_group){.present = eval_alloc(eval, (words + 1) * 8)};
        if (grown[index].present == NULL)
            return eval_no_room(eval);
    }
    struct quantile_group *group = &node->groups[index];
    struct kept_column *columns = eval_push(eval, group->columns, group->count, sizeof *columns);
    if (columns == NULL)
        return eval_no_room(eval);
    group->columns = columns;
    TRY(column_keep(eval, &node->base.grid, series, &columns[group->count]));
    group->count++;
    group->drop_name = group->drop_name || series->drop_name;
    for (size_t i = 0; i < words; i++)
        group->present[i] |= series->present[i];
out:
    return status;
}

static int quantile_read(struct quantile *node) {
    int status;
    struct eval_series series;
    struct value_range q = values_range(node->grouping.params, node->base.grid.count);
    size_t at = node->ast->aggregate.param->start;
    if (q.any_nan)
        annotate_quantile(node->base.eval, at, NAN);
    if (q.highest > 1)
        annotate_quantile(node->base.eval, at, q.highest);
    if (q.lowest < 0)
        annotate_quantile(node->base.eval, at, q.lowest);
    while ((status = node_next(node->grouping.child, &series)) == STATUS_OK) {
        if (bits_any(series.present, node->base.grid.count))
            TRY(quantile_add(node, &series));
    }
    if (status == STATUS_END)
        status = STATUS_OK;
out:
    return status;
}

/* Steps that are looked at together: a divisor of the bits in a word. */
#define TILE_STEPS 16

/* The values of all series at steps [from, from + TILE_STEPS), step by step; the packed columns are walked in
 * parallel. */
static void tile_fill(const struct quantile_group *group, size_t from, size_t *next, double *tile,
                      size_t *counts) {
    memset(counts, 0, TILE_STEPS * sizeof *counts);
    for (size_t k = 0; k < group->count; k++) {
        const struct kept_column *column = &group->columns[k];
        uint64_t bits = column->present[from / 64] >> (from % 64) & ((UINT64_C(1) << TILE_STEPS) - 1);
        for (; bits != 0; bits &= bits - 1) {
            size_t step = (size_t)__builtin_ctzll(bits);
            tile[step * group->count + counts[step]++] = column->values[next[k]++];
        }
    }
}

static int group_finish(struct quantile *node, struct quantile_group *group) {
    int status = STATUS_OK;
    double *tile = mem_alloc((group->count * TILE_STEPS + 1) * sizeof *tile);
    size_t *next = mem_zalloc((group->count + 1) * sizeof *next), counts[TILE_STEPS];
    if (tile == NULL || next == NULL) {
        status = eval_no_room(node->base.eval);
        goto out;
    }
    for (size_t from = 0; from < node->base.grid.count; from += TILE_STEPS) {
        tile_fill(group, from, next, tile, counts);
        for (size_t step = 0; step < TILE_STEPS; step++) {
            TRY(eval_tick(node->base.eval));
            if (counts[step] > 0)
                node->values[from + step] = quantile_of_values(node->grouping.params[from + step],
                                                               tile + step * group->count, counts[step]);
        }
    }
out:
    mem_free(tile);
    mem_free(next);
    return status;
}

static int quantile_next(struct eval_node *base, struct eval_series *out) {
    struct quantile *node = (struct quantile *)base;
    int status = STATUS_OK;
    if (!node->is_read) {
        TRY(quantile_read(node));
        node->is_read = true;
    }
    if (node->at == node->grouping.table.count)
        return STATUS_END;
    struct quantile_group *group = &node->groups[node->at];
    struct label_set *set = &node->grouping.table.sets[node->at++];
    TRY(group_finish(node, group));
    *out =
        (struct eval_series){set->labels, set->label_count, node->values, group->present, group->drop_name};
out:
    return status;
}

int quantile_node(struct eval *eval, struct ast *ast, struct grid grid, struct eval_node **out) {
    int status = STATUS_OK;
    struct quantile *node = node_new(eval, sizeof *node, grid, quantile_next);
    if (node == NULL)
        return eval_no_room(eval);
    node->ast = ast;
    node->values = eval_alloc(eval, (grid.count + 1) * sizeof(double));
    if (node->values == NULL)
        return eval_no_room(eval);
    TRY(grouping_open(eval, ast, grid, &node->grouping));
    TRY(grouping_labels_ask(&node->grouping));
    node->base.unique_nameless = grouping_unique(&node->grouping);
    *out = &node->base;
out:
    return status;
}
