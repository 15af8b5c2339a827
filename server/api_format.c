/* api_format.c: /api/v1/format_query and /api/v1/parse_query. A long text takes a while, so a worker does it.
 */
#include "base/json_text.h"
#include "server/api.h"

static void format_finish(struct exchange *exchange, int status, const struct query_error *error) {
    if (status < 0)
        api_error_query(exchange, error);
    else
        api_success_end(&exchange->out, NULL, 0, NULL, 0);
    exchange_post(exchange);
}

/* The context is the query's text. */
static void format_work(struct job *job) {
    struct exchange *exchange = CONTAINER_OF(job, struct exchange, job);
    const struct slice *text = exchange->context;
    struct query_error error;
    struct buf formatted;
    buf_init(&formatted);
    int status = query_format(*text, &exchange->server->config->limits, &error, &formatted);
    if (status >= 0) {
        api_success_begin(exchange);
        json_string_append(&exchange->out, buf_slice(&formatted), JSON_HTML);
    }
    buf_release(&formatted);
    format_finish(exchange, status, &error);
}

static void parse_work(struct job *job) {
    struct exchange *exchange = CONTAINER_OF(job, struct exchange, job);
    const struct slice *text = exchange->context;
    struct query_error error;
    api_success_begin(exchange);
    int status = query_tree_json(*text, &exchange->server->config->limits, &error, &exchange->out);
    format_finish(exchange, status, &error);
}

static void handle(struct exchange *exchange, void (*work)(struct job *job)) {
    struct params params;
    struct slice *text = ARENA_NEW(&exchange->arena, struct slice);
    if (text == NULL) {
        api_error_status(exchange, STATUS_NO_MEMORY);
        exchange_send(exchange);
        return;
    }
    if (!api_params(exchange, &params)) {
        exchange_send(exchange);
        return;
    }
    *text = params_get(&params, "query");
    exchange->context = text;
    api_work(exchange, work);
}

void api_format_query(struct exchange *exchange) {
    handle(exchange, format_work);
}

void api_parse_query(struct exchange *exchange) {
    handle(exchange, parse_work);
}
