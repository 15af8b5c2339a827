/* api_query.c: /api/v1/query and /api/v1/query_range. Parameters are read on the loop, the query runs on a
 * worker, which also makes the first slice of the answer; the loop makes the others as the client takes them.
 */
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/float_text.h"
#include "base/log.h"
#include "base/metrics.h"
#include "server/api.h"

#define TEXT_POINTS_MAX                                                                                      \
    "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution "      \
    "(?step=XX)"

#define WARNINGS_MAX 12 /* of a query: ten, how many more there are, and that the result was cut */

/* Lives in the exchange's arena. */
struct query_context {
    struct query_request request;
    struct query_result *result;
    struct query_json_cursor cursor;
    struct query_entry entry;
    uint64_t queue_ns; /* how long it waited */
    bool stats;
    const char *stats_warning; /* NULL: none */
};

/* ---- The answer -----------------------------------------------------------------------------------------
 */

static void step_stats_append(struct buf *out, const char *key, const struct query_stats *stats,
                              const uint64_t *at_step) {
    char time[FLOAT_JSON_BYTES_MAX];
    buf_printf(out, "\"%s\":[", key);
    for (size_t i = 0; i < stats->step_count; i++) {
        int64_t time_ms = stats->start_ms + (int64_t)i * stats->step_ms;
        size_t len = float_text_json((double)time_ms / 1000, time);
        buf_printf(out, "%s[%.*s,%llu]", i == 0 ? "" : ",", (int)len, time, (unsigned long long)at_step[i]);
    }
    buf_append_str(out, "],");
}

/* Timings of steps that are not measured apart are 0. */
static void stats_append(struct buf *out, const struct query_context *context) {
    struct query_stats stats;
    query_result_stats(context->result, &stats);
    double run_s = (double)stats.duration_ns / 1e9, queue_s = (double)context->queue_ns / 1e9;
    buf_printf(
        out,
        ",\"stats\":{\"timings\":{\"evalTotalTime\":%.9f,\"resultSortTime\":0,\"queryPreparationTime\":0,"
        "\"innerEvalTime\":%.9f,\"execQueueTime\":%.9f,\"execTotalTime\":%.9f},"
        "\"samples\":{",
        run_s, run_s, queue_s, run_s + queue_s);
    if (stats.samples_at_step != NULL)
        step_stats_append(out, "totalQueryableSamplesPerStep", &stats, stats.samples_at_step);
    buf_printf(out, "\"totalQueryableSamples\":%llu,", (unsigned long long)stats.samples_total);
    if (stats.read_at_step != NULL)
        step_stats_append(out, "samplesReadPerStep", &stats, stats.read_at_step);
    buf_printf(out, "\"samplesRead\":%llu,\"peakSamples\":%llu}}", (unsigned long long)stats.samples_read,
               (unsigned long long)stats.samples_peak);
}

static bool slice_append(struct query_context *context, struct buf *out) {
    if (query_result_json(context->result, &context->cursor, REPLY_SLICE_BYTES, out))
        return true;
    if (context->stats && !out->failed && out->len > 0 && out->data[out->len - 1] == '}') {
        out->len--; /* stats stand inside data, behind the result */
        stats_append(out, context);
        buf_append_byte(out, '}');
    }
    const char *const *warnings, *const *infos;
    const char *all[WARNINGS_MAX + 1];
    size_t warning_count = query_result_warnings(context->result, &warnings);
    size_t info_count = query_result_infos(context->result, &infos);
    if (context->stats_warning != NULL) {
        ASSERT(warning_count <= WARNINGS_MAX);
        memcpy(all, warnings, warning_count * sizeof *all);
        all[warning_count++] = context->stats_warning;
        warnings = all;
    }
    api_success_end(out, warnings, warning_count, infos, info_count);
    return false;
}

static bool query_more(struct exchange *exchange, struct buf *out) {
    return slice_append(exchange->context, out);
}

static void query_release(struct exchange *exchange) {
    struct query_context *context = exchange->context;
    queries_remove(&exchange->server->queries, &context->entry); /* if there was no worker for it */
    if (context->result != NULL)
        query_result_free(context->result);
    context->result = NULL;
}

/* ---- On the worker --------------------------------------------------------------------------------------
 */

