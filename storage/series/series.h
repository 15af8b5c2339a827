/* series.h: which series there are: label bytes → slot, and which slots satisfy matchers.
 *
 * A *slot* is a series' number in memory, dense, and used again some time after its series was retired. Its
 * *id* is 64 bits and never reused in a data directory. Labels are interned as *pairs* (a name with a value,
 * as label bytes), which are numbered likewise; a series is a list of pair numbers in name order, and each
 * pair knows the slots that carry it (its postings).
 *
 * Locks, in this order: index lock (read: queries, for a bounded slice of work each time, and never while a
 * pattern runs; write: creation and retirement of series, taking changes) → a stripe of the table, for one
 * probe. Finding a known series takes only its stripe's lock. Nothing is held across I/O or a callback,
 * is_silent and retired excepted.
 *
 * *Pins*: whoever keeps slots, or slices that were lent, over more than one call holds a pin. What a pin may
 * have seen is not freed or used again before it is given back. A pin blocks nobody but series_retire_step.
 * One thread that itself calls series_retire_step, and slots with samples, need none. */
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

/* Never blocks; give it back with the value that it returned. Any thread. */
unsigned series_pin(struct series_table *table);
void series_unpin(struct series_table *table, unsigned pin);

/* The keyed hash of label bytes. */
uint64_t series_hash(const struct series_table *table, struct slice labels);

/* The slot of the series with exactly these label bytes, or SLOT_NONE. Any thread, pinned. */
uint32_t series_find(struct series_table *table, uint64_t hash, struct slice labels);

/* The same for `count` label sets, of which some are on their way from memory while others are compared. */
#define SERIES_FIND_MANY 32
void series_find_many(struct series_table *table, const struct slice *labels, size_t count,
                      uint32_t *slots_out);

/* Finds or makes the series of well-formed `labels`, which need not be canonical. With a fault, *fault_out
 * says which and no series is made. `id` 0 takes the next free one; another is used as given (replay).
 * `scratch` is for the work inside. STATUS_NO_MEMORY; STATUS_BUSY when series_max is reached. Any thread,
 * pinned. */
int series_ensure(struct series_table *table, struct slice labels, uint64_t id, struct arena *scratch,
                  enum label_fault *fault_out, uint32_t *slot_out);

/* How many series there are, retired ones excluded; and: all slots are below it. Any thread. */
uint32_t series_count(struct series_table *table);
uint32_t series_slot_end(struct series_table *table);

uint64_t series_id(struct series_table *table, uint32_t slot);

/* Ids from here on were never given out; and: none below `id` may be given out any more. */
uint64_t series_id_next(struct series_table *table);
void series_id_next_set(struct series_table *table, uint64_t id);

/* <0, 0, >0: by canonical label bytes. */
int series_labels_order(struct series_table *table, uint32_t a, uint32_t b);

/* Appends the canonical label bytes of the slot. */
void series_labels_append(struct series_table *table, uint32_t slot, struct buf *buf);
size_t series_labels_len(struct series_table *table, uint32_t slot);

/* Its labels in name order (at most `max`); borrowed while pinned. */
size_t series_labels(struct series_table *table, uint32_t slot, struct label *out, size_t max);

/* Of its labels those with one of these names (at most `max`), in name order; borrowed while pinned. */
size_t series_labels_named(struct series_table *table, uint32_t slot, const struct slice *names,
                           size_t name_count, struct label *out, size_t max);

/* One label's value, or an empty slice; borrowed while pinned. */
struct slice series_label(struct series_table *table, uint32_t slot, struct slice name);

/* Slots that satisfy all matchers, ascending, in an array from mem_alloc that the caller frees. Any thread,
 * pinned since before the call and as long as the slots are used. STATUS_NO_MEMORY. */
int series_match(struct series_table *table, const struct matcher *matchers, size_t count,
                 uint32_t **slots_out, size_t *count_out);

/* The same a few slots at a time, for a thread that has no time for all at once. Each distinct label pair is
 * judged once. Matchers are borrowed until series_walk_close; one thread at a time, pinned since before
 * series_walk_open; no series_retire_step meanwhile. STATUS_NO_MEMORY. */
struct series_walk;
int series_walk_open(struct series_table *table, const struct matcher *matchers, size_t count,
                     struct series_walk **out);
void series_walk_close(struct series_walk *walk); /* NULL is fine */

/* Looks at the next up to `max` (SERIES_WALK_MAX at most) slots from *from on, 0 at first, and moves *from
 * behind them. Stores those that satisfy all matchers, ascending; returns how many. *more: call again. */
#define SERIES_WALK_MAX 1024u
size_t series_walk_next(struct series_walk *walk, uint32_t *from, uint32_t *slots, size_t max, bool *more);

/* Does this one? */
bool series_walk_meets(struct series_walk *walk, uint32_t slot);

/* Calls `each` for every label name, or every value of a name, that a series has; unordered, without any
 * lock. A value may come in several calls, with different slots; `each` returns SERIES_EACH_ENOUGH to get no
 * more of this value. A negative return stops and is returned. The slices are borrowed while pinned, slots
 * during the call. Any thread, pinned. */
#define SERIES_EACH_ENOUGH 1
int series_each_name(struct series_table *table, int (*each)(void *context, struct slice name),
                     void *context);
int series_each_value(struct series_table *table, struct slice name,
                      int (*each)(void *context, struct slice value, const uint32_t *slots,
                                  size_t slot_count),
                      void *context);

