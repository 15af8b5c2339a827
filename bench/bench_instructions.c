/* bench-instructions: one kind of work, over and over, on one thread and without a server, for a tool that
 * counts instructions (bench/instructions). Everything that would differ from run to run is fixed: time,
 * seeds, the order of everything.
 *
 *     bench-instructions CASE TIMES      writes: rounds of 4,000 series, up to 24; queries: over 24 of them
 *     bench-instructions --list          each case and how many samples one time is */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/log.h"
#include "bench/load.h"
#include "proto/proto.h"
#include "query/query.h"

#define SERIES      UINT64_C(4000)
#define BATCH       UINT64_C(2000)
#define ROUNDS      UINT64_C(24)
#define STEP_MS     INT64_C(15000)
#define BEGIN_MS    INT64_C(1700000000000)
#define DECODED_MAX ((size_t)32 << 20)

static const struct kind {
    const char *name;
    const char *query; /* NULL: writes */
    bool range;
    uint64_t samples; /* looked at, or written, each time */
} kinds[] = {
    {"write", NULL, false, SERIES},
    {"select", "count({__name__!=\"\"})", false, SERIES},
    {"rate", "sum by (cluster) (rate(model_requests_total[2m]))", true, SERIES / 10 * ROUNDS},
    {"json", "max_over_time(model_gpu_utilization_percent[1m])", true, SERIES / 10 * ROUNDS},
};

static _Noreturn void fail(const char *what) {
    fprintf(stderr, "bench-instructions: %s\n", what);
    exit(1);
}

static int64_t now_ms = BEGIN_MS;

static int64_t wall_ms(void *context) {
    (void)context;
    return now_ms;
}

static uint64_t monotonic_ns(void *context) {
    (void)context;
    return (uint64_t)now_ms * 1000000;
}

static const struct clock fixed_clock = {wall_ms, monotonic_ns, NULL};

struct bench {
    char dir[64];
    struct io *io;
    struct limits limits;
    struct storage *storage;
    struct slice bodies[ROUNDS * SERIES / BATCH];
    struct arena bodies_arena;
    struct arena arena;
    struct buf message;
};

/* All of them, however many are used: what that takes is no part of the work. */
static void bodies_make(struct bench *bench) {
    struct load load = {
        .series = SERIES, .batch = BATCH, .start_ms = BEGIN_MS, .step_ms = (uint64_t)STEP_MS, .seed = 1};
    size_t raw_len;
    arena_init(&bench->bodies_arena, 0, 0);
    load_open(&load);
    for (size_t i = 0; i < ROUNDS * SERIES / BATCH; i++) {
        uint64_t per_round = SERIES / BATCH;
        bench->bodies[i] = arena_copy(
            &bench->bodies_arena, load_body(&load, i / per_round, i % per_round * BATCH, BATCH, &raw_len));
        if (bench->bodies[i].data == NULL)
            fail("not enough memory");
    }
    load_close(&load);
}

static void bench_open(struct bench *bench) {
    struct error_detail detail = {0};
    bodies_make(bench);
    limits_init(&bench->limits);
    arena_init(&bench->arena, 256 << 10, 0);
    buf_init(&bench->message);
    snprintf(bench->dir, sizeof bench->dir, "/tmp/tidalite-bench-XXXXXX");
    if (mkdtemp(bench->dir) == NULL || io_open(IO_BACKEND_SYSCALL, NULL, &bench->io) < 0)
        fail("no directory");
    const struct storage_options options = {
        .dir = bench->dir, .io = bench->io, .clock = &fixed_clock, .limits = &bench->limits, .seed = 1};
    if (storage_open(&options, &detail, &bench->storage) < 0)
        fail(detail.text);
}

static void bench_close(struct bench *bench) {
    char command[96];
    storage_close(bench->storage);
    io_close(bench->io);
    arena_release(&bench->bodies_arena);
    arena_release(&bench->arena);
    buf_release(&bench->message);
    snprintf(command, sizeof command, "rm -r '%s'", bench->dir);
    if (system(command) != 0) // NOLINT(cert-env33-c): a name of ours
        fail("the directory stays");
}

static void done(void *context, struct storage_write *write) {
    if (storage_write_result(write)->samples_stored != BATCH)
        fail("samples were refused");
    storage_write_free(write);
    *(bool *)context = true;
}

/* One request, from its body to its answer. */
static __attribute__((noinline)) void request_write(struct bench *bench, struct slice body) {
    struct error_detail detail = {0};
    struct write_batch batch;
    struct storage_write *write;
    bool is_done = false;
    arena_reset(&bench->arena);
    if (proto_snappy_decode(body, DECODED_MAX, &detail, &bench->message) < 0 ||
        proto_write_request_decode(buf_slice(&bench->message), &bench->arena, &detail, &batch) < 0 ||
        storage_write_prepare(bench->storage, &batch, &detail, &write) < 0)
        fail(detail.text);
    storage_write_submit(bench->storage, write, done, &is_done);
    while (!is_done)
        if (!storage_step(bench->storage, now_ms))
            storage_wait(bench->storage, 1000);
}

static void rounds_write(struct bench *bench, uint64_t rounds) {
    for (uint64_t round = 0; round < rounds; round++) {
        now_ms = BEGIN_MS + (int64_t)(round + 1) * STEP_MS;
        for (uint64_t i = 0; i < SERIES / BATCH; i++)
            request_write(bench, bench->bodies[round * SERIES / BATCH + i]);
    }
}

static void query_once(struct bench *bench, const struct kind *kind) {
    const struct query_request request = {.text = slice_str(kind->query),
                                          .range = kind->range,
                                          .start_ms = kind->range ? BEGIN_MS + 120000 : now_ms,
                                          .end_ms = now_ms,
                                          .step_ms = kind->range ? STEP_MS : 0,
                                          .lookback_ms = 300000,
                                          .timeout_ms = 100000};
    struct query_error error = {0};
    struct query_result *result;
    if (query_run(bench->storage, &bench->limits, &fixed_clock, &request, &error, &result) < 0)
        fail(error.text);
    struct query_json_cursor cursor = {0};
    do
        buf_clear(&bench->message);
    while (query_result_json(result, &cursor, 64 << 10, &bench->message));
    if (query_result_series_count(result) == 0)
        fail("nothing was found");
    query_result_free(result);
}

int main(int argc, char **argv) {
    const struct kind *kind = NULL;
    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
            printf("%s %llu\n", kinds[i].name, (unsigned long long)kinds[i].samples);
        return 0;
    }
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0] && argc == 3; i++)
        if (strcmp(argv[1], kinds[i].name) == 0)
            kind = &kinds[i];
    long times = argc == 3 ? strtol(argv[2], NULL, 10) : 0;
    if (kind == NULL || times < 1 || times > (long)ROUNDS) {
        fprintf(stderr, "usage: bench-instructions CASE TIMES, or --list\n");
        return 2;
    }
    cpu_set_t one; /* a query takes no helpers then */
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu() < 0 ? 0 : (size_t)sched_getcpu(), &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0)
        fail("cannot stay on one core");
    static struct bench bench;
    log_setup(LOG_WARN, LOG_FORMAT_LOGFMT, STDERR_FILENO);
    bench_open(&bench);
    rounds_write(&bench, kind->query == NULL ? (uint64_t)times : ROUNDS);
    for (long i = 0; i < times && kind->query != NULL; i++)
        query_once(&bench, kind);
    bench_close(&bench);
    return 0;
}
