/* load.c: ten metrics, their labels and values. */
#include "bench/load.h"

#include <inttypes.h>
#include <snappy-c.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"

#define NAME_COUNT       10
#define LABEL_BYTES_MAX  512
#define SAMPLE_BYTES_MAX (1 + VARINT_BYTES_MAX + 1 + 8 + 1 + VARINT_BYTES_MAX)
#define SERIES_BYTES_MAX (LABEL_BYTES_MAX + SAMPLE_BYTES_MAX + 1 + VARINT_BYTES_MAX)

enum value_kind { COUNTER_INTEGER, COUNTER_FLOAT, GAUGE, CONSTANT };

/* The ten metrics: 40 % integer counters, 10 % float counters, 40 % gauges, 10 % constant. Two are buckets.
 */
static const struct {
    const char *name;
    enum value_kind kind;
    bool has_le;
} metrics[NAME_COUNT] = {
    {"node_network_receive_packets_total", COUNTER_INTEGER, false},
    {"node_memory_available_bytes", GAUGE, false},
    {"node_load_average_one_minute", GAUGE, false},
    {"node_cpu_seconds_total", COUNTER_FLOAT, false},
    {"node_hwmon_temperature_celsius", GAUGE, false},
    {"model_request_duration_seconds_bucket", COUNTER_INTEGER, true},
    {"model_gpu_utilization_percent", GAUGE, false},
    {"model_server_build_info", CONSTANT, false},
    {"model_token_latency_seconds_bucket", COUNTER_INTEGER, true},
    {"model_requests_total", COUNTER_INTEGER, false},
};
static const char *const le_values[12] = {"0.005", "0.01", "0.025", "0.05", "0.1", "0.25",
                                          "0.5",   "1",    "2.5",   "5",    "10",  "+Inf"};

struct load_series {
    double value;
    uint32_t generation; /* how often churn has replaced it */
};

static void *must_alloc(size_t bytes) {
    void *p = mem_zalloc(bytes);
    if (p == NULL) {
        fprintf(stderr, "load: not enough memory; use fewer series\n");
        exit(1);
    }
    return p;
}

void load_open(struct load *load) {
    size_t bytes = load->batch * SERIES_BYTES_MAX;
    load->states = must_alloc(load->series * sizeof *load->states);
    load->raw = must_alloc(bytes);
    load->packed_max = snappy_max_compressed_length(bytes);
    load->packed = must_alloc(load->packed_max);
}

void load_close(struct load *load) {
    mem_free(load->states);
    mem_free(load->raw);
    mem_free(load->packed);
}

