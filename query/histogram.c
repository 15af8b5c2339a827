/* histogram.c: histogram_quantile, histogram_quantiles and histogram_fraction of classic histograms: series
 * of one metric that differ in `le`. */
#include "query/eval.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/utf8.h"
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
};

/* One series of a group: a quantile (at the steps where its argument has that value), or the fraction. */
struct output {
    size_t arg;        /* of the call */
    double *params;    /* at every step: the quantile, or the lower bound */
    uint64_t *only;    /* the steps it is for; NULL: all */
    struct slice text; /* histogram_quantiles: the value of the label */
};

struct histogram_call {
    struct eval_node base;
    struct ast *call;
    struct ast *vector;
    struct eval_node *child;
    double *upper;      /* histogram_fraction, at every step */
    struct slice label; /* histogram_quantiles */
    struct output *outputs;
    size_t output_count;
    struct label *scratch;
    struct label_table table;
    struct bucket_group *groups;
    bool is_read;
    size_t at, output_at;
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

static void bad_bucket_annotate(struct histogram_call *node, struct slice le, struct slice name) {
    struct buf text;
    buf_init(&text);
    buf_append_str(&text, "PromQL warning: bucket label \"le\" is missing or has a malformed value of ");
    text_quote(&text, le);
    if (name.len > 0) {
        buf_append_str(&text, " for metric name ");
        text_quote(&text, name);
    }
    if (!text.failed)
        annotate(node->base.eval, false, node->vector->start, "%.*s", (int)text.len, (const char *)text.data);
    buf_release(&text);
}

static const struct slice le_name = {(const uint8_t *)"le", 2};

static int bucket_add(struct histogram_call *node, struct eval_series *series) {
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
    TRY(label_table_find(eval, &node->table, node->scratch, kept, &index, &added));
    if (added) {
        struct bucket_group *grown = eval_push(eval, node->groups, index, sizeof *grown);
        if (grown == NULL)
            return eval_no_room(eval);
        node->groups = grown;
        grown[index] = (struct bucket_group){0};
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

/* Equal bounds are one bucket. */
static size_t buckets_merge(struct bucket *buckets, size_t count) {
    size_t merged = 0;
    for (size_t i = 0; i < count; i++) {
        if (merged > 0 && buckets[merged - 1].bound == buckets[i].bound)
            buckets[merged - 1].count += buckets[i].count;
        else
            buckets[merged++] = buckets[i];
    }
    return merged;
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
    count = buckets_merge(buckets, count);
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

/* How many observations are below `v`, inside bucket i, which starts at `from` with `before` of them. Nothing
 * can be said about places in a bucket that is infinitely wide: what it holds lies at its infinite end. */
static double rank_inside(const struct bucket *bucket, double from, double before, double v) {
    if (isinf(from))
        return bucket->count;
    if (isinf(bucket->bound))
        return before;
    return before + (bucket->count - before) * (v - from) / (bucket->bound - from);
}

/* The part of all observations between two values. */
static double fraction_of(double lower, double upper, struct bucket *buckets, size_t count) {
    if (!(buckets[count - 1].bound == INFINITY) || isnan(lower) || isnan(upper))
        return NAN;
    count = buckets_merge(buckets, count);
    double total = buckets[count - 1].count;
    if (total == 0 || isnan(total))
        return NAN;
    if (lower >= upper)
        return 0;
    double before = 0, lower_rank = total, upper_rank = total;
    bool has_lower = false, has_upper = false;
    for (size_t i = 0; i < count && !(has_lower && has_upper); i++) {
        double from = i > 0 ? buckets[i - 1].bound : buckets[0].bound > 0 ? 0 : -INFINITY;
        double to = buckets[i].bound;
        if (!has_lower && from >= lower) {
            lower_rank = before;
            has_lower = true;
        }
        if (!has_upper && from >= upper) {
            upper_rank = before;
            has_upper = true;
        }
        if (!has_lower && to > lower) {
            lower_rank = rank_inside(&buckets[i], from, before, lower);
            has_lower = true;
        }
        if (!has_upper && to > upper) {
            upper_rank = rank_inside(&buckets[i], from, before, upper);
            has_upper = true;
        }
        before = buckets[i].count;
    }
    lower_rank = lower_rank > total ? total : lower_rank;
    upper_rank = upper_rank > total ? total : upper_rank;
    return (upper_rank - lower_rank) / total;
}

static void lift_annotate(struct histogram_call *node, const struct lift *lift, struct slice name,
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
    struct annotation *note =
        text.failed ? NULL
                    : annotation_find(node->base.eval, true, (const char *)text.data, node->vector->start);
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

static int buckets_read(struct histogram_call *node) {
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
out:
    return status;
}

static void output_fill(struct histogram_call *node, const struct bucket_group *group,
                        const struct output *output, const struct label_set *set) {
    bool is_fraction = node->upper != NULL;
    struct slice name = slice_of(NULL, 0);
    if (node->base.eval->delayed_names)
        name = labels_get(set->labels, set->label_count, NAME_LABEL);
    memset(node->present, 0, bits_words(node->base.grid.count) * 8);
    for (size_t i = 0; i < node->base.grid.count; i++) {
        size_t count = 0;
        if (output->only != NULL && !bits_get(output->only, i))
            continue;
        for (size_t k = 0; k < group->count; k++) {
            if (bits_get(group->series[k].present, i))
                node->buckets[count++] = (struct bucket){group->series[k].bound, group->series[k].values[i]};
        }
        if (count == 0)
            continue;
        struct lift lift = {0};
        node->values[i] = is_fraction ? fraction_of(output->params[i], node->upper[i], node->buckets, count)
                                      : quantile_of(output->params[i], node->buckets, count, &lift);
        bits_set(node->present, i);
        if (lift.forced)
            lift_annotate(node, &lift, name, grid_time(&node->base.grid, i));
    }
}

static int histogram_next(struct eval_node *base, struct eval_series *out) {
    struct histogram_call *node = (struct histogram_call *)base;
    int status = STATUS_OK;
    if (!node->is_read) {
        TRY(buckets_read(node));
        node->is_read = true;
    }
    if (node->output_at == node->output_count) {
        node->output_at = 0;
        node->at++;
    }
    if (node->at >= node->table.count || node->output_count == 0)
        return STATUS_END;
    struct label_set *set = &node->table.sets[node->at];
    struct output *output = &node->outputs[node->output_at++];
    output_fill(node, &node->groups[node->at], output, set);
    if (set->label_count > 0)
        memcpy(node->scratch, set->labels, set->label_count * sizeof *node->scratch);
    *out = (struct eval_series){node->scratch, set->label_count, node->values, node->present, false};
    series_drop_name(base->eval, out);
    if (node->label.data != NULL)
        labels_set(node->scratch, &out->label_count, node->label, output->text);
out:
    return status;
}

/* ---- Arguments ------------------------------------------------------------------------------------------
 */

/* A float as OpenMetrics writes it: with a point, or an exponent. */
static size_t open_metrics_float(double v, char out[80]) {
    char text[64];
    go_float(v, text);
    bool plain = isfinite(v) && strpbrk(text, "e.") == NULL;
    return (size_t)snprintf(out, 80, "%s%s", text, plain ? ".0" : "");
}

static void quantiles_annotate(struct histogram_call *node, const double *quantiles, size_t arg) {
    for (size_t i = 0; i < node->base.grid.count; i++)
        annotate_quantile(node->base.eval, node->call->call.args[arg]->start, quantiles[i]);
}

static int output_push(struct histogram_call *node, struct output output) {
    struct output *grown = eval_push(node->base.eval, node->outputs, node->output_count, sizeof *grown);
    if (grown == NULL)
        return eval_no_room(node->base.eval);
    node->outputs = grown;
    node->outputs[node->output_count++] = output;
    return STATUS_OK;
}

/* One argument of histogram_quantiles: its value is a label, so each value it ever has is a series. */
static int quantiles_arg(struct histogram_call *node, size_t arg) {
    int status = STATUS_OK;
    struct eval *eval = node->base.eval;
    size_t count = node->base.grid.count, words = bits_words(count);
    double *values;
    TRY(scalar_column(eval, node->call->call.args[arg], node->base.grid, &values));
    quantiles_annotate(node, values, arg);
    uint64_t *left = eval_alloc(eval, (words + 1) * 8);
    if (left == NULL)
        return eval_no_room(eval);
    bits_fill(left, count);
    for (size_t first; (first = bits_next(left, 0, count)) < count;) {
        char text[80];
        struct output output = {.arg = arg, .params = values};
        output.text = arena_copy(&eval->arena, slice_of(text, open_metrics_float(values[first], text)));
        output.only = eval_alloc(eval, (words + 1) * 8);
        if (output.only == NULL || output.text.data == NULL)
            return eval_no_room(eval);
        TRY(eval_tick(eval));
        for (BITS_EACH(i, left, count)) {
            if (values[i] != values[first] && !(isnan(values[i]) && isnan(values[first])))
                continue;
            bits_set(output.only, i);
            bits_clear(left, i);
        }
        TRY(output_push(node, output));
    }
out:
    return status;
}

static int args_read(struct histogram_call *node) {
    int status = STATUS_OK;
    struct eval *eval = node->base.eval;
    struct ast **args = node->call->call.args;
    struct output output = {0};
    switch (node->call->call.function->id) {
    case FUNCTION_HISTOGRAM_QUANTILE:
        TRY(scalar_column(eval, args[0], node->base.grid, &output.params));
        quantiles_annotate(node, output.params, 0);
        TRY(output_push(node, output));
        node->vector = args[1];
        break;
    case FUNCTION_HISTOGRAM_FRACTION:
        TRY(scalar_column(eval, args[0], node->base.grid, &output.params));
        TRY(scalar_column(eval, args[1], node->base.grid, &node->upper));
        TRY(output_push(node, output));
        node->vector = args[2];
        break;
    default:
        node->vector = args[0];
        node->label = ast_unparen(args[1])->string;
        if (node->label.len == 0 || !utf8_valid(node->label))
            return eval_fail(eval, "invalid label name in histogram_quantiles(): %.*s",
                             SLICE_ARGS(node->label));
        for (size_t i = 2; i < node->call->call.arg_count; i++)
            TRY(quantiles_arg(node, i));
        break;
    }
out:
    return status;
}

int histogram_node(struct eval *eval, struct ast *call, struct grid grid, struct eval_node **out) {
    int status = STATUS_OK;
    struct histogram_call *node = node_new(eval, sizeof *node, grid, histogram_next);
    if (node == NULL)
        return eval_no_room(eval);
    node->call = call;
    node->scratch = eval_alloc(eval, (STORAGE_LABELS_MAX + 2) * sizeof(struct label));
    node->values = eval_alloc(eval, (grid.count + 1) * sizeof(double));
    node->present = eval_alloc(eval, (bits_words(grid.count) + 1) * 8);
    if (node->scratch == NULL || node->values == NULL || node->present == NULL)
        return eval_no_room(eval);
    TRY(args_read(node));
    TRY(node_build(eval, node->vector, grid, &node->child));
    *out = &node->base;
    bool alone = node->output_count == 1 && node->child->unique_nameless;
    if (!alone)
        TRY(merge_node(eval, &node->base, false, NULL, out));
    (*out)->unique_nameless = !eval->delayed_names || alone;
out:
    return status;
}
