/* slab.h: small pieces of memory that come and go, without a header a piece: sizes are multiples of a step,
 * with a free list a size. Nothing is returned to the system before slab_release. Not safe for concurrent
 * use.
 *
 * In ASan builds a freed piece is poisoned, and every piece has a red zone. */
#ifndef TIDALITE_BASE_SLAB_H
#define TIDALITE_BASE_SLAB_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"

#define SLAB_STEP_MIN    4
#define SLAB_CLASS_BYTES 1024 /* larger pieces come from mem_alloc */

struct slab {
    struct arena arena;
    size_t step; /* pieces are aligned to it, too */
    void *free_lists[SLAB_CLASS_BYTES / SLAB_STEP_MIN + 1];
    uint64_t bytes;       /* handed out */
    uint64_t large_bytes; /* of those, from mem_alloc */
};

/* `step` is 4, 8 or 16. */
void slab_init(struct slab *slab, size_t step);

/* Frees what came from the slab's own memory; larger pieces must have been given back. */
void slab_release(struct slab *slab);

/* `bytes` > 0, rounded up by slab_size. NULL: out of memory. */
void *slab_alloc(struct slab *slab, size_t bytes);
void slab_free(struct slab *slab, void *p, size_t bytes); /* NULL is fine */
size_t slab_size(const struct slab *slab, size_t bytes);

/* What the slab takes of the heap: pieces in use, free ones, and what is not divided yet. */
uint64_t slab_memory_bytes(const struct slab *slab);

#endif
