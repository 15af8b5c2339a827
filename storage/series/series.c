/* series.c: the series table: finding, making, labels. Matching is in series_match.c.
 *
 * A lookup hashes the label bytes as they came and probes the stripe's open-addressed map; a candidate counts
 * only if every one of its pairs equals the bytes (the hash alone never decides). A miss makes the labels
 * canonical and probes again under the index lock, so that a series exists once however its sender orders
 * labels. */
#include "storage/series/series.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/assert.h"
#include "storage/series/series_private.h"

#define MEMORY_PIECE_BYTES ((size_t)256 << 10)
#define MAP_CELLS_MIN      16u

/* ---- hash maps ---- */

/* Doubles before it is 3/4 full. */
static int map_grow(struct hash_map *map) {
    uint32_t cells_old = map->mask == 0 ? 0 : map->mask + 1;
    if (cells_old != 0 && map->count < cells_old / 4 * 3)
        return STATUS_OK;
    uint32_t cells_new = cells_old == 0 ? MAP_CELLS_MIN : cells_old * 2;
    struct hash_cell *cells = mem_zalloc(cells_new * sizeof *cells);
    if (cells == NULL)
        return STATUS_NO_MEMORY;
    for (uint32_t i = 0; i < cells_old; i++) {
        if (map->cells[i].number_plus_one == 0)
            continue;
        uint32_t at = map->cells[i].tag & (cells_new - 1);
        while (cells[at].number_plus_one != 0)
            at = (at + 1) & (cells_new - 1);
        cells[at] = map->cells[i];
    }
    mem_free(map->cells);
    map->cells = cells;
    map->mask = cells_new - 1;
    return STATUS_OK;
}

/* Room was made by map_grow. */
static void map_insert(struct hash_map *map, uint32_t tag, uint32_t number) {
    uint32_t at = tag & map->mask;
    while (map->cells[at].number_plus_one != 0)
        at = (at + 1) & map->mask;
    map->cells[at] = (struct hash_cell){tag, number + 1};
    map->count++;
}

/* The next number stored under `tag`, from *at on; false when there is no more. *at starts as the tag. */
static bool map_next(const struct hash_map *map, uint32_t tag, uint32_t *at, uint32_t *number) {
    if (map->mask == 0)
        return false;
    for (uint32_t i = *at & map->mask; map->cells[i].number_plus_one != 0; i = (i + 1) & map->mask)
        if (map->cells[i].tag == tag) {
            *number = map->cells[i].number_plus_one - 1;
            *at = i + 1;
            return true;
        }
    return false;
}

static uint64_t map_bytes(const struct hash_map *map) {
    return map->mask == 0 ? 0 : ((uint64_t)map->mask + 1) * sizeof *map->cells;
}

/* The stripe is taken from the hash's low bits, the place in it from the high ones. */
static struct stripe *stripe_of(struct series_table *table, uint64_t hash) {
    return &table->stripes[hash & ((1u << STRIPE_BITS) - 1)];
}

static uint32_t tag_of(uint64_t hash) {
    return (uint32_t)(hash >> 32);
}

/* ---- life ---- */

int series_table_new(uint64_t seed, const struct label_limits *limits, uint64_t series_max,
                     struct series_table **out) {
    struct series_table *table = mem_zalloc(sizeof *table);
    if (table == NULL)
        return STATUS_NO_MEMORY;
    table->seed = seed;
    table->limits = *limits;
    table->series_max = series_max;
    table->id_next = 1;
    pthread_rwlock_init(&table->index_lock, NULL);
    arena_init(&table->memory, MEMORY_PIECE_BYTES, 0);
    stable_array_init(&table->pairs, sizeof(struct pair));
    stable_array_init(&table->entries, sizeof(struct series_entry));
    *out = table;
    return STATUS_OK;
}

void series_table_free(struct series_table *table) {
    if (table == NULL)
        return;
    for (uint32_t i = 0; i < table->pair_count; i++)
        if (pair_at(table, i)->postings.capacity != 0)
            mem_free(pair_at(table, i)->postings.many);
    for (uint32_t i = 0; i < table->name_count; i++)
        mem_free(table->names[i].pairs);
    mem_free(table->names);
    for (size_t i = 0; i < 1u << STRIPE_BITS; i++)
        mem_free(table->stripes[i].map.cells);
    mem_free(table->pair_map.cells);
    mem_free(table->name_map.cells);
    arena_release(&table->memory);
    stable_array_release(&table->pairs);
    stable_array_release(&table->entries);
    pthread_rwlock_destroy(&table->index_lock);
    mem_free(table);
}

