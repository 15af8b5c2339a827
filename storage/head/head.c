/* head.c: open and sealed chunks by slot. */
#include "storage/head/head.h"

#include <stdatomic.h>
#include <string.h>

#include "base/assert.h"
#include "base/metrics.h"
#include "base/slab.h"
#include "base/spin.h"
#include "base/stable_array.h"
#include "storage/chunk/chunk.h"

#define HEAD_SLAB_STEP_BYTES 16
#define CHUNK_BYTES_FIRST    32
#define CHUNK_BYTES_MAX      2048 /* sealed when it grows past this, however few samples it holds */
#define SEALED_FIRST         4
#define SEALED_BATCH         16 /* places of chunks that a reader copies at once */

struct sealed_chunk {
    int64_t time_min_ms;
    int64_t time_max_ms;
    uint8_t *bytes;
    uint16_t len;
    struct chunk_info info;
};

/* A series' sealed chunks, oldest first; looked at under the series' lock only. */
struct sealed_list {
    uint32_t capacity;
    struct sealed_chunk chunks[];
};

struct head_series {
    struct chunk_open open;
    int64_t open_first_ms;
    struct sealed_list *sealed;
    uint32_t sealed_count;
    struct spin lock;
};
_Static_assert(sizeof(struct head_series) == 64, "one cache line a series");

struct head {
    int64_t window_ms;
    struct stable_array series;
    struct slab slab;
    uint64_t list_bytes;
    int64_t drop_min_ms; /* oldest sample left by the head_drop under way; INT64_MAX otherwise too */
    atomic_uint_fast32_t slot_end; /* slots below it have a place */
    atomic_uint_fast64_t memory_bytes;
    atomic_int_fast64_t time_min_ms;
    atomic_int_fast64_t time_max_ms;
};

int head_new(int64_t window_ms, struct head **out) {
    ASSERT(window_ms > 0);
    struct head *head = mem_zalloc(sizeof *head);
    if (head == NULL)
        return STATUS_NO_MEMORY;
    head->window_ms = window_ms;
    stable_array_init(&head->series, sizeof(struct head_series));
    slab_init(&head->slab, HEAD_SLAB_STEP_BYTES);
    head->drop_min_ms = INT64_MAX;
    atomic_init(&head->time_min_ms, INT64_MAX);
    atomic_init(&head->time_max_ms, INT64_MIN);
    *out = head;
    return STATUS_OK;
}

static struct head_series *series_at(struct head *head, uint32_t slot) {
    return stable_array_at(&head->series, slot);
}

void head_free(struct head *head) {
    if (head == NULL)
        return;
    uint32_t end = (uint32_t)atomic_load(&head->slot_end);
    for (uint32_t slot = 0; slot < end; slot++) {
        struct head_series *series = series_at(head, slot);
        slab_free(&head->slab, series->open.bytes, series->open.capacity);
        for (uint32_t i = 0; i < series->sealed_count; i++)
            slab_free(&head->slab, series->sealed->chunks[i].bytes, series->sealed->chunks[i].len);
        mem_free(series->sealed);
    }
    slab_release(&head->slab);
    stable_array_release(&head->series);
    mem_free(head);
}

static uint8_t *chunk_grow(void *context, uint8_t *old, size_t old_capacity, size_t used, size_t bytes,
                           size_t *capacity) {
    struct slab *slab = context;
    size_t want = old_capacity == 0 ? CHUNK_BYTES_FIRST : old_capacity + old_capacity / 2;
    if (want < bytes)
        want = bytes;
    want = slab_size(slab, want);
    uint8_t *grown = slab_alloc(slab, want);
    if (grown == NULL)
        return NULL;
    if (used > 0)
        memcpy(grown, old, used);
    slab_free(slab, old, old_capacity);
    *capacity = want;
    return grown;
}

static int sealed_reserve(struct head *head, struct head_series *series) {
    uint32_t capacity = series->sealed == NULL ? 0 : series->sealed->capacity;
    if (series->sealed_count < capacity)
        return STATUS_OK;
    uint32_t larger = capacity == 0 ? SEALED_FIRST : capacity * 2;
    size_t bytes = sizeof(struct sealed_list) + larger * sizeof(struct sealed_chunk);
    struct sealed_list *list = mem_realloc(series->sealed, bytes);
    if (list == NULL)
        return STATUS_NO_MEMORY;
    list->capacity = larger;
    series->sealed = list;
    head->list_bytes +=
        (larger - capacity) * sizeof(struct sealed_chunk) + (capacity == 0 ? sizeof(struct sealed_list) : 0);
    return STATUS_OK;
}

