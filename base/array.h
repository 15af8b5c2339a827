/* array.h: arrays that double. */
#ifndef TIDALITE_BASE_ARRAY_H
#define TIDALITE_BASE_ARRAY_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/alloc.h"

#define ARRAY_FIRST 16 /* elements of the first allocation, at least */

/* Room for `need` elements in an array of *capacity (NULL and 0 at first): returns where it is now, with
 * *capacity of them. NULL: out of memory, and both are as they were. What is new is not initialised. */
static inline void *array_ensure(void *items, size_t *capacity, size_t need, size_t element_bytes) {
    if (need <= *capacity)
        return items;
    size_t larger = *capacity == 0 ? ARRAY_FIRST : *capacity * 2;
    if (larger < need)
        larger = need;
    void *grown = mem_realloc(items, larger * element_bytes);
    if (grown != NULL)
        *capacity = larger;
    return grown;
}

/* The same; what is new is zero. */
static inline void *array_ensure_zero(void *items, size_t *capacity, size_t need, size_t element_bytes) {
    size_t before = *capacity;
    uint8_t *grown = array_ensure(items, capacity, need, element_bytes);
    if (grown != NULL)
        memset(grown + before * element_bytes, 0, (*capacity - before) * element_bytes);
    return grown;
}

#endif
