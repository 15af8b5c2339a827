/* metrics.c: counters, gauges and histograms of the program itself, and their text. */
#include "base/metrics.h"

#include <dirent.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/json_text.h"

enum kind { KIND_COUNTER, KIND_GAUGE, KIND_HISTOGRAM };

struct row {
    enum kind kind;
    const char *name;
    const char *labels;
    const char *help;
};

static const struct row rows[METRIC_COUNT] = {
#define COUNTER(id, name, labels, help)   [METRIC_##id] = {KIND_COUNTER, name, labels, help},
#define GAUGE(id, name, labels, help)     [METRIC_##id] = {KIND_GAUGE, name, labels, help},
#define HISTOGRAM(id, name, labels, help) [METRIC_##id] = {KIND_HISTOGRAM, name, labels, help},
#include "base/metrics.def"
#undef COUNTER
#undef GAUGE
#undef HISTOGRAM
};

/* Upper bounds of histogram buckets in nanoseconds, and as Prometheus writes them in `le`. */
static const struct {
    uint64_t ns;
    const char *le;
} bounds[] = {
    {50000, "5e-05"},      {100000, "0.0001"},    {250000, "0.00025"},     {500000, "0.0005"},
    {1000000, "0.001"},    {2500000, "0.0025"},   {5000000, "0.005"},      {10000000, "0.01"},
    {25000000, "0.025"},   {50000000, "0.05"},    {100000000, "0.1"},      {250000000, "0.25"},
    {500000000, "0.5"},    {1000000000, "1.0"},   {2500000000, "2.5"},     {5000000000, "5.0"},
    {10000000000, "10.0"}, {60000000000, "60.0"}, {120000000000, "120.0"},
};
#define BOUND_COUNT (sizeof bounds / sizeof bounds[0])

static atomic_uint_fast64_t values[METRIC_COUNT];

/* Only the histogram rows use theirs. */
static struct {
    atomic_uint_fast64_t buckets[BOUND_COUNT + 1]; /* not cumulative; the last is +Inf */
    atomic_uint_fast64_t sum_ns;
} histograms[METRIC_COUNT];

void metric_add(enum metric_id id, uint64_t by) {
    atomic_fetch_add_explicit(&values[id], by, memory_order_relaxed);
}

void metric_sub(enum metric_id id, uint64_t by) {
    atomic_fetch_sub_explicit(&values[id], by, memory_order_relaxed);
}

void metric_set(enum metric_id id, uint64_t value) {
    atomic_store_explicit(&values[id], value, memory_order_relaxed);
}

uint64_t metric_get(enum metric_id id) {
    return atomic_load_explicit(&values[id], memory_order_relaxed);
}

