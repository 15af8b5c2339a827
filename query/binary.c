/* binary.c: operators between two instant vectors. The "one" side is kept by signature; the other streams
 * past it.
 *
 * Matching is a matter of each step: two series of one signature may stand on the one side as long as they
 * are never there together. So duplicates are bits of steps, and count only where the other side has
 * anything. */
#include "query/eval.h"

#include "query/functions.h"

/* A series of the one side, in the chain of its signature. */
struct one_entry {
    struct kept_series series;
    size_t group;
    size_t next; /* index + 1 */
};

struct one_group {
    size_t first, last; /* index + 1 into entries */
    uint64_t *present;  /* of all entries */
    uint64_t *matched;  /* steps that have had a partner */
};

struct binary {
    struct eval_node base;
    struct ast *ast;
    struct eval_node *many, *one;
    struct signature signature;
    struct slice *include; /* sorted */
    size_t include_count;
    struct label *scratch;
    struct label_table table;
    struct one_group *groups;
    struct one_entry *entries;
    size_t entry_count;
    bool is_read, is_grouped;
    bool one_is_left; /* group_right */
    bool has_one_fill, has_many_fill;
    double one_fill, many_fill; /* what stands for a partner that is missing */

    bool has_conflict; /* the first pair found with one signature at one step */
    uint64_t *conflict;
    size_t conflict_group, conflict_entry;
    struct kept_series conflict_with;

    struct eval_series current; /* of the many side */
    size_t group_index;         /* its group; SIZE_MAX: none */
    size_t entry_next;          /* entries still to pair with it; index + 1 */
    bool fill_next;             /* and then what has no partner */
    bool is_many_done;
    size_t left_over_next; /* entries still to look through for what had no partner */
    double *one_values;
    uint64_t *one_present;
    double *values;
    uint64_t *present;
    struct label *labels;
};

static int one_add(struct binary *binary, const struct eval_series *series) {
    int status = STATUS_OK;
    struct eval *eval = binary->base.eval;
    size_t words = bits_words(binary->base.grid.count), index;
    bool added;
    size_t label_count = labels_signature(&binary->signature, series, binary->scratch);
    TRY(label_table_find(eval, &binary->table, binary->scratch, label_count, &index, &added));
    if (added) {
        struct one_group *grown = eval_push(eval, binary->groups, index, sizeof *grown);
        if (grown == NULL)
            return eval_no_room(eval);
        binary->groups = grown;
        grown[index] = (struct one_group){0};
        grown[index].present = eval_alloc(eval, (words + 1) * 8);
        grown[index].matched = eval_alloc(eval, (words + 1) * 8);
        if (grown[index].present == NULL || grown[index].matched == NULL)
            return eval_no_room(eval);
    }
    struct one_group *group = &binary->groups[index];
    bool overlaps = false;
    for (size_t i = 0; i < words; i++) {
        uint64_t both = group->present[i] & series->present[i];
        overlaps = overlaps || both != 0;
        binary->conflict[i] |= both;
        group->present[i] |= series->present[i];
    }
    if (overlaps && !binary->has_conflict) {
        binary->has_conflict = true;
        binary->conflict_group = index;
        binary->conflict_entry = group->first;
        binary->conflict_with.label_count = series->label_count;
        TRY(labels_keep(eval, series->labels, series->label_count, &binary->conflict_with.labels));
    }
    struct one_entry *entries = eval_push(eval, binary->entries, binary->entry_count, sizeof *entries);
    if (entries == NULL)
        return eval_no_room(eval);
    binary->entries = entries;
    struct one_entry *entry = &entries[binary->entry_count++];
    *entry = (struct one_entry){.group = index};
    TRY(series_keep(eval, &binary->base.grid, series, &entry->series));
    if (group->last != 0)
        entries[group->last - 1].next = binary->entry_count;
    else
        group->first = binary->entry_count;
    group->last = binary->entry_count;
out:
    return status;
}

static int one_read(struct binary *binary) {
    int status;
    struct eval_series series;
    while ((status = node_next(binary->one, &series)) == STATUS_OK) {
        if (bits_any(series.present, binary->base.grid.count))
            TRY(one_add(binary, &series));
    }
    if (status == STATUS_END)
        status = STATUS_OK;
out:
    return status;
}

static int conflict_fail(struct binary *binary) {
    const struct label_set *set = &binary->table.sets[binary->conflict_group];
    const struct kept_series *a = &binary->entries[binary->conflict_entry - 1].series,
                             *b = &binary->conflict_with;
    if (labels_compare(a->labels, a->label_count, b->labels, b->label_count) > 0) {
        a = &binary->conflict_with;
        b = &binary->entries[binary->conflict_entry - 1].series;
    }
    struct buf text;
    buf_init(&text);
    buf_append_str(&text, "found duplicate series for the match group ");
    labels_print_braces(&text, set->labels, set->label_count);
    buf_printf(&text, " on the %s hand-side of the operation: [", binary->one_is_left ? "left" : "right");
    labels_print_braces(&text, a->labels, a->label_count);
    buf_append_str(&text, ", ");
    labels_print_braces(&text, b->labels, b->label_count);
    buf_append_str(&text, "];many-to-many matching not allowed: matching labels must be unique on one side");
    int status = text.failed ? eval_no_room(binary->base.eval)
                             : eval_fail(binary->base.eval, "%.*s", (int)text.len, (const char *)text.data);
    buf_release(&text);
    return status;
}