/* ---- finding ---- */

static uint64_t hash_bytes(const struct series_table *table, struct slice bytes) {
    return XXH3_64bits_withSeed(bytes.data, bytes.len, table->seed);
}

uint64_t series_hash(const struct series_table *table, struct slice labels) {
    return hash_bytes(table, labels);
}

void series_prefetch(const struct series_table *table, uint64_t hash) {
    /* A map that is being replaced may be read here; only its address is used, as a hint, so no lock. */
    __builtin_prefetch(&table->stripes[hash & ((1u << STRIPE_BITS) - 1)]);
}

/* Do the pairs of the slot, one after the other, spell exactly these bytes? */
static bool entry_equals(struct series_table *table, uint32_t slot, struct slice labels) {
    const uint32_t *pairs = entry_at(table, slot)->pairs;
    const uint8_t *p = labels.data;
    size_t left = labels.len;
    for (uint32_t i = 1; i <= pairs[0]; i++) {
        const struct pair *pair = pair_at(table, pairs[i]);
        if (pair->len > left || memcmp(pair->bytes, p, pair->len) != 0)
            return false;
        p += pair->len;
        left -= pair->len;
    }
    return left == 0;
}

uint32_t series_find(struct series_table *table, uint64_t hash, struct slice labels) {
    struct stripe *stripe = stripe_of(table, hash);
    uint32_t tag = tag_of(hash);
    uint32_t at = tag, slot, found = SLOT_NONE;
    spin_lock(&stripe->lock);
    while (found == SLOT_NONE && map_next(&stripe->map, tag, &at, &slot))
        if (entry_equals(table, slot, labels))
            found = slot;
    spin_unlock(&stripe->lock);
    return found;
}

struct slice pair__value(const struct pair *pair) {
    struct slice rest = slice_of(pair->bytes, pair->len);
    struct label label = {0};
    bool whole = label_next(&rest, &label, NULL);
    ASSERT(whole);
    return label.value;
}

uint32_t series__name_find(struct series_table *table, struct slice name) {
    uint32_t tag = tag_of(hash_bytes(table, name));
    uint32_t at = tag, index;
    while (map_next(&table->name_map, tag, &at, &index))
        if (slice_equal(table->names[index].text, name))
            return index;
    return UINT32_MAX;
}

static uint32_t pair_find(struct series_table *table, uint64_t hash, struct slice bytes) {
    uint32_t tag = tag_of(hash);
    uint32_t at = tag, id;
    while (map_next(&table->pair_map, tag, &at, &id))
        if (slice_equal(slice_of(pair_at(table, id)->bytes, pair_at(table, id)->len), bytes))
            return id;
    return UINT32_MAX;
}

int series__pair_find(struct series_table *table, struct slice name, struct slice value, struct pair **out) {
    *out = NULL;
    if (series__name_find(table, name) == UINT32_MAX)
        return STATUS_OK;
    struct buf bytes;
    buf_init(&bytes);
    label_bytes_append(&bytes, name, value);
    int status = bytes.failed ? STATUS_NO_MEMORY : STATUS_OK;
    if (status == STATUS_OK) {
        uint32_t id = pair_find(table, hash_bytes(table, buf_slice(&bytes)), buf_slice(&bytes));
        *out = id == UINT32_MAX ? NULL : pair_at(table, id);
    }
    buf_release(&bytes);
    return status;
}

/* ---- making; all under the index lock in write mode ---- */

static int name_ensure(struct series_table *table, struct slice name, uint32_t *out) {
    uint32_t index = series__name_find(table, name);
    if (index != UINT32_MAX) {
        *out = index;
        return STATUS_OK;
    }
    if (table->name_count == table->name_capacity) {
        uint32_t capacity = table->name_capacity == 0 ? 64 : table->name_capacity * 2;
        struct label_name *names = mem_realloc(table->names, capacity * sizeof *names);
        if (names == NULL)
            return STATUS_NO_MEMORY;
        table->memory_bytes += (capacity - table->name_capacity) * sizeof *names;
        table->names = names;
        table->name_capacity = capacity;
    }
    if (map_grow(&table->name_map) < 0)
        return STATUS_NO_MEMORY;
    struct slice text = arena_copy(&table->memory, name);
    if (text.data == NULL)
        return STATUS_NO_MEMORY;
    index = table->name_count++;
    table->names[index] = (struct label_name){.text = text};
    map_insert(&table->name_map, tag_of(hash_bytes(table, name)), index);
    *out = index;
    return STATUS_OK;
}

