/* series_pairs.c: label names and pairs: interned, numbered, found by their bytes, freed. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "storage/series/series_private.h"

uint64_t series__hash(const struct series_table *table, struct slice bytes) {
    return XXH3_64bits_withSeed(bytes.data, bytes.len, table->seed);
}

struct label pair__label(const struct pair *pair) {
    const uint8_t *p = pair->bytes;
    if (p[1] <
        0x80) { /* then all lengths are one byte long: tag, length, tag, length, name, tag, length, value */
        size_t name_len = p[3], value_len = p[5 + name_len];
        return (struct label){slice_of(p + 4, name_len), slice_of(p + 6 + name_len, value_len)};
    }
    struct slice rest = pair_bytes(pair);
    struct label label = {0};
    bool whole = label_next(&rest, &label, NULL);
    ASSERT(whole);
    return label;
}

/* A copy that text_free takes back. */
static uint8_t *text_copy(struct series_table *table, struct slice text) {
    uint8_t *copy = slab_alloc(&table->texts, text.len == 0 ? 1 : text.len);
    if (copy != NULL && text.len > 0)
        memcpy(copy, text.data, text.len);
    return copy;
}

static void text_free(struct series_table *table, const uint8_t *text, size_t len) {
    slab_free(&table->texts, (void *)(uintptr_t)text, len == 0 ? 1 : len);
}

/* ---- names ---- */

uint32_t series__name_find(struct series_table *table, struct slice name) {
    uint32_t at = UINT32_MAX;
    const struct hash_cell *cell;
    while ((cell = hash_map_next(&table->name_map, hash_tag(series__hash(table, name)), &at)) != NULL)
        if (slice_equal(table->names[hash_cell_number(cell)].text, name))
            return hash_cell_number(cell);
    return NUMBER_NONE;
}

static int names_grow(struct series_table *table) {
    uint32_t capacity = table->name_capacity == 0 ? 64 : table->name_capacity * 2;
    struct label_name *names = mem_realloc(table->names, capacity * sizeof *names);
    if (names == NULL)
        return STATUS_NO_MEMORY;
    table->names = names;
    table->name_capacity = capacity;
    return STATUS_OK;
}

static int name_ensure(struct series_table *table, struct slice name, uint32_t *out) {
    uint32_t index = series__name_find(table, name);
    if (index != NUMBER_NONE) {
        *out = index;
        return STATUS_OK;
    }
    int status = STATUS_OK;
    if (table->name_free == NUMBER_NONE && table->name_end == table->name_capacity)
        TRY(names_grow(table));
    TRY(hash_map_reserve(&table->name_map, 1));
    const uint8_t *text = text_copy(table, name);
    if (text == NULL)
        return STATUS_NO_MEMORY;
    if (table->name_free != NUMBER_NONE) {
        index = table->name_free;
        table->name_free = table->names[index].pairs.one;
    } else {
        index = table->name_end++;
    }
    table->names[index] = (struct label_name){.text = slice_of(text, name.len)};
    hash_map_add(&table->name_map, hash_tag(series__hash(table, name)), index, 0);
    *out = index;
out:
    return status;
}

static void name_unlink(struct series_table *table, uint32_t index) {
    struct label_name *name = &table->names[index];
    hash_map_remove(&table->name_map, hash_tag(series__hash(table, name->text)), index);
    name->pairs.one = table->name_dead;
    table->name_dead = index;
}

/* ---- pairs ---- */

uint32_t series__pair_find(struct series_table *table, uint64_t hash, struct slice bytes) {
    const struct hash_map *map = &table->pair_maps[hash_stripe(hash)];
    uint32_t at = UINT32_MAX;
    const struct hash_cell *cell;
    while ((cell = hash_map_next(map, hash_tag(hash), &at)) != NULL)
        if (slice_equal(pair_bytes(pair_at(table, hash_cell_number(cell))), bytes))
            return hash_cell_number(cell);
    return NUMBER_NONE;
}