/* Moves the open chunk to the sealed ones, in a piece of just its size. Under the series' lock. */
static int seal(struct head *head, struct head_series *series) {
    int status = sealed_reserve(head, series);
    if (status < 0)
        return status;
    struct slice bytes = chunk_bytes(&series->open);
    uint8_t *kept = slab_alloc(&head->slab, bytes.len);
    if (kept == NULL)
        return STATUS_NO_MEMORY;
    memcpy(kept, bytes.data, bytes.len);
    series->sealed->chunks[series->sealed_count++] =
        (struct sealed_chunk){.time_min_ms = series->open_first_ms,
                              .time_max_ms = series->open.time_ms,
                              .bytes = kept,
                              .len = (uint16_t)bytes.len,
                              .info = series->open.info};
    slab_free(&head->slab, series->open.bytes, series->open.capacity);
    series->open = (struct chunk_open){0};
    metric_add(METRIC_head_chunks_sealed, 1);
    return STATUS_OK;
}

static int64_t window_of(const struct head *head, int64_t time_ms) {
    int64_t window = time_ms / head->window_ms;
    return time_ms % head->window_ms < 0 ? window - 1 : window;
}

/* Looks for a sample with this time in what is stored: STATUS_OK with *found_bits, or STATUS_NOT_FOUND. */
static int stored_find(struct head_series *series, int64_t time_ms, uint64_t *found_bits) {
    struct sample_columns columns = {0};
    int status = STATUS_OK;
    if (!chunk_is_empty(&series->open) && time_ms >= series->open_first_ms) {
        status = chunk_decode(chunk_bytes(&series->open), series->open.info, time_ms, time_ms, &columns);
    } else {
        uint32_t low = 0, high = series->sealed_count;
        while (low < high) {
            uint32_t middle = low + (high - low) / 2;
            if (series->sealed->chunks[middle].time_max_ms < time_ms)
                low = middle + 1;
            else
                high = middle;
        }
        if (low < series->sealed_count && series->sealed->chunks[low].time_min_ms <= time_ms) {
            const struct sealed_chunk *chunk = &series->sealed->chunks[low];
            status =
                chunk_decode(slice_of(chunk->bytes, chunk->len), chunk->info, time_ms, time_ms, &columns);
        }
    }
    if (status >= 0 && columns.count == 0)
        status = STATUS_NOT_FOUND;
    if (status == STATUS_OK)
        memcpy(found_bits, &columns.values[0], sizeof *found_bits);
    sample_columns_release(&columns);
    return status;
}

static int64_t series_first_ms(const struct head_series *series) {
    return series->sealed_count > 0 ? series->sealed->chunks[0].time_min_ms : series->open_first_ms;
}

static int64_t series_last_ms(const struct head_series *series) {
    return chunk_is_empty(&series->open) ? series->sealed->chunks[series->sealed_count - 1].time_max_ms
                                         : series->open.time_ms;
}

static bool series_is_empty(const struct head_series *series) {
    return chunk_is_empty(&series->open) && series->sealed_count == 0;
}

/* Under the series' lock. */
static int series_apply(struct head *head, struct head_series *series, struct sample sample, int64_t start_ms,
                        int64_t cut_ms, enum head_verdict *verdict, uint64_t *existing_bits) {
    bool empty = series_is_empty(series);
    if (sample.time_ms < cut_ms || (!empty && sample.time_ms <= series_last_ms(series))) {
        uint64_t found = 0;
        int status = empty ? STATUS_NOT_FOUND : stored_find(series, sample.time_ms, &found);
        if (status < 0 && status != STATUS_NOT_FOUND)
            return status;
        *verdict = HEAD_LATE;
        if (status == STATUS_OK) {
            *existing_bits = found;
            *verdict = found == sample.value_bits ? HEAD_EQUAL : HEAD_CONFLICT;
        }
        return STATUS_OK;
    }
    if (!chunk_is_empty(&series->open) &&
        (chunk_is_full(&series->open) || series->open.bit_count / 8 >= CHUNK_BYTES_MAX ||
         window_of(head, series->open_first_ms) != window_of(head, sample.time_ms))) {
        int status = seal(head, series);
        if (status < 0)
            return status;
    }
    bool first = chunk_is_empty(&series->open);
    int status = chunk_append(&series->open, sample, start_ms, chunk_grow, &head->slab);
    if (status < 0)
        return status;
    if (first)
        series->open_first_ms = sample.time_ms;
    *verdict = HEAD_STORED;
    return STATUS_OK;
}

