/* series_numbers.c: numbers of slots and pairs, which of them changed, and filling a table from numbered
 * pairs and series.
 *
 * Loading spares what making a series one by one costs: each pair is hashed once and not once a series, maps
 * get their size at once, and postings, which take about half of the time, are filled by a thread of their
 * own. */
#include <pthread.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "storage/series/series_private.h"

/* ---- changes ---- */

static size_t changed_take(struct series_table *table, struct number_set *changed, uint32_t *out,
                           size_t max) {
    pthread_rwlock_wrlock(&table->index_lock);
    size_t count = number_set_take(changed, &table->sets, out, max);
    pthread_rwlock_unlock(&table->index_lock);
    return count;
}

size_t series_changed_slots(struct series_table *table, uint32_t *out, size_t max) {
    return changed_take(table, &table->changed_slots, out, max);
}

size_t series_changed_pairs(struct series_table *table, uint32_t *out, size_t max) {
    return changed_take(table, &table->changed_pairs, out, max);
}

/* Under the index lock. */
static int changed_add(struct series_table *table, struct number_set *changed, uint32_t number) {
    if (number_set_has(changed, number))
        return STATUS_OK;
    int status = number_set_reserve(changed, &table->sets, number);
    if (status == STATUS_OK)
        number_set_add(changed, number);
    return status;
}

int series_changed_all(struct series_table *table) {
    int status = STATUS_OK;
    uint32_t slot_end = series_slot_end(table), pair_end = series_pair_end(table);
    for (uint32_t from = 0; from < slot_end || from < pair_end; from += LOCKED_SLICE) {
        pthread_rwlock_wrlock(&table->index_lock);
        for (uint32_t i = from; i < from + LOCKED_SLICE && status == STATUS_OK; i++) {
            if (i < slot_end && number_set_has(&table->live, i))
                status = changed_add(table, &table->changed_slots, i);
            if (i < pair_end && pair_at(table, i)->bytes != NULL && status == STATUS_OK)
                status = changed_add(table, &table->changed_pairs, i);
        }
        pthread_rwlock_unlock(&table->index_lock);
        if (status < 0)
            break;
    }
    return status;
}

uint32_t series_pair_end(struct series_table *table) {
    pthread_rwlock_rdlock(&table->index_lock);
    uint32_t end = table->pair_end;
    pthread_rwlock_unlock(&table->index_lock);
    return end;
}

struct slice series_pair(struct series_table *table, uint32_t number) {
    struct slice bytes = {NULL, 0};
    pthread_rwlock_rdlock(&table->index_lock);
    if (number < table->pair_end && pair_at(table, number)->bytes != NULL)
        bytes = pair_bytes(pair_at(table, number));
    pthread_rwlock_unlock(&table->index_lock);
    return bytes;
}

const uint32_t *series_pairs(struct series_table *table, uint32_t slot, uint32_t *count_out) {
    const uint32_t *pairs = NULL;
    pthread_rwlock_rdlock(&table->index_lock);
    if (number_set_has(&table->live, slot))
        pairs = entry_at(table, slot)->pairs;
    pthread_rwlock_unlock(&table->index_lock);
    if (pairs == NULL)
        return NULL;
    *count_out = pairs[0];
    return pairs + 1;
}

/* ---- loading: nobody else uses the table, so there are no locks ---- */

struct loading {
    struct series_table *table;
    const struct series_load *load;
    struct error_detail *detail;
    uint32_t *name_ranks; /* by name index: its place in the order of names */
    int postings_status;
};

#define AHEAD 32 /* numbers whose cells are fetched ahead */

/* What most stripes will hold of `count`: the mean and some. */
static uint32_t stripe_share(uint32_t count) {
    return count / STRIPES + count / STRIPES / 32 + 8;
}

static int load_pair(struct loading *loading, uint32_t number, uint64_t hash) {
    struct series_table *table = loading->table;
    struct slice bytes = loading->load->pairs[number], rest = bytes;
    struct label label;
    int status = stable_array_ensure(&table->pairs, number);
    if (status < 0)
        return status;
    table->pair_end = number + 1; /* what is made is found again by series_table_free */
    if (bytes.len == 0)
        return STATUS_OK;
    if (!label_next(&rest, &label, NULL) || rest.len > 0 || label.name.len == 0 || label.value.len == 0)
        return error_set(loading->detail, STATUS_CORRUPT, "pair %u is no label", number);
    if (series__pair_find(table, hash, bytes) != NUMBER_NONE)
        return error_set(loading->detail, STATUS_CORRUPT, "pair %u is there twice", number);
    return series__pair_make(table, number, &label, bytes, hash);
}

