/* api_meta.c: labels, label values, series, metadata: what there is to ask for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/json_text.h"
#include "base/metrics.h"
#include "base/utf8.h"
#include "server/api.h"

#define TEXT_TRUNCATED "results truncated due to limit"

/* Behind `data`: what an answer for that time can't have, and that it was cut. */
static void success_finish(struct exchange *exchange, struct buf *out, int64_t start_ms, int64_t end_ms,
                           bool truncated) {
    static const char prefix[] = "samples may be missing, damaged on disk: ";
    char damage[256];
    const char *warnings[2];
    size_t count = 0, len = sizeof prefix - 1;
    memcpy(damage, prefix, len);
    storage_damage_text(exchange->server->storage, start_ms, end_ms, damage + len, sizeof damage - len);
    if (damage[len] != '\0')
        warnings[count++] = damage;
    if (truncated)
        warnings[count++] = TEXT_TRUNCATED;
    api_success_end(out, warnings, count, NULL, 0);
}

/* ---- Labels, label values, series: parameters -----------------------------------------------------------
 */

/* One series of /series: which selection it is in, and its labels. */
struct series_row {
    const struct label *labels;
    size_t label_count;
};

/* Lives in the exchange's arena. */
struct meta_context {
    struct slice label; /* label values: whose */
    struct slice *match;
    size_t match_count;
    int64_t start_ms;
    int64_t end_ms;
    size_t limit;

    /* Series: what is being printed. */
    struct storage_selection **selections;
    size_t selection_count;
    struct series_row *rows;
    size_t row_count;
    size_t row_next;
    bool truncated;
};

static struct meta_context *meta_prepare(struct exchange *exchange, bool needs_match) {
    struct params params;
    struct meta_context *context = ARENA_NEW(&exchange->arena, struct meta_context);
    if (context == NULL) {
        api_error_status(exchange, STATUS_NO_MEMORY);
        return NULL;
    }
    if (!api_params(exchange, &params) ||
        !api_match(exchange, &params, &context->match, &context->match_count))
        return NULL;
    if (needs_match && context->match_count == 0) {
        api_error(exchange, "bad_data", "no match[] parameter provided");
        return NULL;
    }
    if (!api_limit(exchange, &params, &context->limit) ||
        !api_time(exchange, &params, "start", API_TIME_MIN_MS, &context->start_ms) ||
        !api_time(exchange, &params, "end", API_TIME_MAX_MS, &context->end_ms))
        return NULL;
    exchange->context = context;
    return context;
}

/* ---- Labels and label values ----------------------------------------------------------------------------
 */

static int names_read(struct exchange *exchange, const struct matcher *matchers, size_t matcher_count,
                      size_t limit, struct slice **names, size_t *count, bool *truncated) {
    struct meta_context *context = exchange->context;
    struct storage *storage = exchange->server->storage;
    if (context->label.len == 0)
        return storage_label_names(storage, matchers, matcher_count, context->start_ms, context->end_ms,
                                   limit, &exchange->arena, names, count, truncated);
    return storage_label_values(storage, context->label, matchers, matcher_count, context->start_ms,
                                context->end_ms, limit, &exchange->arena, names, count, truncated);
}

static int slice_order(const void *a, const void *b) {
    return slice_compare(*(const struct slice *)a, *(const struct slice *)b);
}

/* The union of what several selectors give: sorted, unique. */
static int names_merge(struct exchange *exchange, struct slice **names_out, size_t *count_out) {
    struct meta_context *context = exchange->context;
    struct slice *all = NULL;
    size_t count = 0;
    int status = STATUS_OK;
    for (size_t i = 0; i < context->match_count; i++) {
        struct query_selector selector;
        struct slice *names;
        size_t name_count;
        bool truncated;
        TRY(api_selector_parse(exchange, context->match[i], "", true, &selector));
        status = names_read(exchange, selector.matchers, selector.count, 0, &names, &name_count, &truncated);
        query_selector_release(&selector);
        if (status < 0) {
            api_error_status(exchange, status);
            goto out;
        }
        struct slice *grown = arena_alloc(&exchange->arena, (count + name_count) * sizeof *grown);
        if (grown == NULL) {
            status = STATUS_NO_MEMORY;
            api_error_status(exchange, status);
            goto out;
        }
        if (count > 0)
            memcpy(grown, all, count * sizeof *grown);
        if (name_count > 0)
            memcpy(grown + count, names, name_count * sizeof *grown);
        all = grown;
        count += name_count;
    }
    if (count > 1)
        qsort(all, count, sizeof *all, slice_order);
    size_t unique = 0;
    for (size_t i = 0; i < count; i++)
        if (unique == 0 || !slice_equal(all[unique - 1], all[i]))
            all[unique++] = all[i];
    *names_out = all;
    *count_out = unique;
out:
    return status;
}

