/* late.h: late samples in memory, by window of time, until they are written to a block.
 *
 * A sample is late if its series has a newer one, or if its window was cut into a block already. It goes to
 * the window that holds its time; in there each series has sorted runs that double in length, so that a
 * million samples in any order cost a million times log n, and finding one log² n.
 *
 * One thread changes it (the one that applies the log); any thread may read: all calls
 * take the one lock, for one sample or for copying one series. A *sealed* window takes no more samples: it is
 * being written to a block, and what comes for its time goes to a new one. */
#ifndef TIDALITE_STORAGE_LATE_H
#define TIDALITE_STORAGE_LATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/batch.h"
#include "base/status.h"

struct late;
struct late_window;

int late_new(struct late **out);
void late_free(struct late *late);

enum late_verdict { LATE_STORED, LATE_EQUAL, LATE_CONFLICT };

/* Adds a sample of the series in `slot`, logged at `position`. The window is the one that holds its time; a
 * new one is [begin, end) of `range`, or if that overlaps another, [begin, end) of `range_small`, which holds
 * the time too and never overlaps in part. STATUS_NO_MEMORY leaves all as it was. */
struct late_range {
    int64_t begin_ms;
    int64_t end_ms;
};
int late_add(struct late *late, uint32_t slot, struct sample sample, int64_t start_ms, uint64_t position,
             struct late_range range, struct late_range range_small, enum late_verdict *verdict,
             uint64_t *existing_bits);

/* Takes out the series' samples in [min, max], of sealed windows too; returns how many. */
uint64_t late_delete(struct late *late, uint32_t slot, int64_t time_min_ms, int64_t time_max_ms);

/* Appends the series' samples in [min, max] of all windows, those in each window ascending; where windows
 * follow each other in time so do their samples. Any thread. *runs_out: how many ascending pieces that are.
 */
int late_read(struct late *late, uint32_t slot, int64_t time_min_ms, int64_t time_max_ms,
              struct sample_columns *columns);

/* Has the series a sample in [min, max]? Any thread. */
bool late_overlaps(struct late *late, uint32_t slot, int64_t time_min_ms, int64_t time_max_ms);

/* Calls `each` for every window that has samples of the series; `columns` are its samples, ascending, for the
 * call. A negative return stops and is returned. The applying thread. STATUS_NO_MEMORY. */
int late_each(struct late *late, uint32_t slot,
              int (*each)(void *context, const struct sample_columns *columns), void *context);

/* ---- Windows; the applying thread ---- */

struct late_info {
    struct late_range range;
    uint64_t position_first; /* where in the log its oldest sample stands */
    int64_t since_ms;        /* when it was made, as late_add's caller tells by late_now */
    uint64_t sample_count;
    uint64_t bytes;
    bool sealed;
};

/* What late_info.since_ms is taken from. */
void late_now(struct late *late, int64_t now_ms);

size_t late_count(const struct late *late);
struct late_window *late_at(struct late *late, size_t index);
void late_info(const struct late_window *window, struct late_info *out);

/* The window to be written next, of those that end at `end_ms` or before and are not sealed: the oldest if it
 * was made before `since_ms`; else, if all windows hold more than `bytes_max`, the largest. False: none. Any
 * thread. */
bool late_pick(struct late *late, int64_t end_ms, int64_t since_ms, uint64_t bytes_max,
               struct late_info *out);

/* Does a window, sealed or not, reach into [begin, end)? Any thread. */
bool late_touches(const struct late *late, int64_t begin_ms, int64_t end_ms);

/* Takes no more samples from now on; undone by late_unseal, if the block could not be written. */
void late_seal(struct late_window *window);
void late_unseal(struct late_window *window);

/* Frees a sealed window that is in a block now. */
void late_drop(struct late *late, struct late_window *window);

/* The slots that have samples in a sealed window, ascending, in an array from mem_alloc that the caller
 * frees; and one series' samples, ascending. Any thread. */
int late_window_slots(struct late_window *window, uint32_t **slots_out, size_t *count_out);
int late_window_read(struct late_window *window, uint32_t slot, int64_t time_min_ms, int64_t time_max_ms,
                     struct sample_columns *columns);

/* Puts the samples behind `from`, of several windows one after the other, in the order of time.
 * STATUS_NO_MEMORY. */
int late_columns_sort(struct sample_columns *columns, size_t from);

/* The lowest position of any sample held; UINT64_MAX if there is none. */
uint64_t late_position_first(const struct late *late);

/* Bytes of all of it. Any thread. */
uint64_t late_memory_bytes(const struct late *late);

#endif
