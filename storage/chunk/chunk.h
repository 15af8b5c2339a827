/* chunk.h: up to CHUNK_SAMPLES_MAX samples of one series as bits: delta-of-delta times, XORed values.
 *
 * Source: Gorilla (Pelkonen et al., VLDB 2015, §4.1) in the bit layout of Prometheus' XOR2 chunk
 * (docs/format/chunk.md gives the table), without XOR2's three header bytes: the sample count and the
 * start-timestamp byte stand beside the bits, in struct chunk_info. A regular unchanged sample costs 1 bit, a
 * stale marker 5, an absent start timestamp none.
 *
 * Lossless for every bit pattern of value, time and start. Times need not ascend for the codec; the head
 * decides order. Not safe for concurrent use of one chunk; no call blocks. */
#ifndef TIDALITE_STORAGE_CHUNK_H
#define TIDALITE_STORAGE_CHUNK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/batch.h"
#include "base/buf.h"
#include "base/slice.h"
#include "base/status.h"

#define CHUNK_SAMPLES_MAX 120

/* What must be known beside the bits to read them. */
struct chunk_info {
    uint8_t sample_count;
    uint8_t start_byte; /* XOR2's: bit 7 = the first sample has a start; bits 0-6 = first index at which it
                           changed, 0 = never */
};

/* A chunk being written: 40 bytes inside its series. `bytes` comes from and goes back to the caller's
 * allocator. */
struct chunk_open {
    uint8_t *bytes;   /* NULL before the first sample; once starts are used, its last 8 hold their state */
    int64_t time_ms;  /* of the last sample */
    int64_t delta_ms; /* between the last two */
    uint64_t baseline_bits; /* the last value that was not stale: what the next is XORed with */
    uint16_t bit_count;     /* written so far */
    uint16_t capacity;      /* bytes at `bytes` */
    uint8_t leading;        /* of the value window; 255 before the first */
    uint8_t trailing;       /* likewise; bit 7: the last sample was a stale marker */
    struct chunk_info info;
};
_Static_assert(sizeof(struct chunk_open) == 40, "one chunk_open per series: its size is a promise");

/* Gives room for at least `bytes` bytes: moves the first `used` bytes of `old` (NULL at first) to a larger
 * place, sets *capacity (at most 65535), frees `old`. NULL: out of memory, `old` untouched. */
typedef uint8_t *(*chunk_grow_fn)(void *context, uint8_t *old, size_t old_capacity, size_t used, size_t bytes,
                                  size_t *capacity);

/* A zeroed chunk_open is empty and ready; one that is zero but for bytes and capacity as well. */
static inline bool chunk_is_empty(const struct chunk_open *chunk) {
    return chunk->info.sample_count == 0;
}

static inline bool chunk_is_full(const struct chunk_open *chunk) {
    return chunk->info.sample_count >= CHUNK_SAMPLES_MAX;
}

/* The bits of the last sample's value (stale markers included); the chunk is not empty. */
uint64_t chunk_last_value_bits(const struct chunk_open *chunk);

/* Appends a sample; the chunk is not full. `start_ms` is START_NONE or the start timestamp.
 * STATUS_NO_MEMORY leaves the chunk as it was. */
int chunk_append(struct chunk_open *chunk, struct sample sample, int64_t start_ms, chunk_grow_fn grow,
                 void *grow_context);

/* The written bits, padded with zero bits to a byte: borrowed, changed by the next append. What chunk_decode
 * reads. */
struct slice chunk_bytes(const struct chunk_open *chunk);

/* Appends the samples with time_min_ms <= time <= time_max_ms to *columns, in chunk order. Checks every
 * length: STATUS_CORRUPT if the bits end early or bytes are left over, STATUS_NO_MEMORY; then *columns keeps
 * its old count. */
int chunk_decode(struct slice bytes, struct chunk_info info, int64_t time_min_ms, int64_t time_max_ms,
                 struct sample_columns *columns);

/* An open chunk as bytes, so that it can be gone on with after a restart: appends to `out`. */
void chunk_state_write(const struct chunk_open *chunk, struct buf *out);

/* Takes one from the front of *bytes; `look` leaves its bits where they are, without room to append.
 * STATUS_CORRUPT, STATUS_NO_MEMORY: *bytes is as it was. */
int chunk_state_look(struct slice *bytes, struct chunk_open *out, struct slice *bits);
int chunk_state_read(struct slice *bytes, chunk_grow_fn grow, void *grow_context, struct chunk_open *out);

#endif
