/* storage_retire.c: series without samples in the head or in late windows leave the series table, in slices
 * between two groups. What was written to blocks of them stays there, and is found by their labels. */
#include "base/metrics.h"
#include "storage/storage_private.h"

#define RETIRE_SLOTS 2048u /* looked at in one slice: about a millisecond */

static bool is_silent(void *context, uint32_t slot) {
    const struct storage *storage = context;
    return !head_overlaps(storage->head, slot, storage->dropped_ms, INT64_MAX) &&
           !late_overlaps(storage->late, slot, INT64_MIN, INT64_MAX);
}

static void retired(void *context, uint32_t slot) {
    struct storage *storage = context;
    head_forget(storage->head, slot);
    slot_bits_remove(&storage->labelled, slot);
    slot_bits_remove(&storage->declared, slot);
    storage->slots_retired++;
}

/* A slot that was released may be used again in the segment that begins. No slot stands for two series in one
 * segment, nor for one in the label part and for another in the log: with the declaration lost to damage, the
 * second one's samples would be taken for the first one's. The first segment may begin with what was carried
 * over, declared before. */
void storage__slots_release(struct storage *storage, uint32_t segment) {
    bool next = storage->slots_segment != SEGMENT_UNKNOWN && storage->slots_segment != segment;
    storage->slots_segment = segment;
    if (!next || storage->slots_retired == 0 ||
        (storage->labelled.capacity > 0 && !storage->slots_unlabelled))
        return;
    series_slots_release(storage->series);
    storage->slots_retired = 0;
    storage->slots_unlabelled = false;
}

void storage__slots_unlabelled(struct storage *storage) {
    storage->slots_unlabelled = storage->slots_retired > 0;
}

bool storage__retire_serve(struct storage *storage) {
    /* A snapshot takes slots and pairs as they are; and what it says is free waits for a new segment. */
    if (!storage->retire_due || storage->slots_unlabelled || storage__snapshot_runs(storage))
        return false;
    const struct series_retire_sink sink = {is_silent, retired, storage};
    switch (series_retire_step(storage->series, &sink, RETIRE_SLOTS)) {
    case SERIES_RETIRE_MORE:
        return true;
    case SERIES_RETIRE_WAITS:
        return false;
    case SERIES_RETIRE_DONE:
        storage->retire_due = false;
        metric_set(METRIC_head_series, series_count(storage->series));
        return true;
    }
    return false;
}
