/* number_set.h: a set of 32-bit numbers, small when it has few and when it is dense: the series that carry a
 * label pair, the pairs of a label name.
 *
 * One number stands in the struct; up to NUMBER_SET_FEW_MAX in one ascending array; more are divided by
 * their upper 16 bits into blocks, each an ascending array of the lower halves or, from NUMBER_SET_ARRAY_MAX
 * on, a bitmap of 8 KiB (as in Roaring: Lemire et al., 2016; the library is not used, because it ends the
 * program when memory is short). About two bytes a number at most once there are many.
 *
 * Memory comes from a slab that the caller passes, always the same one. Not safe for concurrent changes. */
#ifndef TIDALITE_STORAGE_SERIES_NUMBER_SET_H
#define TIDALITE_STORAGE_SERIES_NUMBER_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/slab.h"
#include "base/status.h"

#define NUMBER_SET_FEW_MAX   128u
#define NUMBER_SET_ARRAY_MAX 4096u

struct number_blocks;

enum number_set_form { NUMBER_SET_ONE, NUMBER_SET_FEW, NUMBER_SET_BLOCKS };

/* A zeroed one is empty. */
struct number_set {
    union {
        uint32_t one;  /* if count is 1 */
        uint32_t *few; /* [0] is how many there is room for behind it */
        struct number_blocks *blocks;
    };
    uint32_t count : 30;
    uint32_t form : 2; /* enum number_set_form */
    uint32_t owner;    /* for whoever has the set */
};
_Static_assert(sizeof(struct number_set) == 16, "two a pair of labels: its size counts");

/* Makes room for `number`, so that number_set_add of it can't fail; the set has the same numbers as before.
 * STATUS_NO_MEMORY. */
int number_set_reserve(struct number_set *set, struct slab *slab, uint32_t number);

/* Adds a number that is not in it, after number_set_reserve of the same. */
void number_set_add(struct number_set *set, uint32_t number);

/* Adds a number that is above all in it: reserve and add in one. STATUS_NO_MEMORY. */
int number_set_push(struct number_set *set, struct slab *slab, uint32_t number);

/* Removes a number that is in it. Cannot fail. */
void number_set_remove(struct number_set *set, struct slab *slab, uint32_t number);

bool number_set_has(const struct number_set *set, uint32_t number);

/* The numbers from `from` on, ascending, at most `max`; returns how many. */
size_t number_set_list(const struct number_set *set, uint32_t from, uint32_t *out, size_t max);

/* Removes the lowest numbers, at most `max`, and stores them ascending; returns how many. */
size_t number_set_take(struct number_set *set, struct slab *slab, uint32_t *out, size_t max);

/* Keeps of an ascending list what is in the set, or with `inside` false what is not; returns how many. */
size_t number_set_filter(const struct number_set *set, bool inside, uint32_t *list, size_t count);

/* Empties it. */
void number_set_release(struct number_set *set, struct slab *slab);

#endif
