/* series.c: the series table: finding, making, labels. Names and pairs are in series_pairs.c, matching in
 * series_match.c, leaving in series_retire.c, numbers and loading in series_numbers.c.
 *
 * A lookup hashes the label bytes as they came and probes the stripe's open-addressed map; a candidate counts
 * only if every one of its pairs equals the bytes (the hash alone never decides). A miss makes the labels
 * canonical and probes again under the index lock, so that a series exists once however its sender orders
 * labels. */
#include "storage/series/series.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/metrics.h"
#include "storage/series/series_private.h"

#define GATHER_BYTES 1024

/* ---- life ---- */

static void lock_init(pthread_rwlock_t *lock) {
    /* Making a series must not wait for one query after the other. */
    pthread_rwlockattr_t attributes;
    pthread_rwlockattr_init(&attributes);
    pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(lock, &attributes);
    pthread_rwlockattr_destroy(&attributes);
}

int series_table_new(uint64_t seed, const struct label_limits *limits, uint64_t series_max,
                     struct series_table **out) {
    struct series_table *table = mem_zalloc(sizeof *table);
    if (table == NULL)
        return STATUS_NO_MEMORY;
    table->seed = seed;
    table->limits = *limits;
    table->series_max = series_max;
    table->id_next = 1;
    lock_init(&table->index_lock);
    slab_init(&table->texts, 4);
    slab_init(&table->lists, 4);
    slab_init(&table->sets, 8);
    table->name_free = table->pair_free = table->slot_free = table->slot_held = NUMBER_NONE;
    table->name_dead = table->pair_dead = NUMBER_NONE;
    stable_array_init(&table->pairs, sizeof(struct pair));
    stable_array_init(&table->entries, sizeof(struct series_entry));
    *out = table;
    return STATUS_OK;
}

static size_t list_bytes(uint32_t pair_count) {
    return (pair_count + (size_t)1) * sizeof(uint32_t);
}

void series_table_free(struct series_table *table) {
    if (table == NULL)
        return;
    uint32_t slots = series_slot_end(table);
    for (uint32_t slot = 0; slot < slots; slot++)
        if (entry_at(table, slot)->pairs != NULL)
            slab_free(&table->lists, entry_at(table, slot)->pairs,
                      list_bytes(entry_at(table, slot)->pairs[0]));
    series__pairs_release(table);
    for (size_t i = 0; i < STRIPES; i++)
        hash_map_release(&table->stripes[i].map);
    number_set_release(&table->live, &table->sets);
    number_set_release(&table->changed_slots, &table->sets);
    number_set_release(&table->changed_pairs, &table->sets);
    number_set_release(&table->retire.slots, &table->sets);
    slab_release(&table->texts);
    slab_release(&table->lists);
    slab_release(&table->sets);
    stable_array_release(&table->pairs);
    stable_array_release(&table->entries);
    pthread_rwlock_destroy(&table->index_lock);
    mem_free(table);
}

/* ---- finding ---- */

uint64_t series_hash(const struct series_table *table, struct slice labels) {
    return series__hash(table, labels);
}

uint64_t series__slot_hash(struct series_table *table, uint32_t slot) {
    const uint32_t *pairs = entry_at(table, slot)->pairs;
    uint8_t bytes[GATHER_BYTES];
    size_t len = 0;
    uint32_t i = 1;
    for (; i <= pairs[0]; i++) {
        struct slice pair = pair_bytes(pair_at(table, pairs[i]));
        if (pair.len > sizeof bytes - len)
            break;
        memcpy(bytes + len, pair.data, pair.len);
        len += pair.len;
    }
    if (i > pairs[0])
        return series__hash(table, slice_of(bytes, len));
    XXH3_state_t state;
    XXH3_INITSTATE(&state);
    XXH3_64bits_reset_withSeed(&state, table->seed);
    for (i = 1; i <= pairs[0]; i++) {
        struct slice pair = pair_bytes(pair_at(table, pairs[i]));
        XXH3_64bits_update(&state, pair.data, pair.len);
    }
    return XXH3_64bits_digest(&state);
}

