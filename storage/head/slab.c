/* slab.c: size classes over an arena. */
#include "storage/head/slab.h"

#include "base/alloc.h"
#include "base/assert.h"

#define SLAB_PIECE_BYTES ((size_t)256 << 10)

void slab_init(struct slab *slab) {
    *slab = (struct slab){0};
    arena_init(&slab->arena, SLAB_PIECE_BYTES, 0);
}

void slab_release(struct slab *slab) {
    arena_release(&slab->arena);
}

size_t slab_size(size_t bytes) {
    return (bytes + SLAB_STEP_BYTES - 1) / SLAB_STEP_BYTES * SLAB_STEP_BYTES;
}

void *slab_alloc(struct slab *slab, size_t bytes) {
    ASSERT(bytes > 0);
    size_t size = slab_size(bytes);
    void *p;
    if (size > SLAB_CLASS_BYTES) {
        p = mem_alloc(size);
    } else {
        void **list = &slab->free_lists[size / SLAB_STEP_BYTES];
        p = *list;
        if (p != NULL)
            memcpy(list, p, sizeof *list);
        else
            p = arena_alloc(&slab->arena, size);
    }
    if (p != NULL)
        slab->bytes += size;
    return p;
}

void slab_free(struct slab *slab, void *p, size_t bytes) {
    if (p == NULL)
        return;
    size_t size = slab_size(bytes);
    slab->bytes -= size;
    if (size > SLAB_CLASS_BYTES) {
        mem_free(p);
        return;
    }
    void **list = &slab->free_lists[size / SLAB_STEP_BYTES];
    memcpy(p, list, sizeof *list);
    *list = p;
}
