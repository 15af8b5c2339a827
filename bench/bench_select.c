/* bench-select: what a selection over the head costs a series, on one thread, warm: finding it, getting at
 * its chunks, reading it. Each is done over all series in turn; prints the median of several times.
 *
 *     bench-select [SERIES [ROUNDS]]      rounds: samples a series, 15 s apart (8; from 120 on some are
 * sealed) */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/log.h"
#include "base/rand.h"
#include "storage/storage_private.h"

#define BATCH    2000u
#define STEP_MS  INT64_C(15000)
#define BEGIN_MS INT64_C(1700006400000) /* of a window */
#define TIMES    9

static int64_t now_ms = BEGIN_MS;

static int64_t wall_ms(void *context) {
    (void)context;
    return now_ms;
}

static uint64_t real_ns(void *context) {
    (void)context;
    return clock_monotonic_ns(clock_system());
}

static const struct clock bench_clock = {wall_ms, real_ns, NULL};

static _Noreturn void fail(const char *what) {
    fprintf(stderr, "bench-select: %s\n", what);
    exit(1);
}

struct bench {
    char dir[64];
    struct io *io, *io_maintain;
    struct limits limits;
    struct storage *storage;
    size_t series;
    uint32_t *shuffled; /* all slots */
    struct storage_selection *selection;
    struct sample_columns columns;
    struct head_chunk *chunks;
    size_t chunk_capacity;
    struct buf bits;
    uint64_t seen; /* so that nothing is left out */
};

static void done(void *context, struct storage_write *write) {
    if (storage_write_result(write)->samples_stored != BATCH)
        fail("samples were refused");
    storage_write_free(write);
    *(bool *)context = true;
}

/* Series [first, first + BATCH). */
static void batch_write(struct bench *bench, size_t first, struct rand *rand) {
    static struct batch_series series[BATCH];
    static struct sample samples[BATCH];
    static size_t ends[BATCH];
    struct write_batch batch = {
        .series = series, .samples = samples, .series_count = BATCH, .sample_count = BATCH};
    struct error_detail detail = {0};
    struct storage_write *write;
    struct buf labels;
    bool is_done = false;
    buf_init(&labels);
    for (size_t i = 0; i < BATCH; i++) {
        char text[32];
        snprintf(text, sizeof text, "metric_%zu", (first + i) % 10);
        label_bytes_append(&labels, slice_str("__name__"), slice_str(text));
        snprintf(text, sizeof text, "10.0.%zu.%zu:9100", (first + i) / 2560, (first + i) / 10 % 256);
        label_bytes_append(&labels, slice_str("instance"), slice_str(text));
        label_bytes_append(&labels, slice_str("job"), slice_str("bench"));
        ends[i] = labels.len;
        /* a counter, scraped with some jitter */
        samples[i] = (struct sample){
            now_ms + (int64_t)rand_below(rand, 4),
            double_bits((double)((now_ms - BEGIN_MS) / 150 + (int64_t)rand_below(rand, 100)))};
        series[i] = (struct batch_series){.sample_first = (uint32_t)i, .sample_count = 1};
    }
    for (size_t i = 0; i < BATCH; i++)
        series[i].labels =
            slice_of(labels.data + (i == 0 ? 0 : ends[i - 1]), ends[i] - (i == 0 ? 0 : ends[i - 1]));
    if (storage_write_prepare(bench->storage, &batch, &detail, &write) < 0)
        fail(detail.text);
    storage_write_submit(bench->storage, write, done, &is_done);
    while (!is_done)
        if (!storage_step(bench->storage, now_ms))
            storage_wait(bench->storage, 1000);
    buf_release(&labels);
}

static void bench_open(struct bench *bench, size_t rounds) {
    struct error_detail detail = {0};
    struct rand rand;
    rand_init(&rand, 1);
    limits_init(&bench->limits);
    bench->limits.snapshot_samples_max = UINT64_MAX;
    bench->limits.snapshot_log_bytes_max = UINT64_MAX;
    buf_init(&bench->bits);
    snprintf(bench->dir, sizeof bench->dir, "/tmp/tidalite-bench-XXXXXX");
    if (mkdtemp(bench->dir) == NULL || io_open(IO_BACKEND_SYSCALL, NULL, &bench->io) < 0 ||
        io_open(IO_BACKEND_SYSCALL, NULL, &bench->io_maintain) < 0)
        fail("no directory");
    const struct storage_options options = {.dir = bench->dir,
                                            .io = bench->io,
                                            .io_maintain = bench->io_maintain,
                                            .clock = &bench_clock,
                                            .limits = &bench->limits,
                                            .seed = 1};
    if (storage_open(&options, &detail, &bench->storage) < 0)
        fail(detail.text);
    bench->shuffled = mem_alloc(bench->series * sizeof *bench->shuffled);
    if (bench->shuffled == NULL)
        fail("out of memory");
    for (size_t i = 0; i < bench->series; i++) {
        size_t j = (size_t)rand_below(&rand, i + 1);
        bench->shuffled[i] = bench->shuffled[j];
        bench->shuffled[j] = (uint32_t)i;
    }
    for (size_t round = 0; round < rounds; round++, now_ms += STEP_MS)
        for (size_t first = 0; first < bench->series; first += BATCH) {
            batch_write(bench, first, &rand);
            (void)storage_maintain(bench->storage, now_ms);
        }
}

