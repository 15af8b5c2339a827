/* head.c: open chunks by slot, and the way to the sealed ones. */
#include "storage/head/head.h"

#include <stdatomic.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/metrics.h"
#include "base/slab.h"
#include "base/spin.h"
#include "base/stable_array.h"
#include "storage/chunk/chunk.h"

#define HEAD_SLAB_STEP_BYTES 16
#define CHUNK_BYTES_FIRST    32
#define CHUNK_BYTES_MAX      2048 /* sealed before it outgrows this, however few samples it holds */
#define CHUNK_BYTES_MIN      128  /* all may have as much, however many there are */
#define CHUNK_SAMPLE_BYTES   12   /* most samples add less */
#define SEALED_BATCH         32   /* chunks of a walk that need no allocation */

struct head_series {
    struct chunk_open open;
    int64_t open_first_ms;
    chunk_ref sealed; /* the newest; older than the open chunk, which is empty beside it after a lack of
                         memory only */
    struct spin lock;
};
_Static_assert(sizeof(struct head_series) == 64, "one cache line a series");

struct head {
    struct head_options options;
    struct stable_array series;
    struct slab slab;
    size_t chunk_bytes_max; /* of an open chunk: its share of options.open_bytes_max */
    int64_t over_ms;
    atomic_uint_fast32_t slot_end; /* slots below it have a place */
    atomic_uint_fast64_t chunk_bytes;
    atomic_uint_fast64_t open_chunks; /* changed by the applying thread alone */
    atomic_int_fast64_t time_min_ms;
    atomic_int_fast64_t time_max_ms;
};

int head_new(const struct head_options *options, struct head **out) {
    ASSERT(options->window_ms > 0);
    ASSERT(options->open_bytes_max > 0);
    struct head *head = mem_zalloc(sizeof *head);
    if (head == NULL)
        return STATUS_NO_MEMORY;
    head->options = *options;
    head->over_ms = INT64_MIN;
    head->chunk_bytes_max = CHUNK_BYTES_MAX;
    stable_array_init(&head->series, sizeof(struct head_series));
    slab_init(&head->slab, HEAD_SLAB_STEP_BYTES);
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
    }
    slab_release(&head->slab);
    stable_array_release(&head->series);
    mem_free(head);
}

static uint8_t *chunk_grow(void *context, uint8_t *old, size_t old_capacity, size_t used, size_t bytes,
                           size_t *capacity) {
    struct head *head = context;
    size_t want = old_capacity == 0 ? CHUNK_BYTES_FIRST : old_capacity + old_capacity / 2;
    if (want > head->chunk_bytes_max)
        want = head->chunk_bytes_max;
    if (want < bytes)
        want = bytes;
    want = slab_size(&head->slab, want);
    uint8_t *grown = slab_alloc(&head->slab, want);
    if (grown == NULL)
        return NULL;
    if (used > 0)
        memcpy(grown, old, used);
    slab_free(&head->slab, old, old_capacity);
    *capacity = want;
    return grown;
}

static int64_t window_of(const struct head *head, int64_t time_ms) {
    int64_t window = time_ms / head->options.window_ms;
    return time_ms % head->options.window_ms < 0 ? window - 1 : window;
}

static void open_count(struct head *head, int change) {
    uint64_t count = atomic_load_explicit(&head->open_chunks, memory_order_relaxed) + (uint64_t)change;
    atomic_store_explicit(&head->open_chunks, count, memory_order_relaxed);
    uint64_t share = head->options.open_bytes_max / (count + 1);
    head->chunk_bytes_max = share < CHUNK_BYTES_MIN   ? CHUNK_BYTES_MIN
                            : share > CHUNK_BYTES_MAX ? CHUNK_BYTES_MAX
                                                      : (size_t)share;
}

/* Is the open chunk done with? The next sample's time may be in another window. */
static bool is_sealed_before(const struct head *head, const struct head_series *series, int64_t time_ms) {
    if (chunk_is_full(&series->open) || window_of(head, series->open_first_ms) != window_of(head, time_ms))
        return true;
    bool early = series->open.bit_count / 8u + CHUNK_SAMPLE_BYTES >= head->chunk_bytes_max;
    if (early)
        metric_add(METRIC_head_chunks_sealed_early, 1);
    return early;
}

