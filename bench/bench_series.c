/* bench-series: what a series costs in the series table: bytes by structure and resident, time to make one
 * (mean, and the longest pause), to find one, to match. The series are those of the standard load
 * (rw_load.c): eight labels, some 174 label bytes, one label value of its own each.
 *
 *     bench-series [SERIES] */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "storage/series/series.h"

#define SERIES_DEFAULT 1000000
#define METRICS        8
#define BLOCK          SERIES_FIND_MANY

static uint64_t now_ns(void) {
    return clock_monotonic_ns(clock_system());
}

static _Noreturn void fail(const char *what) {
    fprintf(stderr, "bench-series: %s\n", what);
    exit(1);
}

static size_t resident_bytes(void) {
    FILE *file = fopen("/proc/self/statm", "r");
    unsigned long total = 0, resident = 0;
    if (file == NULL || fscanf(file, "%lu %lu", &total, &resident) != 2)
        fail("/proc/self/statm");
    fclose(file);
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

static uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static void labels_make(struct buf *out, uint64_t i) {
    static const char *const names[METRICS] = {
        "node_cpu_seconds_total",         "node_network_receive_bytes_total",
        "node_memory_MemAvailable_bytes", "node_disk_io_time_seconds",
        "node_filesystem_avail_bytes",    "vllm:request_latency_seconds_bucket",
        "vllm:num_requests_running",      "DCGM_FI_DEV_GPU_UTIL"};
    char text[64];
    uint64_t target = i / METRICS, h = mix(target);
    buf_clear(out);
    label_bytes_append(out, slice_str("__name__"), slice_str(names[i % METRICS]));
    snprintf(text, sizeof text, "eu-central-1%c", 'a' + (char)(h % 4));
    label_bytes_append(out, slice_str("az"), slice_str(text));
    snprintf(text, sizeof text, "cluster-%02u", (unsigned)(h / 4 % 8));
    label_bytes_append(out, slice_str("cluster"), slice_str(text));
    snprintf(text, sizeof text, "10.%u.%u.%u:9100", (unsigned)(target >> 16 & 255),
             (unsigned)(target >> 8 & 255), (unsigned)(target & 255));
    label_bytes_append(out, slice_str("instance"), slice_str(text));
    label_bytes_append(out, slice_str("job"), slice_str(i % METRICS < 5 ? "node-exporter" : "model-server"));
    snprintf(text, sizeof text, "%u", (unsigned)(target % 12));
    label_bytes_append(out, slice_str("le"), slice_str(text));
    snprintf(text, sizeof text, "pod-%011" PRIx64,
             i * UINT64_C(0x9e3779b97f4a7c15) & UINT64_C(0xfffffffffff));
    label_bytes_append(out, slice_str("pod"), slice_str(text));
    snprintf(text, sizeof text, "team-%02u", (unsigned)(h / 32 % 20));
    label_bytes_append(out, slice_str("team"), slice_str(text));
}

/* All label sets one after the other, so that making them is not measured. */
struct sets {
    uint8_t *bytes;
    uint32_t *ends;
    size_t count;
};

static struct slice set_at(const struct sets *sets, size_t i) {
    uint32_t begin = i == 0 ? 0 : sets->ends[i - 1];
    return slice_of(sets->bytes + begin, sets->ends[i] - begin);
}

static void sets_make(struct sets *sets, size_t count) {
    struct buf one;
    buf_init(&one);
    sets->bytes = mem_alloc(count * 256);
    sets->ends = mem_alloc(count * sizeof *sets->ends);
    if (sets->bytes == NULL || sets->ends == NULL)
        fail("out of memory");
    uint32_t at = 0;
    for (size_t i = 0; i < count; i++) {
        labels_make(&one, i);
        if (one.failed || one.len > 256)
            fail("labels");
        memcpy(sets->bytes + at, one.data, one.len);
        at += (uint32_t)one.len;
        sets->ends[i] = at;
    }
    sets->count = count;
    buf_release(&one);
}

static void bench_find(struct series_table *table, const struct sets *sets) {
    double best = 1e9;
    for (int round = 0; round < 5; round++) {
        uint64_t begin_ns = now_ns();
        for (size_t from = 0; from < sets->count; from += BLOCK) {
            size_t end = from + BLOCK < sets->count ? from + BLOCK : sets->count;
            struct slice labels[BLOCK];
            uint32_t slots[BLOCK];
            for (size_t i = from; i < end; i++)
                labels[i - from] = set_at(sets, i);
            series_find_many(table, labels, end - from, slots);
            for (size_t i = from; i < end; i++)
                if (slots[i - from] == SLOT_NONE)
                    fail("a series is not found");
        }
        double ns = (double)(now_ns() - begin_ns) / (double)sets->count;
        best = ns < best ? ns : best;
    }
    printf("find: %.1f ns\n", best);
}

static void bench_match(struct series_table *table, const char *what, const struct matcher *matchers,
                        size_t count) {
    double best = 1e9;
    size_t found = 0;
    for (int round = 0; round < 3; round++) {
        uint32_t *slots;
        uint64_t begin_ns = now_ns();
        if (series_match(table, matchers, count, &slots, &found) < 0)
            fail("matching");
        double ms = (double)(now_ns() - begin_ns) / 1e6;
        best = ms < best ? ms : best;
        mem_free(slots);
    }
    printf("match %-48s %8zu series %9.3f ms\n", what, found, best);
}

/* What a snapshot's reader has in hand, loaded into a new table. */
static void bench_load(struct series_table *from, const struct label_limits *limits) {
    struct series_load load = {.pair_end = series_pair_end(from), .slot_end = series_slot_end(from)};
    struct slice *pairs = mem_alloc(load.pair_end * sizeof *pairs);
    struct series_load_entry *series = mem_alloc(load.slot_end * sizeof *series);
    if (pairs == NULL || series == NULL)
        fail("out of memory");
    for (uint32_t i = 0; i < load.pair_end; i++)
        pairs[i] = series_pair(from, i);
    for (uint32_t i = 0; i < load.slot_end; i++) {
        series[i] = (struct series_load_entry){.id = series_id(from, i)};
        series[i].pairs = series_pairs(from, i, &series[i].pair_count);
    }
    load.pairs = pairs;
    load.series = series;
    for (load.threads = 1; load.threads <= 2; load.threads++) {
        double best = 1e9, best_cpu = 1e9;
        struct series_memory memory = {0};
        for (int round = 0; round < 3; round++) {
            struct series_table *table;
            struct error_detail detail = {0};
            uint64_t begin_ns = now_ns();
            clock_t begin_cpu = clock();
            if (series_table_new(2, limits, UINT32_MAX, &table) < 0 || series_load(table, &load, &detail) < 0)
                fail(detail.text);
            double ms = (double)(now_ns() - begin_ns) / 1e6;
            double cpu_ms = (double)(clock() - begin_cpu) * 1e3 / CLOCKS_PER_SEC;
            best = ms < best ? ms : best;
            best_cpu = cpu_ms < best_cpu ? cpu_ms : best_cpu;
            series_memory(table, &memory);
            series_table_free(table);
        }
        printf("load: %.0f ms (%.0f of CPU) with %u threads, then %.1f bytes a series\n", best, best_cpu,
               load.threads, (double)memory.total / (double)load.slot_end);
    }
    mem_free(pairs);
    mem_free(series);
}

static bool ends_with_7(const struct matcher_pattern *pattern, struct slice value) {
    (void)pattern;
    return value.len > 0 && value.data[value.len - 1] == '7';
}

int main(int argc, char **argv) {
    size_t count = argc > 1 ? strtoul(argv[1], NULL, 10) : SERIES_DEFAULT;
    struct sets sets;
    sets_make(&sets, count);
    const struct label_limits limits = {.name_bytes_max = 1024, .value_bytes_max = 16384, .count_max = 64};
    struct series_table *table;
    struct arena scratch;
    arena_init(&scratch, 0, 0);
    size_t resident = resident_bytes();
    if (series_table_new(1, &limits, UINT32_MAX, &table) < 0)
        fail("out of memory");
    uint64_t begin_ns = now_ns(), last_ns = begin_ns, longest_ns = 0;
    for (size_t i = 0; i < count; i++) {
        enum label_fault fault;
        uint32_t slot;
        arena_reset(&scratch);
        if (series_ensure(table, set_at(&sets, i), 0, &scratch, &fault, &slot) < 0 ||
            fault != LABEL_FAULT_NONE)
            fail("a series can't be made");
        uint64_t at_ns = now_ns();
        longest_ns = at_ns - last_ns > longest_ns ? at_ns - last_ns : longest_ns;
        last_ns = at_ns;
    }
    double n = (double)count;
    printf("%zu series, %.1f label bytes each\n", count, (double)sets.ends[count - 1] / n);
    printf("make: %.0f ns, at most %.3f ms\n", (double)(last_ns - begin_ns) / n, (double)longest_ns / 1e6);
    struct series_memory memory;
    series_memory(table, &memory);
    printf("resident: %.1f bytes a series, accounted: %.1f\n", (double)(resident_bytes() - resident) / n,
           (double)memory.total / n);
    printf("  entries %.1f, pair lists %.1f, series hash %.1f, pairs %.1f, label bytes %.1f, pair hash %.1f, "
           "postings %.1f\n",
           (double)memory.entries / n, (double)memory.pair_lists / n, (double)memory.series_hash / n,
           (double)memory.pairs / n, (double)memory.label_bytes / n, (double)memory.pair_hash / n,
           (double)memory.postings / n);
    bench_find(table, &sets);
    const struct matcher_pattern pattern = {.match = ends_with_7};
    const struct matcher metric = {MATCHER_EQUAL, slice_str("__name__"), slice_str("DCGM_FI_DEV_GPU_UTIL"),
                                   NULL};
    const struct matcher job = {MATCHER_EQUAL, slice_str("job"), slice_str("model-server"), NULL};
    const struct matcher pod = {MATCHER_REGEX, slice_str("pod"), slice_str(".*7"), &pattern};
    const struct matcher team = {MATCHER_NOT_EQUAL, slice_str("team"), slice_str("team-07"), NULL};
    bench_match(table, "metric", &metric, 1);
    bench_match(table, "metric, job", (struct matcher[]){metric, job}, 2);
    bench_match(table, "metric, pod=~\".*7\"", (struct matcher[]){metric, pod}, 2);
    bench_match(table, "pod=~\".*7\"", &pod, 1);
    bench_match(table, "job, team!=", (struct matcher[]){job, team}, 2);
    bench_match(table, "team!=", &team, 1);
    bench_load(table, &limits);
    series_table_free(table);
    arena_release(&scratch);
    mem_free(sets.bytes);
    mem_free(sets.ends);
    return 0;
}
