/* series_match.c: matchers → slots, and the walk over names and values.
 *
 * The smallest set that some matcher gives by itself is the candidates: the postings of `name="value"`, or
 * the union over the values that a regular expression or `!=""` accepts. Each other matcher is then asked of
 * the candidates only: `=` and `!=` by their postings, the rest of each distinct label pair once, so that
 * what is costly (a regular expression) runs over the values that occur among the candidates, not over all.
 *
 * The index lock is held for slices of bounded work. Between them series come and go: one that is made
 * meanwhile may be found or not; of those that are retired meanwhile none is left at the end, since another
 * with the same labels may have been made, and been found too. */
#include <stdlib.h>

#include "base/alloc.h"
#include "base/array.h"
#include "base/assert.h"
#include "storage/series/series_private.h"

#define VALUES_HELD 256u  /* values copied under one hold */
#define SLOTS_HELD  1024u /* slots likewise */

struct slot_list {
    uint32_t *slots;
    size_t count;
    size_t capacity;
};

static int list_reserve(struct slot_list *list, size_t more) {
    uint32_t *slots = array_ensure(list->slots, &list->capacity, list->count + more, sizeof *slots);
    if (slots == NULL)
        return STATUS_NO_MEMORY;
    list->slots = slots;
    return STATUS_OK;
}

/* Appends a set's numbers, in slices; the set stays where it is. */
static int list_append(struct series_table *table, struct slot_list *list, const struct number_set *set) {
    for (uint32_t from = 0;;) {
        int status = list_reserve(list, LOCKED_SLICE);
        if (status < 0)
            return status;
        pthread_rwlock_rdlock(&table->index_lock);
        size_t count = number_set_list(set, from, list->slots + list->count, LOCKED_SLICE);
        pthread_rwlock_unlock(&table->index_lock);
        list->count += count;
        if (count < LOCKED_SLICE)
            return STATUS_OK;
        from = list->slots[list->count - 1] + 1;
    }
}

static void list_filter_set(struct series_table *table, struct slot_list *list, const struct number_set *set,
                            bool inside) {
    size_t kept = 0;
    for (size_t from = 0; from < list->count; from += LOCKED_SLICE) {
        size_t count = list->count - from < LOCKED_SLICE ? list->count - from : LOCKED_SLICE;
        if (kept < from)
            memmove(list->slots + kept, list->slots + from, count * sizeof *list->slots);
        pthread_rwlock_rdlock(&table->index_lock);
        kept += number_set_filter(set, inside, list->slots + kept, count);
        pthread_rwlock_unlock(&table->index_lock);
    }
    list->count = kept;
}

