/* api_federate.c: /federate: the newest sample of each series, if it is no older than the lookback and no
 * stale marker, as text exposition with its time. For a Prometheus that scrapes a part of what is here. */
#include <stdlib.h>

#include "base/bytes.h"
#include "base/float_text.h"
#include "base/utf8.h"
#include "server/api.h"

#define TYPE_ESCAPED "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"
#define TYPE_UTF8    "text/plain; version=0.0.4; charset=utf-8; escaping=allow-utf-8"

/* How often the client is looked for while series are read. */
#define ROWS_PER_LOOK 1024

struct federate_row {
    struct slice name;
    uint64_t id;
    const struct storage_selection *selection;
    size_t index;
    int64_t time_ms;
    double value;
};

/* Lives in the exchange's arena. */
struct federate_context {
    struct slice *match;
    size_t match_count;
    struct storage_selection **selections;
    size_t selection_count;
    struct federate_row *rows;
    size_t row_count;
    size_t row_next;
    bool utf8; /* names that are not legacy names stand in quotes; else they are changed to be ones */
};

static void federate_release(struct exchange *exchange) {
    struct federate_context *context = exchange->context;
    for (size_t i = 0; i < context->selection_count; i++)
        selection_close(context->selections[i]);
    context->selection_count = 0;
}

/* ---- Text -----------------------------------------------------------------------------------------------
 */

static void quoted_append(struct buf *out, struct slice text) {
    buf_append_byte(out, '"');
    for (size_t i = 0, run = 0; i <= text.len; i++) {
        uint8_t c = i < text.len ? text.data[i] : 0;
        if (i < text.len && c != '\n' && c != '"' && c != '\\')
            continue;
        buf_append(out, text.data + run, i - run);
        run = i + 1;
        if (c == '\n')
            buf_append_str(out, "\\n");
        else if (i < text.len)
            buf_printf(out, "\\%c", c);
    }
    buf_append_byte(out, '"');
}

static bool is_legacy_byte(uint8_t c, bool first, bool metric) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (c >= '0' && c <= '9' && !first) ||
           (c == ':' && metric);
}

/* Every character that may not be in the name becomes an underscore. */
static void escaped_append(struct buf *out, struct slice name, bool metric) {
    const uint8_t *p = name.data, *end = name.data + name.len;
    while (p < end) {
        uint32_t code_point;
        size_t width = utf8_decode(p, end, &code_point);
        buf_append_byte(out, is_legacy_byte(*p, p == name.data, metric) ? *p : '_');
        p += width > 0 ? width : 1;
    }
}

static void name_append(struct buf *out, struct slice name, bool metric, bool utf8) {
    if (label_name_is_legacy(name, metric))
        buf_append(out, name.data, name.len);
    else if (utf8)
        quoted_append(out, name);
    else
        escaped_append(out, name, metric);
}

/* As Prometheus, an empty `instance` where there is none: the label of whoever scrapes this is not put there.
 */
static void row_append(const struct federate_context *context, const struct federate_row *row,
                       struct buf *out) {
    struct label labels[STORAGE_LABELS_MAX];
    char value[FLOAT_TEXT_BYTES_MAX];
    size_t count = selection_labels(row->selection, row->index, labels);
    bool inside = context->utf8 && !label_name_is_legacy(row->name, true), has_instance = false;
    if (inside)
        buf_append_byte(out, '{');
    name_append(out, row->name, true, context->utf8);
    const char *before = inside ? "," : "{";
    for (size_t i = 0; i < count; i++) {
        if (slice_equal(labels[i].name, slice_str(LABEL_NAME_METRIC)))
            continue;
        has_instance = has_instance || slice_equal(labels[i].name, slice_str("instance"));
        buf_append_str(out, before);
        name_append(out, labels[i].name, false, context->utf8);
        buf_append_byte(out, '=');
        quoted_append(out, labels[i].value);
        before = ",";
    }
    if (!has_instance)
        buf_printf(out, "%sinstance=\"\"", before);
    size_t len = float_text_go(row->value, value);
    buf_printf(out, "} %.*s %lld\n", (int)len, value, (long long)row->time_ms);
}

static bool rows_more(struct exchange *exchange, struct buf *out) {
    struct federate_context *context = exchange->context;
    size_t begin = out->len;
    while (context->row_next < context->row_count && out->len - begin < REPLY_SLICE_BYTES && !out->failed) {
        const struct federate_row *row = &context->rows[context->row_next];
        if (context->row_next == 0 || !slice_equal(row[-1].name, row->name)) {
            buf_append_str(out, "# TYPE ");
            name_append(out, row->name, true, context->utf8);
            buf_append_str(out, " untyped\n");
        }
        row_append(context, row, out);
        context->row_next++;
    }
    return context->row_next < context->row_count;
}

/* ---- On the worker --------------------------------------------------------------------------------------
 */

