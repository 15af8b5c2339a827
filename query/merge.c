/* merge.c: series that come to have the same labels become one. */
#include "query/eval.h"

struct merge {
    struct eval_node base;
    struct eval_node *child;
    const char *error_text;
    bool strict;
    bool is_read;
    struct label_table table;
    struct kept_series *series; /* parallel to table.sets */
    size_t at;
    double *values;
    uint64_t *present;
};

/* Joins `more` into what is kept of the same labels. */
static int merge_join(struct merge *merge, struct kept_series *kept, const struct eval_series *more) {
    size_t count = merge->base.grid.count;
    column_unpack(&merge->base.grid, &kept->column, merge->values, merge->present);
    for (BITS_EACH(i, more->present, count)) {
        if (bits_get(merge->present, i))
            return eval_fail(merge->base.eval, "%s", merge->error_text);
        bits_set(merge->present, i);
        merge->values[i] = more->values[i];
    }
    merge->base.eval->samples_held -= kept->column.count;
    /* The mark of the one that comes first in time. */
    if (bits_next(more->present, 0, count) < bits_next(kept->column.present, 0, count))
        kept->drop_name = more->drop_name;
    struct eval_series joined = {.values = merge->values, .present = merge->present};
    return column_keep(merge->base.eval, &merge->base.grid, &joined, &kept->column);
}

static int merge_read(struct merge *merge) {
    int status = STATUS_OK;
    struct eval *eval = merge->base.eval;
    struct eval_series series;
    while ((status = node_next(merge->child, &series)) == STATUS_OK) {
        if (!bits_any(series.present, merge->base.grid.count))
            continue;
        size_t index;
        bool added;
        TRY(label_table_find(eval, &merge->table, series.labels, series.label_count, &index, &added));
        if (!added) {
            if (merge->strict)
                return eval_fail(eval, "%s", merge->error_text);
            TRY(merge_join(merge, &merge->series[index], &series));
            continue;
        }
        struct kept_series *grown = eval_push(eval, merge->series, index, sizeof *grown);
        if (grown == NULL)
            return eval_no_room(eval);
        merge->series = grown;
        merge->series[index].labels = merge->table.sets[index].labels;
        merge->series[index].label_count = series.label_count;
        merge->series[index].drop_name = series.drop_name;
        TRY(column_keep(eval, &merge->base.grid, &series, &merge->series[index].column));
    }
    if (status == STATUS_END)
        status = STATUS_OK;
out:
    return status;
}

static int merge_next(struct eval_node *node, struct eval_series *out) {
    struct merge *merge = (struct merge *)node;
    if (!merge->is_read) {
        int status = merge_read(merge);
        if (status < 0)
            return status;
        merge->is_read = true;
    }
    if (merge->at == merge->table.count)
        return STATUS_END;
    struct kept_series *kept = &merge->series[merge->at++];
    column_unpack(&node->grid, &kept->column, merge->values, merge->present);
    node->eval->samples_held -= kept->column.count;
    *out =
        (struct eval_series){kept->labels, kept->label_count, merge->values, merge->present, kept->drop_name};
    return STATUS_OK;
}

int merge_node(struct eval *eval, struct eval_node *child, bool strict, const char *error_text,
               struct eval_node **out) {
    struct merge *merge = node_new(eval, sizeof *merge, child->grid, merge_next);
    if (merge == NULL)
        return eval_no_room(eval);
    merge->child = child;
    merge->strict = strict;
    merge->error_text =
        error_text != NULL ? error_text : "vector cannot contain metrics with the same labelset";
    merge->values = eval_alloc(eval, (child->grid.count + 1) * sizeof(double));
    merge->present = eval_alloc(eval, (bits_words(child->grid.count) + 1) * 8);
    if (merge->values == NULL || merge->present == NULL)
        return eval_no_room(eval);
    *out = &merge->base;
    return STATUS_OK;
}
