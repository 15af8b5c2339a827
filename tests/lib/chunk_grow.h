/* chunk_grow.h: where tests keep the bits of an open chunk: on the heap, to the byte, so that
 * AddressSanitizer sees an overrun. */
#ifndef TIDALITE_TESTS_LIB_CHUNK_GROW_H
#define TIDALITE_TESTS_LIB_CHUNK_GROW_H

#include <string.h>

#include "base/alloc.h"
#include "storage/chunk/chunk.h"

/* A chunk_grow_fn; the context is not looked at. mem_free what the chunk has in the end. */
static inline uint8_t *chunk_grow(void *context, uint8_t *old, size_t old_capacity, size_t used, size_t bytes,
                                  size_t *capacity) {
    (void)context, (void)old_capacity;
    size_t want = bytes + bytes % 7;
    uint8_t *grown = mem_alloc(want);
    if (grown == NULL)
        return NULL;
    memset(grown, 0xa5, want); /* nothing may rely on zeros */
    if (used > 0)
        memcpy(grown, old, used);
    mem_free(old);
    *capacity = want;
    return grown;
}

#endif
