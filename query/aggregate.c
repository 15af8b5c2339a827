/* aggregate.c: sum, avg, min, max, count, group, stddev, stdvar: series fold into their group as they stream
 * by.
 */
#include "query/eval.h"

struct group {
    double *values;
    double *c;      /* compensation (sum, avg) */
    double *counts; /* avg, stddev, stdvar */
    double *aux;    /* stddev, stdvar: sum of squares so far */
    uint64_t *present;
    uint64_t *incremental; /* avg: the sum overflowed, values hold a mean */
    bool drop_name;        /* of any member */
};

struct aggregate {
    struct eval_node base;
    struct ast *ast;
    struct grouping grouping;
    bool is_read;
    size_t at;
    struct group *groups;
};

static int group_init(struct aggregate *aggregate, struct group *group) {
    struct eval *eval = aggregate->base.eval;
    size_t count = aggregate->base.grid.count, bytes = (count + 1) * sizeof(double);
    enum token_kind op = aggregate->ast->aggregate.op;
    int status = eval_samples_check(eval, count);
    if (status < 0)
        return status;
    group->values = eval_alloc(eval, bytes);
    group->present = eval_alloc(eval, (bits_words(count) + 1) * 8);
    bool sums = op == TOKEN_SUM || op == TOKEN_AVG,
         counts = op == TOKEN_AVG || op == TOKEN_STDDEV || op == TOKEN_STDVAR;
    if (sums)
        group->c = eval_alloc(eval, bytes);
    if (counts)
        group->counts = eval_alloc(eval, bytes);
    if (op == TOKEN_STDDEV || op == TOKEN_STDVAR)
        group->aux = eval_alloc(eval, bytes);
    if (op == TOKEN_AVG)
        group->incremental = eval_alloc(eval, (bits_words(count) + 1) * 8);
    if (group->values == NULL || group->present == NULL || (sums && group->c == NULL) ||
        (counts && group->counts == NULL) ||
        (group->aux == NULL && (op == TOKEN_STDDEV || op == TOKEN_STDVAR)) ||
        (op == TOKEN_AVG && group->incremental == NULL))
        return eval_no_room(eval);
    /* -0 is what adding starts from without changing anything; NaN is what min and max replace. */
    double initial = op == TOKEN_MIN || op == TOKEN_MAX ? NAN : op == TOKEN_SUM ? -0.0 : 0;
    for (size_t i = 0; i < count; i++)
        group->values[i] = initial;
    eval->samples_held += count;
    return STATUS_OK;
}

static void avg_add(struct group *group, size_t i, double v) {
    double count = ++group->counts[i];
    if (count == 1) {
        group->values[i] = v;
        return;
    }
    if (!bits_get(group->incremental, i)) {
        double sum = group->values[i], c = group->c[i];
        kahan_add(v, &sum, &c);
        if (!isinf(sum)) {
            group->values[i] = sum;
            group->c[i] = c;
            return;
        }
        bits_set(group->incremental, i);
        group->values[i] /= count - 1;
        group->c[i] /= count - 1;
    }
    double q = (count - 1) / count;
    group->values[i] *= q;
    group->c[i] *= q;
    kahan_add(v / count, &group->values[i], &group->c[i]);
}

static void variance_add(struct group *group, size_t i, double v) {
    double count = ++group->counts[i];
    if (count == 1) {
        group->values[i] = v;
        group->aux[i] = isfinite(v) ? 0 : NAN;
        return;
    }
    double delta = v - group->values[i];
    group->values[i] += delta / count;
    group->aux[i] += delta * (v - group->values[i]);
}

/* kahan_add at every step, without branches: the error of an addition is a double itself, so Knuth's TwoSum
 * finds the very number that Neumaier's ordered subtraction does. */
static void sum_add_all(double *restrict sums, double *restrict c, const double *restrict values,
                        size_t count) {
    for (size_t i = 0; i < count; i++) {
        double t = sums[i] + values[i], part = t - sums[i];
        double error = (sums[i] - (t - part)) + (values[i] - part);
        c[i] = isinf(t) ? 0 : c[i] + error;
        sums[i] = t;
    }
}

