/* batch.h: what a write request says, between the decoder that reads it (proto/) and the storage that keeps
 * it. Neither knows the other. */
#ifndef TIDALITE_BASE_BATCH_H
#define TIDALITE_BASE_BATCH_H

#include <stddef.h>
#include <stdint.h>

#include "base/slice.h"

/* Absence of a start timestamp. */
#define START_NONE 0

/* The bits of Prometheus' stale marker, a NaN of its own (prometheus/model/value). */
#define STALE_NAN_BITS  UINT64_C(0x7ff0000000000002)
#define NORMAL_NAN_BITS UINT64_C(0x7ff8000000000001)

struct sample {
    int64_t time_ms;     /* Unix time */
    uint64_t value_bits; /* of the double; bits, so that NaN payloads and -0 survive */
};

struct batch_series {
    struct slice labels;   /* well-formed label bytes (label.h), not yet canonical */
    uint32_t sample_first; /* index of its first sample in write_batch.samples */
    uint32_t sample_count; /* may be 0 */
};

/* One decoded request. All memory belongs to whoever made it; `labels` may borrow from the request's body,
 * so the body lives as long. A series may stand in it more than once. */
struct write_batch {
    struct batch_series *series;
    size_t series_count;
    struct sample *samples;
    size_t sample_count;
    int64_t *starts_ms; /* parallel to samples, START_NONE where absent; NULL if no sample has one */

    /* Seen and not in this batch: */
    uint64_t histogram_count; /* native histogram samples */
    uint64_t exemplar_count;
    uint64_t metadata_count;
};

/* Columns of one series' samples, ascending in time: what storage hands to queries. Memory is the holder's:
 * zero it first, reuse it, and end with sample_columns_release. */
struct sample_columns {
    int64_t *times_ms;
    double *values;
    int64_t *starts_ms; /* START_NONE where absent; meaningful only if has_starts */
    size_t count;
    size_t capacity;
    int has_starts;
};

/* Room for `more` samples behind count in all three columns: STATUS_OK or STATUS_NO_MEMORY. */
int sample_columns_reserve(struct sample_columns *columns, size_t more);
void sample_columns_release(struct sample_columns *columns);

#endif
