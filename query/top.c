/* top.c: topk and bottomk: one small heap a group and step. */
#include <stdlib.h>

#include "query/eval.h"

struct heap_entry {
    double value;
    size_t series;
};

struct heap {
    struct heap_entry *entries; /* the next to go is first */
    size_t count;
    size_t capacity;
};

struct top {
    struct eval_node base;
    struct ast *ast;
    struct grouping grouping;
    struct heap **heaps; /* of a group, one a step */
    size_t *k;           /* at every step */
    bool is_bottom;
    bool is_read;
    struct label **labels; /* of the series that were ever among the best */
    size_t *label_counts;
    bool *drop_names;
    size_t series_count;
    /* What is handed out: entries sorted by series, then step; for an instant query in order of the heaps. */
    struct {
        size_t series;
        size_t step;
        double value;
    } * points;
    size_t point_count, at;
    double *values;
    uint64_t *present;
};

/* Goes a before b in the heap: for topk the smallest first, NaN smallest of all; for bottomk the largest, NaN
 * largest. */
static bool heap_before(bool is_bottom, double a, double b) {
    if (isnan(a))
        return true;
    return is_bottom ? a > b : a < b;
}

static void heap_up(bool is_bottom, struct heap_entry *entries, size_t at) {
    while (at > 0) {
        size_t parent = (at - 1) / 2;
        if (!heap_before(is_bottom, entries[at].value, entries[parent].value))
            break;
        struct heap_entry entry = entries[at];
        entries[at] = entries[parent];
        entries[parent] = entry;
        at = parent;
    }
}

static void heap_down(bool is_bottom, struct heap_entry *entries, size_t count) {
    size_t at = 0;
    for (;;) {
        size_t child = at * 2 + 1;
        if (child >= count)
            break;
        if (child + 1 < count && heap_before(is_bottom, entries[child + 1].value, entries[child].value))
            child++;
        if (!heap_before(is_bottom, entries[child].value, entries[at].value))
            break;
        struct heap_entry entry = entries[at];
        entries[at] = entries[child];
        entries[child] = entry;
        at = child;
    }
}

/* Returns 1 if the series got in, 0 if not, or a negative status. */
static int heap_offer(struct top *top, struct heap *heap, size_t k, double value, size_t series) {
    struct eval *eval = top->base.eval;
    if (heap->count < k) {
        if (heap->count == heap->capacity) {
            size_t capacity = heap->capacity == 0 ? 4 : heap->capacity * 2;
            capacity = capacity < k ? capacity : k;
            int status = eval_samples_check(eval, capacity);
            if (status < 0)
                return status;
            struct heap_entry *entries = eval_alloc(eval, capacity * sizeof *entries);
            if (entries == NULL)
                return eval_no_room(eval);
            if (heap->count > 0)
                memcpy(entries, heap->entries, heap->count * sizeof *entries);
            eval->samples_held += capacity - heap->capacity;
            heap->entries = entries;
            heap->capacity = capacity;
        }
        heap->entries[heap->count] = (struct heap_entry){value, series};
        heap_up(top->is_bottom, heap->entries, heap->count++);
        return 1;
    }
    double first = heap->entries[0].value;
    bool better = top->is_bottom ? first > value : first < value;
    if (!better && !(isnan(first) && !isnan(value)))
        return 0;
    heap->entries[0] = (struct heap_entry){value, series};
    heap_down(top->is_bottom, heap->entries, heap->count);
    return 1;
}

static int top_add(struct top *top, const struct eval_series *series) {
    int status = STATUS_OK;
    struct eval *eval = top->base.eval;
    size_t count = top->base.grid.count, index;
    bool added, is_in = false;
    TRY(grouping_find(eval, &top->grouping, series, &index, &added));
    if (added) {
        struct heap **grown = eval_push(eval, top->heaps, index, sizeof *grown);
        if (grown == NULL)
            return eval_no_room(eval);
        top->heaps = grown;
        grown[index] = eval_alloc(eval, (count + 1) * sizeof(struct heap));
        if (grown[index] == NULL)
            return eval_no_room(eval);
    }
    for (BITS_EACH(i, series->present, count)) {
        if (top->k[i] == 0)
            continue;
        TRY(heap_offer(top, &top->heaps[index][i], top->k[i], series->values[i], top->series_count));
        is_in = is_in || status > 0;
        status = STATUS_OK;
    }
    if (!is_in)
        return STATUS_OK;
    struct label **labels = eval_push(eval, top->labels, top->series_count, sizeof *labels);
    size_t *label_counts = eval_push(eval, top->label_counts, top->series_count, sizeof *label_counts);
    bool *drop_names = eval_push(eval, top->drop_names, top->series_count, sizeof *drop_names);
    if (labels == NULL || label_counts == NULL || drop_names == NULL)
        return eval_no_room(eval);
    drop_names[top->series_count] = series->drop_name;
    top->drop_names = drop_names;
    top->labels = labels;
    top->label_counts = label_counts;
    TRY(labels_keep(eval, series->labels, series->label_count, &labels[top->series_count]));
    label_counts[top->series_count++] = series->label_count;
out:
    return status;
}

