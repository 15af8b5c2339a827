/* api_admin.c: /api/v1/admin/tsdb/…, behind --enable-admin-api: deletes, blocks written anew without what was
 * deleted, and copies of the data directory. All are answered when they are done: a worker parses, the
 * storage's threads do the rest and post the answer. */
#include <string.h>

#include "server/api.h"

struct delete_context {
    struct slice *match;
    size_t match_count;
    int64_t start_ms;
    int64_t end_ms;
    struct query_selector *selectors;
    size_t selector_count;
    struct storage_write *write;
};

static void delete_release(struct exchange *exchange) {
    struct delete_context *context = exchange->context;
    for (size_t i = 0; i < context->selector_count; i++)
        query_selector_release(&context->selectors[i]);
    context->selector_count = 0;
    storage_write_free(context->write);
    context->write = NULL;
}

static void delete_done(void *argument, struct storage_write *write) {
    struct exchange *exchange = argument;
    int status = storage_write_result(write)->status;
    if (status == STATUS_OK) {
        exchange->code = 204;
    } else {
        api_error(exchange, "unavailable", "the delete could not be made durable: %s",
                  status_message(status));
        api_retry_after(exchange);
    }
    exchange_post(exchange);
}

static int selectors_parse(struct exchange *exchange, struct delete_selector *out) {
    struct delete_context *context = exchange->context;
    for (size_t i = 0; i < context->match_count; i++) {
        struct query_selector *selector = &context->selectors[i];
        int status = api_selector_parse(exchange, context->match[i], "match[]", true, selector);
        if (status < 0)
            return status;
        context->selector_count++;
        out[i] = (struct delete_selector){selector->matchers, selector->count};
    }
    return STATUS_OK;
}

static void prepare_refuse(struct exchange *exchange, int status, const struct error_detail *detail) {
    switch (status) {
    case STATUS_TOO_LARGE:
        api_error(exchange, "bad_data", "%s", detail->text);
        exchange->code = 413;
        break;
    case STATUS_BAD_INPUT:
        api_error(exchange, "bad_data", "invalid parameter \"match[]\": %s", detail->text);
        break;
    case STATUS_BUSY:
        api_error(exchange, "unavailable", "%s", detail->text);
        api_retry_after(exchange);
        break;
    default:
        api_error_status(exchange, status);
    }
}

static void delete_work(struct job *job) {
    struct exchange *exchange = CONTAINER_OF(job, struct exchange, job);
    struct delete_context *context = exchange->context;
    struct error_detail detail = {{0}};
    struct delete_selector *selectors =
        ARENA_ARRAY(&exchange->arena, struct delete_selector, context->match_count);
    context->selectors = ARENA_ARRAY(&exchange->arena, struct query_selector, context->match_count);
    if (selectors == NULL || context->selectors == NULL) {
        api_error_status(exchange, STATUS_NO_MEMORY);
    } else if (selectors_parse(exchange, selectors) == STATUS_OK) {
        struct storage *storage = exchange->server->storage;
        int status = storage_delete_prepare(storage, selectors, context->match_count, context->start_ms,
                                            context->end_ms, &detail, &context->write);
        if (status == STATUS_OK) {
            storage_write_submit(storage, context->write, delete_done, exchange);
            return; /* from here on the exchange is storage's until delete_done */
        }
        prepare_refuse(exchange, status, &detail);
    }
    exchange_post(exchange);
}

static struct delete_context *delete_prepare(struct exchange *exchange) {
    struct params params;
    if (!api_admin_enabled(exchange) || !api_params(exchange, &params))
        return NULL;
    struct delete_context *context = ARENA_NEW(&exchange->arena, struct delete_context);
    if (context == NULL) {
        api_error_status(exchange, STATUS_NO_MEMORY);
        return NULL;
    }
    *context = (struct delete_context){0};
    if (!api_match(exchange, &params, &context->match, &context->match_count))
        return NULL;
    if (context->match_count == 0) {
        api_error(exchange, "bad_data", "no match[] parameter provided");
        return NULL;
    }
    if (!api_time(exchange, &params, "start", API_TIME_MIN_MS, &context->start_ms) ||
        !api_time(exchange, &params, "end", API_TIME_MAX_MS, &context->end_ms))
        return NULL;
    return context;
}

void api_delete_series(struct exchange *exchange) {
    struct delete_context *context = delete_prepare(exchange);
    if (context == NULL) {
        exchange_send(exchange);
        return;
    }
    exchange->context = context;
    exchange->release = delete_release;
    api_work(exchange, delete_work);
}

static void clean_done(void *argument, int status) {
    struct exchange *exchange = argument;
    if (status == STATUS_OK)
        exchange->code = 204;
    else
        api_error(exchange, "internal", "not all blocks could be written anew: %s", status_message(status));
    exchange_post(exchange);
}

void api_clean_tombstones(struct exchange *exchange) {
    if (api_admin_enabled(exchange)) {
        int status = storage_deletes_clean(exchange->server->storage, clean_done, exchange);
        if (status == STATUS_OK)
            return;
        api_error_status(exchange, status);
    }
    exchange_send(exchange);
}

static void snapshot_done(void *argument, int status, const char *name) {
    struct exchange *exchange = argument;
    if (status == STATUS_OK) {
        api_success_begin(exchange);
        buf_printf(&exchange->out, "{\"name\":\"%s\"}", name);
        api_success_end(&exchange->out, NULL, 0, NULL, 0);
    } else if (status == STATUS_NO_SPACE) {
        api_error(exchange, "internal",
                  "create snapshot: no space left on the device: blocks take none, but what is in memory and "
                  "the log are copied");
        exchange->code = 507;
    } else {
        api_error(exchange, "internal", "create snapshot: %s", status_message(status));
    }
    exchange_post(exchange);
}

static bool snapshot_params(struct exchange *exchange, enum storage_copy_kind *kind) {
    struct params params;
    if (!api_admin_enabled(exchange) || !api_params(exchange, &params))
        return false;
    struct slice text = params_get(&params, "skip_head");
    bool skip = false;
    if (text.len == 0 || boolean_parse(text, &skip)) {
        *kind = skip ? STORAGE_COPY_BLOCKS : STORAGE_COPY_ALL;
        return true;
    }
    api_error(exchange, "bad_data",
              "invalid parameter \"skip_head\": unable to parse boolean: "
              "strconv.ParseBool: parsing \"%.*s\": invalid syntax",
              SLICE_ARGS(text));
    return false;
}

void api_snapshot(struct exchange *exchange) {
    enum storage_copy_kind kind;
    if (snapshot_params(exchange, &kind)) {
        int status = storage_copy(exchange->server->storage, kind, snapshot_done, exchange);
        if (status == STATUS_OK)
            return;
        api_error_status(exchange, status);
    }
    exchange_send(exchange);
}