int series__pair_make(struct series_table *table, uint32_t number, const struct label *label,
                      struct slice bytes, uint64_t hash) {
    int status = STATUS_OK;
    uint32_t index = NUMBER_NONE;
    struct hash_map *map = &table->pair_maps[hash_stripe(hash)];
    TRY(stable_array_ensure(&table->pairs, number));
    TRY(hash_map_reserve(map, 1));
    TRY(name_ensure(table, label->name, &index));
    TRY(number_set_reserve(&table->names[index].pairs, &table->sets, number));
    const uint8_t *copy = text_copy(table, bytes);
    if (copy == NULL) {
        status = STATUS_NO_MEMORY;
        goto out;
    }
    *pair_at(table, number) = (struct pair){.bytes = copy, .postings = {.owner = index}};
    number_set_add(&table->names[index].pairs, number);
    hash_map_add(map, hash_tag(hash), number, 0);
    table->pair_count++;
    return STATUS_OK;
out:
    if (index != NUMBER_NONE && table->names[index].pairs.count == 0)
        name_unlink(table, index);
    return status;
}

int series__pair_ensure(struct series_table *table, const struct label *label, struct slice bytes,
                        uint32_t *out) {
    uint64_t hash = series__hash(table, bytes);
    uint32_t number = series__pair_find(table, hash, bytes);
    if (number != NUMBER_NONE) {
        *out = number;
        return STATUS_OK;
    }
    number = table->pair_free != NUMBER_NONE ? table->pair_free : table->pair_end;
    uint32_t next_free = table->pair_free != NUMBER_NONE ? pair_at(table, number)->postings.one : NUMBER_NONE;
    bool changed = number_set_has(&table->changed_pairs, number);
    int status = changed ? STATUS_OK : number_set_reserve(&table->changed_pairs, &table->sets, number);
    if (status == STATUS_OK)
        status = series__pair_make(table, number, label, bytes, hash);
    if (status < 0)
        return status;
    if (!changed)
        number_set_add(&table->changed_pairs, number);
    if (number == table->pair_end)
        table->pair_end++;
    table->pair_free = next_free;
    *out = number;
    return STATUS_OK;
}

void series__pair_unlink(struct series_table *table, uint32_t number) {
    struct pair *pair = pair_at(table, number);
    ASSERT(pair->postings.count == 0);
    uint64_t hash = series__hash(table, pair_bytes(pair));
    hash_map_remove(&table->pair_maps[hash_stripe(hash)], hash_tag(hash), number);
    struct label_name *name = &table->names[pair->postings.owner];
    number_set_remove(&name->pairs, &table->sets, number);
    if (name->pairs.count == 0)
        name_unlink(table, pair->postings.owner);
    table->pair_count--;
    pair->postings.one = table->pair_dead;
    table->pair_dead = number;
}

bool series__dead_free(struct series_table *table, uint32_t max) {
    if (table->pair_dead == NUMBER_NONE) {
        while (table->name_dead != NUMBER_NONE) {
            uint32_t index = table->name_dead;
            struct label_name *name = &table->names[index];
            table->name_dead = name->pairs.one;
            text_free(table, name->text.data, name->text.len);
            name->text = (struct slice){NULL, 0};
            name->pairs.one = table->name_free;
            table->name_free = index;
        }
        return false;
    }
    for (; max > 0 && table->pair_dead != NUMBER_NONE; max--) {
        uint32_t number = table->pair_dead;
        struct pair *pair = pair_at(table, number);
        table->pair_dead = pair->postings.one;
        text_free(table, pair->bytes, pair_len(pair->bytes));
        pair->bytes = NULL;
        pair->postings.one = table->pair_free;
        table->pair_free = number;
        /* That it is free need not be told: no series that is told of has it. */
        if (!number_set_has(&table->changed_pairs, number) &&
            number_set_reserve(&table->changed_pairs, &table->sets, number) == STATUS_OK)
            number_set_add(&table->changed_pairs, number);
    }
    return true;
}

void series__pairs_release(struct series_table *table) {
    for (uint32_t i = 0; i < table->pair_end; i++) {
        struct pair *pair = pair_at(table, i);
        if (pair->bytes == NULL)
            continue;
        number_set_release(&pair->postings, &table->sets);
        text_free(table, pair->bytes, pair_len(pair->bytes));
    }
    for (uint32_t i = 0; i < table->name_end; i++) {
        if (table->names[i].text.data == NULL)
            continue;
        number_set_release(&table->names[i].pairs, &table->sets);
        text_free(table, table->names[i].text.data, table->names[i].text.len);
    }
    mem_free(table->names);
    for (uint32_t i = 0; i < STRIPES; i++)
        hash_map_release(&table->pair_maps[i]);
    hash_map_release(&table->name_map);
}