static int pair_ensure(struct series_table *table, const struct label *label, struct slice bytes,
                       uint32_t *out) {
    uint64_t hash = hash_bytes(table, bytes);
    uint32_t id = pair_find(table, hash, bytes);
    if (id != UINT32_MAX) {
        *out = id;
        return STATUS_OK;
    }
    uint32_t name_index;
    int status = name_ensure(table, label->name, &name_index);
    if (status < 0)
        return status;
    struct label_name *name = &table->names[name_index];
    if (name->pair_count == name->pair_capacity) {
        uint32_t capacity = name->pair_capacity == 0 ? 4 : name->pair_capacity * 2;
        uint32_t *pairs = mem_realloc(name->pairs, capacity * sizeof *pairs);
        if (pairs == NULL)
            return STATUS_NO_MEMORY;
        table->memory_bytes += (capacity - name->pair_capacity) * sizeof *pairs;
        name->pairs = pairs;
        name->pair_capacity = capacity;
    }
    if (map_grow(&table->pair_map) < 0)
        return STATUS_NO_MEMORY;
    id = table->pair_count;
    if ((status = stable_array_ensure(&table->pairs, id)) < 0)
        return status;
    struct slice copy = arena_copy(&table->memory, bytes);
    if (copy.data == NULL)
        return STATUS_NO_MEMORY;
    struct pair *pair = pair_at(table, id);
    pair->bytes = copy.data;
    pair->len = (uint32_t)copy.len;
    pair->name = name_index;
    name->pairs[name->pair_count++] = id;
    map_insert(&table->pair_map, tag_of(hash), id);
    table->pair_count++;
    *out = id;
    return STATUS_OK;
}

/* Room for one more slot. */
static int postings_reserve(struct series_table *table, struct postings *postings) {
    if (postings->count == 0 || postings->count < postings->capacity)
        return STATUS_OK;
    uint32_t capacity = postings->capacity == 0 ? 4 : postings->capacity + postings->capacity / 2;
    uint32_t *many = postings->capacity == 0 ? mem_alloc(capacity * sizeof *many)
                                             : mem_realloc(postings->many, capacity * sizeof *many);
    if (many == NULL)
        return STATUS_NO_MEMORY;
    if (postings->capacity == 0)
        many[0] = postings->one;
    table->memory_bytes += (capacity - postings->capacity) * sizeof *many;
    postings->many = many;
    postings->capacity = capacity;
    return STATUS_OK;
}

static void postings_append(struct postings *postings, uint32_t slot) {
    if (postings->capacity == 0)
        postings->one = slot;
    else
        postings->many[postings->count] = slot;
    postings->count++;
}