static int row_order(const void *a, const void *b) {
    const struct federate_row *left = a, *right = b;
    int order = slice_compare(left->name, right->name);
    return order != 0 ? order : (left->id > right->id) - (left->id < right->id);
}

static void rows_sort(struct federate_context *context) {
    if (context->row_count > 1)
        qsort(context->rows, context->row_count, sizeof *context->rows, row_order);
    size_t unique = 0;
    for (size_t i = 0; i < context->row_count; i++)
        if (unique == 0 || context->rows[unique - 1].id != context->rows[i].id)
            context->rows[unique++] = context->rows[i];
    context->row_count = unique;
}

static int selections_open(struct exchange *exchange, int64_t start_ms, int64_t end_ms,
                           size_t *series_count) {
    struct federate_context *context = exchange->context;
    size_t series_max = (size_t)exchange->server->config->limits.query_samples_max;
    context->selections = ARENA_ARRAY(&exchange->arena, struct storage_selection *, context->match_count);
    if (context->selections == NULL) {
        api_error_status(exchange, STATUS_NO_MEMORY);
        return STATUS_NO_MEMORY;
    }
    *series_count = 0;
    for (size_t i = 0; i < context->match_count; i++) {
        struct query_selector selector;
        struct storage_selection *selection;
        int status = api_selector_parse(exchange, context->match[i], "", false, &selector);
        if (status < 0)
            return status;
        status = storage_select(exchange->server->storage, selector.matchers, selector.count, start_ms,
                                end_ms, series_max, &selection);
        query_selector_release(&selector);
        if (status < 0) {
            api_error_status(exchange, status);
            return status;
        }
        context->selections[context->selection_count++] = selection;
        *series_count += selection_series_count(selection);
    }
    return STATUS_OK;
}

static int rows_read(struct exchange *exchange, int64_t start_ms, int64_t end_ms) {
    struct federate_context *context = exchange->context;
    struct sample_columns columns = {0};
    int status = STATUS_OK;
    for (size_t i = 0; i < context->selection_count; i++) {
        struct storage_selection *selection = context->selections[i];
        for (size_t series = 0; series < selection_series_count(selection); series++) {
            if (series % ROWS_PER_LOOK == 0 && atomic_load(&exchange->gone)) {
                status = STATUS_CANCELLED;
                goto out;
            }
            columns.count = 0;
            TRY(selection_read_newest(selection, series, start_ms, end_ms, &columns));
            struct slice name = selection_label(selection, series, slice_str(LABEL_NAME_METRIC));
            if (columns.count == 0 || name.len == 0 ||
                double_bits(columns.values[columns.count - 1]) == STALE_NAN_BITS)
                continue;
            context->rows[context->row_count++] =
                (struct federate_row){.name = name,
                                      .id = selection_series_id(selection, series),
                                      .selection = selection,
                                      .index = series,
                                      .time_ms = columns.times_ms[columns.count - 1],
                                      .value = columns.values[columns.count - 1]};
        }
    }
out:
    sample_columns_release(&columns);
    if (status < 0)
        api_error_status(exchange, status);
    return status;
}

static void federate_work(struct job *job) {
    struct exchange *exchange = CONTAINER_OF(job, struct exchange, job);
    struct federate_context *context = exchange->context;
    int64_t end_ms = clock_wall_ms(exchange->server->clock);
    int64_t start_ms = end_ms - (int64_t)exchange->server->config->limits.query_lookback_ms;
    size_t series_count;
    if (selections_open(exchange, start_ms, end_ms, &series_count) < 0)
        goto out;
    context->rows = arena_alloc(&exchange->arena, (series_count + 1) * sizeof *context->rows);
    if (context->rows == NULL) {
        api_error_status(exchange, STATUS_NO_MEMORY);
        goto out;
    }
    if (rows_read(exchange, start_ms, end_ms) < 0)
        goto out;
    rows_sort(context);
    exchange->code = 200;
    exchange->type = context->utf8 ? TYPE_UTF8 : TYPE_ESCAPED;
    if (rows_more(exchange, &exchange->out))
        exchange->more = rows_more;
out:
    exchange_post(exchange);
}

void api_federate(struct exchange *exchange) {
    struct params params;
    struct federate_context *context = ARENA_NEW(&exchange->arena, struct federate_context);
    if (context == NULL) {
        api_error_status(exchange, STATUS_NO_MEMORY);
    } else if (api_params(exchange, &params) &&
               api_match(exchange, &params, &context->match, &context->match_count)) {
        if (context->match_count > 0) {
            context->utf8 = header_param_is(exchange->accept, "escaping", "allow-utf-8");
            exchange->context = context;
            exchange->release = federate_release;
            api_work(exchange, federate_work);
            return;
        }
        api_error(exchange, "bad_data", "no match[] parameter provided");
    }
    exchange_send(exchange);
}
