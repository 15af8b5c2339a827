/* relabel.c: label_replace and label_join. */
#include "query/eval.h"

#include "base/utf8.h"
#include "query/functions.h"
#include "query/regex.h"

struct relabel {
    struct eval_node base;
    struct eval_node *child;
    struct ast *call;
    struct regex *regex; /* label_replace */
    struct buf text;
    struct label *labels;
};

static int relabel_next(struct eval_node *node, struct eval_series *out) {
    struct relabel *relabel = (struct relabel *)node;
    struct ast **args = relabel->call->call.args;
    struct eval_series series;
    int status = node_next(relabel->child, &series);
    if (status != STATUS_OK)
        return status;
    struct buf *text = &relabel->text;
    buf_clear(text);
    if (series.label_count > 0)
        memcpy(relabel->labels, series.labels, series.label_count * sizeof *series.labels);
    bool change = true;
    if (relabel->regex != NULL) {
        struct slice source = labels_get(series.labels, series.label_count, ast_unparen(args[3])->string);
        change = regex_expand(relabel->regex, source, ast_unparen(args[2])->string, text);
    } else {
        struct slice separator = ast_unparen(args[2])->string;
        for (size_t i = 3; i < relabel->call->call.arg_count; i++) {
            struct slice source = labels_get(series.labels, series.label_count, ast_unparen(args[i])->string);
            if (i > 3)
                buf_append(text, separator.data, separator.len);
            buf_append(text, source.data, source.len);
        }
    }
    if (change) {
        struct slice value = arena_copy(&node->eval->arena, buf_slice(text));
        if (text->failed || (value.data == NULL && text->len > 0))
            return eval_no_room(node->eval);
        labels_set(relabel->labels, &series.label_count, ast_unparen(args[1])->string, value);
        if (slice_equal(ast_unparen(args[1])->string, NAME_LABEL))
            series.drop_name = false; /* the new name stays */
    }
    series.labels = relabel->labels;
    *out = series;
    return STATUS_OK;
}

static void relabel_release(struct eval_node *node) {
    struct relabel *relabel = (struct relabel *)node;
    regex_free(relabel->regex);
    buf_release(&relabel->text);
}

int relabel_node(struct eval *eval, struct ast *call, struct grid grid, struct eval_node **out) {
    int status = STATUS_OK;
    struct ast **args = call->call.args;
    bool is_replace = call->call.function->how == FUNCTION_HOW_LABEL_REPLACE;
    struct slice to = ast_unparen(args[1])->string;
    struct relabel *relabel = node_new(eval, sizeof *relabel, grid, relabel_next);
    if (relabel == NULL)
        return eval_no_room(eval);
    buf_init(&relabel->text);
    relabel->base.release = relabel_release;
    relabel->call = call;
    relabel->labels = eval_alloc(eval, (STORAGE_LABELS_MAX + 2) * sizeof(struct label));
    if (relabel->labels == NULL)
        return eval_no_room(eval);
    if (is_replace) {
        struct slice text = ast_unparen(args[4])->string;
        char error[REGEX_ERROR_BYTES];
        status = regex_new(text, eval->limits->regex_bytes_max, true, error, &relabel->regex);
        if (status == STATUS_NO_MEMORY)
            return eval_no_room(eval);
        if (status < 0)
            return eval_fail(eval, "invalid regular expression in label_replace(): %.*s", SLICE_ARGS(text));
    }
    if (to.len == 0 || !utf8_valid(to)) {
        char name[256] = "";
        size_t len = to.len < 200 ? to.len : 200;
        while (len > 0 && !utf8_valid(slice_of(to.data, len)))
            len--;
        memcpy(name, len > 0 ? (const char *)to.data : "", len);
        return eval_fail(eval, "invalid destination label name in %s(): %s", call->call.function->name, name);
    }
    for (size_t i = 3; !is_replace && i < call->call.arg_count; i++) {
        struct slice source = ast_unparen(args[i])->string;
        if (source.len == 0 || !utf8_valid(source))
            return eval_fail(eval, "invalid source label name in label_join()");
    }
    TRY(node_build(eval, args[0], grid, &relabel->child));
    TRY(merge_node(eval, &relabel->base, false, NULL, out));
out:
    return status;
}
