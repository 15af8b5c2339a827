/* api_meta.c: labels, label values, series, and everything that says what this server is and how it is. */
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

/* Go's minTime and maxTime of the API as milliseconds: everything. */
#define TIME_ALL_MIN_MS (INT64_MIN / 2)
#define TIME_ALL_MAX_MS (INT64_MAX / 2)

static const char *const truncated_warning[] = {TEXT_TRUNCATED};

static void success_finish(struct exchange *exchange, bool truncated) {
    api_success_end(&exchange->out, truncated_warning, truncated ? 1 : 0, NULL, 0);
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

static struct meta_context *meta_prepare(struct exchange *exchange) {
    struct params params;
    struct meta_context *context = ARENA_NEW(&exchange->arena, struct meta_context);
    if (context == NULL) {
        api_error_status(exchange, STATUS_NO_MEMORY);
        return NULL;
    }
    if (!api_params(exchange, &params) || !api_limit(exchange, &params, &context->limit) ||
        !api_time(exchange, &params, "start", TIME_ALL_MIN_MS, &context->start_ms) ||
        !api_time(exchange, &params, "end", TIME_ALL_MAX_MS, &context->end_ms))
        return NULL;
    size_t bytes = 0;
    context->match = ARENA_ARRAY(&exchange->arena, struct slice, params.count + 1);
    if (context->match == NULL) {
        api_error_status(exchange, STATUS_NO_MEMORY);
        return NULL;
    }
    for (size_t i = 0; i < params.count; i++) {
        if (!slice_equal(params.items[i].name, slice_str("match[]")))
            continue;
        context->match[context->match_count++] = params.items[i].value;
        bytes += params.items[i].value.len;
    }
    if (bytes > exchange->server->config->limits.selector_bytes_max) {
        api_error(exchange, "bad_data", "invalid parameter \"match[]\": longer than %llu bytes",
                  (unsigned long long)exchange->server->config->limits.selector_bytes_max);
        return NULL;
    }
    exchange->context = context;
    return context;
}

static int selector_parse(struct exchange *exchange, struct slice text, struct query_selector *selector) {
    struct query_error error = {.type = QUERY_ERROR_NONE};
    int status =
        query_selector_parse(text, &exchange->server->config->limits, &exchange->arena, &error, selector);
    if (status == STATUS_NO_MEMORY)
        api_error_status(exchange, status);
    else if (status < 0)
        api_error(exchange, "bad_data", "invalid parameter \"match[]\": %s", error.text);
    return status;
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
        TRY(selector_parse(exchange, context->match[i], &selector));
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
        TRY(selector_parse(exchange, context->match[0], &selector));
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
        success_finish(exchange, truncated);
    }
    exchange_post(exchange);
}

