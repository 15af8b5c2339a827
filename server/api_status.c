/* api_status.c: what this server is and how it was started; its health and its numbers. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/json_text.h"
#include "base/metrics.h"
#include "server/api.h"

/* `version` is the Prometheus whose API this is: Grafana decides by it what to ask. Ours is in runtimeinfo.
 * No `features`: Grafana takes a server that has it for another product. */
#define VERSION_JSON                                                                                         \
    "{\"version\":\"3.14.0\",\"revision\":\"tidalite-" TIDALITE_VERSION                                      \
    "\",\"branch\":\"\",\"buildUser\":\"\",\"buildDate\":\"\",\"goVersion\":\"\"}"

void api_status_buildinfo(struct exchange *exchange) {
    api_send_data(exchange, VERSION_JSON);
}

void api_version(struct exchange *exchange) {
    exchange_text(exchange, 200, "%s", VERSION_JSON);
    exchange_send(exchange);
}

/* ---- What it can ----------------------------------------------------------------------------------------
 */

void api_features(struct exchange *exchange) {
    const struct config *config = exchange->server->config;
    struct buf *out = &exchange->out;
    size_t count;
    const struct query_function *functions = query_functions(&count);
    api_success_begin(exchange);
    buf_printf(
        out,
        "{\"api\":{\"admin\":%s,\"exclude_alerts\":true,\"label_values_match\":true,\"lifecycle\":%s,"
        "\"query_stats\":true,\"query_warnings\":true,\"remote_write_receiver\":true,"
        "\"time_range_labels\":true,\"time_range_series\":true},"
        "\"promql\":{\"anchored\":true,\"at_modifier\":true,\"bool\":true,\"by\":true,"
        "\"delayed_name_removal\":%s,\"duration_expr\":true,\"group_left\":true,\"group_right\":true,"
        "\"ignoring\":true,\"negative_offset\":true,\"offset\":true,\"on\":true,\"per_query_lookback_delta\""
        ":true,\"per_step_stats\":true,\"smoothed\":true,\"subqueries\":true,\"without\":true},"
        "\"promql_functions\":{",
        config->enable_admin_api ? "true" : "false", config->enable_lifecycle ? "true" : "false",
        config->delayed_name_removal ? "true" : "false");
    for (size_t i = 0; i < count; i++)
        buf_printf(out, "%s\"%s\":%s", i > 0 ? "," : "", functions[i].name,
                   functions[i].there ? "true" : "false");
    buf_append_str(out, "}}");
    api_success_end(out, NULL, 0, NULL, 0);
    exchange_send(exchange);
}

/* ---- How it runs ----------------------------------------------------------------------------------------
 */

/* As Prometheus says it: "15d", "15d or 10GiB". */
static void retention_text(const struct limits *limits, char *out, size_t bytes) {
    unsigned long long hours = limits->retention_ms / 3600000, size = limits->retention_bytes;
    int len = 0;
    out[0] = 0;
    if (limits->retention_ms > 0 && hours % 24 == 0)
        len = snprintf(out, bytes, "%llud", hours / 24);
    else if (limits->retention_ms > 0)
        len = snprintf(out, bytes, "%llums", (unsigned long long)limits->retention_ms);
    if (size > 0)
        snprintf(out + len, bytes - (size_t)len, "%s%llu%s", len > 0 ? " or " : "",
                 size % (1u << 30) == 0 ? size >> 30 : size, size % (1u << 30) == 0 ? "GiB" : "B");
}

void api_status_runtimeinfo(struct exchange *exchange) {
    struct server *server = exchange->server;
    struct buf *out = &exchange->out;
    struct storage_status status;
    char text[4096], retention[96];
    storage_status(server->storage, &status);
    retention_text(&server->config->limits, retention, sizeof retention);
    api_success_begin(exchange);
    buf_append_byte(out, '{');
    api_time_append(out, "startTime", server->started_ms);
    buf_append_str(out, ",\"CWD\":");
    json_string_append(out, slice_str(getcwd(text, sizeof text) != NULL ? text : ""), JSON_HTML);
    buf_append_str(out, ",\"hostname\":");
    if (gethostname(text, sizeof text) != 0)
        text[0] = 0;
    text[sizeof text - 1] = 0;
    json_string_append(out, slice_str(text), JSON_HTML);
    buf_append_byte(out, ',');
    api_time_append(out, "serverTime", clock_wall_ms(server->clock));
    buf_printf(out, ",\"reloadConfigSuccess\":%s,", atomic_load(&server->reload->ok) ? "true" : "false");
    api_time_append(out, "lastConfigTime", atomic_load(&server->reload->ok_ms) / 1000 * 1000);
    buf_printf(
        out,
        ",\"corruptionCount\":%llu,"
        "\"goroutineCount\":0,\"GOMAXPROCS\":%zu,\"GOMEMLIMIT\":0,\"GOGC\":\"\",\"GODEBUG\":\"\","
        "\"storageRetention\":\"%s\",\"tidaliteVersion\":\"" TIDALITE_VERSION
        "\",\"io\":\"%s\",\"logWritable\":%s,\"logSegments\":%llu,\"logBytes\":%llu,\"replayMilliseconds\":%"
        "llu}",
        (unsigned long long)metric_get(METRIC_wal_replay_corrupt_frames), server->loop_count, retention,
        status.io_name, status.writable ? "true" : "false", (unsigned long long)status.log_segments,
        (unsigned long long)status.log_bytes, (unsigned long long)status.replay_ms);
    api_success_end(&exchange->out, NULL, 0, NULL, 0);
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
    api_success_end(&exchange->out, NULL, 0, NULL, 0);
    exchange_send(exchange);
}