/* SplitMix64 (Steele, Lea, Flood 2014): also as a hash of a number. */
static uint64_t mix(uint64_t x) {
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* Uniform in [0, 1), a function of seed, series and round: a run can be made again. */
static double uniform(uint64_t seed, uint64_t series, uint64_t round) {
    return (double)(mix(mix(seed + series) + round) >> 11) * 0x1p-53;
}

static uint8_t *label_put(uint8_t *p, const char *name, const char *value) {
    size_t name_len = strlen(name);
    size_t value_len = strlen(value);
    size_t inner = 1 + varint_len(name_len) + name_len + 1 + varint_len(value_len) + value_len;
    *p++ = 0x0a;
    p = varint_write(p, inner);
    *p++ = 0x0a;
    p = varint_write(p, name_len);
    memcpy(p, name, name_len);
    p += name_len;
    *p++ = 0x12;
    p = varint_write(p, value_len);
    memcpy(p, value, value_len);
    return p + value_len;
}

/* The labels of series i in byte order of their names; returns their length. */
static size_t labels_put(uint8_t *out, const struct load *load, uint64_t i, uint32_t generation) {
    unsigned name = (unsigned)(i % NAME_COUNT);
    uint64_t target = i / NAME_COUNT;
    uint64_t h = mix(load->seed ^ target);
    char text[64];
    uint8_t *p = label_put(out, "__name__", metrics[name].name);
    snprintf(text, sizeof text, "eu-central-1%c", 'a' + (char)(h % 4));
    p = label_put(p, "az", text);
    snprintf(text, sizeof text, "cluster-%02u", (unsigned)(h / 4 % 8));
    p = label_put(p, "cluster", text);
    snprintf(text, sizeof text, "10.%u.%u.%u:9100", (unsigned)(target >> 16 & 255),
             (unsigned)(target >> 8 & 255), (unsigned)(target & 255));
    p = label_put(p, "instance", text);
    p = label_put(p, "job", name < 5 ? "node-exporter" : "model-server");
    if (metrics[name].has_le)
        p = label_put(p, "le", le_values[target % 12]);
    /* Unique: multiplication by an odd number permutes the 44-bit numbers. */
    uint64_t unique = i + (uint64_t)generation * load->series;
    snprintf(text, sizeof text, "pod-%011" PRIx64,
             unique * UINT64_C(0x9e3779b97f4a7c15) & UINT64_C(0xfffffffffff));
    p = label_put(p, "pod", text);
    snprintf(text, sizeof text, "team-%02u", (unsigned)(h / 32 % 20));
    p = label_put(p, "team", text);
    return (size_t)(p - out);
}

static double floor_of(double v) {
    double whole = (double)(int64_t)v;
    return whole > v ? whole - 1 : whole;
}

static void series_step(struct load_series *state, const struct load *load, uint64_t i, uint64_t round) {
    double u = uniform(load->seed, i, round + 1);
    if (round == 0) {
        state->value = floor_of(uniform(load->seed, i, 0) * 1e6);
        return;
    }
    switch (metrics[i % NAME_COUNT].kind) {
    case COUNTER_INTEGER:
        state->value += floor_of(u * 1000);
        break;
    case COUNTER_FLOAT:
        state->value += floor_of(u * 1500) / 100;
        break;
    case GAUGE:
        state->value += floor_of((u - 0.5) * 2000) / 100;
        break;
    case CONSTANT:
        break;
    }
    /* Churn: a rotating share of the series ends and a new pod takes its place. */
    uint64_t gone = (uint64_t)(load->churn * (double)load->series);
    if (gone > 0 && (i + load->series - round * gone % load->series) % load->series < gone)
        state->generation++;
}

/* One TimeSeries of the WriteRequest. */
static uint8_t *series_put(uint8_t *p, const struct load *load, struct load_series *state, uint64_t i,
                           uint64_t round) {
    uint8_t labels[LABEL_BYTES_MAX];
    size_t labels_len = labels_put(labels, load, i, state->generation);
    uint8_t sample[SAMPLE_BYTES_MAX];
    uint8_t *s = sample;
    int64_t time_ms = load->start_ms + (int64_t)(round * load->step_ms) + (int64_t)(i % 97);
    *s++ = 0x09; /* double value = 1 */
    store_u64(s, double_bits(state->value));
    s += 8;
    *s++ = 0x10; /* int64 timestamp = 2 */
    s = varint_write(s, (uint64_t)time_ms);
    size_t sample_len = (size_t)(s - sample);
    *p++ = 0x0a; /* repeated TimeSeries timeseries = 1 */
    p = varint_write(p, labels_len + 1 + varint_len(sample_len) + sample_len);
    memcpy(p, labels, labels_len);
    p += labels_len;
    *p++ = 0x12; /* repeated Sample samples = 2 */
    p = varint_write(p, sample_len);
    memcpy(p, sample, sample_len);
    return p + sample_len;
}

struct slice load_body(struct load *load, uint64_t round, uint64_t first, uint64_t count,
                       size_t *raw_len_out) {
    uint8_t *p = load->raw;
    for (uint64_t i = first; i < first + count; i++) {
        series_step(&load->states[i], load, i, round);
        p = series_put(p, load, &load->states[i], i, round);
    }
    size_t raw_len = (size_t)(p - load->raw), packed_len = load->packed_max;
    if (snappy_compress((const char *)load->raw, raw_len, load->packed, &packed_len) != SNAPPY_OK) {
        fprintf(stderr, "load: snappy cannot compress\n");
        exit(1);
    }
    *raw_len_out = raw_len;
    return slice_of(load->packed, packed_len);
}
