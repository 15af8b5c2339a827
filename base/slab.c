/* slab.c: size classes over an arena. */
#include "base/slab.h"

#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__ 1 /* clang says it this way */
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define MARK_FREE(data, bytes)  ASAN_POISON_MEMORY_REGION(data, bytes)
#define MARK_TAKEN(data, bytes) ASAN_UNPOISON_MEMORY_REGION(data, bytes)
#else
#define MARK_FREE(data, bytes)  ((void)(data), (void)(bytes))
#define MARK_TAKEN(data, bytes) ((void)(data), (void)(bytes))
#endif

#define SLAB_PIECE_BYTES ((size_t)256 << 10)

void slab_init(struct slab *slab, size_t step) {
    ASSERT(step == 4 || step == 8 || step == 16);
    *slab = (struct slab){.step = step};
    arena_init(&slab->arena, SLAB_PIECE_BYTES, 0);
}

void slab_release(struct slab *slab) {
    arena_release(&slab->arena);
    memset(slab->free_lists, 0, sizeof slab->free_lists);
}

size_t slab_size(const struct slab *slab, size_t bytes) {
    size_t size = (bytes + slab->step - 1) / slab->step * slab->step;
    return size < sizeof(void *) ? sizeof(void *) : size; /* room for the free list's link */
}

void *slab_alloc(struct slab *slab, size_t bytes) {
    ASSERT(bytes > 0);
    size_t size = slab_size(slab, bytes);
    void *p;
    if (size > SLAB_CLASS_BYTES) {
        p = mem_alloc(size);
        if (p != NULL)
            slab->large_bytes += size;
    } else {
        void **list = &slab->free_lists[size / slab->step];
        p = *list;
        if (p != NULL) {
            MARK_TAKEN(p, size);
            memcpy(list, p, sizeof *list);
        } else {
            /* The arena's pieces begin aligned to 16, and every size is a multiple of the step. */
            p = arena_alloc_bytes(&slab->arena, size);
        }
    }
    if (p != NULL)
        slab->bytes += size;
    return p;
}

void slab_free(struct slab *slab, void *p, size_t bytes) {
    if (p == NULL)
        return;
    size_t size = slab_size(slab, bytes);
    slab->bytes -= size;
    if (size > SLAB_CLASS_BYTES) {
        slab->large_bytes -= size;
        mem_free(p);
        return;
    }
    void **list = &slab->free_lists[size / slab->step];
    memcpy(p, list, sizeof *list);
    *list = p;
    MARK_FREE(p, size);
}

uint64_t slab_memory_bytes(const struct slab *slab) {
    return slab->arena.bytes + slab->large_bytes;
}