int head_apply(struct head *head, uint32_t slot, struct sample sample, int64_t start_ms, int64_t cut_ms,
               enum head_verdict *verdict, uint64_t *existing_bits) {
    uint_fast32_t end = atomic_load_explicit(&head->slot_end, memory_order_relaxed);
    if (slot >= end) {
        /* Slots are dense but may be applied in any order: every segment below must exist too. */
        for (uint32_t at = (uint32_t)end; at <= slot; at++) {
            int status = stable_array_ensure(&head->series, at);
            if (status < 0)
                return status;
        }
        atomic_store_explicit(&head->slot_end, slot + 1, memory_order_release);
    }
    struct head_series *series = series_at(head, slot);
    spin_lock(&series->lock);
    int status = series_apply(head, series, sample, start_ms, cut_ms, verdict, existing_bits);
    spin_unlock(&series->lock);
    if (status == STATUS_OK && *verdict == HEAD_STORED) {
        if (sample.time_ms < head->drop_min_ms)
            head->drop_min_ms = sample.time_ms;
        if (sample.time_ms < atomic_load_explicit(&head->time_min_ms, memory_order_relaxed))
            atomic_store_explicit(&head->time_min_ms, sample.time_ms, memory_order_relaxed);
        if (sample.time_ms > atomic_load_explicit(&head->time_max_ms, memory_order_relaxed))
            atomic_store_explicit(&head->time_max_ms, sample.time_ms, memory_order_relaxed);
        atomic_store_explicit(&head->memory_bytes, slab_memory_bytes(&head->slab) + head->list_bytes,
                              memory_order_relaxed);
    }
    return status;
}

/* The slot's series, or NULL if nothing was ever applied to it. */
static struct head_series *series_known(struct head *head, uint32_t slot) {
    return slot < atomic_load_explicit(&head->slot_end, memory_order_acquire) ? series_at(head, slot) : NULL;
}

bool head_overlaps(struct head *head, uint32_t slot, int64_t time_min_ms, int64_t time_max_ms) {
    struct head_series *series = series_known(head, slot);
    if (series == NULL)
        return false;
    spin_lock(&series->lock);
    bool overlaps = false;
    if (!series_is_empty(series))
        overlaps = series_first_ms(series) <= time_max_ms && series_last_ms(series) >= time_min_ms;
    spin_unlock(&series->lock);
    return overlaps;
}

int head_read(struct head *head, uint32_t slot, int64_t time_min_ms, int64_t time_max_ms,
              struct sample_columns *columns) {
    struct head_series *series = series_known(head, slot);
    if (series == NULL)
        return STATUS_OK;

    uint8_t open_bytes[UINT16_MAX / 8 + 1];
    size_t open_len = 0;
    struct chunk_info open_info = {0};
    int status = STATUS_OK;
    struct sealed_chunk sealed[SEALED_BATCH];
    uint32_t sealed_count;
    bool more = true;
    int64_t from_ms = time_min_ms;
    while (more) {
        sealed_count = 0;
        more = false;
        spin_lock(&series->lock);
        for (uint32_t i = 0; i < series->sealed_count; i++) {
            const struct sealed_chunk *chunk = &series->sealed->chunks[i];
            if (chunk->time_max_ms < from_ms || chunk->time_min_ms > time_max_ms)
                continue;
            if (sealed_count == SEALED_BATCH) {
                more = true;
                break;
            }
            sealed[sealed_count++] = *chunk;
        }
        /* The open chunk goes with the last batch: what is sealed in between is found by the next look. */
        if (!more && !chunk_is_empty(&series->open) && series->open_first_ms <= time_max_ms &&
            series->open.time_ms >= time_min_ms) {
            struct slice bytes = chunk_bytes(&series->open);
            memcpy(open_bytes, bytes.data, bytes.len);
            open_len = bytes.len;
            open_info = series->open.info;
        }
        spin_unlock(&series->lock);
        for (uint32_t i = 0; i < sealed_count; i++)
            TRY(chunk_decode(slice_of(sealed[i].bytes, sealed[i].len), sealed[i].info, time_min_ms,
                             time_max_ms, columns));
        if (more)
            from_ms = sealed[sealed_count - 1].time_max_ms + 1;
    }
    if (open_len > 0)
        TRY(chunk_decode(slice_of(open_bytes, open_len), open_info, time_min_ms, time_max_ms, columns));
out:
    return status;
}