static int slot_order(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Ascending, each once. */
static int list_sort(struct slot_list *list) {
    if (list->count == 0)
        return STATUS_OK;
    uint32_t last = 0;
    bool ascends = true;
    for (size_t i = 0; i < list->count; i++) {
        ascends = ascends && (i == 0 || list->slots[i] > list->slots[i - 1]);
        last = list->slots[i] > last ? list->slots[i] : last;
    }
    if (ascends)
        return STATUS_OK;
    if (list->count < last / 256) {
        qsort(list->slots, list->count, sizeof *list->slots, slot_order);
        size_t kept = 1;
        for (size_t i = 1; i < list->count; i++)
            if (list->slots[i] != list->slots[kept - 1])
                list->slots[kept++] = list->slots[i];
        list->count = kept;
        return STATUS_OK;
    }
    size_t words = last / 64 + (size_t)1;
    uint64_t *bits = mem_zalloc(words * sizeof *bits);
    if (bits == NULL)
        return STATUS_NO_MEMORY;
    for (size_t i = 0; i < list->count; i++)
        bits[list->slots[i] / 64] |= UINT64_C(1) << (list->slots[i] % 64);
    list->count = 0;
    for (size_t word = 0; word < words; word++)
        for (uint64_t left = bits[word]; left != 0; left &= left - 1)
            list->slots[list->count++] = (uint32_t)(word * 64) + (unsigned)__builtin_ctzll(left);
    mem_free(bits);
    return STATUS_OK;
}

/* Does the value pass what the pattern tells beforehand? False only if it cannot match. */
static bool hint_admits(const struct matcher *matcher, struct slice value) {
    return matcher->kind != MATCHER_REGEX || slice_starts_with(value, matcher->pattern->prefix);
}

static bool value_matches(const struct matcher *matcher, struct slice value) {
    return hint_admits(matcher, value) && matcher_match(matcher, value);
}

/* The pair of a name and a value; *out is NULL if there is none. It stays, if it has no postings any more
 * too, while the caller is pinned. */
static int pair_find(struct series_table *table, struct slice name, struct slice value, struct pair **out) {
    struct buf bytes;
    buf_init(&bytes);
    label_bytes_append(&bytes, name, value);
    int status = bytes.failed ? STATUS_NO_MEMORY : STATUS_OK;
    if (status == STATUS_OK) {
        uint64_t hash = series__hash(table, buf_slice(&bytes));
        pthread_rwlock_rdlock(&table->index_lock);
        uint32_t number = series__pair_find(table, hash, buf_slice(&bytes));
        pthread_rwlock_unlock(&table->index_lock);
        *out = number == NUMBER_NONE ? NULL : pair_at(table, number);
    }
    buf_release(&bytes);
    return status;
}

static uint32_t name_find(struct series_table *table, struct slice name) {
    pthread_rwlock_rdlock(&table->index_lock);
    uint32_t index = series__name_find(table, name);
    pthread_rwlock_unlock(&table->index_lock);
    return index;
}

/* The pairs of a name from `from` on; 0: no more. */
static size_t pairs_list(struct series_table *table, uint32_t name, uint32_t from, uint32_t *out,
                         size_t max) {
    pthread_rwlock_rdlock(&table->index_lock);
    size_t count = number_set_list(&table->names[name].pairs, from, out, max);
    pthread_rwlock_unlock(&table->index_lock);
    return count;
}

/* The slots whose value of the matcher's label is there and satisfies it. */
static int list_of_matcher(struct series_table *table, const struct matcher *matcher,
                           struct slot_list *list) {
    int status = STATUS_OK;
    if (matcher->kind == MATCHER_REGEX && matcher->pattern->literal_count > 0) {
        for (size_t i = 0; i < matcher->pattern->literal_count; i++) {
            struct pair *pair;
            TRY(pair_find(table, matcher->name, matcher->pattern->literals[i], &pair));
            if (pair != NULL)
                TRY(list_append(table, list, &pair->postings));
        }
        return list_sort(list);
    }
    uint32_t name = name_find(table, matcher->name);
    if (name == NUMBER_NONE)
        return STATUS_OK;
    uint32_t numbers[VALUES_HELD];
    size_t count;
    uint32_t from = 0;
    while ((count = pairs_list(table, name, from, numbers, VALUES_HELD)) > 0) {
        from = numbers[count - 1] + 1;
        size_t matching = 0;
        for (size_t i = 0; i < count; i++)
            if (value_matches(matcher, pair__label(pair_at(table, numbers[i])).value))
                numbers[matching++] = numbers[i];
        /* Most values of a label with many have few series: those under one hold of the lock. */
        TRY(list_reserve(list, VALUES_HELD * (size_t)NUMBER_SET_FEW_MAX));
        size_t large = 0;
        pthread_rwlock_rdlock(&table->index_lock);
        for (size_t i = 0; i < matching; i++) {
            const struct number_set *set = &pair_at(table, numbers[i])->postings;
            if (set->count <= NUMBER_SET_FEW_MAX)
                list->count +=
                    number_set_list(set, 0, list->slots + list->count, list->capacity - list->count);
            else
                numbers[large++] = numbers[i];
        }
        pthread_rwlock_unlock(&table->index_lock);
        for (size_t i = 0; i < large; i++)
            TRY(list_append(table, list, &pair_at(table, numbers[i])->postings));
    }
    return list_sort(list);
out:
    return status;
}

/* ---- asking one matcher of many slots ---- */

enum verdict { VERDICT_UNKNOWN, VERDICT_YES, VERDICT_NO, VERDICT_OTHER_NAME };

/* The answers so far, by pair number. No lock: what a pair is does not change while pinned. */
struct verdicts {
    const struct matcher *matcher;
    uint32_t name; /* NUMBER_NONE: no series has the label */
    bool absent_matches;
    uint8_t *by_pair;
    uint32_t pair_end;
};

static enum verdict verdict_make(struct series_table *table, struct verdicts *verdicts, uint32_t number) {
    const struct pair *pair = pair_at(table, number);
    if (pair->postings.owner != verdicts->name)
        return VERDICT_OTHER_NAME;
    return value_matches(verdicts->matcher, pair__label(pair).value) ? VERDICT_YES : VERDICT_NO;
}

static bool verdict_of(struct series_table *table, struct verdicts *verdicts, uint32_t slot) {
    const uint32_t *pairs = entry_at(table, slot)->pairs;
    for (uint32_t i = 1; i <= pairs[0] && verdicts->name != NUMBER_NONE; i++) {
        enum verdict verdict = VERDICT_UNKNOWN;
        if (pairs[i] < verdicts->pair_end)
            verdict = verdicts->by_pair[pairs[i]];
        if (verdict == VERDICT_UNKNOWN) {
            verdict = verdict_make(table, verdicts, pairs[i]);
            if (pairs[i] < verdicts->pair_end)
                verdicts->by_pair[pairs[i]] = (uint8_t)verdict;
        }
        if (verdict != VERDICT_OTHER_NAME)
            return verdict == VERDICT_YES;
    }
    return verdicts->absent_matches;
}

static int verdicts_open(struct series_table *table, const struct matcher *matcher, struct verdicts *out) {
    uint32_t pair_end = series_pair_end(table);
    uint8_t *by_pair = mem_zalloc(pair_end + (size_t)1);
    if (by_pair == NULL)
        return STATUS_NO_MEMORY;
    *out = (struct verdicts){.matcher = matcher,
                             .name = name_find(table, matcher->name),
                             .absent_matches = matcher_match(matcher, (struct slice){NULL, 0}),
                             .by_pair = by_pair,
                             .pair_end = pair_end};
    return STATUS_OK;
}

static int list_filter_asked(struct series_table *table, const struct matcher *matcher,
                             struct slot_list *list) {
    struct verdicts verdicts;
    int status = verdicts_open(table, matcher, &verdicts);
    if (status < 0)
        return status;
    size_t kept = 0;
    for (size_t i = 0; i < list->count; i++)
        if (verdict_of(table, &verdicts, list->slots[i]))
            list->slots[kept++] = list->slots[i];
    list->count = kept;
    mem_free(verdicts.by_pair);
    return STATUS_OK;
}

static int list_filter(struct series_table *table, const struct matcher *matcher, struct slot_list *list) {
    bool equal = matcher->kind == MATCHER_EQUAL;
    if ((!equal && matcher->kind != MATCHER_NOT_EQUAL) || matcher->value.len == 0)
        return list_filter_asked(table, matcher, list);
    struct pair *pair;
    int status = pair_find(table, matcher->name, matcher->value, &pair);
    if (status < 0)
        return status;
    if (pair != NULL)
        list_filter_set(table, list, &pair->postings, equal);
    else if (equal)
        list->count = 0;
    return STATUS_OK;
}

/* ---- matching ---- */

/* The matcher to begin with: the `=` with the fewest slots, else the first that cannot match absence; `count`
 * if none. For an `=` also its pair, or NULL. */
static int matcher_first(struct series_table *table, const struct matcher *matchers, size_t count,
                         size_t *first_out, const struct pair **pair_out) {
    size_t best = count, best_slots = SIZE_MAX, positive = count;
    int status = STATUS_OK;
    *pair_out = NULL;
    for (size_t i = 0; i < count; i++) {
        const struct matcher *matcher = &matchers[i];
        if (matcher_match(matcher, (struct slice){NULL, 0}))
            continue;
        if (matcher->kind == MATCHER_EQUAL) {
            struct pair *pair;
            TRY(pair_find(table, matcher->name, matcher->value, &pair));
            size_t slots = 0;
            if (pair != NULL) {
                pthread_rwlock_rdlock(&table->index_lock);
                slots = pair->postings.count;
                pthread_rwlock_unlock(&table->index_lock);
            }
            if (slots < best_slots) {
                best = i;
                best_slots = slots;
                *pair_out = pair;
            }
        } else if (positive == count ||
                   (matcher->kind == MATCHER_REGEX && matcher->pattern->literal_count > 0)) {
            positive = i;
        }
    }
    *first_out = best < count ? best : positive;
out:
    return status;
}

static uint64_t retired_so_far(struct series_table *table) {
    pthread_rwlock_rdlock(&table->index_lock);
    uint64_t retired = table->retired;
    pthread_rwlock_unlock(&table->index_lock);
    return retired;
}

int series_match(struct series_table *table, const struct matcher *matchers, size_t count,
                 uint32_t **slots_out, size_t *count_out) {
    int status = STATUS_OK;
    struct slot_list list = {0};
    uint64_t retired = retired_so_far(table);
    size_t first;
    const struct pair *pair;
    TRY(list_reserve(&list, 1));
    TRY(matcher_first(table, matchers, count, &first, &pair));
    if (first == count)
        TRY(list_append(table, &list, &table->live));
    else if (matchers[first].kind != MATCHER_EQUAL)
        TRY(list_of_matcher(table, &matchers[first], &list));
    else if (pair != NULL)
        TRY(list_append(table, &list, &pair->postings));
    for (size_t i = 0; i < count && list.count > 0; i++)
        if (i != first)
            TRY(list_filter(table, &matchers[i], &list));
    if (retired_so_far(table) != retired)
        list_filter_set(table, &list, &table->live, true);
out:
    if (status < 0) {
        mem_free(list.slots);
        return status;
    }
    *slots_out = list.slots;
    *count_out = list.count;
    return status;
}

/* ---- matching a few slots at a time ---- */

struct series_walk {
    struct series_table *table;
    const struct number_set *candidates; /* NULL: none */
    size_t count;
    struct verdicts verdicts[]; /* by matcher */
};

int series_walk_open(struct series_table *table, const struct matcher *matchers, size_t count,
                     struct series_walk **out) {
    int status = STATUS_OK;
    size_t first;
    const struct pair *pair;
    struct series_walk *walk = mem_zalloc(sizeof *walk + count * sizeof walk->verdicts[0]);
    if (walk == NULL)
        return STATUS_NO_MEMORY;
    walk->table = table;
    for (; walk->count < count; walk->count++)
        TRY(verdicts_open(table, &matchers[walk->count], &walk->verdicts[walk->count]));
    TRY(matcher_first(table, matchers, count, &first, &pair));
    if (first < count && matchers[first].kind == MATCHER_EQUAL)
        walk->candidates = pair == NULL ? NULL : &pair->postings;
    else
        walk->candidates = &table->live;
    *out = walk;
    return STATUS_OK;
out:
    series_walk_close(walk);
    return status;
}

void series_walk_close(struct series_walk *walk) {
    for (size_t i = 0; walk != NULL && i < walk->count; i++)
        mem_free(walk->verdicts[i].by_pair);
    mem_free(walk);
}

bool series_walk_meets(struct series_walk *walk, uint32_t slot) {
    for (size_t i = 0; i < walk->count; i++)
        if (!verdict_of(walk->table, &walk->verdicts[i], slot))
            return false;
    return true;
}

size_t series_walk_next(struct series_walk *walk, uint32_t *from, uint32_t *slots, size_t max, bool *more) {
    size_t count = 0, kept = 0;
    ASSERT(max > 0 && max <= SERIES_WALK_MAX);
    if (walk->candidates != NULL) {
        pthread_rwlock_rdlock(&walk->table->index_lock);
        count = number_set_list(walk->candidates, *from, slots, max);
        pthread_rwlock_unlock(&walk->table->index_lock);
    }
    *more = count == max;
    if (count > 0)
        *from = slots[count - 1] + 1;
    for (size_t i = 0; i < count; i++)
        if (series_walk_meets(walk, slots[i]))
            slots[kept++] = slots[i];
    return kept;
}

/* ---- walking ---- */

int series_each_name(struct series_table *table, int (*each)(void *context, struct slice name),
                     void *context) {
    for (uint32_t index = 0;;) {
        struct slice names[VALUES_HELD];
        size_t count = 0;
        pthread_rwlock_rdlock(&table->index_lock);
        uint32_t end = table->name_end;
        for (; index < end && count < VALUES_HELD; index++)
            if (table->names[index].pairs.count > 0)
                names[count++] = table->names[index].text;
        pthread_rwlock_unlock(&table->index_lock);
        for (size_t i = 0; i < count; i++) {
            int status = each(context, names[i]);
            if (status < 0)
                return status;
        }
        if (index >= end)
            return STATUS_OK;
    }
}

/* Some values of a name and their slots, copied under one hold of the lock. */
struct value_slice {
    uint32_t pairs[VALUES_HELD];
    uint32_t ends[VALUES_HELD]; /* of their slots */
    uint32_t slots[SLOTS_HELD];
    size_t count;
    uint32_t pair; /* where the next slice begins */
    uint32_t slot;
};

/* False: no more. */
static bool value_slice_next(struct series_table *table, uint32_t name, struct value_slice *slice) {
    uint32_t numbers[VALUES_HELD], end = 0;
    slice->count = 0;
    pthread_rwlock_rdlock(&table->index_lock);
    size_t count = number_set_list(&table->names[name].pairs, slice->pair, numbers, VALUES_HELD);
    for (size_t i = 0; i < count && end < SLOTS_HELD; i++) {
        if (numbers[i] != slice->pair)
            slice->slot = 0; /* the one that was begun is gone */
        size_t room = SLOTS_HELD - end;
        size_t slots =
            number_set_list(&pair_at(table, numbers[i])->postings, slice->slot, slice->slots + end, room);
        end += (uint32_t)slots;
        slice->pairs[slice->count] = numbers[i];
        slice->ends[slice->count++] = end;
        slice->pair = numbers[i];
        if (slots == room) {
            slice->slot = slice->slots[end - 1] + 1;
        } else {
            slice->pair++;
            slice->slot = 0;
        }
    }
    pthread_rwlock_unlock(&table->index_lock);
    return count > 0;
}

int series_each_value(struct series_table *table, struct slice name,
                      int (*each)(void *context, struct slice value, const uint32_t *slots,
                                  size_t slot_count),
                      void *context) {
    uint32_t index = name_find(table, name);
    if (index == NUMBER_NONE)
        return STATUS_OK;
    struct value_slice slice = {0};
    while (value_slice_next(table, index, &slice)) {
        int status = STATUS_OK;
        for (size_t i = 0, begin = 0; i < slice.count; begin = slice.ends[i++]) {
            if (slice.ends[i] == begin)
                continue;
            struct slice value = pair__label(pair_at(table, slice.pairs[i])).value;
            status = each(context, value, slice.slots + begin, slice.ends[i] - begin);
            if (status < 0)
                return status;
        }
        if (status == SERIES_EACH_ENOUGH && slice.slot != 0) {
            slice.pair++;
            slice.slot = 0;
        }
    }
    return STATUS_OK;
}
