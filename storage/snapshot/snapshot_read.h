/* snapshot_read.h: what stands in the frames of a snapshot and of its labels, piece by piece: for whoever
 * loads, checks or shows it. Every length is checked; what is given out is borrowed from the payload. Byte
 * tables: docs/format/snapshot.md. */
#ifndef TIDALITE_STORAGE_SNAPSHOT_READ_H
#define TIDALITE_STORAGE_SNAPSHOT_READ_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/batch.h"
#include "base/slice.h"
#include "base/status.h"

#define SNAPSHOT_NUMBER_MAX (1u << 30) /* a slot or pair above it is no number of ours */

/* One definition of the label part. */
struct snapshot_label {
    uint32_t tag;    /* LABELS_… (snapshot_format.h) */
    uint32_t number; /* of the pair, or the slot */
    struct slice label;
    uint64_t id; /* of the slot's series, and its pairs: */
    uint32_t *pairs;
    uint32_t pair_count;
};

/* Takes the first from *payload; `pairs` are from `numbers`. STATUS_END, STATUS_CORRUPT, STATUS_NO_MEMORY. */
int snapshot_label_next(struct slice *payload, struct arena *numbers, struct snapshot_label *out);

/* A slice of slots [first, end): what was logged below `position` is in it. */
struct snapshot_slice {
    uint64_t position;
    uint32_t first;
    uint32_t end;
    struct slice rest;
};

struct snapshot_series {
    uint32_t slot;
    uint64_t id;
    struct slice head; /* head_state_read's bytes; empty: none */
    const uint8_t *late;
    uint32_t late_count;
    const uint8_t *hidden;
    uint32_t hidden_count;
};

int snapshot_slice_read(struct slice payload, struct snapshot_slice *out); /* STATUS_CORRUPT */

/* Takes the next series; STATUS_END, STATUS_CORRUPT. */
int snapshot_series_next(struct snapshot_slice *slice, struct snapshot_series *out);

struct sample snapshot_late_at(const struct snapshot_series *series, uint32_t index, int64_t *start_ms);
void snapshot_hidden_at(const struct snapshot_series *series, uint32_t index, int64_t *min_ms,
                        int64_t *max_ms);

struct snapshot_end {
    uint64_t position; /* the log is replayed from here on */
    int64_t cut_ms;
    uint64_t late_position;
    uint64_t id_next;
    uint32_t slot_end;
    uint32_t window_count;
    const uint8_t *windows;
};

int snapshot_end_read(struct slice payload, struct snapshot_end *out); /* STATUS_CORRUPT */
void snapshot_window_at(const struct snapshot_end *end, uint32_t index, int64_t *begin_ms,
                        uint64_t *position);

#endif
