/* block_pairs.c: the external sort behind a block's index.
 *
 * A spill is a run of pairs in order, each as
 *     varint name length, name, varint value length, value, varint count, varint postings bytes, postings
 * Spills cover ascending ranges of ordinals, so the postings of one pair in several spills are joined by
 * concatenation in the order of the spills. */
#define XXH_INLINE_ALL
#include "storage/block/block_pairs.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <xxhash.h>

#include "base/alloc.h"
#include "base/array.h"
#include "base/assert.h"
#include "storage/block/block_native.h"

/* A table of this size is sorted in some 10 ms. */
#define PAIRS_MAX   ((uint32_t)16384)
#define SLOTS       (2 * PAIRS_MAX)
#define ITEMS_MAX   ((uint32_t)262144)
#define TEXT_BYTES  ((size_t)1 << 20)
#define SPILL_BYTES ((size_t)1 << 18) /* written at once */

struct pair {
    uint32_t text;  /* where name and value stand, one behind the other */
    uint32_t count; /* of items; while spilling, where its ordinals end */
    uint32_t name_len;
    uint32_t value_len;
    uint32_t hash;
};

struct item {
    uint32_t pair;
    uint32_t ordinal;
};

struct spill {
    uint64_t start, end; /* in the scratch file */
};

/* Reads one spill, a pair at a time. */
struct cursor {
    const uint8_t *p, *end; /* behind the current pair */
    struct slice name, value;
    uint64_t count;
    struct slice postings;
};

struct block__pairs {
    struct pair *pairs; /* these two grow to PAIRS_MAX and ITEMS_MAX: a small block needs little */
    uint32_t pair_count, pair_capacity;
    uint32_t *slots; /* SLOTS: pair index + 1, 0: free */
    struct item *items;
    uint32_t item_count, item_capacity;
    struct buf text;
    uint64_t seed;

    int fd;
    uint64_t written;
    struct buf out; /* waits to be written */
    struct spill *spills;
    size_t spill_count, spill_capacity;
    uint32_t *order;    /* while spilling: pairs in order */
    uint32_t *ordinals; /* and all ordinals, pair by pair */

    /* merging */
    struct slice map;
    struct cursor *cursors;
    uint32_t *heap; /* cursors by (name, value, number) */
    size_t heap_count;
    uint32_t *group; /* cursors that stand at the current pair, in the order of spills */
    size_t group_count, group_at;
    struct block__postings_reader reader;
};

static int no_memory(struct error_detail *detail) {
    return error_set(detail, STATUS_NO_MEMORY, "sorting label pairs: out of memory");
}

int block__pairs_open(struct io *io, const char *dir, uint64_t seed, struct error_detail *detail,
                      struct block__pairs **out) {
    int status = STATUS_OK;
    struct block__pairs *pairs = mem_zalloc(sizeof *pairs);
    if (pairs == NULL)
        return no_memory(detail);
    pairs->fd = -1;
    pairs->seed = seed;
    buf_init(&pairs->text);
    buf_init(&pairs->out);
    pairs->slots = mem_zalloc(SLOTS * sizeof *pairs->slots);
    if (pairs->slots == NULL) {
        status = no_memory(detail);
        goto out;
    }
    char path[BLOCK__NATIVE_PATH_BYTES];
    TRY(block__scratch_open(io, dir, &pairs->fd, path, detail));
out:
    if (status < 0)
        block__pairs_close(pairs);
    else
        *out = pairs;
    return status;
}

static void table_free(struct block__pairs *pairs) {
    mem_free(pairs->pairs);
    mem_free(pairs->slots);
    mem_free(pairs->items);
    mem_free(pairs->order);
    mem_free(pairs->ordinals);
    pairs->pairs = NULL;
    pairs->slots = NULL;
    pairs->items = NULL;
    pairs->order = NULL;
    pairs->ordinals = NULL;
    buf_release(&pairs->text);
    buf_release(&pairs->out);
}

void block__pairs_close(struct block__pairs *pairs) {
    if (pairs == NULL)
        return;
    table_free(pairs);
    mem_free(pairs->spills);
    mem_free(pairs->cursors);
    mem_free(pairs->heap);
    mem_free(pairs->group);
    if (pairs->map.len > 0)
        munmap((void *)(uintptr_t)pairs->map.data, pairs->map.len);
    if (pairs->fd >= 0)
        close(pairs->fd);
    mem_free(pairs);
}

