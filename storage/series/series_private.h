/* series_private.h: what the files of storage/series share. */
#ifndef TIDALITE_STORAGE_SERIES_PRIVATE_H
#define TIDALITE_STORAGE_SERIES_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/slab.h"
#include "base/spin.h"
#include "base/stable_array.h"
#include "storage/series/hash_map.h"
#include "storage/series/number_set.h"
#include "storage/series/series.h"

#define NUMBER_NONE  UINT32_MAX
#define LOCKED_SLICE 4096u /* numbers looked at under one hold of the index lock */

/* A pair in use has bytes. `postings.owner` is its name's index; neither changes while it is in use, so who
 * is pinned reads them without the lock. One that was unlinked keeps both, and has the next dead one in
 * `postings.one`; a free one has no bytes, and the next free one there. */
struct pair {
    const uint8_t *bytes; /* label bytes of this label, which tell their own length */
    struct number_set postings;
};
_Static_assert(sizeof(struct pair) == 24, "one for every unique label value: its size counts");

/* A name in use has text; one that was unlinked or is free has the next one in `pairs.one`. */
struct label_name {
    struct slice text;
    struct number_set pairs; /* every pair of this name */
};

/* pairs[0] is the count, the pair numbers follow, in name order. A free one: pairs is NULL, id the next free
 * slot. */
struct series_entry {
    uint64_t id;
    uint32_t *pairs;
};

struct stripe {
    struct spin lock;
    struct hash_map map; /* cells are marked when somebody looked the series up since series_retire_step saw
                            it silent */
    uint8_t pad[40];     /* stripes do not share a cache line */
};
_Static_assert(sizeof(struct stripe) == 64, "one cache line");

enum retire_phase { RETIRE_MARK, RETIRE_MARK_WAIT, RETIRE_UNLINK, RETIRE_UNLINK_WAIT, RETIRE_FREE };

struct retire {
    enum retire_phase phase;
    uint32_t slot;           /* where the phase has come to */
    struct number_set slots; /* marked; from UNLINK on those that left */
};

struct series_table {
    uint64_t seed;
    struct label_limits limits;
    uint64_t series_max;
    pthread_rwlock_t index_lock;
    struct stripe stripes[STRIPES];

    /* Pins of this epoch and of the one before, by its parity. */
    atomic_uint_fast64_t epoch;
    atomic_uint_fast64_t pins[2];

    /* Under the index lock: */
    struct slab texts; /* bytes of pairs and names */
    struct slab lists; /* pair lists */
    struct slab sets;  /* postings and other sets */
    struct hash_map pair_maps[STRIPES];
    struct hash_map name_map;
    struct label_name *names;
    uint32_t name_end;
    uint32_t name_capacity;
    uint32_t name_free; /* free numbers: NUMBER_NONE, or the first of a list */
    uint32_t pair_free;
    uint32_t slot_free;
    uint32_t slot_held; /* free, but not to be used before series_slots_release: a list, and its end */
    uint32_t slot_held_last;
    uint32_t pair_dead; /* unlinked, to be freed: likewise */
    uint32_t name_dead;
    uint32_t pair_end;
    uint32_t pair_count;
    struct number_set live;          /* slots of series */
    struct number_set changed_slots; /* since they were taken */
    struct number_set changed_pairs;
    uint64_t id_next;
    uint64_t retired; /* series so far */

    struct retire retire; /* the retiring thread's */

    _Atomic uint32_t slot_end;
    _Atomic uint32_t series_count;
    struct stable_array pairs;   /* struct pair */
    struct stable_array entries; /* struct series_entry, by slot */
};

static inline struct pair *pair_at(struct series_table *table, uint32_t number) {
    return stable_array_at(&table->pairs, number);
}

static inline struct series_entry *entry_at(struct series_table *table, uint32_t slot) {
    return stable_array_at(&table->entries, slot);
}

/* The stripe of a hash; its place in it is the hash's tag. */
static inline struct stripe *stripe_of(struct series_table *table, uint64_t hash) {
    return &table->stripes[hash_stripe(hash)];
}

/* Label bytes of one label tell their length: 0A, a varint, and as many bytes. */
static inline size_t pair_len(const uint8_t *bytes) {
    size_t len = bytes[1];
    if (len < 0x80)
        return len + 2;
    size_t at = 2;
    len &= 0x7f;
    for (unsigned shift = 7;; shift += 7, at++) {
        len |= (size_t)(bytes[at] & 0x7f) << shift;
        if (bytes[at] < 0x80)
            return len + at + 1;
    }
}

static inline struct slice pair_bytes(const struct pair *pair) {
    return slice_of(pair->bytes, pair_len(pair->bytes));
}

/* The name and the value in a pair's label bytes. */
struct label pair__label(const struct pair *pair);

uint64_t series__hash(const struct series_table *table, struct slice bytes);

/* The hash of a slot's labels. Pinned, or by the retiring thread. */
uint64_t series__slot_hash(struct series_table *table, uint32_t slot);

/* ---- series_pairs.c: names and pairs; all under the index lock, what changes them in write mode ---- */

/* The name's index or NUMBER_NONE. */
uint32_t series__name_find(struct series_table *table, struct slice name);

/* The number of the pair with these label bytes, or NUMBER_NONE. */
uint32_t series__pair_find(struct series_table *table, uint64_t hash, struct slice bytes);

/* Finds or makes a pair. A new one has no postings: give it some, or series__pair_unlink it. */
int series__pair_ensure(struct series_table *table, const struct label *label, struct slice bytes,
                        uint32_t *out);

/* Makes a pair of that number, which is free; the number goes into its name's set. */
int series__pair_make(struct series_table *table, uint32_t number, const struct label *label,
                      struct slice bytes, uint64_t hash);

/* Takes a pair without postings out of the maps, and its name if that was the last pair; both are then on the
 * lists of dead ones. */
void series__pair_unlink(struct series_table *table, uint32_t number);

/* Frees up to `max` dead pairs, or, when there is none, all dead names; true while there may be more. */
bool series__dead_free(struct series_table *table, uint32_t max);

void series__pairs_release(struct series_table *table);

#endif