/* Do the pairs of the slot, one after the other, spell exactly these bytes? */
static bool entry_equals(struct series_table *table, uint32_t slot, struct slice labels) {
    const uint32_t *pairs = entry_at(table, slot)->pairs;
    const uint8_t *p = labels.data;
    size_t left = labels.len;
    for (uint32_t i = 1; i <= pairs[0]; i++) {
        struct slice pair = pair_bytes(pair_at(table, pairs[i]));
        if (pair.len > left || !bytes_equal(pair.data, p, pair.len))
            return false;
        p += pair.len;
        left -= pair.len;
    }
    return left == 0;
}

uint32_t series_find(struct series_table *table, uint64_t hash, struct slice labels) {
    struct stripe *stripe = stripe_of(table, hash);
    uint32_t at = UINT32_MAX, found = SLOT_NONE;
    struct hash_cell *cell;
    spin_lock(&stripe->lock);
    while ((cell = hash_map_next(&stripe->map, hash_tag(hash), &at)) != NULL)
        if (entry_equals(table, hash_cell_number(cell), labels)) {
            found = hash_cell_number(cell);
            if ((cell->value & HASH_CELL_MARK) == 0)
                cell->value |= HASH_CELL_MARK;
            break;
        }
    spin_unlock(&stripe->lock);
    return found;
}

/* The first slot that the hash leads to, most likely the one: there, marked as looked up; or SLOT_NONE. */
static uint32_t series_guess(struct series_table *table, uint64_t hash) {
    struct stripe *stripe = stripe_of(table, hash);
    uint32_t at = UINT32_MAX, found = SLOT_NONE;
    spin_lock(&stripe->lock);
    struct hash_cell *cell = hash_map_next(&stripe->map, hash_tag(hash), &at);
    if (cell != NULL) {
        found = hash_cell_number(cell);
        if ((cell->value & HASH_CELL_MARK) == 0)
            cell->value |= HASH_CELL_MARK;
    }
    spin_unlock(&stripe->lock);
    return found;
}

/* Each step asks for what the next one looks at. */
void series_find_many(struct series_table *table, const struct slice *labels, size_t count,
                      uint32_t *slots_out) {
    uint64_t hashes[SERIES_FIND_MANY];
    uint32_t slots[SERIES_FIND_MANY];
    ASSERT(count <= SERIES_FIND_MANY);
    for (size_t i = 0; i < count; i++) {
        hashes[i] = series_hash(table, labels[i]);
        __builtin_prefetch(stripe_of(table, hashes[i]), 1);
    }
    for (size_t i = 0; i < count; i++)
        hash_map_prefetch(&stripe_of(table, hashes[i])->map, hash_tag(hashes[i]));
    for (size_t i = 0; i < count; i++) {
        slots[i] = series_guess(table, hashes[i]);
        if (slots[i] != SLOT_NONE)
            __builtin_prefetch(entry_at(table, slots[i]));
    }
    for (size_t i = 0; i < count; i++)
        if (slots[i] != SLOT_NONE)
            __builtin_prefetch(entry_at(table, slots[i])->pairs);
    for (size_t i = 0; i < count; i++)
        slots_out[i] = slots[i] == SLOT_NONE || entry_equals(table, slots[i], labels[i])
                           ? slots[i]
                           : series_find(table, hashes[i], labels[i]);
}

/* ---- making; all under the index lock in write mode ---- */

/* The pairs of canonical labels, in `pairs` behind a count; those made have no postings yet. */
static int pairs_ensure(struct series_table *table, struct slice labels, struct arena *scratch,
                        uint32_t **out) {
    uint32_t count = 0;
    struct label label;
    struct slice whole;
    for (struct slice rest = labels; label_next(&rest, &label, NULL);)
        count++;
    uint32_t *pairs = ARENA_ARRAY(scratch, uint32_t, count + 1);
    if (pairs == NULL)
        return STATUS_NO_MEMORY;
    *out = pairs;
    for (struct slice rest = labels; label_next(&rest, &label, &whole);) {
        int status = series__pair_ensure(table, &label, whole, &pairs[pairs[0] + 1]);
        if (status < 0)
            return status;
        pairs[0]++;
    }
    return STATUS_OK;
}

