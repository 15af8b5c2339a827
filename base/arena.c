/* arena.c: bump allocation from a list of pieces. */
#include "base/arena.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/alloc.h"

#define ARENA_PIECE_BYTES_DEFAULT ((size_t)16 << 10)
#define ARENA_KEEP_BYTES_MAX      ((size_t)1 << 20)
#define ARENA_ALIGN               ((size_t)16)

#if defined(__has_feature)
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__ 1 /* clang says it this way */
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define RED_ZONE_BYTES          ((size_t)16)
#define MARK_FREE(data, bytes)  ASAN_POISON_MEMORY_REGION(data, bytes)
#define MARK_TAKEN(data, bytes) ASAN_UNPOISON_MEMORY_REGION(data, bytes)
#else
#define RED_ZONE_BYTES          ((size_t)0)
#define MARK_FREE(data, bytes)  ((void)(data), (void)(bytes))
#define MARK_TAKEN(data, bytes) ((void)(data), (void)(bytes))
#endif

struct arena_piece {
    struct arena_piece *next;
    size_t bytes; /* behind this header */
};
_Static_assert(sizeof(struct arena_piece) == ARENA_ALIGN, "a piece's bytes start aligned");

static uint8_t *piece_bytes(struct arena_piece *piece) {
    return (uint8_t *)(piece + 1);
}

void arena_init(struct arena *arena, size_t piece_bytes_min, size_t bytes_max) {
    *arena = (struct arena){.piece_bytes = piece_bytes_min != 0 ? piece_bytes_min : ARENA_PIECE_BYTES_DEFAULT,
                            .bytes_max = bytes_max};
}

static void piece_free(struct arena_piece *piece) {
    MARK_TAKEN(piece_bytes(piece), piece->bytes);
    mem_free(piece);
}

void arena_release(struct arena *arena) {
    while (arena->pieces != NULL) {
        struct arena_piece *piece = arena->pieces;
        arena->pieces = piece->next;
        piece_free(piece);
    }
    arena->next = arena->end = NULL;
    arena->bytes = 0;
}

void arena_reset(struct arena *arena) {
    struct arena_piece *keep = arena->pieces;
    if (keep == NULL)
        return;
    if (keep->bytes > ARENA_KEEP_BYTES_MAX) {
        arena_release(arena);
        return;
    }
    arena->pieces = keep->next;
    arena_release(arena);
    keep->next = NULL;
    arena->pieces = keep;
    arena->bytes = keep->bytes;
    arena->next = piece_bytes(keep);
    arena->end = arena->next + keep->bytes;
    MARK_FREE(arena->next, keep->bytes);
}

/* A piece for at least `bytes` becomes the newest; what is left of the former one is lost. */
static int piece_add(struct arena *arena, size_t bytes) {
    size_t want = bytes > arena->piece_bytes ? bytes : arena->piece_bytes;
    if (arena->bytes_max != 0 && want > arena->bytes_max - arena->bytes) {
        want = bytes;
        if (want > arena->bytes_max - arena->bytes)
            return -1;
    }
    if (want > SIZE_MAX - sizeof(struct arena_piece))
        return -1;
    struct arena_piece *piece = mem_alloc(sizeof *piece + want);
    if (piece == NULL)
        return -1;
    piece->bytes = want;
    piece->next = arena->pieces;
    arena->pieces = piece;
    arena->bytes += want;
    arena->next = piece_bytes(piece);
    arena->end = arena->next + want;
    MARK_FREE(arena->next, want);
    return 0;
}

static void *take(struct arena *arena, size_t bytes, size_t align) {
    if (bytes > SIZE_MAX / 2)
        return NULL;
    size_t skip = arena->next == NULL ? 0 : (size_t)(-(uintptr_t)arena->next & (align - 1));
    if (arena->next == NULL || bytes + skip + RED_ZONE_BYTES > (size_t)(arena->end - arena->next)) {
        if (piece_add(arena, bytes + RED_ZONE_BYTES) < 0)
            return NULL;
        skip = 0;
    }
    uint8_t *taken = arena->next + skip;
    arena->next = taken + bytes + RED_ZONE_BYTES;
    MARK_TAKEN(taken, bytes);
    return taken;
}

void *arena_alloc(struct arena *arena, size_t bytes) {
    return take(arena, bytes, ARENA_ALIGN);
}

void *arena_zalloc(struct arena *arena, size_t bytes) {
    void *taken = take(arena, bytes, ARENA_ALIGN);
    if (taken != NULL)
        memset(taken, 0, bytes);
    return taken;
}

void *arena_alloc_bytes(struct arena *arena, size_t bytes) {
    return take(arena, bytes, 1);
}

struct slice arena_copy(struct arena *arena, struct slice s) {
    uint8_t *copy = arena_alloc_bytes(arena, s.len);
    if (copy == NULL)
        return (struct slice){NULL, 0};
    if (s.len > 0)
        memcpy(copy, s.data, s.len);
    return slice_of(copy, s.len);
}

char *arena_str(struct arena *arena, struct slice s) {
    char *copy = arena_alloc_bytes(arena, s.len + 1);
    if (copy == NULL)
        return NULL;
    if (s.len > 0)
        memcpy(copy, s.data, s.len);
    copy[s.len] = '\0';
    return copy;
}

char *arena_printf(struct arena *arena, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int len = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    char *text = len < 0 ? NULL : arena_alloc_bytes(arena, (size_t)len + 1);
    if (text == NULL)
        return NULL;
    va_start(arguments, format);
    vsnprintf(text, (size_t)len + 1, format, arguments);
    va_end(arguments);
    return text;
}
