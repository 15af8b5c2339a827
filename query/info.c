/* info.c: info(v, {…}): series get the labels of the info series (target_info, unless a matcher on __name__
 * says otherwise) that have the same `instance` and `job`.
 *
 * Info series are looked at as of the time that the samples of v were: the shifts on the way to v's first
 * selector apply to them too. All of them are kept, in groups by name and identifying labels; the series of v
 * stream past. Which info series of a group counts may change from step to step: it is the one with the
 * newest sample. So one series of v can become several, each for some of its steps. */
#include "query/eval.h"

#include "query/functions.h"
#include "query/regex.h"

static const struct slice identifying[] = {{(const uint8_t *)"instance", 8}, {(const uint8_t *)"job", 3}};
#define IDENTIFYING_COUNT (sizeof identifying / sizeof identifying[0])

/* Info series of one name and the same identifying labels, in a chain. */
struct info_group {
    size_t first; /* index + 1 into entries */
};

struct info_entry {
    struct label *labels;
    size_t label_count;
    double *times_s; /* of the sample at every step */
    uint64_t *present;
    size_t next;
};

struct info {
    struct eval_node base;
    struct eval_node *child, *infos;
    const struct matcher *matchers; /* of the second argument, as the info series have to match them */
    size_t matcher_count;
    struct regex *suffix; /* .+_info, where only negative matchers name the metric */
    bool has_data_matchers, must_match;
    struct label *scratch;
    struct label_table groups_table; /* __name__ and identifying labels */
    struct info_group *groups;
    struct info_entry *entries;
    size_t entry_count;
    struct label_table names_table; /* the names of info metrics */
    bool is_read;

    struct eval_series current; /* of v */
    struct label *current_labels;
    size_t *matching; /* its group for each name; SIZE_MAX: none */
    size_t *choice;
    uint64_t *left; /* steps not handed out yet */
    double *values;
    uint64_t *present;
    struct label *labels;
};

static size_t identifying_labels(const struct label *labels, size_t count, struct label *out) {
    size_t n = 0;
    for (size_t i = 0; i < IDENTIFYING_COUNT; i++) {
        struct slice value = labels_get(labels, count, identifying[i]);
        if (value.len > 0)
            out[n++] = (struct label){identifying[i], value};
    }
    return n;
}

/* The name goes first: it sorts before the others. */
static size_t group_key(struct slice name, const struct label *labels, size_t count, struct label *out) {
    out[0] = (struct label){NAME_LABEL, name};
    return 1 + identifying_labels(labels, count, out + 1);
}

static int info_add(struct info *info, const struct eval_series *series) {
    int status = STATUS_OK;
    struct eval *eval = info->base.eval;
    size_t count = info->base.grid.count, words = bits_words(count), group, name_index;
    bool added;
    struct slice name = labels_get(series->labels, series->label_count, NAME_LABEL);
    size_t key_count = group_key(name, series->labels, series->label_count, info->scratch);
    if (key_count == 1)
        return STATUS_OK; /* nothing that could be matched */
    TRY(label_table_find(eval, &info->names_table, info->scratch, 1, &name_index, &added));
    TRY(label_table_find(eval, &info->groups_table, info->scratch, key_count, &group, &added));
    if (added) {
        struct info_group *groups = eval_push(eval, info->groups, group, sizeof *groups);
        if (groups == NULL)
            return eval_no_room(eval);
        info->groups = groups;
        groups[group] = (struct info_group){0};
    }
    struct info_entry *entries = eval_push(eval, info->entries, info->entry_count, sizeof *entries);
    if (entries == NULL)
        return eval_no_room(eval);
    info->entries = entries;
    TRY(eval_samples_check(eval, count));
    eval->samples_held += count;
    struct info_entry *entry = &entries[info->entry_count++];
    *entry = (struct info_entry){.label_count = series->label_count, .next = info->groups[group].first};
    info->groups[group].first = info->entry_count;
    TRY(labels_keep(eval, series->labels, series->label_count, &entry->labels));
    entry->times_s = eval_alloc(eval, (count + 1) * sizeof(double));
    entry->present = eval_alloc(eval, (words + 1) * 8);
    if (entry->times_s == NULL || entry->present == NULL)
        return eval_no_room(eval);
    memcpy(entry->times_s, series->values, count * sizeof(double));
    memcpy(entry->present, series->present, words * 8);
out:
    return status;
}

