/* eval.c: what all nodes share: failing, labels, groups, kept columns, merging. */
#include "query/eval.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/float_text.h"
#include "query/functions.h"

void bits_fill(uint64_t *bits, size_t count) {
    memset(bits, 0xff, bits_words(count) * sizeof *bits);
    if (count % 64 != 0)
        bits[count / 64] = (UINT64_C(1) << (count % 64)) - 1;
}

bool bits_any(const uint64_t *bits, size_t count) {
    for (size_t i = 0; i < bits_words(count); i++) {
        if (bits[i] != 0)
            return true;
    }
    return false;
}

size_t bits_count(const uint64_t *bits, size_t count) {
    size_t total = 0;
    for (size_t i = 0; i < bits_words(count); i++)
        total += (size_t)__builtin_popcountll(bits[i]);
    return total;
}

size_t bits_next(const uint64_t *bits, size_t from, size_t count) {
    if (from >= count)
        return count;
    size_t word = from >> 6;
    uint64_t rest = bits[word] & (~UINT64_C(0) << (from & 63));
    while (rest == 0) {
        if (++word >= bits_words(count))
            return count;
        rest = bits[word];
    }
    return word * 64 + (size_t)__builtin_ctzll(rest);
}

/* ---- Failing ------------------------------------------------------------------------------------------- */

int eval_fail(struct eval *eval, const char *format, ...) {
    va_list args;
    va_start(args, format);
    eval->error->type = QUERY_ERROR_EXECUTION;
    vsnprintf(eval->error->text, sizeof eval->error->text, format, args);
    query_error_clean(eval->error);
    va_end(args);
    return STATUS_EXECUTION;
}

int eval_unsupported(struct eval *eval, const char *what) {
    return eval_fail(eval, "%s is not supported yet", what);
}

int eval_duplicate(struct eval *eval) {
    return eval_fail(eval, "vector cannot contain metrics with the same labelset");
}

void *eval_alloc(struct eval *eval, size_t bytes) {
    return arena_zalloc(&eval->arena, bytes);
}

int eval_no_room(struct eval *eval) {
    uint64_t bytes_max = eval->limits->query_bytes_max;
    size_t bytes = eval->arena.bytes + eval->result_arena->bytes;
    if (bytes_max > 0 && bytes >= bytes_max / 2) {
        eval_fail(eval, "query processing would need more than %llu bytes of memory",
                  (unsigned long long)bytes_max);
        return STATUS_BUDGET;
    }
    eval->error->type = QUERY_ERROR_INTERNAL;
    snprintf(eval->error->text, sizeof eval->error->text, "out of memory");
    return STATUS_NO_MEMORY;
}

int eval_check(struct eval *eval) {
    const atomic_bool *canceled = eval->request->canceled;
    if (canceled != NULL && atomic_load_explicit(canceled, memory_order_relaxed)) {
        eval->error->type = QUERY_ERROR_CANCELED;
        snprintf(eval->error->text, sizeof eval->error->text, "query was canceled in expression evaluation");
        return STATUS_CANCELLED;
    }
    if (clock_monotonic_ns(eval->clock) >= eval->deadline_ns) {
        eval->error->type = QUERY_ERROR_TIMEOUT;
        snprintf(eval->error->text, sizeof eval->error->text, "query timed out in expression evaluation");
        return STATUS_TIMEOUT;
    }
    return STATUS_OK;
}

int eval_samples_check(struct eval *eval, uint64_t count) {
    uint64_t held = eval->samples_held + count;
    if (held > eval->samples_peak)
        eval->samples_peak = held;
    if (held <= eval->limits->query_samples_max)
        return STATUS_OK;
    eval_fail(eval, "query processing would load too many samples into memory in query execution");
    return STATUS_BUDGET;
}

void *eval_push(struct eval *eval, void *items, size_t count, size_t item_bytes) {
    if (count != 0 && (count < 4 || (count & (count - 1)) != 0))
        return items;
    size_t capacity = count == 0 ? 4 : count * 2;
    void *grown = eval_alloc(eval, capacity * item_bytes);
    if (grown != NULL && count > 0)
        memcpy(grown, items, count * item_bytes);
    return grown;
}

