/* slab.h: chunk bytes in sizes that are multiples of 16, with a free list a size. Nothing is returned to the
 * system before slab_release. Cost: no header a piece. Not safe for concurrent use: the applier alone calls
 * it. */
#ifndef TIDALITE_STORAGE_SLAB_H
#define TIDALITE_STORAGE_SLAB_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"

#define SLAB_STEP_BYTES  16
#define SLAB_CLASS_BYTES 1024 /* larger pieces come from mem_alloc */

struct slab {
    struct arena arena;
    void *free_lists[SLAB_CLASS_BYTES / SLAB_STEP_BYTES + 1];
    uint64_t bytes; /* handed out */
};

void slab_init(struct slab *slab);

/* Frees what came from the slab's own memory; larger pieces must have been given back. */
void slab_release(struct slab *slab);

/* `bytes` > 0, rounded up by slab_size. NULL: out of memory. */
void *slab_alloc(struct slab *slab, size_t bytes);
void slab_free(struct slab *slab, void *p, size_t bytes); /* NULL is fine */
size_t slab_size(size_t bytes);

#endif
