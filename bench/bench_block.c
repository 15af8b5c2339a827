/* bench_block.c: what a block costs: writing one of the standard load's series, opening it, finding series,
 * reading chunks.
 *
 *     bench-block [DIR [SERIES [CHUNKS]]]     default: the current directory, 1,000,000 series, 4 chunks of
 * 120 samples
 *
 * Labels are the standard load's; the samples too, but for values that repeat every 97 series of a metric.
 * All times are of a warm page cache. Memory is the growth of the process' anonymous pages (RssAnon) while
 * writing, which leaves out the labels that the benchmark itself holds. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/rand.h"
#include "storage/block/block.h"
#include "storage/io/io.h"

#define NAME_COUNT 10
#define PHASES     97
#define START_MS   INT64_C(1700006400000)
#define STEP_MS    15000

static const char *const metrics[NAME_COUNT] = {
    "node_network_receive_packets_total", "node_memory_available_bytes",
    "node_load_average_one_minute",       "node_cpu_seconds_total",
    "node_hwmon_temperature_celsius",     "model_request_duration_seconds_bucket",
    "model_gpu_utilization_percent",      "model_server_build_info",
    "model_token_latency_seconds_bucket", "model_requests_total",
};
static const char *const le_values[12] = {"0.005", "0.01", "0.025", "0.05", "0.1", "0.25",
                                          "0.5",   "1",    "2.5",   "5",    "10",  "+Inf"};

static _Noreturn void fail(const char *what, const char *why) {
    fprintf(stderr, "bench-block: %s: %s\n", what, why);
    exit(1);
}

static void check(int status, const struct error_detail *detail, const char *what) {
    if (status < 0)
        fail(what, detail != NULL && detail->text[0] != '\0' ? detail->text : status_message(status));
}

static double now_ms(void) {
    return (double)clock_monotonic_ns(clock_system()) / 1e6;
}

static double cpu_ms(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e3 +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e3;
}

/* Kilobytes. */
static long anonymous_memory(void) {
    long kb = 0;
    char line[256];
    FILE *file = fopen("/proc/self/status", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "RssAnon: %ld", &kb) == 1)
            break;
    if (file != NULL)
        fclose(file);
    return kb;
}

/* ---- The load ----------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t x) {
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static void labels_make(struct buf *out, uint64_t i) {
    unsigned name = (unsigned)(i % NAME_COUNT);
    uint64_t target = i / NAME_COUNT, h = mix(1 ^ target);
    char text[64];
    label_bytes_append(out, slice_str("__name__"), slice_str(metrics[name]));
    snprintf(text, sizeof text, "eu-central-1%c", 'a' + (char)(h % 4));
    label_bytes_append(out, slice_str("az"), slice_str(text));
    snprintf(text, sizeof text, "cluster-%02u", (unsigned)(h / 4 % 8));
    label_bytes_append(out, slice_str("cluster"), slice_str(text));
    snprintf(text, sizeof text, "10.%u.%u.%u:9100", (unsigned)(target >> 16 & 255),
             (unsigned)(target >> 8 & 255), (unsigned)(target & 255));
    label_bytes_append(out, slice_str("instance"), slice_str(text));
    label_bytes_append(out, slice_str("job"), slice_str(name < 5 ? "node-exporter" : "model-server"));
    if (name == 5 || name == 8)
        label_bytes_append(out, slice_str("le"), slice_str(le_values[target % 12]));
    snprintf(text, sizeof text, "pod-%011" PRIx64,
             i * UINT64_C(0x9e3779b97f4a7c15) & UINT64_C(0xfffffffffff));
    label_bytes_append(out, slice_str("pod"), slice_str(text));
    snprintf(text, sizeof text, "team-%02u", (unsigned)(h / 32 % 20));
    label_bytes_append(out, slice_str("team"), slice_str(text));
}

struct series {
    uint64_t at; /* in the labels */
    uint32_t len;
    uint32_t number;
};

static struct buf all_labels;

static struct slice labels_of(const struct series *series) {
    return slice_of(all_labels.data + series->at, series->len);
}

static int series_order(const void *a, const void *b) {
    return block_series_order(labels_of(a), labels_of(b));
}

