/* histogram.c: quantiles of classic histograms: series of one metric that differ in `le`. */
#include "query/eval.h"

#include <stdio.h>
#include <stdlib.h>

#include "query/functions.h"

struct bucket {
    double bound;
    double count;
};

struct bucket_series {
    double bound;
    double *values;
    uint64_t *present;
    size_t order; /* of arrival: equal bounds stay in it */
};

struct bucket_group {
    struct bucket_series *series;
    size_t count;
    struct slice name; /* for annotations; empty if the series had none */
};

struct histogram_quantile {
    struct eval_node base;
    struct ast *call;
    struct eval_node *child;
    double *quantiles;
    struct label *scratch;
    struct label_table table;
    struct bucket_group *groups;
    bool is_read;
    size_t at;
    struct bucket *buckets;
    double *values;
    uint64_t *present;
};

/* A float as Go's ParseFloat takes it. */
static bool bound_parse(struct slice text, double *out) {
    char copy[128], *end;
    if (text.len == 0 || text.len >= sizeof copy)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] <= ' ' || text.data[i] == '(')
            return false;
        copy[i] = (char)text.data[i];
    }
    copy[text.len] = 0;
    *out = strtod(copy, &end);
    return *end == 0 && end != copy;
}

static void bad_bucket_annotate(struct histogram_quantile *node, struct slice le, struct slice name) {
    struct buf text;
    buf_init(&text);
    buf_append_str(&text, "PromQL warning: bucket label \"le\" is missing or has a malformed value of ");
    text_quote(&text, le);
    if (name.len > 0) {
        buf_append_str(&text, " for metric name ");
        text_quote(&text, name);
    }
    if (!text.failed)
        annotate(node->base.eval, false, node->call->call.args[1]->start, "%.*s", (int)text.len,
                 (const char *)text.data);
    buf_release(&text);
}

static const struct slice le_name = {(const uint8_t *)"le", 2};

static int bucket_add(struct histogram_quantile *node, struct eval_series *series) {
    int status = STATUS_OK;
    struct eval *eval = node->base.eval;
    struct slice le = labels_get(series->labels, series->label_count, le_name);
    struct slice name = labels_get(series->labels, series->label_count, NAME_LABEL);
    struct bucket_series bucket = {0};
    if (!bound_parse(le, &bucket.bound)) {
        bad_bucket_annotate(node, le, name);
        return STATUS_OK;
    }
    size_t words = bits_words(node->base.grid.count), index;
    bool added;
    size_t kept = 0;
    for (size_t i = 0; i < series->label_count; i++) {
        if (!slice_equal(series->labels[i].name, le_name))
            node->scratch[kept++] = series->labels[i];
    }
    struct eval_series rest = {.labels = node->scratch, .label_count = kept};
    labels_drop_name(&rest);
    TRY(label_table_find(eval, &node->table, node->scratch, rest.label_count, &index, &added));
    if (added) {
        struct bucket_group *grown = eval_push(eval, node->groups, index, sizeof *grown);
        if (grown == NULL)
            return eval_no_room(eval);
        node->groups = grown;
        grown[index] = (struct bucket_group){.name = name};
    }
    struct bucket_group *group = &node->groups[index];
    struct bucket_series *grown = eval_push(eval, group->series, group->count, sizeof *grown);
    if (grown == NULL)
        return eval_no_room(eval);
    group->series = grown;
    TRY(eval_samples_check(eval, node->base.grid.count));
    bucket.values = eval_alloc(eval, (node->base.grid.count + 1) * sizeof(double));
    bucket.present = eval_alloc(eval, (words + 1) * 8);
    if (bucket.values == NULL || bucket.present == NULL)
        return eval_no_room(eval);
    memcpy(bucket.values, series->values, node->base.grid.count * sizeof(double));
    memcpy(bucket.present, series->present, words * 8);
    eval->samples_held += node->base.grid.count;
    bucket.order = group->count;
    group->series[group->count++] = bucket;
out:
    return status;
}

static int bucket_order(const void *left, const void *right) {
    const struct bucket_series *a = left, *b = right;
    if (a->bound != b->bound)
        return a->bound < b->bound || isnan(a->bound) ? -1 : 1;
    return (a->order > b->order) - (a->order < b->order);
}

/* Counts that fall from one bucket to the next are lifted. Differences near the last digit are taken for
 * noise, silently. */
struct lift {
    bool forced;
    double bucket_min, bucket_max, diff_max;
};

static void buckets_lift(struct bucket *buckets, size_t count, struct lift *lift) {
    double previous = buckets[0].count;
    for (size_t i = 1; i < count; i++) {
        double current = buckets[i].count;
        if (current == previous)
            continue;
        double scale = fabs(previous) + fabs(current), diff = fabs(previous - current);
        if (isfinite(scale) && scale > 0 && diff / fmin(scale, 1.7976931348623157e308) < 1e-12) {
            buckets[i].count = previous;
        } else if (current < previous) {
            buckets[i].count = previous;
            if (!lift->forced) {
                lift->forced = true;
                lift->bucket_min = buckets[i].bound;
            }
            lift->bucket_max = buckets[i].bound;
            lift->diff_max = diff > lift->diff_max ? diff : lift->diff_max;
        } else {
            previous = current;
        }
    }
}

