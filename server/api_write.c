/* api_write.c: POST /api/v1/write, remote write 1.0.
 *
 * The loop decodes and hands the batch to storage; storage's thread calls back when it is durable; the loop
 * answers. What is valid is stored and the rest named in a 400: Prometheus' sender drops a request answered
 * 400, so storing nothing of it would lose the good samples too. */
#include <stdio.h>
#include <string.h>

#include "base/metrics.h"
#include "proto/proto.h"
#include "server/api.h"

#define MEDIA_TYPE "application/x-protobuf"
#define MESSAGE_V1 "prometheus.WriteRequest"

/* Where a request stands; lives in the exchange's arena. */
struct write_context {
    struct storage_write *write;
    uint64_t histogram_count;
};

static void write_count(int code) {
    switch (code) {
    case 204:
        metric_add(METRIC_write_requests_ok, 1);
        break;
    case 413:
        metric_add(METRIC_write_requests_large, 1);
        break;
    case 415:
        metric_add(METRIC_write_requests_media, 1);
        break;
    case 503:
        metric_add(METRIC_write_requests_unavailable, 1);
        break;
    default:
        metric_add(METRIC_write_requests_bad, 1);
    }
}

static void write_send(struct exchange *exchange) {
    write_count(exchange->code);
    metric_observe_ns(METRIC_write_seconds, clock_monotonic_ns(exchange->server->clock) - exchange->read_ns);
    exchange_send(exchange);
}

static void write_answer(struct exchange *exchange, int code) {
    exchange->code = code;
    write_send(exchange);
}

static void write_refuse(struct exchange *exchange, int status, const struct error_detail *detail) {
    const char *text = detail->text[0] != 0 ? detail->text : status_message(status);
    int code = status_http_code(status);
    if (code != 400 && code != 413)
        code = 503;
    if (code == 503)
        api_retry_after(exchange);
    exchange_text(exchange, code, "%s", text);
    write_send(exchange);
}

/* 415 or nothing. Prometheus takes no spaces around parameters; we do. */
static bool media_accepted(struct exchange *exchange) {
    struct slice type = slice_trim(exchange->content_type), encoding = slice_trim(exchange->content_encoding);
    if (type.len > 0) {
        struct slice message = media_type_param(type, "proto");
        if (!media_type_is(type, MEDIA_TYPE)) {
            exchange_text(exchange, 415, "Content-Type \"%.*s\" is not accepted; send " MEDIA_TYPE,
                          SLICE_ARGS(type));
            return false;
        }
        if (message.len > 0 && !slice_equal(message, slice_str(MESSAGE_V1))) {
            exchange_text(
                exchange, 415,
                "protobuf message \"%.*s\" is not accepted; send remote write 1.0, proto=" MESSAGE_V1,
                SLICE_ARGS(message));
            return false;
        }
    }
    if (encoding.len > 0 && !slice_equal_nocase(encoding, "snappy")) {
        exchange_text(exchange, 415, "Content-Encoding \"%.*s\" is not accepted; send snappy (block format)",
                      SLICE_ARGS(encoding));
        return false;
    }
    return true;
}

static void write_release(struct exchange *exchange) {
    struct write_context *context = exchange->context;
    if (context->write != NULL)
        storage_write_free(context->write);
    context->write = NULL;
}

/* On the loop, when storage is done. */
static void write_finish(struct mail *mail) {
    struct exchange *exchange = CONTAINER_OF(mail, struct exchange, mail);
    struct write_context *context = exchange->context;
    const struct storage_write_result *result = storage_write_result(context->write);
    if (result->status != STATUS_OK) {
        struct error_detail detail = {{0}};
        write_refuse(exchange, result->status, &detail);
        return;
    }
    if (result->samples_refused == 0 && result->series_refused == 0 && context->histogram_count == 0) {
        write_answer(exchange, 204);
        return;
    }
    char histograms[64] = "";
    if (context->histogram_count > 0)
        snprintf(histograms, sizeof histograms, "%llu histograms not stored yet\n",
                 (unsigned long long)context->histogram_count);
    size_t len = strlen(result->reasons);
    bool line_open = len > 0 && result->reasons[len - 1] != '\n';
    exchange->code = 400;
    exchange->type = "text/plain; charset=utf-8";
    buf_append(&exchange->out, result->reasons, len);
    if (line_open)
        buf_append_byte(&exchange->out, '\n');
    buf_append_str(&exchange->out, histograms);
    write_send(exchange);
}

static void write_done(void *context, struct storage_write *write) {
    struct exchange *exchange = context;
    (void)write;
    exchange->mail.run = write_finish;
    loop_post(exchange->loop, &exchange->mail);
}

static int write_decode(struct exchange *exchange, struct error_detail *detail, struct write_batch *batch) {
    struct loop *loop = exchange->loop;
    struct slice body = buf_slice(&exchange->body);
    size_t decoded_bytes, decoded_bytes_max = exchange->server->config->limits.decoded_bytes_max;
    int status = STATUS_OK;
    metric_add(METRIC_write_bytes, body.len);
    TRY(proto_snappy_size(body, decoded_bytes_max, detail, &decoded_bytes));
    TRY(proto_snappy_decode(body, decoded_bytes_max, detail, &loop->decoded));
    metric_add(METRIC_write_decoded_bytes, loop->decoded.len);
    TRY(proto_write_request_decode(buf_slice(&loop->decoded), &loop->arena, detail, batch));
    metric_add(METRIC_exemplars_seen, batch->exemplar_count);
    metric_add(METRIC_metadata_seen, batch->metadata_count);
    metric_add(METRIC_histograms_seen, batch->histogram_count);
out:
    return status;
}

void api_write(struct exchange *exchange) {
    struct loop *loop = exchange->loop;
    struct error_detail detail = {{0}};
    struct write_batch batch;
    struct write_context *context = NULL;
    int status = STATUS_OK;
    if (!media_accepted(exchange)) {
        write_send(exchange);
        return;
    }
    TRY(write_decode(exchange, &detail, &batch));
    if (batch.series_count == 0) {
        write_answer(exchange, 204);
        goto cleanup;
    }
    context = ARENA_NEW(&exchange->arena, struct write_context);
    if (context == NULL) {
        status = STATUS_NO_MEMORY;
        goto out;
    }
    context->histogram_count = batch.histogram_count;
    TRY(storage_write_prepare(exchange->server->storage, &batch, &detail, &context->write));
    exchange->context = context;
    exchange->release = write_release;
    storage_write_submit(exchange->server->storage, context->write, write_done, exchange);
    /* From here on the exchange is storage's until write_finish. */
    goto cleanup;
out:
    if (status < 0)
        write_refuse(exchange, status, &detail);
cleanup:
    arena_reset(&loop->arena);
    buf_clear(&loop->decoded);
}
