/* api_tsdb.c: /api/v1/status/tsdb, /api/v1/status/tsdb/blocks and /api/v1/status/memory: which series and
 * blocks there are, and what they cost. */
#include "base/json_text.h"
#include "server/api.h"
#include "server/http_parse.h"
#include "server/server.h"

#define ROWS_DEFAULT 10
#define ROWS_MAX     10000

static void counts_append(struct buf *out, const char *key, const struct storage_counts *counts) {
    buf_printf(out, ",\"%s\":[", key);
    for (size_t i = 0; i < counts->count; i++) {
        const struct storage_count *row = &counts->rows[i];
        buf_append_str(out, i > 0 ? ",{\"name\":" : "{\"name\":");
        if (row->value.len > 0) {
            struct buf pair;
            buf_init(&pair);
            buf_append(&pair, row->name.data, row->name.len);
            buf_append_byte(&pair, '=');
            buf_append(&pair, row->value.data, row->value.len);
            json_string_append(out, buf_slice(&pair), JSON_HTML);
            out->failed = out->failed || pair.failed;
            buf_release(&pair);
        } else {
            json_string_append(out, row->name, JSON_HTML);
        }
        buf_printf(out, ",\"value\":%llu}", (unsigned long long)row->count);
    }
    buf_append_byte(out, ']');
}

static void tsdb_work(struct job *job) {
    struct exchange *exchange = CONTAINER_OF(job, struct exchange, job);
    const size_t *limit = exchange->context;
    struct storage_cardinality cardinality;
    struct storage_status status;
    int result = storage_cardinality(exchange->server->storage, *limit, &exchange->arena, &cardinality);
    if (result < 0) {
        api_error_status(exchange, result);
    } else {
        struct buf *out = &exchange->out;
        storage_status(exchange->server->storage, &status);
        api_success_begin(exchange);
        buf_printf(out,
                   "{\"headStats\":{\"numSeries\":%llu,\"numLabelPairs\":%llu,\"chunkCount\":%llu,"
                   "\"minTime\":%lld,\"maxTime\":%lld}",
                   (unsigned long long)cardinality.series, (unsigned long long)cardinality.pairs,
                   (unsigned long long)cardinality.chunks, (long long)status.time_min_ms,
                   (long long)status.time_max_ms);
        counts_append(out, "seriesCountByMetricName", &cardinality.by_metric);
        counts_append(out, "labelValueCountByLabelName", &cardinality.by_name);
        counts_append(out, "memoryInBytesByLabelName", &cardinality.by_name_bytes);
        counts_append(out, "seriesCountByLabelValuePair", &cardinality.by_pair);
        buf_append_byte(out, '}');
        api_success_end(out, NULL, 0, NULL, 0);
    }
    exchange_post(exchange);
}

void api_status_tsdb(struct exchange *exchange) {
    struct params params;
    size_t *limit = ARENA_NEW(&exchange->arena, size_t);
    if (limit == NULL) {
        api_error_status(exchange, STATUS_NO_MEMORY);
        exchange_send(exchange);
        return;
    }
    if (!api_params(exchange, &params)) {
        exchange_send(exchange);
        return;
    }
    struct slice text = params_get(&params, "limit");
    int64_t value = ROWS_DEFAULT;
    bool range;
    if (text.len > 0 && !integer_parse(text, &value, &range))
        value = 0;
    if (value < 1 || value > ROWS_MAX) {
        if (value < 1)
            api_error(exchange, "bad_data", "limit must be a positive number");
        else
            api_error(exchange, "bad_data", "limit must not exceed %d", ROWS_MAX);
        exchange_send(exchange);
        return;
    }
    *limit = (size_t)value;
    exchange->context = limit;
    api_work(exchange, tsdb_work);
}

/* Prometheus' ids of blocks: 48 bits of time, 80 of anything, 26 digits of 5 bits. Ours are numbers, and when
 * a block was written is not kept: the time is 0. */
static void ulid_append(struct buf *out, uint64_t id) {
    static const char digits[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    char text[26];
    for (size_t i = sizeof text; i-- > 0; id >>= 5)
        text[i] = digits[id & 31];
    buf_append_byte(out, '"');
    buf_append(out, text, sizeof text);
    buf_append_byte(out, '"');
}

static void number_append(struct buf *out, const char *key, uint64_t value) {
    if (value > 0) /* as Prometheus */
        buf_printf(out, ",\"%s\":%llu", key, (unsigned long long)value);
}

static void block_append(struct buf *out, const struct storage_block_info *block) {
    buf_append_str(out, "{\"ulid\":");
    ulid_append(out, block->id);
    /* Prometheus' maxTime is the first millisecond behind it. */
    buf_printf(out, ",\"minTime\":%lld,\"maxTime\":%lld,\"stats\":{\"numSamples\":%llu",
               (long long)block->time_min_ms,
               (long long)(block->time_max_ms == INT64_MAX ? INT64_MAX : block->time_max_ms + 1),
               (unsigned long long)block->samples);
    number_append(out, "numFloatSamples", block->samples);
    number_append(out, "numSeries", block->series);
    number_append(out, "numChunks", block->chunks);
    number_append(out, "numTombstones", block->deletes);
    buf_printf(out, "},\"compaction\":{\"level\":%lu,\"sources\":[", (unsigned long)block->level);
    for (size_t i = 0; i < block->source_count; i++) {
        if (i > 0)
            buf_append_byte(out, ',');
        ulid_append(out, block->sources[i]);
    }
    if (block->source_count == 0)
        ulid_append(out, block->id);
    buf_append_str(out, "]},\"version\":1}");
}

void api_status_tsdb_blocks(struct exchange *exchange) {
    struct storage_block_info *blocks;
    size_t count;
    struct buf *out = &exchange->out;
    int status = storage_blocks(exchange->server->storage, &exchange->arena, &blocks, &count);
    if (status < 0) {
        api_error_status(exchange, status);
    } else {
        api_success_begin(exchange);
        buf_append_str(out, "{\"blocks\":[");
        for (size_t i = 0; i < count; i++) {
            if (i > 0)
                buf_append_byte(out, ',');
            block_append(out, &blocks[i]);
        }
        buf_append_str(out, "]}");
        api_success_end(out, NULL, 0, NULL, 0);
    }
    exchange_send(exchange);
}

void api_status_memory(struct exchange *exchange) {
    struct storage_memory memory;
    struct buf *out = &exchange->out;
    storage_memory(exchange->server->storage, &memory);
    api_success_begin(exchange);
    buf_printf(out, "{\"series\":%llu,\"bytes\":%llu,\"structures\":[", (unsigned long long)memory.series,
               (unsigned long long)memory.total);
    for (size_t i = 0; i < STORAGE_MEMORY_ROWS; i++)
        buf_printf(out, "%s{\"name\":\"%s\",\"bytes\":%llu}", i > 0 ? "," : "", memory.rows[i].structure,
                   (unsigned long long)memory.rows[i].bytes);
    buf_append_str(out, "]}");
    api_success_end(out, NULL, 0, NULL, 0);
    exchange_send(exchange);
}
