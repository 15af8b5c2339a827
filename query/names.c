/* names.c: the end of delayed name removal. */
#include "query/eval.h"

struct names {
    struct eval_node base;
    struct eval_node *child;
};

static int names_next(struct eval_node *node, struct eval_series *out) {
    int status = node_next(((struct names *)node)->child, out);
    if (status == STATUS_OK && out->drop_name) {
        labels_drop_name(out);
        out->drop_name = false;
    }
    return status;
}

int names_node(struct eval *eval, struct eval_node *child, struct eval_node **out) {
    struct names *names = node_new(eval, sizeof *names, child->grid, names_next);
    if (names == NULL)
        return eval_no_room(eval);
    names->child = child;
    *out = &names->base;
    return child->unique_nameless ? STATUS_OK : merge_node(eval, &names->base, false, NULL, out);
}
