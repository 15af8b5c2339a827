/* stable_array.h: an array that grows without moving its elements, so that readers may hold pointers into it
 * while one writer appends. Elements come zeroed. The writer publishes how many there are by other means
 * (a release store, or a lock). */
#ifndef TIDALITE_BASE_STABLE_ARRAY_H
#define TIDALITE_BASE_STABLE_ARRAY_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "base/alloc.h"
#include "base/status.h"

#define STABLE_ARRAY_SEGMENT_BITS 14
#define STABLE_ARRAY_SEGMENTS     8192 /* 134 M elements */

struct stable_array {
    size_t element_bytes;
    _Atomic(uint8_t *) segments[STABLE_ARRAY_SEGMENTS];
};

static inline void stable_array_init(struct stable_array *array, size_t element_bytes) {
    array->element_bytes = element_bytes;
    for (size_t i = 0; i < STABLE_ARRAY_SEGMENTS; i++)
        atomic_init(&array->segments[i], NULL);
}

static inline void stable_array_release(struct stable_array *array) {
    for (size_t i = 0; i < STABLE_ARRAY_SEGMENTS; i++)
        mem_free(atomic_load_explicit(&array->segments[i], memory_order_relaxed));
}

/* Makes element `index` exist: STATUS_OK, STATUS_NO_MEMORY, STATUS_TOO_LARGE. One writer at a time. */
static inline int stable_array_ensure(struct stable_array *array, uint32_t index) {
    size_t segment = index >> STABLE_ARRAY_SEGMENT_BITS;
    if (segment >= STABLE_ARRAY_SEGMENTS)
        return STATUS_TOO_LARGE;
    if (atomic_load_explicit(&array->segments[segment], memory_order_relaxed) != NULL)
        return STATUS_OK;
    uint8_t *bytes = mem_zalloc(array->element_bytes << STABLE_ARRAY_SEGMENT_BITS);
    if (bytes == NULL)
        return STATUS_NO_MEMORY;
    atomic_store_explicit(&array->segments[segment], bytes, memory_order_release);
    return STATUS_OK;
}

/* Element `index`, which exists. */
static inline void *stable_array_at(struct stable_array *array, uint32_t index) {
    uint8_t *segment =
        atomic_load_explicit(&array->segments[index >> STABLE_ARRAY_SEGMENT_BITS], memory_order_acquire);
    return segment + (index & ((1u << STABLE_ARRAY_SEGMENT_BITS) - 1)) * array->element_bytes;
}

/* Bytes of the segments of the first `count` elements. */
static inline uint64_t stable_array_bytes(const struct stable_array *array, uint32_t count) {
    uint64_t segments =
        ((uint64_t)count + (1u << STABLE_ARRAY_SEGMENT_BITS) - 1) >> STABLE_ARRAY_SEGMENT_BITS;
    return segments * (array->element_bytes << STABLE_ARRAY_SEGMENT_BITS);
}

#endif
