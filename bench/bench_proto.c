/* bench-proto: what a sample costs between the socket and the batch. Requests of 2,000 samples of the
 * standard load, one sample a series; each is decompressed, then decoded, so that the decoder finds its
 * message in the cache as it does in the server. Prints the best and the median of many rounds over all
 * requests.
 *
 *     bench-proto [ROUNDS] */
#include <stdio.h>
#include <stdlib.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/clock.h"
#include "bench/load.h"
#include "proto/proto.h"

#define SERIES         100000
#define REQUEST_SERIES 2000
#define REQUESTS       (SERIES / REQUEST_SERIES)
#define DECODED_MAX    ((size_t)32 << 20)
#define ROUNDS_MAX     10000

static _Noreturn void fail(const char *what) {
    fprintf(stderr, "bench-proto: %s\n", what);
    exit(1);
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
    struct load load = {.series = SERIES,
                        .batch = REQUEST_SERIES,
                        .start_ms = INT64_C(1700000000000),
                        .step_ms = 15000,
                        .seed = 1};
    struct buf message;
    struct arena arena;
    buf_init(&message);
    arena_init(&arena, 256 << 10, 0);
    size_t message_bytes = 0;
    struct arena bodies;
    arena_init(&bodies, 0, 0);
    load_open(&load);
    for (size_t r = 0; r < REQUESTS; r++) {
        size_t raw_len;
        requests[r] = arena_copy(&bodies, load_body(&load, 0, r * REQUEST_SERIES, REQUEST_SERIES, &raw_len));
        if (requests[r].data == NULL)
            fail("out of memory");
        message_bytes += raw_len;
    }
    load_close(&load);
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

    arena_release(&bodies);
    buf_release(&message);
    arena_release(&arena);
    return 0;
}
