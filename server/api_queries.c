/* api_queries.c: /api/v1/status/active_queries and slow_queries, /api/v1/admin/cancel_query. */
#include "base/json_text.h"
#include "base/metrics.h"
#include "server/api.h"

struct printing {
    struct buf *out;
    uint64_t now_ns;
};

static void seconds_append(struct buf *out, const char *key, uint64_t ns) {
    buf_printf(out, ",\"%s\":%.6f", key, (double)ns / 1e9);
}

static void note_append(struct buf *out, const struct query_note *note, struct slice text) {
    buf_printf(out, "%s{\"id\":%llu,\"query\":", out->data[out->len - 1] == '[' ? "" : ",",
               (unsigned long long)note->id);
    json_string_append(out, text, JSON_HTML);
    buf_printf(out, ",\"type\":\"%s\",\"start\":%.3f,\"end\":%.3f,\"step\":%.3f,\"client\":",
               note->range ? "range" : "instant", (double)note->start_ms / 1000, (double)note->end_ms / 1000,
               (double)note->step_ms / 1000);
    json_string_append(out, slice_str(note->client), JSON_HTML);
    buf_append_byte(out, ',');
    api_time_append(out, "received", note->received_ms);
}

static void active_append(void *context, const struct query_entry *entry) {
    const struct printing *printing = context;
    if (printing->out->failed)
        return;
    note_append(printing->out, &entry->note, queries_text_cut(entry->text));
    seconds_append(printing->out, "duration", printing->now_ns - entry->note.received_ns);
    buf_printf(printing->out, ",\"state\":\"%s\"}", entry->running ? "running" : "queued");
}

static void slow_append(void *context, const struct query_slow *slow) {
    const struct printing *printing = context;
    struct buf *out = printing->out;
    if (out->failed)
        return;
    note_append(out, &slow->note, slice_of(slow->text, slow->text_len));
    seconds_append(out, "duration", slow->duration_ns);
    seconds_append(out, "queued", slow->queue_ns);
    buf_printf(out, ",\"samplesRead\":%llu,\"peakSamples\":%llu,\"series\":%llu,\"error\":",
               (unsigned long long)slow->samples_read, (unsigned long long)slow->samples_peak,
               (unsigned long long)slow->series);
    json_string_append(out, slice_str(slow->error), JSON_HTML);
    buf_append_byte(out, '}');
}

void api_status_active_queries(struct exchange *exchange) {
    struct printing printing = {&exchange->out, clock_monotonic_ns(exchange->server->clock)};
    api_success_begin(exchange);
    buf_append_byte(&exchange->out, '[');
    queries_each(&exchange->server->queries, active_append, &printing);
    buf_append_byte(&exchange->out, ']');
    api_success_end(&exchange->out, NULL, 0, NULL, 0);
    exchange_send(exchange);
}

void api_status_slow_queries(struct exchange *exchange) {
    struct printing printing = {.out = &exchange->out};
    api_success_begin(exchange);
    buf_append_byte(&exchange->out, '[');
    queries_slow_each(&exchange->server->queries, slow_append, &printing);
    buf_append_byte(&exchange->out, ']');
    api_success_end(&exchange->out, NULL, 0, NULL, 0);
    exchange_send(exchange);
}

void api_cancel_query(struct exchange *exchange) {
    struct params params;
    if (api_admin_enabled(exchange) && api_params(exchange, &params)) {
        struct slice text = params_get(&params, "id");
        int64_t id = 0;
        bool range;
        if (!integer_parse(text, &id, &range) || id <= 0) {
            api_error(exchange, "bad_data",
                      "invalid parameter \"id\": \"%.*s\" is none of /api/v1/status/active_queries",
                      SLICE_ARGS(text));
        } else if (queries_cancel(&exchange->server->queries, (uint64_t)id)) {
            metric_add(METRIC_queries_canceled, 1);
            exchange->code = 204;
        } else {
            api_error(exchange, "not_found", "no query with the id %lld waits or runs", (long long)id);
        }
    }
    exchange_send(exchange);
}