static int load_pairs(struct loading *loading) {
    struct series_table *table = loading->table;
    const struct series_load *load = loading->load;
    int status = STATUS_OK;
    for (uint32_t i = 0; i < STRIPES; i++)
        TRY(hash_map_reserve(&table->pair_maps[i], stripe_share(load->pair_end)));
    for (uint32_t from = 0; from < load->pair_end; from += AHEAD) {
        uint32_t end = load->pair_end - from < AHEAD ? load->pair_end : from + AHEAD;
        uint64_t hashes[AHEAD];
        for (uint32_t number = from; number < end; number++) {
            uint64_t hash = hashes[number - from] = series__hash(table, load->pairs[number]);
            hash_map_prefetch(&table->pair_maps[hash_stripe(hash)], hash_tag(hash));
        }
        for (uint32_t number = from; number < end; number++)
            TRY(load_pair(loading, number, hashes[number - from]));
    }
    for (uint32_t number = load->pair_end; number-- > 0;)
        if (load->pairs[number].len == 0) {
            pair_at(table, number)->postings.one = table->pair_free;
            table->pair_free = number;
        }
out:
    return status;
}

struct name_order {
    struct slice text;
    uint32_t index;
};

static int name_compare(const void *a, const void *b) {
    return slice_compare(((const struct name_order *)a)->text, ((const struct name_order *)b)->text);
}

static int load_name_ranks(struct loading *loading) {
    struct series_table *table = loading->table;
    struct name_order *order = mem_alloc((table->name_end + (size_t)1) * sizeof *order);
    loading->name_ranks = mem_alloc((table->name_end + (size_t)1) * sizeof *loading->name_ranks);
    if (order == NULL || loading->name_ranks == NULL) {
        mem_free(order);
        return STATUS_NO_MEMORY;
    }
    for (uint32_t i = 0; i < table->name_end; i++)
        order[i] = (struct name_order){table->names[i].text, i};
    qsort(order, table->name_end, sizeof *order, name_compare);
    for (uint32_t i = 0; i < table->name_end; i++)
        loading->name_ranks[order[i].index] = i;
    mem_free(order);
    return STATUS_OK;
}

/* Are the pairs of the entry there, and in the order of names? */
static bool entry_is_sound(const struct loading *loading, const struct series_load_entry *entry) {
    uint32_t rank_next = 0;
    for (uint32_t i = 0; i < entry->pair_count; i++) {
        if (entry->pairs[i] >= loading->load->pair_end)
            return false;
        const struct pair *pair = pair_at(loading->table, entry->pairs[i]);
        if (pair->bytes == NULL || loading->name_ranks[pair->postings.owner] < rank_next)
            return false;
        rank_next = loading->name_ranks[pair->postings.owner] + 1;
    }
    return true;
}

static bool list_equals(const uint32_t *list, const struct series_load_entry *entry) {
    return list[0] == entry->pair_count &&
           memcmp(list + 1, entry->pairs, entry->pair_count * sizeof *list) == 0;
}

static int load_entry(struct loading *loading, uint32_t slot) {
    struct series_table *table = loading->table;
    const struct series_load_entry *from = &loading->load->series[slot];
    if (!entry_is_sound(loading, from))
        return error_set(loading->detail, STATUS_CORRUPT, "series %u has no labels in order", slot);
    uint32_t *list = slab_alloc(&table->lists, (from->pair_count + (size_t)1) * sizeof *list);
    if (list == NULL)
        return STATUS_NO_MEMORY;
    list[0] = from->pair_count;
    memcpy(list + 1, from->pairs, from->pair_count * sizeof *list);
    *entry_at(table, slot) = (struct series_entry){from->id, list};
    if (from->id >= table->id_next)
        table->id_next = from->id + 1;
    return STATUS_OK;
}