static double quantile_of(double q, struct bucket *buckets, size_t count, struct lift *lift) {
    if (isnan(q))
        return NAN;
    if (q < 0)
        return -INFINITY;
    if (q > 1)
        return INFINITY;
    if (!(buckets[count - 1].bound == INFINITY))
        return NAN;
    size_t merged = 0;
    for (size_t i = 0; i < count; i++) {
        if (merged > 0 && buckets[merged - 1].bound == buckets[i].bound)
            buckets[merged - 1].count += buckets[i].count;
        else
            buckets[merged++] = buckets[i];
    }
    count = merged;
    buckets_lift(buckets, count, lift);
    if (count < 2)
        return NAN;
    double total = buckets[count - 1].count;
    if (total == 0 || isnan(total))
        return NAN;
    double rank = q * total;
    size_t low = 0, high = count - 1;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (!(buckets[middle].count >= rank))
            low = middle + 1;
        else
            high = middle;
    }
    if (low == count - 1)
        return buckets[count - 2].bound;
    if (low == 0 && buckets[0].bound <= 0)
        return buckets[0].bound;
    double start = 0, end = buckets[low].bound, inside = buckets[low].count;
    if (low > 0) {
        start = buckets[low - 1].bound;
        inside -= buckets[low - 1].count;
        rank -= buckets[low - 1].count;
    }
    return start + (end - start) * (rank / inside);
}

static void lift_annotate(struct histogram_quantile *node, const struct lift *lift, struct slice name,
                          int64_t time_ms) {
    struct buf text;
    buf_init(&text);
    buf_append_str(&text,
                   "PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see "
                   "https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)");
    if (name.len > 0) {
        buf_append_str(&text, " for metric name ");
        text_quote(&text, name);
    }
    buf_append_byte(&text, 0);
    struct annotation *note = text.failed ? NULL
                                          : annotation_find(node->base.eval, true, (const char *)text.data,
                                                            node->call->call.args[1]->start);
    buf_release(&text);
    if (note == NULL)
        return;
    if (!note->is_monotonicity) {
        note->is_monotonicity = true;
        note->bucket_min = lift->bucket_min;
        note->bucket_max = lift->bucket_max;
        note->diff_max = lift->diff_max;
        note->time_min_ms = note->time_max_ms = time_ms;
    }
    note->count++;
    note->bucket_min = fmin(note->bucket_min, lift->bucket_min);
    note->bucket_max = fmax(note->bucket_max, lift->bucket_max);
    note->diff_max = fmax(note->diff_max, lift->diff_max);
    note->time_min_ms = time_ms < note->time_min_ms ? time_ms : note->time_min_ms;
    note->time_max_ms = time_ms > note->time_max_ms ? time_ms : note->time_max_ms;
}

static int quantile_read(struct histogram_quantile *node) {
    int status;
    struct eval_series series;
    size_t largest = 0;
    while ((status = node_next(node->child, &series)) == STATUS_OK) {
        if (bits_any(series.present, node->base.grid.count))
            TRY(bucket_add(node, &series));
    }
    if (status < 0)
        return status;
    status = STATUS_OK;
    for (size_t g = 0; g < node->table.count; g++) {
        struct bucket_group *group = &node->groups[g];
        qsort(group->series, group->count, sizeof *group->series, bucket_order);
        largest = group->count > largest ? group->count : largest;
    }
    node->buckets = eval_alloc(node->base.eval, (largest + 1) * sizeof *node->buckets);
    if (node->buckets == NULL)
        return eval_no_room(node->base.eval);
    for (size_t i = 0; i < node->base.grid.count; i++) {
        double q = node->quantiles[i];
        if (!isnan(q) && q >= 0 && q <= 1)
            continue;
        char text[64];
        go_float(q, text);
        annotate(node->base.eval, false, node->call->call.args[0]->start,
                 "PromQL warning: quantile value should be between 0 and 1, got %s", text);
    }
out:
    return status;
}

static int quantile_next(struct eval_node *base, struct eval_series *out) {
    struct histogram_quantile *node = (struct histogram_quantile *)base;
    if (!node->is_read) {
        int status = quantile_read(node);
        if (status < 0)
            return status;
        node->is_read = true;
    }
    if (node->at == node->table.count)
        return STATUS_END;
    struct bucket_group *group = &node->groups[node->at];
    struct label_set *set = &node->table.sets[node->at++];
    memset(node->present, 0, bits_words(base->grid.count) * 8);
    for (size_t i = 0; i < base->grid.count; i++) {
        size_t count = 0;
        for (size_t k = 0; k < group->count; k++) {
            if (bits_get(group->series[k].present, i))
                node->buckets[count++] = (struct bucket){group->series[k].bound, group->series[k].values[i]};
        }
        if (count == 0)
            continue;
        struct lift lift = {0};
        node->values[i] = quantile_of(node->quantiles[i], node->buckets, count, &lift);
        bits_set(node->present, i);
        if (lift.forced)
            lift_annotate(node, &lift, group->name, grid_time(&base->grid, i));
    }
    *out = (struct eval_series){set->labels, set->label_count, node->values, node->present};
    return STATUS_OK;
}

int histogram_quantile_node(struct eval *eval, struct ast *call, struct grid grid, struct eval_node **out) {
    int status = STATUS_OK;
    struct histogram_quantile *node = node_new(eval, sizeof *node, grid, quantile_next);
    if (node == NULL)
        return eval_no_room(eval);
    node->call = call;
    node->base.unique_nameless = true;
    node->scratch = eval_alloc(eval, (STORAGE_LABELS_MAX + 2) * sizeof(struct label));
    node->values = eval_alloc(eval, (grid.count + 1) * sizeof(double));
    node->present = eval_alloc(eval, (bits_words(grid.count) + 1) * 8);
    if (node->scratch == NULL || node->values == NULL || node->present == NULL)
        return eval_no_room(eval);
    TRY(scalar_column(eval, call->call.args[0], grid, &node->quantiles));
    TRY(node_build(eval, call->call.args[1], grid, &node->child));
    *out = &node->base;
out:
    return status;
}