/* Room in all sets that a new series in `slot` goes into. */
static int sets_reserve(struct series_table *table, uint32_t slot, const uint32_t *pairs) {
    int status = STATUS_OK;
    for (uint32_t i = 1; i <= pairs[0]; i++)
        TRY(number_set_reserve(&pair_at(table, pairs[i])->postings, &table->sets, slot));
    TRY(number_set_reserve(&table->live, &table->sets, slot));
    if (!number_set_has(&table->changed_slots, slot))
        TRY(number_set_reserve(&table->changed_slots, &table->sets, slot));
out:
    return status;
}

static void sets_add(struct series_table *table, uint32_t slot, const uint32_t *pairs) {
    for (uint32_t i = 1; i <= pairs[0]; i++)
        number_set_add(&pair_at(table, pairs[i])->postings, slot);
    number_set_add(&table->live, slot);
    if (!number_set_has(&table->changed_slots, slot))
        number_set_add(&table->changed_slots, slot);
}

static int series_make(struct series_table *table, uint64_t hash, struct slice labels, uint64_t id,
                       struct arena *scratch, uint32_t *slot_out) {
    int status = STATUS_OK;
    uint32_t *pairs = NULL, *list = NULL;
    uint32_t end = series_slot_end(table);
    uint32_t slot = table->slot_free != NUMBER_NONE ? table->slot_free : end;
    if (series_count(table) >= table->series_max || slot == SLOT_NONE)
        return STATUS_BUSY;
    TRY(pairs_ensure(table, labels, scratch, &pairs));
    TRY(stable_array_ensure(&table->entries, slot));
    TRY(sets_reserve(table, slot, pairs));
    list = slab_alloc(&table->lists, list_bytes(pairs[0]));
    if (list == NULL) {
        status = STATUS_NO_MEMORY;
        goto out;
    }
    memcpy(list, pairs, list_bytes(pairs[0]));

    struct stripe *stripe = stripe_of(table, hash);
    struct series_entry *entry = entry_at(table, slot);
    uint32_t next_free = (uint32_t)entry->id; /* if it is a free one */
    spin_lock(&stripe->lock);
    status = hash_map_reserve(&stripe->map, 1);
    if (status == STATUS_OK) {
        entry->id = id != 0 ? id : table->id_next;
        entry->pairs = list;
        hash_map_add(&stripe->map, hash_tag(hash), slot, HASH_CELL_MARK);
    }
    spin_unlock(&stripe->lock);
    TRY(status);

    if (id == 0)
        table->id_next++;
    sets_add(table, slot, pairs);
    if (slot == end)
        atomic_store_explicit(&table->slot_end, slot + 1, memory_order_release);
    else
        table->slot_free = next_free;
    atomic_fetch_add_explicit(&table->series_count, 1, memory_order_relaxed);
    metric_add(METRIC_head_series_created, 1);
    *slot_out = slot;
    return STATUS_OK;
out:
    if (list != NULL)
        slab_free(&table->lists, list, list_bytes(pairs[0]));
    for (uint32_t i = 1; pairs != NULL && i <= pairs[0]; i++)
        if (pair_at(table, pairs[i])->postings.count == 0)
            series__pair_unlink(table, pairs[i]);
    return status;
}

int series_ensure(struct series_table *table, struct slice labels, uint64_t id, struct arena *scratch,
                  enum label_fault *fault_out, uint32_t *slot_out) {
    struct slice canonical;
    enum label_fault fault;
    int status = label_bytes_canonicalise(labels, &table->limits, scratch, &fault, &canonical);
    if (status < 0)
        return status;
    *fault_out = fault;
    if (fault != LABEL_FAULT_NONE)
        return STATUS_OK;
    uint64_t hash = series__hash(table, canonical);
    pthread_rwlock_wrlock(&table->index_lock);
    /* Given out is given out, even if the series is here under another id: it may have left and come back. */
    if (id >= table->id_next)
        table->id_next = id + 1;
    uint32_t slot = series_find(table, hash, canonical);
    if (slot == SLOT_NONE)
        status = series_make(table, hash, canonical, id, scratch, &slot);
    pthread_rwlock_unlock(&table->index_lock);
    if (status == STATUS_OK)
        *slot_out = slot;
    return status;
}