static int infos_read(struct info *info) {
    int status;
    struct eval_series series;
    while ((status = node_next(info->infos, &series)) == STATUS_OK)
        TRY(info_add(info, &series));
    if (status < 0)
        return status;
    status = STATUS_OK;
    size_t names = info->names_table.count;
    info->matching = eval_alloc(info->base.eval, (names + 1) * sizeof(size_t));
    info->choice = eval_alloc(info->base.eval, (names + 1) * sizeof(size_t));
    if (info->matching == NULL || info->choice == NULL)
        return eval_no_room(info->base.eval);
out:
    return status;
}

/* Info metrics themselves are not enriched. */
static bool is_info_metric(const struct info *info, const struct eval_series *series) {
    struct slice name = labels_get(series->labels, series->label_count, NAME_LABEL);
    for (size_t i = 0; i < info->matcher_count; i++) {
        if (slice_equal(info->matchers[i].name, NAME_LABEL) && !matcher_match(&info->matchers[i], name))
            return false;
    }
    return true;
}

static int duplicate_fail(struct info *info, const struct info_entry *a, const struct info_entry *b,
                          size_t step) {
    struct buf text;
    buf_init(&text);
    buf_append_str(&text, "found duplicate series for info metric: existing ");
    labels_print_braces(&text, a->labels, a->label_count);
    buf_printf(&text, " @ %.0f, new ", a->times_s[step] * 1000);
    labels_print_braces(&text, b->labels, b->label_count);
    buf_printf(&text, " @ %.0f", b->times_s[step] * 1000);
    int status = text.failed ? eval_no_room(info->base.eval)
                             : eval_fail(info->base.eval, "%.*s", (int)text.len, (const char *)text.data);
    buf_release(&text);
    return status;
}

/* The entry of a group with the newest sample at a step: index + 1, or 0. */
static int newest_of(struct info *info, size_t group, size_t step, size_t *out) {
    size_t best = 0;
    if (group != SIZE_MAX) {
        for (size_t at = info->groups[group].first; at != 0; at = info->entries[at - 1].next) {
            const struct info_entry *entry = &info->entries[at - 1];
            if (!bits_get(entry->present, step))
                continue;
            double time = entry->times_s[step];
            if (best == 0 || time > info->entries[best - 1].times_s[step])
                best = at;
            else if (time == info->entries[best - 1].times_s[step])
                return duplicate_fail(info, &info->entries[best - 1], entry, step);
        }
    }
    *out = best;
    return STATUS_OK;
}

static bool is_wanted(const struct info *info, struct slice name) {
    if (slice_equal(name, NAME_LABEL))
        return false;
    for (size_t i = 0; info->has_data_matchers && i < info->matcher_count; i++) {
        if (slice_equal(info->matchers[i].name, name))
            return true;
    }
    return !info->has_data_matchers;
}

/* The current series with what its chosen info series add. */
static int labels_join(struct info *info, size_t *count_out) {
    const struct eval_series *base = &info->current;
    size_t count = base->label_count;
    if (count > 0)
        memcpy(info->labels, info->current_labels, count * sizeof *info->labels);
    for (size_t n = 0; n < info->names_table.count; n++) {
        if (info->choice[n] == 0)
            continue;
        const struct info_entry *entry = &info->entries[info->choice[n] - 1];
        for (size_t i = 0; i < entry->label_count; i++) {
            struct label label = entry->labels[i];
            if (!is_wanted(info, label.name) ||
                labels_get(info->current_labels, base->label_count, label.name).len > 0)
                continue;
            struct slice before = labels_get(info->labels, count, label.name);
            if (before.len > 0 && !slice_equal(before, label.value))
                return eval_fail(info->base.eval, "conflicting label: %.*s", SLICE_ARGS(label.name));
            if (before.len == 0 && count >= STORAGE_LABELS_MAX)
                return eval_fail(info->base.eval, "a series would have more than %d labels",
                                 STORAGE_LABELS_MAX);
            labels_set(info->labels, &count, label.name, label.value);
        }
    }
    *count_out = count;
    return STATUS_OK;
}

/* Some steps of the current series: those that choose the same info series as the first that is left. Zero
 * present bits if they are to be dropped. */