/* Moves the open chunk to the chunk log. Under the series' lock. */
static int seal(struct head *head, struct head_series *series, uint32_t slot) {
    int64_t number = window_of(head, series->open_first_ms), begin_ms, end_ms;
    if (__builtin_mul_overflow(number, head->options.window_ms, &begin_ms))
        begin_ms = INT64_MIN;
    if (__builtin_mul_overflow(number + 1, head->options.window_ms, &end_ms))
        end_ms = INT64_MAX;
    const struct chunklog_chunk chunk = {.previous = series->sealed,
                                         .slot = slot,
                                         .time_min_ms = series->open_first_ms,
                                         .time_max_ms = series->open.time_ms,
                                         .info = series->open.info,
                                         .bits = chunk_bytes(&series->open)};
    unsigned partition = head->options.partition(head->options.context, slot);
    int status = chunklog_append(head->options.chunklog, begin_ms, end_ms, head->over_ms, partition, &chunk,
                                 &series->sealed);
    if (status < 0)
        return status;
    slab_free(&head->slab, series->open.bytes, series->open.capacity);
    series->open = (struct chunk_open){0};
    open_count(head, -1);
    metric_add(METRIC_head_chunks_sealed, 1);
    return STATUS_OK;
}

/* Where a walk over the sealed chunks begins. Under the series' lock. */
static struct chunklog_chunk walk_begin(const struct head_series *series) {
    return (struct chunklog_chunk){.previous = series->sealed,
                                   .time_min_ms =
                                       chunk_is_empty(&series->open) ? INT64_MAX : series->open_first_ms};
}

/* Goes from *chunk to the sealed one before it. STATUS_END as chunklog_read. One that is damaged, or does not
 * lead back in time (such a chain might never end), is passed over: what is before it is looked for. */
static int chunk_before(struct head *head, uint32_t slot, int64_t from_ms, struct chunklog_chunk *chunk,
                        struct head_damage *damage) {
    struct chunklog_chunk before;
    int status = chunklog_read(head->options.chunklog, chunk->previous, slot, from_ms, &before);
    bool first = chunk->bits.data == NULL && chunk->time_min_ms == INT64_MAX;
    if (status == STATUS_CORRUPT ||
        (status == STATUS_OK && before.time_max_ms >= chunk->time_min_ms && !first)) {
        if (damage->count++ == 0)
            damage->ref = chunk->previous;
        unsigned partition = head->options.partition(head->options.context, slot);
        status = chunklog_find(head->options.chunklog, partition, slot, from_ms, chunk->time_min_ms, &before);
    }
    if (status == STATUS_OK)
        *chunk = before;
    return status;
}

/* Looks for a sample with this time in what is stored from cut_ms on: STATUS_OK with *found_bits, or
 * STATUS_NOT_FOUND. */
static int stored_find(struct head *head, struct head_series *series, uint32_t slot, int64_t time_ms,
                       int64_t cut_ms, uint64_t *found_bits) {
    struct sample_columns columns = {0};
    int status = STATUS_OK;
    if (!chunk_is_empty(&series->open) && time_ms >= series->open_first_ms) {
        status = chunk_decode(chunk_bytes(&series->open), series->open.info, time_ms, time_ms, &columns);
    } else {
        struct chunklog_chunk chunk = walk_begin(series);
        struct head_damage damage = {0};
        do
            status = chunk_before(head, slot, time_ms > cut_ms ? time_ms : cut_ms, &chunk, &damage);
        while (status == STATUS_OK && chunk.time_min_ms > time_ms);
        if (status == STATUS_OK)
            status = chunk_decode(chunk.bits, chunk.info, time_ms, time_ms, &columns);
        if (status == STATUS_END || status == STATUS_CORRUPT) /* damaged: nothing is known of it any more */
            status = STATUS_NOT_FOUND;
    }
    if (status >= 0 && columns.count == 0)
        status = STATUS_NOT_FOUND;
    if (status == STATUS_OK)
        memcpy(found_bits, &columns.values[0], sizeof *found_bits);
    sample_columns_release(&columns);
    return status;
}