/* ---- Labels
 * ---------------------------------------------------------------------------------------------------- */

struct slice labels_get(const struct label *labels, size_t count, struct slice name) {
    for (size_t i = 0; i < count; i++) {
        if (slice_equal(labels[i].name, name))
            return labels[i].value;
    }
    return slice_of(NULL, 0);
}

int labels_compare(const struct label *a, size_t a_count, const struct label *b, size_t b_count) {
    size_t count = a_count < b_count ? a_count : b_count;
    for (size_t i = 0; i < count; i++) {
        int order = slice_compare(a[i].name, b[i].name);
        if (order == 0)
            order = slice_compare(a[i].value, b[i].value);
        if (order != 0)
            return order;
    }
    return (a_count > b_count) - (a_count < b_count);
}

bool labels_equal(const struct label *a, size_t a_count, const struct label *b, size_t b_count) {
    return a_count == b_count && labels_compare(a, a_count, b, b_count) == 0;
}

void labels_drop_name(struct eval_series *series) {
    size_t kept = 0;
    for (size_t i = 0; i < series->label_count; i++) {
        struct slice name = series->labels[i].name;
        bool reserved = name.len == 8 && name.data[0] == '_' &&
                        (memcmp(name.data, "__name__", 8) == 0 || memcmp(name.data, "__type__", 8) == 0 ||
                         memcmp(name.data, "__unit__", 8) == 0);
        if (!reserved)
            series->labels[kept++] = series->labels[i];
    }
    series->label_count = kept;
}

void labels_print_braces(struct buf *buf, const struct label *labels, size_t count) {
    buf_append_byte(buf, '{');
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            buf_append_str(buf, ", ");
        if (label_name_is_legacy(labels[i].name, false))
            buf_append(buf, labels[i].name.data, labels[i].name.len);
        else
            text_quote(buf, labels[i].name);
        buf_append_byte(buf, '=');
        text_quote(buf, labels[i].value);
    }
    buf_append_byte(buf, '}');
}

void labels_set(struct label *labels, size_t *count, struct slice name, struct slice value) {
    size_t at = 0;
    while (at < *count && slice_compare(labels[at].name, name) < 0)
        at++;
    bool found = at < *count && slice_equal(labels[at].name, name);
    if (value.len == 0) {
        if (found) {
            memmove(labels + at, labels + at + 1, (*count - at - 1) * sizeof *labels);
            (*count)--;
        }
        return;
    }
    if (!found) {
        memmove(labels + at + 1, labels + at, (*count - at) * sizeof *labels);
        (*count)++;
        labels[at].name = name;
    }
    labels[at].value = value;
}

size_t labels_select(const struct label *labels, size_t count, const struct slice *names, size_t name_count,
                     bool keep, struct label *out) {
    size_t n = 0, at = 0;
    for (size_t i = 0; i < count; i++) {
        int order = 1;
        while (at < name_count && (order = slice_compare(names[at], labels[i].name)) < 0)
            at++;
        bool listed = at < name_count && order == 0;
        if (keep ? listed : !listed && !slice_equal(labels[i].name, NAME_LABEL))
            out[n++] = labels[i];
    }
    return n;
}

static int compare_names(const void *a, const void *b) {
    return slice_compare(*(const struct slice *)a, *(const struct slice *)b);
}

int names_sort(struct eval *eval, const struct slice *names, size_t count, struct slice **out,
               size_t *count_out) {
    struct slice *sorted = eval_alloc(eval, (count + 1) * sizeof *sorted);
    if (sorted == NULL)
        return eval_no_room(eval);
    if (count > 0) {
        memcpy(sorted, names, count * sizeof *sorted);
        qsort(sorted, count, sizeof *sorted, compare_names);
    }
    size_t unique = 0;
    for (size_t i = 0; i < count; i++) {
        if (unique == 0 || !slice_equal(sorted[unique - 1], sorted[i]))
            sorted[unique++] = sorted[i];
    }
    *out = sorted;
    *count_out = unique;
    return STATUS_OK;
}