/* ---- what is known of a slot ---- */

uint32_t series_count(struct series_table *table) {
    return atomic_load_explicit(&table->series_count, memory_order_relaxed);
}

uint32_t series_slot_end(struct series_table *table) {
    return atomic_load_explicit(&table->slot_end, memory_order_acquire);
}

uint64_t series_id(struct series_table *table, uint32_t slot) {
    return entry_at(table, slot)->id;
}

uint64_t series_id_next(struct series_table *table) {
    pthread_rwlock_rdlock(&table->index_lock);
    uint64_t id = table->id_next;
    pthread_rwlock_unlock(&table->index_lock);
    return id;
}

void series_id_next_set(struct series_table *table, uint64_t id) {
    pthread_rwlock_wrlock(&table->index_lock);
    if (id > table->id_next)
        table->id_next = id;
    pthread_rwlock_unlock(&table->index_lock);
}

int series_labels_order(struct series_table *table, uint32_t a, uint32_t b) {
    const uint32_t *x = entry_at(table, a)->pairs, *y = entry_at(table, b)->pairs;
    uint32_t i = 1, j = 1;
    /* Shared pairs are the same number; the first that differ decide, unless one's bytes begin the other's.
     */
    while (i <= x[0] && j <= y[0] && x[i] == y[j])
        i++, j++;
    size_t x_at = 0, y_at = 0;
    while (i <= x[0] && j <= y[0]) {
        struct slice p = pair_bytes(pair_at(table, x[i])), q = pair_bytes(pair_at(table, y[j]));
        size_t len = p.len - x_at < q.len - y_at ? p.len - x_at : q.len - y_at;
        int order = memcmp(p.data + x_at, q.data + y_at, len);
        if (order != 0)
            return order;
        x_at += len;
        y_at += len;
        if (x_at == p.len)
            i++, x_at = 0;
        if (y_at == q.len)
            j++, y_at = 0;
    }
    return (i <= x[0]) - (j <= y[0]);
}

void series_labels_append(struct series_table *table, uint32_t slot, struct buf *buf) {
    const uint32_t *pairs = entry_at(table, slot)->pairs;
    for (uint32_t i = 1; i <= pairs[0]; i++) {
        struct slice pair = pair_bytes(pair_at(table, pairs[i]));
        buf_append(buf, pair.data, pair.len);
    }
}

size_t series_labels_len(struct series_table *table, uint32_t slot) {
    const uint32_t *pairs = entry_at(table, slot)->pairs;
    size_t len = 0;
    for (uint32_t i = 1; i <= pairs[0]; i++)
        len += pair_bytes(pair_at(table, pairs[i])).len;
    return len;
}

size_t series_labels(struct series_table *table, uint32_t slot, struct label *out, size_t max) {
    const uint32_t *pairs = entry_at(table, slot)->pairs;
    size_t count = pairs[0] < max ? pairs[0] : max;
    for (size_t i = 0; i < count; i++)
        out[i] = pair__label(pair_at(table, pairs[i + 1]));
    return count;
}

size_t series_labels_named(struct series_table *table, uint32_t slot, const struct slice *names,
                           size_t name_count, struct label *out, size_t max) {
    if (name_count == 0)
        return 0;
    const uint32_t *pairs = entry_at(table, slot)->pairs;
    size_t count = 0;
    for (uint32_t i = 1; i <= pairs[0] && count < max; i++) {
        struct label label = pair__label(pair_at(table, pairs[i]));
        if (slice_among(label.name, names, name_count))
            out[count++] = label;
    }
    return count;
}

struct slice series_label(struct series_table *table, uint32_t slot, struct slice name) {
    const uint32_t *pairs = entry_at(table, slot)->pairs;
    for (uint32_t i = 1; i <= pairs[0]; i++) {
        struct label label = pair__label(pair_at(table, pairs[i]));
        if (slice_equal(label.name, name))
            return label.value;
    }
    return (struct slice){NULL, 0};
}