static int point_order(const void *a, const void *b) {
    const size_t *left = a, *right = b; /* series, step */
    if (left[0] != right[0])
        return left[0] < right[0] ? -1 : 1;
    return (left[1] > right[1]) - (left[1] < right[1]);
}

/* Best first, equal ones as they lie: insertion sort for few, merging for many would do the same. */
static void heap_sort_best(bool is_bottom, struct heap *heap) {
    struct heap_entry *entries = heap->entries;
    if (heap->count <= 64) {
        for (size_t i = 1; i < heap->count; i++) {
            for (size_t k = i; k > 0 && heap_before(is_bottom, entries[k - 1].value, entries[k].value) &&
                               !(isnan(entries[k - 1].value) && isnan(entries[k].value));
                 k--) {
                struct heap_entry entry = entries[k];
                entries[k] = entries[k - 1];
                entries[k - 1] = entry;
            }
        }
        return;
    }
    /* A heap gives its worst first: from the back to the front. */
    for (size_t left = heap->count; left > 1; left--) {
        struct heap_entry entry = entries[0];
        entries[0] = entries[left - 1];
        entries[left - 1] = entry;
        heap_down(is_bottom, entries, left - 1);
    }
}

static int top_finish(struct top *top) {
    struct eval *eval = top->base.eval;
    size_t count = top->base.grid.count, total = 0;
    for (size_t g = 0; g < top->grouping.table.count; g++) {
        for (size_t i = 0; i < count; i++)
            total += top->heaps[g][i].count;
    }
    int status = eval_samples_check(eval, total);
    if (status < 0)
        return status;
    top->points = eval_alloc(eval, (total + 1) * sizeof *top->points);
    if (top->points == NULL)
        return eval_no_room(eval);
    for (size_t g = 0; g < top->grouping.table.count; g++) {
        for (size_t i = 0; i < count; i++) {
            struct heap *heap = &top->heaps[g][i];
            if (count == 1)
                heap_sort_best(top->is_bottom, heap);
            for (size_t k = 0; k < heap->count; k++) {
                top->points[top->point_count].series = heap->entries[k].series;
                top->points[top->point_count].step = i;
                top->points[top->point_count++].value = heap->entries[k].value;
            }
        }
    }
    if (count > 1 && total > 0)
        qsort(top->points, total, sizeof *top->points, point_order);
    return STATUS_OK;
}

static int top_read(struct top *top) {
    int status;
    struct eval_series series;
    size_t count = top->base.grid.count;
    bool any = false;
    for (size_t i = 0; i < count; i++)
        any = any || top->grouping.params[i] >= 1 || isnan(top->grouping.params[i]);
    if (!any)
        return STATUS_OK;
    for (size_t i = 0; i < count; i++) {
        double k = top->grouping.params[i];
        char text[64];
        go_float(k, text);
        if (isnan(k))
            return eval_fail(top->base.eval, "Parameter value is NaN");
        if (k >= 9223372036854775808.0)
            return eval_fail(top->base.eval, "Scalar value %s overflows int64", text);
        if (k < -9223372036854775808.0)
            return eval_fail(top->base.eval, "Scalar value %s underflows int64", text);
        top->k[i] = k < 1 ? 0 : (size_t)k;
    }
    while ((status = node_next(top->grouping.child, &series)) == STATUS_OK)
        TRY(top_add(top, &series));
    if (status == STATUS_END)
        status = top_finish(top);
out:
    return status;
}

static int top_next(struct eval_node *node, struct eval_series *out) {
    struct top *top = (struct top *)node;
    if (!top->is_read) {
        int status = top_read(top);
        if (status < 0)
            return status;
        top->is_read = true;
    }
    if (top->at == top->point_count)
        return STATUS_END;
    memset(top->present, 0, bits_words(node->grid.count) * sizeof *top->present);
    size_t series = top->points[top->at].series;
    for (; top->at < top->point_count && top->points[top->at].series == series; top->at++) {
        top->values[top->points[top->at].step] = top->points[top->at].value;
        bits_set(top->present, top->points[top->at].step);
    }
    *out = (struct eval_series){top->labels[series], top->label_counts[series], top->values, top->present,
                                top->drop_names[series]};
    return STATUS_OK;
}

int top_node(struct eval *eval, struct ast *ast, struct grid grid, struct eval_node **out) {
    int status = STATUS_OK;
    struct top *top = node_new(eval, sizeof *top, grid, top_next);
    if (top == NULL)
        return eval_no_room(eval);
    top->ast = ast;
    top->is_bottom = ast->aggregate.op == TOKEN_BOTTOMK;
    top->values = eval_alloc(eval, (grid.count + 1) * sizeof(double));
    top->k = eval_alloc(eval, (grid.count + 1) * sizeof *top->k);
    top->present = eval_alloc(eval, (bits_words(grid.count) + 1) * 8);
    if (top->values == NULL || top->k == NULL || top->present == NULL)
        return eval_no_room(eval);
    TRY(grouping_open(eval, ast, grid, &top->grouping));
    top->base.unique_nameless = top->grouping.child->unique_nameless;
    *out = &top->base;
out:
    return status;
}