static void group_add(enum token_kind op, struct group *group, const struct eval_series *series,
                      size_t count) {
    const double *from = series->values;
    double *to = group->values;
    switch (op) {
    case TOKEN_SUM:
        if (bits_count(series->present, count) == count) {
            sum_add_all(to, group->c, from, count);
            break;
        }
        for (BITS_EACH(i, series->present, count))
            kahan_add(from[i], &to[i], &group->c[i]);
        break;
    case TOKEN_AVG:
        for (BITS_EACH(i, series->present, count))
            avg_add(group, i, from[i]);
        break;
    case TOKEN_MIN:
        for (BITS_EACH(i, series->present, count))
            to[i] = to[i] > from[i] || isnan(to[i]) ? from[i] : to[i];
        break;
    case TOKEN_MAX:
        for (BITS_EACH(i, series->present, count))
            to[i] = to[i] < from[i] || isnan(to[i]) ? from[i] : to[i];
        break;
    case TOKEN_COUNT:
        for (BITS_EACH(i, series->present, count))
            to[i] += 1;
        break;
    case TOKEN_GROUP:
        for (BITS_EACH(i, series->present, count))
            to[i] = 1;
        break;
    default:
        for (BITS_EACH(i, series->present, count))
            variance_add(group, i, from[i]);
        break;
    }
    for (size_t i = 0; i < bits_words(count); i++)
        group->present[i] |= series->present[i];
}

static void group_finish(enum token_kind op, struct group *group, size_t count) {
    for (BITS_EACH(i, group->present, count)) {
        if (op == TOKEN_SUM) {
            group->values[i] += group->c[i];
        } else if (op == TOKEN_AVG) {
            group->values[i] = bits_get(group->incremental, i)
                                   ? group->values[i] + group->c[i]
                                   : group->values[i] / group->counts[i] + group->c[i] / group->counts[i];
        } else if (op == TOKEN_STDVAR) {
            group->values[i] = group->aux[i] / group->counts[i];
        } else if (op == TOKEN_STDDEV) {
            group->values[i] = sqrt(group->aux[i] / group->counts[i]);
        }
    }
}

static int aggregate_read(struct aggregate *aggregate) {
    int status;
    struct eval *eval = aggregate->base.eval;
    struct eval_series series;
    while ((status = node_next(aggregate->grouping.child, &series)) == STATUS_OK) {
        if (!bits_any(series.present, aggregate->base.grid.count))
            continue;
        size_t index;
        bool added;
        TRY(grouping_find(eval, &aggregate->grouping, &series, &index, &added));
        if (added) {
            struct group *grown = eval_push(eval, aggregate->groups, index, sizeof *grown);
            if (grown == NULL)
                return eval_no_room(eval);
            aggregate->groups = grown;
            grown[index] = (struct group){0};
            TRY(group_init(aggregate, &grown[index]));
        }
        aggregate->groups[index].drop_name = aggregate->groups[index].drop_name || series.drop_name;
        group_add(aggregate->ast->aggregate.op, &aggregate->groups[index], &series,
                  aggregate->base.grid.count);
    }
    if (status == STATUS_END)
        status = STATUS_OK;
out:
    return status;
}

static int aggregate_next(struct eval_node *node, struct eval_series *out) {
    struct aggregate *aggregate = (struct aggregate *)node;
    if (!aggregate->is_read) {
        int status = aggregate_read(aggregate);
        if (status < 0)
            return status;
        aggregate->is_read = true;
    }
    if (aggregate->at == aggregate->grouping.table.count)
        return STATUS_END;
    struct group *group = &aggregate->groups[aggregate->at];
    struct label_set *set = &aggregate->grouping.table.sets[aggregate->at++];
    group_finish(aggregate->ast->aggregate.op, group, node->grid.count);
    *out =
        (struct eval_series){set->labels, set->label_count, group->values, group->present, group->drop_name};
    return STATUS_OK;
}

int aggregate_node(struct eval *eval, struct ast *ast, struct grid grid, struct eval_node **out) {
    int status = STATUS_OK;
    switch (ast->aggregate.op) {
    case TOKEN_TOPK:
    case TOKEN_BOTTOMK:
        return top_node(eval, ast, grid, out);
    case TOKEN_COUNT_VALUES:
        return count_values_node(eval, ast, grid, out);
    case TOKEN_QUANTILE:
        return quantile_node(eval, ast, grid, out);
    case TOKEN_LIMITK:
    case TOKEN_LIMIT_RATIO:
        return limit_node(eval, ast, grid, out);
    default:
        break;
    }
    struct aggregate *aggregate = node_new(eval, sizeof *aggregate, grid, aggregate_next);
    if (aggregate == NULL)
        return eval_no_room(eval);
    aggregate->ast = ast;
    TRY(grouping_open(eval, ast, grid, &aggregate->grouping));
    TRY(grouping_labels_ask(&aggregate->grouping));
    aggregate->base.unique_nameless = grouping_unique(&aggregate->grouping);
    *out = &aggregate->base;
out:
    return status;
}
