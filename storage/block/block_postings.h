/* block_postings.h: ascending ordinals as bytes, and as sets of bits. For storage/block alone.
 *
 * Bytes: for each run of neighbouring ordinals, varint (gap << 1 | more), gap = first ordinal - (last ordinal
 * of the run before + 1), the first one's from 0; with `more`, varint (length - 2). So a lone ordinal takes
 * one varint, a run two, and a list that a sorted block makes dense (all series of a metric) a few bytes. */
#ifndef TIDALITE_STORAGE_BLOCK_POSTINGS_H
#define TIDALITE_STORAGE_BLOCK_POSTINGS_H

#include "base/bytes.h"
#include "storage/block/block.h"

/* Ordinals are below this, so that rounding up to a multiple of 64 stays inside 32 bits. */
#define BLOCK__ORDINALS_MAX (UINT32_MAX - 127)

struct block__run_of_ordinals {
    uint32_t first;
    uint32_t length; /* at least 1; first + length <= BLOCK__ORDINALS_MAX */
};

/* ---- Bytes -------------------------------------------------------------------------------------------- */

#define BLOCK__POSTINGS_ITEM_MAX ((size_t)12)

/* Writes one run at `p` (room for BLOCK__POSTINGS_ITEM_MAX); `next` is the ordinal behind the run before, 0
 * at first. */
static inline uint8_t *block__postings_write(uint8_t *p, uint64_t next, struct block__run_of_ordinals run) {
    p = varint_write(p, ((uint64_t)run.first - next) << 1 | (run.length > 1));
    return run.length > 1 ? varint_write(p, run.length - 2) : p;
}

struct block__postings_reader {
    const uint8_t *p, *end;
    uint64_t next;
};

static inline struct block__postings_reader block__postings_reader(struct slice bytes) {
    /* no arithmetic on the empty slice's NULL */
    return (struct block__postings_reader){bytes.data, bytes.len == 0 ? bytes.data : bytes.data + bytes.len,
                                           0};
}

/* STATUS_OK, STATUS_END, STATUS_CORRUPT. */
static inline int block__postings_next(struct block__postings_reader *reader,
                                       struct block__run_of_ordinals *out) {
    if (reader->p == reader->end)
        return STATUS_END;
    uint64_t item, more = 0;
    const uint8_t *p = varint_read(reader->p, reader->end, &item);
    if (p == NULL)
        return STATUS_CORRUPT;
    uint64_t length = 1;
    if (item & 1) {
        if ((p = varint_read(p, reader->end, &more)) == NULL || more > UINT32_MAX)
            return STATUS_CORRUPT;
        length = more + 2;
    }
    uint64_t first = reader->next + (item >> 1);
    if ((item >> 1) > UINT32_MAX || first + length > BLOCK__ORDINALS_MAX)
        return STATUS_CORRUPT;
    reader->p = p;
    reader->next = first + length;
    *out = (struct block__run_of_ordinals){(uint32_t)first, (uint32_t)length};
    return STATUS_OK;
}

/* Joins single ordinals and runs, given in ascending order, to runs as long as can be. */
struct block__run_joiner {
    struct block__run_of_ordinals run; /* length 0: none waiting */
};

/* True if `run` does not continue what is waiting: then *out is what was waiting, and `run` waits. */
static inline bool block__run_join(struct block__run_joiner *joiner, struct block__run_of_ordinals run,
                                   struct block__run_of_ordinals *out) {
    if (joiner->run.length > 0 && joiner->run.first + joiner->run.length == run.first) {
        joiner->run.length += run.length;
        return false;
    }
    *out = joiner->run;
    joiner->run = run;
    return out->length > 0;
}

/* ---- Sets --------------------------------------------------------------------------------------------- */

/* The ordinals of [first, end) as bits; both are multiples of 64. */
struct block__set {
    uint64_t *words; /* NULL if first == end */
    uint32_t first, end;
};

/* Empty, for ordinals of [first, end), widened to whole words. STATUS_NO_MEMORY. */
int block__set_init(struct block__set *set, uint32_t first, uint32_t end);
void block__set_release(struct block__set *set);

/* Adds those of the run that are inside its bounds. */
void block__set_add(struct block__set *set, struct block__run_of_ordinals run);

/* Keeps in `set` what is in `other` too (and), or is not in it (and not). */
void block__set_and(struct block__set *set, const struct block__set *other);
void block__set_and_not(struct block__set *set, const struct block__set *other);

static inline bool block__set_has(const struct block__set *set, uint32_t ordinal) {
    return ordinal >= set->first && ordinal < set->end &&
           (set->words[(ordinal - set->first) / 64] >> (ordinal % 64) & 1) != 0;
}

bool block__set_touches(const struct block__set *set, struct block__run_of_ordinals run);
uint64_t block__set_count(const struct block__set *set);

/* Moves the bounds together to what is set. */
void block__set_trim(struct block__set *set);

/* The first run at or behind `from`: STATUS_OK or STATUS_END. */
int block__set_next(const struct block__set *set, uint32_t from, struct block__run_of_ordinals *out);

#endif
