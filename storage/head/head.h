/* head.h: the samples of the newest windows, by slot: one open chunk a series in memory, and the chunks
 * sealed before it in the chunk log (storage/chunklog/chunklog.h), of which the series remembers the newest.
 *
 * One thread applies and drops (head_apply, head_drop), in log order; any thread reads. Each series has a
 * lock of one byte, held for one append or for copying an open chunk. Sealed chunks never change, so readers
 * use them without it, and stay until head_drop.
 *
 * Time is cut into windows, multiples of window_ms; no chunk spans two. Once a window is in a block its
 * chunks are dropped. Whoever reads from then on must not ask for times before that (storage gives each
 * selection the boundary that goes with its blocks), and whoever reads since before must have ended. */
#ifndef TIDALITE_STORAGE_HEAD_H
#define TIDALITE_STORAGE_HEAD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/batch.h"
#include "base/buf.h"
#include "base/slice.h"
#include "base/status.h"
#include "storage/chunk/chunk.h"
#include "storage/chunklog/chunklog.h"

struct head;

struct head_options {
    int64_t window_ms;
    struct chunklog *chunklog; /* borrowed until head_free */
    /* The partition of the chunk log that a slot's chunks go to: slots of one shard of a block together. */
    unsigned (*partition)(void *context, uint32_t slot);
    void *context;
    /* Of all open chunks together: each is sealed before it outgrows its share, and a share is 128 bytes at
     * least and 2,048 at most. */
    uint64_t open_bytes_max;
};

int head_new(const struct head_options *options, struct head **out);
void head_free(struct head *head);

/* Windows that end at `over_ms` or before are over: their chunks share a file of the chunk log. The applying
 * thread. */
void head_over(struct head *head, int64_t over_ms);

enum head_verdict {
    HEAD_STORED,
    HEAD_EQUAL,   /* there already, bit for bit */
    HEAD_LATE,    /* before cut_ms; or older than the newest of its series, and none of that time is here */
    HEAD_CONFLICT /* one of the same time is here, with another value */
};

/* Applies one sample; one before cut_ms is never stored nor looked for. On HEAD_CONFLICT *existing_bits is
 * the stored value. The slot's place is made if needed. STATUS_NO_MEMORY leaves the series as it was. The
 * applying thread only. */
int head_apply(struct head *head, uint32_t slot, struct sample sample, int64_t start_ms, int64_t cut_ms,
               enum head_verdict *verdict, uint64_t *existing_bits);

/* Hints to the processor that the slot is about to be applied to: its series, and some dozen instructions
 * later the end of its open chunk. The applying thread only. */
void head_prefetch(struct head *head, uint32_t slot);
void head_prefetch_chunk(struct head *head, uint32_t slot);

/* May the series have a sample in [min, max]? Only a gap between two chunks' ends says yes for no. Any
 * thread. */
bool head_overlaps(struct head *head, uint32_t slot, int64_t time_min_ms, int64_t time_max_ms);

/* Is a sample of that time older than one in its series' open chunk? Any thread. */
bool head_is_late(struct head *head, uint32_t slot, int64_t time_ms);

/* The time of its newest sample; false if it has none. Any thread. */
bool head_slot_last(struct head *head, uint32_t slot, int64_t *time_ms);

/* Sealed chunks that could not be read, and are passed over. */
struct head_damage {
    unsigned count;
    chunk_ref ref; /* of the first */
};

/* Appends its samples in [min, max], ascending; `time_min_ms` is not before the last head_drop's end.
 * STATUS_NO_MEMORY. Any thread. */
int head_read(struct head *head, uint32_t slot, int64_t time_min_ms, int64_t time_max_ms,
              struct sample_columns *columns, struct head_damage *damage_out);

/* The newest sample of the series' open chunk into *out, if it is in [min, max]. Any thread. */
bool head_read_newest(struct head *head, uint32_t slot, int64_t time_min_ms, int64_t time_max_ms,
                      struct sample *out);

/* ---- cutting a window ---- */

struct head_chunk {
    int64_t time_min_ms;
    int64_t time_max_ms;
    struct chunk_info info;
    struct slice bits;
};

/* The series' chunks in [begin, end) of time, both ends of a window, oldest first, behind *count of `*chunks`
 * (grown by mem_realloc). Bits of sealed chunks are borrowed until head_drop; those of an open one are copied
 * to `open_bits`. Nothing may be applied to the series before end_ms meanwhile. *damage_out as by head_read.
 * Any thread. STATUS_NO_MEMORY. */
int head_chunks(struct head *head, uint32_t slot, int64_t begin_ms, int64_t end_ms,
                struct head_chunk **chunks, size_t *count, size_t *capacity, struct buf *open_bits,
                struct head_damage *damage_out);

/* Forgets the chunks that end before `end_ms` of the slots from `slot` on, of at most `slots` of them;
 * returns the next slot, or UINT32_MAX at the end: then the chunk log may drop them, and the oldest sample of
 * all is at `oldest_ms` or later. The applying thread only. */
uint32_t head_drop(struct head *head, uint32_t slot, uint32_t slots, int64_t end_ms, int64_t oldest_ms);

/* ---- snapshots: the applying thread, or nobody else around ---- */

/* Does the series have anything? Then head_state_write appends its state to `out`: what a restart needs
 * beside the chunk log. */
bool head_state_write(struct head *head, uint32_t slot, struct buf *out);

/* Takes a state from the front of *bytes; what ends before `cut_ms` is passed over. The slot's series is
 * empty. STATUS_CORRUPT, STATUS_NO_MEMORY. */
int head_state_read(struct head *head, uint32_t slot, int64_t cut_ms, struct slice *bytes);

/* What a state says, without a head. */
struct head_state {
    chunk_ref sealed;       /* the newest sealed chunk */
    int64_t open_first_ms;  /* time of the open chunk's first sample */
    struct chunk_open open; /* empty: none; its bits are: */
    struct slice bits;
};

/* Takes a state from the front of *bytes. STATUS_CORRUPT. */
int head_state_look(struct slice *bytes, struct head_state *out);

/* The slot's series left: what comes for the slot from now on is another's. It has no samples behind the end
 * of what was dropped. The applying thread only. */
void head_forget(struct head *head, uint32_t slot);

/* Any thread, approximate while samples are applied. */
struct head_memory {
    uint64_t series_bytes; /* structs, by slot */
    uint64_t chunk_bytes;  /* open chunks, free pieces included */
    uint64_t open_chunks;  /* how many */
};
void head_memory(struct head *head, struct head_memory *out);

/* Oldest (at least: see head_drop) and newest sample of all; INT64_MAX, INT64_MIN while there are none. Any
 * thread. */
void head_range(struct head *head, int64_t *time_min_ms, int64_t *time_max_ms);

#endif