static uint8_t *grow(void *context, uint8_t *old, size_t old_capacity, size_t used, size_t bytes,
                     size_t *capacity) {
    (void)context;
    (void)old_capacity;
    (void)used;
    *capacity = bytes < 512 ? 512 : 2048;
    return mem_realloc(old, *capacity);
}

/* The chunks of one metric with one offset of its times. */
static void chunks_make(struct block_chunk *out, size_t chunks, unsigned name, unsigned phase) {
    struct rand rand;
    rand_init(&rand, name * 1000 + phase);
    double value = (double)rand_below(&rand, 1000000);
    int64_t time_ms = START_MS + phase;
    for (size_t c = 0; c < chunks; c++) {
        struct chunk_open open = {0};
        out[c] =
            (struct block_chunk){.time_min_ms = time_ms, .log_position = ((uint64_t)9 << 32) + (c << 20)};
        for (unsigned i = 0; i < CHUNK_SAMPLES_MAX; i++) {
            struct sample sample = {.time_ms = time_ms};
            memcpy(&sample.value_bits, &value, sizeof value);
            check(chunk_append(&open, sample, START_NONE, grow, NULL), NULL, "encoding");
            out[c].time_max_ms = time_ms;
            time_ms += STEP_MS;
            uint64_t u = rand_below(&rand, 1000);
            if (name == 0 || name == 5 || name == 8 || name == 9)
                value += (double)u;
            else if (name == 3)
                value += (double)(int)((double)u * 1.5) / 100;
            else if (name != 7)
                value += (double)((int)(u * 2) - 1000) / 100;
        }
        out[c].bits = chunk_bytes(&open);
        out[c].info = open.info;
    }
}

/* ---- Writing ------------------------------------------------------------------------------------------ */

static void block_write(struct io *io, const char *dir, const struct series *series, size_t count,
                        const struct block_chunk *chunks, size_t chunk_count) {
    struct error_detail detail = {0};
    struct block_writer_options options = {.io = io,
                                           .dir = dir,
                                           .id = 1,
                                           .level = 1,
                                           .salt = 99,
                                           .time_base_ms = START_MS,
                                           .position_base = (uint64_t)9 << 32};
    struct block_writer *writer;
    long memory = anonymous_memory(), memory_max = 0;
    uint64_t held_max = 0;
    double began = now_ms(), cpu = cpu_ms(), add_max = 0, step_max = 0;
    size_t adds_slow = 0, steps = 0, steps_slow = 0;
    check(block_writer_open(&options, &detail, &writer), &detail, "opening a writer");
    for (size_t i = 0; i < count; i++) {
        double start = now_ms();
        unsigned number = series[i].number;
        check(block_writer_add(writer, labels_of(&series[i]), number + 1,
                               chunks + ((number % NAME_COUNT) * PHASES + number % PHASES) * chunk_count,
                               chunk_count, &detail),
              &detail, "adding");
        double took = now_ms() - start;
        add_max = took > add_max ? took : add_max;
        adds_slow += took > 20;
        if (i % 4096 == 0) {
            long now = anonymous_memory() - memory;
            memory_max = now > memory_max ? now : memory_max;
            uint64_t held = block_writer_memory_bytes(writer);
            held_max = held > held_max ? held : held_max;
        }
    }
    double added = now_ms();
    for (int status = STATUS_OK; status == STATUS_OK; steps++) {
        double start = now_ms();
        status = block_writer_step(writer, &detail);
        check(status, &detail, "finishing");
        double took = now_ms() - start;
        step_max = took > step_max ? took : step_max;
        steps_slow += took > 20;
        long now = anonymous_memory() - memory;
        memory_max = now > memory_max ? now : memory_max;
        uint64_t held = block_writer_memory_bytes(writer);
        held_max = held > held_max ? held : held_max;
    }
    double ended = now_ms();
    const struct block_meta *meta = block_writer_meta(writer);
    double n = (double)count, samples = (double)meta->sample_count;
    printf("write    %zu series, %" PRIu64 " samples: %.2f s adding, %.2f s finishing, CPU %.2f s\n", count,
           meta->sample_count, (added - began) / 1e3, (ended - added) / 1e3, (cpu_ms() - cpu) / 1e3);
    printf("write    slowest add %.1f ms (%zu over 20 ms), slowest of %zu steps %.1f ms (%zu over 20 ms)\n",
           add_max, adds_slow, steps, step_max, steps_slow);
    printf("write    memory: %.1f MB of anonymous pages at most, %.1f MB by its own count\n",
           (double)memory_max / 1024, (double)held_max / 1048576);
    printf("size     chunks %.1f bytes a series (%.2f a sample), index %.1f + %.1f bytes a series; all %.3f "
           "a sample\n",
           (double)meta->chunks.bytes / n, (double)meta->chunks.bytes / samples,
           (double)meta->index.bytes / n, (double)meta->index_sum.bytes / n,
           (double)(meta->chunks.bytes + meta->index.bytes + meta->index_sum.bytes) / samples);
    block_writer_close(writer);
}