static int query_evaluate(struct exchange *exchange, struct query_error *error) {
    struct server *server = exchange->server;
    struct query_context *context = exchange->context;
    uint64_t began_ns = clock_monotonic_ns(server->clock), timeout_ns = context->request.timeout_ms * 1000000;
    context->queue_ns = began_ns - context->entry.note.received_ns;
    queries_run(&server->queries, &context->entry);
    *error = (struct query_error){.type = QUERY_ERROR_NONE};
    if (atomic_load(&exchange->gone)) {
        error->type = QUERY_ERROR_CANCELED;
        snprintf(error->text, sizeof error->text, "query was canceled in query queue");
        return STATUS_CANCELLED;
    }
    if (context->queue_ns >= timeout_ns) {
        error->type = QUERY_ERROR_TIMEOUT;
        snprintf(error->text, sizeof error->text, "query timed out in query queue");
        return STATUS_TIMEOUT;
    }
    context->request.timeout_ms -= context->queue_ns / 1000000;
    metric_add(METRIC_queries, 1);
    metric_add(METRIC_queries_active, 1);
    int status = query_run(server->storage, &server->config->limits, server->clock, &context->request, error,
                           &context->result);
    metric_sub(METRIC_queries_active, 1);
    metric_observe_ns(METRIC_query_seconds, clock_monotonic_ns(server->clock) - began_ns);
    return status;
}

/* Into the log and the list of slow ones, if it is one. */
static void slow_note(struct exchange *exchange, const char *error) {
    struct server *server = exchange->server;
    struct query_context *context = exchange->context;
    uint64_t threshold_ns = server->config->limits.query_slow_ms * 1000000;
    uint64_t duration_ns = clock_monotonic_ns(server->clock) - context->entry.note.received_ns;
    if (threshold_ns == 0 || duration_ns < threshold_ns)
        return;
    struct query_slow slow = {
        .note = context->entry.note, .queue_ns = context->queue_ns, .duration_ns = duration_ns};
    struct slice text = queries_text_cut(context->entry.text);
    struct query_stats stats = {0};
    if (context->result != NULL) {
        query_result_stats(context->result, &stats);
        slow.series = query_result_series_count(context->result);
    }
    slow.samples_read = stats.samples_read;
    slow.samples_peak = stats.samples_peak;
    memcpy(slow.text, text.data, text.len);
    slow.text_len = text.len;
    snprintf(slow.error, sizeof slow.error, "%.*s", (int)sizeof slow.error - 1, error);
    queries_slow_add(&server->queries, &slow);
    metric_add(METRIC_queries_slow, 1);
    char shown[QUERIES_TEXT_BYTES / 2 + 1]; /* a line of the log has room for it, escaped */
    snprintf(shown, sizeof shown, "%.*s", SLICE_ARGS(text));
    log_warn("slow query", LOG_U64("id", slow.note.id), LOG_DOUBLE("duration_s", (double)duration_ns / 1e9),
             LOG_DOUBLE("queued_s", (double)slow.queue_ns / 1e9),
             LOG_STR("type", slow.note.range ? "range" : "instant"), LOG_I64("start_ms", slow.note.start_ms),
             LOG_I64("end_ms", slow.note.end_ms), LOG_I64("step_ms", slow.note.step_ms),
             LOG_U64("samples_read", slow.samples_read), LOG_U64("series", slow.series),
             LOG_STR("client", slow.note.client), LOG_STR("error", slow.error), LOG_STR("query", shown));
}

static void query_work(struct job *job) {
    struct exchange *exchange = CONTAINER_OF(job, struct exchange, job);
    struct query_context *context = exchange->context;
    struct query_error error;
    int status = query_evaluate(exchange, &error);
    queries_remove(&exchange->server->queries, &context->entry);
    slow_note(exchange, status < 0 ? error.text : "");
    if (status < 0) {
        metric_add(METRIC_queries_failed, 1);
        api_error_query(exchange, &error);
    } else {
        api_success_begin(exchange);
        if (slice_append(exchange->context, &exchange->out))
            exchange->more = query_more;
    }
    exchange_post(exchange);
}

/* ---- Parameters -----------------------------------------------------------------------------------------
 */

static bool duration_param(struct exchange *exchange, const struct params *params, const char *name,
                           int64_t *out) {
    struct slice text = params_get(params, name);
    if (query_duration_parse(text, out))
        return true;
    api_error(exchange, "bad_data", "invalid parameter \"%s\": cannot parse \"%.*s\" to a valid duration",
              name, SLICE_ARGS(text));
    return false;
}

static bool timestamp_param(struct exchange *exchange, const struct params *params, const char *name,
                            int64_t *out) {
    struct slice text = params_get(params, name);
    if (text.len > 0 && query_time_parse(text, out))
        return true;
    api_error(exchange, "bad_data", "invalid parameter \"%s\": cannot parse \"%.*s\" to a valid timestamp",
              name, SLICE_ARGS(text));
    return false;
}

static bool range_params(struct exchange *exchange, const struct params *params,
                         struct query_request *request) {
    if (!timestamp_param(exchange, params, "start", &request->start_ms) ||
        !timestamp_param(exchange, params, "end", &request->end_ms))
        return false;
    if (request->end_ms < request->start_ms) {
        api_error(exchange, "bad_data",
                  "invalid parameter \"end\": end timestamp must not be before start time");
        return false;
    }
    if (!duration_param(exchange, params, "step", &request->step_ms))
        return false;
    if (request->step_ms <= 0) {
        api_error(exchange, "bad_data",
                  "invalid parameter \"step\": zero or negative query resolution step widths are not "
                  "accepted. Try a "
                  "positive integer");
        return false;
    }
    /* As unsigned: the distance between two int64 may not fit one. */
    uint64_t span = (uint64_t)request->end_ms - (uint64_t)request->start_ms;
    if (span / (uint64_t)request->step_ms > exchange->server->config->limits.query_points_max) {
        api_error(exchange, "bad_data", TEXT_POINTS_MAX);
        return false;
    }
    return true;
}