static int part_take(struct info *info, struct eval_series *out) {
    int status = STATUS_OK;
    size_t count = info->base.grid.count, names = info->names_table.count;
    size_t first = bits_next(info->left, 0, count), label_count = 0;
    bool any = false;
    for (size_t n = 0; n < names; n++) {
        TRY(newest_of(info, info->matching[n], first, &info->choice[n]));
        any = any || info->choice[n] != 0;
    }
    memset(info->present, 0, bits_words(count) * 8);
    for (BITS_EACH(i, info->left, count)) {
        bool same = true;
        for (size_t n = 0; n < names && same; n++) {
            size_t choice;
            TRY(newest_of(info, info->matching[n], i, &choice));
            same = choice == info->choice[n];
        }
        if (!same)
            continue;
        bits_clear(info->left, i);
        if (any || !info->must_match) {
            bits_set(info->present, i);
            info->values[i] = info->current.values[i];
        }
    }
    TRY(labels_join(info, &label_count));
    *out =
        (struct eval_series){info->labels, label_count, info->values, info->present, info->current.drop_name};
out:
    return status;
}

static int current_next(struct info *info, bool *is_info_out) {
    struct label *scratch = info->scratch;
    int status = node_next(info->child, &info->current);
    if (status != STATUS_OK)
        return status;
    *is_info_out = is_info_metric(info, &info->current);
    const struct eval_series *series = &info->current;
    if (series->label_count > 0)
        memcpy(info->current_labels, series->labels, series->label_count * sizeof *series->labels);
    memcpy(info->left, series->present, bits_words(info->base.grid.count) * 8);
    for (size_t n = 0; n < info->names_table.count; n++) {
        struct slice name = info->names_table.sets[n].labels[0].value;
        size_t key_count = group_key(name, series->labels, series->label_count, scratch);
        info->matching[n] = key_count == 1
                                ? SIZE_MAX
                                : label_table_get(info->base.eval, &info->groups_table, scratch, key_count);
    }
    return STATUS_OK;
}

static int info_next(struct eval_node *node, struct eval_series *out) {
    struct info *info = (struct info *)node;
    int status = STATUS_OK;
    if (!info->is_read) {
        TRY(infos_read(info));
        info->is_read = true;
    }
    do {
        bool is_info = false;
        while (!bits_any(info->left, node->grid.count)) {
            status = current_next(info, &is_info);
            if (status != STATUS_OK)
                return status;
            if (is_info) {
                memset(info->left, 0, bits_words(node->grid.count) * 8);
                *out = info->current;
                return STATUS_OK;
            }
        }
        TRY(part_take(info, out));
    } while (!bits_any(out->present, node->grid.count));
out:
    return status;
}

static void info_release(struct eval_node *node) {
    regex_free(((struct info *)node)->suffix);
}

/* ---- What to select, and when ---------------------------------------------------------------------------
 */

/* The shifts on the way to the first selector: false if there is none. `fixed`: the time does not depend on
 * the step any more. */
static bool reference_find(const struct eval *eval, const struct ast *ast, bool *fixed, int64_t *fixed_ms,
                           int64_t *offset_ms) {
    const struct ast_shift *shift = NULL;
    switch (ast->kind) {
    case AST_SELECTOR:
        shift = &ast->selector.shift;
        break;
    case AST_SUBQUERY:
        shift = &ast->range.shift;
        break;
    case AST_MATRIX:
        return reference_find(eval, ast->range.expr, fixed, fixed_ms, offset_ms);
    case AST_UNARY:
        return reference_find(eval, ast->unary.expr, fixed, fixed_ms, offset_ms);
    case AST_PAREN:
        return reference_find(eval, ast->paren, fixed, fixed_ms, offset_ms);
    case AST_BINARY:
        return reference_find(eval, ast->binary.left, fixed, fixed_ms, offset_ms) ||
               reference_find(eval, ast->binary.right, fixed, fixed_ms, offset_ms);
    case AST_AGGREGATE:
        return reference_find(eval, ast->aggregate.expr, fixed, fixed_ms, offset_ms);
    case AST_CALL:
        for (size_t i = 0; i < ast->call.arg_count; i++) {
            if (reference_find(eval, ast->call.args[i], fixed, fixed_ms, offset_ms))
                return true;
        }
        return false;
    default:
        return false;
    }
    bool fixed_before = *fixed;
    int64_t fixed_ms_before = *fixed_ms, offset_before = *offset_ms, at_ms;
    if (shift_fixed(eval, shift, &at_ms)) {
        *fixed = true;
        *fixed_ms = at_ms;
        *offset_ms = 0;
    }
    *offset_ms += shift->offset_ms;
    if (ast->kind == AST_SELECTOR || reference_find(eval, ast->range.expr, fixed, fixed_ms, offset_ms))
        return true;
    *fixed = fixed_before;
    *fixed_ms = fixed_ms_before;
    *offset_ms = offset_before;
    return false;
}

