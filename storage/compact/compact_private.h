/* compact_private.h: one series' samples out of several inputs. For storage/compact alone. */
#ifndef TIDALITE_STORAGE_COMPACT_PRIVATE_H
#define TIDALITE_STORAGE_COMPACT_PRIVATE_H

#include "storage/compact/compact.h"

/* A chunk of an input. */
struct compact__chunk {
    struct block_chunk_ref ref;
    uint32_t input;
    uint32_t ordinal;
};

/* What is deleted of an input's samples. */
struct compact__holes {
    uint32_t input;
    const struct span *spans;
    size_t count;
};

/* A chunk that is being merged, decoded. */
struct compact__open {
    struct sample_columns columns;
    size_t at;
    size_t order; /* of its chunk among all: the smaller wins */
    bool in_use;
};

/* The merge of one series; its memory is kept for the next. */
struct compact__series {
    const struct compact_input *inputs;
    struct compact_stats *stats;
    uint64_t cost; /* of the work so far: bytes and samples */

    struct compact__chunk *chunks; /* by time_min; among equals by input */
    size_t count, capacity;
    size_t next; /* the next one to be opened or copied */
    struct compact__holes holes[COMPACT_INPUTS_MAX];
    size_t hole_count;

    struct compact__open *opens;
    size_t open_count, open_capacity; /* slots; some are not in use */
    size_t live;                      /* that are */

    struct sample_columns pending; /* merged, not encoded yet */
    uint64_t pending_position;     /* the highest of what is in there */

    struct block_chunk *out; /* `bits` of those that were encoded are offsets in `bits` until the end */
    bool *encoded;
    size_t out_count, out_capacity;
    struct buf bits;
    struct chunk_open encoder; /* its buffer is kept */
};

void compact__series_init(struct compact__series *series, const struct compact_input *inputs,
                          struct compact_stats *stats);
void compact__series_release(struct compact__series *series);

/* Forgets the last one. */
void compact__series_begin(struct compact__series *series);

/* Adds an input's part of the series, with the deletes that are for it. */
int compact__series_add(struct compact__series *series, uint32_t input, const struct block_series *from);

/* Merges until about `cost_max` more is spent: STATUS_OK if there is more to do, STATUS_END: series->out is
 * complete, borrowed until the next begin. */
int compact__series_step(struct compact__series *series, uint64_t cost_max, struct error_detail *detail);

uint64_t compact__series_memory_bytes(const struct compact__series *series);

#endif
