#include "server/api.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/json_text.h"
#include "base/metrics.h"

static int error_code(const char *type) {
    static const struct {
        const char *type;
        int code;
    } codes[] = {{"bad_data", 400}, {"execution", 422},   {"canceled", 499},  {"timeout", 503},
                 {"internal", 500}, {"unavailable", 503}, {"not_found", 404}, {"not_acceptable", 406}};
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (strcmp(codes[i].type, type) == 0)
            return codes[i].code;
    return 500;
}

void api_error(struct exchange *exchange, const char *type, const char *format, ...) {
    char text[QUERY_ERROR_BYTES + 256];
    va_list arguments;
    va_start(arguments, format);
    int len = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (len < 0)
        len = 0;
    if ((size_t)len >= sizeof text)
        len = sizeof text - 1;
    exchange->more = NULL;
    if (exchange->route != NULL && (exchange->route->flags & ROUTE_TEXT) != 0) {
        exchange_text(exchange, error_code(type), "%s", text);
        return;
    }
    exchange->code = error_code(type);
    exchange->type = "application/json";
    buf_clear(&exchange->out);
    buf_printf(&exchange->out, "{\"status\":\"error\",\"errorType\":\"%s\",\"error\":", type);
    json_string_append(&exchange->out, slice_of(text, (size_t)len), JSON_HTML);
    buf_append_byte(&exchange->out, '}');
}

void api_error_status(struct exchange *exchange, int status) {
    switch (status) {
    case STATUS_NO_MEMORY:
        api_error(exchange, "execution", "out of memory, or over --query-memory-max");
        break;
    case STATUS_BUDGET:
        api_error(exchange, "execution", "%s", status_message(status));
        break;
    case STATUS_CANCELLED:
        api_error(exchange, "canceled", "%s", status_message(status));
        break;
    case STATUS_STOPPING:
    case STATUS_BUSY:
        api_error(exchange, "unavailable", "%s", status_message(status));
        api_retry_after(exchange);
        break;
    default:
        api_error(exchange, "internal", "%s", status_message(status));
    }
}

void api_error_query(struct exchange *exchange, const struct query_error *error) {
    switch (error->type) {
    case QUERY_ERROR_BAD_DATA:
        api_error(exchange, "bad_data", "invalid parameter \"query\": %s", error->text);
        break;
    case QUERY_ERROR_EXECUTION:
        api_error(exchange, "execution", "%s", error->text);
        break;
    case QUERY_ERROR_TIMEOUT:
        api_error(exchange, "timeout", "%s", error->text);
        break;
    case QUERY_ERROR_CANCELED:
        api_error(exchange, "canceled", "%s", error->text);
        break;
    case QUERY_ERROR_NONE:
    case QUERY_ERROR_INTERNAL:
        api_error(exchange, "internal", "%s", error->text);
        break;
    }
}

void api_success_begin(struct exchange *exchange) {
    exchange->code = 200;
    exchange->type = "application/json";
    buf_clear(&exchange->out);
    buf_append_str(&exchange->out, "{\"status\":\"success\",\"data\":");
}

static void texts_append(struct buf *out, const char *key, const char *const *texts, size_t count) {
    if (count == 0)
        return;
    buf_printf(out, ",\"%s\":[", key);
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            buf_append_byte(out, ',');
        json_string_append(out, slice_str(texts[i]), JSON_HTML);
    }
    buf_append_byte(out, ']');
}

void api_success_end(struct buf *out, const char *const *warnings, size_t warning_count,
                     const char *const *infos, size_t info_count) {
    texts_append(out, "warnings", warnings, warning_count);
    texts_append(out, "infos", infos, info_count);
    buf_append_byte(out, '}');
}

void api_send_data(struct exchange *exchange, const char *data) {
    api_success_begin(exchange);
    buf_append_str(&exchange->out, data);
    api_success_end(&exchange->out, NULL, 0, NULL, 0);
    exchange_send(exchange);
}

/* Prometheus gives this one 500, not 503. */
bool api_admin_enabled(struct exchange *exchange) {
    if (exchange->server->config->enable_admin_api)
        return true;
    api_error(exchange, "unavailable", "admin APIs disabled");
    exchange->code = 500;
    return false;
}

void api_time_append(struct buf *out, const char *key, int64_t time_ms) {
    char text[40];
    struct tm parts;
    time_t seconds = (time_t)(time_ms / 1000);
    gmtime_r(&seconds, &parts);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
    buf_printf(out, "\"%s\":\"%s", key, text);
    if (time_ms % 1000 != 0)
        buf_printf(out, ".%03d", (int)(time_ms % 1000));
    buf_append_str(out, "Z\"");
}

bool api_params(struct exchange *exchange, struct params *params) {
    struct error_detail detail = {{0}};
    int status = STATUS_OK;
    *params = (struct params){0};
    if ((exchange->method == METHOD_POST || exchange->method == METHOD_PUT) &&
        media_type_is(exchange->content_type, "application/x-www-form-urlencoded"))
        status = params_parse(buf_slice(&exchange->body), &exchange->arena, &detail, params);
    if (status == STATUS_OK)
        status = params_parse(exchange->query, &exchange->arena, &detail, params);
    if (status == STATUS_OK)
        return true;
    if (status == STATUS_BAD_INPUT)
        api_error(exchange, "bad_data", "error parsing form values: %s", detail.text);
    else
        api_error_status(exchange, status);
    return false;
}