static void bench_close(struct bench *bench) {
    char command[96];
    storage_close(bench->storage);
    io_close(bench->io);
    io_close(bench->io_maintain);
    sample_columns_release(&bench->columns);
    mem_free(bench->chunks);
    mem_free(bench->shuffled);
    buf_release(&bench->bits);
    snprintf(command, sizeof command, "rm -r '%s'", bench->dir);
    if (system(command) != 0) // NOLINT(cert-env33-c): a name of ours
        fail("the directory stays");
}

/* ---- what is measured, each over all series ---- */

static void select_all(struct bench *bench) {
    const struct matcher matcher = {
        .kind = MATCHER_EQUAL, .name = slice_str("job"), .value = slice_str("bench")};
    selection_close(bench->selection);
    bench->selection = NULL;
    if (storage_select(bench->storage, &matcher, 1, BEGIN_MS, now_ms, 0, &bench->selection) < 0 ||
        selection_series_count(bench->selection) != bench->series)
        fail("not all series were found");
}

/* Where the sealed ones are, and a copy of the open one. */
static void chunks_of(struct bench *bench, uint32_t slot) {
    struct head_damage damage;
    size_t count = 0;
    if (head_chunks(bench->storage->head, slot, BEGIN_MS, now_ms, &bench->chunks, &count,
                    &bench->chunk_capacity, &bench->bits, &damage) < 0 ||
        count == 0)
        fail("no chunk");
    bench->seen += count;
}

/* In the order of a selection, which is that of creation. */
static void chunks_in_order(struct bench *bench) {
    for (uint32_t slot = 0; slot < bench->series; slot++)
        chunks_of(bench, slot);
}

static void chunks_in_none(struct bench *bench) {
    for (size_t i = 0; i < bench->series; i++)
        chunks_of(bench, bench->shuffled[i]);
}

static void read_with(struct bench *bench,
                      int (*read)(struct storage_selection *selection, size_t index, int64_t time_min_ms,
                                  int64_t time_max_ms, struct sample_columns *columns)) {
    for (size_t i = 0; i < bench->series; i++) {
        bench->columns.count = 0;
        if (read(bench->selection, i, BEGIN_MS, now_ms, &bench->columns) < 0)
            fail("out of memory");
        bench->seen += bench->columns.count;
    }
}

static void newest_all(struct bench *bench) {
    read_with(bench, selection_read_newest);
}

static void read_all(struct bench *bench) {
    read_with(bench, selection_read);
}

static int order(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    static const struct {
        const char *what;
        void (*run)(struct bench *bench);
    } rows[] = {{"select: found, and put into the selection", select_all},
                {"chunks: got at, the open one copied", chunks_in_order},
                {"the same in no order", chunks_in_none},
                {"newest sample", newest_all},
                {"all samples, decoded", read_all}};
    struct bench bench = {.series = argc > 1 ? strtoul(argv[1], NULL, 10) : 1000000};
    size_t rounds = argc > 2 ? strtoul(argv[2], NULL, 10) : 8;
    bench.series -= bench.series % BATCH;
    if (bench.series == 0 || rounds == 0)
        fail("usage: bench-select [SERIES [ROUNDS]]");
    log_setup(LOG_WARN, LOG_FORMAT_LOGFMT, STDERR_FILENO);
    bench_open(&bench, rounds);
    chunks_in_order(&bench);
    printf("%zu series, %zu samples each, in %.2f chunks: ns a series, median of %d\n", bench.series, rounds,
           (double)bench.seen / (double)bench.series, TIMES);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint64_t ns[TIMES];
        rows[i].run(&bench); /* warm */
        for (int k = 0; k < TIMES; k++) {
            uint64_t begin_ns = real_ns(NULL);
            rows[i].run(&bench);
            ns[k] = real_ns(NULL) - begin_ns;
        }
        qsort(ns, TIMES, sizeof ns[0], order);
        printf("%-45s %6.0f   (%.0f to %.0f)\n", rows[i].what, (double)ns[TIMES / 2] / (double)bench.series,
               (double)ns[0] / (double)bench.series, (double)ns[TIMES - 1] / (double)bench.series);
    }
    selection_close(bench.selection);
    bench_close(&bench);
    return bench.seen == 0;
}
