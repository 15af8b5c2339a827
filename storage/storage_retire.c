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
    head_forget(((struct storage *)context)->head, slot);
}

bool storage__retire_serve(struct storage *storage) {
    if (!storage->retire_due)
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