/* ---- cutting a window ---- */

int head_chunks_before(struct head *head, uint32_t slot, int64_t end_ms, struct head_chunk **chunks,
                       size_t *count, size_t *capacity, struct buf *open_bits) {
    struct head_series *series = series_known(head, slot);
    if (series == NULL)
        return STATUS_OK;
    /* Room first: nothing is allocated under the lock. Seen again under it: sealing may add one. */
    for (;;) {
        spin_lock(&series->lock);
        size_t need = *count + series->sealed_count + 1;
        if (need <= *capacity)
            break;
        spin_unlock(&series->lock);
        struct head_chunk *grown = mem_realloc(*chunks, (need + 8) * sizeof *grown);
        if (grown == NULL)
            return STATUS_NO_MEMORY;
        *chunks = grown;
        *capacity = need + 8;
    }
    for (uint32_t i = 0; i < series->sealed_count && series->sealed->chunks[i].time_max_ms < end_ms; i++) {
        const struct sealed_chunk *chunk = &series->sealed->chunks[i];
        (*chunks)[(*count)++] = (struct head_chunk){chunk->time_min_ms, chunk->time_max_ms, chunk->info,
                                                    slice_of(chunk->bytes, chunk->len)};
    }
    uint8_t bits[UINT16_MAX / 8 + 1];
    size_t bits_len = 0;
    struct head_chunk open = {0};
    if (!chunk_is_empty(&series->open) && series->open.time_ms < end_ms) {
        struct slice bytes = chunk_bytes(&series->open);
        memcpy(bits, bytes.data, bytes.len);
        bits_len = bytes.len;
        open = (struct head_chunk){series->open_first_ms, series->open.time_ms, series->open.info, {0}};
    }
    spin_unlock(&series->lock);
    if (bits_len > 0) {
        buf_clear(open_bits);
        buf_append(open_bits, bits, bits_len);
        if (open_bits->failed)
            return STATUS_NO_MEMORY;
        open.bits = buf_slice(open_bits);
        (*chunks)[(*count)++] = open;
    }
    return STATUS_OK;
}

static void series_drop(struct head *head, struct head_series *series, int64_t end_ms) {
    spin_lock(&series->lock);
    uint32_t gone = 0;
    while (gone < series->sealed_count && series->sealed->chunks[gone].time_max_ms < end_ms) {
        slab_free(&head->slab, series->sealed->chunks[gone].bytes, series->sealed->chunks[gone].len);
        gone++;
    }
    series->sealed_count -= gone;
    if (series->sealed_count > 0) {
        memmove(series->sealed->chunks, series->sealed->chunks + gone,
                series->sealed_count * sizeof series->sealed->chunks[0]);
    } else if (series->sealed != NULL) {
        head->list_bytes -=
            sizeof(struct sealed_list) + series->sealed->capacity * sizeof(struct sealed_chunk);
        mem_free(series->sealed);
        series->sealed = NULL;
    }
    if (!chunk_is_empty(&series->open) && series->open.time_ms < end_ms) {
        slab_free(&head->slab, series->open.bytes, series->open.capacity);
        series->open = (struct chunk_open){0};
    }
    if (!series_is_empty(series)) {
        int64_t first_ms = series_first_ms(series);
        if (first_ms < head->drop_min_ms)
            head->drop_min_ms = first_ms;
    }
    spin_unlock(&series->lock);
}

uint32_t head_drop(struct head *head, uint32_t slot, uint32_t slots, int64_t end_ms) {
    uint32_t end = (uint32_t)atomic_load_explicit(&head->slot_end, memory_order_relaxed);
    if (slot == 0)
        head->drop_min_ms = INT64_MAX;
    for (; slot < end && slots > 0; slot++, slots--)
        series_drop(head, series_at(head, slot), end_ms);
    if (slot < end)
        return slot;
    atomic_store_explicit(&head->time_min_ms, head->drop_min_ms, memory_order_relaxed);
    return UINT32_MAX;
}

uint64_t head_memory_bytes(struct head *head) {
    return atomic_load_explicit(&head->memory_bytes, memory_order_relaxed) +
           atomic_load_explicit(&head->slot_end, memory_order_relaxed) * sizeof(struct head_series);
}

void head_range(struct head *head, int64_t *time_min_ms, int64_t *time_max_ms) {
    *time_min_ms = atomic_load_explicit(&head->time_min_ms, memory_order_relaxed);
    *time_max_ms = atomic_load_explicit(&head->time_max_ms, memory_order_relaxed);
}
