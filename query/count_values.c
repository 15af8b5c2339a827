/* count_values.c: how many series of a group have a value, one series for each value. */
#include "query/eval.h"

#include "base/float_text.h"
#include "base/utf8.h"

struct value_group {
    double *counts;
    uint64_t *present;
    bool drop_name;
};

struct count_values {
    struct eval_node base;
    struct ast *ast;
    struct eval_node *child;
    struct slice label; /* takes the value */
    struct slice *names;
    size_t name_count;
    struct label *scratch, *selected;
    struct label_table table;
    struct value_group *groups;
    bool is_read;
    size_t at;
};

/* Runs of one value in a series are one look-up. */
static int group_of(struct count_values *node, const struct eval_series *series, double value,
                    struct value_group **out) {
    int status = STATUS_OK;
    struct eval *eval = node->base.eval;
    size_t index, count = node->base.grid.count, label_count = series->label_count;
    bool added;
    char text[FLOAT_TEXT_BYTES_MAX];
    size_t len = float_text_fixed(value, text);
    if (label_count > 0)
        memcpy(node->scratch, series->labels, label_count * sizeof *node->scratch);
    labels_set(node->scratch, &label_count, node->label, slice_of(text, len));
    label_count = labels_select(node->scratch, label_count, node->names, node->name_count,
                                !node->ast->aggregate.without, node->selected);
    TRY(label_table_find(eval, &node->table, node->selected, label_count, &index, &added));
    if (added) {
        struct label_set *set = &node->table.sets[index];
        for (size_t i = 0; i < set->label_count; i++) {
            if (set->labels[i].value.data != (const uint8_t *)text)
                continue;
            set->labels[i].value = arena_copy(&eval->arena, slice_of(text, len));
            if (set->labels[i].value.data == NULL)
                return eval_no_room(eval);
        }
        struct value_group *grown = eval_push(eval, node->groups, index, sizeof *grown);
        if (grown == NULL)
            return eval_no_room(eval);
        node->groups = grown;
        grown[index] = (struct value_group){0};
        TRY(eval_samples_check(eval, count));
        eval->samples_held += count;
        grown[index].counts = eval_alloc(eval, (count + 1) * sizeof(double));
        grown[index].present = eval_alloc(eval, (bits_words(count) + 1) * 8);
        if (grown[index].counts == NULL || grown[index].present == NULL)
            return eval_no_room(eval);
    }
    *out = &node->groups[index];
out:
    return status;
}

static int values_read(struct count_values *node) {
    int status;
    struct eval_series series;
    while ((status = node_next(node->child, &series)) == STATUS_OK) {
        struct value_group *group = NULL;
        double last = 0;
        for (BITS_EACH(i, series.present, node->base.grid.count)) {
            double value = series.values[i];
            if (group == NULL || memcmp(&last, &value, sizeof value) != 0)
                TRY(group_of(node, &series, value, &group));
            last = value;
            group->counts[i] += 1;
            bits_set(group->present, i);
            group->drop_name = group->drop_name || series.drop_name;
        }
    }
    if (status == STATUS_END)
        status = STATUS_OK;
out:
    return status;
}

static int count_values_next(struct eval_node *base, struct eval_series *out) {
    struct count_values *node = (struct count_values *)base;
    int status = STATUS_OK;
    if (!node->is_read) {
        TRY(values_read(node));
        node->is_read = true;
    }
    if (node->at == node->table.count)
        return STATUS_END;
    struct value_group *group = &node->groups[node->at];
    struct label_set *set = &node->table.sets[node->at++];
    *out =
        (struct eval_series){set->labels, set->label_count, group->counts, group->present, group->drop_name};
out:
    return status;
}

static int label_fail(struct eval *eval, struct slice label) {
    struct buf text;
    buf_init(&text);
    text_quote(&text, label);
    int status = text.failed
                     ? eval_no_room(eval)
                     : eval_fail(eval, "invalid label name %.*s", (int)text.len, (const char *)text.data);
    buf_release(&text);
    return status;
}

int count_values_node(struct eval *eval, struct ast *ast, struct grid grid, struct eval_node **out) {
    int status = STATUS_OK;
    struct count_values *node = node_new(eval, sizeof *node, grid, count_values_next);
    if (node == NULL)
        return eval_no_room(eval);
    node->ast = ast;
    node->label = ast_unparen(ast->aggregate.param)->string;
    if (node->label.len == 0 || !utf8_valid(node->label))
        return label_fail(eval, node->label);
    size_t count = ast->aggregate.label_count;
    struct slice *names = eval_alloc(eval, (count + 1) * sizeof *names);
    node->scratch = eval_alloc(eval, (STORAGE_LABELS_MAX + 2) * sizeof(struct label));
    node->selected = eval_alloc(eval, (STORAGE_LABELS_MAX + 2) * sizeof(struct label));
    if (names == NULL || node->scratch == NULL || node->selected == NULL)
        return eval_no_room(eval);
    if (count > 0)
        memcpy(names, ast->aggregate.labels, count * sizeof *names);
    if (!ast->aggregate.without)
        names[count++] = node->label;
    TRY(names_sort(eval, names, count, &node->names, &node->name_count));
    TRY(node_build(eval, ast->aggregate.expr, grid, &node->child));
    node->base.unique_nameless = names_stay_unique(node->names, node->name_count, ast->aggregate.without);
    *out = &node->base;
out:
    return status;
}