/* The matchers of the second argument, and what is implied where they do not name the metric. */
static int matchers_make(struct info *info, const struct ast *selector) {
    struct eval *eval = info->base.eval;
    size_t given = selector == NULL ? 0 : selector->selector.matcher_count, count = 0;
    struct matcher *matchers = eval_alloc(eval, (given + 1) * sizeof *matchers);
    if (matchers == NULL)
        return eval_no_room(eval);
    bool has_name = false, has_positive = false;
    for (size_t i = 0; i < given; i++) {
        const struct matcher *matcher = &selector->selector.matchers[i];
        matchers[count++] = *matcher;
        if (slice_equal(matcher->name, NAME_LABEL)) {
            has_name = true;
            has_positive = has_positive || matcher->kind == MATCHER_EQUAL || matcher->kind == MATCHER_REGEX;
            continue;
        }
        info->has_data_matchers = true;
        info->must_match = info->must_match || !matcher_match(matcher, slice_of(NULL, 0));
    }
    if (!has_name) {
        matchers[count++] =
            (struct matcher){.kind = MATCHER_EQUAL, .name = NAME_LABEL, .value = slice_str("target_info")};
    } else if (!has_positive) {
        char error[REGEX_ERROR_BYTES];
        struct slice text = slice_str(".+_info");
        int status = regex_new(text, eval->limits->regex_bytes_max, false, error, &info->suffix);
        if (status < 0)
            return eval_no_room(eval);
        matchers[count++] = (struct matcher){
            .kind = MATCHER_REGEX, .name = NAME_LABEL, .value = text, .pattern = regex_pattern(info->suffix)};
    }
    info->matchers = matchers;
    info->matcher_count = count;
    return STATUS_OK;
}

static int infos_open(struct info *info, const struct ast *base, struct grid grid) {
    struct eval *eval = info->base.eval;
    bool fixed = false;
    int64_t fixed_ms = 0, offset_ms = 0;
    reference_find(eval, base, &fixed, &fixed_ms, &offset_ms);
    struct ast *ast = eval_alloc(eval, sizeof *ast);
    if (ast == NULL)
        return eval_no_room(eval);
    ast->kind = AST_SELECTOR;
    ast->type = VALUE_VECTOR;
    ast->selector.matchers = (struct matcher *)(uintptr_t)info->matchers;
    ast->selector.matcher_count = info->matcher_count;
    ast->selector.shift =
        (struct ast_shift){.offset_ms = offset_ms, .at = fixed ? AT_TIME : AT_NONE, .at_ms = fixed_ms};
    return selector_node(eval, ast, grid, true, &info->infos);
}

int info_node(struct eval *eval, struct ast *call, struct grid grid, struct eval_node **out) {
    int status = STATUS_OK;
    struct ast **args = call->call.args;
    struct info *info = node_new(eval, sizeof *info, grid, info_next);
    if (info == NULL)
        return eval_no_room(eval);
    info->base.release = info_release;
    size_t labels_bytes = (STORAGE_LABELS_MAX + 4) * sizeof(struct label), words = bits_words(grid.count) + 1;
    info->scratch = eval_alloc(eval, labels_bytes);
    info->labels = eval_alloc(eval, labels_bytes);
    info->current_labels = eval_alloc(eval, labels_bytes);
    info->values = eval_alloc(eval, (grid.count + 1) * sizeof(double));
    info->present = eval_alloc(eval, words * 8);
    info->left = eval_alloc(eval, words * 8);
    if (info->scratch == NULL || info->labels == NULL || info->current_labels == NULL ||
        info->values == NULL || info->present == NULL || info->left == NULL)
        return eval_no_room(eval);
    TRY(matchers_make(info, call->call.arg_count > 1 ? args[1] : NULL));
    TRY(infos_open(info, args[0], grid));
    TRY(node_build(eval, args[0], grid, &info->child));
    TRY(merge_node(eval, &info->base, false, NULL, out));
out:
    return status;
}