/* Makes the series of canonical labels. What can fail comes before what others can see. */
static int series_make(struct series_table *table, uint64_t hash, struct slice labels, uint64_t id,
                       struct arena *scratch, uint32_t *slot_out) {
    int status = STATUS_OK;
    uint32_t slot = atomic_load_explicit(&table->slot_count, memory_order_relaxed);
    if (slot >= table->series_max || slot == SLOT_NONE)
        return STATUS_BUSY;

    size_t count = 0;
    struct label label;
    struct slice whole;
    for (struct slice rest = labels; label_next(&rest, &label, NULL);)
        count++;
    uint32_t *pairs = ARENA_ARRAY(scratch, uint32_t, count + 1);
    if (pairs == NULL)
        return STATUS_NO_MEMORY;
    pairs[0] = (uint32_t)count;
    size_t i = 1;
    for (struct slice rest = labels; label_next(&rest, &label, &whole); i++)
        TRY(pair_ensure(table, &label, whole, &pairs[i]));
    for (i = 1; i <= count; i++)
        TRY(postings_reserve(table, &pair_at(table, pairs[i])->postings));
    TRY(stable_array_ensure(&table->entries, slot));

    /* 4-byte aligned is enough for ids; the arena's own alignment of 16 would cost 6 bytes a series. */
    size_t bytes = (count + 1) * sizeof *pairs;
    uint8_t *kept = arena_alloc_bytes(&table->memory, bytes + sizeof *pairs - 1);
    if (kept == NULL)
        return STATUS_NO_MEMORY;
    kept += -(uintptr_t)kept & (sizeof *pairs - 1);
    memcpy(kept, pairs, bytes);

    struct stripe *stripe = stripe_of(table, hash);
    spin_lock(&stripe->lock);
    status = map_grow(&stripe->map);
    if (status == STATUS_OK) {
        struct series_entry *entry = entry_at(table, slot);
        entry->id = id != 0 ? id : table->id_next;
        entry->pairs = (uint32_t *)(void *)kept;
        map_insert(&stripe->map, tag_of(hash), slot);
    }
    spin_unlock(&stripe->lock);
    TRY(status);

    if (entry_at(table, slot)->id >= table->id_next)
        table->id_next = entry_at(table, slot)->id + 1;
    for (i = 1; i <= count; i++)
        postings_append(&pair_at(table, pairs[i])->postings, slot);
    atomic_store_explicit(&table->slot_count, slot + 1, memory_order_release);
    *slot_out = slot;
out:
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
    uint64_t hash = hash_bytes(table, canonical);
    pthread_rwlock_wrlock(&table->index_lock);
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
    return atomic_load_explicit(&table->slot_count, memory_order_acquire);
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
        const struct pair *p = pair_at(table, x[i]), *q = pair_at(table, y[j]);
        size_t len = p->len - x_at < q->len - y_at ? p->len - x_at : q->len - y_at;
        int order = memcmp(p->bytes + x_at, q->bytes + y_at, len);
        if (order != 0)
            return order;
        x_at += len;
        y_at += len;
        if (x_at == p->len)
            i++, x_at = 0;
        if (y_at == q->len)
            j++, y_at = 0;
    }
    return (i <= x[0]) - (j <= y[0]);
}

void series_labels_append(struct series_table *table, uint32_t slot, struct buf *buf) {
    const uint32_t *pairs = entry_at(table, slot)->pairs;
    for (uint32_t i = 1; i <= pairs[0]; i++)
        buf_append(buf, pair_at(table, pairs[i])->bytes, pair_at(table, pairs[i])->len);
}

size_t series_labels_len(struct series_table *table, uint32_t slot) {
    const uint32_t *pairs = entry_at(table, slot)->pairs;
    size_t len = 0;
    for (uint32_t i = 1; i <= pairs[0]; i++)
        len += pair_at(table, pairs[i])->len;
    return len;
}

size_t series_labels(struct series_table *table, uint32_t slot, struct label *out, size_t max) {
    const uint32_t *pairs = entry_at(table, slot)->pairs;
    size_t count = pairs[0] < max ? pairs[0] : max;
    for (size_t i = 0; i < count; i++) {
        const struct pair *pair = pair_at(table, pairs[i + 1]);
        struct slice rest = slice_of(pair->bytes, pair->len);
        bool whole = label_next(&rest, &out[i], NULL);
        ASSERT(whole);
    }
    return count;
}

struct slice series_label(struct series_table *table, uint32_t slot, struct slice name) {
    const uint32_t *pairs = entry_at(table, slot)->pairs;
    for (uint32_t i = 1; i <= pairs[0]; i++) {
        const struct pair *pair = pair_at(table, pairs[i]);
        struct slice rest = slice_of(pair->bytes, pair->len);
        struct label label = {0};
        if (label_next(&rest, &label, NULL) && slice_equal(label.name, name))
            return label.value;
    }
    return (struct slice){NULL, 0};
}

uint64_t series_memory_bytes(struct series_table *table) {
    uint32_t slots = series_count(table);
    pthread_rwlock_rdlock(&table->index_lock);
    uint64_t bytes = table->memory.bytes + table->memory_bytes + map_bytes(&table->pair_map) +
                     map_bytes(&table->name_map) + table->pair_count * sizeof(struct pair) +
                     slots * sizeof(struct series_entry);
    for (size_t i = 0; i < 1u << STRIPE_BITS; i++) {
        spin_lock(&table->stripes[i].lock);
        bytes += map_bytes(&table->stripes[i].map);
        spin_unlock(&table->stripes[i].lock);
    }
    pthread_rwlock_unlock(&table->index_lock);
    return bytes;
}
