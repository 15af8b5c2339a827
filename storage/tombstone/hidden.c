/* hidden.c: see hidden.h. */
#include "storage/tombstone/hidden.h"

#include <pthread.h>
#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"

/* Most slots have one span, in place. */
struct entry {
    uint32_t slot;
    uint32_t count; /* of spans */
    union {
        struct span one;
        struct span *many; /* with count > 1 */
    };
};

struct hidden {
    pthread_rwlock_t lock;
    atomic_size_t count; /* of entries */
    size_t capacity;
    struct entry *entries;
    uint32_t *map; /* open addressing, twice the capacity: slot → index + 1 */
    atomic_uint_fast64_t bytes;
};

int hidden_new(struct hidden **out) {
    struct hidden *hidden = mem_zalloc(sizeof *hidden);
    if (hidden == NULL)
        return STATUS_NO_MEMORY;
    pthread_rwlock_init(&hidden->lock, NULL);
    *out = hidden;
    return STATUS_OK;
}

void hidden_free(struct hidden *hidden) {
    if (hidden == NULL)
        return;
    for (size_t i = 0; i < hidden->count; i++)
        if (hidden->entries[i].count > 1)
            mem_free(hidden->entries[i].many);
    mem_free(hidden->entries);
    mem_free(hidden->map);
    pthread_rwlock_destroy(&hidden->lock);
    mem_free(hidden);
}

static size_t slot_hash(uint32_t slot) {
    return (size_t)((uint64_t)slot * UINT64_C(0x9e3779b97f4a7c15) >> 24);
}

static void map_put(struct hidden *hidden, uint32_t slot, size_t index) {
    size_t mask = hidden->capacity * 2 - 1, at = slot_hash(slot) & mask;
    while (hidden->map[at] != 0)
        at = (at + 1) & mask;
    hidden->map[at] = (uint32_t)index + 1;
}

static struct entry *entry_find(const struct hidden *hidden, uint32_t slot) {
    if (hidden->map == NULL)
        return NULL;
    size_t mask = hidden->capacity * 2 - 1;
    for (size_t at = slot_hash(slot) & mask; hidden->map[at] != 0; at = (at + 1) & mask)
        if (hidden->entries[hidden->map[at] - 1].slot == slot)
            return &hidden->entries[hidden->map[at] - 1];
    return NULL;
}

static const struct span *entry_spans(const struct entry *entry) {
    return entry->count == 1 ? &entry->one : entry->many;
}

static void bytes_add(struct hidden *hidden, size_t bytes) {
    atomic_fetch_add_explicit(&hidden->bytes, bytes, memory_order_relaxed);
}

static int entry_new(struct hidden *hidden, uint32_t slot, struct span span) {
    if (hidden->count == hidden->capacity) {
        size_t capacity = hidden->capacity == 0 ? 64 : hidden->capacity * 2;
        uint32_t *map = mem_zalloc(capacity * 2 * sizeof *map);
        if (map == NULL)
            return STATUS_NO_MEMORY;
        struct entry *entries = mem_realloc(hidden->entries, capacity * sizeof *entries);
        if (entries == NULL) {
            mem_free(map);
            return STATUS_NO_MEMORY;
        }
        bytes_add(hidden, (capacity - hidden->capacity) * (sizeof *entries + 2 * sizeof *map));
        mem_free(hidden->map);
        hidden->entries = entries;
        hidden->map = map;
        hidden->capacity = capacity;
        for (size_t i = 0; i < hidden->count; i++)
            map_put(hidden, entries[i].slot, i);
    }
    size_t index = hidden->count;
    hidden->entries[index] = (struct entry){.slot = slot, .count = 1, .one = span};
    map_put(hidden, slot, index);
    atomic_store_explicit(&hidden->count, index + 1, memory_order_release);
    return STATUS_OK;
}

static int entry_add(struct hidden *hidden, struct entry *entry, struct span span) {
    if (spans_cover(entry_spans(entry), entry->count, span.min_ms, span.max_ms))
        return STATUS_OK;
    struct span *spans = mem_alloc((entry->count + 1) * sizeof *spans);
    if (spans == NULL)
        return STATUS_NO_MEMORY;
    memcpy(spans, entry_spans(entry), entry->count * sizeof *spans);
    size_t count = spans_add(spans, entry->count, span);
    ASSERT(count <= UINT32_MAX);
    if (entry->count > 1) {
        mem_free(entry->many);
        bytes_add(hidden, -(entry->count * sizeof *spans)); /* modulo 2^64 */
    }
    if (count > 1)
        bytes_add(hidden, count * sizeof *spans);
    entry->count = (uint32_t)count;
    if (count == 1) {
        entry->one = spans[0];
        mem_free(spans);
    } else {
        entry->many = spans;
    }
    return STATUS_OK;
}

