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

void eval_damage_note(struct eval *eval, struct storage_selection *selection) {
    char text[sizeof eval->damage_text];
    if (selection_damaged(selection) == 0)
        return;
    selection_damage_text(selection, text, sizeof text);
    size_t len = strlen(eval->damage_text);
    if (strncmp(text, eval->damage_text, len) == 0) /* a selection's text only grows */
        memcpy(eval->damage_text, text, sizeof text);
    else if (strstr(eval->damage_text, text) == NULL)
        snprintf(eval->damage_text + len, sizeof text - len, ", %s", text);
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

int eval_stop_status(const struct eval *eval) {
    const atomic_bool *canceled = eval->request->canceled;
    if (canceled != NULL && atomic_load_explicit(canceled, memory_order_relaxed))
        return STATUS_CANCELLED;
    return clock_monotonic_ns(eval->clock) >= eval->deadline_ns ? STATUS_TIMEOUT : STATUS_OK;
}

int eval_stop(struct eval *eval, int status) {
    bool canceled = status == STATUS_CANCELLED;
    eval->error->type = canceled ? QUERY_ERROR_CANCELED : QUERY_ERROR_TIMEOUT;
    snprintf(eval->error->text, sizeof eval->error->text, "query %s in expression evaluation",
             canceled ? "was canceled" : "timed out");
    return status;
}

int eval_check(struct eval *eval) {
    int status = eval_stop_status(eval);
    return status < 0 ? eval_stop(eval, status) : STATUS_OK;
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

void eval_samples_queried(const struct eval_node *node, uint64_t total, const uint32_t *at_step) {
    struct eval *eval = node->eval;
    if (node->counting == COUNT_NOT || total == 0)
        return;
    bool repeated = node->counting == COUNT_REPEATED;
    eval->samples_queried += repeated ? total * eval->step_count : total;
    for (size_t i = 0; eval->samples_at_step != NULL && i < eval->step_count; i++)
        eval->samples_at_step[i] += repeated ? total : at_step[i];
}

struct placing placing_of(const struct eval *eval, int64_t offset_ms, bool is_fixed) {
    struct placing placing = eval->placing;
    if (__builtin_add_overflow(placing.shift_ms, offset_ms, &placing.shift_ms))
        placing.shift_ms = offset_ms < 0 ? INT64_MIN : INT64_MAX;
    placing.at_first |= is_fixed || eval->counting == COUNT_REPEATED;
    return placing;
}

size_t placing_step(const struct eval *eval, const struct placing *placing, int64_t time_ms) {
    const struct query_request *request = eval->request;
    if (__builtin_add_overflow(time_ms, placing->shift_ms, &time_ms))
        time_ms = time_ms < 0 ? INT64_MIN : INT64_MAX;
    if (placing->at_first || eval->step_count < 2 || time_ms <= request->start_ms)
        return 0;
    uint64_t after_ms = (uint64_t)time_ms - (uint64_t)request->start_ms, step_ms = (uint64_t)request->step_ms;
    uint64_t step = after_ms / step_ms + (after_ms % step_ms != 0);
    return step < eval->step_count ? (size_t)step : eval->step_count - 1;
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
    struct kept_series kept = {.label_count = series->label_count, .drop_name = series->drop_name};
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
    node->counting = eval->counting;
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

static int binary_node(struct eval *eval, struct ast *ast, struct grid grid, struct eval_node **out) {
    if (ast->binary.left->type == VALUE_SCALAR || ast->binary.right->type == VALUE_SCALAR)
        return scalar_binary_node(eval, ast, grid, out);
    return op_is_set(ast->binary.op) ? set_node(eval, ast, grid, out)
                                     : vector_binary_node(eval, ast, grid, out);
}

int node_build(struct eval *eval, struct ast *ast, struct grid grid, struct eval_node **out) {
    if (ast->step_invariant && grid.count > 1 && ast->kind != AST_PAREN) {
        struct eval_node *once;
        enum counting counting = eval->counting;
        eval->counting = counting == COUNT_STEPS ? COUNT_REPEATED : counting;
        int status = node_build(eval, ast, (struct grid){grid.start_ms, grid.step_ms, 1}, &once);
        eval->counting = counting;
        return status < 0 ? status : repeat_node(eval, once, grid, out);
    }
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
        return call_node(eval, ast, grid, out);
    default:
        return eval_fail(eval, "unexpected error: not an instant vector");
    }
}
