/* block_postings.c: sets of ordinals as bits. */
#include "storage/block/block_postings.h"

#include "base/alloc.h"
#include "base/assert.h"

int block__set_init(struct block__set *set, uint32_t first, uint32_t end) {
    ASSERT(end <= BLOCK__ORDINALS_MAX);
    first = first / 64 * 64;
    end = (end + 63) / 64 * 64;
    *set = (struct block__set){NULL, first, end > first ? end : first};
    if (end <= first)
        return STATUS_OK;
    set->words = mem_zalloc((size_t)(end - first) / 8);
    return set->words == NULL ? STATUS_NO_MEMORY : STATUS_OK;
}

void block__set_release(struct block__set *set) {
    mem_free(set->words);
    *set = (struct block__set){0};
}

/* The bits of one word from `low` to `high`, both inside. */
static uint64_t mask(unsigned low, unsigned high) {
    return (UINT64_MAX << low) & (UINT64_MAX >> (63 - high));
}

/* The part of the run inside the set's bounds, as [*first, *last]; false if there is none. */
static bool clip(const struct block__set *set, struct block__run_of_ordinals run, uint32_t *first,
                 uint32_t *last) {
    uint32_t low = run.first, high = run.first + run.length - 1;
    if (high < set->first || low >= set->end)
        return false;
    *first = low < set->first ? 0 : low - set->first;
    *last = (high >= set->end ? set->end - 1 : high) - set->first;
    return true;
}

void block__set_add(struct block__set *set, struct block__run_of_ordinals run) {
    uint32_t first, last;
    if (!clip(set, run, &first, &last))
        return;
    uint32_t word = first / 64, word_last = last / 64;
    if (word == word_last) {
        set->words[word] |= mask(first % 64, last % 64);
        return;
    }
    set->words[word++] |= mask(first % 64, 63);
    while (word < word_last)
        set->words[word++] = UINT64_MAX;
    set->words[word] |= mask(0, last % 64);
}

bool block__set_touches(const struct block__set *set, struct block__run_of_ordinals run) {
    uint32_t first, last;
    if (!clip(set, run, &first, &last))
        return false;
    for (uint32_t word = first / 64; word <= last / 64; word++) {
        unsigned low = word == first / 64 ? first % 64 : 0, high = word == last / 64 ? last % 64 : 63;
        if (set->words[word] & mask(low, high))
            return true;
    }
    return false;
}

void block__set_and(struct block__set *set, const struct block__set *other) {
    for (uint32_t at = set->first; at < set->end; at += 64) {
        uint64_t *word = &set->words[(at - set->first) / 64];
        *word &= at >= other->first && at < other->end ? other->words[(at - other->first) / 64] : 0;
    }
}

void block__set_and_not(struct block__set *set, const struct block__set *other) {
    for (uint32_t at = set->first; at < set->end; at += 64)
        if (at >= other->first && at < other->end)
            set->words[(at - set->first) / 64] &= ~other->words[(at - other->first) / 64];
}

uint64_t block__set_count(const struct block__set *set) {
    uint64_t count = 0;
    for (uint32_t word = 0; word < (set->end - set->first) / 64; word++)
        count += (uint64_t)__builtin_popcountll(set->words[word]);
    return count;
}

void block__set_trim(struct block__set *set) {
    uint32_t words = (set->end - set->first) / 64, from = 0;
    while (from < words && set->words[from] == 0)
        from++;
    while (words > from && set->words[words - 1] == 0)
        words--;
    if (from > 0)
        memmove(set->words, set->words + from, (words - from) * sizeof *set->words);
    set->end = set->first + words * 64;
    set->first += from * 64;
}

int block__set_next(const struct block__set *set, uint32_t from, struct block__run_of_ordinals *out) {
    if (from < set->first)
        from = set->first;
    if (from >= set->end)
        return STATUS_END;
    uint32_t words = (set->end - set->first) / 64, word = (from - set->first) / 64;
    uint64_t bits = set->words[word] & (UINT64_MAX << (from % 64));
    while (bits == 0) {
        if (++word == words)
            return STATUS_END;
        bits = set->words[word];
    }
    unsigned low = (unsigned)__builtin_ctzll(bits);
    uint32_t first = set->first + word * 64 + low;
    uint64_t zeros = ~set->words[word] & (UINT64_MAX << low);
    while (zeros == 0) {
        if (++word == words) {
            *out = (struct block__run_of_ordinals){first, set->end - first};
            return STATUS_OK;
        }
        zeros = ~set->words[word];
    }
    uint32_t end = set->first + word * 64 + (uint32_t)__builtin_ctzll(zeros);
    *out = (struct block__run_of_ordinals){first, end - first};
    return STATUS_OK;
}
