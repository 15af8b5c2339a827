/* series.h: which series there are: label bytes → slot, and which slots satisfy matchers.
 *
 * A *slot* is a series' number in memory: 0, 1, 2 … in order of creation. Its *id* is 64 bits and never
 * reused in a data directory. Labels are interned as *pairs* (a name with a value, as label bytes); a series
 * is a list of pair ids, and each pair knows the slots that carry it (its postings).
 *
 * Locks, in this order: index lock (read: queries; write: creation of a series) → a stripe of the table.
 * Finding a known series takes only its stripe's lock, for one probe. Nothing is held across I/O. */
#ifndef TIDALITE_STORAGE_SERIES_H
#define TIDALITE_STORAGE_SERIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/label.h"
#include "base/matcher.h"
#include "base/slice.h"
#include "base/status.h"

#define SLOT_NONE UINT32_MAX

struct series_table;

/* `seed` keys the hash, so that crafted labels cannot be made to collide. */
int series_table_new(uint64_t seed, const struct label_limits *limits, uint64_t series_max,
                     struct series_table **out);
void series_table_free(struct series_table *table);

/* The keyed hash of label bytes, and a hint to the processor that it is about to be looked up. */
uint64_t series_hash(const struct series_table *table, struct slice labels);
void series_prefetch(const struct series_table *table, uint64_t hash);

/* The slot of the series with exactly these label bytes, or SLOT_NONE. Any thread. */
uint32_t series_find(struct series_table *table, uint64_t hash, struct slice labels);

/* Finds or makes the series of well-formed `labels`, which need not be canonical. With a fault, *fault_out
 * says which and no series is made. `id` 0 takes the next free one; another is used as given (replay).
 * `scratch` is for the work inside. STATUS_NO_MEMORY; STATUS_BUSY when series_max is reached. Any thread. */
int series_ensure(struct series_table *table, struct slice labels, uint64_t id, struct arena *scratch,
                  enum label_fault *fault_out, uint32_t *slot_out);

/* How many slots there are; all below it may be asked for. */
uint32_t series_count(struct series_table *table);

uint64_t series_id(struct series_table *table, uint32_t slot);

/* Ids from here on were never given out; and: none below `id` may be given out any more. */
uint64_t series_id_next(struct series_table *table);
void series_id_next_set(struct series_table *table, uint64_t id);

/* <0, 0, >0: by canonical label bytes. */
int series_labels_order(struct series_table *table, uint32_t a, uint32_t b);

/* Appends the canonical label bytes of the slot. */
void series_labels_append(struct series_table *table, uint32_t slot, struct buf *buf);
size_t series_labels_len(struct series_table *table, uint32_t slot);

/* Its labels in name order (at most `max`), or one label's value; borrowed for the life of the table. */
size_t series_labels(struct series_table *table, uint32_t slot, struct label *out, size_t max);
struct slice series_label(struct series_table *table, uint32_t slot, struct slice name);

/* Slots that satisfy all matchers, ascending, in an array from mem_alloc that the caller frees.
 * STATUS_NO_MEMORY. */
int series_match(struct series_table *table, const struct matcher *matchers, size_t count,
                 uint32_t **slots_out, size_t *count_out);

/* Calls `each` for every label name, or every value of a name, that any series has; unordered. A negative
 * return stops and is returned. The slices are borrowed for the life of the table. */
int series_each_name(struct series_table *table, int (*each)(void *context, struct slice name),
                     void *context);
int series_each_value(struct series_table *table, struct slice name,
                      int (*each)(void *context, struct slice value, const uint32_t *slots,
                                  size_t slot_count),
                      void *context);

/* Bytes of all of it. */
uint64_t series_memory_bytes(struct series_table *table);

#endif