/* Is the time behind all that is sealed? There is no open chunk. Under the series' lock. */
static bool is_behind_sealed(struct head *head, const struct head_series *series, uint32_t slot,
                             int64_t time_ms, int64_t cut_ms) {
    struct chunklog_chunk last = walk_begin(series);
    struct head_damage damage = {0};
    return series->sealed == 0 || chunk_before(head, slot, cut_ms, &last, &damage) != STATUS_OK ||
           time_ms > last.time_max_ms;
}

/* Under the series' lock. */
static int series_apply(struct head *head, struct head_series *series, uint32_t slot, struct sample sample,
                        int64_t start_ms, int64_t cut_ms, enum head_verdict *verdict,
                        uint64_t *existing_bits) {
    bool empty = chunk_is_empty(&series->open);
    if (sample.time_ms < cut_ms) {
        *verdict = HEAD_LATE;
        return STATUS_OK;
    }
    bool ahead = empty ? is_behind_sealed(head, series, slot, sample.time_ms, cut_ms)
                       : sample.time_ms > series->open.time_ms;
    if (!ahead) {
        uint64_t found = 0;
        int status = stored_find(head, series, slot, sample.time_ms, cut_ms, &found);
        if (status < 0 && status != STATUS_NOT_FOUND)
            return status;
        *verdict = HEAD_LATE;
        if (status == STATUS_OK) {
            *existing_bits = found;
            *verdict = found == sample.value_bits ? HEAD_EQUAL : HEAD_CONFLICT;
        }
        return STATUS_OK;
    }
    if (!empty && is_sealed_before(head, series, sample.time_ms)) {
        int status = seal(head, series, slot);
        if (status < 0)
            return status;
        empty = true;
    }
    int status = chunk_append(&series->open, sample, start_ms, chunk_grow, head);
    if (status < 0)
        return status;
    if (empty) {
        series->open_first_ms = sample.time_ms;
        open_count(head, 1);
    }
    *verdict = HEAD_STORED;
    return STATUS_OK;
}

void head_over(struct head *head, int64_t over_ms) {
    head->over_ms = over_ms;
}

/* Makes the places of all slots up to this one. */
static int slot_ensure(struct head *head, uint32_t slot) {
    uint_fast32_t end = atomic_load_explicit(&head->slot_end, memory_order_relaxed);
    if (slot < end)
        return STATUS_OK;
    /* Slots are dense but may come in any order: every segment below must exist too. */
    for (uint32_t at = (uint32_t)end; at <= slot; at++) {
        int status = stable_array_ensure(&head->series, at);
        if (status < 0)
            return status;
    }
    atomic_store_explicit(&head->slot_end, slot + 1, memory_order_release);
    return STATUS_OK;
}

static void range_note(struct head *head, int64_t first_ms, int64_t last_ms) {
    if (first_ms < atomic_load_explicit(&head->time_min_ms, memory_order_relaxed))
        atomic_store_explicit(&head->time_min_ms, first_ms, memory_order_relaxed);
    if (last_ms > atomic_load_explicit(&head->time_max_ms, memory_order_relaxed))
        atomic_store_explicit(&head->time_max_ms, last_ms, memory_order_relaxed);
}

int head_apply(struct head *head, uint32_t slot, struct sample sample, int64_t start_ms, int64_t cut_ms,
               enum head_verdict *verdict, uint64_t *existing_bits) {
    int status = slot_ensure(head, slot);
    if (status < 0)
        return status;
    struct head_series *series = series_at(head, slot);
    spin_lock(&series->lock);
    status = series_apply(head, series, slot, sample, start_ms, cut_ms, verdict, existing_bits);
    spin_unlock(&series->lock);
    if (status == STATUS_OK && *verdict == HEAD_STORED) {
        range_note(head, sample.time_ms, sample.time_ms);
        atomic_store_explicit(&head->chunk_bytes, slab_memory_bytes(&head->slab), memory_order_relaxed);
    }
    return status;
}

/* The slot's series, or NULL if nothing was ever applied to it. */
static struct head_series *series_known(struct head *head, uint32_t slot) {
    return slot < atomic_load_explicit(&head->slot_end, memory_order_acquire) ? series_at(head, slot) : NULL;
}

void head_prefetch(struct head *head, uint32_t slot) {
    if (slot < atomic_load_explicit(&head->slot_end, memory_order_relaxed))
        __builtin_prefetch(series_at(head, slot), 1);
}

