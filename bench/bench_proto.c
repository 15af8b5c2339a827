/* bench-proto: what a sample costs between the socket and the batch. Requests of 2,000 samples of the
 * standard load, one sample a series; each is decompressed, then decoded, so that the decoder finds its
 * message in the cache as it does in the server. Prints the best and the median of many rounds over all
 * requests.
 *
 *     bench-proto [ROUNDS] */
#include <snappy-c.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/label.h"
#include "base/rand.h"
#include "proto/proto.h"

#define SERIES         100000
#define REQUEST_SERIES 2000
#define REQUESTS       (SERIES / REQUEST_SERIES)
#define DECODED_MAX    ((size_t)32 << 20)
#define ROUNDS_MAX     10000

static const char *const names[10] = {
    "node_network_receive_packets_total", "node_memory_available_bytes",
    "node_load_average_one_minute",       "node_cpu_seconds_total",
    "node_hwmon_temperature_celsius",     "model_request_duration_seconds_bucket",
    "model_gpu_utilization_percent",      "model_server_build_info",
    "model_token_latency_seconds_bucket", "model_requests_total"};
static const char *const bounds[12] = {"0.005", "0.01", "0.025", "0.05", "0.1", "0.25",
                                       "0.5",   "1",    "2.5",   "5",    "10",  "+Inf"};

static _Noreturn void fail(const char *what) {
    fprintf(stderr, "bench-proto: %s\n", what);
    exit(1);
}

static void label_put(struct buf *labels, const char *name, struct buf *value) {
    label_bytes_append(labels, slice_str(name), buf_slice(value));
    buf_clear(value);
}

static void labels_put(struct buf *labels, uint64_t i, struct buf *value) {
    uint64_t target = i / 10, name = i % 10;
    buf_append_str(value, names[name]);
    label_put(labels, "__name__", value);
    buf_printf(value, "eu-central-1%c", 'a' + (char)(target * 7 % 4));
    label_put(labels, "az", value);
    buf_printf(value, "cluster-%02u", (unsigned)(target * 5 % 8));
    label_put(labels, "cluster", value);
    buf_printf(value, "10.%u.%u.%u:9100", (unsigned)(target >> 16 & 255), (unsigned)(target >> 8 & 255),
               (unsigned)(target & 255));
    label_put(labels, "instance", value);
    buf_append_str(value, name < 5 ? "node-exporter" : "model-server");
    label_put(labels, "job", value);
    if (name == 5 || name == 8) {
        buf_append_str(value, bounds[target % 12]);
        label_put(labels, "le", value);
    }
    buf_printf(value, "pod-%011llx",
               (unsigned long long)(i * UINT64_C(0x9e3779b97f4a7c15) & UINT64_C(0xfffffffffff)));
    label_put(labels, "pod", value);
    buf_printf(value, "team-%02u", (unsigned)(target * 3 % 20));
    label_put(labels, "team", value);
}

/* One request, compressed; the caller frees it. */
static struct slice request_make(uint64_t first, struct rand *rand, size_t *message_bytes) {
    struct buf message, series, value;
    buf_init(&message);
    buf_init(&series);
    buf_init(&value);
    for (uint64_t i = first; i < first + REQUEST_SERIES; i++) {
        uint8_t sample[32] = {0x12, 0, 0x09}, len[VARINT_BYTES_MAX];
        store_u64(sample + 3, double_bits((double)rand_below(rand, 1000000)));
        sample[11] = 0x10;
        uint8_t *end = varint_write(sample + 12, UINT64_C(1700000000000) + i % 97);
        sample[1] = (uint8_t)(end - sample - 2);
        buf_clear(&series);
        labels_put(&series, i, &value);
        buf_append(&series, sample, (size_t)(end - sample));
        buf_append_byte(&message, 0x0a);
        buf_append(&message, len, (size_t)(varint_write(len, series.len) - len));
        buf_append(&message, series.data, series.len);
    }
    size_t block_len = snappy_max_compressed_length(message.len);
    uint8_t *block = mem_alloc(block_len);
    if (message.failed || series.failed || value.failed || block == NULL)
        fail("out of memory");
    if (snappy_compress((const char *)message.data, message.len, (char *)block, &block_len) != SNAPPY_OK)
        fail("snappy_compress");
    *message_bytes += message.len;
    buf_release(&message);
    buf_release(&series);
    buf_release(&value);
    return slice_of(block, block_len);
}

static int compare_double(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    long rounds = argc > 1 ? strtol(argv[1], NULL, 10) : 60;
    if (rounds < 1 || rounds > ROUNDS_MAX)
        fail("ROUNDS is a number from 1 to 10000");
    static struct slice requests[REQUESTS];
    static double snappy_ns[ROUNDS_MAX], decode_ns[ROUNDS_MAX];
    struct rand rand;
    size_t message_bytes = 0;
    rand_init(&rand, 1);
    for (size_t r = 0; r < REQUESTS; r++)
        requests[r] = request_make(r * REQUEST_SERIES, &rand, &message_bytes);

    struct buf message;
    struct arena arena;
    buf_init(&message);
    arena_init(&arena, 256 << 10, 0);
    const struct clock *clock = clock_system();
    for (long round = 0; round < rounds; round++) {
        uint64_t snappy = 0, decode = 0, samples = 0;
        for (size_t r = 0; r < REQUESTS; r++) {
            struct error_detail detail = {0};
            struct write_batch batch;
            uint64_t t0 = clock_monotonic_ns(clock);
            if (proto_snappy_decode(requests[r], DECODED_MAX, &detail, &message) != STATUS_OK)
                fail(detail.text);
            uint64_t t1 = clock_monotonic_ns(clock);
            arena_reset(&arena);
            if (proto_write_request_decode(buf_slice(&message), &arena, &detail, &batch) != STATUS_OK)
                fail(detail.text);
            uint64_t t2 = clock_monotonic_ns(clock);
            snappy += t1 - t0;
            decode += t2 - t1;
            samples += batch.sample_count;
        }
        if (samples != SERIES)
            fail("samples are missing");
        snappy_ns[round] = (double)snappy / SERIES;
        decode_ns[round] = (double)decode / SERIES;
    }
    qsort(snappy_ns, (size_t)rounds, sizeof *snappy_ns, compare_double);
    qsort(decode_ns, (size_t)rounds, sizeof *decode_ns, compare_double);
    printf("%zu bytes of message a sample\n", message_bytes / SERIES);
    printf("snappy: %5.1f ns a sample (median %.1f)\n", snappy_ns[0], snappy_ns[rounds / 2]);
    printf("decode: %5.1f ns a sample (median %.1f)\n", decode_ns[0], decode_ns[rounds / 2]);

    for (size_t r = 0; r < REQUESTS; r++)
        mem_free((void *)(uintptr_t)requests[r].data);
    buf_release(&message);
    arena_release(&arena);
    return 0;
}
