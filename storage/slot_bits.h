/* slot_bits.h: a set of slots, a bit each. Not safe for concurrent use. */
#ifndef TIDALITE_STORAGE_SLOT_BITS_H
#define TIDALITE_STORAGE_SLOT_BITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/array.h"
#include "base/status.h"

struct slot_bits {
    uint8_t *bytes;
    size_t capacity; /* bytes */
};

static inline void slot_bits_release(struct slot_bits *bits) {
    mem_free(bits->bytes);
    *bits = (struct slot_bits){0};
}

/* Room for slots below `end`. STATUS_NO_MEMORY. */
static inline int slot_bits_ensure(struct slot_bits *bits, size_t end) {
    uint8_t *bytes = array_ensure_zero(bits->bytes, &bits->capacity, end / 8 + 1, 1);
    if (bytes == NULL)
        return STATUS_NO_MEMORY;
    bits->bytes = bytes;
    return STATUS_OK;
}

static inline bool slot_bits_has(const struct slot_bits *bits, uint32_t slot) {
    return slot / 8 < bits->capacity && (bits->bytes[slot / 8] >> (slot % 8) & 1) != 0;
}

/* There is room for it. */
static inline void slot_bits_add(struct slot_bits *bits, uint32_t slot) {
    bits->bytes[slot / 8] |= (uint8_t)(1u << (slot % 8));
}

static inline void slot_bits_remove(struct slot_bits *bits, uint32_t slot) {
    if (slot / 8 < bits->capacity)
        bits->bytes[slot / 8] &= (uint8_t) ~(1u << (slot % 8));
}

/* As far as there is room: what is in `from`, and nothing else. */
static inline void slot_bits_assign(struct slot_bits *bits, const struct slot_bits *from) {
    size_t common = bits->capacity < from->capacity ? bits->capacity : from->capacity;
    if (bits->capacity > 0)
        memset(bits->bytes, 0, bits->capacity);
    if (common > 0)
        memcpy(bits->bytes, from->bytes, common);
}

#endif
