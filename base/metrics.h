/* metrics.h: the program's own numbers, declared in metrics.def. Updates are relaxed atomics: cheap, from any
 * thread, per request or per group and never per sample. */
#ifndef TIDALITE_BASE_METRICS_H
#define TIDALITE_BASE_METRICS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

enum metric_id {
#define COUNTER(id, name, labels, help)   METRIC_##id,
#define GAUGE(id, name, labels, help)     METRIC_##id,
#define HISTOGRAM(id, name, labels, help) METRIC_##id,
#include "base/metrics.def"
#undef COUNTER
#undef GAUGE
#undef HISTOGRAM
    METRIC_COUNT
};

/* Counters and gauges. */
void metric_add(enum metric_id id, uint64_t by);
void metric_sub(enum metric_id id, uint64_t by); /* gauges only */
void metric_set(enum metric_id id, uint64_t value);
uint64_t metric_get(enum metric_id id);

/* Histograms: one observation, in nanoseconds. */
void metric_observe_ns(enum metric_id id, uint64_t ns);

/* Zeroes everything; for tests. */
void metrics_reset(void);

/* Appends all of them as Prometheus text exposition (version 0.0.4), process_* included
 * (process_resident_memory_bytes, process_cpu_seconds_total, process_open_fds, process_start_time_seconds).
 */
void metrics_print(struct buf *buf);

/* Appends those that `wanted` (NULL: all) says yes to as a JSON array of io.prometheus.client.MetricFamily.
 */
void metrics_json_print(bool (*wanted)(const void *context, const char *name), const void *context,
                        struct buf *buf);

#endif