/* ---- Reading ------------------------------------------------------------------------------------------ */

static bool pattern_prefix(const struct matcher_pattern *pattern, struct slice value) {
    return slice_starts_with(value, pattern->prefix);
}

static bool pattern_contains(const struct matcher_pattern *pattern, struct slice value) {
    const char *text = pattern->context;
    return memmem(value.data, value.len, text, strlen(text)) != NULL;
}

static int on_text(void *context, struct slice text, uint64_t series_count) {
    (void)text;
    (void)series_count;
    (*(uint64_t *)context)++;
    return 0;
}

static void select_time(struct block *block, const char *what, const struct matcher *matchers, size_t count) {
    double best = 1e9;
    size_t found = 0;
    for (int round = 0; round < 5; round++) {
        uint32_t *ordinals;
        struct error_detail detail = {0};
        double start = now_ms();
        check(block_select(block, matchers, count, INT64_MIN, INT64_MAX, &ordinals, &found, &detail), &detail,
              "selecting");
        double took = now_ms() - start;
        best = took < best ? took : best;
        mem_free(ordinals);
    }
    printf("select   %-44s %8zu series %9.3f ms\n", what, found, best);
}

static void values_time(struct block *block, const char *what, const char *name,
                        const struct matcher *matchers, size_t count) {
    struct error_detail detail = {0};
    uint64_t told = 0;
    double start = now_ms();
    check(block_label_values(block, slice_str(name), matchers, count, on_text, &told, &detail), &detail,
          "values");
    printf("values   %-44s %8" PRIu64 " values %9.3f ms\n", what, told, now_ms() - start);
}

static void selects(struct block *block, const struct series *series) {
    struct label label;
    struct slice rest = labels_of(series);
    struct matcher one = {.kind = MATCHER_EQUAL, .name = slice_str("pod")};
    while (label_next(&rest, &label, NULL))
        if (slice_equal(label.name, one.name))
            one.value = label.value;
    struct matcher metric = {
        .kind = MATCHER_EQUAL, .name = slice_str("__name__"), .value = slice_str(metrics[9])};
    struct matcher job = {
        .kind = MATCHER_EQUAL, .name = slice_str("job"), .value = slice_str("node-exporter")};
    struct matcher team = {.kind = MATCHER_EQUAL, .name = slice_str("team"), .value = slice_str("team-03")};
    struct matcher not_team = {
        .kind = MATCHER_NOT_EQUAL, .name = slice_str("team"), .value = slice_str("team-03")};
    struct matcher has_name = {.kind = MATCHER_NOT_EQUAL, .name = slice_str("__name__")};
    struct matcher has_le = {.kind = MATCHER_NOT_EQUAL, .name = slice_str("le")};
    struct matcher_pattern prefix = {.match = pattern_prefix, .prefix = slice_str("pod-0")};
    struct matcher_pattern contains = {.match = pattern_contains, .context = (void *)(uintptr_t) "77a"};
    struct matcher pod_prefix = {.kind = MATCHER_REGEX, .name = slice_str("pod"), .pattern = &prefix};
    struct matcher pod_contains = {.kind = MATCHER_REGEX, .name = slice_str("pod"), .pattern = &contains};
    struct matcher absent = {.kind = MATCHER_EQUAL, .name = slice_str("pod"), .value = slice_str("nobody")};
    select_time(block, "{pod=\"pod-...\"}", &one, 1);
    select_time(block, "{pod=\"nobody\"}", &absent, 1);
    select_time(block, "x", &metric, 1);
    select_time(block, "x{team=\"team-03\"}", (struct matcher[]){metric, team}, 2);
    select_time(block, "x{team!=\"team-03\"}", (struct matcher[]){metric, not_team}, 2);
    select_time(block, "{job=\"node-exporter\"}", &job, 1);
    select_time(block, "{__name__!=\"\"}", &has_name, 1);
    select_time(block, "{le!=\"\"}", &has_le, 1);
    select_time(block, "x{pod=~\"pod-0.*\"}", (struct matcher[]){metric, pod_prefix}, 2);
    select_time(block, "x{pod=~\".*77a.*\"}", (struct matcher[]){metric, pod_contains}, 2);
    values_time(block, "label_values(team)", "team", NULL, 0);
    values_time(block, "label_values(pod)", "pod", NULL, 0);
    values_time(block, "label_values(x{team=\"team-03\"}, instance)", "instance",
                (struct matcher[]){metric, team}, 2);
}

