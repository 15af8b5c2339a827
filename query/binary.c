/* binary.c: operators between two instant vectors. The "one" side is kept by signature; the other streams
 * past it.
 *
 * Matching is a matter of each step: two series of one signature may stand on the one side as long as they
 * are never there together. So duplicates are bits of steps, and count only where the other side has
 * anything. */
#include "query/eval.h"

#include "query/functions.h"

int vector_binary_node(struct eval *eval, struct ast *ast, struct grid grid, struct eval_node **out);

struct signature {
    struct slice *names; /* sorted */
    size_t name_count;
    bool on;
};

static size_t signature_of(const struct signature *signature, const struct eval_series *series,
                           struct label *out) {
    return labels_select(series->labels, series->label_count, signature->names, signature->name_count,
                         signature->on, out);
}

/* A series of the one side, in the chain of its signature. */
struct one_entry {
    struct kept_series series;
    size_t next; /* index + 1 */
};

struct one_group {
    size_t first, last; /* index + 1 into entries */
    uint64_t *present;  /* of all entries */
    uint64_t *matched;  /* one-to-one: steps that have had a partner */
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

    bool has_conflict; /* the first pair found with one signature at one step */
    uint64_t *conflict;
    size_t conflict_group, conflict_entry;
    struct kept_series conflict_with;

    struct eval_series current; /* of the many side */
    size_t entry_next;          /* entries still to pair with it; index + 1 */
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
    size_t label_count = signature_of(&binary->signature, series, binary->scratch);
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
    *entry = (struct one_entry){0};
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

/* The next series of the many side that has a partner. */
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
        size_t label_count = signature_of(&binary->signature, &binary->current, binary->scratch);
        size_t index = label_table_get(binary->base.eval, &binary->table, binary->scratch, label_count);
        if (index == SIZE_MAX)
            continue;
        struct one_group *group = &binary->groups[index];
        binary->entry_next = group->first;
        if (binary->is_grouped)
            return STATUS_OK;
        for (size_t i = 0; i < words; i++) {
            uint64_t both = group->present[i] & binary->current.present[i];
            if ((both & group->matched[i]) != 0) {
                return eval_fail(binary->base.eval,
                                 "multiple matches for labels: many-to-one matching must be explicit "
                                 "(group_left/group_right)");
            }
            group->matched[i] |= both;
        }
        return STATUS_OK;
    }
}

static void result_labels(struct binary *binary, const struct one_entry *entry, struct eval_series *out) {
    const struct eval_series *many = &binary->current;
    bool drop_name = !op_is_comparison(binary->ast->binary.op) || binary->ast->binary.return_bool;
    if (many->label_count > 0)
        memcpy(binary->labels, many->labels, many->label_count * sizeof *many->labels);
    out->labels = binary->labels;
    out->label_count = many->label_count;
    if (!binary->is_grouped) {
        size_t kept = 0, at = 0;
        for (size_t i = 0; i < many->label_count; i++) {
            int order = 1;
            while (at < binary->signature.name_count &&
                   (order = slice_compare(binary->signature.names[at], many->labels[i].name)) < 0)
                at++;
            bool listed = at < binary->signature.name_count && order == 0;
            if (listed == binary->signature.on)
                binary->labels[kept++] = many->labels[i];
        }
        out->label_count = kept;
    }
    if (drop_name)
        labels_drop_name(out);
    for (size_t i = 0; binary->is_grouped && i < binary->include_count; i++)
        labels_set(binary->labels, &out->label_count, binary->include[i],
                   labels_get(entry->series.labels, entry->series.label_count, binary->include[i]));
}

static void pair_apply(struct binary *binary) {
    enum token_kind op = binary->ast->binary.op;
    size_t count = binary->base.grid.count;
    for (size_t i = 0; i < bits_words(count); i++)
        binary->present[i] = binary->current.present[i] & binary->one_present[i];
    for (BITS_EACH(i, binary->present, count)) {
        double many = binary->current.values[i], one = binary->one_values[i], result;
        bool holds = binary->one_is_left ? operator_apply(op, one, many, &result)
                                         : operator_apply(op, many, one, &result);
        if (!op_is_comparison(op) || holds)
            binary->values[i] = binary->ast->binary.return_bool ? 1 : result;
        else if (binary->ast->binary.return_bool)
            binary->values[i] = 0;
        else
            bits_clear(binary->present, i);
    }
}

static int binary_next(struct eval_node *node, struct eval_series *out) {
    struct binary *binary = (struct binary *)node;
    int status = STATUS_OK;
    if (!binary->is_read) {
        TRY(one_read(binary));
        binary->is_read = true;
    }
    do {
        while (binary->entry_next == 0) {
            status = many_next(binary);
            if (status != STATUS_OK)
                return status;
        }
        struct one_entry *entry = &binary->entries[binary->entry_next - 1];
        column_unpack(&node->grid, &entry->series.column, binary->one_values, binary->one_present);
        binary->entry_next = entry->next;
        pair_apply(binary);
        result_labels(binary, entry, out);
        out->values = binary->values;
        out->present = binary->present;
    } while (!bits_any(binary->present, node->grid.count));
out:
    return status;
}