static void setting_append(void *context, const char *flag, const char *value) {
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._/-";
    if (strcmp(flag, "config") == 0)
        return; /* a file does not name itself */
    const char *quote = value[0] == 0 || value[strspn(value, plain)] != 0 ? "\"" : "";
    buf_printf(context, "%s: %s%s%s\n", flag, quote, value, quote);
}

void api_status_config(struct exchange *exchange) {
    struct buf text;
    buf_init(&text);
    config_each(exchange->server->config, setting_append, &text);
    api_success_begin(exchange);
    buf_append_str(&exchange->out, "{\"yaml\":");
    json_string_append(&exchange->out, buf_slice(&text), JSON_HTML);
    buf_append_byte(&exchange->out, '}');
    exchange->out.failed = exchange->out.failed || text.failed;
    api_success_end(&exchange->out, NULL, 0, NULL, 0);
    buf_release(&text);
    exchange_send(exchange);
}

/* Questions are answered only when the log has been read. */
void api_status_walreplay(struct exchange *exchange) {
    struct storage_status status;
    storage_status(exchange->server->storage, &status);
    unsigned long long last = status.log_segments > 0 ? status.log_segments - 1 : 0;
    api_success_begin(exchange);
    buf_printf(&exchange->out, "{\"min\":0,\"max\":%llu,\"current\":%llu}", last, last);
    api_success_end(&exchange->out, NULL, 0, NULL, 0);
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
    api_success_end(&exchange->out, NULL, 0, NULL, 0);
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

/* ---- Numbers --------------------------------------------------------------------------------------------
 */

static void memory_gauges_set(struct exchange *exchange) {
    struct storage_memory memory;
    if (atomic_load(&exchange->server->ready))
        storage_memory(exchange->server->storage, &memory);
}

void api_metrics(struct exchange *exchange) {
    exchange->code = 200;
    exchange->type = "text/plain; version=0.0.4; charset=utf-8";
    memory_gauges_set(exchange);
    metrics_print(&exchange->out);
    exchange_send(exchange);
}

static bool name_match(const void *context, const char *name) {
    const struct query_selector *selector = context;
    return matcher_match(&selector->matchers[0], slice_str(name));
}

/* metric_name_pattern as a selector: the one door to regular expressions. */
static int pattern_parse(struct exchange *exchange, struct slice pattern, struct query_selector *selector) {
    struct buf text;
    buf_init(&text);
    buf_append_str(&text, "{__name__=~");
    json_string_append(&text, pattern, JSON_PLAIN);
    buf_append_byte(&text, '}');
    int status = text.failed
                     ? STATUS_NO_MEMORY
                     : api_selector_parse(exchange, buf_slice(&text), "metric_name_pattern", false, selector);
    if (text.failed)
        api_error_status(exchange, status);
    buf_release(&text);
    return status;
}

void api_status_self_metrics(struct exchange *exchange) {
    struct params params;
    struct query_selector selector = {0};
    if (api_params(exchange, &params)) {
        struct slice pattern = params_get(&params, "metric_name_pattern");
        if (pattern.len == 0 || pattern_parse(exchange, pattern, &selector) == STATUS_OK) {
            memory_gauges_set(exchange);
            api_success_begin(exchange);
            metrics_json_print(pattern.len > 0 ? name_match : NULL, &selector, &exchange->out);
            api_success_end(&exchange->out, NULL, 0, NULL, 0);
            query_selector_release(&selector);
        }
    }
    exchange_send(exchange);
}