static void chunk_reads(struct block *block, size_t count) {
    struct error_detail detail = {0};
    struct block_view *view;
    struct block_series series;
    struct block_chunk chunk;
    struct slice labels;
    struct rand rand;
    rand_init(&rand, 3);
    size_t many = count < 20000 ? count : 20000;
    uint32_t first = (uint32_t)rand_below(&rand, count - many + 1);
    check(block_view_open(block, &view), NULL, "a view");
    double view_ns = 0, labels_ns = 0, chunk_ns = 0;
    uint64_t chunks = 0, sum = 0;
    for (int round = 0; round < 3; round++) { /* the last one counts */
        double start = now_ms();
        for (size_t i = 0; i < many; i++)
            check(block_view_series(view, first + (uint32_t)i, INT64_MIN, INT64_MAX, &series, &detail),
                  &detail, "series");
        double at = now_ms();
        view_ns = (at - start) * 1e6;
        for (size_t i = 0; i < many; i++) {
            check(block_view_labels(view, first + (uint32_t)i, &labels, &detail), &detail, "labels");
            sum += labels.len;
        }
        double labelled = now_ms();
        labels_ns = (labelled - at) * 1e6;
        chunks = 0;
        for (size_t i = 0; i < many; i++) {
            check(block_view_series(view, first + (uint32_t)i, INT64_MIN, INT64_MAX, &series, &detail),
                  &detail, "series");
            for (size_t c = 0; c < series.chunk_count; c++, chunks++) {
                check(block_chunk_read(block, series.ordinal, &series.chunks[c], &chunk, &detail), &detail,
                      "a chunk");
                sum += chunk.bits.len;
            }
        }
        chunk_ns = (now_ms() - labelled) * 1e6 - view_ns;
    }
    printf(
        "read     series in order: %.0f ns for its chunks' places, %.0f ns for its labels; %.0f ns a chunk, "
        "checksum included\n",
        view_ns / (double)many, labels_ns / (double)many, chunk_ns / (double)chunks);
    double start = now_ms();
    for (size_t i = 0; i < many; i++) {
        uint32_t ordinal = first + (uint32_t)rand_below(&rand, many);
        check(block_view_series(view, ordinal, INT64_MIN, INT64_MAX, &series, &detail), &detail, "series");
        check(block_view_labels(view, ordinal, &labels, &detail), &detail, "labels");
        for (size_t c = 0; c < series.chunk_count; c++) {
            check(block_chunk_read(block, series.ordinal, &series.chunks[c], &chunk, &detail), &detail,
                  "a chunk");
            sum += chunk.bits.len;
        }
    }
    printf("read     series at random of these: %.0f ns for all of it (%.1f chunks)\n",
           (now_ms() - start) * 1e6 / (double)many, (double)chunks / (double)many);
    start = now_ms();
    for (size_t i = 0; i < many; i++) {
        struct block_view *again;
        check(block_view_open(block, &again), NULL, "a view");
        block_view_close(again);
    }
    printf("read     a view opened and closed: %.0f ns\n", (now_ms() - start) * 1e6 / (double)many);
    block_view_close(view);

    struct block_cursor *cursor;
    check(block_cursor_open(block, 0, BLOCK_SHARDS - 1, &cursor), NULL, "a cursor");
    start = now_ms();
    size_t seen = 0;
    int status;
    while ((status = block_cursor_next(cursor, &series, &detail)) == STATUS_OK) {
        for (size_t c = 0; c < series.chunk_count; c++) {
            check(block_chunk_read(block, series.ordinal, &series.chunks[c], &chunk, &detail), &detail,
                  "a chunk");
            sum += chunk.bits.len;
        }
        seen++;
    }
    check(status, &detail, "the cursor");
    printf("cursor   all %zu series and chunks in %.0f ms (%" PRIu64 " bytes)\n", seen, now_ms() - start,
           sum);
    block_cursor_close(cursor);
}