uint64_t block__pairs_memory_bytes(const struct block__pairs *pairs) {
    uint64_t bytes = sizeof *pairs + pairs->text.capacity + pairs->out.capacity +
                     pairs->spill_capacity * sizeof *pairs->spills;
    if (pairs->slots != NULL)
        bytes += pairs->pair_capacity * (sizeof *pairs->pairs + sizeof *pairs->order) +
                 SLOTS * sizeof *pairs->slots +
                 pairs->item_capacity * (sizeof *pairs->items + sizeof *pairs->ordinals);
    if (pairs->cursors != NULL)
        bytes += pairs->spill_count * (sizeof *pairs->cursors + sizeof *pairs->heap + sizeof *pairs->group);
    return bytes;
}

/* ---- Spilling ----------------------------------------------------------------------------------------- */

static struct slice pair_name(const struct block__pairs *pairs, const struct pair *pair) {
    return slice_of(pairs->text.data + pair->text, pair->name_len);
}

static struct slice pair_value(const struct block__pairs *pairs, const struct pair *pair) {
    return slice_of(pairs->text.data + pair->text + pair->name_len, pair->value_len);
}

static int pair_order(const void *a, const void *b, void *context) {
    const struct block__pairs *pairs = context;
    const struct pair *x = &pairs->pairs[*(const uint32_t *)a], *y = &pairs->pairs[*(const uint32_t *)b];
    int order = slice_compare(pair_name(pairs, x), pair_name(pairs, y));
    return order != 0 ? order : slice_compare(pair_value(pairs, x), pair_value(pairs, y));
}

static int out_flush(struct block__pairs *pairs, struct error_detail *detail) {
    if (pairs->out.failed)
        return no_memory(detail);
    for (size_t done = 0; done < pairs->out.len;) {
        ssize_t put = pwrite(pairs->fd, pairs->out.data + done, pairs->out.len - done, (off_t)pairs->written);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return error_set(detail, put < 0 ? status_from_errno(errno) : STATUS_IO,
                             "writing a scratch file: %s", strerror(put < 0 ? errno : EIO));
        done += (size_t)put;
        pairs->written += (uint64_t)put;
    }
    buf_clear(&pairs->out);
    return STATUS_OK;
}

static void varint_append(struct buf *buf, uint64_t v) {
    uint8_t bytes[VARINT_BYTES_MAX];
    buf_append(buf, bytes, (size_t)(varint_write(bytes, v) - bytes));
}

/* The ordinals [from, to) of pairs->ordinals as postings, behind their length. */
static void ordinals_append(struct buf *out, const uint32_t *from, const uint32_t *to) {
    size_t length_at = out->len;
    static const uint8_t room[4] = {0x80, 0x80, 0x80, 0}; /* a length of up to 28 bits, filled in later */
    buf_append(out, room, sizeof room);
    uint64_t next = 0;
    for (const uint32_t *p = from; p < to;) {
        struct block__run_of_ordinals run = {*p++, 1};
        while (p < to && *p == run.first + run.length) {
            run.length++;
            p++;
        }
        uint8_t *at = buf_reserve(out, BLOCK__POSTINGS_ITEM_MAX);
        if (at == NULL)
            return;
        out->len += (size_t)(block__postings_write(at, next, run) - at);
        next = (uint64_t)run.first + run.length;
    }
    if (out->failed)
        return;
    size_t length = out->len - length_at - sizeof room;
    for (size_t i = 0; i < sizeof room; i++)
        out->data[length_at + i] = (uint8_t)((length >> (7 * i) & 0x7f) | (i < 3 ? 0x80 : 0));
}
_Static_assert(ITEMS_MAX *BLOCK__POSTINGS_ITEM_MAX < 1u << 28, "the length of a pair's postings in a spill");

static int spill(struct block__pairs *pairs, struct error_detail *detail) {
    int status = STATUS_OK;
    if (pairs->pair_count == 0)
        return STATUS_OK;
    struct spill *grown =
        array_ensure(pairs->spills, &pairs->spill_capacity, pairs->spill_count + 1, sizeof *grown);
    if (grown == NULL)
        return no_memory(detail);
    pairs->spills = grown;
    /* Ordinals by pair: count is where the next goes, and in the end where the pair's end. */
    uint32_t sum = 0;
    for (uint32_t i = 0; i < pairs->pair_count; i++) {
        uint32_t count = pairs->pairs[i].count;
        pairs->pairs[i].count = sum;
        sum += count;
        pairs->order[i] = i;
    }
    for (uint32_t i = 0; i < pairs->item_count; i++)
        pairs->ordinals[pairs->pairs[pairs->items[i].pair].count++] = pairs->items[i].ordinal;
    qsort_r(pairs->order, pairs->pair_count, sizeof *pairs->order, pair_order, pairs);
    struct spill *spill = &pairs->spills[pairs->spill_count];
    spill->start = pairs->written;
    for (uint32_t i = 0; i < pairs->pair_count; i++) {
        uint32_t index = pairs->order[i];
        const struct pair *pair = &pairs->pairs[index];
        struct slice name = pair_name(pairs, pair), value = pair_value(pairs, pair);
        uint32_t from = index == 0 ? 0 : pairs->pairs[index - 1].count;
        varint_append(&pairs->out, name.len);
        buf_append(&pairs->out, name.data, name.len);
        varint_append(&pairs->out, value.len);
        buf_append(&pairs->out, value.data, value.len);
        varint_append(&pairs->out, pair->count - from);
        ordinals_append(&pairs->out, pairs->ordinals + from, pairs->ordinals + pair->count);
        if (pairs->out.len >= SPILL_BYTES)
            TRY(out_flush(pairs, detail));
    }
    TRY(out_flush(pairs, detail));
    spill->end = pairs->written;
    pairs->spill_count++;
    pairs->pair_count = 0;
    pairs->item_count = 0;
    if (pairs->text.capacity > 2 * TEXT_BYTES)
        buf_release(&pairs->text);
    buf_clear(&pairs->text);
    memset(pairs->slots, 0, SLOTS * sizeof *pairs->slots);
out:
    return status;
}

