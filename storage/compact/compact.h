/* compact.h: several blocks into one, and which ones.
 *
 * Merging. Series are merged in block order, a series' samples in time order. Of samples with the same time
 * the one of the first input that has it stays: callers give inputs in the order in which they were logged.
 * Deletes are applied to each input's samples before anything is compared, so that a deleted sample hides
 * none. A chunk that is full enough, that no other overlaps and no delete touches, is copied bit for bit;
 * everything else is decoded and encoded anew into chunks of up to CHUNK_SAMPLES_MAX samples that do not
 * overlap.
 *
 * A chunk of the result has the highest log position of what is in it.
 *
 * Nothing is merged that is damaged: what is lost in a block stays lost there, and is told of by every answer
 * that touches it; a merge would hide that. A damaged piece ends the merge with STATUS_CORRUPT, and the
 * planner is to be told (compact_block.is_held). */
#ifndef TIDALITE_STORAGE_COMPACT_H
#define TIDALITE_STORAGE_COMPACT_H

#include "storage/block/block.h"
#include "storage/tombstone/tombstone.h"

/* ---- Merging ------------------------------------------------------------------------------------------ */

#define COMPACT_INPUTS_MAX 64

struct compact_input {
    struct block *block; /* borrowed until compact_close */
    /* The times at which the series' samples are deleted: sorted, none touches another; borrowed until
     * compact_close. NULL: nothing is. */
    size_t (*deleted)(void *context, uint32_t ordinal, const struct span **spans_out);
    void *context;
};

struct compact_options {
    struct io *io;   /* for the new block; borrowed until compact_close */
    const char *dir; /* of the new block, made here; copied */
    uint64_t id;
    uint64_t salt; /* random */
    const struct compact_input *inputs;
    size_t input_count; /* 1 … COMPACT_INPUTS_MAX; the array is copied */
};

struct compact_stats {
    uint64_t samples_in;
    uint64_t samples_out;
    uint64_t samples_deleted;
    uint64_t samples_duplicate; /* equal to one that stayed */
    uint64_t samples_conflict;  /* of the same time as one that stayed, and different */
    uint64_t chunks_copied;
    uint64_t chunks_encoded;
    uint64_t bytes_read;    /* of chunks */
    uint64_t bytes_written; /* of all files; complete after STATUS_END */
};

struct compact;

/* Prepares the inputs (block_prepare) and begins the new block. Errors of block_writer_open and of
 * block_prepare. */
int compact_open(const struct compact_options *options, struct error_detail *detail, struct compact **out);

/* A slice of work, some milliseconds, also inside of a long series: STATUS_OK as long as there is more to do,
 * STATUS_END when the block is whole and durable, or nothing was left to be written; else STATUS_CORRUPT,
 * STATUS_IO, STATUS_NO_SPACE, STATUS_NO_MEMORY, after which it can only be closed. *done_out, if not NULL, is
 * the part done of 1000. May block for its reads and writes. */
int compact_step(struct compact *compact, unsigned *done_out, struct error_detail *detail);

/* As block_writer_meta. series_count is 0: nothing was left, and there is no block. Borrowed until close. */
const struct block_meta *compact_meta(const struct compact *compact);
const struct compact_stats *compact_stats(const struct compact *compact);

/* Bytes held now: those of the writer (below 20 MiB), and at most three times the encoded bytes of the series
 * being merged. */
uint64_t compact_memory_bytes(const struct compact *compact);

/* Ends it, done or not: what is not finished is removed. NULL is fine. */
void compact_close(struct compact *compact);

/* ---- Planning ----------------------------------------------------------------------------------------- */

/* What the planner must know of a block. */
struct compact_block {
    uint64_t id;
    int64_t time_min_ms;
    int64_t time_max_ms;
    uint64_t
        position; /* the later logged, the higher; of equal ones the one that stands first in the array */
    uint64_t bytes;
    bool is_held; /* not to be touched: damaged, or in use by another job */
};

struct compact_rules {
    int64_t window_ms;    /* of a block cut from the head */
    int64_t range_ms_max; /* of a merged block; compact_range_max */
    int64_t cut_ms;       /* windows that end here or before are in blocks */
    /* Is data for [begin, end) still on its way to a block of its own? NULL: never. */
    bool (*is_busy)(void *context, int64_t begin_ms, int64_t end_ms);
    void *context;
};

/* Blocks may grow to this: a tenth of the retention (0: forever), at most 31 days, at least a window. */
int64_t compact_range_max(int64_t window_ms, int64_t retention_ms);

/* Chooses blocks to be merged next, into chosen_out (room for COMPACT_INPUTS_MAX indexes of `blocks`), in the
 * order in which they were logged; 0: nothing is to be done. The caller leaves out blocks past retention:
 * they are dropped, not merged.
 *
 * 1. Blocks that overlap are read together by every query of their time: as soon as the later ones weigh a
 *    quarter of the one below, they are merged. So each byte is rewritten a few times, not once for each late
 *    sample, and a time is covered by few blocks. Many light ones over a heavy one are merged with each
 * other.
 * 2. Levels: windows of 3, 9, 27 … times the head's, aligned, up to range_ms_max. Blocks side by side in such
 *    a window are merged once the window lies a while behind cut_ms; a while longer if late data for it is
 *    still coming.
 *
 * What is merged never reaches over a block that was logged between: its samples would change places with
 * those. */
size_t compact_plan(const struct compact_block *blocks, size_t count, const struct compact_rules *rules,
                    size_t *chosen_out);

#endif
