/* alloc.h: the one door to the heap. Every allocation of the project goes through it (libraries excepted),
 * so that a test can make the Nth one fail and so that large structures are accounted for.
 *
 * Nothing here blocks. All functions may be called from any thread. */
#ifndef TIDALITE_BASE_ALLOC_H
#define TIDALITE_BASE_ALLOC_H

#include <stddef.h>
#include <stdint.h>

/* As malloc, calloc, realloc, free; NULL means out of memory. A size of 0 yields a unique pointer. */
void *mem_alloc(size_t bytes) __attribute__((malloc, warn_unused_result));
void *mem_zalloc(size_t bytes) __attribute__((malloc, warn_unused_result));
void *mem_realloc(void *p, size_t bytes) __attribute__((warn_unused_result));
void mem_free(void *p);

/* A NUL-terminated copy of `len` bytes, or NULL. Free with mem_free. */
char *mem_strndup(const void *data, size_t len) __attribute__((warn_unused_result));

/* Whole pages of zeros, straight from the system and given back to it; what is not touched costs nothing. A
 * file may be mapped over them. `bytes` is a multiple of 4096. */
void *mem_pages_alloc(size_t bytes) __attribute__((warn_unused_result));
void mem_pages_free(void *p, size_t bytes); /* NULL is fine */

/* Gives the memory of some of the pages back; they are zeros when they are touched next. */
void mem_pages_clear(void *p, size_t bytes);

/* Fault injection, for tests: the allocation that is `countdown` calls away (1 = the next one) and, with
 * `repeat`, all behind it fail. 0 turns it off. Returns how many calls were made since the last call here. */
uint64_t mem_fault_set(uint64_t countdown, int repeat);

#endif