static int on_finding(void *context, const struct block_finding *finding) {
    (void)context;
    printf("verify   %s at %" PRIu64 ": %s\n", finding->file, finding->offset, finding->what);
    return 0;
}

static int remove_each(void *context, const char *name) {
    char path[8192];
    snprintf(path, sizeof path, "%s/%s", (const char *)context, name);
    return unlink(path);
}

int main(int argc, char **argv) {
    const char *parent = argc > 1 ? argv[1] : ".";
    size_t count = argc > 2 ? strtoul(argv[2], NULL, 10) : 1000000;
    size_t chunk_count = argc > 3 ? strtoul(argv[3], NULL, 10) : 4;
    if (count == 0 || chunk_count == 0 || count > 16000000) {
        fprintf(stderr, "usage: %s [DIR [SERIES [CHUNKS]]]\n", argv[0]);
        return 2;
    }
    struct error_detail detail = {0};
    struct io *io;
    check(io_open(IO_BACKEND_SYSCALL, &detail, &io), &detail, "io");
    struct series *series = mem_alloc(count * sizeof *series);
    struct block_chunk *chunks = mem_alloc((size_t)NAME_COUNT * PHASES * chunk_count * sizeof *chunks);
    if (series == NULL || chunks == NULL)
        fail("memory", "not enough");
    for (size_t i = 0; i < count; i++) {
        series[i] = (struct series){.at = all_labels.len, .number = (uint32_t)i};
        labels_make(&all_labels, i);
        series[i].len = (uint32_t)(all_labels.len - series[i].at);
    }
    if (all_labels.failed)
        fail("memory", "not enough");
    qsort(series, count, sizeof *series, series_order);
    for (unsigned name = 0; name < NAME_COUNT; name++)
        for (unsigned phase = 0; phase < PHASES; phase++)
            chunks_make(chunks + (name * PHASES + phase) * chunk_count, chunk_count, name, phase);

    char dir[4096], block_dir[4200];
    snprintf(dir, sizeof dir, "%s/bench-block-XXXXXX", parent);
    if (mkdtemp(dir) == NULL)
        fail(dir, "cannot be made");
    snprintf(block_dir, sizeof block_dir, "%s/1", dir);
    block_write(io, block_dir, series, count, chunks, chunk_count);

    struct block *block;
    for (int round = 0; round < 3; round++) {
        double start = now_ms();
        check(block_open(io, block_dir, &detail, &block), &detail, "opening");
        printf("open     %.1f ms, every page of the index checked\n", now_ms() - start);
        if (round < 2)
            block_close(block);
    }
    selects(block, &series[count / 2]);
    chunk_reads(block, count);
    double start = now_ms();
    check(block_verify(block, on_finding, NULL, &detail), &detail, "verifying");
    printf("verify   %.0f ms\n", now_ms() - start);
    block_close(block);

    char path[4300];
    snprintf(path, sizeof path, "%s/index.sum", block_dir);
    unlink(path);
    start = now_ms();
    check(block_open(io, block_dir, &detail, &block), &detail, "rebuilding");
    printf("rebuild  the index from chunks: %.0f ms\n", now_ms() - start);
    block_close(block);
    io_list_dir(io, block_dir, remove_each, block_dir);
    rmdir(block_dir);
    rmdir(dir);
    io_close(io);
    return 0;
}
