/* arena.h: memory with one lifetime. Objects are bumped off larger pieces and freed all at once; there is
 * no freeing of one. For a request, a query, a table that only grows. Not safe for concurrent use.
 *
 * In ASan builds every object gets a red zone behind it, so that an overrun inside the arena is found. */
#ifndef TIDALITE_BASE_ARENA_H
#define TIDALITE_BASE_ARENA_H

#include <stddef.h>
#include <stdint.h>

#include "base/slice.h"

struct arena_piece;

struct arena {
    struct arena_piece *pieces; /* newest first */
    uint8_t *next;              /* free bytes of the newest piece: [next, end) */
    uint8_t *end;
    size_t piece_bytes; /* what a new piece has at least */
    size_t bytes;       /* of all pieces together */
    size_t bytes_max;   /* an allocation that needs more fails; 0 = no bound */
};

/* `piece_bytes` 0 takes a default of 16 KiB. Cannot fail: the first piece is made by the first allocation. */
void arena_init(struct arena *arena, size_t piece_bytes, size_t bytes_max);
void arena_release(struct arena *arena);

/* Frees all objects but keeps the newest piece for reuse if it is no larger than 1 MiB. */
void arena_reset(struct arena *arena);

/* `bytes` bytes, aligned to 16, not zeroed (arena_zalloc: zeroed), valid until reset or release; NULL when
 * out of memory or over bytes_max. */
void *arena_alloc(struct arena *arena, size_t bytes);
void *arena_zalloc(struct arena *arena, size_t bytes);

/* As arena_alloc without alignment: for text and encoded bytes. */
void *arena_alloc_bytes(struct arena *arena, size_t bytes);

/* A copy of the slice's bytes; {NULL, 0} on failure unless s.len is 0. */
struct slice arena_copy(struct arena *arena, struct slice s);

/* A NUL-terminated copy, or NULL. */
char *arena_str(struct arena *arena, struct slice s);

/* printf into the arena; NUL-terminated; NULL on failure. */
char *arena_printf(struct arena *arena, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define ARENA_NEW(arena, type)          ((type *)arena_zalloc((arena), sizeof(type)))
#define ARENA_ARRAY(arena, type, count) ((type *)arena_zalloc((arena), sizeof(type) * (count)))

#endif
