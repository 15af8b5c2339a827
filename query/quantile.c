/* quantile.c: quantiles of plain values, and the aggregation of that name. */
#include "query/eval.h"

#include "base/alloc.h"

static void value_swap(double *values, size_t a, size_t b) {
    double v = values[a];
    values[a] = values[b];
    values[b] = v;
}

/* Moves the k-th smallest to place k, smaller ones before it, larger ones behind (Hoare's selection, the
 * middle of three as pivot). */
static void values_select(double *values, size_t count, size_t k) {
    size_t low = 0, high = count - 1;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (value_before(values[middle], values[low]))
            value_swap(values, middle, low);
        if (value_before(values[high], values[low]))
            value_swap(values, high, low);
        if (value_before(values[high], values[middle]))
            value_swap(values, high, middle);
        double pivot = values[middle];
        size_t i = low, j = high;
        for (;;) {
            while (value_before(values[i], pivot))
                i++;
            while (value_before(pivot, values[j]))
                j--;
            if (i >= j)
                break;
            value_swap(values, i++, j--);
        }
        if (k <= j)
            high = j;
        else
            low = j + 1;
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
    struct eval_node *child;
    struct slice *names;
    size_t name_count;
    struct label *scratch;
    struct label_table table;
    struct quantile_group *groups;
    double *quantiles; /* at every step */
    bool is_read;
    size_t at;
    double *values;
};

static int quantile_add(struct quantile *node, const struct eval_series *series) {
    int status = STATUS_OK;
    struct eval *eval = node->base.eval;
    size_t words = bits_words(node->base.grid.count), index;
    bool added;
    size_t label_count = labels_select(series->labels, series->label_count, node->names, node->name_count,
                                       !node->ast->aggregate.without, node->scratch);
    TRY(label_table_find(eval, &node->table, node->scratch, label_count, &index, &added));
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
    double highest = -INFINITY, lowest = INFINITY;
    bool any_nan = false;
    for (size_t i = 0; i < node->base.grid.count; i++) {
        highest = fmax(highest, node->quantiles[i]);
        lowest = fmin(lowest, node->quantiles[i]);
        any_nan = any_nan || isnan(node->quantiles[i]);
    }
    size_t at = node->ast->aggregate.param->start;
    if (any_nan)
        annotate_quantile(node->base.eval, at, NAN);
    if (highest > 1)
        annotate_quantile(node->base.eval, at, highest);
    if (lowest < 0)
        annotate_quantile(node->base.eval, at, lowest);
    while ((status = node_next(node->child, &series)) == STATUS_OK) {
        if (bits_any(series.present, node->base.grid.count))
            TRY(quantile_add(node, &series));
    }
    if (status == STATUS_END)
        status = STATUS_OK;
out:
    return status;
}

/* All series of a group, step by step: the packed columns are walked in parallel. */
static int group_finish(struct quantile *node, struct quantile_group *group) {
    int status = STATUS_OK;
    double *values = mem_alloc((group->count + 1) * sizeof *values);
    size_t *next = mem_zalloc((group->count + 1) * sizeof *next);
    if (values == NULL || next == NULL) {
        status = eval_no_room(node->base.eval);
        goto out;
    }
    for (BITS_EACH(i, group->present, node->base.grid.count)) {
        size_t count = 0;
        TRY(eval_tick(node->base.eval));
        for (size_t k = 0; k < group->count; k++) {
            if (bits_get(group->columns[k].present, i))
                values[count++] = group->columns[k].values[next[k]++];
        }
        node->values[i] = quantile_of_values(node->quantiles[i], values, count);
    }
out:
    mem_free(values);
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
    if (node->at == node->table.count)
        return STATUS_END;
    struct quantile_group *group = &node->groups[node->at];
    struct label_set *set = &node->table.sets[node->at++];
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
    node->scratch = eval_alloc(eval, (STORAGE_LABELS_MAX + 2) * sizeof(struct label));
    node->values = eval_alloc(eval, (grid.count + 1) * sizeof(double));
    if (node->scratch == NULL || node->values == NULL)
        return eval_no_room(eval);
    TRY(names_sort(eval, ast->aggregate.labels, ast->aggregate.label_count, &node->names, &node->name_count));
    TRY(scalar_column(eval, ast->aggregate.param, grid, &node->quantiles));
    TRY(node_build(eval, ast->aggregate.expr, grid, &node->child));
    node->base.unique_nameless = names_stay_unique(node->names, node->name_count, ast->aggregate.without);
    *out = &node->base;
out:
    return status;
}
