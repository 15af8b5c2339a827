/* series_match.c: matchers → slots, and the walk over names and values.
 *
 * The smallest set that some matcher gives by itself is the candidates: the postings of `name="value"`, or
 * the union over the values that a regular expression or `!=""` accepts. Each other matcher is then asked of
 * the candidates only, and of each distinct label pair once: what is costly (a regular expression) runs over
 * the values that occur among the candidates, not over all. */
#include <stdlib.h>

#include "base/assert.h"
#include "storage/series/series_private.h"

struct slot_list {
    uint32_t *slots;
    size_t count;
    size_t capacity;
};

static int list_append(struct slot_list *list, const uint32_t *slots, size_t count) {
    if (count == 0) /* of a pair whose series could not be made */
        return STATUS_OK;
    if (count > list->capacity - list->count) {
        size_t capacity = list->capacity * 2 > list->count + count ? list->capacity * 2 : list->count + count;
        uint32_t *grown = mem_realloc(list->slots, capacity * sizeof *grown);
        if (grown == NULL)
            return STATUS_NO_MEMORY;
        list->slots = grown;
        list->capacity = capacity;
    }
    memcpy(list->slots + list->count, slots, count * sizeof *slots);
    list->count += count;
    return STATUS_OK;
}

/* Does the value pass what the pattern tells beforehand? False only if it cannot match. */
static bool hint_admits(const struct matcher *matcher, struct slice value) {
    return matcher->kind != MATCHER_REGEX || slice_starts_with(value, matcher->pattern->prefix);
}

static int slot_order(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* The slots whose value of the matcher's label is there and satisfies it; a slot has one value of a name, so
 * the postings of different values are disjoint. */
static int slots_of_matcher(struct series_table *table, const struct matcher *matcher,
                            struct slot_list *list) {
    int status = STATUS_OK;
    if (matcher->kind == MATCHER_REGEX && matcher->pattern->literal_count > 0) {
        for (size_t i = 0; i < matcher->pattern->literal_count; i++) {
            struct pair *pair;
            TRY(series__pair_find(table, matcher->name, matcher->pattern->literals[i], &pair));
            if (pair != NULL)
                TRY(list_append(list, postings_slots(&pair->postings), pair->postings.count));
        }
    } else {
        uint32_t name_index = series__name_find(table, matcher->name);
        if (name_index == UINT32_MAX)
            return STATUS_OK;
        const struct label_name *name = &table->names[name_index];
        for (uint32_t i = 0; i < name->pair_count; i++) {
            const struct pair *pair = pair_at(table, name->pairs[i]);
            struct slice value = pair__value(pair);
            if (hint_admits(matcher, value) && matcher_match(matcher, value))
                TRY(list_append(list, postings_slots(&pair->postings), pair->postings.count));
        }
    }
    if (list->count > 0)
        qsort(list->slots, list->count, sizeof *list->slots, slot_order);
out:
    return status;
}

/* One matcher asked of many slots, with the answer kept by pair id. */
struct verdicts {
    const struct matcher *matcher;
    uint32_t name_index; /* UINT32_MAX: no series has the label */
    bool absent_matches;
    uint8_t *by_pair; /* 0 not asked, 1 yes, 2 no */
};

static bool verdict_of(struct series_table *table, struct verdicts *verdicts, uint32_t slot) {
    const uint32_t *pairs = entry_at(table, slot)->pairs;
    for (uint32_t i = 1; i <= pairs[0] && verdicts->name_index != UINT32_MAX; i++) {
        const struct pair *pair = pair_at(table, pairs[i]);
        if (pair->name != verdicts->name_index)
            continue;
        uint8_t *known = &verdicts->by_pair[pairs[i]];
        if (*known == 0) {
            struct slice value = pair__value(pair);
            *known = hint_admits(verdicts->matcher, value) && matcher_match(verdicts->matcher, value) ? 1 : 2;
        }
        return *known == 1;
    }
    return verdicts->absent_matches;
}

static int list_filter(struct series_table *table, const struct matcher *matcher, struct slot_list *list) {
    struct verdicts verdicts = {.matcher = matcher,
                                .name_index = series__name_find(table, matcher->name),
                                .absent_matches = matcher_match(matcher, (struct slice){NULL, 0})};
    verdicts.by_pair = mem_zalloc(table->pair_count);
    if (verdicts.by_pair == NULL)
        return STATUS_NO_MEMORY;
    size_t kept = 0;
    for (size_t i = 0; i < list->count; i++)
        if (verdict_of(table, &verdicts, list->slots[i]))
            list->slots[kept++] = list->slots[i];
    list->count = kept;
    mem_free(verdicts.by_pair);
    return STATUS_OK;
}

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
            TRY(series__pair_find(table, matcher->name, matcher->value, &pair));
            size_t slots = pair == NULL ? 0 : pair->postings.count;
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

int series_match(struct series_table *table, const struct matcher *matchers, size_t count,
                 uint32_t **slots_out, size_t *count_out) {
    int status = STATUS_OK;
    struct slot_list list = {0};
    pthread_rwlock_rdlock(&table->index_lock);
    size_t first;
    const struct pair *pair;
    TRY(matcher_first(table, matchers, count, &first, &pair));
    if (first == count) {
        uint32_t slots = series_count(table);
        list.slots = mem_alloc(slots * sizeof *list.slots);
        if (list.slots == NULL) {
            status = STATUS_NO_MEMORY;
            goto out;
        }
        for (uint32_t slot = 0; slot < slots; slot++)
            list.slots[slot] = slot;
        list.count = list.capacity = slots;
    } else if (matchers[first].kind == MATCHER_EQUAL) {
        if (pair != NULL)
            TRY(list_append(&list, postings_slots(&pair->postings), pair->postings.count));
    } else {
        TRY(slots_of_matcher(table, &matchers[first], &list));
    }
    for (size_t i = 0; i < count && list.count > 0; i++)
        if (i != first)
            TRY(list_filter(table, &matchers[i], &list));
out:
    pthread_rwlock_unlock(&table->index_lock);
    if (status < 0) {
        mem_free(list.slots);
        return status;
    }
    *slots_out = list.slots;
    *count_out = list.count;
    return status;
}

int series_each_name(struct series_table *table, int (*each)(void *context, struct slice name),
                     void *context) {
    int status = STATUS_OK;
    pthread_rwlock_rdlock(&table->index_lock);
    for (uint32_t i = 0; i < table->name_count; i++)
        TRY(each(context, table->names[i].text));
out:
    pthread_rwlock_unlock(&table->index_lock);
    return status;
}

int series_each_value(struct series_table *table, struct slice name,
                      int (*each)(void *context, struct slice value, const uint32_t *slots,
                                  size_t slot_count),
                      void *context) {
    int status = STATUS_OK;
    pthread_rwlock_rdlock(&table->index_lock);
    uint32_t index = series__name_find(table, name);
    for (uint32_t i = 0; index != UINT32_MAX && i < table->names[index].pair_count; i++) {
        const struct pair *pair = pair_at(table, table->names[index].pairs[i]);
        TRY(each(context, pair__value(pair), postings_slots(&pair->postings), pair->postings.count));
    }
out:
    pthread_rwlock_unlock(&table->index_lock);
    return status;
}