/* The next series of the many side that has a partner, or gets one. */
static int many_next(struct binary *binary) {
    for (;;) {
        int status = node_next(binary->many, &binary->current);
        size_t words = bits_words(binary->base.grid.count);
        if (status != STATUS_OK)
            return status;
        for (size_t i = 0; i < words; i++) {
            if ((binary->conflict[i] & binary->current.present[i]) != 0)
                return conflict_fail(binary);
        }
        size_t label_count = labels_signature(&binary->signature, &binary->current, binary->scratch);
        size_t index = label_table_get(binary->base.eval, &binary->table, binary->scratch, label_count);
        binary->group_index = index;
        binary->fill_next = binary->has_one_fill;
        if (index == SIZE_MAX) {
            if (binary->has_one_fill)
                return STATUS_OK;
            continue;
        }
        struct one_group *group = &binary->groups[index];
        binary->entry_next = group->first;
        for (size_t i = 0; i < words; i++) {
            uint64_t both = group->present[i] & binary->current.present[i];
            if (!binary->is_grouped && (both & group->matched[i]) != 0)
                return eval_fail(binary->base.eval,
                                 "multiple matches for labels: many-to-one matching must be explicit "
                                 "(group_left/group_right)");
            group->matched[i] |= both;
        }
        return STATUS_OK;
    }
}

/* From the labels of the many side (those of the match, where it was missing) and of the one side (none,
 * where that was). */
static void result_labels(struct binary *binary, const struct label *many, size_t many_count,
                          const struct kept_series *one, struct eval_series *out) {
    bool is_arithmetic = !op_is_comparison(binary->ast->binary.op);
    if (many_count > 0)
        memcpy(binary->labels, many, many_count * sizeof *many);
    out->labels = binary->labels;
    out->label_count = many_count;
    out->drop_name = false;
    if (!binary->is_grouped) {
        size_t kept = 0, at = 0;
        for (size_t i = 0; i < many_count; i++) {
            bool listed =
                names_have(binary->signature.names, binary->signature.name_count, &at, many[i].name);
            if (listed == binary->signature.on)
                binary->labels[kept++] = many[i];
        }
        out->label_count = kept;
    }
    if (is_arithmetic)
        labels_drop_name(out); /* at once, even if that is delayed elsewhere */
    else if (binary->ast->binary.return_bool)
        series_drop_name(binary->base.eval, out);
    for (size_t i = 0; binary->is_grouped && i < binary->include_count; i++) {
        struct slice value = slice_of(NULL, 0);
        if (one != NULL)
            value = labels_get(one->labels, one->label_count, binary->include[i]);
        labels_set(binary->labels, &out->label_count, binary->include[i], value);
    }
}

/* At the steps in `present`; NULL values: the fill. */
static void pair_apply(struct binary *binary, const double *many_values, const double *one_values) {
    enum token_kind op = binary->ast->binary.op;
    bool is_trim = op == TOKEN_TRIM_LOWER || op == TOKEN_TRIM_UPPER;
    for (BITS_EACH(i, binary->present, binary->base.grid.count)) {
        double many = many_values != NULL ? many_values[i] : binary->many_fill;
        double one = one_values != NULL ? one_values[i] : binary->one_fill, result = 0;
        bool holds = binary->one_is_left ? operator_apply(op, one, many, &result)
                                         : operator_apply(op, many, one, &result);
        if (holds)
            binary->values[i] = binary->ast->binary.return_bool ? 1 : result;
        else if (binary->ast->binary.return_bool)
            binary->values[i] = 0;
        else
            bits_clear(binary->present, i);
        if (is_trim)
            annotate_types(binary->base.eval, binary->ast);
    }
}

static void entry_pair(struct binary *binary, struct eval_series *out) {
    struct one_entry *entry = &binary->entries[binary->entry_next - 1];
    column_unpack(&binary->base.grid, &entry->series.column, binary->one_values, binary->one_present);
    binary->entry_next = entry->next;
    for (size_t i = 0; i < bits_words(binary->base.grid.count); i++)
        binary->present[i] = binary->current.present[i] & binary->one_present[i];
    pair_apply(binary, binary->current.values, binary->one_values);
    result_labels(binary, binary->current.labels, binary->current.label_count, &entry->series, out);
}

/* Where the current series has no partner. */
static void one_fill(struct binary *binary, struct eval_series *out) {
    const uint64_t *there =
        binary->group_index == SIZE_MAX ? NULL : binary->groups[binary->group_index].present;
    binary->fill_next = false;
    for (size_t i = 0; i < bits_words(binary->base.grid.count); i++)
        binary->present[i] = binary->current.present[i] & ~(there == NULL ? 0 : there[i]);
    pair_apply(binary, binary->current.values, NULL);
    result_labels(binary, binary->current.labels, binary->current.label_count, NULL, out);
}