void metric_observe_ns(enum metric_id id, uint64_t ns) {
    size_t i = 0;
    while (i < BOUND_COUNT && ns > bounds[i].ns)
        i++;
    atomic_fetch_add_explicit(&histograms[id].buckets[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&histograms[id].sum_ns, ns, memory_order_relaxed);
}

void metrics_reset(void) {
    for (size_t id = 0; id < METRIC_COUNT; id++) {
        atomic_store(&values[id], 0);
        atomic_store(&histograms[id].sum_ns, 0);
        for (size_t i = 0; i <= BOUND_COUNT; i++)
            atomic_store(&histograms[id].buckets[i], 0);
    }
}

static void histogram_print(struct buf *buf, size_t id) {
    uint64_t count = 0;
    const char *comma = rows[id].labels[0] != '\0' ? "," : "";
    for (size_t i = 0; i <= BOUND_COUNT; i++) {
        count += atomic_load_explicit(&histograms[id].buckets[i], memory_order_relaxed);
        buf_printf(buf, "%s_bucket{%s%sle=\"%s\"} %llu\n", rows[id].name, rows[id].labels, comma,
                   i < BOUND_COUNT ? bounds[i].le : "+Inf", (unsigned long long)count);
    }
    const char *open = comma[0] != '\0' ? "{" : "";
    const char *close = comma[0] != '\0' ? "}" : "";
    double sum = (double)atomic_load_explicit(&histograms[id].sum_ns, memory_order_relaxed) / 1e9;
    buf_printf(buf, "%s_sum%s%s%s %.9f\n", rows[id].name, open, rows[id].labels, close, sum);
    buf_printf(buf, "%s_count%s%s%s %llu\n", rows[id].name, open, rows[id].labels, close,
               (unsigned long long)count);
}

static double resident_bytes(void) {
    FILE *file = fopen("/proc/self/statm", "re");
    if (file == NULL)
        return 0;
    unsigned long total = 0, resident = 0;
    int got = fscanf(file, "%lu %lu", &total, &resident);
    fclose(file);
    return got == 2 ? (double)resident * (double)sysconf(_SC_PAGESIZE) : 0;
}

static double open_descriptors(void) {
    DIR *dir = opendir("/proc/self/fd");
    if (dir == NULL)
        return 0;
    double count = -3; /* ".", "..", and the directory itself */
    while (readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count;
}

/* Unix time at which the process started: boot time plus field 22 of /proc/self/stat. */
static double start_seconds(void) {
    FILE *file = fopen("/proc/self/stat", "re");
    if (file == NULL)
        return 0;
    char text[1024];
    size_t len = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[len] = '\0';
    /* The second field, the name in parentheses, may hold spaces: count from its end. */
    char *p = strrchr(text, ')');
    for (int field = 2; p != NULL && field < 22; field++)
        p = strchr(p + 1, ' ');
    unsigned long long ticks = 0;
    if (p == NULL || sscanf(p, "%llu", &ticks) != 1)
        return 0;
    struct timespec wall, boot;
    clock_gettime(CLOCK_REALTIME, &wall);
    clock_gettime(CLOCK_BOOTTIME, &boot);
    double boot_at =
        ((double)wall.tv_sec - (double)boot.tv_sec) + (double)(wall.tv_nsec - boot.tv_nsec) / 1e9;
    return boot_at + (double)ticks / (double)sysconf(_SC_CLK_TCK);
}

struct process_row {
    const char *name;
    enum kind kind;
    const char *help;
    double value;
};
#define PROCESS_ROWS 4

static void process_rows(struct process_row out[PROCESS_ROWS]) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double cpu = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                 (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    out[0] =
        (struct process_row){"process_cpu_seconds_total", KIND_COUNTER, "CPU time, user and system.", cpu};
    out[1] = (struct process_row){"process_resident_memory_bytes", KIND_GAUGE, "Resident memory.",
                                  resident_bytes()};
    out[2] =
        (struct process_row){"process_open_fds", KIND_GAUGE, "Open file descriptors.", open_descriptors()};
    out[3] = (struct process_row){"process_start_time_seconds", KIND_GAUGE, "Unix time of the start.",
                                  start_seconds()};
}

static const char *const types[] = {"counter", "gauge", "histogram"};

static bool is_first_of_name(size_t id) {
    return id == 0 || strcmp(rows[id - 1].name, rows[id].name) != 0;
}

void metrics_print(struct buf *buf) {
    for (size_t id = 0; id < METRIC_COUNT; id++) {
        const struct row *row = &rows[id];
        if (is_first_of_name(id))
            buf_printf(buf, "# HELP %s %s\n# TYPE %s %s\n", row->name, row->help, row->name,
                       types[row->kind]);
        if (row->kind == KIND_HISTOGRAM) {
            histogram_print(buf, id);
            continue;
        }
        const char *open = row->labels[0] != '\0' ? "{" : "";
        const char *close = row->labels[0] != '\0' ? "}" : "";
        buf_printf(buf, "%s%s%s%s %llu\n", row->name, open, row->labels, close,
                   (unsigned long long)metric_get((enum metric_id)id));
    }
    buf_printf(buf,
               "# HELP tidalite_build_info The version that runs.\n# TYPE tidalite_build_info gauge\n"
               "tidalite_build_info{version=\"%s\"} 1\n",
               TIDALITE_VERSION);
    struct process_row process[PROCESS_ROWS];
    process_rows(process);
    for (size_t i = 0; i < PROCESS_ROWS; i++)
        buf_printf(buf, "# HELP %s %s\n# TYPE %s %s\n%s %.17g\n", process[i].name, process[i].help,
                   process[i].name, types[process[i].kind], process[i].name, process[i].value);
}

/* ---- As JSON --------------------------------------------------------------------------------------------
 */

static const char *const types_json[] = {"COUNTER", "GAUGE", "HISTOGRAM"};
static const char *const members[] = {"counter", "gauge", "histogram"};

/* Labels as they stand in metrics.def: at most one, a="b" without escapes. */
static void labels_json(struct buf *buf, const char *labels) {
    const char *equal = strchr(labels, '=');
    if (equal != NULL)
        buf_printf(buf, "\"label\":[{\"name\":\"%.*s\",\"value\":%s}],", (int)(equal - labels), labels,
                   equal + 1);
}

static void histogram_json(struct buf *buf, size_t id) {
    uint64_t counts[BOUND_COUNT + 1], count = 0;
    for (size_t i = 0; i <= BOUND_COUNT; i++)
        counts[i] = count += atomic_load_explicit(&histograms[id].buckets[i], memory_order_relaxed);
    double sum = (double)atomic_load_explicit(&histograms[id].sum_ns, memory_order_relaxed) / 1e9;
    buf_printf(buf, "{\"sampleCount\":\"%llu\",\"sampleSum\":%.9f,\"bucket\":[", (unsigned long long)count,
               sum);
    for (size_t i = 0; i <= BOUND_COUNT; i++)
        buf_printf(buf, "%s{\"cumulativeCount\":\"%llu\",\"upperBound\":%s}", i > 0 ? "," : "",
                   (unsigned long long)counts[i], i < BOUND_COUNT ? bounds[i].le : "\"Infinity\"");
    buf_append_str(buf, "]}");
}

static void family_begin(struct buf *buf, const char *name, const char *help, enum kind kind) {
    buf_printf(buf, "%s{\"name\":\"%s\",\"help\":", buf->data[buf->len - 1] == '[' ? "" : ",", name);
    json_string_append(buf, slice_str(help), JSON_PLAIN);
    buf_printf(buf, ",\"type\":\"%s\",\"metric\":[", types_json[kind]);
}

void metrics_json_print(bool (*wanted)(const void *context, const char *name), const void *context,
                        struct buf *buf) {
    buf_append_byte(buf, '[');
    if (buf->failed)
        return;
    for (size_t id = 0; id < METRIC_COUNT; id++) {
        const struct row *row = &rows[id];
        if (wanted != NULL && !wanted(context, row->name))
            continue;
        if (is_first_of_name(id))
            family_begin(buf, row->name, row->help, row->kind);
        else
            buf_append_byte(buf, ',');
        buf_append_byte(buf, '{');
        labels_json(buf, row->labels);
        buf_printf(buf, "\"%s\":", members[row->kind]);
        if (row->kind == KIND_HISTOGRAM)
            histogram_json(buf, id);
        else
            buf_printf(buf, "{\"value\":%llu}", (unsigned long long)metric_get((enum metric_id)id));
        buf_append_byte(buf, '}');
        if (id + 1 == METRIC_COUNT || is_first_of_name(id + 1))
            buf_append_str(buf, "]}");
    }
    struct process_row process[PROCESS_ROWS];
    process_rows(process);
    for (size_t i = 0; i < PROCESS_ROWS; i++) {
        if (wanted != NULL && !wanted(context, process[i].name))
            continue;
        family_begin(buf, process[i].name, process[i].help, process[i].kind);
        buf_printf(buf, "{\"%s\":{\"value\":%.17g}}]}", members[process[i].kind], process[i].value);
    }
    buf_append_byte(buf, ']');
}
