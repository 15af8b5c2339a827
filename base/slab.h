/* slab.h: small pieces of memory that come and go, without a header a piece: sizes are multiples of a step. A
 * page holds pieces of one size; one that is empty again serves any size, and what is not needed for long
 * goes back to the system. So when all pieces of a size are let go, as open chunks are that grow in step,
 * their memory is there for others. Not safe for concurrent use.
 *
 * After Bonwick, "The Slab Allocator: An Object-Caching Kernel Memory Allocator" (USENIX 1994).
 *
 * In ASan builds a freed piece is poisoned, and every piece has a red zone. */
#ifndef TIDALITE_BASE_SLAB_H
#define TIDALITE_BASE_SLAB_H

#include <stddef.h>
#include <stdint.h>

#define SLAB_STEP_MIN    4
#define SLAB_CLASS_BYTES 1024 /* larger pieces come from mem_alloc */

struct slab_link;

struct slab {
    size_t step; /* pieces are aligned to it, too */
    struct slab_link
        *with_room[SLAB_CLASS_BYTES / SLAB_STEP_MIN + 1]; /* pages, by the size of their pieces */
    struct slab_link *spare;                              /* pages without a piece */
    size_t spare_count;
    size_t page_count; /* that take memory */
    struct slab_link *regions_with_room;
    struct slab_link *regions_full;
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

/* What the slab takes of the system's memory: pages and larger pieces. */
uint64_t slab_memory_bytes(const struct slab *slab);

#endif