void head_prefetch_chunk(struct head *head, uint32_t slot) {
    if (slot < atomic_load_explicit(&head->slot_end, memory_order_relaxed)) {
        const struct chunk_open *open = &series_at(head, slot)->open;
        __builtin_prefetch(open->bytes + open->bit_count / 8, 1);
    }
}

bool head_overlaps(struct head *head, uint32_t slot, int64_t time_min_ms, int64_t time_max_ms) {
    struct head_series *series = series_known(head, slot);
    if (series == NULL)
        return false;
    spin_lock(&series->lock);
    bool empty = chunk_is_empty(&series->open);
    int64_t first_ms = series->open_first_ms, last_ms = series->open.time_ms;
    struct chunklog_chunk chunk = walk_begin(series);
    struct head_damage damage = {0};
    spin_unlock(&series->lock);
    if (!empty && last_ms < time_min_ms)
        return false;
    if (!empty && first_ms <= time_max_ms)
        return true;
    do {
        if (chunk_before(head, slot, time_min_ms, &chunk, &damage) != STATUS_OK)
            return damage.count > 0; /* whoever reads it is told */
    } while (chunk.time_min_ms > time_max_ms);
    return true;
}

/* A walk from a series' newest chunk to older ones. */
struct walk {
    struct chunklog_chunk first[SEALED_BATCH];
    struct chunklog_chunk *chunks; /* newest first */
    size_t count;
    size_t capacity;
    struct head_damage damage;
    struct chunk_info open_info; /* of the open chunk's copy */
    int64_t open_first_ms;
    int64_t open_last_ms;
    size_t open_len;
    uint8_t open_bytes[UINT16_MAX / 8 + 1];
};

static void walk_release(struct walk *walk) {
    if (walk->chunks != walk->first)
        mem_free(walk->chunks);
}

/* Copies the open chunk if it overlaps [min, max], and collects the sealed ones that do. */
static int walk_run(struct head *head, struct head_series *series, uint32_t slot, int64_t time_min_ms,
                    int64_t time_max_ms, struct walk *walk) {
    walk->chunks = walk->first;
    walk->count = 0;
    walk->capacity = SEALED_BATCH;
    walk->damage = (struct head_damage){0};
    walk->open_len = 0;
    spin_lock(&series->lock);
    struct chunklog_chunk chunk = walk_begin(series);
    if (!chunk_is_empty(&series->open) && series->open_first_ms <= time_max_ms &&
        series->open.time_ms >= time_min_ms) {
        struct slice bytes = chunk_bytes(&series->open);
        memcpy(walk->open_bytes, bytes.data, bytes.len);
        walk->open_len = bytes.len;
        walk->open_info = series->open.info;
        walk->open_first_ms = series->open_first_ms;
        walk->open_last_ms = series->open.time_ms;
    }
    spin_unlock(&series->lock);
    for (;;) {
        int status = chunk_before(head, slot, time_min_ms, &chunk, &walk->damage);
        if (status != STATUS_OK)
            return STATUS_OK;
        if (chunk.time_min_ms > time_max_ms)
            continue;
        if (walk->count == walk->capacity) {
            struct chunklog_chunk *grown = mem_alloc(walk->capacity * 2 * sizeof *grown);
            if (grown == NULL)
                return STATUS_NO_MEMORY;
            memcpy(grown, walk->chunks, walk->count * sizeof *grown);
            walk_release(walk);
            walk->chunks = grown;
            walk->capacity *= 2;
        }
        walk->chunks[walk->count++] = chunk;
    }
}

bool head_is_late(struct head *head, uint32_t slot, int64_t time_ms) {
    struct head_series *series = series_known(head, slot);
    if (series == NULL)
        return false;
    spin_lock(&series->lock);
    bool late = !chunk_is_empty(&series->open) && time_ms < series->open.time_ms;
    spin_unlock(&series->lock);
    return late;
}

bool head_read_newest(struct head *head, uint32_t slot, int64_t time_min_ms, int64_t time_max_ms,
                      struct sample *out) {
    struct head_series *series = series_known(head, slot);
    if (series == NULL)
        return false;
    spin_lock(&series->lock);
    bool has = !chunk_is_empty(&series->open) && series->open.time_ms >= time_min_ms &&
               series->open.time_ms <= time_max_ms;
    if (has)
        *out = (struct sample){series->open.time_ms, chunk_last_value_bits(&series->open)};
    spin_unlock(&series->lock);
    return has;
}