/* ---- Retiring series that fell silent -----------------------------------------------------------------
 *
 * A pass goes over all slots: those without samples are marked; when all pins of that time are gone and
 * nobody has looked one up since, it leaves the table and the postings; when the pins of that time are gone
 * too, its memory is free, and that of pairs that no series has any more. Its slot is used again only after
 * series_slots_release. */

struct series_retire_sink {
    bool (*is_silent)(void *context, uint32_t slot); /* no sample of it is kept outside of blocks */
    void (*retired)(void *context, uint32_t slot);   /* it left; nobody looks it up any more; may be NULL */
    void *context;
};

enum series_retire_state {
    SERIES_RETIRE_MORE,  /* call again */
    SERIES_RETIRE_WAITS, /* for pins: call again later */
    SERIES_RETIRE_DONE   /* the pass is over; the next call begins another one */
};

/* Does a slice of a pass: looks at up to `slots` slots, or takes up to a quarter as many out. The thread that
 * applies samples alone, between two groups: what is_silent says must stay true during the call, but for
 * samples whose writer holds a pin. Cannot fail. */
enum series_retire_state series_retire_step(struct series_table *table, const struct series_retire_sink *sink,
                                            uint32_t slots);

/* The slots that are free by now may be used again: whoever names series by their slot, as a segment of the
 * log does, has begun anew. Any thread. */
void series_slots_release(struct series_table *table);

/* ---- Numbers: for snapshots ---------------------------------------------------------------------------
 *
 * Slots and pairs are numbered from 0 on, densely; a number keeps its meaning while it is in use. The table
 * notes the numbers whose meaning *changed*: made, used again, or free. A snapshot's label part is a sequence
 * of definitions, "pair 7 is a=b", "slot 9 is series 1234 with pairs 3, 7, 8", "slot 9 is nobody", of which a
 * later one replaces an earlier one:
 *
 *     between two groups, in slices, without a series_retire_step in between:
 *         series_changed_slots until it returns 0, then series_changed_pairs until it returns 0
 *         (all pairs of a slot that was taken have been taken then, now or in a snapshot before)
 *     from then on a number that changes is for the next snapshot.
 *
 * If they could not be written, or the file is to be written anew without what is dead, series_changed_all
 * first: then all that is in use is taken again. */

/* Removes up to `max` of the lowest changed numbers and stores them ascending; returns how many. */
size_t series_changed_slots(struct series_table *table, uint32_t *out, size_t max);
size_t series_changed_pairs(struct series_table *table, uint32_t *out, size_t max);

/* Everything in use counts as changed. STATUS_NO_MEMORY: perhaps only a part. */
int series_changed_all(struct series_table *table);

/* All pair numbers are below it. */
uint32_t series_pair_end(struct series_table *table);

/* The label bytes of one label: a pair's. Empty: the number is free. Borrowed while pinned, or until the next
 * series_retire_step. */
struct slice series_pair(struct series_table *table, uint32_t pair);

/* The pair numbers of a series in name order; NULL if the slot is nobody's. Borrowed likewise. */
const uint32_t *series_pairs(struct series_table *table, uint32_t slot, uint32_t *count_out);

struct series_load_entry {
    uint64_t id;
    const uint32_t *pairs; /* in name order */
    uint32_t pair_count;   /* 0: the slot is free */
};

struct series_load {
    const struct slice *pairs; /* by number: label bytes of one label each; an empty slice: free */
    uint32_t pair_end;
    const struct series_load_entry *series; /* by slot */
    uint32_t slot_end;
    unsigned threads; /* how many may be used, the caller's included */
};

/* Fills an empty table that nobody else uses yet; slots and pairs get the numbers they have in `load`, which
 * is copied. Nothing of it counts as changed. Everything is checked: STATUS_CORRUPT with a line in `detail`
 * if it is no set of different canonical series; STATUS_NO_MEMORY. After an error the table is only good for
 * series_table_free. */
int series_load(struct series_table *table, const struct series_load *load, struct error_detail *detail);

/* ---- Statistics --------------------------------------------------------------------------------------- */

struct series_stat {
    struct slice name;
    struct slice value; /* of by_pair only */
    uint64_t count;
};

struct series_stats {
    uint64_t series;
    uint64_t pairs;
    /* each at most `limit`, descending: */
    struct series_stat *by_metric; /* series of a metric name */
    size_t by_metric_count;
    struct series_stat *by_name; /* values of a label name */
    size_t by_name_count;
    struct series_stat *by_name_bytes; /* bytes of a name's pairs in all series, each for itself */
    size_t by_name_bytes_count;
    struct series_stat *by_pair; /* series of a pair */
    size_t by_pair_count;
};

/* Counted in slices: what changes meanwhile may count or not. Texts and arrays are in `arena`.
 * STATUS_NO_MEMORY. Any thread. */
int series_stats(struct series_table *table, size_t limit, struct arena *arena, struct series_stats *out);

/* Bytes by structure, allocator's slack included. Any thread. */
struct series_memory {
    uint64_t entries;     /* id and place of the pair list, by slot */
    uint64_t pair_lists;  /* pair numbers of each series */
    uint64_t series_hash; /* labels → slot */
    uint64_t pairs;       /* structs of pairs, names */
    uint64_t label_bytes; /* text of pairs and names */
    uint64_t pair_hash;   /* label bytes → pair */
    uint64_t postings;    /* pair → slots, name → pairs */
    uint64_t total;
};
void series_memory(struct series_table *table, struct series_memory *out);

#endif
