/* block_pairs.h: (name, value) pairs with the ordinals that carry them, turned from series order to pair
 * order: an external sort. Bounded memory: pairs gather in a table; when it is full they are sorted and
 * spilled to a scratch file; in the end all spills are merged. For storage/block alone. */
#ifndef TIDALITE_STORAGE_BLOCK_PAIRS_H
#define TIDALITE_STORAGE_BLOCK_PAIRS_H

#include "storage/block/block_postings.h"

struct block__pairs;

/* `dir` says where scratch files may be; copied. */
int block__pairs_open(struct io *io, const char *dir, uint64_t seed, struct error_detail *detail,
                      struct block__pairs **out);
void block__pairs_close(struct block__pairs *pairs); /* NULL is fine */

/* Ordinals ascend from call to call; a name stands once in a series. Spills now and then (some milliseconds).
 */
int block__pairs_add(struct block__pairs *pairs, uint32_t ordinal, struct slice name, struct slice value,
                     struct error_detail *detail);

/* Ends the adding. */
int block__pairs_sort(struct block__pairs *pairs, struct error_detail *detail);

/* The next pair, by (name, value) in byte order: STATUS_OK, STATUS_END. The slices are borrowed until the
 * next call. */
int block__pairs_next(struct block__pairs *pairs, struct slice *name, struct slice *value, uint64_t *count,
                      struct error_detail *detail);

/* The current pair's ordinals, run by run: STATUS_OK, STATUS_END. All must be taken before the next pair. */
int block__pairs_ordinals(struct block__pairs *pairs, struct block__run_of_ordinals *out,
                          struct error_detail *detail);

uint64_t block__pairs_memory_bytes(const struct block__pairs *pairs);

#endif