int labels_keep(struct eval *eval, const struct label *labels, size_t count, struct label **out) {
    /* One more, for labels_set. */
    struct label *copy = eval_alloc(eval, (count + 1) * sizeof *copy);
    if (copy == NULL)
        return eval_no_room(eval);
    if (count > 0)
        memcpy(copy, labels, count * sizeof *copy);
    *out = copy;
    return STATUS_OK;
}

static uint64_t fold(uint64_t a, uint64_t b) {
    __uint128_t product = (__uint128_t)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t bytes_hash(uint64_t hash, struct slice s) {
    const uint8_t *p = s.data;
    size_t len = s.len;
    hash ^= fold(len + UINT64_C(0x9e3779b97f4a7c15), UINT64_C(0xd6e8feb86659fd93));
    for (; len >= 8; len -= 8, p += 8)
        hash = fold(hash ^ load_u64(p), UINT64_C(0xa0761d6478bd642f));
    if (len > 0) {
        uint64_t tail = 0;
        memcpy(&tail, p, len);
        hash = fold(hash ^ tail, UINT64_C(0xe7037ed1a0b428db));
    }
    return hash;
}

static uint64_t labels_hash(uint64_t seed, const struct label *labels, size_t count) {
    uint64_t hash = seed ^ count;
    for (size_t i = 0; i < count; i++)
        hash = bytes_hash(bytes_hash(hash, labels[i].name), labels[i].value);
    return fold(hash ^ seed, UINT64_C(0x8ebc6af09c88c6e3));
}

static size_t slot_find(const struct label_table *table, uint64_t hash, const struct label *labels,
                        size_t count) {
    size_t slot = (size_t)hash & (table->slot_count - 1);
    for (; table->slots[slot] != 0; slot = (slot + 1) & (table->slot_count - 1)) {
        const struct label_set *set = &table->sets[table->slots[slot] - 1];
        if (set->hash == hash && labels_equal(set->labels, set->label_count, labels, count))
            break;
    }
    return slot;
}

int label_table_find(struct eval *eval, struct label_table *table, const struct label *labels, size_t count,
                     size_t *index_out, bool *added_out) {
    if ((table->count + 1) * 2 > table->slot_count) {
        size_t slot_count = table->slot_count == 0 ? 16 : table->slot_count * 2;
        uint32_t *slots = eval_alloc(eval, slot_count * sizeof *slots);
        if (slots == NULL)
            return eval_no_room(eval);
        for (size_t i = 0; i < table->count; i++) {
            size_t slot = (size_t)table->sets[i].hash & (slot_count - 1);
            while (slots[slot] != 0)
                slot = (slot + 1) & (slot_count - 1);
            slots[slot] = (uint32_t)i + 1;
        }
        table->slots = slots;
        table->slot_count = slot_count;
    }
    uint64_t hash = labels_hash(eval->seed, labels, count);
    size_t slot = slot_find(table, hash, labels, count);
    if (table->slots[slot] != 0) {
        *index_out = table->slots[slot] - 1;
        *added_out = false;
        return STATUS_OK;
    }
    struct label_set *sets = eval_push(eval, table->sets, table->count, sizeof *sets);
    if (sets == NULL)
        return eval_no_room(eval);
    table->sets = sets;
    struct label *kept = NULL;
    int status = labels_keep(eval, labels, count, &kept);
    if (status < 0)
        return status;
    sets[table->count] = (struct label_set){hash, kept, count};
    table->slots[slot] = (uint32_t)table->count + 1;
    *index_out = table->count++;
    *added_out = true;
    return STATUS_OK;
}

size_t label_table_get(const struct eval *eval, const struct label_table *table, const struct label *labels,
                       size_t count) {
    if (table->count == 0)
        return SIZE_MAX;
    size_t slot = slot_find(table, labels_hash(eval->seed, labels, count), labels, count);
    return table->slots[slot] == 0 ? SIZE_MAX : table->slots[slot] - 1;
}

/* ---- Columns
 * ------------------------------------------------------------------------------------------------- */

int column_keep(struct eval *eval, const struct grid *grid, const struct eval_series *series,
                struct kept_column *out) {
    size_t words = bits_words(grid->count), count = bits_count(series->present, grid->count);
    int status = eval_samples_check(eval, count);
    if (status < 0)
        return status;
    uint64_t *present = arena_alloc(&eval->arena, (words + count) * 8 + 8);
    if (present == NULL)
        return eval_no_room(eval);
    double *values = (double *)(present + words);
    memcpy(present, series->present, words * sizeof *present);
    if (count == grid->count) {
        memcpy(values, series->values, count * sizeof *values);
    } else {
        size_t n = 0;
        for (BITS_EACH(i, present, grid->count))
            values[n++] = series->values[i];
    }
    eval->samples_held += count;
    *out = (struct kept_column){values, present, count};
    return STATUS_OK;
}

void column_unpack(const struct grid *grid, const struct kept_column *kept, double *values,
                   uint64_t *present) {
    memcpy(present, kept->present, bits_words(grid->count) * sizeof *present);
    if (kept->count == grid->count) {
        memcpy(values, kept->values, kept->count * sizeof *values);
        return;
    }
    size_t n = 0;
    for (BITS_EACH(i, present, grid->count))
        values[i] = kept->values[n++];
}

int series_keep(struct eval *eval, const struct grid *grid, const struct eval_series *series,
                struct kept_series *out) {
    int status = STATUS_OK;
    struct kept_series kept = {.label_count = series->label_count};
    TRY(labels_keep(eval, series->labels, series->label_count, &kept.labels));
    TRY(column_keep(eval, grid, series, &kept.column));
    *out = kept;
out:
    return status;
}

/* ---- Nodes ------------------------------------------------------------------------------------------------
 */

void *node_new(struct eval *eval, size_t bytes, struct grid grid,
               int (*next)(struct eval_node *node, struct eval_series *out)) {
    struct eval_node *node = eval_alloc(eval, bytes);
    if (node == NULL)
        return NULL;
    node->next = next;
    node->eval = eval;
    node->grid = grid;
    node->made_before = eval->nodes;
    eval->nodes = node;
    return node;
}

int node_next(struct eval_node *node, struct eval_series *out) {
    int status = eval_tick(node->eval);
    if (status < 0)
        return status;
    status = node->next(node, out);
    if (status == STATUS_OK && out->label_count > STORAGE_LABELS_MAX)
        return eval_fail(node->eval, "a series would have more than %d labels", STORAGE_LABELS_MAX);
    return status;
}

void nodes_release(struct eval *eval) {
    for (struct eval_node *node = eval->nodes; node != NULL; node = node->made_before) {
        if (node->release != NULL)
            node->release(node);
    }
    eval->nodes = NULL;
}

int node_build(struct eval *eval, struct ast *ast, struct grid grid, struct eval_node **out) {
    switch (ast->kind) {
    case AST_SELECTOR:
        return selector_node(eval, ast, grid, false, out);
    case AST_PAREN:
        return node_build(eval, ast->paren, grid, out);
    case AST_UNARY:
        return unary_node(eval, ast, grid, out);
    case AST_BINARY:
        return binary_node(eval, ast, grid, out);
    case AST_AGGREGATE:
        return aggregate_node(eval, ast, grid, out);
    case AST_CALL:
        return ast->call.function->how == FUNCTION_HOW_RANGE ? range_node(eval, ast, grid, out)
                                                             : call_node(eval, ast, grid, out);
    default:
        return eval_fail(eval, "unexpected error: not an instant vector");
    }
}

/* ---- Merging
 * ---------------------------------------------------------------------------------------------------- */

struct merge {
    struct eval_node base;
    struct eval_node *child;
    const char *error_text;
    bool strict;
    bool is_read;
    struct label_table table;
    struct kept_series *series; /* parallel to table.sets */
    size_t at;
    double *values;
    uint64_t *present;
};

/* Joins `more` into what is kept of the same labels. */
static int merge_join(struct merge *merge, struct kept_series *kept, const struct eval_series *more) {
    size_t count = merge->base.grid.count;
    column_unpack(&merge->base.grid, &kept->column, merge->values, merge->present);
    for (BITS_EACH(i, more->present, count)) {
        if (bits_get(merge->present, i))
            return eval_fail(merge->base.eval, "%s", merge->error_text);
        bits_set(merge->present, i);
        merge->values[i] = more->values[i];
    }
    merge->base.eval->samples_held -= kept->column.count;
    struct eval_series joined = {.values = merge->values, .present = merge->present};
    return column_keep(merge->base.eval, &merge->base.grid, &joined, &kept->column);
}

static int merge_read(struct merge *merge) {
    int status = STATUS_OK;
    struct eval *eval = merge->base.eval;
    struct eval_series series;
    while ((status = node_next(merge->child, &series)) == STATUS_OK) {
        if (!bits_any(series.present, merge->base.grid.count))
            continue;
        size_t index;
        bool added;
        TRY(label_table_find(eval, &merge->table, series.labels, series.label_count, &index, &added));
        if (!added) {
            if (merge->strict)
                return eval_fail(eval, "%s", merge->error_text);
            TRY(merge_join(merge, &merge->series[index], &series));
            continue;
        }
        struct kept_series *grown = eval_push(eval, merge->series, index, sizeof *grown);
        if (grown == NULL)
            return eval_no_room(eval);
        merge->series = grown;
        merge->series[index].labels = merge->table.sets[index].labels;
        merge->series[index].label_count = series.label_count;
        TRY(column_keep(eval, &merge->base.grid, &series, &merge->series[index].column));
    }
    if (status == STATUS_END)
        status = STATUS_OK;
out:
    return status;
}

static int merge_next(struct eval_node *node, struct eval_series *out) {
    struct merge *merge = (struct merge *)node;
    if (!merge->is_read) {
        int status = merge_read(merge);
        if (status < 0)
            return status;
        merge->is_read = true;
    }
    if (merge->at == merge->table.count)
        return STATUS_END;
    struct kept_series *kept = &merge->series[merge->at++];
    column_unpack(&node->grid, &kept->column, merge->values, merge->present);
    node->eval->samples_held -= kept->column.count;
    *out = (struct eval_series){kept->labels, kept->label_count, merge->values, merge->present};
    return STATUS_OK;
}

int merge_node(struct eval *eval, struct eval_node *child, bool strict, const char *error_text,
               struct eval_node **out) {
    struct merge *merge = node_new(eval, sizeof *merge, child->grid, merge_next);
    if (merge == NULL)
        return eval_no_room(eval);
    merge->child = child;
    merge->strict = strict;
    merge->error_text =
        error_text != NULL ? error_text : "vector cannot contain metrics with the same labelset";
    merge->values = eval_alloc(eval, (child->grid.count + 1) * sizeof(double));
    merge->present = eval_alloc(eval, (bits_words(child->grid.count) + 1) * 8);
    if (merge->values == NULL || merge->present == NULL)
        return eval_no_room(eval);
    *out = &merge->base;
    return STATUS_OK;
}

/* ---- Annotations
 * ---------------------------------------------------------------------------------------------- */

/* Notes with the same text are one; a later position in the text wins, as if evaluated left to right. At most
 * a few hundred are kept: only ten are shown. */
#define ANNOTATIONS_MAX 4096

struct annotation *annotation_find(struct eval *eval, bool is_info, const char *text, size_t at) {
    for (size_t i = 0; i < eval->annotation_count; i++) {
        struct annotation *a = &eval->annotations[i];
        if (a->is_info == is_info && strcmp(a->text, text) == 0) {
            a->at = at > a->at ? at : a->at;
            return a;
        }
    }
    if (eval->annotation_count >= ANNOTATIONS_MAX)
        return NULL;
    struct annotation *grown =
        eval_push(eval, eval->annotations, eval->annotation_count, sizeof(struct annotation));
    if (grown == NULL)
        return NULL;
    eval->annotations = grown;
    char *copy = arena_str(&eval->arena, slice_str(text));
    if (copy == NULL)
        return NULL;
    struct annotation *a = &eval->annotations[eval->annotation_count++];
    *a = (struct annotation){.is_info = is_info, .text = copy, .at = at};
    return a;
}

int annotate(struct eval *eval, bool is_info, size_t at, const char *format, ...) {
    char text[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    annotation_find(eval, is_info, text, at);
    return STATUS_OK;
}

void go_float(double v, char out[64]) {
    char text[FLOAT_TEXT_BYTES_MAX];
    size_t len = float_text_go(v, text);
    len = len < 63 ? len : 63;
    memcpy(out, text, len);
    out[len] = 0;
}
