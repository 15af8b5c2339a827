/* sort.c: sort, sort_desc, sort_by_label, sort_by_label_desc: of instant queries; ranges are ordered by
 * labels. */
#include <stdlib.h>

#include "query/eval.h"
#include "query/functions.h"

struct sort {
    struct eval_node base;
    struct eval_node *child;
    struct ast *call;
    bool is_read;
    struct sort_entry *entries;
    size_t count, at;
    uint64_t present;
    size_t compared;
    int status; /* negative: stopped while sorting */
};

struct sort_entry {
    struct kept_series series;
    struct sort *sort;
};

static int value_order(double a, double b, bool descending) {
    if (isnan(a) || isnan(b))
        return (isnan(a) ? 1 : 0) - (isnan(b) ? 1 : 0); /* NaN last, both ways */
    int order = (a > b) - (a < b);
    return descending ? -order : order;
}

/* The run of digits or of other bytes at the front. */
static struct slice chunk_take(struct slice *text) {
    size_t len = 1;
    bool digits = text->data[0] >= '0' && text->data[0] <= '9';
    while (len < text->len && (text->data[len] >= '0' && text->data[len] <= '9') == digits)
        len++;
    struct slice chunk = slice_of(text->data, len);
    *text = slice_of(text->data + len, text->len - len);
    return chunk;
}

/* Runs of digits compare by value, what does not fit an int64 by bytes. */
static bool chunk_number(struct slice chunk, int64_t *out) {
    int64_t value = 0;
    for (size_t i = 0; i < chunk.len; i++) {
        if (chunk.data[i] < '0' || chunk.data[i] > '9' || __builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, chunk.data[i] - '0', &value))
            return false;
    }
    *out = value;
    return true;
}

static int natural_order(struct slice a, struct slice b) {
    struct slice left = a, right = b;
    while (left.len > 0 && right.len > 0) {
        struct slice x = chunk_take(&left), y = chunk_take(&right);
        int64_t m, n;
        int order = chunk_number(x, &m) && chunk_number(y, &n) ? (m > n) - (m < n) : slice_compare(x, y);
        if (order != 0)
            return order;
    }
    if (left.len > 0 || right.len > 0)
        return left.len > 0 ? 1 : -1;
    return slice_compare(a, b);
}

static int entry_order(const void *left, const void *right) {
    const struct sort_entry *a = left, *b = right;
    const struct ast *call = a->sort->call;
    enum function_id id = call->call.function->id;
    if (call->call.function->how == FUNCTION_HOW_SORT)
        return value_order(a->series.column.values[0], b->series.column.values[0], id == FUNCTION_SORT_DESC);
    int order = 0;
    for (size_t i = 1; i < call->call.arg_count && order == 0; i++) {
        if ((a->sort->compared++ & 0xffff) == 0 && a->sort->status >= 0)
            a->sort->status = eval_check(a->sort->base.eval);
        if (a->sort->status < 0)
            return 0; /* come to an end */
        struct slice name = ast_unparen(call->call.args[i])->string;
        order = natural_order(labels_get(a->series.labels, a->series.label_count, name),
                              labels_get(b->series.labels, b->series.label_count, name));
    }
    if (order == 0)
        order =
            labels_compare(a->series.labels, a->series.label_count, b->series.labels, b->series.label_count);
    return id == FUNCTION_SORT_BY_LABEL_DESC ? -order : order;
}

static int sort_read(struct sort *sort) {
    int status;
    struct eval_series series;
    while ((status = node_next(sort->child, &series)) == STATUS_OK) {
        if (!bits_any(series.present, sort->base.grid.count))
            continue;
        struct sort_entry *grown = eval_push(sort->base.eval, sort->entries, sort->count, sizeof *grown);
        if (grown == NULL)
            return eval_no_room(sort->base.eval);
        sort->entries = grown;
        grown[sort->count].sort = sort;
        TRY(series_keep(sort->base.eval, &sort->base.grid, &series, &grown[sort->count].series));
        sort->count++;
    }
    if (status < 0)
        return status;
    if (sort->count > 0)
        qsort(sort->entries, sort->count, sizeof *sort->entries, entry_order);
    status = sort->status;
out:
    return status;
}

static int sort_next(struct eval_node *node, struct eval_series *out) {
    struct sort *sort = (struct sort *)node;
    if (!sort->is_read) {
        int status = sort_read(sort);
        if (status < 0)
            return status;
        sort->is_read = true;
    }
    if (sort->at == sort->count)
        return STATUS_END;
    struct kept_series *kept = &sort->entries[sort->at++].series;
    sort->present = 1;
    *out = (struct eval_series){kept->labels, kept->label_count, kept->column.values, &sort->present,
                                kept->drop_name};
    return STATUS_OK;
}

int sort_node(struct eval *eval, struct ast *call, struct grid grid, struct eval_node **out) {
    struct eval_node *child;
    int status = node_build(eval, call->call.args[0], grid, &child);
    if (status < 0)
        return status;
    if (eval->request->range)
        annotate(eval, false, call->start,
                 "PromQL warning: sort is ineffective for range queries since results are always ordered by "
                 "labels");
    if (grid.count != 1) {
        *out = child;
        return STATUS_OK;
    }
    struct sort *sort = node_new(eval, sizeof *sort, grid, sort_next);
    if (sort == NULL)
        return eval_no_room(eval);
    sort->child = child;
    sort->call = call;
    sort->base.unique_nameless = child->unique_nameless;
    *out = &sort->base;
    return STATUS_OK;
}