void api_labels(struct exchange *exchange) {
    if (meta_prepare(exchange) == NULL)
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
    struct meta_context *context = meta_prepare(exchange);
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

static int rows_add(struct exchange *exchange, const struct storage_selection *selection) {
    struct meta_context *context = exchange->context;
    struct label labels[STORAGE_LABELS_MAX];
    size_t count = selection_series_count(selection);
    struct series_row *rows = arena_alloc(&exchange->arena, (context->row_count + count) * sizeof *rows);
    if (rows == NULL)
        return STATUS_NO_MEMORY;
    if (context->row_count > 0)
        memcpy(rows, context->rows, context->row_count * sizeof *rows);
    context->rows = rows;
    for (size_t i = 0; i < count; i++) {
        size_t label_count = selection_labels(selection, i, labels);
        struct label *copy = arena_alloc(&exchange->arena, label_count * sizeof *copy);
        if (copy == NULL)
            return STATUS_NO_MEMORY;
        memcpy(copy, labels, label_count * sizeof *copy);
        rows[context->row_count++] = (struct series_row){copy, label_count};
    }
    return STATUS_OK;
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
        if ((status = selector_parse(exchange, context->match[i], &selector)) < 0)
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
    api_success_end(out, truncated_warning, context->truncated ? 1 : 0, NULL, 0);
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
    struct meta_context *context = meta_prepare(exchange);
    if (context != NULL && context->match_count == 0) {
        api_error(exchange, "bad_data", "no match[] parameter provided");
        context = NULL;
    }
    if (context == NULL) {
        exchange_send(exchange);
        return;
    }
    exchange->release = series_release;
    api_work(exchange, series_work);
}

/* ---- Fixed and simple answers ---------------------------------------------------------------------------
 */

static void send_data(struct exchange *exchange, const char *data) {
    api_success_begin(exchange);
    buf_append_str(&exchange->out, data);
    success_finish(exchange, false);
    exchange_send(exchange);
}

void api_metadata(struct exchange *exchange) {
    send_data(exchange, "{}");
}

void api_rules(struct exchange *exchange) {
    send_data(exchange, "{\"groups\":[]}");
}

void api_alerts(struct exchange *exchange) {
    send_data(exchange, "{\"alerts\":[]}");
}

void api_targets(struct exchange *exchange) {
    send_data(exchange, "{\"activeTargets\":[],\"droppedTargets\":[],\"droppedTargetCounts\":{}}");
}

void api_alertmanagers(struct exchange *exchange) {
    send_data(exchange, "{\"activeAlertmanagers\":[],\"droppedAlertmanagers\":[]}");
}

/* Grafana asks once with the times in milliseconds and turns exemplars off unless the answer is a success. */
void api_query_exemplars(struct exchange *exchange) {
    struct params params;
    int64_t start_ms, end_ms;
    if (!api_params(exchange, &params) || !api_time(exchange, &params, "start", TIME_ALL_MIN_MS, &start_ms) ||
        !api_time(exchange, &params, "end", TIME_ALL_MAX_MS, &end_ms)) {
        exchange_send(exchange);
        return;
    }
    if (end_ms < start_ms) {
        api_error(exchange, "bad_data", "end timestamp must not be before start timestamp");
        exchange_send(exchange);
        return;
    }
    send_data(exchange, "[]");
}

/* `version` is the Prometheus whose API this is: Grafana decides by it what to ask. Ours is in runtimeinfo.
 * No `features`: Grafana takes a server that has it for another product. */
void api_status_buildinfo(struct exchange *exchange) {
    send_data(exchange, "{\"version\":\"3.14.0\",\"revision\":\"tidalite-" TIDALITE_VERSION
                        "\",\"branch\":\"\",\"buildUser\":\"\",\"buildDate\":\"\",\"goVersion\":\"\"}");
}

static void time_append(struct buf *out, const char *key, int64_t time_ms) {
    char text[40];
    struct tm parts;
    time_t seconds = (time_t)(time_ms / 1000);
    gmtime_r(&seconds, &parts);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
    buf_printf(out, "\"%s\":\"%s\"", key, text);
}

void api_status_runtimeinfo(struct exchange *exchange) {
    struct server *server = exchange->server;
    struct buf *out = &exchange->out;
    struct storage_status status;
    char text[4096];
    storage_status(server->storage, &status);
    api_success_begin(exchange);
    buf_append_byte(out, '{');
    time_append(out, "startTime", server->started_ms);
    buf_append_str(out, ",\"CWD\":");
    json_string_append(out, slice_str(getcwd(text, sizeof text) != NULL ? text : ""), JSON_HTML);
    buf_append_str(out, ",\"hostname\":");
    if (gethostname(text, sizeof text) != 0)
        text[0] = 0;
    text[sizeof text - 1] = 0;
    json_string_append(out, slice_str(text), JSON_HTML);
    buf_append_byte(out, ',');
    time_append(out, "serverTime", clock_wall_ms(server->clock));
    buf_printf(
        out,
        ",\"reloadConfigSuccess\":true,\"lastConfigTime\":\"1970-01-01T00:00:00Z\",\"corruptionCount\":%llu,"
        "\"goroutineCount\":0,\"GOMAXPROCS\":%zu,\"GOMEMLIMIT\":0,\"GOGC\":\"\",\"GODEBUG\":\"\","
        "\"storageRetention\":\"\",\"tidaliteVersion\":\"" TIDALITE_VERSION
        "\",\"io\":\"%s\",\"logWritable\":%s,\"logSegments\":%llu,\"logBytes\":%llu,\"replayMilliseconds\":%"
        "llu}",
        (unsigned long long)metric_get(METRIC_wal_replay_corrupt_frames), server->loop_count, status.io_name,
        status.writable ? "true" : "false", (unsigned long long)status.log_segments,
        (unsigned long long)status.log_bytes, (unsigned long long)status.replay_ms);
    success_finish(exchange, false);
    exchange_send(exchange);
}

static void flag_append(void *context, const char *flag, const char *value) {
    struct buf *out = context;
    if (out->data[out->len - 1] != '{')
        buf_append_byte(out, ',');
    json_string_append(out, slice_str(flag), JSON_HTML);
    buf_append_byte(out, ':');
    json_string_append(out, slice_str(value), JSON_HTML);
}

void api_status_flags(struct exchange *exchange) {
    api_success_begin(exchange);
    buf_append_byte(&exchange->out, '{');
    if (!exchange->out.failed)
        config_each(exchange->server->config, flag_append, &exchange->out);
    buf_append_byte(&exchange->out, '}');
    success_finish(exchange, false);
    exchange_send(exchange);
}

void api_status_limits(struct exchange *exchange) {
    struct buf *out = &exchange->out;
    uint64_t count;
    const struct limit_info *infos = limits_info(&count);
    api_success_begin(exchange);
    buf_append_byte(out, '[');
    for (uint64_t i = 0; i < count; i++) {
        uint64_t value;
        memcpy(&value, (const char *)&exchange->server->config->limits + infos[i].offset, sizeof value);
        buf_printf(
            out,
            "%s{\"name\":\"%s\",\"value\":%llu,\"default\":%llu,\"unit\":\"%s\",\"flag\":\"%s\",\"answer\":",
            i > 0 ? "," : "", infos[i].name, (unsigned long long)value,
            (unsigned long long)infos[i].value_default, infos[i].unit, infos[i].flag);
        json_string_append(out, slice_str(infos[i].answer), JSON_HTML);
        buf_append_byte(out, '}');
    }
    buf_append_byte(out, ']');
    success_finish(exchange, false);
    exchange_send(exchange);
}

void api_healthy(struct exchange *exchange) {
    exchange_text(exchange, 200, "Prometheus Server is Healthy.");
    exchange_send(exchange);
}

void api_ready(struct exchange *exchange) {
    if (atomic_load(&exchange->server->ready))
        exchange_text(exchange, 200, "Prometheus Server is Ready.");
    else
        exchange_text(exchange, 503, "Service Unavailable");
    exchange_send(exchange);
}

void api_metrics(struct exchange *exchange) {
    exchange->code = 200;
    exchange->type = "text/plain; version=0.0.4; charset=utf-8";
    if (atomic_load(&exchange->server->ready)) {
        struct storage_memory memory; /* sets gauges */
        storage_memory(exchange->server->storage, &memory);
    }
    metrics_print(&exchange->out);
    exchange_send(exchange);
}