static int names_collect(struct exchange *exchange, struct slice **names, size_t *count, bool *truncated) {
    struct meta_context *context = exchange->context;
    struct query_selector selector = {0};
    int status = STATUS_OK;
    if (context->match_count > 1) {
        TRY(names_merge(exchange, names, count));
        *truncated = context->limit > 0 && *count > context->limit;
        if (*truncated)
            *count = context->limit;
        return STATUS_OK;
    }
    if (context->match_count == 1)
        TRY(api_selector_parse(exchange, context->match[0], "", true, &selector));
    status = names_read(exchange, selector.matchers, selector.count, context->limit, names, count, truncated);
    if (context->match_count == 1)
        query_selector_release(&selector);
    if (status < 0)
        api_error_status(exchange, status);
out:
    return status;
}

static void names_work(struct job *job) {
    struct exchange *exchange = CONTAINER_OF(job, struct exchange, job);
    struct slice *names = NULL;
    size_t count = 0;
    bool truncated = false;
    if (names_collect(exchange, &names, &count, &truncated) == STATUS_OK) {
        api_success_begin(exchange);
        buf_append_byte(&exchange->out, '[');
        for (size_t i = 0; i < count; i++) {
            if (i > 0)
                buf_append_byte(&exchange->out, ',');
            json_string_append(&exchange->out, names[i], JSON_HTML);
        }
        buf_append_byte(&exchange->out, ']');
        const struct meta_context *context = exchange->context;
        success_finish(exchange, &exchange->out, context->start_ms, context->end_ms, truncated);
    }
    exchange_post(exchange);
}

void api_labels(struct exchange *exchange) {
    if (meta_prepare(exchange, false) == NULL)
        exchange_send(exchange);
    else
        api_work(exchange, names_work);
}

void api_label_values(struct exchange *exchange) {
    struct error_detail detail = {{0}};
    struct slice name;
    int status = percent_decode(exchange->segment, false, &exchange->arena, &detail, &name);
    if (status == STATUS_OK) {
        struct slice unescaped = label_name_unescape(name, &exchange->arena);
        if (unescaped.len == 0 || !utf8_valid(unescaped))
            status = STATUS_BAD_INPUT;
        else
            name = unescaped;
    }
    if (status != STATUS_OK) {
        api_error(exchange, "bad_data", "invalid label name: \"%.*s\"", SLICE_ARGS(exchange->segment));
        exchange_send(exchange);
        return;
    }
    struct meta_context *context = meta_prepare(exchange, false);
    if (context == NULL) {
        exchange_send(exchange);
        return;
    }
    context->label = name;
    api_work(exchange, names_work);
}

/* ---- Series ---------------------------------------------------------------------------------------------
 */

static int row_order(const void *a, const void *b) {
    const struct series_row *left = a, *right = b;
    size_t count = left->label_count < right->label_count ? left->label_count : right->label_count;
    for (size_t i = 0; i < count; i++) {
        /* Mostly series of the same storage, which lends the same bytes for the same label. */
        if (left->labels[i].value.data == right->labels[i].value.data &&
            left->labels[i].value.len == right->labels[i].value.len &&
            left->labels[i].name.data == right->labels[i].name.data)
            continue;
        int order = slice_compare(left->labels[i].name, right->labels[i].name);
        if (order == 0)
            order = slice_compare(left->labels[i].value, right->labels[i].value);
        if (order != 0)
            return order;
    }
    return (left->label_count > right->label_count) - (left->label_count < right->label_count);
}

static void series_release(struct exchange *exchange) {
    struct meta_context *context = exchange->context;
    for (size_t i = 0; i < context->selection_count; i++)
        selection_close(context->selections[i]);
    context->selection_count = 0;
}

static int row_make(struct exchange *exchange, const struct label *labels, size_t count,
                    struct series_row *out) {
    struct label *copy = arena_alloc(&exchange->arena, count * sizeof *copy);
    if (copy == NULL)
        return STATUS_NO_MEMORY;
    memcpy(copy, labels, count * sizeof *copy);
    *out = (struct series_row){copy, count};
    return STATUS_OK;
}

/* Puts the row at `at` of a heap, whose first is its last in order, where it belongs. */
static void heap_sift(struct series_row *rows, size_t count, size_t at) {
    struct series_row row = rows[at];
    for (; at > 0 && row_order(&row, &rows[(at - 1) / 2]) > 0; at = (at - 1) / 2)
        rows[at] = rows[(at - 1) / 2];
    for (size_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && row_order(&rows[child + 1], &rows[child]) > 0)
            child++;
        if (row_order(&rows[child], &row) <= 0)
            break;
        rows[at] = rows[child];
    }
    rows[at] = row;
}

