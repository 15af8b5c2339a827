/* series_stats.c: how many series a metric, a label, a pair has; and how many bytes the table. */
#include <stdlib.h>

#include "base/alloc.h"
#include "storage/series/series_private.h"

/* ---- the largest few ---- */

/* Pair or name numbers by count, descending; those with equal counts in the order in which they came. */
struct top {
    struct top_row {
        uint32_t number;
        uint64_t count;
    } * rows;
    size_t count;
    size_t limit;
};

static void top_add(struct top *top, uint32_t number, uint64_t count) {
    if (top->count == top->limit && (top->limit == 0 || top->rows[top->count - 1].count >= count))
        return;
    size_t at = top->count < top->limit ? top->count++ : top->count - 1;
    for (; at > 0 && top->rows[at - 1].count < count; at--)
        top->rows[at] = top->rows[at - 1];
    top->rows[at] = (struct top_row){number, count};
}

static int top_init(struct top *top, size_t limit, struct arena *arena) {
    top->limit = limit;
    top->rows = ARENA_ARRAY(arena, struct top_row, limit + 1);
    return top->rows == NULL ? STATUS_NO_MEMORY : STATUS_OK;
}

static int text_copy(struct arena *arena, struct slice text, struct slice *out) {
    *out = arena_copy(arena, text);
    return out->data == NULL ? STATUS_NO_MEMORY : STATUS_OK;
}

/* ---- counting ---- */

struct name_count {
    uint64_t values;
    uint64_t bytes;
};

struct counting {
    struct name_count *names;
    size_t name_count;
    uint32_t metric_name; /* the index of __name__ */
    struct top by_metric;
    struct top by_pair;
};

/* As Prometheus counts the size of a label in one series: both texts, and a length of 1 byte for each, or of
 * 4 from 255 bytes on. */
static uint64_t label_bytes(struct label label) {
    return label.name.len + (label.name.len < 255 ? 1 : 4) + label.value.len +
           (label.value.len < 255 ? 1 : 4);
}

/* One slice: pairs from `from` on; false: no more. */
static int count_slice(struct series_table *table, struct counting *counting, uint32_t from) {
    int status = STATUS_OK;
    pthread_rwlock_rdlock(&table->index_lock);
    if (counting->name_count < table->name_end) {
        struct name_count *names = mem_realloc(counting->names, table->name_end * sizeof *names);
        if (names == NULL) {
            status = STATUS_NO_MEMORY;
            goto out;
        }
        memset(names + counting->name_count, 0, (table->name_end - counting->name_count) * sizeof *names);
        counting->names = names;
        counting->name_count = table->name_end;
    }
    for (uint32_t number = from; number < table->pair_end && number < from + LOCKED_SLICE; number++) {
        const struct pair *pair = pair_at(table, number);
        if (pair->bytes == NULL || pair->postings.count == 0)
            continue;
        uint32_t name = pair->postings.owner;
        uint64_t series = pair->postings.count;
        counting->names[name].values++;
        counting->names[name].bytes += label_bytes(pair__label(pair)) * series;
        top_add(&counting->by_pair, number, series);
        if (name == counting->metric_name)
            top_add(&counting->by_metric, number, series);
    }
    status = from + LOCKED_SLICE < table->pair_end ? STATUS_OK : STATUS_END;
out:
    pthread_rwlock_unlock(&table->index_lock);
    return status;
}

static int pairs_tell(struct series_table *table, const struct top *top, struct arena *arena, bool metric,
                      struct series_stat **out, size_t *count_out) {
    int status = STATUS_OK;
    struct series_stat *stats = ARENA_ARRAY(arena, struct series_stat, top->count + 1);
    if (stats == NULL)
        return STATUS_NO_MEMORY;
    for (size_t i = 0; i < top->count; i++) {
        struct label label = pair__label(pair_at(table, top->rows[i].number));
        stats[i].count = top->rows[i].count;
        TRY(text_copy(arena, metric ? label.value : label.name, &stats[i].name));
        if (!metric)
            TRY(text_copy(arena, label.value, &stats[i].value));
    }
    *out = stats;
    *count_out = top->count;
out:
    return status;
}