int hidden_add(struct hidden *hidden, uint32_t slot, struct span span) {
    ASSERT(span.min_ms <= span.max_ms);
    pthread_rwlock_wrlock(&hidden->lock);
    struct entry *entry = entry_find(hidden, slot);
    int status = entry == NULL ? entry_new(hidden, slot, span) : entry_add(hidden, entry, span);
    pthread_rwlock_unlock(&hidden->lock);
    return status;
}

/* False if nothing is left of it. */
static bool entry_forget(struct entry *entry, int64_t end_ms) {
    if (entry->count == 1)
        return entry->one.max_ms >= end_ms;
    struct span *spans = entry->many;
    uint32_t gone = 0;
    while (gone < entry->count && spans[gone].max_ms < end_ms)
        gone++;
    entry->count -= gone;
    memmove(spans, spans + gone, entry->count * sizeof *spans);
    if (entry->count > 1)
        return true;
    if (entry->count == 1)
        entry->one = spans[0];
    mem_free(spans);
    return entry->count == 1;
}

void hidden_forget(struct hidden *hidden, int64_t end_ms) {
    if (hidden_count(hidden) == 0)
        return;
    pthread_rwlock_wrlock(&hidden->lock);
    size_t kept = 0;
    for (size_t i = 0; i < hidden->count; i++) {
        struct entry entry = hidden->entries[i];
        if (entry_forget(&entry, end_ms))
            hidden->entries[kept++] = entry;
    }
    memset(hidden->map, 0, hidden->capacity * 2 * sizeof *hidden->map);
    hidden->count = kept;
    for (size_t i = 0; i < kept; i++)
        map_put(hidden, hidden->entries[i].slot, i);
    if (kept == 0) {
        mem_free(hidden->entries);
        mem_free(hidden->map);
        hidden->entries = NULL;
        hidden->map = NULL;
        hidden->capacity = 0;
        atomic_store(&hidden->bytes, 0);
    }
    pthread_rwlock_unlock(&hidden->lock);
}

size_t hidden_count(const struct hidden *hidden) {
    return atomic_load_explicit(&hidden->count, memory_order_acquire);
}

bool hidden_touches(struct hidden *hidden, uint32_t slot, int64_t min_ms, int64_t max_ms) {
    if (hidden_count(hidden) == 0)
        return false;
    pthread_rwlock_rdlock(&hidden->lock);
    const struct entry *entry = entry_find(hidden, slot);
    bool touches = entry != NULL && spans_touch(entry_spans(entry), entry->count, min_ms, max_ms);
    pthread_rwlock_unlock(&hidden->lock);
    return touches;
}

bool hidden_holds(struct hidden *hidden, uint32_t slot, int64_t time_ms) {
    return hidden_touches(hidden, slot, time_ms, time_ms);
}

void hidden_filter(struct hidden *hidden, uint32_t slot, struct sample_columns *columns, size_t from) {
    if (hidden_count(hidden) == 0)
        return;
    pthread_rwlock_rdlock(&hidden->lock);
    const struct entry *entry = entry_find(hidden, slot);
    if (entry != NULL)
        spans_filter(entry_spans(entry), entry->count, columns, from);
    pthread_rwlock_unlock(&hidden->lock);
}

int hidden_each(struct hidden *hidden, int (*each)(void *context, uint32_t slot, struct span span),
                void *context) {
    for (size_t i = 0; i < hidden->count; i++) {
        const struct entry *entry = &hidden->entries[i];
        for (uint32_t j = 0; j < entry->count; j++) {
            int status = each(context, entry->slot, entry_spans(entry)[j]);
            if (status < 0)
                return status;
        }
    }
    return STATUS_OK;
}

uint64_t hidden_memory_bytes(const struct hidden *hidden) {
    return atomic_load_explicit(&hidden->bytes, memory_order_relaxed);
}