/* Of very many series only the first `row_max` in order, so that a limit saves work and memory, too. */
static int rows_add_first(struct exchange *exchange, const struct storage_selection *selection,
                          size_t row_max) {
    struct meta_context *context = exchange->context;
    struct label labels[STORAGE_LABELS_MAX];
    int status = STATUS_OK;
    context->rows = arena_alloc(&exchange->arena, row_max * sizeof *context->rows);
    if (context->rows == NULL)
        return STATUS_NO_MEMORY;
    for (size_t i = 0; i < selection_series_count(selection); i++) {
        struct series_row row = {labels, selection_labels(selection, i, labels)};
        size_t at = context->row_count;
        if (at == row_max && row_order(&row, &context->rows[0]) >= 0)
            continue;
        if (at == row_max)
            at = 0;
        else
            context->row_count++;
        TRY(row_make(exchange, labels, row.label_count, &context->rows[at]));
        heap_sift(context->rows, context->row_count, at);
    }
out:
    return status;
}

static int rows_add(struct exchange *exchange, const struct storage_selection *selection) {
    struct meta_context *context = exchange->context;
    struct label labels[STORAGE_LABELS_MAX];
    size_t count = selection_series_count(selection);
    int status = STATUS_OK;
    /* One more than the limit tells that something was cut. Several selections may share series. */
    if (context->match_count == 1 && context->limit > 0 && context->limit < count)
        return rows_add_first(exchange, selection, context->limit + 1);
    struct series_row *rows = arena_alloc(&exchange->arena, (context->row_count + count) * sizeof *rows);
    if (rows == NULL)
        return STATUS_NO_MEMORY;
    if (context->row_count > 0)
        memcpy(rows, context->rows, context->row_count * sizeof *rows);
    context->rows = rows;
    for (size_t i = 0; i < count; i++) {
        size_t label_count = selection_labels(selection, i, labels);
        TRY(row_make(exchange, labels, label_count, &rows[context->row_count]));
        context->row_count++;
    }
out:
    return status;
}

static int series_collect(struct exchange *exchange) {
    struct meta_context *context = exchange->context;
    int status = STATUS_OK;
    context->selections = ARENA_ARRAY(&exchange->arena, struct storage_selection *, context->match_count);
    if (context->selections == NULL) {
        api_error_status(exchange, STATUS_NO_MEMORY);
        return STATUS_NO_MEMORY;
    }
    for (size_t i = 0; i < context->match_count; i++) {
        struct query_selector selector;
        if ((status = api_selector_parse(exchange, context->match[i], "match[]", true, &selector)) < 0)
            return status;
        struct storage_selection *selection;
        status = storage_select(exchange->server->storage, selector.matchers, selector.count,
                                context->start_ms, context->end_ms, 0, &selection);
        query_selector_release(&selector);
        if (status == STATUS_OK) {
            context->selections[context->selection_count++] = selection;
            status = rows_add(exchange, selection);
        }
        if (status < 0) {
            api_error_status(exchange, status);
            return status;
        }
    }
    return STATUS_OK;
}

static void rows_sort(struct meta_context *context) {
    if (context->row_count > 1)
        qsort(context->rows, context->row_count, sizeof *context->rows, row_order);
    size_t unique = 0;
    for (size_t i = 0; i < context->row_count; i++)
        if (unique == 0 || row_order(&context->rows[unique - 1], &context->rows[i]) != 0)
            context->rows[unique++] = context->rows[i];
    context->row_count = unique;
    context->truncated = context->limit > 0 && context->row_count > context->limit;
    if (context->truncated)
        context->row_count = context->limit;
}

static bool series_more(struct exchange *exchange, struct buf *out) {
    struct meta_context *context = exchange->context;
    size_t begin = out->len;
    while (context->row_next < context->row_count && out->len - begin < REPLY_SLICE_BYTES && !out->failed) {
        const struct series_row *row = &context->rows[context->row_next];
        buf_append_byte(out, context->row_next++ == 0 ? '[' : ',');
        for (size_t i = 0; i < row->label_count; i++) {
            buf_append_byte(out, i == 0 ? '{' : ',');
            json_string_append(out, row->labels[i].name, JSON_PLAIN);
            buf_append_byte(out, ':');
            json_string_append(out, row->labels[i].value, JSON_PLAIN);
        }
        buf_append_str(out, row->label_count == 0 ? "{}" : "}");
    }
    if (context->row_next < context->row_count)
        return true;
    buf_append_str(out, context->row_count == 0 ? "[]" : "]");
    success_finish(exchange, out, context->start_ms, context->end_ms, context->truncated);
    return false;
}

static void series_work(struct job *job) {
    struct exchange *exchange = CONTAINER_OF(job, struct exchange, job);
    struct meta_context *context = exchange->context;
    if (series_collect(exchange) == STATUS_OK) {
        rows_sort(context);
        api_success_begin(exchange);
        if (series_more(exchange, &exchange->out))
            exchange->more = series_more;
    }
    exchange_post(exchange);
}

void api_series(struct exchange *exchange) {
    if (meta_prepare(exchange, true) == NULL) {
        exchange_send(exchange);
        return;
    }
    exchange->release = series_release;
    api_work(exchange, series_work);
}

/* ---- Metadata -------------------------------------------------------------------------------------------
 */

void api_metadata(struct exchange *exchange) {
    api_send_data(exchange, "{}");
}