bool head_slot_last(struct head *head, uint32_t slot, int64_t *time_ms) {
    struct head_series *series = series_known(head, slot);
    if (series == NULL)
        return false;
    spin_lock(&series->lock);
    bool empty = chunk_is_empty(&series->open);
    int64_t last_ms = series->open.time_ms;
    struct chunklog_chunk chunk = {.previous = series->sealed};
    spin_unlock(&series->lock);
    if (empty) {
        if (chunklog_read(head->options.chunklog, chunk.previous, slot, INT64_MIN, &chunk) != STATUS_OK)
            return false;
        last_ms = chunk.time_max_ms;
    }
    *time_ms = last_ms;
    return true;
}

int head_read(struct head *head, uint32_t slot, int64_t time_min_ms, int64_t time_max_ms,
              struct sample_columns *columns, struct head_damage *damage_out) {
    struct head_series *series = series_known(head, slot);
    struct head_damage damage = {0};
    int status = STATUS_OK;
    if (series != NULL) {
        struct walk walk;
        TRY(walk_run(head, series, slot, time_min_ms, time_max_ms, &walk));
        damage = walk.damage;
        for (size_t i = walk.count; i-- > 0 && status == STATUS_OK;) {
            status =
                chunk_decode(walk.chunks[i].bits, walk.chunks[i].info, time_min_ms, time_max_ms, columns);
            damage.count += status == STATUS_CORRUPT;
            if (status == STATUS_CORRUPT)
                status = STATUS_OK;
        }
        if (walk.open_len > 0 && status == STATUS_OK)
            status = chunk_decode(slice_of(walk.open_bytes, walk.open_len), walk.open_info, time_min_ms,
                                  time_max_ms, columns);
        walk_release(&walk);
    }
    *damage_out = damage;
out:
    return status;
}

/* ---- cutting a window ---- */

int head_chunks(struct head *head, uint32_t slot, int64_t begin_ms, int64_t end_ms,
                struct head_chunk **chunks, size_t *count, size_t *capacity, struct buf *open_bits,
                struct head_damage *damage_out) {
    struct head_series *series = series_known(head, slot);
    int status = STATUS_OK;
    *damage_out = (struct head_damage){0};
    if (series == NULL)
        return STATUS_OK;
    struct walk walk;
    TRY(walk_run(head, series, slot, begin_ms, end_ms == INT64_MAX ? end_ms : end_ms - 1, &walk));
    size_t need = *count + walk.count + 1;
    if (need > *capacity) {
        struct head_chunk *grown = mem_realloc(*chunks, (need + 8) * sizeof *grown);
        if (grown == NULL) {
            status = STATUS_NO_MEMORY;
            goto out;
        }
        *chunks = grown;
        *capacity = need + 8;
    }
    if (walk.open_len > 0) {
        buf_clear(open_bits);
        buf_append(open_bits, walk.open_bytes, walk.open_len);
        if (open_bits->failed) {
            status = STATUS_NO_MEMORY;
            goto out;
        }
    }
    for (size_t i = walk.count; i-- > 0;)
        (*chunks)[(*count)++] = (struct head_chunk){walk.chunks[i].time_min_ms, walk.chunks[i].time_max_ms,
                                                    walk.chunks[i].info, walk.chunks[i].bits};
    if (walk.open_len > 0)
        (*chunks)[(*count)++] =
            (struct head_chunk){walk.open_first_ms, walk.open_last_ms, walk.open_info, buf_slice(open_bits)};
    *damage_out = walk.damage;
out:
    walk_release(&walk);
    return status;
}

static void series_drop(struct head *head, struct head_series *series, uint32_t slot, int64_t end_ms) {
    struct chunklog_chunk chunk;
    spin_lock(&series->lock);
    /* What is sealed is older than what is open. */
    if (!chunk_is_empty(&series->open) && series->open.time_ms < end_ms) {
        slab_free(&head->slab, series->open.bytes, series->open.capacity);
        series->open = (struct chunk_open){0};
        series->sealed = 0;
        open_count(head, -1);
    } else if (chunk_is_empty(&series->open) && series->sealed != 0 &&
               chunklog_read(head->options.chunklog, series->sealed, slot, end_ms, &chunk) == STATUS_END) {
        series->sealed = 0;
    }
    spin_unlock(&series->lock);
}

