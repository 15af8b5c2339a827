/* api.h: the handlers of routes.def, and what they share. */
#ifndef TIDALITE_SERVER_API_H
#define TIDALITE_SERVER_API_H

#include <stdint.h>

#include "query/query.h"
#include "server/http.h"

/* Go's minTime and maxTime of the API as milliseconds, inside what sums of a few can bear: everything. */
#define API_TIME_MIN_MS (INT64_MIN / 2)
#define API_TIME_MAX_MS (INT64_MAX / 2)

/* Finds the request's route and calls its handler, or answers 404, 405, OPTIONS, 503 before the server is
 * ready. On the loop, once per request. */
void api_dispatch(struct exchange *exchange);

#define ROUTE(path, methods, body, handler, flags) void handler(struct exchange *exchange);
#include "server/routes.def"
#undef ROUTE

/* Fills in {"status":"error","errorType":…,"error":…} with the HTTP code that Prometheus gives the type; the
 * error alone, as text, where the route's answers are text. */
void api_error(struct exchange *exchange, const char *type, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A status of storage as such an error. */
void api_error_status(struct exchange *exchange, int status);

/* The same for an error of a query. */
void api_error_query(struct exchange *exchange, const struct query_error *error);

/* Begins a success: code 200 and {"status":"success","data": in `out`. The caller appends the data and, at
 * the end, api_success_end. */
void api_success_begin(struct exchange *exchange);

/* Appends what stands behind the data: warnings and infos where there are any, and the closing brace. */
void api_success_end(struct buf *out, const char *const *warnings, size_t warning_count,
                     const char *const *infos, size_t info_count);

/* Form body and URL parameters, in Go's order (the form's first). On failure the answer is filled in and
 * false returned. */
bool api_params(struct exchange *exchange, struct params *params);

/* A time parameter; empty is `when_absent`. On failure the answer is filled in ("Invalid time value for …").
 */
bool api_time(struct exchange *exchange, const struct params *params, const char *name, int64_t when_absent,
              int64_t *out);

/* The limit parameter; absent is 0, which means none. */
bool api_limit(struct exchange *exchange, const struct params *params, size_t *out);

/* The texts of the match[] parameters, in the exchange's arena. On failure (together they are longer than
 * limits.selector_bytes_max) the answer is filled in. */
bool api_match(struct exchange *exchange, const struct params *params, struct slice **texts, size_t *count);

/* One of them as a selector; with `empty_refused` only if it asks for something. On failure the answer is
 * filled in; it names `parameter` unless that is "". */
int api_selector_parse(struct exchange *exchange, struct slice text, const char *parameter,
                       bool empty_refused, struct query_selector *selector);

/* Fills in a success with `data`, JSON, and sends it. */
void api_send_data(struct exchange *exchange, const char *data);

/* Hands the exchange to a worker that calls `run`, which fills in the answer; it is sent afterwards. 503 if
 * the queue is full. */
void api_work(struct exchange *exchange, void (*run)(struct job *job));

/* Whether --enable-admin-api is on; else the answer is filled in. */
bool api_admin_enabled(struct exchange *exchange);

/* Appends "key":"2026-01-31T12:00:00.123Z" without a comma. */
void api_time_append(struct buf *out, const char *key, int64_t time_ms);

/* Adds Retry-After with the configured seconds. */
void api_retry_after(struct exchange *exchange);

#endif