/* Where an entry of the one side had none. */
static void many_fill(struct binary *binary, struct eval_series *out) {
    struct one_entry *entry = &binary->entries[binary->left_over_next++];
    struct label_set *set = &binary->table.sets[entry->group];
    column_unpack(&binary->base.grid, &entry->series.column, binary->one_values, binary->one_present);
    for (size_t i = 0; i < bits_words(binary->base.grid.count); i++)
        binary->present[i] = binary->one_present[i] & ~binary->groups[entry->group].matched[i];
    pair_apply(binary, NULL, binary->one_values);
    result_labels(binary, set->labels, set->label_count, &entry->series, out);
}

static int binary_next(struct eval_node *node, struct eval_series *out) {
    struct binary *binary = (struct binary *)node;
    int status = STATUS_OK;
    if (!binary->is_read) {
        TRY(one_read(binary));
        binary->is_read = true;
        if (binary->has_conflict && (binary->has_one_fill || binary->has_many_fill))
            return conflict_fail(binary);
    }
    do {
        if (binary->entry_next != 0) {
            entry_pair(binary, out);
        } else if (binary->fill_next) {
            one_fill(binary, out);
        } else if (!binary->is_many_done) {
            status = many_next(binary);
            if (status < 0)
                return status;
            binary->is_many_done = status == STATUS_END;
            status = STATUS_OK;
            memset(binary->present, 0, bits_words(node->grid.count) * 8);
        } else if (binary->has_many_fill && binary->left_over_next < binary->entry_count) {
            TRY(eval_tick(node->eval));
            many_fill(binary, out);
        } else {
            return STATUS_END;
        }
    } while (!bits_any(binary->present, node->grid.count));
    out->values = binary->values;
    out->present = binary->present;
out:
    return status;
}

int vector_binary_node(struct eval *eval, struct ast *ast, struct grid grid, struct eval_node **out) {
    int status = STATUS_OK;
    struct ast_matching *matching = &ast->binary.matching;
    struct binary *binary = node_new(eval, sizeof *binary, grid, binary_next);
    if (binary == NULL)
        return eval_no_room(eval);
    size_t column = (grid.count + 1) * sizeof(double), bits = (bits_words(grid.count) + 1) * 8;
    binary->ast = ast;
    binary->is_grouped = matching->card != CARD_ONE_TO_ONE;
    binary->one_is_left = matching->card == CARD_ONE_TO_MANY;
    binary->signature.on = matching->on;
    /* Under group_right the sides change places, but Prometheus leaves the fills where they are: fill_right
     * stands for the one side, fill_left for the many side, whichever is written where. */
    binary->has_one_fill = matching->has_fill_right;
    binary->one_fill = matching->fill_right;
    binary->has_many_fill = matching->has_fill_left;
    binary->many_fill = matching->fill_left;
    binary->scratch = eval_alloc(eval, (STORAGE_LABELS_MAX + 2) * sizeof(struct label));
    binary->labels =
        eval_alloc(eval, (STORAGE_LABELS_MAX * 2 + matching->include_count) * sizeof(struct label));
    binary->one_values = eval_alloc(eval, column);
    binary->values = eval_alloc(eval, column);
    binary->one_present = eval_alloc(eval, bits);
    binary->present = eval_alloc(eval, bits);
    binary->conflict = eval_alloc(eval, bits);
    if (binary->scratch == NULL || binary->labels == NULL || binary->one_values == NULL ||
        binary->values == NULL || binary->one_present == NULL || binary->present == NULL ||
        binary->conflict == NULL)
        return eval_no_room(eval);
    TRY(names_sort(eval, matching->labels, matching->label_count, &binary->signature.names,
                   &binary->signature.name_count));
    TRY(names_sort(eval, matching->include, matching->include_count, &binary->include,
                   &binary->include_count));
    struct eval_node *left, *right;
    TRY(node_build(eval, ast->binary.left, grid, &left));
    TRY(node_build(eval, ast->binary.right, grid, &right));
    binary->one = binary->one_is_left ? left : right;
    binary->many = binary->one_is_left ? right : left;
    *out = &binary->base;
    /* With the whole label set but the name as signature, and no two series that differ by name only, each
     * result stands alone. */
    bool whole = !binary->is_grouped && !binary->signature.on && binary->signature.name_count == 0;
    bool one_entry_each = whole && binary->one->unique_nameless && binary->many->unique_nameless &&
                          !binary->has_one_fill && !binary->has_many_fill;
    binary->base.unique_nameless = one_entry_each;
    if (!one_entry_each) {
        TRY(merge_node(eval, &binary->base, false,
                       binary->is_grouped
                           ? "multiple matches for labels: grouping labels must ensure unique matches"
                           : NULL,
                       out));
        /* What has no name stays unique without it. */
        (*out)->unique_nameless =
            !op_is_comparison(ast->binary.op) || (ast->binary.return_bool && !eval->delayed_names);
    }
out:
    return status;
}