uint32_t head_drop(struct head *head, uint32_t slot, uint32_t slots, int64_t end_ms, int64_t oldest_ms) {
    uint32_t end = (uint32_t)atomic_load_explicit(&head->slot_end, memory_order_relaxed);
    for (; slot < end && slots > 0; slot++, slots--)
        series_drop(head, series_at(head, slot), slot, end_ms);
    if (slot < end)
        return slot;
    atomic_store_explicit(&head->time_min_ms, oldest_ms, memory_order_relaxed);
    return UINT32_MAX;
}

/* ---- snapshots ---- */

#define STATE_BYTES 17

bool head_state_write(struct head *head, uint32_t slot, struct buf *out) {
    struct head_series *series = series_known(head, slot);
    if (series == NULL || (chunk_is_empty(&series->open) && series->sealed == 0))
        return false;
    uint8_t fixed[STATE_BYTES];
    store_u64(fixed, series->sealed);
    store_u64(fixed + 8, (uint64_t)series->open_first_ms);
    fixed[16] = !chunk_is_empty(&series->open);
    buf_append(out, fixed, sizeof fixed);
    if (!chunk_is_empty(&series->open))
        chunk_state_write(&series->open, out);
    return true;
}

int head_state_read(struct head *head, uint32_t slot, int64_t cut_ms, struct slice *bytes) {
    if (bytes->len < STATE_BYTES)
        return STATUS_CORRUPT;
    const uint8_t *p = bytes->data;
    struct slice rest = slice_of(p + STATE_BYTES, bytes->len - STATE_BYTES);
    struct chunk_open open = {0};
    int status = slot_ensure(head, slot);
    if (status < 0)
        return status;
    struct head_series *series = series_at(head, slot);
    ASSERT(chunk_is_empty(&series->open) && series->sealed == 0);
    if (p[16] != 0) {
        status = chunk_state_read(&rest, chunk_grow, head, &open);
        if (status < 0)
            return status;
    }
    if (p[16] != 0 && open.time_ms < cut_ms) {
        slab_free(&head->slab, open.bytes, open.capacity);
    } else {
        series->sealed = load_u64(p);
        series->open = open;
        series->open_first_ms = (int64_t)load_u64(p + 8);
        if (p[16] != 0) {
            range_note(head, series->open_first_ms, open.time_ms);
            open_count(head, 1);
        }
    }
    atomic_store_explicit(&head->chunk_bytes, slab_memory_bytes(&head->slab), memory_order_relaxed);
    *bytes = rest;
    return STATUS_OK;
}

int head_state_look(struct slice *bytes, struct head_state *out) {
    if (bytes->len < STATE_BYTES)
        return STATUS_CORRUPT;
    const uint8_t *p = bytes->data;
    struct slice rest = slice_of(p + STATE_BYTES, bytes->len - STATE_BYTES);
    struct head_state state = {.sealed = load_u64(p), .open_first_ms = (int64_t)load_u64(p + 8)};
    int status = p[16] != 0 ? chunk_state_look(&rest, &state.open, &state.bits) : STATUS_OK;
    if (status < 0)
        return status;
    *bytes = rest;
    *out = state;
    return STATUS_OK;
}

void head_forget(struct head *head, uint32_t slot) {
    struct head_series *series = series_known(head, slot);
    if (series == NULL)
        return;
    spin_lock(&series->lock);
    ASSERT(chunk_is_empty(&series->open));
    series->sealed = 0;
    spin_unlock(&series->lock);
}

void head_memory(struct head *head, struct head_memory *out) {
    *out = (struct head_memory){
        .series_bytes = stable_array_bytes(
            &head->series, (uint32_t)atomic_load_explicit(&head->slot_end, memory_order_relaxed)),
        .chunk_bytes = atomic_load_explicit(&head->chunk_bytes, memory_order_relaxed),
        .open_chunks = atomic_load_explicit(&head->open_chunks, memory_order_relaxed)};
}

void head_range(struct head *head, int64_t *time_min_ms, int64_t *time_max_ms) {
    *time_min_ms = atomic_load_explicit(&head->time_min_ms, memory_order_relaxed);
    *time_max_ms = atomic_load_explicit(&head->time_max_ms, memory_order_relaxed);
}