/* Room for one more pair and one more item, and for sorting them. */
static int table_grow(struct block__pairs *pairs, struct error_detail *detail) {
    if (pairs->pair_count == pairs->pair_capacity) {
        uint32_t capacity = pairs->pair_capacity == 0 ? 256 : 2 * pairs->pair_capacity;
        struct pair *grown = mem_realloc(pairs->pairs, capacity * sizeof *grown);
        if (grown == NULL)
            return no_memory(detail);
        pairs->pairs = grown;
        uint32_t *order = mem_realloc(pairs->order, capacity * sizeof *order);
        if (order == NULL)
            return no_memory(detail);
        pairs->order = order;
        pairs->pair_capacity = capacity;
    }
    if (pairs->item_count == pairs->item_capacity) {
        uint32_t capacity = pairs->item_capacity == 0 ? 1024 : 2 * pairs->item_capacity;
        struct item *grown = mem_realloc(pairs->items, capacity * sizeof *grown);
        if (grown == NULL)
            return no_memory(detail);
        pairs->items = grown;
        uint32_t *ordinals = mem_realloc(pairs->ordinals, capacity * sizeof *ordinals);
        if (ordinals == NULL)
            return no_memory(detail);
        pairs->ordinals = ordinals;
        pairs->item_capacity = capacity;
    }
    return STATUS_OK;
}

int block__pairs_add(struct block__pairs *pairs, uint32_t ordinal, struct slice name, struct slice value,
                     struct error_detail *detail) {
    int status = STATUS_OK;
    if (pairs->pair_count == PAIRS_MAX || pairs->item_count == ITEMS_MAX || pairs->text.len >= TEXT_BYTES)
        TRY(spill(pairs, detail));
    TRY(table_grow(pairs, detail));
    uint32_t hash = (uint32_t)XXH3_64bits_withSeed(value.data, value.len,
                                                   XXH3_64bits_withSeed(name.data, name.len, pairs->seed));
    uint32_t slot = hash % SLOTS;
    struct pair *pair = NULL;
    for (; pairs->slots[slot] != 0; slot = (slot + 1) % SLOTS) {
        pair = &pairs->pairs[pairs->slots[slot] - 1];
        if (pair->hash == hash && slice_equal(pair_value(pairs, pair), value) &&
            slice_equal(pair_name(pairs, pair), name))
            break;
        pair = NULL;
    }
    if (pair == NULL) {
        size_t text = pairs->text.len;
        buf_append(&pairs->text, name.data, name.len);
        buf_append(&pairs->text, value.data, value.len);
        if (pairs->text.failed)
            return no_memory(detail);
        pair = &pairs->pairs[pairs->pair_count++];
        *pair = (struct pair){.text = (uint32_t)text,
                              .name_len = (uint32_t)name.len,
                              .value_len = (uint32_t)value.len,
                              .hash = hash};
        pairs->slots[slot] = pairs->pair_count;
    }
    pair->count++;
    pairs->items[pairs->item_count++] = (struct item){(uint32_t)(pair - pairs->pairs), ordinal};
out:
    return status;
}

/* ---- Merging ------------------------------------------------------------------------------------------ */

static bool slice_read(struct cursor *cursor, struct slice *out) {
    uint64_t len;
    if ((cursor->p = varint_read(cursor->p, cursor->end, &len)) == NULL ||
        len > (uint64_t)(cursor->end - cursor->p))
        return false;
    *out = slice_of(cursor->p, (size_t)len);
    cursor->p += len;
    return true;
}