/* ---- and, or, unless
 * ---------------------------------------------------------------------------------------- */

struct set {
    struct eval_node base;
    enum token_kind op;
    struct eval_node *left, *right;
    struct signature signature;
    struct label *scratch;
    struct label_table table;
    uint64_t **present; /* of a signature: where the remembered side has something */
    bool is_first_done;
};

static int set_remember(struct set *set, const struct eval_series *series) {
    int status = STATUS_OK;
    struct eval *eval = set->base.eval;
    size_t words = bits_words(set->base.grid.count), index;
    bool added;
    size_t label_count = signature_of(&set->signature, series, set->scratch);
    TRY(label_table_find(eval, &set->table, set->scratch, label_count, &index, &added));
    if (added) {
        uint64_t **grown = eval_push(eval, set->present, index, sizeof *grown);
        if (grown == NULL)
            return eval_no_room(eval);
        set->present = grown;
        grown[index] = eval_alloc(eval, (words + 1) * 8);
        if (grown[index] == NULL)
            return eval_no_room(eval);
    }
    for (size_t i = 0; i < words; i++)
        set->present[index][i] |= series->present[i];
out:
    return status;
}

/* Takes out of a series what the remembered side has (`keep` false), or everything else. */
static void set_filter(struct set *set, const struct eval_series *series, bool keep) {
    size_t words = bits_words(set->base.grid.count);
    size_t label_count = signature_of(&set->signature, series, set->scratch);
    size_t index = label_table_get(set->base.eval, &set->table, set->scratch, label_count);
    for (size_t i = 0; i < words; i++) {
        uint64_t there = index == SIZE_MAX ? 0 : set->present[index][i];
        series->present[i] &= keep ? there : ~there;
    }
}

static int set_next(struct eval_node *node, struct eval_series *out) {
    struct set *set = (struct set *)node;
    int status = STATUS_OK;
    if (set->op == TOKEN_OR && !set->is_first_done) {
        while ((status = node_next(set->left, out)) == STATUS_OK) {
            if (!bits_any(out->present, node->grid.count))
                continue;
            return set_remember(set, out);
        }
        if (status < 0)
            return status;
        set->is_first_done = true;
    }
    if (!set->is_first_done) {
        while ((status = node_next(set->right, out)) == STATUS_OK)
            TRY(set_remember(set, out));
        if (status < 0)
            return status;
        set->is_first_done = true;
    }
    struct eval_node *rest = set->op == TOKEN_OR ? set->right : set->left;
    while ((status = node_next(rest, out)) == STATUS_OK) {
        set_filter(set, out, set->op == TOKEN_AND);
        if (bits_any(out->present, node->grid.count))
            return STATUS_OK;
    }
out:
    return status;
}

static int set_node(struct eval *eval, struct ast *ast, struct grid grid, struct eval_node **out) {
    int status = STATUS_OK;
    struct ast_matching *matching = &ast->binary.matching;
    struct set *set = node_new(eval, sizeof *set, grid, set_next);
    if (set == NULL)
        return eval_no_room(eval);
    set->op = ast->binary.op;
    set->signature.on = matching->on;
    set->scratch = eval_alloc(eval, (STORAGE_LABELS_MAX + 2) * sizeof(struct label));
    if (set->scratch == NULL)
        return eval_no_room(eval);
    TRY(names_sort(eval, matching->labels, matching->label_count, &set->signature.names,
                   &set->signature.name_count));
    TRY(node_build(eval, ast->binary.left, grid, &set->left));
    TRY(node_build(eval, ast->binary.right, grid, &set->right));
    set->base.unique_nameless = set->op != TOKEN_OR && set->left->unique_nameless;
    *out = &set->base;
    if (set->op == TOKEN_OR)
        TRY(merge_node(eval, &set->base, false, NULL, out));
out:
    return status;
}

int vector_binary_node(struct eval *eval, struct ast *ast, struct grid grid, struct eval_node **out) {
    int status = STATUS_OK;
    struct ast_matching *matching = &ast->binary.matching;
    if (op_is_set(ast->binary.op))
        return set_node(eval, ast, grid, out);
    if (matching->has_fill_left || matching->has_fill_right)
        return eval_unsupported(eval, "the fill modifier");
    struct binary *binary = node_new(eval, sizeof *binary, grid, binary_next);
    if (binary == NULL)
        return eval_no_room(eval);
    size_t column = (grid.count + 1) * sizeof(double), bits = (bits_words(grid.count) + 1) * 8;
    binary->ast = ast;
    binary->is_grouped = matching->card != CARD_ONE_TO_ONE;
    binary->one_is_left = matching->card == CARD_ONE_TO_MANY;
    binary->signature.on = matching->on;
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
    bool one_entry_each = whole && binary->one->unique_nameless && binary->many->unique_nameless;
    binary->base.unique_nameless = one_entry_each;
    if (!one_entry_each) {
        TRY(merge_node(eval, &binary->base, false,
                       binary->is_grouped
                           ? "multiple matches for labels: grouping labels must ensure unique matches"
                           : NULL,
                       out));
        /* What has no name stays unique without it. */
        (*out)->unique_nameless = !op_is_comparison(ast->binary.op) || ast->binary.return_bool;
    }
out:
    return status;
}