static bool stats_warning_make(struct exchange *exchange, struct slice value, struct query_context *context) {
    static const char text[] =
        "value \"%.*s\" for parameter \"stats\" is deprecated and will be rejected in the "
        "next major release, use \"true\" or \"all\"";
    size_t bytes = sizeof text + value.len;
    char *made = arena_alloc_bytes(&exchange->arena, bytes);
    if (made == NULL) {
        api_error_status(exchange, STATUS_NO_MEMORY);
        return false;
    }
    snprintf(made, bytes, text, SLICE_ARGS(value));
    context->stats_warning = made;
    return true;
}

/* What both have: limit, timeout, lookback_delta, stats, query; in the order in which Prometheus looks at
 * them. */
static bool common_params(struct exchange *exchange, const struct params *params,
                          struct query_context *context) {
    const struct limits *limits = &exchange->server->config->limits;
    struct query_request *request = &context->request;
    int64_t duration_ms;
    request->timeout_ms = limits->query_timeout_ms_max;
    if (params_get(params, "timeout").len > 0) {
        if (!duration_param(exchange, params, "timeout", &duration_ms))
            return false;
        if (duration_ms < 0)
            duration_ms = 0;
        if ((uint64_t)duration_ms < request->timeout_ms)
            request->timeout_ms = (uint64_t)duration_ms;
    }
    request->lookback_ms = (int64_t)limits->query_lookback_ms;
    struct slice lookback = params_get(params, "lookback_delta");
    if (lookback.len > 0) {
        if (!query_duration_parse(lookback, &duration_ms)) {
            api_error(exchange, "bad_data",
                      "error parsing lookback delta duration: cannot parse \"%.*s\" to a valid duration",
                      SLICE_ARGS(lookback));
            return false;
        }
        if (duration_ms > 0)
            request->lookback_ms = duration_ms;
    }
    struct slice stats = params_get(params, "stats");
    context->stats = stats.len > 0;
    request->step_stats = slice_equal(stats, slice_str("all"));
    if (context->stats && !request->step_stats && !slice_equal(stats, slice_str("true")) &&
        !stats_warning_make(exchange, stats, context))
        return false;
    request->text = params_get(params, "query");
    if (request->text.len > limits->query_text_bytes_max) {
        api_error(exchange, "bad_data",
                  "invalid parameter \"query\": longer than %llu bytes (--query-bytes-max)",
                  (unsigned long long)limits->query_text_bytes_max);
        return false;
    }
    return true;
}

static void query_list(struct exchange *exchange, struct query_context *context) {
    const struct query_request *request = &context->request;
    context->entry =
        (struct query_entry){.note = {.range = request->range,
                                      .start_ms = request->start_ms,
                                      .end_ms = request->end_ms,
                                      .step_ms = request->step_ms,
                                      .received_ms = clock_wall_ms(exchange->server->clock),
                                      .received_ns = clock_monotonic_ns(exchange->server->clock)},
                             .text = request->text,
                             .canceled = &exchange->gone};
    exchange_client(exchange, context->entry.note.client, sizeof context->entry.note.client);
    queries_add(&exchange->server->queries, &context->entry);
}

static void query_handle(struct exchange *exchange, bool range) {
    struct params params;
    struct query_context *context = ARENA_NEW(&exchange->arena, struct query_context);
    if (context == NULL) {
        api_error_status(exchange, STATUS_NO_MEMORY);
        goto refused;
    }
    struct query_request *request = &context->request;
    request->range = range;
    request->canceled = &exchange->gone;
    request->delayed_name_removal = exchange->server->config->delayed_name_removal;
    if (!api_params(exchange, &params) || !api_limit(exchange, &params, &request->series_limit))
        goto refused;
    if (range && !range_params(exchange, &params, request))
        goto refused;
    if (!range) {
        if (!api_time(exchange, &params, "time", clock_wall_ms(exchange->server->clock), &request->start_ms))
            goto refused;
        request->end_ms = request->start_ms;
    }
    if (!common_params(exchange, &params, context))
        goto refused;
    exchange->context = context;
    exchange->release = query_release;
    query_list(exchange, context);
    api_work(exchange, query_work);
    return;
refused:
    exchange_send(exchange);
}

void api_query_instant(struct exchange *exchange) {
    query_handle(exchange, false);
}

void api_query_range(struct exchange *exchange) {
    query_handle(exchange, true);
}