bool api_time(struct exchange *exchange, const struct params *params, const char *name, int64_t when_absent,
              int64_t *out) {
    struct slice text = params_get(params, name);
    if (text.len == 0) {
        *out = when_absent;
        return true;
    }
    if (query_time_parse(text, out))
        return true;
    api_error(
        exchange, "bad_data",
        "invalid parameter \"%s\": Invalid time value for '%s': cannot parse \"%.*s\" to a valid timestamp",
        name, name, SLICE_ARGS(text));
    return false;
}

bool api_limit(struct exchange *exchange, const struct params *params, size_t *out) {
    struct slice text = params_get(params, "limit");
    int64_t limit = 0;
    bool range;
    if (text.len > 0 && !integer_parse(text, &limit, &range)) {
        api_error(exchange, "bad_data", "invalid parameter \"limit\": strconv.Atoi: parsing \"%.*s\": %s",
                  SLICE_ARGS(text), range ? "value out of range" : "invalid syntax");
        return false;
    }
    if (limit < 0) {
        api_error(exchange, "bad_data", "invalid parameter \"limit\": limit must be non-negative");
        return false;
    }
    *out = (size_t)limit;
    return true;
}

void api_retry_after(struct exchange *exchange) {
    char seconds[24];
    snprintf(seconds, sizeof seconds, "%llu",
             (unsigned long long)exchange->server->config->limits.retry_after_s);
    exchange_header(exchange, "Retry-After", seconds);
}

void api_work(struct exchange *exchange, void (*run)(struct job *job)) {
    exchange->job.run = run;
    if (workers_submit(&exchange->server->workers, &exchange->job) == STATUS_OK)
        return;
    metric_add(METRIC_queries_refused, 1);
    api_error(exchange, "unavailable", "too many queries are waiting (--query-queue)");
    api_retry_after(exchange);
    exchange_send(exchange);
}

/* ---- Dispatch -------------------------------------------------------------------------------------------
 */

/* Is `origin` one of the comma-separated `allowed`? */
static bool origin_allowed(const char *allowed, struct slice origin) {
    struct slice rest = slice_str(allowed);
    while (rest.len > 0) {
        const uint8_t *comma = memchr(rest.data, ',', rest.len);
        size_t len = comma == NULL ? rest.len : (size_t)(comma - rest.data);
        struct slice one = slice_trim(slice_of(rest.data, len));
        if (slice_equal(one, slice_str("*")) || slice_equal(one, origin))
            return true;
        size_t used = comma == NULL ? len : len + 1;
        rest = slice_of(rest.data + used, rest.len - used);
    }
    return false;
}

static void cors_headers(struct exchange *exchange) {
    const char *allowed = exchange->server->config->cors_origin;
    if (exchange->origin.len == 0 || allowed[0] == 0)
        return;
    exchange_header(exchange, "Access-Control-Allow-Headers", "Accept, Authorization, Content-Type, Origin");
    exchange_header(exchange, "Access-Control-Allow-Methods", "GET, POST, OPTIONS");
    exchange_header(exchange, "Access-Control-Expose-Headers", "Date");
    exchange_header(exchange, "Vary", "Origin");
    if (strcmp(allowed, "*") == 0)
        exchange_header(exchange, "Access-Control-Allow-Origin", "*");
    else if (origin_allowed(allowed, exchange->origin))
        buf_printf(&exchange->headers, "Access-Control-Allow-Origin: %.*s\r\n", SLICE_ARGS(exchange->origin));
}

static bool is_readiness(const struct exchange *exchange) {
    return exchange->route->handle == api_healthy || exchange->route->handle == api_ready ||
           exchange->route->handle == api_metrics;
}

void api_dispatch(struct exchange *exchange) {
    enum route_match match =
        route_find(exchange->route_path, exchange->method, &exchange->route, &exchange->segment);
    if (match == ROUTE_NOT_FOUND || (exchange->route->flags & ROUTE_TEXT) == 0)
        cors_headers(exchange);
    if (exchange->method == METHOD_OPTIONS) {
        exchange->code = 204;
        if (match != ROUTE_NOT_FOUND)
            exchange_header(exchange, "Allow", route_allow(exchange->route));
        exchange_send(exchange);
        return;
    }
    if (match == ROUTE_NOT_FOUND) {
        api_error(exchange, "not_found", "no such path: %.*s", SLICE_ARGS(exchange->path));
        exchange_send(exchange);
        return;
    }
    if (match == ROUTE_BAD_METHOD) {
        exchange_header(exchange, "Allow", route_allow(exchange->route));
        api_error(exchange, "bad_data", "this path takes %s", route_allow(exchange->route));
        exchange->code = 405;
        exchange_send(exchange);
        return;
    }
    if (!atomic_load(&exchange->server->ready) && !is_readiness(exchange)) {
        exchange_header(exchange, "X-Prometheus-Stopping", "true");
        api_retry_after(exchange);
        exchange_text(exchange, 503, "Service Unavailable");
        exchange_send(exchange);
        return;
    }
    exchange->route->handle(exchange);
}
