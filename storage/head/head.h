/* head.h: the samples in memory, by slot: one open chunk a series and the chunks sealed before it.
 *
 * One thread applies (head_apply), in log order; any thread reads. Each series has a lock of one byte, held
 * for one append or for one copy of an open chunk. Sealed bytes never change and stay until head_free, so
 * readers use them without it.
 *
 * What is new, equal, late or conflicting is decided here and nowhere else, from durable samples only, so
 * that replay decides the same. */
#ifndef TIDALITE_STORAGE_HEAD_H
#define TIDALITE_STORAGE_HEAD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/batch.h"
#include "base/status.h"

/* A chunk never spans a multiple of this, so that windows can be cut into blocks. */
#define HEAD_WINDOW_MS INT64_C(7200000)

struct head;

int head_new(struct head **out);
void head_free(struct head *head);

enum head_verdict {
    HEAD_STORED,
    HEAD_EQUAL,        /* there already, bit for bit */
    HEAD_OUT_OF_ORDER, /* older than the newest of its series, and not equal to a stored one */
    HEAD_CONFLICT      /* same time as the newest, another value */
};

/* Applies one sample. On HEAD_CONFLICT *existing_bits is the stored value. The slot's place is made if
 * needed. STATUS_NO_MEMORY leaves the series as it was. The applying thread only. */
int head_apply(struct head *head, uint32_t slot, struct sample sample, int64_t start_ms,
               enum head_verdict *verdict, uint64_t *existing_bits);

/* Does the series have a sample, and may it have one in [min, max]? Any thread. */
bool head_overlaps(struct head *head, uint32_t slot, int64_t time_min_ms, int64_t time_max_ms);

/* Appends its samples in [min, max], ascending. STATUS_NO_MEMORY, STATUS_CORRUPT. Any thread. */
int head_read(struct head *head, uint32_t slot, int64_t time_min_ms, int64_t time_max_ms,
              struct sample_columns *columns);

/* Chunk bytes and per-series structs. Any thread, approximate while samples are applied. */
uint64_t head_memory_bytes(struct head *head);

/* Oldest and newest sample of all; INT64_MAX, INT64_MIN while there are none. Any thread. */
void head_range(struct head *head, int64_t *time_min_ms, int64_t *time_max_ms);

#endif
