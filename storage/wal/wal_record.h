/* wal_record.h: the payloads of log records (docs/format/log.md, "Records").
 *
 * SERIES   varint count, then for each: varint slot, varint id, varint label_len, label bytes (canonical).
 * SAMPLES  varint flags (1 = each sample has a start timestamp), varint count, zigzag base time, then for
 * each sample: zigzag (slot − previous slot − 1) with −1 before the first, zigzag (time − previous time) with
 * the base time before the first, 8 bytes value bits, and with flag 1 a varint: 0 for no start, else the
 * zigzagged (time − start) plus 1 (see the byte table for the one exception).
 *
 * A slot is the series' number inside this log segment's declarations; replay maps it. */
#ifndef TIDALITE_STORAGE_WAL_RECORD_H
#define TIDALITE_STORAGE_WAL_RECORD_H

#include <stddef.h>
#include <stdint.h>

#include "base/batch.h"
#include "base/buf.h"
#include "base/slice.h"
#include "base/status.h"

/* Appends a whole SAMPLES payload: `count` > 0 samples, slots[i] the series of samples[i]; starts_ms NULL or
 * parallel. Failure shows in buf->failed. */
void wal_record_samples_write(struct buf *buf, const uint32_t *slots, const struct sample *samples,
                              const int64_t *starts_ms, size_t count);

/* One declaration; a SERIES payload is wal_record_series_begin(count) followed by that many of these. */
void wal_record_series_begin(struct buf *buf, size_t count);
void wal_record_series_write(struct buf *buf, uint32_t slot, uint64_t id, struct slice labels);

/* Readers: init checks the head of the payload, next yields STATUS_OK, STATUS_END after the last, or
 * STATUS_CORRUPT where the payload is malformed (count wrong, bytes left over, labels not well-formed).
 * Slices borrow. */
struct wal_series_reader {
    const uint8_t *next, *end;
    uint64_t left;
};
int wal_series_reader_init(struct wal_series_reader *reader, struct slice payload);
int wal_series_reader_next(struct wal_series_reader *reader, uint32_t *slot, uint64_t *id,
                           struct slice *labels);

struct wal_samples_reader {
    const uint8_t *next, *end;
    uint64_t left;
    uint64_t flags;
    int64_t time_ms;
    int64_t slot;
};
int wal_samples_reader_init(struct wal_samples_reader *reader, struct slice payload);
int wal_samples_reader_next(struct wal_samples_reader *reader, uint32_t *slot, struct sample *sample,
                            int64_t *start_ms);

#endif
