/* hidden.h: what deletes hide in the head: ranges of time by slot.
 *
 * A series' samples in the head are in the order of time and of the log at once, so "logged before the
 * delete" is "not newer than the newest when it was applied", and a range that ends there says it all. What
 * comes later for the same times is late, and not in the head. The ranges belong to the head's state: what
 * keeps the head keeps them (hidden_slot_each), what cuts it to a block leaves out what they hide.
 *
 * One thread adds and forgets (the one that applies the log); any thread asks. The lock is held for one
 * series. While nothing is hidden, asking costs one load. */
#ifndef TIDALITE_STORAGE_HIDDEN_H
#define TIDALITE_STORAGE_HIDDEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/batch.h"
#include "base/status.h"
#include "storage/tombstone/tombstone.h"

struct hidden;

int hidden_new(struct hidden **out);
void hidden_free(struct hidden *hidden);

/* Hides the span of the slot too. STATUS_NO_MEMORY leaves all as it was. */
int hidden_add(struct hidden *hidden, uint32_t slot, struct span span);

/* Forgets what ends before `end_ms` of the slots [slot, slot + slots), both multiples of HIDDEN_SLOTS: it is
 * in blocks now, which were written without it. */
#define HIDDEN_SLOTS 64u
void hidden_forget(struct hidden *hidden, uint32_t slot, uint32_t slots, int64_t end_ms);

/* How many slots have something hidden. */
size_t hidden_count(const struct hidden *hidden);

/* Does the slot have anything hidden that touches [min, max]? Is the time hidden? */
bool hidden_touches(struct hidden *hidden, uint32_t slot, int64_t min_ms, int64_t max_ms);
bool hidden_holds(struct hidden *hidden, uint32_t slot, int64_t time_ms);

/* Takes what is hidden of the slot out of the columns behind `from`. */
void hidden_filter(struct hidden *hidden, uint32_t slot, struct sample_columns *columns, size_t from);

/* Calls `each` for every span of the slot; a negative return stops and is returned. The applying thread. */
int hidden_slot_each(struct hidden *hidden, uint32_t slot, int (*each)(void *context, struct span span),
                     void *context);

/* Bytes of memory. */
uint64_t hidden_memory_bytes(const struct hidden *hidden);

#endif
