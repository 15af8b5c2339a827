/* hash_map.h: from a hash to numbers: an open-addressed table of 8-byte cells. The hash's upper half is kept
 * to skip most comparisons; whoever looks up compares what the number stands for.
 *
 * Cells stand in the order of their tags, so that growing (by a quarter, when four fifths are full) reads and
 * writes memory once from end to end; tables are kept small by having many (STRIPES). Not safe for concurrent
 * use but for hash_map_prefetch. */
#ifndef TIDALITE_STORAGE_SERIES_HASH_MAP_H
#define TIDALITE_STORAGE_SERIES_HASH_MAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define STRIPE_BITS 8
#define STRIPES     (1u << STRIPE_BITS)

#define HASH_CELL_MARK (UINT32_C(1) << 31)

struct hash_cell {
    uint32_t tag;
    uint32_t value; /* 0: empty; else the number + 1, and HASH_CELL_MARK for whoever has the map */
};

/* A zeroed one is empty. */
struct hash_map {
    _Atomic(struct hash_cell *) cells; /* atomic for hash_map_prefetch alone */
    _Atomic uint32_t capacity;
    uint32_t count;
};

/* The stripe is taken from the hash's low bits, the place in it from the high ones. */
static inline uint32_t hash_stripe(uint64_t hash) {
    return (uint32_t)hash & (STRIPES - 1);
}

static inline uint32_t hash_tag(uint64_t hash) {
    return (uint32_t)(hash >> 32);
}

static inline uint32_t hash_cell_number(const struct hash_cell *cell) {
    return (cell->value & ~HASH_CELL_MARK) - 1;
}

static inline uint32_t hash_map_home(uint32_t tag, uint32_t capacity) {
    return (uint32_t)((uint64_t)tag * capacity >> 32);
}

/* Goes through the cells with this tag; *at is UINT32_MAX at first. NULL: no more. */
static inline struct hash_cell *hash_map_next(const struct hash_map *map, uint32_t tag, uint32_t *at) {
    struct hash_cell *cells = atomic_load_explicit(&map->cells, memory_order_relaxed);
    uint32_t capacity = atomic_load_explicit(&map->capacity, memory_order_relaxed);
    if (capacity == 0)
        return NULL;
    uint32_t i = *at == UINT32_MAX ? hash_map_home(tag, capacity) : *at + 1;
    for (;; i++) {
        if (i == capacity)
            i = 0;
        if (cells[i].value == 0)
            return NULL;
        if (cells[i].tag == tag) {
            *at = i;
            return &cells[i];
        }
    }
}

/* A hint to the processor that the tag is about to be looked up. Any thread. */
static inline void hash_map_prefetch(const struct hash_map *map, uint32_t tag) {
    /* Pointer and capacity may belong to different tables: only an address is made of them. */
    const struct hash_cell *cells = atomic_load_explicit(&map->cells, memory_order_relaxed);
    uint32_t capacity = atomic_load_explicit(&map->capacity, memory_order_relaxed);
    __builtin_prefetch((const void *)((uintptr_t)cells + hash_map_home(tag, capacity) * sizeof *cells));
}

/* Room for `more` numbers. STATUS_NO_MEMORY. */
int hash_map_reserve(struct hash_map *map, uint32_t more);

/* Adds a number (below 2^31 − 1), after hash_map_reserve. */
void hash_map_add(struct hash_map *map, uint32_t tag, uint32_t number, uint32_t mark);

/* Removes the cell of a number that is in it. */
void hash_map_remove(struct hash_map *map, uint32_t tag, uint32_t number);

/* The cell of a number that is in it. */
struct hash_cell *hash_map_cell(const struct hash_map *map, uint32_t tag, uint32_t number);

void hash_map_release(struct hash_map *map);

static inline uint64_t hash_map_bytes(const struct hash_map *map) {
    return (uint64_t)atomic_load_explicit(&map->capacity, memory_order_relaxed) * sizeof(struct hash_cell);
}

#endif
