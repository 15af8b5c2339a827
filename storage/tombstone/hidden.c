/* hidden.c: see hidden.h. */
#include "storage/tombstone/hidden.h"

#include <pthread.h>
#include <string.h>

#include "base/alloc.h"
#include "base/array.h"
#include "base/assert.h"

/* Most slots have one span, in place. */
struct entry {
    uint32_t count; /* of spans */
    union {
        struct span one;
        struct span *many; /* with count > 1 */
    };
};

/* Of HIDDEN_SLOTS slots those that have anything, in their order; room for a power of two of them. A page
 * never grows large, so that what one more costs does not depend on how many there are. */
struct page {
    uint64_t has; /* a bit each */
    struct entry *entries;
};

struct hidden {
    pthread_rwlock_t lock;
    atomic_size_t count; /* of entries */
    struct page *pages;
    size_t page_count;
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

static void bytes_add(struct hidden *hidden, size_t bytes) {
    atomic_fetch_add_explicit(&hidden->bytes, bytes, memory_order_relaxed); /* modulo 2^64 */
}

static void page_release(struct page *page) {
    for (unsigned i = 0; i < (unsigned)__builtin_popcountll(page->has); i++)
        if (page->entries[i].count > 1)
            mem_free(page->entries[i].many);
    mem_free(page->entries);
    *page = (struct page){0};
}

void hidden_free(struct hidden *hidden) {
    if (hidden == NULL)
        return;
    for (size_t i = 0; i < hidden->page_count; i++)
        page_release(&hidden->pages[i]);
    mem_free(hidden->pages);
    pthread_rwlock_destroy(&hidden->lock);
    mem_free(hidden);
}

static uint64_t slot_bit(uint32_t slot) {
    return UINT64_C(1) << (slot % HIDDEN_SLOTS);
}

/* Where its entry is among those of the page, or would be. */
static unsigned entry_index(const struct page *page, uint32_t slot) {
    return (unsigned)__builtin_popcountll(page->has & (slot_bit(slot) - 1));
}

static struct entry *entry_find(const struct hidden *hidden, uint32_t slot) {
    if (slot / HIDDEN_SLOTS >= hidden->page_count)
        return NULL;
    const struct page *page = &hidden->pages[slot / HIDDEN_SLOTS];
    return (page->has & slot_bit(slot)) == 0 ? NULL : &page->entries[entry_index(page, slot)];
}

static const struct span *entry_spans(const struct entry *entry) {
    return entry->count == 1 ? &entry->one : entry->many;
}

/* How many a page with that many has room for. */
static unsigned entries_room(unsigned count) {
    unsigned room = count == 0 ? 0 : 1;
    while (room < count)
        room *= 2;
    return room;
}

static int entry_new(struct hidden *hidden, uint32_t slot, struct span span) {
    size_t before = hidden->page_count;
    struct page *pages =
        array_ensure_zero(hidden->pages, &hidden->page_count, slot / HIDDEN_SLOTS + (size_t)1, sizeof *pages);
    if (pages == NULL)
        return STATUS_NO_MEMORY;
    hidden->pages = pages;
    bytes_add(hidden, (hidden->page_count - before) * sizeof *pages);
    struct page *page = &pages[slot / HIDDEN_SLOTS];
    unsigned count = (unsigned)__builtin_popcountll(page->has), at = entry_index(page, slot);
    if (entries_room(count) == count) {
        unsigned room = entries_room(count + 1);
        struct entry *entries = mem_realloc(page->entries, room * sizeof *entries);
        if (entries == NULL)
            return STATUS_NO_MEMORY;
        page->entries = entries;
        bytes_add(hidden, (room - count) * sizeof *entries);
    }
    memmove(page->entries + at + 1, page->entries + at, (count - at) * sizeof *page->entries);
    page->entries[at] = (struct entry){.count = 1, .one = span};
    page->has |= slot_bit(slot);
    atomic_fetch_add_explicit(&hidden->count, 1, memory_order_release);
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
        bytes_add(hidden, -(entry->count * sizeof *spans));
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
static bool entry_forget(struct hidden *hidden, struct entry *entry, int64_t end_ms) {
    if (entry->count == 1)
        return entry->one.max_ms >= end_ms;
    struct span *spans = entry->many;
    uint32_t gone = 0;
    while (gone < entry->count && spans[gone].max_ms < end_ms)
        gone++;
    entry->count -= gone;
    bytes_add(hidden, -(gone * sizeof *spans));
    if (entry->count > 1) {
        memmove(spans, spans + gone, entry->count * sizeof *spans);
        return true;
    }
    if (entry->count == 1) {
        entry->one = spans[gone];
        bytes_add(hidden, -sizeof *spans);
    }
    mem_free(spans);
    return entry->count == 1;
}

static void page_forget(struct hidden *hidden, struct page *page, int64_t end_ms) {
    uint64_t kept = 0;
    unsigned at = 0, kept_count = 0;
    for (uint64_t left = page->has; left != 0; left &= left - 1, at++) {
        uint64_t bit = left & -left;
        if (!entry_forget(hidden, &page->entries[at], end_ms))
            continue;
        kept |= bit;
        page->entries[kept_count++] = page->entries[at];
    }
    page->has = kept;
    atomic_fetch_sub_explicit(&hidden->count, at - kept_count, memory_order_release);
    bytes_add(hidden, -((entries_room(at) - entries_room(kept_count)) * sizeof *page->entries));
    if (kept_count == 0) {
        mem_free(page->entries);
        page->entries = NULL;
    }
}

void hidden_forget(struct hidden *hidden, uint32_t slot, uint32_t slots, int64_t end_ms) {
    ASSERT(slot % HIDDEN_SLOTS == 0 && slots % HIDDEN_SLOTS == 0);
    if (hidden_count(hidden) == 0)
        return;
    pthread_rwlock_wrlock(&hidden->lock);
    size_t end = slot / HIDDEN_SLOTS + (size_t)(slots / HIDDEN_SLOTS);
    for (size_t i = slot / HIDDEN_SLOTS; i < end && i < hidden->page_count; i++)
        if (hidden->pages[i].has != 0)
            page_forget(hidden, &hidden->pages[i], end_ms);
    if (hidden_count(hidden) == 0) {
        mem_free(hidden->pages);
        hidden->pages = NULL;
        hidden->page_count = 0;
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

int hidden_slot_each(struct hidden *hidden, uint32_t slot, int (*each)(void *context, struct span span),
                     void *context) {
    const struct entry *entry = hidden->count == 0 ? NULL : entry_find(hidden, slot);
    for (uint32_t i = 0; entry != NULL && i < entry->count; i++) {
        int status = each(context, entry_spans(entry)[i]);
        if (status < 0)
            return status;
    }
    return STATUS_OK;
}

uint64_t hidden_memory_bytes(const struct hidden *hidden) {
    return atomic_load_explicit(&hidden->bytes, memory_order_relaxed);
}