static int load_cell(struct loading *loading, uint32_t slot, uint64_t hash) {
    struct series_table *table = loading->table;
    struct hash_map *map = &stripe_of(table, hash)->map;
    uint32_t at = UINT32_MAX;
    const struct hash_cell *cell;
    while ((cell = hash_map_next(map, hash_tag(hash), &at)) != NULL)
        if (list_equals(entry_at(table, hash_cell_number(cell))->pairs, &loading->load->series[slot]))
            return error_set(loading->detail, STATUS_CORRUPT, "series %u is there twice", slot);
    int status = hash_map_reserve(map, 1);
    if (status == STATUS_OK)
        hash_map_add(map, hash_tag(hash), slot, 0);
    return status;
}

/* Everything of the series but the postings. */
static int load_entries(struct loading *loading) {
    struct series_table *table = loading->table;
    const struct series_load *load = loading->load;
    int status = STATUS_OK;
    for (uint32_t i = 0; i < STRIPES; i++)
        TRY(hash_map_reserve(&table->stripes[i].map, stripe_share(load->slot_end)));
    uint32_t count = 0;
    for (uint32_t from = 0; from < load->slot_end; from += AHEAD) {
        uint32_t end = load->slot_end - from < AHEAD ? load->slot_end : from + AHEAD;
        uint64_t hashes[AHEAD];
        for (uint32_t slot = from; slot < end; slot++) {
            if (load->series[slot].pair_count == 0)
                continue;
            TRY(load_entry(loading, slot));
            uint64_t hash = hashes[slot - from] = series__slot_hash(table, slot);
            hash_map_prefetch(&stripe_of(table, hash)->map, hash_tag(hash));
        }
        for (uint32_t slot = from; slot < end; slot++)
            if (load->series[slot].pair_count != 0) {
                TRY(load_cell(loading, slot, hashes[slot - from]));
                count++;
            }
    }
    for (uint32_t slot = load->slot_end; slot-- > 0;)
        if (load->series[slot].pair_count == 0) {
            entry_at(table, slot)->id = table->slot_free;
            table->slot_free = slot;
        }
    atomic_store_explicit(&table->series_count, count, memory_order_relaxed);
out:
    return status;
}

static int load_postings(struct loading *loading) {
    struct series_table *table = loading->table;
    const struct series_load *load = loading->load;
    int status = STATUS_OK;
    for (uint32_t slot = 0; slot < load->slot_end; slot++) {
        const struct series_load_entry *entry = &load->series[slot];
        if (entry->pair_count == 0)
            continue;
        for (uint32_t i = 0; i < entry->pair_count; i++) {
            uint32_t number = entry->pairs[i];
            if (number >= load->pair_end || pair_at(table, number)->bytes == NULL)
                return STATUS_CORRUPT; /* told of by load_entries */
            if (i > 0 && number == entry->pairs[i - 1])
                return STATUS_CORRUPT;
            TRY(number_set_push(&pair_at(table, number)->postings, &table->sets, slot));
        }
        TRY(number_set_push(&table->live, &table->sets, slot));
    }
out:
    return status;
}

static void *load_postings_run(void *context) {
    struct loading *loading = context;
    loading->postings_status = load_postings(loading);
    return NULL;
}

int series_load(struct series_table *table, const struct series_load *load, struct error_detail *detail) {
    ASSERT(series_slot_end(table) == 0 && table->pair_end == 0);
    int status = STATUS_OK;
    struct loading loading = {.table = table, .load = load, .detail = detail};
    TRY(load_pairs(&loading));
    TRY(load_name_ranks(&loading));
    for (uint32_t slot = 0; slot < load->slot_end; slot++)
        TRY(stable_array_ensure(&table->entries, slot));
    atomic_store_explicit(&table->slot_end, load->slot_end, memory_order_release);
    pthread_t thread;
    bool threaded = load->threads > 1 && pthread_create(&thread, NULL, load_postings_run, &loading) == 0;
    status = load_entries(&loading);
    if (threaded)
        pthread_join(thread, NULL);
    else if (status == STATUS_OK)
        loading.postings_status = load_postings(&loading);
    TRY(status);
    TRY(loading.postings_status);
    for (uint32_t number = 0; number < load->pair_end; number++)
        if (load->pairs[number].len > 0 && pair_at(table, number)->postings.count == 0)
            series__pair_unlink(table, number);
out:
    mem_free(loading.name_ranks);
    return status < 0 ? error_set(detail, status, "%s", status_message(status)) : status;
}
