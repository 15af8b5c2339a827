/* set.c: and, or, unless: one side is remembered by signature, the other streams past it. */
#include "query/eval.h"

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
    size_t label_count = labels_signature(&set->signature, series, set->scratch);
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
    size_t label_count = labels_signature(&set->signature, series, set->scratch);
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

int set_node(struct eval *eval, struct ast *ast, struct grid grid, struct eval_node **out) {
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