static int names_tell(struct series_table *table, const struct counting *counting, bool bytes, size_t limit,
                      struct arena *arena, struct series_stat **out, size_t *count_out) {
    int status = STATUS_OK;
    struct top top = {0};
    TRY(top_init(&top, limit, arena));
    for (uint32_t i = 0; i < counting->name_count; i++)
        if (counting->names[i].values > 0)
            top_add(&top, i, bytes ? counting->names[i].bytes : counting->names[i].values);
    struct series_stat *stats = ARENA_ARRAY(arena, struct series_stat, top.count + 1);
    if (stats == NULL)
        return STATUS_NO_MEMORY;
    for (size_t i = 0; i < top.count; i++) {
        stats[i].count = top.rows[i].count;
        pthread_rwlock_rdlock(&table->index_lock);
        struct slice text = table->names[top.rows[i].number].text;
        pthread_rwlock_unlock(&table->index_lock);
        TRY(text_copy(arena, text, &stats[i].name));
    }
    *out = stats;
    *count_out = top.count;
out:
    return status;
}

int series_stats(struct series_table *table, size_t limit, struct arena *arena, struct series_stats *out) {
    int status = STATUS_OK;
    struct counting counting = {0};
    struct series_stats stats = {0};
    unsigned pin = series_pin(table);
    pthread_rwlock_rdlock(&table->index_lock);
    counting.metric_name = series__name_find(table, slice_str(LABEL_NAME_METRIC));
    pthread_rwlock_unlock(&table->index_lock);
    TRY(top_init(&counting.by_metric, limit, arena));
    TRY(top_init(&counting.by_pair, limit, arena));
    for (uint32_t from = 0; status != STATUS_END; from += LOCKED_SLICE)
        TRY(count_slice(table, &counting, from));
    status = STATUS_OK;
    stats.series = series_count(table);
    for (size_t i = 0; i < counting.name_count; i++)
        stats.pairs += counting.names[i].values;
    TRY(pairs_tell(table, &counting.by_metric, arena, true, &stats.by_metric, &stats.by_metric_count));
    TRY(pairs_tell(table, &counting.by_pair, arena, false, &stats.by_pair, &stats.by_pair_count));
    TRY(names_tell(table, &counting, false, limit, arena, &stats.by_name, &stats.by_name_count));
    TRY(names_tell(table, &counting, true, limit, arena, &stats.by_name_bytes, &stats.by_name_bytes_count));
    *out = stats;
out:
    series_unpin(table, pin);
    mem_free(counting.names);
    return status;
}

/* ---- memory ---- */

void series_memory(struct series_table *table, struct series_memory *out) {
    struct series_memory memory = {0};
    for (size_t i = 0; i < STRIPES; i++)
        memory.series_hash += sizeof table->stripes[i] + hash_map_bytes(&table->stripes[i].map);
    pthread_rwlock_rdlock(&table->index_lock);
    memory.entries = stable_array_bytes(&table->entries, series_slot_end(table));
    memory.pair_lists = slab_memory_bytes(&table->lists);
    memory.pairs =
        stable_array_bytes(&table->pairs, table->pair_end) + table->name_capacity * sizeof *table->names;
    memory.label_bytes = slab_memory_bytes(&table->texts);
    memory.postings = slab_memory_bytes(&table->sets);
    memory.pair_hash = hash_map_bytes(&table->name_map);
    for (size_t i = 0; i < STRIPES; i++)
        memory.pair_hash += sizeof table->pair_maps[i] + hash_map_bytes(&table->pair_maps[i]);
    pthread_rwlock_unlock(&table->index_lock);
    memory.total = memory.entries + memory.pair_lists + memory.series_hash + memory.pairs +
                   memory.label_bytes + memory.pair_hash + memory.postings;
    *out = memory;
}