/* The four bytes of ordinals_append's length are read as any varint. */
static int cursor_next(struct cursor *cursor, struct error_detail *detail) {
    if (cursor->p == cursor->end)
        return STATUS_END;
    if (!slice_read(cursor, &cursor->name) || !slice_read(cursor, &cursor->value) ||
        (cursor->p = varint_read(cursor->p, cursor->end, &cursor->count)) == NULL ||
        !slice_read(cursor, &cursor->postings))
        return error_set(detail, STATUS_CORRUPT, "a scratch file changed while it was used");
    return STATUS_OK;
}

static int cursor_order(const struct block__pairs *pairs, uint32_t a, uint32_t b) {
    const struct cursor *x = &pairs->cursors[a], *y = &pairs->cursors[b];
    int order = slice_compare(x->name, y->name);
    if (order == 0)
        order = slice_compare(x->value, y->value);
    return order != 0 ? order : (a > b) - (a < b);
}

static void heap_sink(struct block__pairs *pairs, size_t at) {
    for (;;) {
        size_t least = at;
        for (size_t child = 2 * at + 1; child <= 2 * at + 2 && child < pairs->heap_count; child++)
            if (cursor_order(pairs, pairs->heap[child], pairs->heap[least]) < 0)
                least = child;
        if (least == at)
            return;
        uint32_t swap = pairs->heap[at];
        pairs->heap[at] = pairs->heap[least];
        pairs->heap[least] = swap;
        at = least;
    }
}

static void heap_push(struct block__pairs *pairs, uint32_t cursor) {
    size_t at = pairs->heap_count++;
    for (; at > 0 && cursor_order(pairs, cursor, pairs->heap[(at - 1) / 2]) < 0; at = (at - 1) / 2)
        pairs->heap[at] = pairs->heap[(at - 1) / 2];
    pairs->heap[at] = cursor;
}

int block__pairs_sort(struct block__pairs *pairs, struct error_detail *detail) {
    int status = STATUS_OK;
    TRY(spill(pairs, detail));
    table_free(pairs);
    if (pairs->spill_count == 0)
        return STATUS_OK;
    void *map = mmap(NULL, (size_t)pairs->written, PROT_READ, MAP_SHARED, pairs->fd, 0);
    if (map == MAP_FAILED)
        return error_set(detail, STATUS_NO_MEMORY, "mapping a scratch file: %s", strerror(errno));
    pairs->map = slice_of(map, (size_t)pairs->written);
    pairs->cursors = mem_alloc(pairs->spill_count * sizeof *pairs->cursors);
    pairs->heap = mem_alloc(pairs->spill_count * sizeof *pairs->heap);
    pairs->group = mem_alloc(pairs->spill_count * sizeof *pairs->group);
    if (pairs->cursors == NULL || pairs->heap == NULL || pairs->group == NULL)
        return no_memory(detail);
    for (size_t i = 0; i < pairs->spill_count; i++) {
        pairs->cursors[i] = (struct cursor){.p = pairs->map.data + pairs->spills[i].start,
                                            .end = pairs->map.data + pairs->spills[i].end};
        TRY(cursor_next(&pairs->cursors[i], detail));
        heap_push(pairs, (uint32_t)i);
    }
out:
    return status;
}

int block__pairs_next(struct block__pairs *pairs, struct slice *name, struct slice *value, uint64_t *count,
                      struct error_detail *detail) {
    int status = STATUS_OK;
    for (size_t i = 0; i < pairs->group_count; i++) {
        TRY(cursor_next(&pairs->cursors[pairs->group[i]], detail));
        if (status == STATUS_OK)
            heap_push(pairs, pairs->group[i]);
    }
    status = STATUS_OK;
    pairs->group_count = 0;
    pairs->group_at = 0;
    if (pairs->heap_count == 0)
        return STATUS_END;
    *count = 0;
    const struct cursor *first = &pairs->cursors[pairs->heap[0]];
    do {
        uint32_t top = pairs->heap[0];
        pairs->group[pairs->group_count++] = top;
        *count += pairs->cursors[top].count;
        pairs->heap[0] = pairs->heap[--pairs->heap_count];
        heap_sink(pairs, 0);
    } while (pairs->heap_count > 0 && slice_equal(pairs->cursors[pairs->heap[0]].value, first->value) &&
             slice_equal(pairs->cursors[pairs->heap[0]].name, first->name));
    *name = first->name;
    *value = first->value;
    pairs->reader = block__postings_reader(first->postings);
out:
    return status;
}

int block__pairs_ordinals(struct block__pairs *pairs, struct block__run_of_ordinals *out,
                          struct error_detail *detail) {
    for (;;) {
        int status = block__postings_next(&pairs->reader, out);
        if (status == STATUS_CORRUPT)
            return error_set(detail, status, "a scratch file changed while it was used");
        if (status == STATUS_OK || ++pairs->group_at >= pairs->group_count)
            return status;
        pairs->reader = block__postings_reader(pairs->cursors[pairs->group[pairs->group_at]].postings);
    }
}
