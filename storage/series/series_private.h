/* series_private.h: what the files of storage/series share. */
#ifndef TIDALITE_STORAGE_SERIES_PRIVATE_H
#define TIDALITE_STORAGE_SERIES_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/spin.h"
#include "base/stable_array.h"
#include "storage/series/series.h"

/* Slots in ascending order; one stands in the struct itself, because most values of unique labels have one.
 */
struct postings {
    uint32_t count;
    uint32_t capacity; /* 0: `one` is in use */
    union {
        uint32_t one;
        uint32_t *many;
    };
};

struct pair {
    const uint8_t *bytes; /* label bytes of this label, in the table's memory */
    uint32_t len;
    uint32_t name; /* index into names */
    struct postings postings;
};

struct label_name {
    struct slice text;
    uint32_t *pairs; /* every pair of this name */
    uint32_t pair_count;
    uint32_t pair_capacity;
};

/* pairs[0] is the count, the pair ids follow, in name order. */
struct series_entry {
    uint64_t id;
    uint32_t *pairs;
};

/* An open-addressed table from hash to a number; the hash's upper half is kept to skip most comparisons. */
struct hash_cell {
    uint32_t tag;
    uint32_t number_plus_one; /* 0: empty */
};
struct hash_map {
    struct hash_cell *cells;
    uint32_t mask; /* cells − 1; 0 while there are none */
    uint32_t count;
};

#define STRIPE_BITS 6
struct stripe {
    struct spin lock;
    struct hash_map map;
    uint8_t pad[40]; /* stripes do not share a cache line */
};

struct series_table {
    uint64_t seed;
    struct label_limits limits;
    uint64_t series_max;
    pthread_rwlock_t index_lock;
    struct stripe stripes[1u << STRIPE_BITS];

    /* Under the index lock: */
    struct arena memory; /* pair bytes, pair lists */
    struct hash_map pair_map;
    uint32_t pair_count;
    struct hash_map name_map;
    struct label_name *names;
    uint32_t name_count;
    uint32_t name_capacity;
    uint64_t id_next;
    uint64_t memory_bytes; /* what stands outside the arena and the arrays */

    _Atomic uint32_t slot_count;
    struct stable_array pairs;   /* struct pair */
    struct stable_array entries; /* struct series_entry, by slot */
};

static inline struct pair *pair_at(struct series_table *table, uint32_t id) {
    return stable_array_at(&table->pairs, id);
}

static inline struct series_entry *entry_at(struct series_table *table, uint32_t slot) {
    return stable_array_at(&table->entries, slot);
}

static inline const uint32_t *postings_slots(const struct postings *postings) {
    return postings->capacity == 0 ? &postings->one : postings->many;
}

/* The value in a pair's label bytes. */
struct slice pair__value(const struct pair *pair);

/* The name's index or UINT32_MAX. Under the index lock. */
uint32_t series__name_find(struct series_table *table, struct slice name);

/* The pair of a name and a value; *out is NULL if there is none. STATUS_NO_MEMORY. Under the index lock. */
int series__pair_find(struct series_table *table, struct slice name, struct slice value, struct pair **out);

#endif
